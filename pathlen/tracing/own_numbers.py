"""Random numbers of one's own: what is drawn in a block is drawn from no generator of the process.

Other threads go on to draw from those, and what they get is what they would have got. The
functions of `random` and `numpy.random`, and those that seed torch, are diverted to generators of
the thread's own. Calls of torch that draw are given one by a dispatch mode. As that slows all calls
down, it is at work where a model is run, and elsewhere around calls that draw (`drawing`).
"""

import os
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from types import BuiltinMethodType, MethodType
from typing import Any

import numpy as np
import torch
from torch._ops import OpOverload

from pathlen.one_thread import Diverted, exclusive
from pathlen.tracing.modes import DispatchMode

_SHARED = random._inst
_SHARED_NUMPY = np.random.mtrand._rand
_RANDOM = torch.Tag.nondeterministic_seeded
_READING = ("getstate", "get_state", "setstate", "set_state")
_OF_NUMPY = {"seed": "seed", "ranf": "random_sample", "sample": "random_sample"}
_OF_TORCH = ("manual_seed", "seed", "initial_seed", "get_rng_state", "set_rng_state")


class OwnNumbers:
    """Generators of a block: Python's, numpy's, and torch's, one a device.

    Each is made when it is first asked for.

    Args:
        seed: what they are seeded with; None for numbers that the process would draw next.
    """

    def __init__(self, seed: int | None) -> None:
        self.past_torch = False
        """Whether Python's generator or numpy's was asked for numbers, or seeded."""
        self.by_others = False
        """Whether a generator of the process drew meanwhile, and it is not known for whom."""
        self._seed = seed
        self._python: random.Random | None = None
        self._numpy: np.random.RandomState | None = None
        self._torch: dict[torch.device, torch.Generator] = {}

    def python(self) -> random.Random:
        """The generator in place of that of `random`."""
        if self._python is None:
            self._python = random.Random(self._seed)
            if self._seed is None:
                self._python.setstate(_SHARED.getstate())
        return self._python

    def numpy(self) -> np.random.RandomState:
        """The generator in place of that of `numpy.random`."""
        if self._numpy is None:
            self._numpy = np.random.RandomState(self._seed)
            if self._seed is None:
                self._numpy.set_state(_SHARED_NUMPY.get_state())
        return self._numpy

    def on(self, device: torch.device) -> torch.Generator:
        """The generator in place of torch's own of a device."""
        if device.index is None and device.type == "cuda":
            device = torch.device("cuda", torch.cuda.current_device())
        if device not in self._torch:
            made = self._torch[device] = torch.Generator(device)
            if self._seed is None:
                made.set_state(_shared(device).get_state())
            else:
                made.manual_seed(self._seed)
        return self._torch[device]

    def seed_torch(self, seed: int) -> torch.Generator:
        """What `torch.manual_seed` does, to these generators."""
        self._seed = seed
        self._torch.clear()
        return self.on(torch.device("cpu"))

    def of_python(self, name: str, original: Any, args: Any, kwargs: Any) -> Any:
        """Call a function of `random`."""
        self.past_torch |= name not in _READING
        return getattr(self.python(), name)(*args, **kwargs)

    def of_numpy(self, name: str, original: Any, args: Any, kwargs: Any) -> Any:
        """Call a function of `numpy.random`."""
        self.past_torch |= name not in _READING
        return getattr(self.numpy(), _OF_NUMPY.get(name, name))(*args, **kwargs)

    def of_torch(self, name: str, original: Any, args: Any, kwargs: Any) -> Any:
        """Call one of the functions by which torch's generators are seeded and saved."""
        own = self.on(torch.device("cpu"))
        if name == "manual_seed":
            return self.seed_torch(int(*args, **kwargs))
        if name == "seed":
            return self.seed_torch(int.from_bytes(os.urandom(7), "little")).initial_seed()
        if name == "get_rng_state":
            return own.get_state()
        return own.set_state(*args, **kwargs) if name == "set_rng_state" else own.initial_seed()


def _bound(module: Any, generator: Any) -> list[tuple[Any, str]]:
    """The functions of a module that are methods of its generator."""
    items = vars(module).items()
    return [(module, name) for name, own in items if getattr(own, "__self__", None) is generator]


# the methods are asked by others of the instance: `random.choice` imported by name is one of these
_PYTHON = Diverted([*_bound(random, _SHARED), (_SHARED, "random"), (_SHARED, "getrandbits")])
_NUMPY = Diverted([*_bound(np.random, _SHARED_NUMPY), *((np.random, name) for name in _OF_NUMPY)])
_TORCH = Diverted((home, name) for home in (torch, torch.random) for name in _OF_TORCH)


class _Current(threading.local):
    """The innermost block in a thread."""

    def __init__(self) -> None:
        self.numbers: OwnNumbers | None = None


_CURRENT = _Current()


