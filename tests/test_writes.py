"""Programs that write to tensors: what is written is what is read, in whatever spelling.

Buffers filled in parts, caches, moving averages, parts of complex numbers.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that models give it

import pathlen
from pathlen.lowering import lower
from pathlen.lowering.input_walk import Walk
from pathlen.lowering.origins import origin_of_input
from pathlen.policy import Policy
from pathlen.tracing import trace_model
from tests.constructs import Model, answer

ROWS, TOKENS = torch.randn(2, 4), torch.randn(2, 5, 4)


def model(function, **parts):
    """A function with a dense layer a: 4 -> 4, b: 4 -> 4, and buffers."""
    made = Model(function, a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    for name, part in parts.items():
        made.register_buffer(name, part)
    return made


def states(m, x):
    """The hidden states of a small recurrence over the tokens."""
    h, found = x[:, 0], []
    for t in range(x.shape[1]):
        h = torch.tanh(m.a(h) + x[:, t])
        found.append(h)
    return found


# --- buffers that are filled in parts ------------------------------------------------------------


def stacked(m, x):
    return torch.stack(states(m, x), 1)


def selected(m, x):
    out = torch.zeros(2, 5, 4)
    for t, h in enumerate(states(m, x)):
        out[:, t] = h
    return out


def selected_first(m, x):
    out = torch.zeros(5, 2, 4)
    for t, h in enumerate(states(m, x)):
        out[t] = h
    return out.transpose(0, 1)


def sliced(m, x):
    out = x.new_empty(2, 5, 4)
    for t, h in enumerate(states(m, x)):
        out[:, t : t + 1].copy_(h[:, None])
    return out


def through_unbound_views(m, x):
    out = torch.zeros(2, 5, 4)
    for view, h in zip(out.unbind(1), states(m, x), strict=True):
        view.add_(h)
    return out


def through_a_flat_view(m, x):
    flat = torch.zeros(40)
    out = flat.view(2, 5, 4)
    for t, h in enumerate(states(m, x)):
        out.narrow(1, t, 1).squeeze(1).copy_(h)
    return flat.reshape(2, 5, 4)


def at_indices(m, x):
    out = torch.zeros(2, 5, 4)
    for t, h in enumerate(states(m, x)):
        out.index_copy_(1, torch.tensor([t]), h[:, None])
    return out


def as_a_function(m, x):
    out = torch.zeros(2, 5, 4)
    for t, h in enumerate(states(m, x)):
        out = out.select_scatter(h, 1, t)
    return out


FILLED = [
    selected,
    selected_first,
    sliced,
    through_unbound_views,
    through_a_flat_view,
    at_indices,
    as_a_function,
]


@pytest.mark.parametrize("fill", FILLED)
def test_a_buffer_filled_in_a_loop_is_the_stack_of_what_is_written(fill):
    written = model(fill)
    assert answer(written, TOKENS) == answer(model(stacked), TOKENS)
    assert pathlen.verify(written, TOKENS, spellings=0).ok


def test_a_buffer_that_is_read_while_it_is_filled():
    # step t reads the sum of what steps before it wrote: 4, 4 * 4, 4 * (4 + 16), ... paths a unit
    def function(m, x):
        out = torch.zeros(3, 2, 4)
        out[0] = F.relu(m.a(x))
        for t in range(1, 3):
            out[t] = F.relu(m.a(out[:t].sum(0)))
        return out[2]

    # out[1] of a(out[0]): 16 a unit of length 2; out[2] reads out[0] + out[1]: 4 * (4 + 16) paths
    # a unit, of which 16 have 2 units and 64 have 3
    length = Fraction(16 * 2 + 64 * 3, 80)
    assert answer(model(function), ROWS)[:2] == (320, length)


def test_two_parts_and_what_is_overwritten():
    def function(m, x):
        out = torch.zeros(2, 8)
        h = m.a(x).relu()
        out[:, :4] = m.b(h).relu()  # overwritten by the next line
        out[:, :4] = h
        out[:, 4:] = -h
        return out

    # the same four units twice; an output has one node a unit
    assert answer(model(function), ROWS) == (16, 1, 1)


def test_a_cache_of_keys_grows_as_its_concatenation():
    def attend(m, q, keys):
        return (q[:, None] @ keys.mT).softmax(-1) @ keys

    def cached(m, x):
        cache, found = torch.zeros(2, 3, 4), []
        for t in range(3):
            cache[:, t] = m.a(x[:, t])
            found.append(attend(m, x[:, t], cache[:, : t + 1]))
        return torch.cat(found, 1)

    def joined(m, x):
        keys, found = [], []
        for t in range(3):
            keys.append(m.a(x[:, t]))
            found.append(attend(m, x[:, t], torch.stack(keys, 1)))
        return torch.cat(found, 1)

    assert answer(model(cached), TOKENS) == answer(model(joined), TOKENS)


def test_a_moving_average_in_a_buffer():
    def function(m, x):
        for _ in range(3):
            x = F.relu(m.a(x))
            m.state.mul_(0.9).add_(0.1 * x.mean(0))
        return x + m.state

    def plain(m, x):
        kept = []
        for _ in range(3):
            x = F.relu(m.a(x))
            kept.append(x)
        return x + sum(kept)

    written = model(function, state=torch.zeros(4))
    assert answer(written, ROWS)[:2] == answer(model(plain), ROWS)[:2]
    assert torch.equal(written.state, torch.zeros(4))


def test_writes_of_constants_leave_constants():
    def function(m, x):
        scale = torch.zeros(4)
        scale[:2] = 1.0
        scale[2:].add_(2.0)
        return m.a(x) * scale

    assert answer(model(function), ROWS) == (16, 0, 0)


def test_a_write_through_one_view_shows_in_another():
    def function(m, x):
        h = m.a(x)
        rows, halves = h.view(2, 2, 2), h.split(2, 1)
        halves[0].copy_(m.b(x).relu()[:, :2])
        return rows.sum(2)

    # hubs over the two features of each half: the first was written to
    assert answer(model(function), ROWS)[:2] == (16, Fraction(1, 2))


def test_a_write_to_the_base_shows_in_a_view_taken_before():
    def function(m, x):
        h = m.a(x)
        flat = h.flatten()
        h.copy_(m.b(x).relu())
        return flat.view(2, 4)

    assert answer(model(function), ROWS) == (16, 1, 1)


@pytest.mark.parametrize("name", ["permuted", "strided"])
def test_memory_is_laid_out_as_the_tensor_is(name):
    def permuted(m, x):
        h = m.a(x).t().contiguous().t()  # features first in memory
        h.t().view(8)[:4].zero_()  # features 0 and 1
        return h

    def strided(m, x):
        h = m.a(x)
        h.as_strided((2, 2), (4, 1), 0).zero_()  # the first half of each row
        return h

    function = {"permuted": permuted, "strided": strided}[name]
    assert answer(model(function), ROWS) == (8, 0, 0)


def test_a_loop_of_writes_costs_as_much_as_its_parts():
    """Elements that are copied are counted, not seconds."""

    def elements(steps):
        def function(m, x):
            out = torch.zeros(2, steps, 4)
            for t in range(steps):
                out[:, t] = m.a(x[:, t]).relu()
            return out

        recording = trace_model(model(function), torch.randn(2, steps, 4), {}, None)
        with _Copies() as copies:
            lower(recording, Policy())
        return copies.elements

    few, many = elements(10), elements(40)
    assert many < 6 * few


@pytest.mark.parametrize("read", [False, True])
def test_an_input_that_is_copied_in_a_loop_is_followed_at_the_cost_of_its_parts(read):
    def elements(steps):
        def function(m, x):
            out = torch.zeros(2, steps, 4)
            out[:, 0] = x[:, 0]
            for t in range(1, steps):
                out[:, t] = x[:, t] + out[:, t - 1] if read else x[:, t]
            return m.a(out)

        x = torch.randn(2, steps, 4)
        recording = trace_model(model(function), x, {}, None)
        shape, walk = x.shape, Walk()
        node = next(node for node in recording.graph.nodes if node.op == "placeholder")
        with _Copies() as copies:
            walk.run(recording.graph, recording.attributes, {node: origin_of_input(shape)})
        assert [told.axes for told in walk.reads] == [(2,)]
        return copies.elements, copies.calls

    few, many = elements(10), elements(40)
    assert many[0] < 6 * few[0]
    assert many[1] < 6 * few[1]


class _Copies(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts calls, and the elements that copies write."""

    elements = 0
    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        if func in (torch.ops.aten.copy_.default, torch.ops.aten.clone.default):
            self.elements += args[0].numel()
        return func(*args, **(kwargs or {}))


