"""One function, one set of numbers: pairs of programs that compute the same, and worked values.

Each pair stands for a kind of program. The plain form is counted by what `test_closed_forms.py` and
the golden values hold.
"""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from tests.constructs import Model, answer

ROWS, TOKENS, IMAGE = torch.randn(2, 4), torch.randn(2, 5, 4), torch.randn(2, 3, 8, 8)


def numbers(model, *example, status="exact"):
    report = pathlen.measure(model, example, exact=True)
    return *answer(model, *example, status=status), report.num_active


# how many elements a mask picks depends on the example, which the report says
PICKS = {"masked into zeros", "masked scatter", "leaky by a mask", "elu by a mask"}


def status_of(name):
    return "example" if name in PICKS else "exact"


def residual(activation):
    """c(x + b(activation(a(x)))): 4 -> 5 -> 4 -> 3 features."""
    layers = {"a": nn.Linear(4, 5), "b": nn.Linear(5, 4), "c": nn.Linear(4, 3)}
    return Model(lambda m, x: m.c(x + m.b(activation(m.a(x)))), **layers)


def written(h, mask, values):
    h = h.clone()
    h[mask] = values
    return h


def by_index(h):
    where = torch.arange(h.shape[-1])
    return h.index_select(-1, where) * (h[..., where] > 0)


def into_zeros(h):
    out = torch.zeros_like(h)
    out[h > 0] = h[h > 0]
    return out


def in_halves(h):
    out = torch.zeros_like(h)
    out[:, :2] = h[:, :2]
    out[:, 2:] = h[:, 2:]
    return out * (h > 0)


RELUS = {
    "boolean assignment": lambda h: written(h, h < 0, 0.0),
    "masked into zeros": into_zeros,
    "masked scatter": lambda h: torch.zeros_like(h).masked_scatter(h > 0, h[h > 0]),
    "masked fill": lambda h: h.masked_fill(h < 0, 0.0),
    "separate views": lambda h: (h.view(2, 5, 1) * (h.view(2, 5, 1) > 0)).view(2, 5),
    "separate new axes": lambda h: (h[..., None] * (h[..., None] > 0))[..., 0],
    "transposed": lambda h: (h.T * (h.T > 0)).T,
    "one of two transposed": lambda h: h.T.reshape(5, 2).T * (h > 0),
    "split and joined": lambda h: torch.cat([c * (c > 0) for c in h.split(2, -1)], -1),
    "chunks joined": lambda h: torch.cat(h.chunk(2, 1), 1) * (h > 0),
    "rolled there and back": lambda h: h * (h.roll(1, 1).roll(-1, 1) > 0),
    "by index": by_index,
    "written in halves": in_halves,
    "einsum with a mask": lambda h: torch.einsum("bc,bc->bc", h, (h > 0).float()),
    "maximum of a stack": lambda h: torch.stack([h, torch.zeros_like(h)], -1).max(-1).values,
    "largest of a stack": lambda h: torch.stack([h, torch.zeros_like(h)]).amax(0),
    "half of two": lambda h: (h + h.abs()) / 2,
    "heaviside": lambda h: h * torch.heaviside(h, torch.zeros(())),
    "channel by channel": lambda h: torch.stack([h[:, i] * (h[:, i] > 0) for i in range(5)], 1),
    "largest of what was joined": lambda h: torch.cat([h[None], 0 * h[None]]).max(0).values,
    "a mask that is or-ed": lambda h: h * (torch.zeros_like(h, dtype=torch.bool).__ior__(h > 0)),
}


@pytest.mark.parametrize("name", RELUS)
def test_a_relu_is_a_relu(name):
    h = torch.randn(2, 5)
    torch.testing.assert_close(RELUS[name](h), F.relu(h))
    found = numbers(residual(RELUS[name]), ROWS, status=status_of(name))
    assert found == numbers(residual(F.relu), ROWS)


