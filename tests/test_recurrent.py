"""Recurrent layers, state spaces, Fourier and token mixing, routing: worked out by hand.

Recurrent layers are unrolled over the example's length and every step has units of its own.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

import pathlen
from pathlen.errors import TraceError
from tests.constructs import HALF, IMAGE, TOKENS, X2, Model, answer

SEQUENCE = torch.zeros(3, 2, 2)  # (steps, batch, features)

# --- recurrent layers by hand ---------------------------------------------------------------------


def elman(width, hidden, steps):
    """Paths, summed lengths and expected lengths of a state of each step of an Elman network.

    h_t = tanh(W x_t + U h_(t-1)): every position of x has the same `width` units; the sum has two
    predecessors, the hubs of W and U, but for the first step, whose state before is constant:
        P_1 = width    P_t = width + hidden P_(t-1)
        S_1 = P_1      S_t = P_t + hidden S_(t-1)
        E_1 = 1        E_t = 1 + E_(t-1) / 2
    """
    paths, sums, expected = [width], [width], [Fraction(1)]
    for _ in range(steps - 1):
        paths.append(width + hidden * paths[-1])
        sums.append(paths[-1] + hidden * sums[-1])
        expected.append(1 + expected[-1] / 2)
    return paths, sums, expected


@pytest.mark.parametrize(("width", "hidden", "steps"), [(1, 1, 1), (1, 1, 2), (2, 3, 4), (3, 1, 3)])
def test_an_elman_network_by_hand(width, hidden, steps):
    paths, sums, expected = elman(width, hidden, steps)
    x = torch.zeros(2, steps, width)
    rnn = nn.RNN(width, hidden, batch_first=True)
    last = (hidden * paths[-1], Fraction(sums[-1], paths[-1]), expected[-1])
    assert answer(Model(lambda m, x: m.rnn(x)[0][:, -1], rnn=rnn), x) == last
    assert answer(Model(lambda m, x: m.rnn(x)[1], rnn=rnn), x) == last
    every = (hidden * sum(paths), Fraction(sum(sums), sum(paths)), sum(expected) / steps)
    assert answer(Model(lambda m, x: m.rnn(x)[0], rnn=rnn), x) == every


def test_a_gru_of_two_steps_by_hand():
    # width 2, 3 states. Step 1, state 0 constant: r = sigmoid(W x), z alike, both of 2 ways and
    # length 1; n = tanh(W x + r * b) has 2 + 2 ways (r has length 1 more); h = (h0 - n) z + n has
    # the product (n, z) and n: 4 + 2 + 4 = 10 ways.
    model = Model(lambda m, x: m.rnn(x)[0], rnn=nn.GRU(2, 3))
    # lengths: n: 2 of 1, 2 of 2 = 6; z: 2; so 6 + 2 + 6 = 14 over 10. The walk: n has 1 + 1/2,
    # the product (3/2 + 1) / 2, h the mean of 5/4 and 3/2
    assert answer(model, torch.zeros(1, 2, 2)) == (30, Fraction(14, 10), Fraction(11, 8))


def test_an_lstm_of_one_step_by_hand():
    # c0 is constant: c = f * c0 + i * g: f has 2 ways of length 1, the product 4 of length 1: 6;
    # h = o * tanh(c): 2 of length 1 and 6 of length 2. The walk: 1/2 * 1 + 1/2 * 2
    model = Model(lambda m, x: m.rnn(x)[0], rnn=nn.LSTM(2, 3))
    assert answer(model, torch.zeros(1, 2, 2)) == (24, Fraction(14, 8), Fraction(3, 2))


# --- modules and loops over cells agree -----------------------------------------------------------


def direction(cell, steps, *, reverse=False):
    """The outputs of a cell, step by step; an LSTM's cell returns a pair."""
    outputs, state = [], None
    for x in reversed(steps) if reverse else steps:
        state = cell(x, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return outputs[::-1] if reverse else outputs


def in_a_loop(model, x):
    """All layers and directions, written in Python."""
    steps = list(x.unbind(model.time_axis))
    for layer in model.layers:
        runs = [direction(cell, steps, reverse=n > 0) for n, cell in enumerate(layer)]
        steps = [torch.cat(parts, -1) for parts in zip(*runs, strict=True)]
    return torch.stack(steps, model.time_axis)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"batch_first": True},
        {"bidirectional": True},
        {"num_layers": 2},
        {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.5},
    ],
    ids=str,
)
def test_a_module_and_its_cells_in_a_loop_agree(kind, options):
    module = Model(lambda m, x: m.rnn(x)[0], rnn=getattr(nn, kind)(2, 3, **options))
    directions = 2 if options.get("bidirectional") else 1
    cell = getattr(nn, f"{kind}Cell")
    widths = [2] + [3 * directions] * (options.get("num_layers", 1) - 1)
    layers = nn.ModuleList(
        nn.ModuleList(cell(width, 3) for _ in range(directions)) for width in widths
    )
    loop = Model(in_a_loop, layers=layers)
    loop.time_axis = 1 if options.get("batch_first") else 0
    assert answer(module, SEQUENCE.transpose(0, loop.time_axis)) == answer(
        loop, SEQUENCE.transpose(0, loop.time_axis)
    )


