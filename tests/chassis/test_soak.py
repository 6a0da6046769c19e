"""A minute under load, with rekeys, kills and replays: the books balance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from soaking import judged, soak

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

SECONDS = 60


def test_a_minute_with_a_kill_every_ten_seconds(lab_factory: LabFactory, tmp_path: Path) -> None:
    lab = lab_factory("tests/chassis/soak.yaml")
    result = soak(lab, tmp_path, SECONDS, rekey_every=2, kill_every=10)
    print(result.ledger)
    assert judged(result) == []
    assert result.kills >= 4
    assert result.rekeys >= 10
