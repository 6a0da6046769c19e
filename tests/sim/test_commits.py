"""Random commits at a simulated router with a hundred tunnels: what they do not touch does not notice them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.random_commits import RandomCommits

TUNNELS = 100
COMMITS = 20


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_commits(seed: int, tmp_path: Path) -> None:
    """Three runs of twenty, so that they go to different workers."""
    router = RandomCommits(tmp_path, TUNNELS, seed)
    router.steps(COMMITS)
    router.same_as(router.fresh())
