"""Networks drawn from a grammar, each in several spellings: one set of numbers, the oracle's.

`python -m tests.spelling --networks 5000` does the same at scale and reports by kind.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.spelling.constructs import CONSTRUCTS
from tests.spelling.grammar import STEMS, draw, draw_one
from tests.spelling.network import parameters, spelled
from tests.spelling.oracle import answer
from tests.spelling.survey import Disagreement, measured


def disagreements(program, number, random):
    """Spellings of a program whose numbers are not the oracle's, as text."""
    expected = answer(program)
    return [
        str(Disagreement(program, network.rules(), [], expected.numbers, got))
        for network in spelled(program, parameters(program, 0), number, random)
        if (got := measured(network)) != expected.numbers
    ]


@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.data(), st.integers(2, 4), st.randoms(use_true_random=False))
def test_every_spelling_has_the_numbers_of_the_definitions(data, number, random):
    program = draw(lambda options: data.draw(st.sampled_from(list(options))))
    assume(not answer(program).open_cases)
    assert not disagreements(program, number, Random(random.getrandbits(32)))


@pytest.mark.parametrize("name", [*STEMS, *sorted(CONSTRUCTS)])
def test_every_construct_alone(name):
    random = Random(name)
    for _ in range(20):
        program = draw_one(random.choice, name)
        if not answer(program).open_cases:
            assert not disagreements(program, 2, random)
            return
    pytest.fail("every network that was drawn is an open case")
