"""Elements that are picked, written to places, counted, sorted and cumulated; worked out by hand.

`a` and `b` are dense layers 4 -> 4, so that each of their units has 4 ways.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from pathlen.errors import UnsupportedOperation
from tests.constructs import HALF, Model, answer

X, TOKENS, IDS = torch.randn(2, 4), torch.randn(2, 5, 4), torch.randint(0, 9, (2, 5))
SQUARE = torch.randn(2, 4, 4)
ODD = torch.tensor([False, True, False, True])


def model(function):
    return Model(function, a=nn.Linear(4, 4), b=nn.Linear(4, 4), ids=nn.Embedding(9, 4))


def measured(function, *args):
    """(path count, status)"""
    report = pathlen.measure(model(function), args, exact=True)
    return report.path_count, report.status


def put(tensor, indices, values):
    tensor = tensor.clone()
    tensor[indices] = values
    return tensor


# --- reads ----------------------------------------------------------------------------------------


def test_a_mask_of_all_axes_may_pick_any_element():
    # 4 elements are picked, as many as there are features; each may be of any feature
    picks = torch.tensor([[1.0, 1, -1, -1], [-1, -1, 1, 1]])
    assert measured(lambda m, x: m.b(m.a(x)[x > 0]), picks) == (16 * 4, "bound")
    assert measured(lambda m, x: m.b(m.a(x).masked_select(x > 0)), picks) == (16 * 4, "bound")


def test_a_mask_of_rows_keeps_features_apart():
    # how many rows there are is seen in this example only; the units are exact
    assert measured(lambda m, x: m.a(x)[x[:, 0] < 99], X) == (16, "example")
    assert measured(lambda m, x: m.a(x)[x[..., 0] < 99], TOKENS) == (16, "example")


def test_a_mask_of_features_mixes_them():
    # 4 of 4 features, each of which may be any: a hub over 4 units of 4 ways; one output unit
    assert measured(lambda m, x: m.a(x)[:, x[0] < 99], X) == (16, "bound")


def test_a_mask_that_is_constant_moves_elements():
    assert answer(model(lambda m, x: m.a(x)[:, ODD]), X) == (8, 0, 0)


def test_what_picks_nothing_is_said():
    def function(m, x):
        return torch.cat([m.a(x)[x[:, 0] > 99].relu(), m.b(x)])

    report = pathlen.measure(model(function), X)
    assert any("picks nothing in this example" in cause for cause in report.causes)


# --- writes ---------------------------------------------------------------------------------------


def test_a_constant_mask_scatters_elements_in_order():
    # elements 1 and 3 of each row become units 0 and 1 of relu(a), which are read in order
    def alone(m, x):
        return torch.zeros(2, 4).masked_scatter(ODD.expand(2, 4), m.a(x).relu()[:, :2])

    def among_others(m, x):
        return m.b(x).masked_scatter(ODD.expand(2, 4), m.a(x).relu()[:, :2])

    assert answer(model(alone), X) == (8, 1, 1)
    assert answer(model(among_others), X) == (16, HALF, HALF)


@pytest.mark.parametrize(
    "mask",
    [
        lambda x: (x[:, :1] > 0).expand(2, 4),
        lambda x: (x[:, :1] > 0).repeat(1, 4),
        lambda x: (x[:, :1] > 0).expand(2, 4) & (x[:, 1:2] < 9),
        lambda x: ((x[:, :1] > 0) | (x[:, 1:2] > 0)).expand(2, 4).clone(),
    ],
)
def test_a_mask_of_rows_scatters_rows(mask):
    # each element: the unit of b that was there, or that of relu(a) in the same column
    def function(m, x):
        return m.b(x).masked_scatter(mask(x), m.a(x).relu())

    assert answer(model(function), X) == (32, HALF, HALF)


def test_a_mask_of_elements_scatters_any():
    # each of 4 elements: its own unit (4 ways), or any of relu(a) (16 ways)
    def function(m, x):
        return m.b(x).masked_scatter(x > 0, m.a(x).relu())

    assert measured(function, X) == (4 * 20, "bound")


WRITTEN = {  # (indices, values) -> paths: 4 of b, and those that may be written
    "rows by a mask": (lambda x: x[:, 0] > 0, lambda m, x: m.a(x), 4 * (4 + 4)),
    "rows by a mask, one for all": (lambda x: x[:, 0] > 0, lambda m, x: m.a(x)[0], 4 * (4 + 4)),
    "columns by a mask": (
        lambda x: (slice(None), x[0] < 99),
        lambda m, x: m.a(x),
        4 * (4 + 16),
    ),
    "columns by a rank": (
        lambda x: (slice(None), x[0].argsort()[:2]),
        lambda m, x: m.a(x)[:, :2],
        4 * (4 + 8),
    ),
    "elements by a mask": (lambda x: x > 0, lambda m, x: m.a(x).sum(), 4 * (4 + 16)),
    "columns that are known": (
        lambda x: (slice(None), torch.tensor([3, 1])),
        lambda m, x: m.a(x)[:, :2],
        16,
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_may_be_written(name):
    indices, values, paths = WRITTEN[name]
    assert answer(model(lambda m, x: put(m.b(x), indices(x), values(m, x))), X)[0] == paths


def test_places_in_fewer_columns_are_written_to_alone():
    # two elements of each row, at columns that a rank tells: any of the four, from a0 or a1
    def function(m, x):
        return m.b(x).scatter(1, x.argsort(1)[:, :2], m.a(x)[:, :2])

    assert answer(model(function), X)[0] == 4 * (4 + 8)


# --- sums at places -------------------------------------------------------------------------------

FIRST_TWO = torch.tensor([[0, 1], [0, 1]])


@pytest.mark.parametrize("reduce", ["sum", "amax", "mean"])
def test_what_is_reduced_without_the_target_replaces_it(reduce):
    def function(m, x, include):
        written = m.a(x).relu()[:, :2]
        return m.b(x).scatter_reduce(1, FIRST_TWO, written, reduce, include_self=include)

    # columns 0 and 1 are relu(a) alone, or with b; columns 2 and 3 stay b
    assert answer(model(lambda m, x: function(m, x, False)), X) == (16, HALF, HALF)
    assert answer(model(lambda m, x: function(m, x, True)), X)[0] == 24


def test_index_reduce_without_the_target_replaces_it():
    def function(m, x):
        places, written = torch.tensor([0, 1]), m.a(x).relu()[:, :2]
        return m.b(x).index_reduce(1, places, written, "amax", include_self=False)

    assert answer(model(function), X) == (16, HALF, HALF)


@pytest.mark.parametrize(
    "write",
    [
        lambda t, s: t.scatter(1, torch.arange(4).expand(2, 4), s),
        lambda t, s: t.index_copy(1, torch.arange(4), s),
        lambda t, s: put(t, (slice(None), torch.arange(4)), s),
        lambda t, s: t.put(torch.arange(8), s.flatten()),
        lambda t, s: t.scatter_reduce(
            1, torch.arange(4).expand(2, 4), s, "sum", include_self=False
        ),
        lambda t, s: t.copy_(s),
    ],
)
def test_nothing_is_left_of_what_is_overwritten(write):
    assert answer(model(lambda m, x: write(m.b(x), m.a(x).relu())), X) == (16, 1, 1)


def test_a_scatter_that_adds_is_a_sum():
    def function(m, x):
        return m.b(x).scatter(1, FIRST_TWO, m.a(x)[:, :2], reduce="add")

    assert answer(model(function), X)[0] == 16 + 8


def test_sums_at_known_places_are_flat():
    # column 0: b0 + a0 + a1, column 1: b1 + a2, column 2: b2 + a3, column 3: b3
    def function(m, x):
        return m.b(x).index_add(1, torch.tensor([0, 0, 1, 2]), m.a(x).relu())

    walk = (Fraction(2, 3) + HALF + HALF) / 4
    assert answer(model(function), X) == (32, HALF, walk)


def test_overlapping_windows_are_added_where_they_overlap():
    # windows 0 1 | 1 2 of 3 columns, of a unit each: fold is their sum
    def function(m, x):
        windows = m.a(x)[:, :2].relu()  # two windows
        columns = windows[:, None].expand(2, 2, 2)  # both places of a window
        return F.fold(columns, (1, 3), (1, 2))

    # columns 0 and 2 are one window each, column 1 is both
    assert answer(model(function), X)[0] == 4 + 8 + 4


# --- counts and order -----------------------------------------------------------------------------

PLACES = {
    "argmax": lambda h, i: h[torch.arange(2), i.argmax(-1)],
    "argmin": lambda h, i: h[torch.arange(2), i.argmin(-1)],
    "topk": lambda h, i: h[torch.arange(2)[:, None], i.topk(2).indices],
    "sort": lambda h, i: h[torch.arange(2)[:, None], i.sort().indices],
    "nonzero": lambda h, i: h.flatten(0, 1)[(i + 1).flatten().nonzero()[:, 0]],
    "searchsorted": lambda h, i: h[:, torch.searchsorted(torch.arange(4), i[0].clamp(max=3))],
    "bucketize": lambda h, i: h[:, torch.bucketize(i[0].clamp(max=3), torch.arange(4))],
    "bincount": lambda h, i: h * torch.bincount(i.flatten(), minlength=9)[:4],
    "histc": lambda h, i: h * torch.histc(i.float(), 4),
    "unique": lambda h, i: h * i.unique(return_counts=True)[1][0],
    "unique_consecutive": lambda h, i: h * i.unique_consecutive(return_inverse=True)[1][0, 0],
    "count_nonzero": lambda h, i: h * i.count_nonzero(),
}


BY_EXAMPLE = {"nonzero", "bincount", "unique", "unique_consecutive"}  # sizes that values decide


@pytest.mark.parametrize("name", PLACES)
def test_places_and_counts_of_integers_have_no_path(name):
    function = PLACES[name]
    status = "example" if name in BY_EXAMPLE else "exact"
    made = model(lambda m, x, i: function(m.a(x).relu(), i))
    assert answer(made, TOKENS, IDS, status=status) == (16, 1, 1)


@pytest.mark.parametrize(
    ("values", "status"),
    [
        (lambda i: i.unique()[:2], "example"),
        (lambda i: i.topk(2)[0][0], "exact"),
        (lambda i: i.sort()[0][0, :2], "exact"),
    ],
)
def test_integers_in_another_order_keep_their_path(values, status):
    # an embedding of the one unit of the ids
    assert answer(model(lambda m, x, i: m.ids(values(i))), X, IDS, status=status) == (4, 0, 0)


ORDER = {
    "median": lambda h, axis: h.median(axis).values,
    "nanmedian": lambda h, axis: h.nanmedian(axis).values,
    "mode": lambda h, axis: h.mode(axis).values,
    "kthvalue": lambda h, axis: h.kthvalue(2, axis).values,
    "quantile": lambda h, axis: h.quantile(0.3, axis),
    "keepdim": lambda h, axis: h.median(axis, keepdim=True).values.squeeze(axis),
}


@pytest.mark.parametrize("name", ORDER)
def test_one_of_the_elements_along_an_axis(name):
    function = ORDER[name]
    # along tokens the same units; along features a hub over 4 units of 4 ways
    assert answer(model(lambda m, x: function(m.a(x), 1)), TOKENS) == (16, 0, 0)
    over_features = model(lambda m, x: function(m.a(x), 2)[..., None].expand(2, 5, 4))
    assert answer(over_features, TOKENS) == (16, 0, 0)


def test_the_median_of_all():
    assert answer(model(lambda m, x: m.a(x).median()), X) == (16, 0, 0)


CUMULATED = [
    lambda h, axis: h.cumsum(axis),
    lambda h, axis: h.cumprod(axis),
    lambda h, axis: h.cummax(axis).values,
    lambda h, axis: h.cummin(axis).values,
    lambda h, axis: h.logcumsumexp(axis),
]


@pytest.mark.parametrize("cumulate", CUMULATED)
def test_what_is_cumulated_over_features_reads_those_before(cumulate):
    # feature k reads k + 1 units of 4 ways; the first is a unit itself
    assert answer(model(lambda m, x: cumulate(m.a(x), 1)), X) == (4 * (1 + 2 + 3 + 4), 0, 0)
    backwards = model(lambda m, x: cumulate(m.a(x).flip(1), 1).flip(1))
    assert answer(backwards, X) == (40, 0, 0)
    assert answer(model(lambda m, x: cumulate(m.a(x), 1)), TOKENS) == (16, 0, 0)


def test_the_last_prefix_is_the_sum():
    summed = answer(model(lambda m, x: m.b(m.a(x).relu().sum(1, keepdim=True).expand(2, 4))), X)
    last = answer(model(lambda m, x: m.b(m.a(x).relu().cumsum(1)[:, 3:].expand(2, 4))), X)
    assert last == summed


@pytest.mark.parametrize("cumulate", [CUMULATED[0], CUMULATED[2]])
def test_cumulated_features_are_verified(cumulate):
    assert pathlen.verify(model(lambda m, x: m.b(cumulate(m.a(x), 1))), X).ok


# --- matrices -------------------------------------------------------------------------------------

MATRICES = {
    "inv": (torch.linalg.inv, 4),
    "det": (lambda a: torch.linalg.det(a)[:, None, None].expand(2, 4, 4), 1),
    "logdet": (lambda a: (a @ a.mT).logdet()[:, None, None].expand(2, 4, 4), None),
    "svd": (lambda a: torch.linalg.svd(a)[1][:, None].expand(2, 4, 4), 4),
    "eigh": (lambda a: torch.linalg.eigh(a)[0][:, None].expand(2, 4, 4), 4),
    "solve": (lambda a: torch.linalg.solve(a, torch.ones(2, 4, 1)).mT.expand(2, 4, 4), None),
    "pinv": (torch.linalg.pinv, 4),
    "matrix_exp": (torch.matrix_exp, 4),
}


@pytest.mark.parametrize("name", MATRICES)
def test_functions_of_matrices_are_probed(name):
    function, units = MATRICES[name]
    paths, status = measured(lambda m, x: function(m.a(x)), SQUARE)
    assert status == "bound"
    if units is not None:  # each reads all 4 units of 4 ways
        assert paths >= units * 16


def test_a_cholesky_factor_reads_the_matrix_above_and_left_of_each_element():
    paths, status = measured(lambda m, x: torch.linalg.cholesky(m.a(x)), SQUARE)
    # column k of the factor: of columns 0 to k, each with 4 ways
    assert (paths >= 4 * (1 + 2 + 3 + 4), status) == (True, "bound")


def test_integers_beside_the_result_of_a_probe_carry_no_path():
    def function(m, x):
        lu, pivots = torch.linalg.lu_factor(m.a(x))
        return m.b(x) * pivots.float().mean() + 0 * lu.sum()

    assert measured(function, SQUARE)[1] == "bound"


def test_norms_of_linear_algebra_are_normalizations():
    def plain(m, x):
        h = m.a(x)
        return m.b(h / h.square().sum(-1, keepdim=True).sqrt())

    for norm in (torch.linalg.norm, torch.linalg.vector_norm):

        def function(m, x, norm=norm):
            h = m.a(x)
            return m.b(h / norm(h, dim=-1, keepdim=True))

        assert answer(model(function), X) == answer(model(plain), X)


def test_what_cannot_be_probed_is_refused():
    def function(m, x):
        h = m.a(x).repeat(1, 500)
        return torch.linalg.svd(h.reshape(-1, 2) @ h.reshape(2, -1))[0]

    with pytest.raises(UnsupportedOperation, match=r"(?s)_linalg_svd.*too large to be probed"):
        pathlen.measure(model(function), X)
