"""Blocks that repeat are lowered once: the graph is the one of all blocks lowered one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pathlen
from pathlen.errors import PathlenError
from pathlen.lowering import again

BLOCKS = 12


@pytest.fixture
def placed(monkeypatch):
    """How many blocks were placed again, each time."""
    counts = []
    place = again.Again._place

    def counted(self, own, before, alike):
        counts.append(len(alike))
        place(self, own, before, alike)

    monkeypatch.setattr(again.Again, "_place", counted)
    monkeypatch.setattr("pathlen.lowering.repetitions._FEWEST_NODES", 1)
    return counts


def one_by_one(model, x, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(again, "find_repetitions", lambda *_: [])
        return pathlen.trace(model, x, **options)


def check(model, x, **options):
    """The graph, the names in it and the remarks are those of all blocks lowered one by one."""
    found, expected = pathlen.trace(model, x, **options), one_by_one(model, x, **options)
    for name in ("indptr", "indices", "activity", "kind", "layer"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    assert found.layers == expected.layers
    assert (found.info.status, found.info.causes) == (expected.info.status, expected.info.causes)
    return found


class Block(nn.Module):
    def __init__(self, width=4, norm=nn.LayerNorm, act=nn.ReLU, post=False):
        super().__init__()
        self.norm, self.post = norm(width), post
        self.up, self.act, self.down = nn.Linear(width, 8), act(), nn.Linear(8, width)

    def forward(self, x):
        if self.post:
            return self.norm(x + self.down(self.act(self.up(x))))
        return x + self.down(self.act(self.up(self.norm(x))))


def stacked(make, blocks=BLOCKS):
    return nn.Sequential(nn.Linear(3, 4), *(make() for _ in range(blocks)), nn.Linear(4, 2))


@pytest.mark.parametrize("post", [False, True])
def test_residual_blocks(placed, post):
    graph = check(stacked(lambda: Block(post=post)), torch.randn(2, 3))
    assert sum(placed) >= BLOCKS - 6
    # closed form: each block is passed by a sum of the shortcut and of 4 x 8 paths, 4 to each unit
    average = pathlen.measure(graph, exact=True).average_path_length
    ways = np.array([1, *[0] * BLOCKS], dtype=object)
    for _ in range(BLOCKS):
        ways = ways + 32 * np.concatenate([[0], ways[:-1]])
    assert average == pytest.approx(sum(n * w for n, w in enumerate(ways)) / sum(ways), rel=1e-12)


def test_the_published_threshold_leaves_small_programs_alone():
    assert again.find_repetitions({}, [], {}) == []


class Bottleneck(nn.Module):
    """As torchvision writes it: everything in place."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 3, padding=1)
        self.bn1, self.bn2, self.relu = nn.BatchNorm2d(2), nn.BatchNorm2d(4), nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.bn2(self.two(self.relu(self.bn1(self.one(x)))))
        out += x
        return self.relu(out)


