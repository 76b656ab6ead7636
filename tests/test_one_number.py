"""One function, one number: further spellings of a function, each group with its closed form."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from tests.constructs import Model

ROWS = torch.randn(2, 4)


def numbers(model, example=ROWS, status="exact"):
    report = pathlen.measure(model.eval(), example, exact=True)
    assert report.status == status, report.causes
    averages = report.average_path_length, report.normalized_average_path_length
    return report.path_count, *averages, report.num_active


def same_outputs(one, other, example=ROWS):
    return torch.allclose(one(example), other(example), atol=1e-4)


def check(plain, respelled, expected, example=ROWS, status="exact"):
    """Both compute the same, and both have the numbers."""
    respelled.load_state_dict(plain.state_dict())
    assert same_outputs(plain, respelled, example)
    assert numbers(plain, example) == expected
    assert numbers(respelled, example, status) == expected


# --- sums at known places -------------------------------------------------------------------------

ROWS_OF_TWO, COLUMNS = torch.arange(2), torch.arange(4)

SUMS = {
    "index_add of rows": lambda x, b, d: x.index_add(0, ROWS_OF_TWO, b).index_add(
        0, ROWS_OF_TWO, d
    ),
    "index_add of columns": lambda x, b, d: x.index_add(1, COLUMNS, b).index_add(1, COLUMNS, d),
    "index_put": lambda x, b, d: x.index_put((ROWS_OF_TWO,), b + d, accumulate=True),
    "scatter_add": lambda x, b, d: x.scatter_add(1, COLUMNS.expand(2, 4), b) + d,
    "scatter_reduce": lambda x, b, d: x.scatter_reduce(1, COLUMNS.expand(2, 4), b, "sum") + d,
    "index_add of a sum": lambda x, b, d: (x + b).index_add(0, ROWS_OF_TWO, d),
    "turned round": lambda x, b, d: x.index_add(0, ROWS_OF_TWO.flip(0), b.flip(0)) + d,
    "all into zeros": lambda x, b, d: (
        torch.zeros(2, 4)
        .index_add(0, ROWS_OF_TWO, x)
        .index_add(0, ROWS_OF_TWO, b)
        .index_add(0, ROWS_OF_TWO, d)
    ),
    "at once": lambda x, b, d: torch.zeros(2, 4).index_add(
        0, ROWS_OF_TWO.repeat(3), torch.cat([x, b, d])
    ),
    "segment_reduce": lambda x, b, d: torch.segment_reduce(
        torch.stack([x, b, d], 1).flatten(0, 1), "sum", lengths=torch.tensor([3, 3])
    ),
    "segment_reduce by offsets": lambda x, b, d: torch.segment_reduce(
        torch.stack([x, b, d], 1).flatten(0, 1), "sum", offsets=torch.tensor([0, 3, 6])
    ),
}


def summed(add):
    layers = {
        "a": nn.Linear(4, 5),
        "b": nn.Linear(5, 4),
        "d": nn.Linear(4, 4),
        "c": nn.Linear(4, 3),
    }
    return Model(lambda m, x: m.c(add(x, m.b(F.relu(m.a(x))), m.d(x))), **layers)


@pytest.mark.parametrize("name", SUMS)
def test_sums_at_known_places_are_sums(name):
    """x + b(relu(a(x))) + d(x) with 4, 5 and 4 features, then 3 outputs.

    Each of the 4 sums ends 1 path of x, 4 of the linear layer and 4 * 5 that have an active unit.
    """
    expected = (4 * (1 + 4 + 20) * 3, Fraction(20, 25), Fraction(1, 3), 5)
    check(summed(lambda x, b, d: x + b + d), summed(SUMS[name]), expected)


PARTS_OF_SUMS = {
    "index_add": lambda x, b, d: x.index_add(1, COLUMNS[:2], b[:, :2]).index_add(
        1, COLUMNS[:2], d[:, :2]
    ),
    "scatter_add": lambda x, b, d: x.scatter_add(1, COLUMNS[:2].expand(2, 2), b[:, :2]).scatter_add(
        1, COLUMNS[:2].expand(2, 2), d[:, :2]
    ),
    "padded": lambda x, b, d: x + F.pad(b[:, :2], (0, 2)) + F.pad(d[:, :2], (0, 2)),
}


@pytest.mark.parametrize("name", PARTS_OF_SUMS)
def test_sums_into_a_part_leave_the_rest_alone(name):
    def plain(x, b, d):
        return torch.cat([x[:, :2] + b[:, :2] + d[:, :2], x[:, 2:]], 1)

    expected = ((2 * 25 + 2) * 3, Fraction(40, 52), Fraction(1, 6), 5)
    check(summed(plain), summed(PARTS_OF_SUMS[name]), expected)


def test_an_activation_added_at_places_meets_its_own_tensor_first():
    def at_places(x, b, d):
        return d.index_add(0, ROWS_OF_TWO, b).index_add(0, ROWS_OF_TWO, F.relu(d))

    # d + relu(d) is one active unit behind 4 paths, in a sum with the 4 * 5 paths of b
    expected = (4 * (4 + 20) * 3, 1, 1, 9)
    check(summed(lambda x, b, d: d + F.relu(d) + b), summed(at_places), expected)


def stages(size, upto):
    """Runge-Kutta stages in a buffer that is longer than what is added up."""

    def forward(model, x):
        h = model.a(x)
        k = h.new_empty(2, 4, size)
        k[..., 0] = torch.tanh(model.b(h))
        k[..., 1] = model.d(h)
        return h + (k[..., :upto] * torch.tensor([0.2, 0.3])).sum(-1)

    return Model(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4), d=nn.Linear(4, 4))


@pytest.mark.parametrize("size", [2, 3])
def test_a_sum_over_a_part_of_a_buffer_is_one_of_what_was_written_there(size):
    def plain(model, x):
        h = model.a(x)
        return h + 0.2 * torch.tanh(model.b(h)) + 0.3 * model.d(h)

    layers = {"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "d": nn.Linear(4, 4)}
    expected = (4 * (4 + 16 + 16), Fraction(16, 36), Fraction(1, 3), 4)
    check(Model(plain, **layers), stages(size, 2), expected)


# --- diagonals ------------------------------------------------------------------------------------


def residual(activation):
    """c(x + b(activation(a(x)))): 4 -> 5 -> 4 -> 3 features."""
    layers = {"a": nn.Linear(4, 5), "b": nn.Linear(5, 4), "c": nn.Linear(4, 3)}
    return Model(lambda m, x: m.c(x + m.b(activation(m.a(x)))), **layers)


RESIDUAL = (4 * (1 + 5 * 4) * 3, Fraction(20, 21), Fraction(1, 2), 5)


def diagonal(product):
    return product.diagonal(dim1=1, dim2=2)


SQUARES = {
    "diagonal": lambda h: diagonal(h[:, :, None] * h[:, None]),
    "scaled before": lambda h: diagonal(h[:, :, None] * h[:, None] / 2) * 2,
    "torch.diagonal": lambda h: torch.diagonal(h[:, None] * h[:, :, None], dim1=1, dim2=2),
    "linalg.diagonal": lambda h: torch.linalg.diagonal(h[:, :, None] * h[:, None]),
    "outer einsum": lambda h: diagonal(torch.einsum("bi,bj->bij", h, h)),
    "einsum": lambda h: torch.einsum("bi,bi->bi", h, h),
    "diagonal by einsum": lambda h: torch.einsum("bii->bi", h[:, :, None] * h[:, None]),
    "bmm": lambda h: diagonal(torch.bmm(h[:, :, None], h[:, None])),
    "matmul": lambda h: diagonal(h[:, :, None] @ h[:, None]),
    "by index": lambda h: (h[:, :, None] * h[:, None])[:, torch.arange(5), torch.arange(5)],
    "each sixth": lambda h: (h[:, :, None] * h[:, None]).flatten(1)[:, ::6],
}


@pytest.mark.parametrize("name", SQUARES)
def test_the_diagonal_of_an_outer_product_of_a_tensor_with_itself_is_its_square(name):
    check(residual(lambda h: h * h), residual(SQUARES[name]), RESIDUAL)


@pytest.mark.parametrize(
    "gate",
    [
        lambda h: diagonal(h[:, :, None] * h.sigmoid()[:, None]),
        lambda h: diagonal(torch.einsum("bi,bj->bij", h, h.sigmoid())),
    ],
)
def test_the_diagonal_of_a_product_with_its_own_gate_is_an_activation(gate):
    check(residual(F.silu), residual(gate), RESIDUAL)


# --- sorted features ------------------------------------------------------------------------------


def pairs(h):
    return h.view(2, 3, 2)


GROUP_SORTS = {
    "sort": lambda h: pairs(h).sort(-1).values.flatten(1),
    "topk": lambda h: pairs(h).topk(2, -1).values.flip(-1).flatten(1),
    "msort": lambda h: pairs(h).permute(2, 0, 1).msort().permute(1, 2, 0).flatten(1),
    "amin and amax": lambda h: torch.stack([pairs(h).amin(-1), pairs(h).amax(-1)], -1).flatten(1),
    "kthvalue": lambda h: torch.stack(
        [pairs(h).kthvalue(1, -1).values, pairs(h).kthvalue(2, -1).values], -1
    ).flatten(1),
}


@pytest.mark.parametrize("name", GROUP_SORTS)
def test_each_place_of_sorted_features_reads_all_of_them(name):
    """GroupSort: 4 inputs, 6 features, each place of a pair reads both, 3 outputs."""

    def network(function):
        return Model(lambda m, x: m.c(function(m.a(x))), a=nn.Linear(4, 6), c=nn.Linear(6, 3))

    def plain(h):
        low, high = torch.minimum(h[:, ::2], h[:, 1::2]), torch.maximum(h[:, ::2], h[:, 1::2])
        return torch.stack([low, high], -1).flatten(1)

    check(network(plain), network(GROUP_SORTS[name]), (4 * 2 * 6 * 3, 0, 0, 0))


# --- polynomials ----------------------------------------------------------------------------------


def chebyshev(x):
    """The first four, of which two are constant or linear."""
    found = [torch.ones_like(x), x]
    for _ in range(2):
        found.append(2 * x * found[-1] - found[-2])
    return torch.stack(found, -1)


def by_buffer(x):
    found = torch.ones(2, 4, 4)
    found[..., 1] = x
    for degree in range(2, 4):
        found[..., degree] = 2 * x * found[..., degree - 1].clone() - found[..., degree - 2].clone()
    return found


def by_rows(x):
    found = torch.ones(4, 2, 4)
    found[1] = x
    for degree in range(2, 4):
        found[degree] = 2 * x * found[degree - 1] - found[degree - 2]
    return found.permute(1, 2, 0)


def by_cat(x):
    found = torch.stack([torch.ones_like(x), x], -1)
    for _ in range(2):
        following = 2 * x * found[..., -1] - found[..., -2]
        found = torch.cat([found, following[..., None]], -1)
    return found


@pytest.mark.parametrize("basis", [by_buffer, by_rows, by_cat])
def test_a_recurrence_of_polynomials_is_one_wherever_they_are_kept(basis):
    """A layer of a ChebyKAN: of each input tanh itself and two functions of it, 3 outputs."""

    def network(function):
        coefficients = nn.Parameter(torch.randn(4, 3, 4))
        model = Model(lambda m, x: torch.einsum("bid,iod->bo", function(x.tanh()), m.c))
        model.c = coefficients
        return model

    check(
        network(chebyshev), network(basis), (4 * 3 * 3, Fraction(1 + 2 + 2, 3), Fraction(5, 3), 12)
    )


# --- masks as places ------------------------------------------------------------------------------


def at_places(h, mask, write):
    """A function of elements where a mask says so, at their places in the tensor laid out flat."""
    flat = h.reshape(-1)
    return write(flat, mask(flat).nonzero()[:, 0]).view_as(h)


def positive(flat):
    return flat > 0


def added_where_positive(h):
    out, mask = torch.zeros_like(h), h > 0
    out[mask] += h[mask]
    return out


RELUS = {
    "index_copy": lambda f, i: torch.zeros_like(f).index_copy(0, i, f[i]),
    "index_select": lambda f, i: torch.zeros_like(f).index_copy(0, i, f.index_select(0, i)),
    "scatter": lambda f, i: torch.zeros_like(f).scatter(0, i, f.gather(0, i)),
    "put": lambda f, i: torch.zeros_like(f).put(i, f.take(i)),
    "index_add": lambda f, i: torch.zeros_like(f).index_add(0, i, f[i]),
    "scatter_add": lambda f, i: torch.zeros_like(f).scatter_add(0, i, f[i]),
}


@pytest.mark.parametrize("name", RELUS)
def test_elements_written_at_the_places_of_a_mask_are_a_relu(name):
    respelled = residual(lambda h: at_places(h, positive, RELUS[name]))
    check(residual(F.relu), respelled, RESIDUAL, status="example")


def test_elements_added_where_a_mask_says_so_are_a_relu():
    check(residual(F.relu), residual(added_where_positive), RESIDUAL, status="example")


def test_scaled_elements_written_at_the_places_of_a_mask_are_a_leaky_relu():
    respelled = residual(
        lambda h: at_places(h, lambda f: f < 0, lambda f, i: f.index_copy(0, i, 0.1 * f[i]))
    )
    check(residual(lambda h: F.leaky_relu(h, 0.1)), respelled, RESIDUAL, status="example")


# --- windows over features ------------------------------------------------------------------------

IMAGES = torch.randn(2, 3, 6, 6)


def padded(h):
    return F.pad(h * h, (0, 0, 0, 0, 1, 1))


def beside(h):
    squares = h * h
    none = torch.zeros_like(squares[:, :1])
    before, after = torch.cat([none, squares[:, :-1]], 1), torch.cat([squares[:, 1:], none], 1)
    return before + squares + after


def pooled(h):
    last = (h * h).permute(0, 2, 3, 1)
    return 3 * F.avg_pool2d(last, (1, 3), 1, (0, 1)).permute(0, 3, 1, 2)


SUMS_OF_THREE = {
    "slices": lambda h: padded(h)[:, :-2] + padded(h)[:, 1:-1] + padded(h)[:, 2:],
    "slices of one": lambda h: (lambda p: p[:, :-2] + p[:, 1:-1] + p[:, 2:])(padded(h)),
    "a loop": lambda h: (lambda p: sum(p[:, i : i + 4] for i in range(3)))(padded(h)),
    "put together": beside,
    "unfold": lambda h: padded(h).unfold(1, 3, 1).sum(-1),
    "pooling with a border": pooled,
    "pooling": lambda h: 3 * F.avg_pool3d(padded(h)[:, None], (3, 1, 1), 1)[:, 0],
    "convolution": lambda h: F.conv3d(
        (h * h)[:, None], torch.ones(1, 1, 3, 1, 1), padding=(1, 0, 0)
    )[:, 0],
}


@pytest.mark.parametrize("name", SUMS_OF_THREE)
def test_a_local_response_normalization_is_one_in_any_spelling(name):
    """h + relu(lrn(h)): one activation of each of 4 channels, between 3 and 2 others."""

    def network(norm):
        return Model(
            lambda m, x: (lambda h: m.c(h + F.relu(norm(h))))(m.a(x)),
            a=nn.Conv2d(3, 4, 1),
            c=nn.Conv2d(4, 2, 1),
        )

    plain = network(lambda h: F.local_response_norm(h, 3, 0.01, 0.75, 1.0))
    respelled = network(lambda h: h / (1 + 0.01 / 3 * SUMS_OF_THREE[name](h)) ** 0.75)
    check(plain, respelled, (3 * 4 * 2, 1, 1, 4), IMAGES)


def test_a_sum_of_neighbours_that_is_no_divisor_stays_a_sum():
    """3 -> 4 channels, relu, each with the one before it: 1 + 3 * 2 ways, to 2 others."""

    def forward(m, x):
        h = F.relu(m.a(x))
        return m.c(h + F.pad(h, (0, 0, 0, 0, 1, 0))[:, :-1])

    model = Model(forward, a=nn.Conv2d(3, 4, 1), c=nn.Conv2d(4, 2, 1))
    assert numbers(model, IMAGES) == (3 * (1 + 3 * 2) * 2, 1, 1, 4)


# --- softmax beside a constant --------------------------------------------------------------------


def beside_zero(h):
    return torch.stack([h, torch.zeros_like(h)], -1)


def over_sum(exponentials):
    return (exponentials / exponentials.sum(-1, keepdim=True))[..., 0]


def shifted(pair):
    return (pair - pair.amax(-1, keepdim=True)).exp()


def running(h):
    """The largest exponent is taken off first, by hand."""
    largest = torch.maximum(h, torch.zeros_like(h))
    own = (h - largest).exp()
    return own / (own + (-largest).exp())


def of_halves(both):
    return both[:2] / (both[:2] + both[2:])


SIGMOIDS = {
    "exponentials over their sum": lambda h: over_sum(beside_zero(h).exp()),
    "one over the sum": lambda h: (lambda e: e[..., 0] / e.sum(-1))(beside_zero(h).exp()),
    "shifted by the maximum": lambda h: over_sum(shifted(beside_zero(h))),
    "shifted by hand": running,
    "logsumexp": lambda h: (beside_zero(h) - beside_zero(h).logsumexp(-1, keepdim=True)).exp()[
        ..., 0
    ],
    "normalized": lambda h: F.normalize(beside_zero(h).exp(), p=1, dim=-1)[..., 0],
    "one of two": lambda h: (lambda e: e[0] / (e[0] + e[1]))(beside_zero(h).movedim(-1, 0).exp()),
    "put together": lambda h: of_halves(torch.cat([h, torch.zeros_like(h)]).exp()),
    "einsum": lambda h: (lambda e: e[..., 0] / torch.einsum("bck->bc", e))(beside_zero(h).exp()),
    "scaled by 1 and 0": lambda h: over_sum((h[..., None] * torch.tensor([1.0, 0.0])).exp()),
    "halves": lambda h: over_sum((h[..., None] * torch.tensor([0.5, -0.5])).exp()),
}


@pytest.mark.parametrize("name", SIGMOIDS)
def test_a_softmax_of_a_tensor_beside_a_constant_is_a_sigmoid(name):
    check(residual(torch.sigmoid), residual(SIGMOIDS[name]), RESIDUAL)


def test_a_softmax_of_features_beside_a_constant_stays_one():
    """An extra score of 0 for none of them: 4 -> 5 scores and a pass, then 3 outputs."""

    def none_of_them(h):
        scores = torch.cat([h, torch.zeros(2, 1)], 1).exp()
        return (scores / scores.sum(-1, keepdim=True))[:, :5]

    model = Model(lambda m, x: m.c(none_of_them(m.a(x))), a=nn.Linear(4, 5), c=nn.Linear(5, 3))
    assert numbers(model) == (4 * 5 * 3, 0, 0, 0)


KNOTS, SLOPES = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([0.5, -2.0, 1.0])
HINGES = {
    "matmul": lambda h: F.relu(KNOTS - h[..., None]) @ SLOPES,
    "einsum": lambda h: torch.einsum("bck,k->bc", F.relu(KNOTS - h[..., None]), SLOPES),
    "linear": lambda h: F.linear(F.relu(KNOTS - h[..., None]), SLOPES[None])[..., 0],
    "product and sum": lambda h: (F.relu(KNOTS - h[..., None]) * SLOPES).sum(-1),
}


@pytest.mark.parametrize("name", HINGES)
def test_functions_of_one_element_that_a_product_adds_up_are_one(name):
    def plain(h):
        return sum(s * F.relu(k - h) for k, s in zip(KNOTS, SLOPES, strict=True))

    check(residual(plain), residual(HINGES[name]), RESIDUAL)


# --- the k largest --------------------------------------------------------------------------------


def largest(h):
    return h.topk(3, -1)


def into_zeros(h, method, places, values, **settings):
    return getattr(torch.zeros_like(h), method)(-1, places, values, **settings)


def marked(h):
    return torch.zeros_like(h, dtype=torch.bool).scatter(-1, largest(h).indices, True)


def by_order(h):
    values, places = h.sort(-1, descending=True)
    return into_zeros(h, "scatter", places[:, :3], values[:, :3])


WINNERS = {
    "scatter": lambda h: into_zeros(h, "scatter", largest(h).indices, largest(h).values),
    "scatter in place": lambda h: (lambda v, i: torch.zeros_like(h).scatter_(-1, i, v))(
        *largest(h)
    ),
    "scatter_add": lambda h: (lambda v, i: into_zeros(h, "scatter_add", i, v))(*largest(h)),
    "scatter_reduce": lambda h: (lambda v, i: into_zeros(h, "scatter_reduce", i, v, reduce="sum"))(
        *largest(h)
    ),
    "a mask": lambda h: h * marked(h),
    "a mask of floats": lambda h: h * into_zeros(h, "scatter", largest(h).indices, 1.0),
    "masked_fill": lambda h: h.masked_fill(~marked(h), 0.0),
    "gathered": lambda h: (lambda i: into_zeros(h, "scatter", i, h.gather(-1, i)))(
        largest(h).indices
    ),
    "sorted": by_order,
    "the others filled": lambda h: h.scatter(-1, (-h).topk(3, -1).indices, 0.0),
    "by sort": lambda h: h * (h >= h.sort(-1, descending=True).values[:, 2:3]),
    "by kthvalue": lambda h: h * (h >= h.kthvalue(4, -1, keepdim=True).values),
}


def six_features(activation):
    """c(x + b(activation(a(x)))): 4 -> 6 -> 4 -> 3 features."""
    layers = {"a": nn.Linear(4, 6), "b": nn.Linear(6, 4), "c": nn.Linear(4, 3)}
    return Model(lambda m, x: m.c(x + m.b(activation(m.a(x)))), **layers)


OF_SIX = (4 * (1 + 6 * 4) * 3, Fraction(24, 25), Fraction(1, 2), 6)


@pytest.mark.parametrize("name", WINNERS)
def test_what_keeps_the_largest_is_a_threshold(name):
    plain = six_features(lambda h: torch.where(h >= largest(h).values[..., -1:], h, 0.0))
    check(plain, six_features(WINNERS[name]), OF_SIX)


LARGEST = {
    "one_hot": lambda h: h * F.one_hot(h.argmax(-1), 6),
    "scatter": lambda h: (lambda v, i: into_zeros(h, "scatter", i, v))(*h.max(-1, keepdim=True)),
    "scatter of an axis that was reduced": lambda h: (
        lambda v, i: into_zeros(h, "scatter", i[:, None], v[:, None])
    )(*h.max(-1)),
    "equal": lambda h: h * (h == h.amax(-1, keepdim=True)),
}


@pytest.mark.parametrize("name", LARGEST)
def test_what_keeps_the_largest_of_all_is_a_threshold(name):
    plain = six_features(lambda h: torch.where(h >= h.amax(-1, keepdim=True), h, 0.0))
    check(plain, six_features(LARGEST[name]), OF_SIX)


def test_elements_that_are_sorted_and_put_back_are_those_they_were():
    def there_and_back(h):
        values, places = F.relu(h).sort(-1)
        return torch.zeros_like(h).scatter(-1, places, values)

    check(six_features(F.relu), six_features(there_and_back), OF_SIX)


def test_places_alone_have_no_path():
    """A one-hot vector of the largest chooses among features, and is none itself."""

    def forward(m, x):
        chosen = F.one_hot(m.gate(x).argmax(-1), 6).float()
        return m.c(m.a(x) * chosen)

    layers = {"gate": nn.Linear(4, 6), "a": nn.Linear(4, 6), "c": nn.Linear(6, 3)}
    assert numbers(Model(forward, **layers)) == (4 * 6 * 3, 0, 0, 0)


# --- norms that are no statistics -----------------------------------------------------------------


def rows(h):
    return h[:, None], h[:, :, None]


def six(function):
    return Model(lambda m, x: function(m.a(x)), a=nn.Linear(4, 6))


ROOTS = {
    "power": lambda h: h.pow(2).sum(-1) ** 0.5,
    "einsum": lambda h: torch.einsum("bc,bc->b", h, h).sqrt(),
    "matmul": lambda h: (rows(h)[0] @ rows(h)[1])[:, 0, 0].sqrt(),
    "mean": lambda h: (6 * h.square().mean(-1)).sqrt(),
}


@pytest.mark.parametrize("name", ROOTS)
def test_a_root_of_a_sum_of_squares(name):
    """4 inputs, 6 features, each squared, and the root of their sum."""
    plain = six(lambda h: (h * h).sum(-1).sqrt())
    check(plain, six(ROOTS[name]), (4 * 6, 2, 2, 6 + 1))


SQUARED_NORMS = {
    "power": lambda h: h.pow(2).sum(-1),
    "einsum": lambda h: torch.einsum("bc,bc->b", h, h),
    "matmul": lambda h: (rows(h)[0] @ rows(h)[1])[:, 0, 0],
    "vecdot": lambda h: torch.linalg.vecdot(h, h),
}


@pytest.mark.parametrize("name", SQUARED_NORMS)
def test_a_squared_norm_is_a_sum_of_squares(name):
    check(six(lambda h: (h * h).sum(-1)), six(SQUARED_NORMS[name]), (4 * 6, 1, 1, 6))


@pytest.mark.parametrize(
    "norm",
    [
        lambda h: h / h.norm(dim=-1, keepdim=True),
        lambda h: h / torch.einsum("bc,bc->b", h, h).sqrt()[:, None],
        lambda h: F.normalize(h, dim=-1),
        lambda h: (h - h.mean(-1, keepdim=True)) / h.std(-1, keepdim=True),
    ],
)
def test_a_norm_that_divides_what_it_is_of_is_held_fixed(norm):
    assert numbers(six(norm)) == (4 * 6, 0, 0, 0)
