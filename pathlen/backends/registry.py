"""Find backends by name: one dict and a few functions, no global current backend.

A name is looked up among the backends given to `register`, then the built-in ones, then the entry
points of group `pathlen.backends` of installed packages. An entry point names a backend object:

    [project.entry-points."pathlen.backends"]
    mine = "my_package.my_module:BACKEND"
"""

import contextlib
import importlib
from fractions import Fraction
from importlib import metadata
from typing import cast

from pathlen.backends.protocol import Backend, FloatArray, HasDistribution
from pathlen.collection import uncollected
from pathlen.errors import BackendError
from pathlen.graph.path_graph import Kind, PathGraph

NEEDS = ("solution", "distribution")
"""What a backend can be asked for; see `gives`."""

ENTRY_POINT_GROUP = "pathlen.backends"
_METHODS = {"solution": "solve", "distribution": "distribution"}

# Modules are imported when asked for; each holds its backend as BACKEND.
_BUILT_IN = {
    "numba": "pathlen.backends._numba",
    "scipy": "pathlen.backends._scipy",
    "igraph": "pathlen.backends._igraph",
    "residues": "pathlen.backends._residues",
    "exact": "pathlen.backends._exact",
}
# What "auto" stands for, exact or not: the first that can be imported and gives what is needed.
_CHOICES = {
    True: [
        ("residues", "integers and fractions were asked for, of {size}"),
        ("exact", "integers and fractions were asked for"),
    ],
    False: [
        ("numba", "the fastest for floats ({size})"),
        ("scipy", "the fastest that can be imported: {failures}"),
    ],
}
# Edges from which it repays loading compiled code (half a second): "exact" takes as long.
_LARGE = 50_000
_LARGE_LAYER = 200  # edges a layer
_registered: dict[str, Backend] = {}


def gives(backend: Backend, need: str) -> bool:
    """Whether a backend can be asked for a "solution" (each can) or a "distribution".

    Raises:
        BackendError: There is no such need.
    """
    if need not in NEEDS:
        raise BackendError(f"no need {need!r}; use one of {', '.join(NEEDS)}")
    return need == "solution" or bool(getattr(backend.capabilities, need, False))


def register(backend: Backend) -> None:
    """Add a backend to those that `get` finds.

    Raises:
        BackendError: It does not follow the protocol, or its name is taken by another.
    """
    _check(backend, "the object given to register")
    if backend.name in _BUILT_IN or _registered.get(backend.name, backend) is not backend:
        raise BackendError(f"a backend named {backend.name!r} exists; give this one another name")
    _registered[backend.name] = backend


def available() -> tuple[str, ...]:
    """Names that `get` knows: built in, registered, then those of installed packages."""
    return tuple(dict.fromkeys([*_BUILT_IN, *_registered, *_entry_points()]))


def get(name: str) -> Backend:
    """The backend of a name.

    Raises:
        BackendError: There is none (the choices are listed), or it cannot be loaded.
    """
    if name in _registered:
        return _registered[name]
    if name in _BUILT_IN:
        try:
            with uncollected():
                module = importlib.import_module(_BUILT_IN[name])
        except ImportError as error:
            raise BackendError(
                f"backend {name!r} cannot be imported ({error}); install what it needs"
            ) from error
        backend: Backend = module.BACKEND
        return backend
    points = _entry_points()
    if name not in points:
        raise BackendError(f"no backend {name!r}; the choices are {', '.join(available())}")
    return _load(points[name])


def choose_for_once(graph: PathGraph) -> str:
    """Name of the backend that gives floats soonest in a process that solves nothing else.

    It takes half a second to load compiled code. As long as "exact" takes less, whose integers and
    fractions make floats as well: where edges have weights it does not.
    """
    return "exact" if graph.weights is None and graph.num_edges < _LARGE else "auto"