def test_both_directions_are_one_direction_twice():
    # the same numbers forward and backward, so twice the paths and the same averages
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        one = answer(Model(lambda m, x: m.rnn(x)[0], rnn=kind(2, 3)), SEQUENCE)
        two = answer(Model(lambda m, x: m.rnn(x)[0], rnn=kind(2, 3, bidirectional=True)), SEQUENCE)
        assert two == (2 * one[0], *one[1:])


def test_a_step_of_the_second_layer_reads_the_same_step_of_the_first():
    # outputs of the first step alone: one cell after another, 2 * 3 * 3 paths of length 2
    model = Model(lambda m, x: m.rnn(x)[0][0], rnn=nn.RNN(2, 3, num_layers=2))
    assert answer(model, SEQUENCE) == (18, 2, 2)


def projected_cell(m, held, x):
    h, c = held
    enter, forget, new, out = (m.x(x) + m.h(h)).chunk(4, -1)
    c = forget.sigmoid() * c + enter.sigmoid() * new.tanh()
    return m.p(out.sigmoid() * c.tanh()), c


@pytest.mark.parametrize("bias", [True, False])
def test_an_lstm_with_a_projection(bias):
    # written out: 4 gates of 3 units, 2 projected outputs a step
    def forward(m, x):
        held, outputs = (torch.zeros(2, 2), torch.zeros(2, 3)), []
        for step in x:
            held = projected_cell(m, held, step)
            outputs.append(held[0])
        return torch.stack(outputs)

    parts = {"x": nn.Linear(2, 12), "h": nn.Linear(2, 12), "p": nn.Linear(3, 2, bias=False)}
    module = Model(lambda m, x: m.rnn(x)[0], rnn=nn.LSTM(2, 3, proj_size=2, bias=bias))
    assert answer(module, SEQUENCE) == answer(Model(forward, **parts), SEQUENCE)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_an_unbatched_sequence_and_nonlinearities(kind):
    model = Model(lambda m, x: m.rnn(x)[0], rnn=kind(2, 3))
    assert answer(model, SEQUENCE[:, 0]) == answer(model, SEQUENCE)
    if kind is nn.RNN:
        relu = Model(model.function, rnn=nn.RNN(2, 3, nonlinearity="relu"))
        assert answer(relu, SEQUENCE) == answer(model, SEQUENCE)


