"""Networks drawn from a grammar, in several spellings each: one set of numbers, the oracle's.

The oracle is written from the definitions alone. `python -m tests.spelling --networks 5000` does
the same at scale, and reports by construct and by rule what disagrees.
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


@pytest.mark.parametrize("name", sorted({*STEMS, *CONSTRUCTS}))
def test_every_construct_alone(name):
    random = Random(name)
    for _ in range(40):
        program = draw_one(random.choice, name)
        if not answer(program).open_cases:
            assert not disagreements(program, 2, random)
            return
    pytest.skip("every network that was drawn is a case that the definitions leave open")


@settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.data(), st.randoms(use_true_random=False))
def test_every_spelling_has_the_numbers_of_the_definitions(data, random):
    program = draw(lambda options: data.draw(st.sampled_from(list(options))))
    assume(not answer(program).open_cases)
    spellings = Random(random.getrandbits(32))
    assert not disagreements(program, 2, spellings)
