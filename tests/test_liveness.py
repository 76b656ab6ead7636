"""Labels that nothing can ask for any more are dropped, and the graph is the same."""

import numpy as np
import pytest
import torch
from torch import nn

from pathlen.lowering import again, context, lower
from pathlen.lowering.context import Lowering
from pathlen.lowering.program import lower_watched
from pathlen.policy import Policy
from pathlen.tracing import trace_model
from tests.verify_families import FAMILIES


@pytest.fixture(autouse=True)
def _dropped_as_soon_as_can_be(monkeypatch):
    monkeypatch.setattr(context, "_FEW_BYTES", 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_graph_is_the_one_of_a_lowering_that_keeps_all(name):
    model, args = FAMILIES[name]()
    recording = trace_model(model, args, {}, None)
    graph, watched = lower(recording, Policy()), lower_watched(recording, Policy())[0]
    for field in ("indptr", "indices", "activity", "kind", "layer"):
        assert np.array_equal(getattr(graph, field), getattr(watched, field)), field


def test_a_deep_network_keeps_the_labels_of_one_block(monkeypatch):
    kept = []
    narrow = Lowering.narrow

    def counted(lowering, last):
        narrow(lowering, last)
        kept.append(len(lowering._with_labels))

    monkeypatch.setattr(Lowering, "narrow", counted)
    monkeypatch.setattr(again, "find_repetitions", lambda *_: [])  # so that each block is lowered
    blocks = [nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)) for _ in range(50)]

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(blocks)

        def forward(self, x):
            for block in self.blocks:
                x = x + block(x)
            return x

    lower(trace_model(Residual(), torch.randn(1, 4), {}, None), Policy())
    assert len(kept) >= 50
    assert max(kept) <= 8


class PostActivation(nn.Module):
    """Residual blocks whose sums are activated: whatever was added up is still of interest."""

    def __init__(self, depth):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(depth))

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(x + layer(x))
        return x


def test_looking_for_labels_to_drop_takes_as_long_as_the_program(monkeypatch):
    looked_at = []
    drop = context.drop_labels

    def counted(values, last, readers):
        kept = drop(values, last, readers)
        looked_at.append(len(values) + len(kept))
        return kept

    monkeypatch.setattr(context, "drop_labels", counted)
    for depth in (50, 200):
        looked_at.append(0)
        lower(trace_model(PostActivation(depth), torch.randn(1, 2), {}, None), Policy())
    first = looked_at[1 : looked_at.index(0, 1)]
    assert sum(looked_at) - sum(first) < 5 * sum(first)