# --- who reads what ------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["its name", "the result"])
def test_an_in_place_sum_is_flat(by):
    # (x + a) + b is one merge of three summands: the walk takes each with a third
    def function(m, x):
        total = x + F.relu(m.a(x))
        result = total.add_(m.b(x))
        return m.a(total if by == "its name" else result)

    def plain(m, x):
        return m.a(x + F.relu(m.a(x)) + m.b(x))

    assert answer(model(function), ROWS) == answer(model(plain), ROWS)


# --- scalars -------------------------------------------------------------------------------------


def test_a_sum_of_two_losses():
    # mean over all of relu(a): a hub over 4 active units of 4 paths; the sum of x: a hub over 4
    def function(m, x):
        return m.a(x).relu().mean() + x.sum()

    assert answer(model(function), ROWS) == (20, Fraction(16, 20), Fraction(1, 2))


@pytest.mark.parametrize(
    "join", [torch.mul, torch.maximum, lambda p, q: torch.stack([p, q]).sum(), torch.lerp]
)
def test_scalars_that_meet(join):
    def function(m, x):
        first, second = m.a(x).sum(), m.b(x).sum()
        return join(first, second, 0.5) if join is torch.lerp else join(first, second)

    assert answer(model(function), ROWS)[0] == 32


# --- parts of complex numbers --------------------------------------------------------------------