def test_a_first_state_that_is_given_is_an_input():
    # h1 = tanh(W x + U h0): 2 units of x and 3 of h0 reach each of 3 states
    model = Model(lambda m, x, h: m.rnn(x, h)[0], rnn=nn.RNN(2, 3))
    assert answer(model, torch.zeros(1, 2, 2), torch.zeros(1, 2, 3)) == (15, 1, 1)
    assert pathlen.trace(model, (torch.zeros(1, 2, 2), torch.zeros(1, 2, 3))).num_inputs == 5


class Packs(nn.Module):
    """A recurrent layer on packed sequences of two lengths, then a linear layer."""

    def __init__(self, kind, lengths=(3, 2), **options):
        super().__init__()
        self.rnn = getattr(nn, kind)(2, 3, **options)
        self.read = nn.Linear(3 * (2 if self.rnn.bidirectional else 1), 1)
        self.lengths, self.first = lengths, self.rnn.batch_first

    def forward(self, x, lengths=None):
        lengths = self.lengths if lengths is None else lengths
        packed = pack_padded_sequence(x, lengths, self.first, enforce_sorted=False)
        steps, _ = pad_packed_sequence(self.rnn(packed)[0], self.first, total_length=5)
        return self.read(steps)


def on_its_own(model, x):
    """The same for sequences of the full length."""
    return model.read(model.rnn(x)[0])


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"num_layers": 2}])
def test_packed_sequences_have_the_paths_of_the_longest(kind, options):
    """Positions of the batch are one unit, so the shorter sequences add nothing."""
    model = Packs(kind, **options)
    x = torch.randn(2, 3, 2) if options.get("batch_first") else torch.randn(3, 2, 2)
    plain = Model(on_its_own, rnn=model.rnn, read=model.read)
    expected = answer(plain, x)
    axis = {"x": 2}  # of the features
    assert answer(model, x, input_axis=axis) == expected
    assert answer(model, x, torch.tensor([2, 3]), status="example", input_axis=axis) == expected


def test_lengths_as_data_are_told():
    report = pathlen.measure(Packs("GRU"), (torch.randn(3, 2, 2), torch.tensor([3, 1])))
    assert any("this example takes one of several branches" in cause for cause in report.causes)


def test_the_last_state_of_each_packed_sequence():
    """One unit after one step and one after two are read: 2 * 3 and 2 * 3 + 2 * 3 * 3 paths."""

    def forward(m, x):
        state = m.rnn(pack_padded_sequence(x, [2, 1]))[1][-1]
        return m.read(state.flatten()[None])

    model = Model(forward, rnn=nn.RNN(2, 3), read=nn.Linear(6, 1))
    assert answer(model, torch.randn(2, 2, 2), input_axis=2)[0] == 2 * 3 + 2 * 3 + 2 * 3 * 3


def test_a_packed_sequence_as_an_input():
    def forward(m, packed):
        return pad_packed_sequence(m.rnn(packed)[0])[0]

    packed = pack_sequence([torch.randn(3, 2), torch.randn(2, 2)])
    model = Model(forward, rnn=nn.GRU(2, 3))
    plain = Model(lambda m, x: m.rnn(x)[0], rnn=model.rnn)
    assert answer(model, packed, status="example") == answer(plain, torch.randn(3, 2, 2))


def test_activity_of_packed_sequences():
    seen = pathlen.activity.from_data(
        Packs("RNN", nonlinearity="relu"), [torch.randn(3, 2, 2)] * 3, input_axis=2
    )
    assert sorted(set(seen.samples.tolist())) == [3, 6]  # of the last step, of those before


def test_packed_sequences_without_values_are_refused_with_a_way_out():
    with torch.device("meta"):
        model, x = Packs("GRU"), torch.randn(3, 2, 2)
        with pytest.raises(TraceError, match=r"reads values.*give the model and its arguments"):
            pathlen.measure(model, (x, torch.tensor([3, 2])))


# --- state spaces ---------------------------------------------------------------------------------


