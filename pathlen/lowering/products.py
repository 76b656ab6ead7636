"""Rules of products of matrices, all of which are contractions, and of linear layers.

Letters stand for axes, as in einsum.
"""

from dataclasses import replace

import numpy as np
import torch

from pathlen.errors import UnsupportedOperation
from pathlen.lowering.context import Lowering
from pathlen.lowering.contraction import adds_nothing, contract, functions_of_one
from pathlen.lowering.elementwise import merged
from pathlen.lowering.gains import constant
from pathlen.lowering.labels import LabelSets, channel_labels, constant_labels, distinct
from pathlen.lowering.layer_weights import weights_of
from pathlen.lowering.layers import dense_layer, require_no_path, rows_read
from pathlen.lowering.letters import Letters, of_matrices
from pathlen.lowering.lookups import brings_paths
from pathlen.lowering.operations import aten
from pathlen.lowering.operators import Meeting
from pathlen.lowering.rules import rule
from pathlen.lowering.taken_apart import rows_of
from pathlen.lowering.values import Call, Value
from pathlen.lowering.weighted_layers import bilinear_units

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@rule("layer", "aten.linear")
def linear(call: Call, lowering: Lowering) -> Value:
    """One new unit per output feature, behind a hub over the units that the layer reads.

    A weight that comes from the input (of a hypernetwork) makes it a product of two tensors.
    """
    source, weight, bias = call["input"], call["weight"], call["bias"]
    leading = _LETTERS[: len(source.shape) - 1]
    feature = "j" * (len(weight.shape) - 1)  # a vector of weights gives no axis of features
    letters = Letters((source, weight), (leading + "k", feature + "k"), leading + feature)
    of_one = source.is_path and (
        (weight.shape[0] == 1 and functions_of_one(letters, 0, lowering))
        or adds_nothing(letters, 0, lowering)
    )
    if not feature or of_one or brings_paths(weight, beside=source):
        product = contract(call, letters, lowering)
    elif source.is_path:

        def matrix() -> torch.Tensor | None:
            found = weights_of(call, weight, lowering)
            return None if found is None else found.unsqueeze(0)

        def on(read: torch.Tensor, functions: torch.Tensor | None = None) -> torch.Tensor:
            axis, features = read.ndim - 1, call.shape[-1:]
            return dense_layer(call, read, axis, features, matrix, lowering, functions=functions)

        rows = rows_read(source, [len(source.shape) - 1], lowering)
        product = lowering.result(call, on(rows.labels, rows.functions))
        product.begun = rows.begun_of(product.labels, lowering)
        if rows.functions is None:
            product.rows = rows_of(source.labels, product.labels, on, lowering)
    else:
        product = lowering.result(call, constant_labels(call.shape))
    return product if bias is None else _plus(call, product, bias, lowering)


@rule("contraction", *aten("matmul mm bmm mv dot vdot"))
def matmul(call: Call, lowering: Lowering) -> Value:
    """Matrix products, with the broadcasting of `torch.matmul`."""
    return contract(call, of_matrices(*call.values()), lowering)


@rule("contraction", *aten("addmm baddbmm addbmm addmv"))
def add_product(call: Call, lowering: Lowering) -> Value:
    """A matrix product plus a matrix, which may come from the input as well."""
    added, one, other = list(call.values())
    letters = of_matrices(one, other)
    if call.name == "aten.addbmm":
        letters = replace(letters, out="ij")
    product = contract(call, letters, lowering)
    product = _times(call, product, call["alpha"], lowering)
    added = _times(call, added, call["beta"], lowering)
    return _plus(call, product, added, lowering)


@rule("contraction", "aten._trilinear", "aten.bilinear")
def bilinear(call: Call, lowering: Lowering) -> Value:
    """Each output feature multiplies all features of one input with all of the other."""
    if call.name != "aten.bilinear":
        raise UnsupportedOperation(f"{lowering.site(call)}: only whole bilinear layers have a rule")
    require_no_path(call, ("weight", "bias"), lowering)
    inputs = [call[name] for name in ("input1", "input2") if call[name].is_path]
    if not inputs:
        return lowering.result(call, constant_labels(call.shape))
    if len(inputs) == 1:
        return _linear_in(inputs[0], call, lowering)
    lowering.layer(call)
    if lowering.weights is not None:
        units = bilinear_units(call, lowering)
        return lowering.result(call, channel_labels(units, call.shape, len(call.shape) - 1))
    hubs = np.unique([lowering.builder.hub(distinct(value.labels)) for value in inputs])
    sets = LabelSets(np.tile(hubs, call.shape[-1]), np.full(call.shape[-1], len(hubs)))
    units = lowering.builder.merges(sets, float(lowering.policy.counts("product")))
    return lowering.result(call, channel_labels(units, call.shape, len(call.shape) - 1))


def _linear_in(source: Value, call: Call, lowering: Lowering) -> Value:
    """A bilinear layer of which one input has no path is a linear layer of the other."""
    is_first = call["input1"] is source
    other = call["input2" if is_first else "input1"]

    def matrix() -> torch.Tensor | None:
        found = weights_of(call, call["weight"], lowering)
        if found is None:
            return None
        if other.varies:
            lowering.by_data()
            return found.abs().sum(2 if is_first else 1).unsqueeze(0)
        factor = constant(other, call, lowering.constants).reshape(-1, other.shape[-1])
        letters = "oij,pj->poi" if is_first else "oij,pi->poj"
        return torch.einsum(letters, found.to(torch.float64), factor)

    axis = len(call.shape) - 1
    labels = dense_layer(call, source.labels, axis, call.shape[-1:], matrix, lowering)
    return lowering.result(call, labels)


def _times(call: Call, value: Value, factor: float, lowering: Lowering) -> Value:
    """A value times a number, where edges carry weights."""
    if lowering.weights is None or factor == 1 or not value.is_path:
        return value
    number = torch.tensor(abs(factor), dtype=torch.float64)
    return lowering.result(call, lowering.scaled(value.labels, number), dtype=value.dtype)


def _plus(call: Call, product: Value, added: Value, lowering: Lowering) -> Value:
    """A product, merged with a tensor that is added to it."""
    if not added.is_path:
        return product
    if not product.is_path:
        return lowering.result(call, added.labels.expand(call.shape))
    return merged(call, Meeting("sum", [product, added], (call,)), lowering)
