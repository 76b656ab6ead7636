"""`edges="weights"`: an edge for every weight that is not 0, against explicit matrix products."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import pathlen
from pathlen import PathGraph
from pathlen.errors import GraphError, PathlenError, TraceError
from pathlen.training import CifarResNet, CifarVGG


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def prune(model: nn.Module, share: float = 0.5) -> nn.Module:
    """Zeros in a share of all matrices and kernels; single precision is kept."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_((torch.rand_like(parameter) >= share).to(parameter.dtype))
    return model.eval()


def weighted(model: nn.Module, *shape: int) -> PathGraph:
    dtype = next(model.parameters()).dtype
    return pathlen.trace(model, torch.randn(1, *shape, dtype=dtype), edges="weights")


def masses(graph: PathGraph) -> tuple[float, float]:
    """Sum over all paths of the product of weights, and the same times the length."""
    assert graph.weights is not None
    mass, length = np.zeros(graph.num_nodes), np.zeros(graph.num_nodes)
    for node in range(graph.num_nodes):
        edges = slice(graph.indptr[node], graph.indptr[node + 1])
        before, weights = graph.indices[edges], graph.weights[edges]
        mass[node] = weights @ mass[before] if len(before) else 1.0
        length[node] = weights @ length[before] + graph.activity[node] * mass[node]
    out = graph.kind == pathlen.graph.path_graph.Kind.OUTPUT
    return float(mass[out].sum()), float(length[out].sum())


def matrix_of(layer: nn.Module) -> np.ndarray:
    """Absolute weights, kernel positions summed, from channel to channel: [out, in]."""
    weight = layer.weight.detach().double().abs()
    if not isinstance(layer, nn.Conv2d):
        return weight.numpy()
    rows = weight.sum((2, 3))
    whole = np.zeros((layer.out_channels, layer.in_channels))
    inside, outside = rows.shape[1], layer.out_channels // layer.groups
    for group in range(layer.groups):
        out = slice(group * outside, (group + 1) * outside)
        whole[out, group * inside : (group + 1) * inside] = rows[out].numpy()
    return whole


def product_of(matrices: list[np.ndarray]) -> np.ndarray:
    total = matrices[0]
    for matrix in matrices[1:]:
        total = matrix @ total
    return total


SEQUENCES: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {
    "perceptron": (
        lambda: nn.Sequential(
            nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)
        ),
        (4,),
    ),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2)),
        (3, 9, 9),
    ),
    "groups": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=3)),
        (4, 5, 5),
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_paths_and_their_mass_are_those_of_matrix_products(name: str, share: float) -> None:
    make, shape = SEQUENCES[name]
    model = prune(make(), share)
    graph = weighted(model, *shape)
    matrices = [matrix_of(layer) for layer in model if hasattr(layer, "weight")]
    report = pathlen.measure(graph)
    paths = product_of([(matrix > 0).astype(float) for matrix in matrices]).sum()
    assert report.path_count == paths
    mass, length = masses(graph)
    assert mass == pytest.approx(product_of(matrices).sum(), rel=1e-12)
    assert length == pytest.approx((len(matrices) - 1) * mass, rel=1e-12)
    assert report.average("magnitude") == pytest.approx(len(matrices) - 1, rel=1e-12)


def test_a_batch_norm_scales_the_edges_behind_it() -> None:
    model = prune(
        nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    )
    norm = model[1]
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, -0.5, 0.0]))
        norm.running_var.copy_(torch.tensor([4.0, 1.0, 9.0]))
    gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double().abs().numpy()
    first, last = (matrix_of(model[place]) for place in (0, 3))
    expected = (last @ np.diag(gain) @ first).sum()
    assert masses(weighted(model, 2, 4, 4))[0] == pytest.approx(expected, rel=1e-6)


