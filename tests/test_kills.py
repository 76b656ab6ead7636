"""Killed at random moments, runs and studies end bit for bit as undisturbed ones."""

from __future__ import annotations

import pytest

from tests.kills import kill_runs, kill_studies


@pytest.mark.slow
def test_runs_that_are_killed(tmp_path):
    assert kill_runs(tmp_path, 6, seed=0).kills == 6


@pytest.mark.slow
def test_studies_that_are_killed(tmp_path):
    assert kill_studies(tmp_path, 2, seed=0).kills == 2
