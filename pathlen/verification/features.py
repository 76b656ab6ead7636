"""Fifth check: the units of each input are told apart by some parameter that reads it.

A layer's weight W[o, f] multiplies the elements of an input that have feature f, at whatever
position. So what the derivative of an output by each parameter changes by, when an element of an
input is moved, shows which entries of which parameters the element meets, whatever the layer is
called and however it is written. It is taken where the input is all but 0: there a bent activation
lets an element meet no weights of other elements, and a parameter that matters even so does not
read the input.

Elements that meet the same index of an axis of a parameter are one feature to it. The features that
the graph has must be those of one of the parameters that read the input.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx

from pathlen.lowering.values import Value
from pathlen.tracing import Recording, module_path
from pathlen.verification.draws import Draws
from pathlen.verification.replay import Held, Replay, wide
from pathlen.verification.tally import Tally
from pathlen.verification.verdict import Check, Offence
from pathlen.verification.whole import drawn_parameter

_DRAWS = 4
_OFTEN = 2  # draws: one may be a fluke, and in some a ReLU is dead
_LINE = 10  # elements that are looked at along each axis of an input, from two places
_SMALL = 1e-12  # inputs: what only a bend of an activation shows is smaller than _ZERO by far
_STEP = 1e-3 * _SMALL  # so little that a maximum of such inputs stays the one that it is
_ZERO = 1e-5
_CONVOLUTION = 3  # axes of the weight of a convolution, at least: within its kernel are positions
_MOST_AXES = 5
Partition = tuple[int, ...]  # the class of each element, numbered as they appear; -1 for none


class Features:
    """Checks the units of the inputs.

    Args:
        recording: the program.
        values: of the inputs, by placeholder, as the lowering has them.
        input_axis: inputs whose features somebody chose are left out; see `pathlen.trace`.
        seed: of the random draws.
    """

    def __init__(
        self,
        recording: Recording,
        values: Mapping[fx.Node, Value],
        input_axis: int | Mapping[str, int] | None,
        seed: int,
    ) -> None:
        self._recording = recording
        self._values = values
        self._chosen = input_axis
        self._draws = Draws(seed)
        self._tally = Tally(
            "input features",
            "the units of an input are those that a parameter reading it tells apart",
            "elements of inputs",
        )

    def check(self, inputs: list[Any]) -> Check:
        """Look at each floating-point input with two or more axes.

        Args:
            inputs: the tensors that the model was given, in the order of the placeholders.
        """
        nodes = [node for node in self._recording.graph.nodes if node.op == "placeholder"]
        for number, (node, tensor) in enumerate(zip(nodes, inputs, strict=True)):
            name = str(node.meta.get("input_name", node.name))
            if not isinstance(tensor, torch.Tensor) or not tensor.numel():
                continue
            reason = self._reason_to_skip(name, tensor)
            if reason:
                self._tally.note(f"{reason}, nothing to compare", name)
                self._tally.add(tensor.numel())
                continue
            try:
                self._look(node, name, inputs, number)
            except Exception as error:  # operators raise whatever they raise
                self._tally.leave(error, name)
        return self._tally.check()

    def _reason_to_skip(self, name: str, tensor: torch.Tensor) -> str:
        if not tensor.is_floating_point():
            return "not of real numbers"
        if tensor.ndim < 2:  # one axis leaves no choice
            return "of one axis"
        chosen = self._chosen
        is_chosen = name in chosen if isinstance(chosen, Mapping) else chosen is not None
        return "chosen by input_axis" if is_chosen else ""

    def _look(self, node: fx.Node, name: str, inputs: list[Any], number: int) -> None:
        shape = tuple(inputs[number].shape)
        elements = _lines(shape)
        labels = self._values[node].labels.expand(shape)
        units = [int(labels[element]) for element in elements]
        found: dict[str, list[Partition]] = {}
        for shifted in (True, False):  # a shift of the input itself hides what reads it
            for parameter, entries in self._met(inputs, number, elements, shifted=shifted).items():
                for partition in () if _is_a_scale(entries) else _partitions(entries):
                    if _agrees(units, partition):
                        self._tally.add(len(elements))
                        return
                    if max(partition) > 0:
                        found.setdefault(parameter, []).append(partition)
        if not found:
            self._tally.note("no parameter tells features apart, nothing to compare", name)
            self._tally.add(len(elements))
            return
        told = "; ".join(
            f"{parameter!r} tells apart {_axes(elements, partitions[0])}"
            for parameter, partitions in list(found.items())[:3]
        )
        what = f"the units of input {name!r} are {_axes(elements, _numbered(units))}, but {told}"
        self._tally.add(
            len(elements),
            len(elements),
            Offence("input", module_path(node), shape, what, float(len(elements))),
        )

    def _met(
        self,
        inputs: list[Any],
        number: int,
        elements: list[tuple[int, ...]],
        *,
        shifted: bool,
    ) -> dict[str, np.ndarray]:
        """Which entries of each parameter elements of an input meet, in two draws or more.

        Parameters that matter where the input is 0 read something else, and are left out.

        Args:
            inputs: see `check`.
            number: of the input.
            elements: to look at.
            shifted: whether vectors are drawn as well, instead of the model's own: where biases
                are 0, all that the model computes of 0 is 0.

        Returns:
            For each parameter, whether an element meets an entry.  # bool[elements, *parameter]
        """
        times: dict[str, np.ndarray] = {}
        later: set[str] = set()
        for draw in range(1, _DRAWS + 1):
            given = [wide(t) if isinstance(t, torch.Tensor) else t for t in inputs]
            given = [self._draws.normal(t) if _is_floating(t) else t for t in given]
            given[number] *= _SMALL
            slopes = _Slopes(self._recording, self._draws, draw, shifted=shifted)
            leaf = given[number].requires_grad_()
            first = slopes.at(given, self._layers(), leaf)
            later |= _that_matter(first)
            given[number] = leaf.detach()
            readers = [name for name in first if name and name not in later]
            for row, element in enumerate(elements if readers else ()):
                moved = [*given[:number], given[number].clone(), *given[number + 1 :]]
                moved[number][element] += _STEP
                for name, slope in slopes.at(moved, readers).items():
                    size = (slope - first[name]).abs().nan_to_num(0, 0, 0).numpy()
                    empty = np.zeros((len(elements), *size.shape), dtype=np.int64)
                    times.setdefault(name, empty)[row] += size > _ZERO * size.max()
        return {name: count >= _OFTEN for name, count in times.items() if name not in later}

    def _layers(self) -> list[str]:
        """Parameters that may multiply features: a vector shifts or scales."""
        return [
            name
            for name, tensor in self._recording.attributes.items()
            if isinstance(tensor, torch.nn.Parameter)
            and _is_floating(tensor)
            and sum(size > 1 for size in tensor.shape) > 1
        ]


class _Slopes:
    """Derivatives of a sum of a model's outputs, each times a random number, by its parameters.

    Args:
        recording: the program.
        draws: gives the random numbers, parameters among them.
        seed: of what the program draws.
        shifted: whether vectors are drawn too.
    """

    def __init__(self, recording: Recording, draws: Draws, seed: int, *, shifted: bool) -> None:
        self._recording = recording
        self._draws = draws
        self._seed = seed
        self._attributes = {
            name: drawn_parameter(tensor, seed if shifted or tensor.ndim > 1 else 0, draws)
            for name, tensor in recording.attributes.items()
        }
        self._numbers: list[torch.Tensor] = []
        self._held: Held = {}

    def at(
        self, inputs: list[Any], names: list[str], leaf: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """The derivatives by some of the parameters, those that the outputs depend on.

        Statistics are those of the first call, or a normalization would let every element meet
        everything.

        Args:
            inputs: of the model.
            names: of the parameters.
            leaf: one of the inputs, to take the derivative by, too; its name is "".
        """
        wanted = {name: self._attributes[name].requires_grad_() for name in names}
        if leaf is not None:
            wanted[""] = leaf
        given = [t.clone() if isinstance(t, torch.Tensor) else t for t in inputs]
        torch.manual_seed(self._seed)
        with torch.enable_grad():
            replay = Replay(self._recording, given, self._attributes, held=self._held)
            outputs = replay.run().outputs()
            real = [torch.view_as_real(t) if t.is_complex() else t for t in outputs]
            self._numbers = self._numbers or [self._draws.normal(t) for t in real]
            total = torch.stack([(a * t).sum() for a, t in zip(self._numbers, real, strict=True)])
            if not wanted or not total.requires_grad:
                return {}
            found = torch.autograd.grad(total.sum(), list(wanted.values()), allow_unused=True)
        return {n: slope for n, slope in zip(wanted, found, strict=True) if slope is not None}


def _that_matter(slopes: Mapping[str, torch.Tensor]) -> set[str]:
    """Parameters by which the derivative is not all but 0, beside the largest and the input's."""
    sizes = {name: float(slope.abs().nan_to_num(0, 0, 0).max()) for name, slope in slopes.items()}
    most = max(sizes.values(), default=0.0)
    return {name for name, size in sizes.items() if size > _ZERO * most}