OTHERS = {
    "silu with a new axis": (lambda h: (h[..., None] * h[..., None].sigmoid())[..., 0], F.silu),
    "silu permuted": (lambda h: h.T.contiguous().T * h.sigmoid(), F.silu),
    "leaky by a mask": (
        lambda h: written(h, h < 0, 0.1 * h[h < 0]),
        lambda h: F.leaky_relu(h, 0.1),
    ),
    "elu by a mask": (lambda h: written(h, h < 0, torch.expm1(h[h < 0])), F.elu),
    "a blend by weights": (
        lambda h: torch.stack([h, h.relu()], -1) @ torch.tensor([0.3, 0.7]),
        lambda h: F.leaky_relu(h, 0.3),
    ),
    "a blend that is linear": (
        lambda h: (torch.stack([h, h.relu()], -1) * torch.tensor([1.0, 0.0])).sum(-1),
        lambda h: h,
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_function_is_what_it_computes(name):
    one, other = OTHERS[name]
    h = torch.randn(2, 5)
    torch.testing.assert_close(one(h), other(h))
    found = numbers(residual(one), ROWS, status=status_of(name))
    assert found == numbers(residual(other), ROWS)


@pytest.mark.parametrize("picked", [1, 2, 9, 10])
def test_how_many_elements_a_mask_picks_makes_no_difference(picked):
    signs = torch.ones(10)
    signs[:picked] = -1

    def elu(m, x):
        h = m.a(x) * 0 + signs.view(2, 5)  # the numbers of the example, whatever the weights
        return written(h, h < 0, torch.expm1(h[h < 0]))

    assert numbers(Model(elu, a=nn.Linear(4, 5)), ROWS, status="example") == (20, 1, 1, 5)


def head(function):
    return Model(lambda m, x: m.c(function(m.a(x))), a=nn.Linear(4, 4), c=nn.Linear(4, 3))


LOG_2 = math.log(2)
SOFTMAXES = {
    "minus logsumexp": lambda a: (a - a.logsumexp(-1, keepdim=True)).exp(),
    "minus the logarithm of a sum": lambda a: (a - a.exp().sum(-1, keepdim=True).log()).exp(),
    "of log softmax": lambda a: F.log_softmax(a, -1).exp(),
    "quotient": lambda a: a.exp() / a.exp().sum(-1, keepdim=True),
    "times a reciprocal": lambda a: a.exp() * a.exp().sum(-1, keepdim=True).reciprocal(),
    "times a power": lambda a: a.exp() * a.exp().sum(-1, keepdim=True) ** -1,
    "powers of powers": lambda a: (p := (-a).exp() ** -1) / p.sum(-1, keepdim=True),
    "1-norm": lambda a: F.normalize(a.exp(), p=1, dim=-1),
    "powers of 2": lambda a: (p := 2.0 ** (a / LOG_2)) / p.sum(-1, keepdim=True),
    "powers of e": lambda a: (p := torch.pow(torch.tensor(math.e), a)) / p.sum(-1, keepdim=True),
    "sum by ones": lambda a: a.exp() / (a.exp() @ torch.ones(a.shape[-1], 1)),
    "shifted": lambda a: (e := (a - a.amax(-1, keepdim=True)).exp()) / e.sum(-1, keepdim=True),
}


@pytest.mark.parametrize("name", SOFTMAXES)
def test_a_softmax_is_a_pass(name):
    a = torch.randn(2, 4)
    torch.testing.assert_close(SOFTMAXES[name](a), a.softmax(-1))
    plain = numbers(head(lambda h: h.softmax(-1)), ROWS)
    assert numbers(head(SOFTMAXES[name]), ROWS) == plain == (48, 0, 0, 0)
    assert numbers(head(lambda h: h * SOFTMAXES[name](h)), ROWS) == plain


STATISTICS = {
    "einsum": lambda h: h / torch.einsum("btc,btc->bt", h, h).sqrt()[..., None],
    "matmul": lambda h: h / ((h * h) @ torch.ones(4, 1)).sqrt(),
    "all axes": lambda h: h - (h.flatten(1) @ torch.full((20, 1), 0.05)).view(2, 1, 1),
    "largest by topk": lambda h: h / h.topk(1, -1).values,
    "largest by sort": lambda h: h / h.sort(-1).values[..., -1:],
    "pooled to one": lambda h: h - F.adaptive_avg_pool1d(h.mT, 1).mT,
    "stacked and summed": lambda h: torch.stack(
        torch.broadcast_tensors(h, -h.mean(-1, keepdim=True))
    ).sum(0),
    "einsum with the mean": lambda h: torch.einsum(
        "...k,k->...", torch.stack([h, h.mean(1, keepdim=True).expand_as(h)], -1), PLUS_MINUS
    ),
    "of slices put together again": lambda h: F.normalize(torch.stack(h.unbind(-1), -1), dim=-1),
    "a gate written in parts": lambda h: h * in_parts(h.mean(1, keepdim=True)).sigmoid(),
}
PLUS_MINUS = torch.tensor([1.0, -1.0])


def in_parts(h):
    out = h.clone()
    out[..., :2], out[..., 2:] = h[..., :2], h[..., 2:]
    return out


@pytest.mark.parametrize("name", STATISTICS)
def test_a_normalization_is_a_pass(name):
    assert numbers(head(STATISTICS[name]), TOKENS) == (48, 0, 0, 0)


def test_an_exponential_over_another_sum_is_bent():
    bent = head(lambda h: h.exp() / (2 * h).exp().sum(-1, keepdim=True))
    assert numbers(bent, ROWS)[3] > 0


def image_net(function):
    layers = {"a": nn.Conv2d(3, 4, 3, padding=1), "c": nn.Conv2d(4, 2, 1)}
    return Model(lambda m, x: m.c(function(m.a(x))), **layers)


WINDOWS = {
    "pooled and resized": lambda h: h + F.interpolate(F.relu(F.avg_pool2d(h, 2)), scale_factor=2),
    "pooled in place": lambda h: h + F.relu(F.avg_pool2d(h, 3, 1, 1)),
    "cumulated": lambda h: h + h.cumsum(-1).relu(),
    "sorted": lambda h: h + h.sort(-1).values.relu(),
    "flipped": lambda h: h + h.flip(-1).relu(),
    "means of blocks": lambda h: h + blocks(h).mean(-1).relu().repeat_interleave(2, -1),
    "means of blocks, expanded": lambda h: (
        h + blocks(h).mean(-1, keepdim=True).relu().expand(-1, -1, -1, -1, 2).flatten(-2)
    ),
    "maxima of slices": lambda h: (
        h
        + F.interpolate(
            torch.maximum(
                torch.maximum(h[..., ::2, ::2], h[..., 1::2, ::2]),
                torch.maximum(h[..., ::2, 1::2], h[..., 1::2, 1::2]),
            ).relu(),
            scale_factor=2,
        )
    ),
}


def blocks(h):
    return h.unflatten(-1, (-1, 2))


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_no_statistics(name):
    # a channel of a, directly and over its activation: 3 * 4 * 2 * 2 paths
    assert numbers(image_net(WINDOWS[name]), IMAGE) == (48, Fraction(1, 2), Fraction(1, 2), 4)


def copies(x):
    out = torch.zeros(2, 12)
    for place, factor in enumerate((1.0, -1.0, 2.0)):
        out[:, 4 * place : 4 * place + 4] = factor * x
    return out


FREQUENCIES, KNOTS = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([-1.0, 0.0, 1.0])
SPLIT = {
    "Fourier features": lambda x: torch.sin(x[..., None] * FREQUENCIES).flatten(1),
    "radial bases": lambda x: torch.exp(-((x[..., None] - KNOTS) ** 2)).flatten(1),
    "hinges": lambda x: torch.relu(x[..., None] - KNOTS).flatten(1),
    "copies": lambda x: torch.relu(torch.cat([x, -x, 2 * x], 1)),
    "copies that were written": lambda x: torch.relu(copies(x)),
    "padded and added": lambda x: torch.relu(
        F.pad(torch.cat([x, -x], 1), (0, 4)) + F.pad(2 * x, (8, 0))
    ),
    "repeated bases": lambda x: torch.exp(-((x.repeat_interleave(3, 1) - KNOTS.repeat(4)) ** 2)),
    "a repeated tensor": lambda x: torch.relu(x.repeat(1, 3) * FREQUENCIES.repeat_interleave(4)),
}


@pytest.mark.parametrize("name", SPLIT)
def test_several_functions_of_one_element_are_several_units(name):
    model = Model(lambda m, x: m.c(SPLIT[name](x)), c=nn.Linear(12, 2))
    assert numbers(model, ROWS) == (4 * 3 * 2, 1, 1, 12)


def test_a_position_embedding_splits_nothing():
    positions = torch.randn(5, 4)
    assert numbers(head(lambda h: (h + positions).relu()), TOKENS) == (48, 1, 1, 4)


LINEAR = {
    "product of repeats": lambda w, x: (
        (x.repeat(1, len(w)) * w.flatten()).view(len(x), *w.shape).sum(-1)
    ),
    "product and sum": lambda w, x: (x[:, None] * w).sum(-1),
    "product and sum, turned": lambda w, x: (x[..., None] * w.T).sum(1),
    "row by row": lambda w, x: torch.stack([(x * row).sum(-1) for row in w], -1),
    "einsum": lambda w, x: torch.einsum("bi,oi->bo", x, w),
    "tensordot": lambda w, x: torch.tensordot(x, w, dims=([1], [1])),
    "inner": lambda w, x: torch.inner(x, w),
}


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("name", [n for n in LINEAR if n != "row by row"])
def test_a_linear_map_is_a_layer(name, width):
    weight = torch.randn(5, width)
    body = Model(lambda m, x: m.c(F.relu(LINEAR[name](weight, x[:, :width]))), c=nn.Linear(5, 3))
    plain = Model(lambda m, x: m.c(F.relu(F.linear(x[:, :width], weight))), c=nn.Linear(5, 3))
    assert numbers(body, ROWS) == numbers(plain, ROWS)


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_map_that_is_added_to_its_input_is_no_statistic(name):
    weight = torch.randn(4, 4)
    body = Model(lambda m, x: m.c(x + F.relu(LINEAR[name](weight, x))), c=nn.Linear(4, 3))
    plain = Model(lambda m, x: m.c(x + F.relu(F.linear(x, weight))), c=nn.Linear(4, 3))
    assert numbers(body, ROWS) == numbers(plain, ROWS)


REDUCTIONS = {
    "norm": lambda h: h.norm(dim=-1),
    "maximum": lambda h: h.amax(-1),
    "logarithm of a sum": lambda h: h.logsumexp(-1),
    "mean": lambda h: h.mean(-1),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_reduction_for_each_prototype_is_a_unit_for_each(name):
    prototypes = torch.randn(3, 4)
    model = Model(lambda m, x: REDUCTIONS[name](m.a(x)[:, None] - prototypes), a=nn.Linear(4, 4))
    assert numbers(model, ROWS) == (4 * 4 * 3, 0, 0, 0)
    # held against all prototypes at once, it is the statistic of a normalization
    normalized = Model(
        lambda m, x: (h := m.a(x)[:, None] - prototypes) - REDUCTIONS[name](h)[..., None],
        a=nn.Linear(4, 4),
    )
    assert numbers(normalized, ROWS) == (4 * 4, 0, 0, 0)


def test_a_convolution_along_tokens_keeps_channels_apart():
    layers = {"a": nn.Linear(4, 6), "t": nn.Conv1d(5, 8, 1), "u": nn.Conv1d(8, 5, 1)}
    mixer = Model(lambda m, x: (h := m.a(x)) + m.u(F.relu(m.t(h))), **layers)
    # 4 ways to each of 6 channels, twice: directly, and through its own activation
    assert numbers(mixer, TOKENS) == (4 * 6 * 2, Fraction(1, 2), Fraction(1, 2), 6)


def test_summands_that_are_views_and_broadcast_are_flat():
    """Scores with positions of rows and of columns, as in MViTv2."""

    def body(m, x):
        scores, rows, columns = m.a(x).view(2, 2, 3, 5), m.b(x).view(2, 2, 3), m.c(x).view(2, 2, 5)
        return scores + rows[..., None] + columns[..., None, :]

    layers = {"a": nn.Linear(4, 30), "b": nn.Linear(4, 6), "c": nn.Linear(4, 10)}
    assert numbers(Model(body, **layers), ROWS) == (30 * 3 * 4, 0, 0, 0)


def test_product_and_sum_along_tokens_keeps_channels_apart():
    weight = torch.randn(3, 5)
    mixer = head(lambda h: F.silu((h.mT[:, :, None] * weight).sum(-1)).mT)
    assert numbers(mixer, TOKENS) == (4 * 4 * 3, 1, 1, 4)


def test_memory_that_is_written_in_parts():
    def loop(m, x):
        out = torch.zeros(3, 2, 4)
        for step in range(3):
            x = F.relu(m.a(x))
            out[step] = x
        return out

    model = Model(loop, a=nn.Linear(4, 4))
    # 4^2 + 4^3 + 4^4 paths, of lengths 1, 2 and 3
    assert numbers(model, ROWS)[:3] == (336, Fraction(16 + 2 * 64 + 3 * 256, 336), 2)
    halves = Model(lambda m, x: in_halves(m.a(x)), a=nn.Linear(4, 4))
    assert numbers(halves, ROWS) == (16, 1, 1, 4)


def test_what_was_added_up_in_memory_is_read_twice():
    def gate(m, x):
        h = F.dropout(torch.zeros(2, 4).add_(m.a(x)).add_(m.b(x)), training=False)
        return m.c(h) / m.d(h).sigmoid()

    model = Model(gate, **{name: nn.Linear(4, 4) for name in "abcd"})
    # twice 4 * 4 ways to the sum; 4 of its units to each of 4, twice, one of them active
    assert numbers(model, ROWS) == (4 * 2 * 4 * 2 * 4, Fraction(1, 2), Fraction(1, 2), 4)


def test_a_running_maximum_over_all_features_is_a_statistic():
    def shifted(m, x):
        h, top = m.a(x), torch.full((2, 1), -9.0)
        for place in range(4):
            top = torch.maximum(top, h[:, place : place + 1])
        return h - top

    assert numbers(Model(shifted, a=nn.Linear(4, 4)), ROWS) == (16, 0, 0, 0)


PADDED = {
    "joined": lambda h: torch.cat([F.hardtanh(h[:, :2]), h[:, 2:]], 1),
    "padded and added": lambda h: F.pad(F.hardtanh(h[:, :2]), (0, 2)) + F.pad(h[:, 2:], (2, 0)),
}


@pytest.mark.parametrize("name", PADDED)
def test_zeros_beside_an_activation_are_no_activation(name):
    layers = {"a": nn.Linear(4, 4), "c": nn.Linear(4, 3)}
    model = Model(lambda m, x: m.c(PADDED[name](m.a(x))), **layers)
    assert numbers(model, ROWS) == (48, Fraction(1, 2), Fraction(1, 2), 2)


PHASES = {
    "exponential": lambda h: torch.exp(1j * h),
    "parts": lambda h: torch.complex(h.cos(), h.sin()),
    "polar": lambda h: torch.polar(torch.ones_like(h), h),
}


@pytest.mark.parametrize("name", PHASES)
def test_a_complex_function_of_one_tensor_is_one_activation(name):
    layers = {"a": nn.Linear(4, 4), "c": nn.Linear(4, 3)}
    model = Model(lambda m, x: m.c(PHASES[name](m.a(x)).real), **layers)
    assert numbers(model, ROWS) == (48, 1, 1, 4)


def test_a_moving_average_of_features_is_linear_in_them():
    # steps of a series are features: 12 direct ways, and 12 windows of 2 or 3 of them; 5 outputs
    def trend(m, x):
        windows = torch.cat([x[:, :1], x, x[:, -1:]], 1).mT
        return m.c(x.mT - F.avg_pool1d(windows, 3, 1))

    found = numbers(Model(trend, c=nn.Linear(12, 5)), torch.randn(2, 12, 3))
    assert found == (5 * (12 + 10 * 3 + 2 * 2), 0, 0, 0)


def test_scalars_meet():
    model = Model(lambda m, x: m.a(x).relu().mean() + x.sum(), a=nn.Linear(4, 4))
    assert numbers(model, ROWS)[3] == 4
