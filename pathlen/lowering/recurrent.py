"""Recurrent layers, unrolled step by step into cells: each step has units of its own.

torch decomposes them too, but lets the input matrices of a layer read all steps in one product;
in a stack, a step of the second layer would then read every step of the first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import linear

from pathlen.lowering.decompose import EQUIVALENTS

Tensors = Sequence[torch.Tensor]
Step = Callable[[torch.Tensor, list[torch.Tensor], Tensors], list[torch.Tensor]]


def _unroll(
    step: Step,
    x: torch.Tensor,
    states: list[torch.Tensor],
    parameters: Tensors,
    options: tuple[Any, ...],
) -> list[torch.Tensor]:
    """All layers and directions of a recurrent layer.

    Args:
        step: the cell: (input, states before, its parameters) to the states after; the first
            of them is its output.
        x: # (steps, batch, features), or batch first
        states: the first states, one tensor a kind of state.  # (layers * directions, batch, size)
        parameters: of all cells, one after another.
        options: the last arguments of torch's operators: has_biases, num_layers, dropout, train,
            bidirectional, batch_first.

    Returns:
        The output, and the last states.
    """
    _, layers, _, _, bidirectional, batch_first = options
    directions = 2 if bidirectional else 1
    own = len(parameters) // (layers * directions)
    steps = list(x.unbind(1 if batch_first else 0))
    last: list[list[torch.Tensor]] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            cell = layer * directions + direction
            held = [state[cell] for state in states]
            read = steps[::-1] if direction else steps
            written = []
            for item in read:
                held = step(item, held, parameters[cell * own : (cell + 1) * own])
                written.append(held[0])
            outputs.append(written[::-1] if direction else written)
            last.append(held)
        steps = [
            torch.cat(parts, -1) if len(parts) > 1 else parts[0]
            for parts in zip(*outputs, strict=True)
        ]
    output = torch.stack(steps, 1 if batch_first else 0)
    return [output, *(torch.stack(kind) for kind in zip(*last, strict=True))]


def _lstm_step(x: torch.Tensor, held: list[torch.Tensor], own: Tensors) -> list[torch.Tensor]:
    """One step of an LSTM; the last of an odd number of parameters projects the output."""
    if len(own) % 2 == 0:
        return list(torch.lstm_cell(x, held, *own))
    biases = own[2:4] if len(own) > 3 else (None, None)  # the cell of torch knows no projection
    gates = linear(x, own[0], biases[0]) + linear(held[0], own[1], biases[1])
    enter, forget, new, out = gates.chunk(4, -1)
    cell = torch.sigmoid(forget) * held[1] + torch.sigmoid(enter) * torch.tanh(new)
    return [linear(torch.sigmoid(out) * torch.tanh(cell), own[-1]), cell]


def _simple_step(cell: Callable[..., torch.Tensor]) -> Step:
    def step(x: torch.Tensor, held: list[torch.Tensor], own: Tensors) -> list[torch.Tensor]:
        return [cell(x, held[0], *own)]

    return step


def _lstm(x: torch.Tensor, states: Tensors, parameters: Tensors, *options: Any) -> Any:
    return tuple(_unroll(_lstm_step, x, list(states), parameters, options))


def _simple(cell: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    def layer(x: torch.Tensor, state: torch.Tensor, parameters: Tensors, *options: Any) -> Any:
        return tuple(_unroll(_simple_step(cell), x, [state], parameters, options))

    return layer


EQUIVALENTS["aten.lstm.input"] = _lstm
EQUIVALENTS["aten.gru.input"] = _simple(torch.gru_cell)
EQUIVALENTS["aten.rnn_tanh.input"] = _simple(torch.rnn_tanh_cell)
EQUIVALENTS["aten.rnn_relu.input"] = _simple(torch.rnn_relu_cell)