def choose(graph: PathGraph, exact: bool = False, need: str = "solution") -> tuple[Backend, str]:
    """The backend that "auto" stands for, and why.

    Where exact numbers are asked for, large graphs are left to "residues", unless its gain is lost:
    where edges have weights, which only "exact" computes with; where layers with hubs are small,
    since each layer's sum has to be put together; and for distributions where there are hubs, since
    most nodes are then alike, and "exact" computes those once.

    Args:
        graph: The path graph to be measured.
        exact: Whether integers and fractions are asked for.
        need: What is asked for: a "solution" or a "distribution".

    Raises:
        BackendError: There is no such need, or no backend for it can be imported.
    """
    failures = []
    for name, reason in _CHOICES[bool(exact)]:
        if name == "residues" and not _worth_residues(graph, need):
            continue
        try:
            backend = get(name)
        except BackendError as error:
            failures.append(str(error))
            continue
        if gives(backend, need):
            size = f"{graph.num_edges} edges in linear time"
            return backend, reason.format(size=size, failures="; ".join(failures))
    form = "integers and fractions" if exact else "floats"
    raise BackendError(f"no backend gives a {need} in {form}: {'; '.join(failures)}")


def _worth_residues(graph: PathGraph, need: str) -> bool:
    """Whether exact arithmetic modulo primes is the faster one for a graph."""
    if graph.num_edges < _LARGE:
        return False
    if need == "solution" and graph.weights is not None:
        return False
    large_layers = graph.num_edges >= _LARGE_LAYER * len(graph.layers)
    return bool((graph.kind != Kind.HUB).all()) or (need == "solution" and large_layers)


def distribution_of(
    backend: Backend,
    graph: PathGraph,
    weighting: str = "uniform",
    direction: str = "backward",
    memory_limit: int | None = None,
) -> FloatArray | list[Fraction]:
    """What `HasDistribution.distribution` gives.

    Raises:
        BackendError: The backend gives no distributions, or what that method raises.
    """
    if not gives(backend, "distribution"):
        others = ", ".join(repr(name) for name in built_in_that_give("distribution"))
        raise BackendError(
            f"backend {backend.name!r} gives no distribution; these do: {others} (or leave the"
            " choice to pathlen with 'auto')"
        )
    return cast("HasDistribution", backend).distribution(graph, weighting, direction, memory_limit)


def built_in_that_give(need: str) -> list[str]:
    """Names of the built-in backends that can be imported and asked for a need."""
    names = []
    for name in _BUILT_IN:
        with contextlib.suppress(BackendError):
            if gives(get(name), need):
                names.append(name)
    return names


def _entry_points() -> dict[str, metadata.EntryPoint]:
    """Entry points of third-party backends by name."""
    points: dict[str, metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=ENTRY_POINT_GROUP):
        other = points.setdefault(point.name, point)
        if other.value != point.value:
            raise BackendError(
                f"two installed packages offer a backend {point.name!r}: {other.value} and "
                f"{point.value}; uninstall one of them"
            )
    return points


def _load(point: metadata.EntryPoint) -> Backend:
    """The backend object an entry point names."""
    where = f"entry point {point.name!r} = {point.value!r} of group {ENTRY_POINT_GROUP!r}"
    try:
        backend = point.load()
    except Exception as error:  # third-party code: whatever it raises is reported, with its place
        raise BackendError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    _check(backend, where)
    if backend.name != point.name:
        raise BackendError(f"{where} leads to a backend named {backend.name!r}; make them equal")
    return backend  # type: ignore[no-any-return]


def _check(backend: object, where: str) -> None:
    """Raise BackendError unless an object has `solve` and what its capabilities say."""
    capabilities = getattr(backend, "capabilities", None)
    named = isinstance(getattr(backend, "name", None), str)
    if isinstance(backend, type) or not named or not hasattr(capabilities, "exact"):
        raise BackendError(
            f"{where} is {backend!r}, not a backend: it must be an object (not a class) with a "
            "name, capabilities and a method solve(graph, direction)"
        )
    able = [need for need in NEEDS if gives(backend, need)]  # type: ignore[arg-type]
    missing = [_METHODS[need] for need in able if not callable(getattr(backend, _METHODS[need], 0))]
    if missing:
        raise BackendError(
            f"{where} is {backend!r}, which is to give a {' and a '.join(able)}; it must be an"
            f" object with the methods {', '.join(missing)}"
        )