def transformed(write):
    """A Fourier transform of a(x) over the tokens, something written to it, and back."""

    def function(m, x):
        z = torch.fft.fft(m.a(x), dim=1)
        return torch.fft.ifft(write(m, x, z), dim=1).real

    return model(function)


def real_part(m, x, z):
    z.real.copy_(m.b(x).relu())
    return z


def real_part_of_a_slice(m, x, z):
    z[:, :, :].real[...] = m.b(x).relu()
    return z


def as_pairs(m, x, z):
    torch.view_as_real(z)[..., 0] = m.b(x).relu()
    return z


def written_out(m, x, z):
    return torch.complex(m.b(x).relu(), z.imag)


def real_part_of_the_conjugate(m, x, z):
    w = z.conj()
    w.real.copy_(m.b(x).relu())
    return z


@pytest.mark.parametrize(
    "write", [real_part, real_part_of_a_slice, as_pairs, written_out, real_part_of_the_conjugate]
)
def test_a_part_of_a_complex_number_leaves_the_other(write):
    # each of 4 numbers has a part of b's unit (active) and one of a's: 4 + 4 ways each
    assert answer(transformed(write), TOKENS) == (32, Fraction(1, 2), Fraction(1, 2))


def test_parts_of_complex_numbers_are_read_as_they_were_written():
    def function(m, x):
        z = torch.zeros(2, 5, 4, dtype=torch.complex64)
        z.real.copy_(m.a(x))
        z.imag.copy_(m.b(x).relu())
        return z.imag

    assert answer(model(function), TOKENS) == (16, 1, 1)


@pytest.mark.parametrize("part", ["real", "imag"])
def test_a_part_without_values_is_no_predecessor(part):
    def write(m, x, z):
        getattr(z, part).zero_()
        return z

    assert answer(transformed(write), TOKENS) == (16, 0, 0)


@pytest.mark.parametrize(
    "conjugate",
    [
        torch.conj,
        torch.conj_physical,
        lambda z: z.conj().resolve_conj(),
        lambda z: z.mH.mT,
    ],
)
def test_a_conjugate_is_a_pass(conjugate):
    assert answer(transformed(lambda m, x, z: conjugate(z)), TOKENS) == (16, 0, 0)


def test_a_spectral_convolution_fills_the_low_modes():
    # as in a Fourier neural operator: a matrix for each of two modes
    weight = torch.randn(2, 4, 4, dtype=torch.complex64)

    def filled(m, x):
        z = torch.fft.rfft(m.a(x).relu(), dim=1)
        out = torch.zeros(2, 3, 4, dtype=torch.complex64)
        out[:, :2] = torch.einsum("bkc,kcd->bkd", z[:, :2], m.weight)
        return torch.fft.irfft(out, n=5, dim=1)

    def padded(m, x):
        z = torch.fft.rfft(m.a(x).relu(), dim=1)
        low = torch.einsum("bkc,kcd->bkd", z[:, :2], m.weight)
        return torch.fft.irfft(F.pad(low, (0, 0, 0, 1)), n=5, dim=1)

    assert answer(model(filled, weight=weight), TOKENS) == (64, 1, 1)
    assert answer(model(padded, weight=weight), TOKENS) == (64, 1, 1)