@contextmanager
def own_numbers(seed: int | None = 0, *, calls: bool = True) -> Iterator[OwnNumbers]:
    """Draw from generators of one's own in the block, in this thread.

    Args:
        seed: of the generators; None for the numbers that the process would draw next.
        calls: whether every call of torch is to be looked at, which takes time; without, those are
            that are made inside of `drawing`.
    """
    numbers, outer = OwnNumbers(seed), _CURRENT.numbers
    before = _SHARED.getstate(), _SHARED_NUMPY.get_state()
    with (
        _PYTHON.to(numbers.of_python),
        _NUMPY.to(numbers.of_numpy),
        _TORCH.to(numbers.of_torch),
        _OwnGenerators(numbers) if calls else nullcontext(),
    ):
        try:
            _CURRENT.numbers = numbers
            yield numbers
        finally:
            _CURRENT.numbers = outer
            _give_back(before, numbers)


def drawing(func: Any = None) -> AbstractContextManager[Any]:
    """A block whose calls of torch draw from the generators of the innermost `own_numbers`.

    Args:
        func: the operator that is called in it, None for more than one.
    """
    numbers = _CURRENT.numbers
    draws_nothing = isinstance(func, OpOverload) and _RANDOM not in func.tags
    return nullcontext() if numbers is None or draws_nothing else _OwnGenerators(numbers)


def _give_back(before: tuple[Any, Any], numbers: OwnNumbers) -> None:
    """Notice what was drawn by functions imported by name, which cannot be diverted.

    They draw from the process's generators, whose states are put back if no other thread is there:
    what one has drawn meanwhile it would be given a second time.
    """
    python, numpy = before
    same = _SHARED.getstate() == python, _same_state(_SHARED_NUMPY.get_state(), numpy)
    if all(same):
        return
    if threading.active_count() > 1:
        numbers.by_others = True
        return
    numbers.past_torch = True
    _SHARED.setstate(python)
    _SHARED_NUMPY.set_state(numpy)


def _same_state(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def draws_by_name(model: Any) -> bool:
    """Whether the modules in which a model is written import functions that draw by their names."""
    parts = model.modules() if isinstance(model, torch.nn.Module) else (model,)
    homes = {kind.__module__ for part in parts for kind in type(part).__mro__}
    homes.add(getattr(model, "__module__", None) or "")
    found = [own for home in homes & sys.modules.keys() for own in vars(sys.modules[home]).values()]
    bound = [own.__self__ for own in found if type(own) in (BuiltinMethodType, MethodType)]
    return any(own is _SHARED or own is _SHARED_NUMPY for own in bound)


class _OwnGenerators(DispatchMode):
    """Gives a generator to each call that draws."""

    def __init__(self, numbers: OwnNumbers) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._numbers = numbers
        self._process = os.getpid()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, OpOverload):  # takes functions, which draw themselves
            with self:
                return func(*args, **kwargs)
        # a process that was forked off within the block, to load data, draws its own
        if _RANDOM not in func.tags or os.getpid() != self._process:
            return func(*args, **kwargs)
        return self._drawn(func, args, kwargs)

    def _drawn(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        taker, place = _taker(func)
        device = _device(args, kwargs)
        own = self._numbers.on(device)
        if taker is not None:
            if place < len(args):
                given = args[place]
                args = (*args[:place], own if _is_shared(given) else given, *args[place + 1 :])
            elif _is_shared(kwargs.get("generator")):
                kwargs = {**kwargs, "generator": own}
            return taker(*args, **kwargs)
        with self:
            result = func.decompose(*args, **kwargs)
        return _swapped(own, func, args, kwargs) if result is NotImplemented else result


def _swapped(own: torch.Generator, func: Any, args: Any, kwargs: Any) -> Any:
    """Call an operator that takes no generator (fused kernels on GPUs that drop connections).

    For this one call the generator of the device has the state of our own.
    """
    shared = _shared(own.device)
    with exclusive():
        before = shared.get_state()
        try:
            shared.set_state(own.get_state())
            result = func(*args, **kwargs)
            own.set_state(shared.get_state())
        finally:
            shared.set_state(before)
    return result


@cache
def _taker(func: OpOverload) -> tuple[OpOverload | None, int]:
    """The overload of an operator that takes a generator, and which argument that is."""
    wanted = _arguments(func)
    for name in (func._overloadname, *func.overloadpacket.overloads()):
        other: OpOverload = getattr(func.overloadpacket, name)
        names = [one.name for one in other._schema.arguments]
        if "generator" in names and _arguments(other) == wanted:
            return other, names.index("generator")
    return None, 0


def _arguments(func: OpOverload) -> list[tuple[str, str]]:
    """Names and types of arguments without the generator."""
    own = func._schema.arguments
    return [(one.name, str(one.type)) for one in own if one.name != "generator"]


def _device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
    """Where a call draws."""
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    tensors = [own for own in (*args, *kwargs.values()) if isinstance(own, torch.Tensor)]
    return tensors[0].device if tensors else torch.device("cpu")


def _shared(device: torch.device) -> torch.Generator:
    """The generator of the process for a device."""
    if device.type == "cpu":
        return torch.default_generator
    return torch.get_device_module(device).default_generators[device.index or 0]  # type: ignore[no-any-return]


def _is_shared(generator: torch.Generator | None) -> bool:
    """Whether numbers would come from a generator of the process."""
    return generator is None or generator._cdata == _shared(generator.device)._cdata  # type: ignore[attr-defined]
