"""Negotiated tunnels: the preferred ASP dies under flows both ways, and is back with new SAs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import capture as wire
from tests.support import failures

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

LAB = "configs/high-availability/lab.yaml"
ROUNDS = 2
RESTART = 0.3

pytestmark = pytest.mark.multiprocess


@pytest.mark.behaviour("B-199", "B-201", "B-202", "B-203")
def test_the_second_tunnel_takes_over_until_the_first_is_negotiated_anew(
    lab_factory: LabFactory, tmp_path: Path
) -> None:
    lab = lab_factory(LAB, settings={"restart-delay": "300ms", "heartbeat-misses": 30})
    captures = [lab.capture("ha", f"port 3/{port}", tmp_path / f"{port}.pcapng") for port in (11, 12)]
    failures.flowing(lab)
    failures.negotiated_asp_killed(lab, ROUNDS, RESTART)
    ledger = failures.at_rest(lab)
    assert failures.has_names(ledger), ledger.to_json()
    for flow in ("forward", "reverse"):
        report = lab.report(flow)
        assert report["corrupted"] == report["duplicated"] == 0
    for port, file in zip((11, 12), captures, strict=True):
        lab.capture_stop("ha", f"port 3/{port}", file)
        assert len(list(wire.packets(file))) > 200
        assert wire.used_twice(file) == []
    assert not any(lab.unexpected(node) for node in ("t1", "t2"))