class Preactivation(nn.Module):
    """Writes to the tensor that led into the block."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(torch.relu_(x)) + x


@pytest.mark.parametrize("block", [Bottleneck, Preactivation])
def test_writes_in_place(placed, block):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), *(block() for _ in range(BLOCKS)), nn.Flatten())
    check(model, torch.randn(1, 3, 5, 5))
    assert sum(placed) >= BLOCKS - 6


def test_the_stream_is_one_memory(placed):
    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(BLOCKS))

        def forward(self, x):
            x = x.clone()
            for layer in self.layers:
                x += torch.relu(layer(x))
            return x

    check(Stream(), torch.randn(2, 4))


def test_constants_that_are_looked_at_must_be_the_same(placed):
    """Slopes decide which units are active: blocks of other slopes are lowered themselves."""

    def make():
        return Block(act=nn.PReLU)

    model = stacked(make)
    check(model, torch.randn(2, 3))
    assert sum(placed) >= BLOCKS - 6
    placed.clear()
    with torch.no_grad():
        model[6].act.weight.fill_(1.0)
    graph = check(model, torch.randn(2, 3))
    (number,) = (n for n, layer in enumerate(graph.layers) if layer.name == "6.act")
    assert graph.activity[graph.layer == number].max() == 0
    assert sum(placed) < BLOCKS - 5


def test_masks_that_differ(placed):
    class Masked(nn.Module):
        def __init__(self, number):
            super().__init__()
            self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)
            self.register_buffer("mask", torch.arange(4) == number % 4)

        def forward(self, x):
            return x + self.down(torch.relu(self.up(x)).masked_fill(self.mask, 0.0))

    check(nn.Sequential(*(Masked(n) for n in range(BLOCKS))), torch.randn(2, 4))
    assert not placed
    check(nn.Sequential(*(Masked(1) for _ in range(BLOCKS))), torch.randn(2, 4))
    assert placed


def test_one_module_called_again_and_again(placed):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, x):
            for _ in range(BLOCKS):
                x = self.block(x)
            return x

    graph = check(Shared(), torch.randn(2, 4))
    assert f"block.act#{BLOCKS}" in [layer.name for layer in graph.layers]
    assert placed


class Reads(nn.Module):
    """Reads more of the blocks than where they lead."""

    def __init__(self, how):
        super().__init__()
        self.blocks, self.how = nn.ModuleList(Block() for _ in range(BLOCKS)), how
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        first, seen, total = x, [], 0.0
        for block in self.blocks:
            if self.how == "u":
                seen.append(x)
            if self.how == "encoder":
                x = x + first
            x = block(x) * (self.scale if self.how == "scale" else 1.0)
            if self.how in ("all", "last two"):
                seen.append(x)
            if self.how == "sum":
                total = total + x
        if self.how == "u":
            for block in self.blocks:
                x = block(x) + seen.pop()
        if self.how == "all":
            return tuple(seen)
        if self.how == "last two":
            return seen[-1] + seen[-2]
        return total if self.how == "sum" else x


@pytest.mark.parametrize("how", ["u", "encoder", "scale", "all", "last two", "sum"])
def test_what_is_read_from_further_back(placed, how):
    check(Reads(how), torch.randn(2, 4))
    assert bool(placed) == (how in ("scale", "last two"))


def test_part_of_the_stream_passes_all_blocks(placed):
    """Its labels stay while the others move on."""

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 2) for _ in range(BLOCKS))

        def forward(self, x):
            for layer in self.layers:
                x = torch.cat([torch.relu(layer(x)), x[:, 2:]], 1)
            return x

    check(Half(), torch.randn(2, 4))
    assert not placed


def test_elementwise_chains_and_growing_sums(placed):
    class Chain(nn.Module):
        def forward(self, x):
            for _ in range(40):
                x = torch.tanh(x) * 1.01 + 0.1
            return x

    check(nn.Sequential(nn.Linear(3, 4), Chain(), nn.Linear(4, 2)), torch.randn(2, 3))
    assert not placed


def test_two_repetitions_and_a_block_of_another_kind(placed):
    model = nn.Sequential(
        *(Block() for _ in range(BLOCKS)),
        nn.Softmax(-1),
        *(Block(act=nn.GELU, post=True) for _ in range(BLOCKS)),
        Block(act=nn.Tanh),
        *(Block(act=nn.GELU, post=True) for _ in range(BLOCKS)),
    )
    check(model, torch.randn(2, 4))
    assert len(placed) == 3


def test_blocks_with_a_remark_are_lowered_one_by_one(placed):
    class Sampled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            y = self.layer(x)
            return torch.where(torch.rand_like(y) < 0.5, y, x)

    check(nn.Sequential(*(Sampled() for _ in range(BLOCKS))), torch.randn(2, 4))


def test_weights_are_those_of_each_block(placed):
    found = pathlen.trace(stacked(Block), torch.randn(2, 3), edges="weights")
    assert not placed
    assert found.weights is not None


def test_verify_sees_every_call(placed):
    model = stacked(Block)
    assert pathlen.verify(model, torch.randn(2, 3)).ok
    assert not [one for one in placed if one > BLOCKS]


OPERATIONS = {
    "linear": lambda: nn.Linear(4, 4),
    "norm": lambda: nn.LayerNorm(4),
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "softmax": lambda: nn.Softmax(-1),
    "prelu": lambda: nn.PReLU(4),
    "identity": nn.Identity,
    "dropout": nn.Dropout,
}
JOINS = {
    "plain": lambda x, y: y,
    "sum": lambda x, y: x + y,
    "product": lambda x, y: x * y.sigmoid(),
    "maximum": torch.maximum,
    "halves": lambda x, y: torch.cat([y[:, 2:], x[:, :2]], 1),
    "scaled": lambda x, y: 0.5 * x - 2 * y,
    "squares": lambda x, y: x * y + x * x,
    "positions": lambda x, y: x.flip(0) + y,
}


class Drawn(nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Sequential(*(OPERATIONS[name]() for name in names)) for names, _ in parts
        )
        self.joins = [join for _, join in parts]

    def forward(self, x):
        for part, join in zip(self.parts, self.joins, strict=True):
            x = JOINS[join](x, part(x))
        return x


parts = st.tuples(
    st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=3),
    st.sampled_from(sorted(JOINS)),
)


@settings(deadline=None)
@given(st.lists(parts, min_size=1, max_size=3), st.integers(6, 9))
def test_any_block(drawn, blocks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathlen.lowering.repetitions._FEWEST_NODES", 1)
        model = nn.Sequential(nn.Linear(3, 4), *(Drawn(drawn) for _ in range(blocks)))
        try:
            expected = one_by_one(model, torch.randn(2, 3))
        except PathlenError as error:
            with pytest.raises(type(error)):
                pathlen.trace(model, torch.randn(2, 3))
            return
        assert expected.num_nodes
        check(model, torch.randn(2, 3))