def _lines(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Elements along each axis, through two places of a tensor."""
    found: dict[tuple[int, ...], None] = {}
    for base in ([0] * len(shape), [size // 2 for size in shape]):
        for axis, size in enumerate(shape):
            first = min(base[axis], max(size - _LINE, 0))
            for place in range(first, min(first + _LINE, size)):
                found[(*base[:axis], place, *base[axis + 1 :])] = None
    return list(found)


def _partitions(entries: np.ndarray) -> Iterator[Partition]:
    """The features that a parameter tells apart, along each choice of its axes.

    Two elements are of one feature if they meet an index in common, or both do with a third.

    Args:
        entries: which entries each element meets.  # bool[elements, *parameter]
    """
    axes = range(1, min(entries.ndim, _MOST_AXES + 1))
    for count in range(1, len(axes) + 1):
        for kept in itertools.combinations(axes, count):
            dropped = tuple(axis for axis in range(1, entries.ndim) if axis not in kept)
            flat = entries.any(axis=dropped).reshape(len(entries), -1)
            partition = _classes(flat)
            if max(partition, default=-1) > 0 or entries.ndim > _CONVOLUTION:
                yield partition


def _is_a_scale(entries: np.ndarray) -> bool:
    """Whether each element meets one entry at most, as with a normalization: that is no layer."""
    return bool((entries.reshape(len(entries), -1).sum(axis=1) <= 1).all())


def _classes(meets: np.ndarray) -> Partition:
    """Elements joined by indices in common; -1 for those that meet none."""
    classes = np.where(meets.any(axis=1), np.arange(len(meets)), -1)
    for column in meets.T:
        joined = np.unique(classes[column])
        if len(joined) > 1:
            classes[np.isin(classes, joined)] = joined[0]
    return _numbered(classes.tolist())


def _numbered(classes: list[int]) -> Partition:
    known: dict[int, int] = {}
    return tuple(-1 if one < 0 else known.setdefault(one, len(known)) for one in classes)


def _agrees(units: list[int], partition: Partition) -> bool:
    """Whether units part the elements as a partition does, where that says anything."""
    seen = [n for n, one in enumerate(partition) if one >= 0]
    return bool(seen) and _numbered([units[n] for n in seen]) == _numbered(
        [partition[n] for n in seen]
    )


def _axes(elements: list[tuple[int, ...]], partition: Partition) -> str:
    """What a partition goes by, in words."""
    seen = [n for n, one in enumerate(partition) if one >= 0]
    if len({partition[n] for n in seen}) <= 1:
        return "one for all elements"
    numbered = _numbered([partition[n] for n in seen])
    count = len(elements[0])
    for many in range(1, count + 1):
        for axes in itertools.combinations(range(count), many):
            places = [tuple(elements[n][axis] for axis in axes) for n in seen]
            order = {place: number for number, place in enumerate(dict.fromkeys(places))}
            if tuple(order[place] for place in places) == numbered:
                words = " and ".join(map(str, axes))
                return f"the places along {'axis' if many == 1 else 'axes'} {words}"
    return "elements in another way"


def _is_floating(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
