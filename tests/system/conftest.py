"""Fixtures of tests with real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import FakeLauncher


@pytest.fixture
def fake(short_folder: Path, request: pytest.FixtureRequest) -> Iterator[FakeLauncher]:
    """A running launcher; dead cards come back after the fixture's parameter, `20ms` where it has none."""
    launcher = FakeLauncher(short_folder, getattr(request, "param", "20ms"))
    yield launcher
    launcher.close()
