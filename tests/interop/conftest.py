"""The rig of the interop tests: one for each test process, started when the first test wants it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.charon import PROGRAM, require
from tests.support.charon_rig import Rig


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    require(PROGRAM)
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig.build(Path(folder))
        yield rig
        rig.close()
