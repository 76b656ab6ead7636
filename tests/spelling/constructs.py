"""The grammar: constructs that turn a tensor of a program into another, and how they are drawn.

A construct is a function of a `Draw` and the place of a tensor, for some layouts. All results keep
the layout or name the new one, and tensors stay small: 2 to 4 tokens, 1 to 6 channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from tests.spelling.builder import Builder
from tests.spelling.program import channel_axis

T = TypeVar("T")


class Choose(Protocol):
    """Where choices come from: `random.Random.choice`, or Hypothesis."""

    def __call__(self, options: Sequence[T], /) -> T: ...


Construct = Callable[["Draw", int], int | None]
CONSTRUCTS: dict[str, tuple[str, Construct]] = {}  # name: (layouts, construct)


class Draw(Builder):
    """A program that is drawn."""

    def __init__(self, choose: Choose) -> None:
        super().__init__()
        self.choose = choose
        self.used: list[str] = []

    def size(self) -> int:
        return self.choose((2, 3, 4))

    def layer(self, x: int, out: int | None = None) -> int:
        """The plainest layer of a layout."""
        out = out or self.size()
        return self.conv(x, out) if self.layout(x) in ("ct", "chw") else self.linear(x, out)

    def any_act(self, x: int) -> int:
        return self.act(x, self.choose(CHAINED))

    def per_channel(self, x: int, numbers: Sequence[float]) -> np.ndarray:
        """A constant that differs from channel to channel."""
        axis = channel_axis(self.layout(x))
        shape = [-1 if a == axis else 1 for a in range(len(self.shape(x)))]
        return np.array(numbers[: self.channels(x)]).reshape(shape)

    def position_axes(self, x: int) -> list[int]:
        return [a for a, name in enumerate(self.layout(x)) if name != "c"]


# Functions that may follow another: an activation by name in every spelling.
CHAINED = ("relu", "leaky_relu", "gelu", "gelu_tanh", "silu", "mish", "tanh", "sigmoid")
CHAINED += ("hardtanh", "relu6", "hardswish", "abs", "elu", "softsign", "softplus", "hardsigmoid")
FIRST = ("squared_relu", "square", "gaussian", "sine", "log_magnitude", "softshrink")
FIRST += ("hardshrink", "threshold", "quick_gelu")
_NUMBERS = (0.5, 1.5, 0.75, 1.25, 0.625, 1.75, 0.875, 1.375)


def construct(layouts: str, name: str | None = None) -> Callable[[Construct], Construct]:
    def register(function: Construct) -> Construct:
        CONSTRUCTS[name or function.__name__.strip("_").replace("_", " ")] = (layouts, function)
        return function

    return register


# --- layers ---------------------------------------------------------------------------------------


@construct("c tc")
def linear(d: Draw, x: int) -> int:
    return d.linear(x, d.size())


@construct("ct chw")
def convolution(d: Draw, x: int) -> int:
    return d.conv(x, d.size())


@construct("ct chw")
def convolution_of_size_1(d: Draw, x: int) -> int:
    return d.conv(x, d.size(), 1)


@construct("ct chw")
def depthwise_convolution(d: Draw, x: int) -> int:
    return d.conv(x, d.channels(x), groups=d.channels(x))


@construct("ct chw")
def grouped_convolution(d: Draw, x: int) -> int | None:
    if d.channels(x) % 2:
        return None
    return d.conv(x, d.choose((2, 4)), d.choose((1, 3)), groups=2)


@construct("ct chw")
def strided_convolution(d: Draw, x: int) -> int | None:
    return d.conv(x, d.size(), stride=2) if min(d.shape(x)[1:]) > 2 else None


@construct("ct chw")
def transposed_convolution(d: Draw, x: int) -> int | None:
    return d.conv(x, d.size(), stride=2, transposed=True) if max(d.shape(x)[1:]) < 4 else None


@construct("tc ct")
def token_mixing(d: Draw, x: int) -> int:
    return d.mixing(x, d.choose((2, 3)))


@construct("tc")
def experts(d: Draw, x: int) -> int:
    gate = d.linear(x, 3)
    return d.linear(x, d.size(), gate)


@construct("c")
def bilinear(d: Draw, x: int) -> int:
    return d.bilinear(d.linear(x, 2), d.any_act(d.linear(x, 3)), d.size())


# --- activations: one construct each --------------------------------------------------------------


def _act(name: str) -> Construct:
    if name == "leaky_relu":
        return lambda d, x: d.act(x, name, d.choose((0.1, 0.3, 1.0)))
    return lambda d, x: d.act(x, name)


for _name in CHAINED:
    construct("c tc ct chw", _name)(_act(_name))
for _name in FIRST:
    construct("c tc ct chw", _name)(lambda d, x, name=_name: d.act(d.layer(x), name))


@construct("c tc ct chw")
def prelu(d: Draw, x: int) -> int:
    x = d.layer(x)
    return d.act(x, "prelu", d.per_channel(x, (0.25, 1.0, 0.5, 0.75)))


@construct("c tc ct chw")
def blend(d: Draw, x: int) -> int:
    x = d.layer(x)
    return d.act(x, "blend", d.per_channel(x, (1.0, 0.5, 0.25, 0.75)))


def _basis(name: str) -> Construct:
    return lambda d, x: d.basis(d.linear(x, 2), name, (0.5, 1.0, 2.0)[: d.choose((2, 3))])


for _name in ("hinge", "hat", "rbf", "fourier"):
    construct("c tc", f"basis {_name}")(_basis(_name))


@construct("c tc ct chw")
def concatenated_relu(d: Draw, x: int) -> int:
    x = d.layer(x, 2)
    return d.act(d.cat([x, d.affine(x, -1.0)], channel_axis(d.layout(x))), "relu")


# --- sums -----------------------------------------------------------------------------------------


@construct("c tc ct chw")
def residual_block(d: Draw, x: int) -> int:
    hidden = d.any_act(d.layer(x))
    return d.sum(x, d.layer(hidden, d.channels(x)))


@construct("c tc ct chw")
def pre_norm_residual(d: Draw, x: int) -> int:
    normed = d.like("norm", x, kind="standard", axes=(channel_axis(d.layout(x)),))
    return d.sum(x, d.layer(d.any_act(d.layer(normed)), d.channels(x)))


@construct("c tc ct chw")
def three_summands(d: Draw, x: int) -> int:
    branches = [d.layer(d.any_act(x), d.channels(x)), d.layer(x, d.channels(x))]
    return d.sum(x, *branches, factors=d.choose(((1.0, 1.0, 1.0), (1.0, -1.0, 0.5))))


@construct("c tc ct chw")
def nested_sum(d: Draw, x: int) -> int:
    other, third = d.layer(x, d.channels(x)), d.layer(x, d.channels(x))
    inner = d.sum(d.any_act(x), other) if d.choose((True, False)) else d.sum(other, third)
    return d.sum(inner, x, factors=(d.choose((1.0, 2.0)), 1.0))


@construct("c tc ct chw")
def activation_beside_its_entry(d: Draw, x: int) -> int:
    h = d.layer(x)
    other = d.layer(x, d.channels(h))
    return d.sum(d.sum(d.any_act(h), other), h, factors=(1.0, d.choose((1.0, -0.5))))


@construct("c tc ct chw")
def sum_with_two_readers(d: Draw, x: int) -> int:
    total = d.sum(x, d.layer(x, d.channels(x)))
    other = d.layer(x, d.channels(x))
    return d.sum(d.layer(d.any_act(total), d.channels(x)), d.sum(total, other))


@construct("c tc ct chw")
def layer_scale(d: Draw, x: int) -> int:
    branch = d.layer(d.any_act(d.layer(x)), d.channels(x))
    return d.sum(x, d.affine(branch, d.per_channel(branch, _NUMBERS)))


@construct("c tc ct chw")
def difference(d: Draw, x: int) -> int:
    return d.sum(d.any_act(d.layer(x, 3)), d.layer(x, 3), factors=(1.0, -1.0))


@construct("c tc ct chw")
def scale_and_shift(d: Draw, x: int) -> int:
    numbers = d.per_channel(x, _NUMBERS) if d.channels(x) <= 8 else 1.5
    return d.affine(x, numbers, d.choose((0.5, -1.0)))


@construct("tc")
def position_embedding(d: Draw, x: int) -> int:
    shape = d.shape(x)
    table = np.linspace(0.1, 0.9, shape[0] * shape[1]).reshape(shape)
    return d.affine(x, 1.0, table)


@construct("c tc ct chw")
def dense_concatenation(d: Draw, x: int) -> int:
    new = d.any_act(d.layer(x, 2))
    return d.cat([x, new], channel_axis(d.layout(x)))


# --- products, extremes, choices ------------------------------------------------------------------


@construct("c tc ct chw")
def gate(d: Draw, x: int) -> int:
    h = d.layer(x, 3)
    return d.product(h, d.act(d.layer(x, 3), "sigmoid"))


@construct("c tc ct chw")
def glu(d: Draw, x: int) -> int:
    h = d.layer(x, 4)
    axis = channel_axis(d.layout(h))
    left, right = d.slice(h, axis, 0, 2), d.slice(h, axis, 2, 4)
    return d.product(left, d.act(right, d.choose(("sigmoid", "silu", "gelu", "relu"))))


@construct("ct chw")
def squeeze_and_excitation(d: Draw, x: int) -> int:
    pooled = d.reduce(x, "mean", d.position_axes(x))
    hidden = d.act(d.conv(pooled, 2, 1), "relu")
    return d.product(x, d.act(d.conv(hidden, d.channels(x), 1), "sigmoid"))


@construct("c tc ct chw")
def product_of_two_layers(d: Draw, x: int) -> int:
    return d.product(d.layer(x, 2), d.any_act(d.layer(x, 2)))


@construct("c tc")
def quotient(d: Draw, x: int) -> int:
    return d.quotient(d.layer(x, 2), d.act(d.layer(x, 2), "sigmoid"))


def _in_some_order(d: Draw, *args: int) -> list[int]:
    """Arguments in an order that is drawn."""
    order = d.choose(list(itertools.permutations(range(len(args)))))
    return [args[place] for place in order]


@construct("c tc ct chw")
def product_of_three(d: Draw, x: int) -> int:
    factors = [d.layer(x, 2), d.any_act(d.layer(x, 2)), d.layer(x, 2)]
    return d.product(*_in_some_order(d, *factors))


@construct("c tc ct chw")
def nested_product(d: Draw, x: int) -> int:
    one, other, third = _in_some_order(d, d.layer(x, 2), d.layer(x, 2), d.any_act(d.layer(x, 2)))
    inner = d.product(one, other)
    if d.choose((True, False)):
        inner = d.affine(inner, d.choose((-0.5, 2.0)))
    return d.product(*_in_some_order(d, inner, third))


@construct("c tc ct chw")
def gate_apart_from_its_entry(d: Draw, x: int) -> int:
    h = d.layer(x, 3)
    other, gate = d.any_act(d.layer(x, 3)), d.act(h, d.choose(("sigmoid", "tanh", "softplus")))
    one, other, third = _in_some_order(d, h, other, gate)
    return d.product(d.product(one, other), third)


@construct("c tc ct chw")
def factor_that_is_squared(d: Draw, x: int) -> int:
    h = d.layer(x, 2)
    return d.product(d.product(h, d.layer(x, 2)), h)


@construct("c tc ct chw")
def product_with_two_readers(d: Draw, x: int) -> int:
    inner = d.product(d.layer(x, 2), d.layer(x, 2))
    return d.sum(d.layer(d.any_act(inner), 2), d.product(inner, d.layer(x, 2)))


@construct("c tc ct chw")
def masked_factor(d: Draw, x: int) -> int:
    masked = d.like("masked", d.layer(x, 2), d.layer(x, 2))
    return d.product(*_in_some_order(d, masked, d.any_act(d.layer(x, 2))))


@construct("c tc")
def quotient_by_two(d: Draw, x: int) -> int:
    one, other = (d.act(d.layer(x, 2), "sigmoid") for _ in range(2))
    above = d.layer(x, 2)
    if d.choose((True, False)):
        return d.quotient(above, one, other)
    if d.choose((True, False)):
        return d.quotient(above, d.product(one, other))
    return d.quotient(d.quotient(above, one), other)


@construct("c tc")
def quotient_apart_from_its_entry(d: Draw, x: int) -> int:
    h, other = d.layer(x, 2), d.layer(x, 2)
    below = d.act(h, d.choose(("sigmoid", "softplus")))
    return d.product(*_in_some_order(d, d.quotient(other, below), h))


@construct("c tc ct chw")
def product_with_itself_moved(d: Draw, x: int) -> int | None:
    axes = d.position_axes(x)
    if not axes:
        return None
    h = d.layer(x)
    return d.product(h, d.act(d.flip(h, axes[0]), "sigmoid"))


@construct("c tc ct chw")
def maxout(d: Draw, x: int) -> int:
    return d.like("maximum", d.layer(x, 3), d.layer(x, 3))


@construct("c tc ct chw")
def extreme_of_three(d: Draw, x: int) -> int:
    parts = [d.layer(x, 2), d.any_act(d.layer(x, 2)), d.layer(x, 2)]
    return d.like(d.choose(("maximum", "minimum")), *_in_some_order(d, *parts))


@construct("c tc ct chw")
def nested_maximum(d: Draw, x: int) -> int:
    one, other, third = _in_some_order(d, d.layer(x, 2), d.layer(x, 2), d.any_act(d.layer(x, 2)))
    inner = d.like("maximum", one, other)
    if d.choose((True, False)):
        inner = d.affine(d.like("minimum", one, other), d.choose((-1.0, -0.5)), 0.5)
    return d.like("maximum", *_in_some_order(d, inner, third))


@construct("c tc ct chw")
def maximum_of_functions_of_one(d: Draw, x: int) -> int:
    h = d.layer(x, 3)
    parts = [d.affine(h, -1.0), h, d.layer(x, 3)]
    one, other, third = _in_some_order(d, *parts)
    return d.like("maximum", d.like("maximum", one, other), third)


@construct("c tc ct chw")
def minimum_of_two(d: Draw, x: int) -> int:
    return d.like("minimum", d.layer(x, 2), d.any_act(d.layer(x, 2)))


@construct("c tc ct chw")
def foreign_mask(d: Draw, x: int) -> int:
    h = d.any_act(d.layer(x, 3))
    return d.like("masked", d.layer(x, 3), h)


@construct("c tc ct chw")
def choice_by_a_mask(d: Draw, x: int) -> int:
    return d.like("choose", d.layer(x, 3), d.any_act(d.layer(x, 3)), d.layer(x, 3))


@construct("c tc ct chw")
def constant_mask(d: Draw, x: int) -> int:
    a, b = d.any_act(d.layer(x, 3)), d.layer(x, 3)
    return d.select(a, b, d.per_channel(a, (1, 0, 1, 0)).astype(bool))


@construct("c tc ct chw")
def constant_fill(d: Draw, x: int) -> int:
    h = d.layer(x, 3)
    return d.fill(h, np.broadcast_to(d.per_channel(h, (0, 1, 0)).astype(bool), d.shape(h)).copy())


# --- contractions ---------------------------------------------------------------------------------


@construct("tc")
def attention(d: Draw, x: int) -> int:
    return d.attention(d.linear(x, 2), d.linear(x, 2), d.linear(x, 2), 1)


@construct("tc")
def attention_of_two_heads(d: Draw, x: int) -> int:
    mixed = d.attention(d.linear(x, 4), d.linear(x, 4), d.linear(x, 4), 2)
    return d.sum(x, d.linear(mixed, d.channels(x)))


@construct("tc")
def cross_attention(d: Draw, x: int) -> int:
    memory = d.any_act(d.linear(x, 3))
    return d.attention(d.linear(x, 2), d.linear(memory, 2), d.linear(memory, 2), 1)


@construct("tc")
def linear_attention(d: Draw, x: int) -> int:
    q, k, v = d.linear(x, 2), d.act(d.linear(x, 2), "elu"), d.linear(x, 3)
    context = d.matmul(k, v, "tc", left=True)
    return d.matmul(q, context, "tc")


@construct("tc")
def dynamic_token_mixing(d: Draw, x: int) -> int:
    weights = d.matmul(d.linear(x, 2), d.any_act(d.linear(x, 2)), "tc", right=True)
    return d.matmul(weights, d.linear(x, 2), "tc")


# --- normalizations, statistics -------------------------------------------------------------------


@construct("c tc ct chw")
def layer_norm(d: Draw, x: int) -> int:
    axes = (channel_axis(d.layout(x)),) if d.choose((True, False)) else range(len(d.shape(x)))
    return d.like("norm", x, kind="standard", axes=tuple(axes))


@construct("tc ct chw")
def instance_norm(d: Draw, x: int) -> int:
    return d.like("norm", x, kind="standard", axes=tuple(d.position_axes(x)))


@construct("c tc ct chw")
def rms_norm(d: Draw, x: int) -> int:
    return d.like("norm", x, kind="rms", axes=(channel_axis(d.layout(x)),))


@construct("c tc")
def unit_length(d: Draw, x: int) -> int:
    return d.like("norm", x, kind="l2", axes=(channel_axis(d.layout(x)),))


@construct("ct chw")
def group_norm(d: Draw, x: int) -> int:
    groups = 2 if d.channels(x) % 2 == 0 else 1
    return d.like("norm", x, kind="group", groups=groups)


@construct("c tc ct chw")
def batch_norm(d: Draw, x: int) -> int:
    return d.like("norm", x, kind="batch")


@construct("ct chw")
def response_norm(d: Draw, x: int) -> int:
    return d.like("norm", x, kind="grn", axes=tuple(d.position_axes(x)))


@construct("c tc ct chw")
def softmax(d: Draw, x: int) -> int:
    return d.like("softmax", d.layer(x, 3), axis=d.choose(range(len(d.shape(x)))))


@construct("c tc")
def weighted_by_softmax(d: Draw, x: int) -> int:
    h = d.layer(x, 3)
    return d.product(h, d.like("softmax", h, axis=channel_axis(d.layout(h))))


@construct("c tc ct chw")
def activation_of_a_norm_beside_it(d: Draw, x: int) -> int:
    h = d.layer(x)
    normed = d.like("norm", h, kind="standard", axes=(channel_axis(d.layout(h)),))
    return d.sum(h, d.act(normed, d.choose(("gelu", "relu", "tanh"))))


@construct("tc ct chw")
def without_the_mean(d: Draw, x: int) -> int:
    h = d.layer(x)
    mean = d.reduce(h, "mean", d.choose((d.position_axes(h), [channel_axis(d.layout(h))])))
    return d.sum(h, mean, factors=(1.0, d.choose((-1.0, 0.5))))


@construct("c tc ct chw")
def gate_by_a_statistic(d: Draw, x: int) -> int:
    h = d.layer(x)
    axes = [channel_axis(d.layout(h))] if d.layout(h) == "c" else d.position_axes(h)
    statistic = d.reduce(h, d.choose(("mean", "std", "norm", "logsumexp")), axes)
    return d.product(h, d.act(statistic, "sigmoid"))


@construct("c tc ct chw")
def divided_by_the_maximum(d: Draw, x: int) -> int:
    h = d.act(d.layer(x), "softplus")
    return d.quotient(h, d.reduce(h, "amax", [channel_axis(d.layout(h))]))


@construct("tc ct chw")
def style_of_another(d: Draw, x: int) -> int:
    other = d.reduce(d.any_act(d.layer(x, 3)), d.choose(("mean", "std")), d.position_axes(x))
    return d.product(d.layer(x, 3), other)
