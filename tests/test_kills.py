"""Killed at random moments, runs end bit for bit as undisturbed ones."""

from __future__ import annotations

import pytest

from tests.kills import kill_runs


@pytest.mark.slow
def test_runs_that_are_killed(tmp_path):
    assert kill_runs(tmp_path, 6, seed=0).kills == 6
