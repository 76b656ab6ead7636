"""Killed at random moments, all that trains ends bit for bit as what was not disturbed."""

from __future__ import annotations

import pytest

from tests.kills import kill


@pytest.mark.slow
@pytest.mark.parametrize(
    ("subject", "times"), [("train", 4), ("study", 3), ("lightning", 3), ("huggingface", 3)]
)
def test_killed_at_any_moment(tmp_path, subject, times):
    assert kill(subject, tmp_path, times, seed=0).kills == times
