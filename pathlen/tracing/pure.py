"""Whether an operator is known to be a pure computation, from what its schema says.

Programs from files, and exported programs in general, choose operators and arguments freely: among
the operators of torch are some that map files into memory, trust raw pointers inside of tensors, or
change the process. An operator may run where its schema leaves no room for that:

- it belongs to `aten` or `prims` and has a kernel of the dispatcher, or pathlen has a rule for it
  (`register_rule`);
- its arguments are tensors, numbers, dtypes, layouts, devices and lists of these; a text is an
  argument of a known name with one of the values that it can have;
- it returns what it computes, and writes to nothing but the tensor that it returns (`add_`). That
  this is a tensor of the program's own is seen to where the program runs;
- what torch keeps to itself (`aten._...`) is on a list of what exporters write.

The answer is a sentence, or None for what may run. It is looked up once for each operator.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

_TORCH = ("aten", "prims")
_VALUES = re.compile(  # types of arguments
    r"(Optional\[)?(List\[)?(Optional\[)?"
    r"(Tensor|int|float|bool|complex|number|Device|Generator|SymInt|SymFloat|SymBool|str)\]*"
)
_MOST_LETTERS = 200


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def _one_of(allowed: str) -> Callable[[str], bool]:
    return words(allowed).__contains__


def _no_text(text: str) -> bool:
    return False


def _is_shown(text: str) -> bool:
    return text.isprintable() and len(text) <= _MOST_LETTERS


_TEXTS: dict[str, Callable[[str], bool]] = {
    "UPLO": _one_of("L U"),
    "api_name": _is_shown,
    "approximate": _one_of("none tanh"),
    "assert_msg": lambda text: True,  # shown in an error, where it is cut
    "driver": _one_of("gesvd gesvdj gesvda gels gelsy gelsd gelss"),
    "equation": lambda text: re.fullmatch(r"[A-Za-z.,> \-]*", text) is not None,
    "indexing": _one_of("ij xy"),
    "interpolation": _one_of("linear lower higher midpoint nearest"),
    "mode": _one_of("constant reflect replicate circular reduced complete r"),
    "norm": _one_of("forward backward ortho"),
    "ord": _one_of("fro nuc"),
    "p": _one_of("fro nuc"),
    "pad_mode": _one_of("constant reflect replicate circular"),
    "padding": _one_of("same valid"),
    "padding_side": _one_of("left right"),
    "reduce": _one_of("sum prod mean amax amin min max add multiply"),
    "rounding_mode": _one_of("trunc floor"),
    "side": _one_of("left right"),
}
"""By name of an argument that is a text, whether it may be a given one. Names of files, of
functions and of classes are none of these."""

_ASSERTIONS = words(
    "_assert_async _assert_scalar _assert_tensor_metadata sym_constrain_range"
    " sym_constrain_range_for_size"
)
"""Operators of torch that return nothing and do nothing but raise."""

# fmt: off
_INTERNAL = _ASSERTIONS | words(
    "_adaptive_avg_pool2d _adaptive_avg_pool3d _addmm_activation _aminmax"
    " _batch_norm_with_update_functional _cdist_forward _conj _conj_copy _conj_physical"
    " _convolution _convolution_mode _embedding_bag _embedding_bag_forward_only _euclidean_dist"
    " _fft_c2c _fft_c2r _fft_r2c _functional_assert_async _functional_assert_scalar"
    " _functional_sym_constrain_range _functional_sym_constrain_range_for_size _fused_rms_norm"
    " _fused_sdp_choice _grouped_mm _int_mm _is_all_true _is_any_true _linalg_check_errors"
    " _linalg_det _linalg_eigh _linalg_eigvals _linalg_slogdet _linalg_solve_ex _linalg_svd"
    " _local_scalar_dense _log_softmax _log_softmax_backward_data _logcumsumexp _lu_with_info"
    " _masked_softmax _native_batch_norm_legit _native_batch_norm_legit_functional"
    " _native_batch_norm_legit_no_training _native_multi_head_attention _neg_view _neg_view_copy"
    " _pack_padded_sequence _pad_circular _pad_enum _pad_packed_sequence _pdist_forward"
    " _prelu_kernel _reshape_copy _safe_softmax _scaled_dot_product_attention_math"
    " _scaled_dot_product_cudnn_attention _scaled_dot_product_efficient_attention"
    " _scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu"
    " _scaled_dot_product_fused_attention_overrideable _shape_as_tensor _softmax"
    " _softmax_backward_data _sparse_coo_tensor_with_dims_and_tensors _sparse_mm _stack"
    " _thnn_fused_gru_cell _thnn_fused_lstm_cell _to_copy _transform_bias_rescale_qkv"
    " _transformer_encoder_layer_fwd _trilinear _unique _unique2 _unsafe_index"
    " _unsafe_index_put _unsafe_masked_index _unsafe_masked_index_put_accumulate _unsafe_view"
    " _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa"
    " _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d _weight_norm"
    " _weight_norm_interface"
)
"""Operators of torch whose names begin with "_" that exporters and decompositions write; each was
looked at. Others may skip checks of bounds (`_reshape_alias`, `_nested_view_from_buffer`)."""

# fmt: on

_TRUSTING = re.compile(
    r"(fbgemm|mkldnn|quantized|quantize|q_per|miopen|cudnn|mps|lstm_mps|choose_qparams)(_.*)?"
    r"|to_mkldnn(_.*)?|(sparse_)?resize(_.*)?|set(_data|_)?|requires_grad|retain_grad"
    r"|fused_moving_avg_obs_fake_quant|pin_memory|segment_reduce|fractional_max_pool\dd"
    r"|lu_(solve|unpack)|linalg_(lu|ldl)_solve|sparse_\w+_tensor|.+_backward(_\w+)?"
    r"|special_\w+_polynomial_\w+|(special_)?(zeta|polygamma|multigammaln)|mvlgamma"
)
"""Public operators of torch that trust their arguments: they take packed weights for pointers and
indices, pivots and lengths for what they are without looking, give a tensor memory that nobody
wrote, change its flags, or count up to a number that they are given."""

_HARMLESS_DERIVATIVES = words(
    "convolution_backward native_group_norm_backward native_layer_norm_backward select_backward"
    " slice_backward"
)
"""Derivatives that read and write no place that an index names; as do those of one element."""

_KNOWN: set[str] = set()


def allow(name: str) -> None:
    """Let an operator run that pathlen has a rule for, as far as its schema allows it.

    Args:
        name: as `operation_name` writes it, "mylib.swish", with or without an overload.
    """
    _KNOWN.add(name)
    reason_against.cache_clear()  # of operators that were asked for before


def is_of_torch(func: Any) -> bool:
    """Whether an operator comes with torch, in a namespace of computations."""
    return func.namespace in _TORCH


@cache
def reason_against(func: Any) -> str | None:
    """Why an operator is not known to be a pure computation, None if it is one.

    Args:
        func: an `OpOverload`.
    """
    schema = func._schema
    namespace, _, name = schema.name.partition("::")
    if namespace in _TORCH:
        if not torch._C._dispatch_has_kernel(func.name()):
            return "is no operator of the dispatcher"
        reason = _reason_against_name(func, namespace, name)
        if reason is not None:
            return reason
    elif not {f"{namespace}.{name}", f"{namespace}.{name.removesuffix('_')}"} & _KNOWN:
        return (
            "is of a library that pathlen knows nothing of; register a rule for it"
            " (pathlen.register_rule) if you trust the program and the operator"
        )
    return reason_against_schema(func)


def _reason_against_name(func: Any, namespace: str, name: str) -> str | None:
    is_internal = name.startswith("_") and not name.startswith("__")
    if is_internal and (namespace != "aten" or name not in _INTERNAL):
        return "is internal to torch"
    is_pointwise = name.endswith("_backward") and torch.Tag.pointwise in func.tags
    if (
        _TRUSTING.fullmatch(name.removesuffix("_"))
        and not is_pointwise
        and name not in _HARMLESS_DERIVATIVES
    ):
        return "trusts its arguments, or does more than its schema says"
    return None


@cache
def reason_against_schema(func: Any) -> str | None:
    """Why an operator is no computation by its schema, whosever it is; None if it is one.

    Args:
        func: an `OpOverload`.
    """
    schema = func._schema
    name = schema.name.partition("::")[2]
    if (reason := _reason_against_types(schema, name)) is not None:
        return reason
    written = [a for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if any(argument.is_out for argument in schema.arguments):
        return f"writes to the tensor {written[0].name!r} that it is given"
    if not written or name in _INTERNAL:
        return None
    if written != schema.arguments[:1] or not name.endswith("_"):
        return f"writes to {written[-1].name!r}, which it does not return"
    return None


def _reason_against_types(schema: Any, name: str) -> str | None:
    for argument in schema.arguments:
        kind = str(argument.type)
        if _VALUES.fullmatch(kind) is None:
            return f"takes {argument.name!r}, a {kind}"
        if kind.removeprefix("Optional[").startswith("str") and argument.name not in _TEXTS:
            return f"takes a text, {argument.name!r}"
        if "List[str" in kind:
            return f"takes texts, {argument.name!r}"
    if not schema.returns and name not in _ASSERTIONS:
        return "returns nothing, so that it can only have side effects"
    for result in schema.returns:
        if _VALUES.fullmatch(str(result.type)) is None:
            return f"returns a {result.type}"
    return None


def reason_against_arguments(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str | None:
    """Why a call of an operator that may run is none of a pure computation, None if it is one.

    Args:
        func: the operator.
        args: of the call; tensors may be nodes.
        kwargs: likewise.
    """
    schema = func._schema.arguments
    named = dict(zip((argument.name for argument in schema), args, strict=False), **kwargs)
    for name, value in named.items():
        for leaf in _leaves(value):
            if isinstance(leaf, str) and not _TEXTS.get(name, _no_text)(leaf):
                return f"has the text {leaf[:40]!r} for {name!r}"
            if isinstance(leaf, int) and not -(2**63) <= leaf < 2**63:
                return f"has a number of more than 64 bits for {name!r}"
            if not isinstance(leaf, _PLAIN):
                return f"has a {type(leaf).__name__} for {name!r}"
    return None


_PLAIN = (
    torch.fx.Node,
    torch.Tensor,
    torch.dtype,
    torch.layout,
    torch.device,
    torch.memory_format,
    torch.SymInt,
    torch.SymFloat,
    torch.SymBool,
    int,
    float,
    complex,
    str,
    type(None),
)


def _leaves(value: Any) -> list[Any]:
    """What is in an argument: lists are of lists at most twice."""
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]
