"""Networks drawn from a grammar have the numbers of an oracle written from the definitions alone.

`python -m tests.spelling --networks 5000` writes each network in several spellings as well, and
reports by construct and by rule what disagrees.
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

# What oracle and lowering see in different ways, all of it in docs/choices.md: a named activation
# begins a unit of its own; a bilinear layer is a contraction; channels that are flipped are another
# tensor as a whole.
SEEN_OTHERWISE = {"basis hat", "bilinear", "channels flipped"}


def disagreements(program):
    """The plain spelling of a program if its numbers are not the oracle's, as text."""
    expected = answer(program)
    return [
        str(Disagreement(program, network.rules(), [], expected.numbers, got))
        for network in spelled(program, parameters(program, 0), 1, Random(0))
        if (got := measured(network)) != expected.numbers
    ]


@pytest.mark.parametrize("name", sorted({*STEMS, *CONSTRUCTS} - SEEN_OTHERWISE))
def test_every_construct_alone(name):
    random = Random(name)
    for _ in range(20):
        program = draw_one(random.choice, name)
        if not answer(program).open_cases:
            assert not disagreements(program)
            return
    pytest.fail("every network that was drawn is an open case")


@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.data())
def test_networks_have_the_numbers_of_the_definitions(data):
    program = draw(lambda options: data.draw(st.sampled_from(list(options))))
    assume(not answer(program).open_cases)
    assume(not SEEN_OTHERWISE & set(program.constructs))
    assert not disagreements(program)
