"""Fake tensors without what `torch.compile` needs, until an operation asks for it.

Torch's `FakeTensorMode` imports the whole of torch.compile (torch._dynamo, torch._inductor, sympy)
before its first operation: half a second or more of a new process. Most calls of most networks are
of a few operators whose results `shapes` can work out. The mode here answers those by
itself, and becomes torch's, with all fake tensors made so far, at the first call of any other.
"""

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager
from torch.utils._python_dispatch import TorchDispatchMode

from pathlen.tracing.modes import tensors_among
from pathlen.tracing.shapes import (
    ANY_STRIDES,
    ATTENTION,
    DEVICES,
    GROUPED,
    KERNELS,
    MAY_COPY,
    RESHAPE,
    SAME,
    SHAPES,
    VIEWS,
    attended,
    contiguous_strides,
    grouped,
    is_ordinary,
    is_plain,
)

if not hasattr(TorchDispatchMode, "_should_skip_dynamo"):
    # Older releases import it at the first call under any dispatch mode, which fails inside of the
    # torch function mode that watches the calls of a model.
    import torch._dynamo

_META = torch.device("meta")
_DEVICE = torch.ops.prim.device.default
_NEW = torch.ops.aten.new_empty.default
_EMPTY = torch.ops.aten.empty_strided.default