class Residual(nn.Module):
    """x + up(relu(down(x))), the skip scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(5, 4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x - self.up(functional.relu(self.down(x)))


def test_a_scaled_skip_weighs_what_it_is_scaled_by() -> None:
    model = prune(Residual().double())
    graph = weighted(model, 5)
    down, up = matrix_of(model.down), matrix_of(model.up)
    mass, length = masses(graph)
    assert mass == pytest.approx(0.5 * 5 + (up @ down).sum(), rel=1e-12)
    assert length == pytest.approx((up @ down).sum(), rel=1e-12)
    paths = 5 + ((up > 0).astype(int) @ (down > 0).astype(int)).sum()
    assert pathlen.measure(graph).path_count == paths


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "perceptron": (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), (4,)),
    "residual": (Residual, (5,)),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 2, 1)),
        (3, 4, 4),
    ),
    "resnet": (lambda: CifarResNet(8, width=4), (3, 8, 8)),
    "vgg": (lambda: CifarVGG(11, width=8), (3, 32, 32)),
    "transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), (3, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_without_zeros_the_paths_are_those_of_connections(name: str) -> None:
    make, shape = NETWORKS[name]
    model = make().eval()
    x = torch.randn(1, *shape)
    hubs = pathlen.measure(model, x, exact=True)
    edges = pathlen.measure(model, x, edges="weights", exact=True)
    assert edges.path_count == hubs.path_count
    assert edges.average_path_length == hubs.average_path_length
    assert not edges.graph.info.dead


@pytest.mark.parametrize("name", NETWORKS)
def test_pruning_cuts_paths_and_nothing_else(name: str) -> None:
    """Where hubs lead to too many units, the pruned model has fewer paths; never more."""
    make, shape = NETWORKS[name]
    model = prune(make())
    x = torch.randn(1, *shape)
    whole, pruned = pathlen.measure(model, x), pathlen.measure(model, x, edges="weights")
    assert 0 < pruned.path_count < whole.path_count
    assert pruned.num_active <= whole.num_active
    dead = sum(len(row.indices) for row in pruned.graph.info.dead)
    assert pruned.graph.num_units + dead >= whole.graph.num_units


@settings(deadline=None, max_examples=30)
@given(
    widths=st.lists(st.integers(1, 4), min_size=3, max_size=4),
    seed=st.integers(0, 2**16),
    share=st.sampled_from([0.0, 0.3, 0.6]),
)
def test_every_path_of_a_pruned_perceptron_is_there(
    widths: list[int], seed: int, share: float
) -> None:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    model = prune(nn.Sequential(*layers[:-1]).double(), share)
    matrices = [matrix_of(layer) for layer in model if isinstance(layer, nn.Linear)]
    weights = list(_path_weights(matrices))
    if not weights:
        with pytest.raises(GraphError, match="weight of 0"):
            weighted(model, widths[0])
        return
    graph = weighted(model, widths[0])
    assert pathlen.measure(graph).path_count == len(weights)
    assert masses(graph)[0] == pytest.approx(sum(weights), rel=1e-12)


def _path_weights(matrices: list[np.ndarray]) -> Iterator[float]:
    """The weights of all paths, one choice of units after another."""
    sizes = [matrices[0].shape[1], *(matrix.shape[0] for matrix in matrices)]
    for path in itertools.product(*map(range, sizes)):
        weight = 1.0
        for matrix, (before, after) in zip(matrices, itertools.pairwise(path), strict=True):
            weight *= matrix[after, before]
        if weight:
            yield weight


def test_dead_units_are_listed() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[1] = 0  # nothing comes in
        model[2].weight[:, 2] = 0  # nothing goes out
    graph = weighted(model, 3)
    assert {row.layer: (row.indices, row.units) for row in graph.info.dead} == {
        "0": ((1, 2), 4),
        "1": ((1, 2), 4),
    }
    assert "dead" in str(pathlen.measure(graph))


def test_dead_units_are_kept_in_files(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[1] = 0
    graph = weighted(model, 3)
    graph.save(tmp_path / "graph.npz")
    assert PathGraph.load(tmp_path / "graph.npz").info.dead == graph.info.dead


def test_what_cannot_be_read_is_refused() -> None:
    x = torch.randn(1, 3)
    with pytest.raises(TraceError, match="meta device"):
        pathlen.trace(nn.Linear(3, 2, device="meta"), x.to("meta"), edges="weights")
    broken = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        broken[2].weight[0, 0] = float("nan")
    with pytest.raises(TraceError, match="NaN"):
        pathlen.trace(broken, x, edges="weights")
    with pytest.raises(TraceError, match="memory limit"):
        pathlen.trace(nn.Linear(3, 2000), x, edges="weights", memory_limit=1000)
    with pytest.raises(PathlenError, match="'connections' or 'weights'"):
        pathlen.trace(nn.Linear(3, 2), x, edges="weight")
    with pytest.raises(GraphError, match="weight of 0"):
        pathlen.trace(prune(nn.Linear(3, 2), 1.0), x, edges="weights")
