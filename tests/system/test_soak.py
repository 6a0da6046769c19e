"""A while under load, with rekeys, kills and replays: the books balance. `make bench` does it for ten minutes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.soak import judged, soak

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

SECONDS = 24


def test_a_while_with_a_kill_every_six_seconds(lab_factory: LabFactory, tmp_path: Path) -> None:
    lab = lab_factory("tests/system/soak.yaml")
    result = soak(lab, tmp_path, SECONDS, rekey_every=1.5, kill_every=6)
    print(result.ledger)
    assert judged(result) == []
    assert result.kills >= 3
    assert result.rekeys >= 5