class LazyFakeMode(FakeTensorMode):
    """A `FakeTensorMode` that loads torch's machinery when it is first needed.

    What it answers by itself is what torch's mode would: shape, strides, dtype and storage.
    """

    # What a fake tensor asks of its mode; `_load` puts what torch is configured to in their place.
    allow_meta = True
    _allow_unsafe_data_ptr_access = True

    def __init__(self) -> None:
        # not FakeTensorMode's, which imports torch._dynamo
        TorchDispatchMode.__init__(self)
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE
        self.enter_stack: list[Any] = []
        self._kept = dict(vars(self))
        self._storages: dict[int, FakeTensor] = {}
        self._is_loaded = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether torch imports torch._dynamo before the first dispatch, to turn it off inside."""
        return False

    def __getattr__(self, name: str) -> Any:
        """Attributes of torch's mode that are not there yet."""
        # torch looks for these, and expects that they are missing
        absent = name == "_dispatch_key" or name.startswith("__")
        if absent or vars(self).get("_is_loaded", True):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self._load()
        return getattr(self, name)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = self._told(func, args, kwargs or {})
        if result is not None:
            return result
        self._load()
        if func is GROUPED and (shape := grouped(*args, **(kwargs or {}))):
            func, args, kwargs = _NEW, (args[0], shape), {}
        return super().__torch_dispatch__(func, types, args, kwargs or {})

    def from_tensor(self, tensor: torch.Tensor, **options: Any) -> FakeTensor:
        """A fake tensor for a real one; those of one storage share theirs."""
        if type(tensor) is torch.Tensor and not options and _is_part(tensor):
            key = int(tensor.untyped_storage()._cdata)
            known = self._storages.get(key)
            if known is not None and known.dtype is tensor.dtype:
                return self._part(known, tensor)
            if known is None and not self._is_loaded and _is_whole(tensor):
                self._storages[key] = self._new(tuple(tensor.shape), tensor)
                return self._storages[key]
        self._load()
        return super().from_tensor(tensor, **options)

    def _load(self) -> None:
        """Become torch's mode, entered as often as before."""
        if self._is_loaded:
            return
        kept = {name: getattr(self, name) for name in self._kept}
        self._is_loaded = True
        with torch.inference_mode(False):  # for the tensors that modules make on import
            super().__init__(allow_non_fake_inputs=True)
        vars(self).update(kept)

    def _told(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call that needs no machinery of torch; None for any other."""
        if func is _DEVICE:
            return args[0].fake_device if isinstance(args[0], FakeTensor) else None
        if not torch.is_inference_mode_enabled():  # or autograd wants to know of the call
            return None
        if func is _EMPTY and kwargs.get("device") == _META:
            with in_kernel_invocation_manager(self):
                return FakeTensor(self, func(*args, **kwargs), _META)
        if func in VIEWS:
            return self._viewed(func, args, kwargs)
        tensors = tensors_among((*args, *kwargs.values()))
        if not tensors or any(tensor.device != tensors[0].device for tensor in tensors):
            return None
        if func in SAME and isinstance(args[0], FakeTensor) and SAME[func](*args, **kwargs):
            return args[0]
        if func is ATTENTION:
            shape, strides = attended(*args, **kwargs)
            return None if shape is None else self._new(shape, args[0], strides)
        shape = _shape_of(func, tensors, args, kwargs)
        if shape is not None:
            return self._new(shape, tensors[0])
        if func in KERNELS and all(_is_known(tensor) or _is_bare(tensor) for tensor in tensors):
            return self._computed(func, tensors[0].device, args, kwargs)
        return None

    def _viewed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A view of a fake tensor, made by torch's kernel on the tensor without data behind it."""
        own = args[0]
        if not _is_known(own) or (func in MAY_COPY and not is_ordinary(own)):
            return None
        if func is RESHAPE:  # whose kernel asks torch.compile's machinery about strides
            func = torch.ops.aten.view.default
        return self._computed(func, own.device, args, kwargs)

    def _computed(
        self, func: Any, device: torch.device, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What torch's kernel makes of the tensors without data behind fake tensors."""
        with in_kernel_invocation_manager(self):
            result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            return self._wrapped(result, device)
        return type(result)(self._wrapped(one, device) for one in result)

    def _wrapped(self, result: torch.Tensor, device: torch.device) -> FakeTensor:
        return result if isinstance(result, FakeTensor) else FakeTensor(self, result, device)

    def _new(
        self, shape: tuple[int, ...], like: torch.Tensor, strides: tuple[int, ...] | None = None
    ) -> FakeTensor:
        strides = contiguous_strides(shape) if strides is None else strides
        with in_kernel_invocation_manager(self):
            data = torch.empty_strided(shape, strides, dtype=like.dtype, device="meta")
        return FakeTensor(self, data, like.device)

    def _part(self, known: torch.Tensor, tensor: torch.Tensor) -> FakeTensor:
        place = tensor.shape, tensor.stride(), tensor.storage_offset()
        with in_kernel_invocation_manager(self):
            return FakeTensor(self, torch.as_strided(known, *place), tensor.device)


def _is_part(tensor: torch.Tensor) -> bool:
    """Whether a tensor is nothing but a part of a storage on the CPU or the meta device."""
    return (
        tensor.device.type in DEVICES
        and tensor.layout is torch.strided
        and not tensor.requires_grad
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
    )


def _is_whole(tensor: torch.Tensor) -> bool:
    """Whether it is the whole storage, contiguous."""
    size = tensor.untyped_storage().nbytes()
    whole = size == tensor.numel() * tensor.element_size()
    return whole and tensor.stride() == contiguous_strides(tensor.shape)


def _is_known(tensor: Any) -> bool:
    """Whether a tensor is a fake one of no known values, on a device whose kernels are alike."""
    fake = isinstance(tensor, FakeTensor) and tensor.constant is None
    return fake and tensor.device.type in DEVICES


def _is_bare(tensor: torch.Tensor) -> bool:
    """Whether a program made it on the meta device itself, as it makes an empty one to add to."""
    return type(tensor) is torch.Tensor and tensor.is_meta and not tensor.numel()


def _shape_of(
    func: Any, tensors: list[torch.Tensor], args: Any, kwargs: dict[str, Any]
) -> tuple[int, ...] | None:
    """What the rule of an operator says, for arguments that rules are written for."""
    if func not in SHAPES or not any(isinstance(tensor, FakeTensor) for tensor in tensors):
        return None
    loose = [args[place] for place in ANY_STRIDES.get(func, ()) if place < len(args)]
    for tensor in tensors:
        if tensor.dtype is not tensors[0].dtype:
            return None
        if not (is_plain(tensor) if any(tensor is one for one in loose) else is_ordinary(tensor)):
            return None
    return SHAPES[func](*args, **kwargs)
