"""Fixtures of the launcher's tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from launch_kit import StandIn


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="ch-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def stand_in(short_folder: Path, request: pytest.FixtureRequest) -> Iterator[StandIn]:
    """A running launcher; dead cards come back after the fixture's parameter, `20ms` where it has none."""
    launcher = StandIn(short_folder, getattr(request, "param", "20ms"))
    yield launcher
    launcher.close()
