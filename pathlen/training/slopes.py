"""The slopes of a model: one parameter a call site, whose elements can make units linear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from pathlen.errors import PathlenError
from pathlen.printable import shown


@dataclass(frozen=True, slots=True, eq=False)
class SlopeSite:
    """A call of an activation whose slopes a module holds, as `make_linearizable` made them.

    Attributes:
        attribute: Name of the parameter.
        layer: Name of the layer in the path graph.
        positions: Elements of one sample that share one slope.
        former: See :class:`Slopes`.
    """

    attribute: str
    layer: str
    positions: int
    former: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """The slopes of one call of an activation.

    Attributes:
        name: Of the layer in the path graph, as in `Report.layers`.
        parameter_name: Key in `named_parameters()` and `state_dict()`.
        parameter: The slopes themselves, 1 where a unit is linear.
        positions: Elements of one sample that share one slope: evaluations of the nonlinearity that
            a slope stands for; None for PReLUs that `make_linearizable` did not make.
        former: int64[slopes], the number that each had in files of earlier releases; None if the
            same (`pathlen.training.slope_numbering`).
    """

    name: str
    parameter_name: str
    parameter: nn.Parameter
    positions: int | None
    former: Tensor | None = None


def slopes_of(model: nn.Module) -> tuple[Slopes, ...]:
    """All slopes of a model, in the order of its modules.

    They are those that `make_linearizable` made, and the weights of other PReLU modules.

    Raises:
        PathlenError: Slopes are computed from something else (`torch.nn.utils.parametrize`), so
            that they cannot be set.
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
        made: tuple[SlopeSite, ...] = getattr(module, "_slope_sites", ())
        for site in made:
            name = prefix + site.attribute
            parameter = as_parameter(getattr(module, site.attribute), name)
            yield Slopes(site.layer, name, parameter, site.positions, site.former)
        if isinstance(module, nn.PReLU) and not made:
            name = prefix + "weight"
            yield Slopes(path, name, as_parameter(module.weight, name), None)


def as_parameter(slope: object, name: str) -> nn.Parameter:
    """Slopes that are a parameter, as they must be to be trained, frozen and saved.

    Raises:
        PathlenError: They are none.
    """
    if isinstance(slope, nn.Parameter):
        return slope
    raise PathlenError(
        f"the slopes {shown(name)} are no parameter but are computed from something else, as by"
        " torch.nn.utils.parametrize, so that none can be set to 1; take that off them"
        " (torch.nn.utils.parametrize.remove_parametrizations)"
    )
