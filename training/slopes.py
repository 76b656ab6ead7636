"""The slopes of a model: one parameter a call site, whose elements can make units linear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from pathlen.errors import PathlenError


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """The slopes of one call of an activation.

    Attributes:
        name: Of the layer in the path graph, as in `Report.layers`.
        parameter_name: Key in `named_parameters()` and `state_dict()`.
        parameter: The slopes themselves, 1 where a unit is linear.
        positions: Elements of one sample that share one slope: evaluations of the nonlinearity that
            a slope stands for; None for PReLUs that `make_linearizable` did not make.
    """

    name: str
    parameter_name: str
    parameter: nn.Parameter
    positions: int | None


def slopes_of(model: nn.Module) -> tuple[Slopes, ...]:
    """All slopes of a model, in the order of its modules.

    They are those that `make_linearizable` made, and the weights of other PReLU modules.
    """
    known: dict[int, Slopes] = {}
    for own in _slopes(model):
        known.setdefault(id(own.parameter), own)  # two modules may share a parameter
    return tuple(known.values())


def known_positions(slopes: tuple[Slopes, ...]) -> list[int]:
    """Positions of each call site.

    Raises:
        PathlenError: They are not known of some.
    """
    found = [own.positions for own in slopes if own.positions is not None]
    if len(found) < len(slopes):
        raise PathlenError(
            "ReLU calls are known of slopes that make_linearizable made, not of other PReLU modules"
        )
    return found


def _slopes(model: nn.Module) -> Iterator[Slopes]:
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        made = getattr(module, "_slope_sites", ())
        for attribute, layer, positions in made:
            parameter = getattr(module, attribute)
            yield Slopes(layer, prefix + attribute, parameter, positions)
        if isinstance(module, nn.PReLU) and not made:
            yield Slopes(path, prefix + "weight", module.weight, None)
