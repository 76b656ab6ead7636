"""The features of an input do not depend on how what reads them is written.

Spellings of one layer behind the same residual block have the numbers of the plain one. Where
functions differ, the number of the input's units is compared with one worked out by hand.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import (
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    avg_pool1d,
    avg_pool2d,
    conv1d,
    conv2d,
    embedding,
    interpolate,
    linear,
    pad,
    relu,
    scaled_dot_product_attention,
    unfold,
)

import pathlen
from tests.constructs import Model, answer

ROWS, TOKENS, IMAGE = torch.randn(2, 4), torch.randn(2, 6, 4), torch.randn(2, 3, 8, 8)
W, PATCH = nn.Linear(4, 6, bias=False), nn.Conv2d(3, 6, 2, stride=2, bias=False)
SEVERAL = nn.Parameter(torch.randn(6, 6, 4))
LSTM, CELL = nn.LSTM(4, 6, batch_first=True), nn.GRUCell(4, 6)
BILINEAR = nn.Bilinear(4, 4, 6)
BATCH_NORM, LAYER_NORM = nn.BatchNorm1d(4), nn.LayerNorm(4)


def block(first):
    """A residual block of 6 features, hidden width 8, behind a first layer."""

    def forward(m, x):
        h = first(x)
        return m.c(h + m.b(relu(m.a(h))))

    return Model(forward, a=nn.Linear(6, 8), b=nn.Linear(8, 6), c=nn.Linear(6, 3))


def image_block(first):
    def forward(m, x):
        h = first(x)
        return m.c(h + m.b(relu(m.a(h))))

    return Model(forward, a=nn.Conv2d(6, 8, 1), b=nn.Conv2d(8, 6, 1), c=nn.Conv2d(6, 3, 1))


def slice_copied(x):
    buffer = torch.zeros(2, 8, 4)
    buffer[:, :6] = x
    return W(buffer)


def columns_copied(x):
    buffer = torch.zeros(2, 6, 4)
    buffer[:, :, :2] = x[:, :, :2]
    buffer[:, :, 2:] = x[:, :, 2:]
    return W(buffer)


def steps_copied(x):
    buffer = torch.empty(6, 2, 4)
    for step in range(6):
        buffer[step] = x[:, step]
    return W(buffer)


def copied_through_a_transpose(x):
    buffer = torch.zeros(2, 4, 6)
    buffer.transpose(1, 2)[:, 1:].copy_(x[:, 1:])
    return W(buffer.mT)


def changed_in_place(x):
    x = x.clone()
    x[:, 0] = x[:, 0] * 2
    x[:, 1:] -= x[:, :-1].clone()
    return W(x)


def split_and_changed(x):
    x = x.clone()
    for part in x.chunk(2, 1):
        part.mul_(0.5)
    return W(x)


def steps_through_rows(x):
    buffer = torch.zeros(2, 6, 4)
    rows = buffer.unbind(1)  # taken before anything is written
    for step in range(6):
        rows[step].copy_(x[:, step])
    return W(buffer)


def steps_through_a_flat_view(x):
    buffer = torch.zeros(2, 6, 4)
    flat = buffer.view(2, 24)
    for step in range(6):
        flat[:, 4 * step : 4 * step + 4] = x[:, step]
    return W(buffer)


def steps_through_strides(x):
    buffer = torch.zeros(2, 6, 4)
    for step in range(6):
        buffer.as_strided((2, 4), (24, 1), 4 * step).copy_(x[:, step])
    return W(buffer)


def on_a_diagonal(x):
    buffer = torch.zeros(2, 6, 6, 4)
    buffer.diagonal(0, 1, 2).copy_(x.mT)
    return W(buffer.sum(2))


def read_while_it_is_filled(x):
    buffer = torch.zeros(2, 6, 4)
    buffer[:, 0] = x[:, 0]
    for step in range(1, 6):
        buffer[:, step] = x[:, step] + 0.5 * buffer[:, step - 1]
    return W(buffer)


def through_a_cast_to_the_same_type(x):
    buffer = torch.zeros(2, 6, 4)
    for step in range(6):
        buffer.to(torch.float32)[:, step] = x[:, step]
    return W(buffer)


def as_imaginary_parts(x):
    buffer = torch.zeros(2, 6, 4, dtype=torch.complex64)
    for step in range(6):
        buffer[:, step].imag.copy_(x[:, step])
    return W(buffer.imag)


def as_pairs(x):
    buffer = torch.zeros(2, 6, 4, 2)
    numbers = torch.view_as_complex(buffer)
    buffer[..., 0].copy_(x)
    return W(numbers.real)


READS_TOKENS = {
    # the layer in other spellings
    "matmul": lambda x: x @ W.weight.T,
    "einsum": lambda x: torch.einsum("btc,dc->btd", x, W.weight),
    "einsum, implicit": lambda x: torch.einsum("btc,cz->btz", x, W.weight.T),
    "einsum without a result": lambda x: torch.einsum("abc,cd", x, W.weight.T),
    "einsum with an ellipsis": lambda x: torch.einsum("...c,dc->...d", x, W.weight),
    "einsum, the weight first": lambda x: torch.einsum("dc,btc->btd", W.weight, x),
    "tensordot": lambda x: torch.tensordot(x, W.weight, dims=([2], [1])),
    "inner": lambda x: torch.inner(x, W.weight),
    "the transposed product": lambda x: (W.weight @ x.mT).mT,
    "bmm": lambda x: torch.bmm(x, W.weight.T.expand(2, 4, 6)),
    "baddbmm": lambda x: torch.baddbmm(torch.zeros(1), x, W.weight.T.expand(2, 4, 6)),
    "addmm": lambda x: torch.addmm(torch.zeros(6), x.reshape(12, 4), W.weight.T).view(2, 6, 6),
    "conv1d": lambda x: conv1d(x.mT, W.weight[..., None]).mT,
    "conv2d": lambda x: conv2d(x.mT[..., None], W.weight[..., None, None])[..., 0].mT,
    # what moves
    "an index": lambda x: W(x[:, [4, 3, 2, 1, 0]]),
    "two indices": lambda x: W(x[[[0], [1]], [[0, 2]]]),
    "index_select": lambda x: W(x.index_select(1, torch.tensor([3, 1]))),
    "gather": lambda x: W(x.gather(1, torch.tensor([3, 1, 0]).view(1, 3, 1).expand(2, 3, 4))),
    "take_along_dim": lambda x: W(x.take_along_dim(torch.tensor([2, 0]).view(1, 2, 1), 1)),
    "take": lambda x: W(x.take(torch.arange(48).view(2, 6, 4).flip(1))),
    "masked_select": lambda x: W(
        x.masked_select(torch.arange(6).view(6, 1) % 2 == 0).view(2, 3, 4)
    ),
    "a mask": lambda x: W(x[:, torch.arange(6) < 3]),
    "cat": lambda x: W(torch.cat([x, torch.zeros(2, 1, 4), x.flip(1)], 1)),
    "stack": lambda x: W(torch.stack([x[:, 0], x[:, 3], x[:, 1]], 1)),
    "cat of columns": lambda x: W(torch.cat([x[..., :2], x[..., 2:]], -1)),
    "pad": lambda x: W(pad(x, (0, 0, 2, 1))),
    "reflected": lambda x: W(pad(x.mT, (2, 1), mode="reflect").mT),
    "roll": lambda x: W(x.roll(1, 1)),
    "windows of tokens": lambda x: W(x.unfold(1, 3, 1).transpose(2, 3)),
    "expand": lambda x: W(x[:, None].expand(2, 3, 6, 4)),
    "repeat": lambda x: W(x.repeat(1, 2, 1)),
    "repeat_interleave": lambda x: W(x.repeat_interleave(2, 1)),
    "tile": lambda x: W(x.tile(1, 3, 1)),
    "joined axes": lambda x: W(x.reshape(12, 4)),
    "slices copied": slice_copied,
    "columns copied": columns_copied,
    "steps copied": steps_copied,
    "copied through a transpose": copied_through_a_transpose,
    "changed in place": changed_in_place,
    "split and changed": split_and_changed,
    "steps copied through rows": steps_through_rows,
    "steps copied through a flat view": steps_through_a_flat_view,
    "steps copied through strides": steps_through_strides,
    "copied to a diagonal": on_a_diagonal,
    "read while it is filled": read_while_it_is_filled,
    "through a cast to the same type": through_a_cast_to_the_same_type,
    "as imaginary parts": as_imaginary_parts,
    "as pairs": as_pairs,
    "slice_scatter": lambda x: W(torch.zeros(2, 8, 4).slice_scatter(x, 1, 1, 7)),
    "index_put": lambda x: W(
        torch.zeros(2, 6, 4).index_put((torch.tensor([0, 1]),), x.flip(0))
    ),
    "index_copy": lambda x: W(torch.zeros(2, 6, 4).index_copy(1, torch.arange(6).flip(0), x)),
    "added at an index": lambda x: W(
        torch.zeros(2, 3, 4).index_add(1, torch.tensor([0, 0, 1, 1, 2, 2]), x)
    ),
    # what combines positions
    "mean": lambda x: W(x.mean(1)),
    "sum": lambda x: W(x.sum(1, keepdim=True)),
    "amax": lambda x: W(x.amax(1)),
    "max": lambda x: W(x.max(1).values),
    "cumsum": lambda x: W(x.cumsum(1)),
    "pooled": lambda x: W(avg_pool1d(x.mT, 2).mT),
    "pooled to three": lambda x: W(adaptive_max_pool1d(x.mT, 3).mT),
    "resized": lambda x: W(interpolate(x.mT, 9, mode="linear").mT),
    "differences": lambda x: W(x[:, 1:] - x[:, :-1]),
    "diff": lambda x: W(torch.diff(x, dim=1)),
    "gradient": lambda x: W(torch.gradient(x, dim=1)[0]),
    "without its mean": lambda x: W(x - x.mean(1, keepdim=True)),
    "without the first": lambda x: W(x - x[:, :1]),
    "mean of shifted copies": lambda x: W((x + x.roll(1, 1) + x.roll(-1, 1)) / 3),
    "a Fourier transform over time": lambda x: W(torch.fft.rfft(x, dim=1).real),
    # elementwise functions and normalizations
    "standardized by buffers": lambda x: W((x - torch.randn(4)) / torch.rand(4).add(1)),
    "standardized by itself": lambda x: W((x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)),
    "layer norm": lambda x: W(LAYER_NORM(x)),
    "batch norm": lambda x: W(BATCH_NORM(x.mT).mT),
    "a cast": lambda x: W(x.double().float()),
    "weighted and centred": lambda x: W(
        (x * torch.hann_window(6)[:, None]) - (x * torch.hann_window(6)[:, None]).mean(1, True)
    ),
    "a position embedding": lambda x: W(x + torch.randn(6, 4)),
}  # fmt: skip


@pytest.mark.parametrize("first", READS_TOKENS.values(), ids=READS_TOKENS)
def test_a_layer_that_reads_the_features_of_tokens(first):
    # 4 features, 6 behind the first layer: 4 * (6 + 6 * 8 * 6) * 3 paths
    assert answer(block(first), TOKENS) == answer(block(W), TOKENS)


def flattened(x):
    return linear(x.flatten(1), SEVERAL.flatten(1))


READS_ALL = {
    "view": lambda x: linear(x.view(2, 24), SEVERAL.view(6, 24)),
    "einsum over two axes": lambda x: torch.einsum("btc,otc->bo", x, SEVERAL),
    "tensordot over two axes": lambda x: torch.tensordot(x, SEVERAL, ([1, 2], [1, 2])),
    "steps first, features last": lambda x: linear(x.mT.flatten(1), SEVERAL.mT.flatten(1)),
    "rolled first": lambda x: flattened(x.roll(1, 1)),
    "without its mean": lambda x: flattened(x - x.mean(1, keepdim=True)),
}  # fmt: skip


@pytest.mark.parametrize("first", READS_ALL.values(), ids=READS_ALL)
def test_a_layer_that_reads_all_elements(first):
    # 24 features
    assert answer(block(first), TOKENS) == answer(block(flattened), TOKENS)


def filled(x):
    buffer = torch.zeros(2, 3, 10, 10)
    buffer[:, :, 1:9, 1:9].copy_(x)
    return PATCH(buffer)


KERNEL = PATCH.weight
READS_CHANNELS = {
    "channels last": lambda x: PATCH(x.permute(0, 2, 3, 1).permute(0, 3, 1, 2)),
    "channels last, pooled": lambda x: PATCH(avg_pool2d(x, 2)),
    "flipped": lambda x: PATCH(x.flip(1, 3)),
    "padded": lambda x: PATCH(pad(x, (1, 1, 1, 1), mode="reflect")),
    "resized": lambda x: PATCH(interpolate(x, scale_factor=2, mode="bilinear")),
    "pooled to a size": lambda x: PATCH(adaptive_avg_pool2d(x, 4)),
    "cropped": lambda x: PATCH(x[:, :, 2:6, 2:6]),
    "copied into a larger one": filled,
    "in 16 bits": lambda x: PATCH(x.bfloat16().float()),
    "from bytes": lambda x: PATCH((x / 255 - torch.rand(3, 1, 1)) / torch.rand(3, 1, 1)),
    "a dilated copy": lambda x: PATCH(x[..., ::2, ::2]),
    "channels in another order": lambda x: PATCH(x[:, [2, 1, 0]]),
    "split and joined": lambda x: PATCH(torch.cat(x.split(1, 1)[::-1], 1)),
}  # fmt: skip


@pytest.mark.parametrize("first", READS_CHANNELS.values(), ids=READS_CHANNELS)
def test_a_convolution_reads_channels(first):
    assert answer(image_block(first), IMAGE) == answer(image_block(PATCH), IMAGE)


def input_units(function, *args):
    graph = pathlen.trace(Model(function), *args)
    return int((graph.kind == pathlen.graph.path_graph.Kind.INPUT).sum())


def read_in_steps(m, x):
    h = torch.zeros(len(x), 6)
    for t in range(x.shape[1]):
        h = CELL(x[:, t], h)
    return h


def frames_in_steps(m, x):
    return sum(linear(x[:, t].flatten(1), torch.ones(6, 64)) for t in range(3))


def attended(m, x):
    return scaled_dot_product_attention(x, x, x)


def attended_by_hand(m, x):
    return (x @ x.mT).softmax(-1) @ x


def values_added_up(m, x):
    """Values that are added up with scores, before a layer reads them."""
    return W((torch.randn(6, 6) * x.sum()).softmax(-1) @ x)


def distances(m, x):
    return linear((x[:, :, None] - torch.randn(5, 4)).pow(2).sum(-1), torch.ones(3, 5))


UNITS = {
    "a recurrent layer": (lambda m, x: LSTM(x)[0], TOKENS, 4),
    "a cell in a loop": (read_in_steps, TOKENS, 4),
    "a cell on what is left of a mean": (lambda m, x: CELL(x.mean(1)), TOKENS, 4),
    "a bilinear layer": (lambda m, x: BILINEAR(x, x), ROWS, 4),
    "attention": (attended, TOKENS, 4),
    "attention by hand": (attended_by_hand, TOKENS, 4),
    "values by scores": (values_added_up, TOKENS, 4),
    "product and sum": (lambda m, x: (x[:, None] * W.weight).sum(-1), ROWS, 4),
    "product and sum over tokens": (
        lambda m, x: (x[:, :, None] * W.weight).sum(-1).relu(), TOKENS, 4),
    "a weighted sum": (lambda m, x: (x * torch.randn(4)).sum(-1), TOKENS, 4),
    "mv": (lambda m, x: torch.mv(x.mean(0), torch.randn(4)), TOKENS, 4),
    "outer product, then a layer": (
        lambda m, x: linear(torch.einsum("bc,f->bfc", x, torch.randn(5)), W.weight), ROWS, 4),
    "distances": (distances, TOKENS, 4),
    "one column": (lambda m, x: linear(x[:, :1], torch.ones(3, 1)), ROWS, 1),
    "two layers, one column each": (
        lambda m, x: linear(x[:, :1], torch.ones(3, 1)) + linear(x[:, 1:], torch.ones(3, 3)),
        ROWS, 4),
    "pixels": (lambda m, x: linear(x.flatten(1), torch.ones(2, 192)), IMAGE, 192),
    "pooled pixels": (
        lambda m, x: linear(avg_pool2d(x, 2).flatten(1), torch.ones(2, 48)), IMAGE, 192),
    "patches": (
        lambda m, x: linear(unfold(x, 2, stride=2).mT, torch.ones(2, 12)), IMAGE, 12),
    "patches of pooled pixels": (
        lambda m, x: linear(unfold(avg_pool2d(x, 2), 2, stride=2).mT, torch.ones(2, 12)),
        IMAGE, 12),
    "overlapping windows": (
        lambda m, x: linear(unfold(x, 2).mT, torch.ones(2, 12)), IMAGE, 3),
    "frames in a loop": (frames_in_steps, IMAGE, 64),
    "a signal as one channel": (lambda m, x: conv1d(x[:, None], torch.ones(2, 1, 3)), ROWS, 1),
    "parameters of a normalization": (lambda m, x: LAYER_NORM(x), TOKENS, 4),
    "a Fourier transform": (lambda m, x: torch.fft.rfft(x).abs(), TOKENS, 4),
    "a transform and a layer": (
        lambda m, x: linear(torch.view_as_real(torch.fft.rfft(x)).flatten(2), torch.ones(2, 6)),
        TOKENS, 4),
    "two layers of two axes": (
        lambda m, x: (W(x), linear(x.mT, torch.ones(2, 6))), TOKENS, 4),
    "rows by one layer, the rest by another": (
        lambda m, x: (W(x[:, :2]), linear(x[:, 2:].flatten(1), torch.ones(2, 16))),
        TOKENS, 4 + 16),
    "picked by the input": (
        lambda m, x: W(x.gather(1, x.argmax(1, keepdim=True).expand(-1, 3, 4))), TOKENS, 4),
    "the best tokens": (lambda m, x: W(x.topk(2, 1).values), TOKENS, 4),
    "sorted": (lambda m, x: W(x.sort(1).values), TOKENS, 4),
    "the largest of a sorted": (lambda m, x: W(x.sort(1).values[:, -1]), TOKENS, 4),
    "the last of a cumulated": (lambda m, x: W(x.cumsum(1)[:, -1]), TOKENS, 4),
    "indexed by the input": (lambda m, x: W(x[:, x.argmax(1)[0]]), TOKENS, 4),
}  # fmt: skip


MASK, ADJACENCY = torch.tensor([[3], [6]]) > torch.arange(6), torch.rand(6, 6)
POOLED = {
    "a sum": lambda x: (x * MASK[..., None]).sum(1),
    "a mean": lambda x: (x * MASK[..., None].float()).sum(1) / MASK.float().sum(1, keepdim=True),
    "an einsum": lambda x: torch.einsum("btc,bt->bc", x, MASK.float()),
    "matrices": lambda x: torch.bmm(MASK.float()[:, None], x)[:, 0],
    "a mask of the input": lambda x: torch.einsum("btc,bt->bc", x, (x[..., 0] > 0).float()),
    "one place": lambda x: torch.einsum("btc,t->bc", x, torch.eye(6)[0]),
    "weights in the code": lambda x: torch.bmm(torch.full((2, 1, 6), 1 / 6), x)[:, 0],
    "neighbours": lambda x: ADJACENCY @ x,
}


@pytest.mark.parametrize("name", POOLED)
def test_what_masks_and_neighbours_add_up_are_positions(name):
    # the layer that reads the sums tells the features: 4 of a token
    model = Model(lambda m, x: m.c(relu(m.w(POOLED[name](x)))), w=W, c=nn.Linear(6, 2))
    assert answer(model, TOKENS) == (4 * 6 * 2, 1, 1)
    assert input_units(lambda m, x: W(POOLED[name](x)), TOKENS) == 4


def test_parameters_that_add_up_tokens_are_a_layer():
    mixing = nn.Parameter(torch.randn(5, 6))
    graph = pathlen.trace(Model(lambda m, x: m.mixing @ x, mixing=mixing), TOKENS)
    assert int((graph.kind == pathlen.graph.path_graph.Kind.INPUT).sum()) == 6


@pytest.mark.parametrize(("function", "x", "units"), UNITS.values(), ids=UNITS)
def test_units_of_the_input(function, x, units):
    assert input_units(function, x) == units


def test_batch_size_does_not_matter():
    for function, x, units in UNITS.values():
        if x is TOKENS:
            assert input_units(function, torch.randn(1, 6, 4)) == units


def remarks(function, *args, **kwargs):
    report = pathlen.measure(Model(function), args, **kwargs)
    assert report.status == "exact"
    return [text for text in report.causes if "input_axis" in text]


def test_an_axis_that_nothing_tells_is_said():
    (text,) = remarks(lambda m, x, y: (W(x), y.tanh()), TOKENS, IMAGE)
    assert "'args_1' (2, 3, 8, 8)" in text
    assert "axis 1" in text


QUIET = {
    "a layer reads it": (lambda m, x: W(x), TOKENS),
    "integers": (
        lambda m, x: embedding(x, torch.randn(9, 3)),
        torch.zeros(2, 3, dtype=int),
    ),
    "one axis": (lambda m, x: x.relu(), torch.randn(5)),
    "a number": (lambda m, x: x * 2, torch.randn(())),
    "all other axes of length 1": (lambda m, x: x.relu(), torch.randn(1, 5, 1)),
    "a normalization tells": (lambda m, x: LAYER_NORM(x), TOKENS),
}


@pytest.mark.parametrize(("function", "x"), QUIET.values(), ids=QUIET)
def test_no_remark_where_the_axis_is_known_or_makes_no_difference(function, x):
    assert remarks(function, x) == []


def test_no_remark_where_the_axis_is_given():
    assert remarks(lambda m, x: x.relu(), TOKENS, input_axis=2) == []