def test_a_dense_linear_state_space():
    # h_t = A h_(t-1) + B x_t with 4 states, y_t = C h_t: P_1 = 2, P_t = 2 + 4 P_(t-1): 2, 10, 42,
    # each times 4 into the one output of its step
    def forward(m, x):
        h, outputs = x.new_zeros(x.shape[0], 4), []
        for step in x.unbind(1):
            h = m.a(h) + m.b(step)
            outputs.append(m.c(h))
        return torch.stack(outputs, 1)

    layers = {"a": nn.Linear(4, 4), "b": nn.Linear(2, 4), "c": nn.Linear(4, 1)}
    assert answer(Model(forward, **layers), torch.zeros(2, 3, 2)) == (4 * (2 + 10 + 42), 0, 0)


def test_a_diagonal_state_space_is_a_filter_along_positions():
    # each channel has states of its own, which are factors of the channel at all positions:
    # nothing but the channel meets, as in a depthwise convolution
    def forward(m, x):
        x, h, outputs = torch.relu(m.enter(x)), 0, []
        for step in x.unbind(1):
            h = m.a * h + m.b * step[..., None]
            outputs.append((h * m.c).sum(-1))
        return m.leave(torch.stack(outputs, 1))

    parameters = {name: nn.Parameter(torch.rand(3, 4)) for name in "abc"}
    model = Model(forward, enter=nn.Linear(2, 3), leave=nn.Linear(3, 1), **parameters)
    assert answer(model, torch.zeros(2, 5, 2)) == (6, 1, 1)


def test_a_selective_state_space_of_one_step():
    # state (c, n) = d_c B_n x_c with d = softplus(W x): 3 ways of length 1, B: 3 ways, x: 1; y_c
    # sums C_n h (3 more ways) over 4 states: 3 channels * 4 states * (3 + 3 + 1 + 3) ways, of them
    # 3 in 10 with a softplus. C h is one product of four, so a quarter of the walk is of d
    def forward(m, x):
        step = x[:, 0]
        d, b, c = F.softplus(m.d(step)), m.b(step), m.c(step)
        h = d[..., None] * b[:, None] * step[..., None]
        return (h * c[:, None]).sum(-1)

    model = Model(forward, d=nn.Linear(3, 3), b=nn.Linear(3, 4), c=nn.Linear(3, 4))
    assert answer(model, torch.zeros(1, 1, 3)) == (120, Fraction(3, 10), Fraction(1, 4))


# --- Fourier transforms and token mixing ----------------------------------------------------------


def between(function, **more):
    layers = {"a": nn.Linear(4, 3), "b": nn.Linear(3, 2)}
    return Model(lambda m, x: m.b(function(m, torch.relu(m.a(x)))), **layers, **more)


def test_a_fourier_transform_along_positions_keeps_channels_apart():
    model = between(lambda m, x: torch.fft.fft(x, dim=1).real)
    assert answer(model, TOKENS) == (4 * 3 * 2, 1, 1)


def test_a_fourier_transform_along_features_is_a_hub():
    # 3 units of 4 ways meet in one hub, which stands for all 3 results: 12 ways into 2 outputs
    for transform in (torch.fft.fft, torch.fft.fft2):
        model = between(lambda m, x, f=transform: f(x).real)
        assert answer(model, TOKENS) == (12 * 2, 1, 1)


def test_a_global_filter_between_fourier_transforms():
    # GFNet: a constant factor for each frequency of each channel is a convolution of each channel
    def forward(m, x):
        spectrum = torch.fft.rfft2(torch.relu(m.a(x)))
        return m.b(torch.fft.irfft2(spectrum * m.filter, s=(4, 4)))

    filters = nn.Parameter(torch.randn(2, 4, 3, dtype=torch.complex64))
    model = Model(forward, a=nn.Conv2d(3, 2, 1), b=nn.Conv2d(2, 4, 1), filter=filters)
    assert answer(model, IMAGE) == (3 * 2 * 4, 1, 1)


