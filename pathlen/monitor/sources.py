"""Where the tensors of a model live, and whether it is still the model that was traced."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pathlen.errors import MonitorError
from pathlen.tracing.sharded import PART, holds_shards, is_sharded

Place = tuple[Mapping[str, Any], tuple[Any, ...]]  # the attributes of a module, and keys from there
_AGAIN = "make a new DepthMonitor for the model as it is now"


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A tensor of a model, found by its place and not by its identity.

    Attributes:
        name: For messages: "relu.weight".
        attributes: A dict of the module that holds it.
        keys: Where it is in there; more than one for an item of a list.
        shape: What it had when the model was traced.
        tied: Other places that held the same tensor.
    """

    name: str
    attributes: Mapping[str, Any]
    keys: tuple[Any, ...]
    shape: torch.Size
    tied: tuple[Place, ...] = ()

    def read(self) -> Tensor:
        """The tensor that is there now.

        Raises:
            MonitorError: there is none, it has another shape, or it is tied to others no more.
        """
        tensor = _at((self.attributes, self.keys))
        if not isinstance(tensor, Tensor):
            raise MonitorError(f"{self.name!r} is no tensor of the model any more; {_AGAIN}")
        if tensor.shape != self.shape:
            raise MonitorError(
                f"{self.name!r} has shape {tuple(tensor.shape)} and had {tuple(self.shape)} when"
                f" the model was traced; {_AGAIN}"
            )
        if is_sharded(tensor):
            raise _sharded(self.name)
        if any(_at(place) is not tensor for place in self.tied):
            raise MonitorError(
                f"{self.name!r} was one tensor in several places, and these differ now; {_AGAIN}"
            )
        return tensor


def _sharded(name: str) -> MonitorError:
    return MonitorError(
        f"{name!r} is sharded over devices since the model was traced, {PART}; depth cannot be"
        " followed then"
    )


def _at(place: Place) -> Any:
    found: Any = place[0]
    try:
        for key in place[1]:
            found = found[key]
    except (KeyError, IndexError, TypeError):
        return None
    return found


class LiveTensors:
    """Finds the place of a tensor that a trace has met.

    Args:
        model: The model that was traced.
    """

    def __init__(self, model: nn.Module) -> None:
        self._places: dict[int, list[tuple[str, Place]]] = {}
        self._views: dict[Any, int] = {}
        for path, module in model.named_modules():
            for name, attributes, keys, tensor in _tensors_of(module):
                named = f"{path}.{name}" if path else name
                self._places.setdefault(id(tensor), []).append((named, (attributes, keys)))
                self._views.setdefault(_view(tensor), id(tensor))

    def find(self, tensor: Tensor, name: str) -> Source:
        """The place of a tensor, also of `parameter.data`.

        A tensor that no module holds is its own place: what is written into it is seen.

        Args:
            tensor: Met while the model was traced.
            name: How the trace calls it.
        """
        found = self._places.get(id(tensor)) or self._places.get(self._views.get(_view(tensor), 0))
        if not found:
            return Source(name, {name: tensor}, (name,), tensor.shape)
        (first, (attributes, keys)), *others = found
        return Source(first, attributes, keys, tensor.shape, tuple(place for _, place in others))


def _tensors_of(
    module: nn.Module,
) -> Iterator[tuple[str, Mapping[str, Any], tuple[Any, ...], Tensor]]:
    """Tensors that a module or a container on it holds: name, dict, keys, tensor."""
    held = {k: v for k, v in vars(module).items() if k not in ("_parameters", "_buffers")}
    for attributes in (module._parameters, module._buffers):
        for key, value in attributes.items():
            if value is not None:
                yield key, attributes, (key,), value
    for key, value in held.items():
        if isinstance(value, Tensor):
            yield key, vars(module), (key,), value
        elif isinstance(value, (list, tuple, dict)):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for inner, item in items:
                if isinstance(item, Tensor):
                    yield f"{key}[{inner!r}]", vars(module), (key, inner), item


def _view(tensor: Tensor) -> Any:
    """What two tensors have in common that show the same memory in the same way."""
    if tensor.layout is not torch.strided or tensor.is_meta:
        return id(tensor)
    memory = tensor.untyped_storage()._cdata
    return memory, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


class Structure:
    """What a model was made of when it was traced.

    Args:
        model: The model.
        paths: Of the modules that apply activations; their numbers must stay as they were.
    """

    def __init__(self, model: nn.Module, paths: Iterable[str]) -> None:
        modules = dict(model.named_modules())
        own = set(paths)
        self._holders = [
            (f"{path}.{next(iter(module._parameters))}".strip("."), vars(module))
            for path, module in sorted(modules.items(), key=lambda item: item[0] not in own)
            if module._parameters
        ]
        self._children = [module._modules for module in modules.values() if module._modules]
        self._modules = [child for own in self._children for child in own.values()]
        self._names = [
            f"{path}.{name}".strip(".") for path, m in modules.items() for name in m._modules
        ]
        self._numbers = [
            (path, vars(modules[path]), key)
            for path in sorted(own & modules.keys())
            for key, value in vars(modules[path]).items()
            if _is_option(modules[path], key, value)
        ]
        self._values = [attributes[key] for _, attributes, key in self._numbers]
        self._paths = list(modules)
        self._parameters = [module._parameters for module in modules.values()]
        self._counts = [len(own) for own in self._parameters]

    def require_unchanged(self) -> None:
        """Check that modules and numbers are still there; a few microseconds.

        Raises:
            MonitorError: A module was replaced, added or removed, has more parameters, a number
                has changed, or parameters are sharded over devices.
        """
        for name, attributes in self._holders:
            if holds_shards(attributes):
                raise _sharded(name)
        children = [child for own in self._children for child in own.values()]
        if children != self._modules:
            raise MonitorError(f"{self._difference(children)}; {_AGAIN}")
        counts = [len(own) for own in self._parameters]
        if counts != self._counts:
            for path, count, before in zip(self._paths, counts, self._counts, strict=True):
                if count > before:  # what is missing is told where it is read
                    raise MonitorError(
                        f"module {path or '(the model)'!r} has {count} parameters of its own, and"
                        f" had {before} when the model was traced (make_linearizable adds slopes);"
                        f" {_AGAIN}"
                    )
        values = [attributes.get(key) for _, attributes, key in self._numbers]
        if values != self._values:
            for (path, _, key), now, before in zip(
                self._numbers, values, self._values, strict=True
            ):
                if now != before:
                    name = f"{path}.{key}".strip(".")
                    raise MonitorError(
                        f"{name!r} is {now!r} and was {before!r} when the model was traced;"
                        f" {_AGAIN} (a slope that is a parameter or a buffer is followed)"
                    )

    def _difference(self, children: list[nn.Module | None]) -> str:
        """The first module that is not what it was."""
        if len(children) != len(self._modules):
            return f"the model has {len(children)} modules and had {len(self._modules)}"
        pairs = zip(self._names, self._modules, children, strict=True)
        name, before, now = next(pair for pair in pairs if pair[1] is not pair[2])
        return (
            f"module {name!r} was replaced, a {type(before).__name__} by a {type(now).__name__},"
            " since the model was traced"
        )


def _is_option(module: nn.Module, key: str, value: object) -> bool:
    """Whether an attribute may be what an activation computes with: its slope, its threshold.

    Modules of torch have no other numbers; others may count their calls in an integer.
    """
    if key.startswith("_") or key == "training":
        return False
    of_torch = type(module).__module__.partition(".")[0] == "torch"
    return type(value) is float or (of_torch and type(value) in (int, bool, str))
