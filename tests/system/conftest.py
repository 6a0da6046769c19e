"""Fixtures of tests with real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import StandIn


@pytest.fixture
def stand_in(short_folder: Path, request: pytest.FixtureRequest) -> Iterator[StandIn]:
    """A running launcher; dead cards come back after the fixture's parameter, `20ms` where it has none."""
    launcher = StandIn(short_folder, getattr(request, "param", "20ms"))
    yield launcher
    launcher.close()