def test_the_magnitude_of_a_short_time_fourier_transform():
    # every path passes the absolute value of a frequency once, and there and back none
    def transform(x):
        return torch.stft(x, 4, hop_length=2, window=torch.ones(4), return_complex=True)

    model = Model(lambda m, x: m.b(transform(x).abs()), b=nn.Conv1d(3, 4, 1))
    assert answer(model, torch.randn(1, 8))[1:] == (1, 1)
    back = Model(lambda m, x: torch.istft(transform(x), 4, hop_length=2, window=torch.ones(4)))
    assert answer(back, torch.randn(1, 8))[1:] == (0, 0)


def test_token_mixing():
    # MLP-Mixer: 2 channels of 4 ways; along tokens each keeps to itself, over one ReLU: 4 + 4
    def forward(m, x):
        y = m.enter(x)
        return m.leave(y + m.second(torch.relu(m.first(y.transpose(1, 2)))).transpose(1, 2))

    layers = {"enter": nn.Linear(4, 2), "leave": nn.Linear(2, 1)}
    tokens = {"first": nn.Linear(3, 5), "second": nn.Linear(5, 3)}
    assert answer(Model(forward, **layers, **tokens), TOKENS) == (16, HALF, HALF)


# --- routing --------------------------------------------------------------------------------------


class Routed(nn.Module):
    """Three experts 2 -> 3 -> 2 with ReLU; each input goes to the best k of them."""

    def __init__(self, combine, k):
        super().__init__()
        self.combine, self.k, self.gate = combine, k, nn.Linear(2, 3, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)) for _ in range(3)
        )

    def forward(self, x):
        weights, chosen = torch.topk(self.gate(x).softmax(-1), self.k, dim=-1)
        return self.combine(self.experts, x, weights, chosen)


def written_out(experts, x, weights, chosen):
    full = torch.zeros(len(x), len(experts)).scatter(1, chosen, weights)
    return sum(full[:, n, None] * expert(x) for n, expert in enumerate(experts))


def routed(experts, x, weights, chosen):
    """Each expert sees only its own inputs, as Mixtral does it."""
    result = torch.zeros_like(x)
    mask = F.one_hot(chosen, len(experts)).permute(2, 1, 0)
    for n, expert in enumerate(experts):
        slot, row = torch.where(mask[n])
        result.index_add_(0, row, expert(x[row]) * weights[row, slot, None])
    return result


@pytest.mark.parametrize("k", [1, 2])
def test_a_mixture_of_experts(k):
    # a weight, chosen from 3 scores of 2 ways, has 6; an expert's result 2 * 3, with a ReLU; the
    # sum of three products 3 * 12, half of them of length 1, for each of 2 outputs
    model = Routed(routed, k)
    directions = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])
    model.gate.weight = nn.Parameter(directions)
    # every expert is chosen by one; whom none is sent to would be seen in none of the calls
    assert answer(model, directions, status="example") == (2 * 36, HALF, HALF)


@pytest.mark.parametrize("k", [1, 2])
def test_a_mixture_of_experts_written_out(k):
    # each weight is its own score where that is among the best, an activation of 2 ways; it meets
    # the 2 * 3 ways of its expert, in a sum of three products for each of 2 outputs
    assert answer(Routed(written_out, k), torch.randn(3, 2)) == (2 * 3 * (2 + 6), 1, 1)


def test_a_soft_gate_needs_no_choice():
    # 3 gates of 2 ways and 3 results of 2 ways meet in pairs and are summed: 3 * 4 for 2 outputs
    def forward(m, x):
        results = torch.stack([expert(x) for expert in m.experts], 1)
        return (m.gate(x).softmax(-1)[:, :, None] * results).sum(1)

    experts = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    assert answer(Model(forward, gate=nn.Linear(2, 3), experts=experts), X2) == (24, 0, 0)
