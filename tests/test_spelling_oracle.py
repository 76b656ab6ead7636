"""The oracle of `tests/spelling` itself: values worked out by hand, and paths listed one by one.

The numbers here come from the definitions; no graph of pathlen is made.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from random import Random

import numpy as np
import pytest
import torch

from tests.spelling.builder import Builder
from tests.spelling.constructs import CONSTRUCTS
from tests.spelling.features import input_features
from tests.spelling.grammar import STEMS, draw, draw_one
from tests.spelling.network import computes_the_same, example, parameters, spelled
from tests.spelling.oracle import answer, last_pass
from tests.spelling.path_dag import Numbers, PathDag

HALF = Fraction(1, 2)


def numbers(builder, *outputs):
    found = answer(builder.program(*outputs))
    assert not found.open_cases
    return found.numbers


# --- the worked values of the definitions ---------------------------------------------------------


@pytest.mark.parametrize("widths", [(3, 2), (2, 3, 4, 1), (1, 5, 5, 5, 2)])
def test_a_perceptron(widths):
    b = Builder()
    x = b.input("c", widths[0])
    for width in widths[1:-1]:
        x = b.act(b.linear(x, width), "relu")
    hidden = len(widths) - 2
    want = Numbers(int(np.prod(widths)), Fraction(hidden), Fraction(hidden), sum(widths[1:-1]))
    assert numbers(b, b.linear(x, widths[-1])) == want


def test_figure_1():
    b = Builder()
    x = h = b.input("c", 1)
    for _ in range(4):
        h = b.act(b.linear(h, 4), "relu")
    assert numbers(b, b.sum(b.linear(h, 1), x)) == Numbers(
        257, Fraction(1024, 257), Fraction(2), 16
    )


@pytest.mark.parametrize(("blocks", "width", "hidden"), [(1, 2, 3), (2, 3, 2), (3, 2, 4)])
def test_residual_blocks(blocks, width, hidden):
    # C (C H + 1)^B paths, B C H / (C H + 1), B / 2. The stream is read by the next block too, so
    # each sum is a unit of its own.
    b = Builder()
    x = b.input("c", width)
    for _ in range(blocks):
        x = b.sum(x, b.linear(b.act(b.linear(x, hidden), "relu"), width))
    each = width * hidden
    assert numbers(b, x) == Numbers(
        width * (each + 1) ** blocks,
        Fraction(blocks * each, each + 1),
        Fraction(blocks, 2),
        blocks * hidden,
    )


def test_a_cifar_block_with_a_projection():
    # conv, relu; then a block whose shortcut is a convolution: 1 + 3/2 (a plain block has 1 / 2
    # + 1, its last relu among them; so has one with a projection)
    b = Builder()
    x = b.act(b.conv(b.input("chw", 3, 4, 4), 4), "relu")
    h = b.conv(b.act(b.conv(x, 6, stride=2), "relu"), 6)
    x = b.act(b.sum(h, b.conv(x, 6, 1, stride=2)), "relu")
    assert (
        numbers(b, b.linear(b.reduce(x, "mean", [1, 2], keep=False), 5)).normalized == 1 + 3 * HALF
    )


def test_a_transformer_layer_that_normalizes_behind_its_sums():
    b = Builder()
    x = b.linear(b.input("tc", 3, 4), 4)
    attended = b.linear(b.attention(*(b.linear(x, 4) for _ in range(3)), 2), 4)
    x = b.like("norm", b.sum(x, attended), kind="standard", axes=(1,))
    hidden = b.act(b.linear(x, 5), "relu")
    x = b.like("norm", b.sum(x, b.linear(hidden, 4)), kind="standard", axes=(1,))
    assert numbers(b, x).normalized == HALF


# --- one function in hard spellings: the numbers of the plain ones --------------------------------


def test_one_residual_block():
    # 4 -> 5 -> 4 -> 3: a channel of the sum has 1 + 4 * 5 ways
    b = Builder()
    x = b.input("c", 4)
    total = b.sum(x, b.linear(b.act(b.linear(x, 5), "relu"), 4))
    assert numbers(b, b.linear(total, 3)) == Numbers(252, Fraction(20, 21), HALF, 5)


@pytest.mark.parametrize("how", ["plain", "index", "mean", "frames"])
def test_a_block_behind_a_first_layer_that_reads_channels(how):
    # 4 -> 6 -> (6 -> 8 -> 6) -> 3: 4 * 6 * (1 + 6 * 8) * 3 paths; the first layer reads 4 channels
    b = Builder()
    x = b.input("tc", 5, 4)
    if how == "index":
        x = b.take(x, 0, (4, 3, 2, 1, 0))
    if how == "mean":
        x = b.reduce(x, "mean", [0], keep=False)
    if how == "frames":
        x = b.sum(b.slice(x, 0, 1, 5), b.slice(x, 0, 0, 4), factors=(1, -1))
    h = b.linear(x, 6)
    total = b.sum(h, b.linear(b.act(b.linear(h, 8), "relu"), 6))
    assert numbers(b, b.linear(total, 3)) == Numbers(3528, Fraction(48, 49), HALF, 8)


def test_relu_between_pooling_and_upsampling():
    # per channel h and relu(pool(h)) meet: two predecessors, 3 input channels each
    b = Builder()
    h = b.conv(b.input("chw", 3, 4, 4), 4)
    small = b.act(b.pool(h, "avg", [1, 2], 2, 2), "relu")
    total = b.sum(h, b.upsample(small, "nearest"))
    assert numbers(b, b.conv(total, 2, 1)) == Numbers(48, HALF, HALF, 4)


def test_softmax_in_attention_is_a_pass():
    b = Builder()
    x = b.input("tc", 5, 4)
    attended = b.attention(*(b.linear(x, 4) for _ in range(3)), 1)
    # a value unit has the score (16 + 16 ways) and the value (4); a channel 1 + 4 * 36
    assert numbers(b, b.sum(x, b.linear(attended, 4))) == Numbers(580, Fraction(0), Fraction(0), 0)


def test_h_times_its_softmax_is_a_pass():
    b = Builder()
    h = b.linear(b.input("tc", 5, 4), 5)
    weighted = b.like("product", h, b.like("softmax", h, axis=0))
    assert numbers(b, b.linear(weighted, 3)) == Numbers(60, Fraction(0), Fraction(0), 0)


def test_fourier_features_split_units():
    # 4 inputs, each beside three sines of it: 16 units read by 3
    b = Builder()
    x = b.input("c", 4)
    features = b.cat([x, b.basis(x, "fourier", (1.0, 2.0, 4.0))], 0)
    assert numbers(b, b.linear(features, 3)) == Numbers(48, Fraction(3, 4), Fraction(3, 4), 12)


def test_one_channel_read_by_a_layer():
    b = Builder()
    h = b.act(b.linear(b.slice(b.input("c", 4), 0, 0, 1), 5), "relu")
    assert numbers(b, b.linear(h, 3)) == Numbers(15, Fraction(1), Fraction(1), 5)


def test_weights_that_an_index_gathers():
    b = Builder()
    x = b.input("c", 4)
    h = b.act(b.linear(x, 5, b.linear(x, 3)), "relu")
    assert numbers(b, b.linear(h, 2)) == Numbers(40, Fraction(1), Fraction(1), 5)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0)])
def test_sums_are_flat(order):
    # x, d(x) and b(relu(a(x))): (1 + 4 + 4 * 5) * 4 * 3 paths, one merge of three
    b = Builder()
    x = b.input("c", 4)
    summands = [x, b.linear(x, 4), b.linear(b.act(b.linear(x, 5), "relu"), 4)]
    first, second, third = (summands[i] for i in order)
    total = b.sum(b.sum(first, second), third)
    assert numbers(b, b.linear(total, 3)) == Numbers(300, Fraction(4, 5), Fraction(1, 3), 5)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0)])
def test_functions_of_one_root_meet_first(order):
    # relu(h) + h is one activation, which meets d: 2 * 4 * 5 * 3 paths of which half are active
    b = Builder()
    x = b.input("c", 4)
    h = b.linear(x, 5)
    summands = [b.act(h, "relu"), h, b.linear(x, 5)]
    first, second, third = (summands[i] for i in order)
    total = b.sum(b.sum(first, second), third)
    assert numbers(b, b.linear(total, 3)) == Numbers(120, HALF, HALF, 5)


def test_a_norm_is_a_pass():
    b = Builder()
    x = b.input("c", 4)
    h = b.like("norm", x, kind="l2", axes=(0,))
    total = b.sum(x, b.linear(b.act(h, "relu"), 4))
    assert numbers(b, b.linear(total, 3)) == Numbers(60, Fraction(4, 5), HALF, 4)


def test_a_constant_mask_chooses():
    b = Builder()
    d = b.fill(b.linear(b.input("c", 4), 4), np.array([False, True, False, True]))
    assert numbers(b, b.linear(d, 3)) == Numbers(24, Fraction(0), Fraction(0), 0)


def test_outputs_written_in_a_loop():
    # 3 steps of width 4: 4 * (4 + 16 + 64) paths; the output is one tensor
    b = Builder()
    x, states = b.input("c", 4), []
    for _ in range(3):
        x = b.act(b.linear(x, 4), "relu")
        states.append(x)
    assert numbers(b, b.stack(states)) == Numbers(336, Fraction(19, 7), Fraction(2), 12)


def test_zeros_filled_in_two_parts():
    b = Builder()
    h = b.act(b.linear(b.input("c", 4), 4), "relu")
    assert numbers(b, b.cat([h, b.affine(h, -1.0)], 0)) == Numbers(16, Fraction(1), Fraction(1), 4)


# --- cases of their own ---------------------------------------------------------------------------


def test_a_sum_with_two_readers_is_a_unit():
    # s = x + d(x), width 1; relu(s) makes it a unit: s + e has s and e, and two ways through s
    b = Builder()
    x = b.input("c", 1)
    s = b.sum(x, b.linear(x, 1))
    other = b.sum(s, b.linear(x, 1))
    # F(s) = 2; the sum has relu(s), which meets s first: f(s), and e
    assert numbers(b, b.sum(b.act(s, "relu"), other)) == Numbers(3, Fraction(2, 3), HALF, 1)
    # without the relu the sum of three is flat: the input, both layers
    b = Builder()
    x = b.input("c", 1)
    s = b.sum(x, b.linear(x, 1))
    assert numbers(b, b.sum(b.sum(s, b.linear(x, 1)), s)).paths == 3


def test_a_statistic_is_held_fixed_and_a_window_is_not():
    b = Builder()
    h = b.linear(b.input("tc", 4, 1), 1)
    gate = b.act(b.reduce(h, "mean", [0]), "sigmoid")
    assert numbers(b, b.like("product", h, gate)) == Numbers(1, Fraction(0), Fraction(0), 0)
    b = Builder()
    h = b.linear(b.input("tc", 4, 1), 1)
    gate = b.act(b.pool(h, "avg", [0], 2, 2), "sigmoid")
    product = b.like("product", b.slice(h, 0, 0, 2), gate)
    assert numbers(b, product) == Numbers(2, HALF, HALF, 1)


def test_an_affine_activation_is_linear_and_a_unit():
    b = Builder()
    h = b.act(b.linear(b.input("c", 1), 2), "prelu", np.array([1.0, 0.25]))
    assert numbers(b, h) == Numbers(2, HALF, HALF, 1)
    # relu(h) - relu(-h) is h
    b = Builder()
    h = b.linear(b.input("c", 1), 1)
    parts = [b.act(h, "relu"), b.act(b.affine(h, -1.0), "relu")]
    assert numbers(b, b.sum(*parts, factors=(1, -1))).active == 0


def test_both_signs_of_a_unit_are_two_activations():
    b = Builder()
    h = b.linear(b.input("c", 1), 2)
    both = b.act(b.cat([h, b.affine(h, -1.0)], 0), "relu")
    assert numbers(b, b.linear(both, 1)) == Numbers(4, Fraction(1), Fraction(1), 4)
    same = b.act(b.cat([h, h], 0), "relu")
    assert numbers(b, b.linear(same, 1)) == Numbers(2, Fraction(1), Fraction(1), 2)


def test_open_cases_are_told():
    b = Builder()
    h = b.linear(b.input("tc", 3, 2), 2)
    gram = b.matmul(h, h, "tc", right=True)
    assert answer(b.program(gram)).open_cases == {"a contraction of a tensor with itself"}
    b = Builder()
    h = b.linear(b.input("tc", 3, 2), 2)
    token = b.like("product", b.step(h, 0), b.reduce(h, "mean", [0], keep=False))
    assert answer(b.program(token)).open_cases


@pytest.mark.parametrize(
    ("layout", "read", "features"),
    [
        ("tc", lambda b, x: b.linear(x, 2), (1,)),
        ("tc", lambda b, x: b.linear(b.flatten(x), 2), (0, 1)),
        ("tc", lambda b, x: b.conv(b.swap(x), 2), (1,)),
        ("ct", lambda b, x: b.conv(b.pool(x, "max", [1], 2, 1), 2), (0,)),
        ("ct", lambda b, x: b.act(x, "relu"), (0,)),
    ],
    ids=["linear", "flattened", "convolution", "pooled", "activation"],
)
def test_features_of_inputs(layout, read, features):
    b = Builder()
    program = b.program(read(b, b.input(layout, 3, 4)))
    assert input_features(program, 0) == features


# --- paths listed one by one ----------------------------------------------------------------------


def walks(dag: PathDag, node):
    """All walks from a node back to an input: (chance, length)."""
    own = int(node in dag.active)
    before = dag.before[node]
    if not before:
        yield Fraction(1), own
    for other in before:
        for chance, length in walks(dag, other):
            yield chance / len(before), length + own


def test_numbers_are_those_of_all_paths():
    compared = 0
    for seed in range(60):
        program = draw(Random(seed).choice)
        want = answer(program)
        oracle, outputs = last_pass(program)
        tensors = [units for units in outputs if units]
        if want.numbers.paths > 2000 or not tensors:
            continue
        found = [
            (chance / len(units) / len(tensors), length)
            for units in tensors
            for unit in units
            for chance, length in walks(oracle.dag, unit)
        ]
        compared += 1
        assert sum(chance for chance, _ in found) == 1
        assert want.numbers.paths == len(found)
        assert want.numbers.average == Fraction(sum(n for _, n in found), len(found))
        assert want.numbers.normalized == sum(chance * n for chance, n in found)
    assert compared > 20


# --- the grammar ----------------------------------------------------------------------------------


def test_the_grammar_draws_all_constructs():
    drawn = Counter(name for seed in range(2500) for name in draw(Random(seed).choice).constructs)
    assert len(CONSTRUCTS) >= 60
    assert {*CONSTRUCTS, *STEMS} <= set(drawn)


def test_spellings_of_an_operation_compute_the_same():
    # `spelled` runs all spellings of each operation that apply, and compares their values
    used: Counter[str] = Counter()
    for seed, name in enumerate([*STEMS, *CONSTRUCTS] * 2):
        program = draw_one(Random(seed).choice, name)
        first, *others = spelled(program, parameters(program, seed), 3, Random(seed))
        with torch.no_grad():
            want = first(*example(program))
            for network in others:
                for a, b in zip(want, network(*example(program)), strict=True):
                    assert computes_the_same(a, b), network.rules()
                used.update(rule for rules in network.rules() for rule in rules)
    families = {rule.split(":")[0] for rule in used}
    assert len(families) >= 25
    assert len(used) >= 200
