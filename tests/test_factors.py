"""Sums of products: one graph, multiplied out or factored, in any order and by any operator."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from tests.constructs import Model
from tests.test_one_function import ROWS, numbers


def model(function, width=4):
    """A function of linear maps of one input, behind which there is another."""
    layers = {name: nn.Linear(4, width) for name in "abcde"}
    parts = function.__code__.co_argcount
    return Model(
        lambda m, x: m.o(function(*[getattr(m, name)(x) for name in "abcde"[:parts]])),
        o=nn.Linear(width, 2),
        **layers,
    )


def view(x):
    return x.view(2, 2, 2)


def gated(mix):
    return lambda n, h, u: mix(n, h, u.sigmoid())


# n + z (h - n): n, and the product of z and the sum of h and n. 4 + 4 + 4 + 4 ways to each of four
# features, 4 of them through the sigmoid, each to 2 outputs. The walk: half to the product, half of
# that to z.
GATED = (16 * 4 * 2, Fraction(1, 4), Fraction(1, 4), 4)
GATES = {
    "factored": lambda n, h, z: n + z * (h - n),
    "documented": lambda n, h, z: (1 - z) * n + z * h,
    "multiplied out": lambda n, h, z: n - z * n + z * h,
    "lerp": torch.lerp,
    "lerp from the other end": lambda n, h, z: torch.lerp(h, n, 1 - z),
    "from the other end": lambda n, h, z: h + (1 - z) * (n - h),
    "other order": lambda n, h, z: z * h - (z * n - n),
    "addcmul": lambda n, h, z: torch.addcmul((1 - z) * n, z, h),
    "two addcmuls": lambda n, h, z: torch.addcmul(n, z, n, value=-1).addcmul_(z, h),
    "negated": lambda n, h, z: -(z - 1) * n - z * (-h),
    "scaled": lambda n, h, z: 2 * ((0.5 - 0.5 * z) * n + 0.5 * z * h),
    "cast": lambda n, h, z: (((1 - z) * n).double() + (z * h).double()).float(),
    "stacked": lambda n, h, z: torch.stack([(1 - z) * n, z * h]).sum(0),
    "viewed": lambda n, h, z: (view(1 - z) * view(n) + view(z) * view(h)).view(2, 4),
    "transposed": lambda n, h, z: ((1 - z).T * n.T + z.T * h.T).T,
    "one part flipped": lambda n, h, z: (n.flip(1) - z.flip(1) * n.flip(1)).flip(1) + z * h,
    "with a new axis": lambda n, h, z: ((1 - z)[:, None] * n[:, None] + (z * h)[:, None])[:, 0],
    "in halves": lambda n, h, z: torch.cat(
        [
            (1 - p) * q + p * r
            for p, q, r in zip(z.chunk(2, 1), n.chunk(2, 1), h.chunk(2, 1), strict=True)
        ],
        1,
    ),
}


@pytest.mark.parametrize("name", GATES)
def test_a_gate_between_two_tensors(name):
    assert numbers(model(gated(GATES[name])), ROWS) == GATED


# with tanh(h), it matters which of the two is the product's: half of the walk to n, a quarter to z
SIGMOIDS = {
    "sigmoid": torch.sigmoid,
    "of the negative": lambda u: 1 - (-u).sigmoid(),
    "by tanh": lambda u: 0.5 + 0.5 * (u / 2).tanh(),
    "by softmax": lambda u: torch.stack([u, torch.zeros_like(u)]).softmax(0)[0],
}


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("sigmoid", SIGMOIDS)
def test_the_end_that_a_gate_starts_from(name, sigmoid):
    mix, gate = GATES[name], SIGMOIDS[sigmoid]
    found = numbers(model(lambda n, h, u: mix(n, h.tanh(), gate(u))), ROWS)
    assert found == (16 * 4 * 2, Fraction(1, 2), Fraction(1, 4) + Fraction(1, 8), 8)


@pytest.mark.parametrize("name", [name for name in GATES if name != "in halves"])
def test_a_further_summand_is_beside_the_two(name):
    mix = GATES[name]
    found = numbers(model(lambda n, h, u, d: d + mix(n, h, u.sigmoid())), ROWS)
    assert found == (20 * 4 * 2, Fraction(1, 5), Fraction(1, 6), 4)


# each is a product of two tensors: 8 ways to each feature, 4 of them through the sigmoid of a
MODULATED = {
    "factored": lambda h, g: h * (1 + g),
    "multiplied out": lambda h, g: h + h * g,
    "addcmul": lambda h, g: torch.addcmul(h, h, g),
    "other order": lambda h, g: g * h + h,
    "lerp": lambda h, g: torch.lerp(h, 2 * h, g),
    "twice": lambda h, g: 2 * (h + h * g) - h * (1 + g),
    "shifted": lambda h, g: h * 2 + (g - 1) * h,
    "transposed": lambda h, g: (h.T + h.T * g.T).T,
    "in place": lambda h, g: h.clone().addcmul_(h, g),
    "of both": lambda h, g: 1 + h + g + h * g,
    "of both, factored": lambda h, g: (1 + h) * (1 + g),
    "of both, in part": lambda h, g: g * (1 + h) + h + 1,
    "quotient": lambda h, g: h / g + 3 * h / g,
}


@pytest.mark.parametrize("name", MODULATED)
def test_a_modulation_is_one_product(name):
    found = numbers(model(lambda h, u: MODULATED[name](h, u.sigmoid())), ROWS)
    assert found == (8 * 4 * 2, Fraction(1, 2), Fraction(1, 2), 4)


PAIRS = {
    "a sum in a product": ["(a + b) * c", "a * c + b * c", "torch.addcmul(c * b, a, c)"],
    "two sums": [
        "(a + b) * (c + d)",
        "a * c + a * d + b * c + b * d",
        "(a + b) * c + (a + b) * d",
        "a * (c + d) + b * c + b * d",
    ],
    "a product in a product": [
        "a * b * (c + d)",
        "a * b * c + a * b * d",
        "a * (b * c + b * d)",
        "(lambda i: i * c + i * d)(a * b)",
    ],
    "a product that is read twice": ["a * b * (c + 1)", "(lambda i: i * c + i)(a * b)"],
    "two modulations": [
        "a * (1 + b) * (1 + c) + d",
        "a + a * b + a * c + d + a * b * c",
        "(lambda u: u + u * c)(a + a * b) + d",
    ],
    "a mixture of three": [
        "c + a * (b - c) + d * (b.T.T - c)",
        "c - a * c - d * c + a * b + d * b",
        "(1 - a - d) * c + (a + d) * b",
    ],
    "quotients": ["(a + c) / b", "a / b + c / b", "(lambda r: a * r + r * c)(1 / b)"],
    "a sum that is read twice": [
        "a + (b - a) * (1 + c)",
        "(lambda e: a + e + c * e)(b - a)",
        "b + c * (b - a)",
    ],
    "what cancels": ["a * b + c", "(a + c) * b - c * b + c"],
    "functions of one tensor": [
        "(a + a.relu()) * b + c * b",
        "(lambda r: r * b + a * b + c * b)(a.relu())",
        "b * (a + c) + a.relu() * b",
    ],
    "an activation beside": ["F.silu(a) + b * (1 + c)", "b * c + a * a.sigmoid() + b"],
    "as good from all sides": ["a * b + b * c + c * a", "a * (b + c) + b * c"],
    "a mixture of two, twice": [
        "(lambda h: h + d * (e - h))(a + b * (c - a))",
        "(1 - d) * ((1 - b) * a + b * c) + d * e",
        "torch.lerp(torch.lerp(a, c, b), e, d)",
        "(lambda h: h - d * h + d * e)(a - b * a + c * b)",
        "d * e + ((1 - b) * a + b * c) - d * ((1 - b) * a + b * c)",
    ],
}


@pytest.mark.parametrize("name", PAIRS)
def test_one_function_has_one_graph(name):
    functions = [
        eval(f"lambda a, b, c, d, e: {spelling}", {"torch": torch, "F": F})
        for spelling in PAIRS[name]
    ]
    torch.manual_seed(0)
    tensors = [torch.randn(2, 4, dtype=torch.float64) for _ in "abcde"]
    found = [function(*tensors) for function in functions]
    assert all(torch.allclose(one, found[0]) for one in found)
    first, *others = [numbers(model(function), ROWS) for function in functions]
    assert others == [first] * len(others)


def test_a_sum_in_a_product_by_hand():
    # (a + b) c: the sum of 8 ways and c of 4, and the same walks
    found = numbers(model(lambda a, b, c: a.sigmoid() * c + b * c), ROWS)
    assert found == (12 * 4 * 2, Fraction(1, 3), Fraction(1, 4), 4)


@pytest.mark.parametrize("spelling", ["documented", "factored", "lerp", "multiplied out"])
def test_a_recurrent_layer_is_its_formula(spelling):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(2, 3, batch_first=True)

        def forward(self, x):
            m, h, found = self.rnn, torch.zeros(2, 3), []
            for t in range(3):
                r, z, n = F.linear(x[:, t], m.weight_ih_l0, m.bias_ih_l0).chunk(3, 1)
                own = F.linear(h, m.weight_hh_l0, m.bias_hh_l0).chunk(3, 1)
                r, z = (r + own[0]).sigmoid(), (z + own[1]).sigmoid()
                h = GATES[spelling]((n + r * own[2]).tanh(), h, z)
                found.append(h)
            return torch.stack(found, 1)

    x = torch.randn(2, 3, 2)
    module = Model(lambda m, x: m.rnn(x)[0], rnn=nn.GRU(2, 3, batch_first=True))
    assert numbers(Loop(), x) == numbers(module, x)


@pytest.mark.parametrize("every", [True, False])
def test_an_average_that_gates_move_is_one_in_any_spelling(every):
    def running(mix):
        def forward(m, x):
            gates, new = m.z(x).sigmoid(), m.n(x)
            h, found = m.first(x[:, 0]), []
            for t in range(4):
                h = mix(h, new[:, t], gates[:, t])
                found.append(h)
            return torch.stack(found) if every else h

        return Model(forward, z=nn.Linear(4, 4), n=nn.Linear(4, 4), first=nn.Linear(4, 4))

    x = torch.randn(2, 4, 4)
    names = ("factored", "documented", "lerp", "multiplied out", "addcmul")
    first, *others = [numbers(running(GATES[name]), x) for name in names]
    assert others == [first] * len(others)
    # h, and the product of z and the sum of n and h: ways of h (4 at first), z (4) and n (4)
    ways = [4]
    for _ in range(4):
        ways.append(2 * ways[-1] + 8)
    assert first[0] == 4 * (sum(ways[1:]) if every else ways[-1])


def test_a_cell_in_a_loop_is_the_layer_where_only_the_last_state_is_read():
    def loop(m, x):
        h = torch.zeros(2, 3)
        for t in range(3):
            h = m.cell(x[:, t], h)
        return h

    x = torch.randn(2, 3, 2)
    layer = Model(lambda m, x: m.rnn(x)[0][:, -1], rnn=nn.GRU(2, 3, batch_first=True))
    assert numbers(Model(loop, cell=nn.GRUCell(2, 3)), x) == numbers(layer, x)


def test_constants_by_channel_change_nothing():
    gain, mask = torch.tensor([1.0, 2, 3, 4]), torch.tensor([1.0, 0, 1, 0])
    first = numbers(model(lambda a, b, c: gain * (a + b) * c), ROWS)
    assert numbers(model(lambda a, b, c: gain * (a * c) + b * c * gain), ROWS) == first
    # not one product: where the mask is 0, b c alone is left
    two = numbers(model(lambda a, b, c: mask * a * c + gain * b * c), ROWS)
    assert two == first  # zeros in the code are weights like others


def test_a_tensor_that_meets_itself_is_not_multiplied_out():
    # no square appears that is not written
    assert numbers(model(lambda a, b, c: (a + b) * (a + c)), ROWS)[3] == 0


def test_edges_with_weights_have_the_same_paths():
    for mix in ("documented", "factored", "lerp"):
        body = model(gated(GATES[mix]))
        report = pathlen.measure(body, ROWS, edges="weights")
        assert report.path_count == GATED[0]


def test_the_magnitude_of_a_factored_sum_is_that_of_its_factors():
    def total(spelling):
        body = model(spelling)
        with torch.no_grad():
            for parameter in body.parameters():
                parameter.fill_(1.0)
        return pathlen.measure(body, ROWS, edges="weights").to_dict()

    one, other = total(lambda a, b, c: 3 * a * c - b * c), total(lambda a, b, c: (3 * a - b) * c)
    assert one["path_count"] == other["path_count"]
    keys = [key for key in one if "magnitude" in key or "average" in key]
    assert keys
    assert [one[key] for key in keys] == [other[key] for key in keys]


@pytest.mark.parametrize("name", ["documented", "multiplied out", "lerp", "transposed"])
def test_the_graph_is_verified(name):
    verdict = pathlen.verify(model(gated(GATES[name])), ROWS, spellings=0)
    assert verdict.ok, str(verdict)


def test_a_long_sum_has_one_factor():
    def forward(m, x):
        total = shared = m.a(x)
        for layer in m.layers:
            total = total + 2 * shared * layer(x).tanh()
        return total

    layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(40))
    # a times the sum of 40 activations and a constant
    body = Model(forward, a=nn.Linear(4, 4), layers=layers)
    assert numbers(body, ROWS) == (41 * 4 * 4, Fraction(40, 41), Fraction(1, 2), 160)


def test_factors_that_are_moved_before_they_are_added():
    """The position bias of WavLM: a gate times a bias of each head, in one axis with the batch."""

    def body(gate_first):
        def forward(m, x):
            h = m.a(x)
            gate = m.b(x).view(2, 3, 2, 2).permute(0, 2, 1, 3)[..., :1].sigmoid()
            bias = (
                gate * torch.linspace(1, 2, 3) + 1
                if gate_first
                else 1 + torch.linspace(1, 2, 3) * gate
            )
            own = (gate * bias).reshape(4, 3, 3)
            q = h.view(2, 3, 2, 2).permute(0, 2, 1, 3).reshape(4, 3, 2)
            return torch.baddbmm(own, q, q.mT) if gate_first else q @ q.mT + own

        return Model(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4))

    x = torch.randn(2, 3, 4)
    assert numbers(body(True), x) == numbers(body(False), x)
