"""A spare ASP takes the place of one that is killed and does not come back (S-108)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import capture as wire
from tests.support import failures
from tests.support.sim_moves import LAB, changed_lab

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

FLOWS = ("circuit-forward", "circuit-reverse", "economical-forward", "economical-reverse")

pytestmark = pytest.mark.multiprocess


def test_tunnels_of_both_modes_go_on_at_the_spare(lab_factory: LabFactory, tmp_path: Path) -> None:
    file = changed_lab(tmp_path / "lab", LAB, b=("asp-count 2", "asp-count 1"))
    flows = {name: {"rate": 500} for name in FLOWS}
    lab = lab_factory(file, settings={"restart-delay": "never"}, flows=flows)

    def received() -> list[int]:
        return [lab.report(flow)["received"] for flow in FLOWS]

    def grown(before: list[int]) -> bool:
        return all(now >= old + 100 for now, old in zip(received(), before, strict=True))

    def at(asp: str) -> bool:
        rows = lab.node("b").status()["tunnels"]
        return all(row["asp"] == asp and row["up"] for row in rows)

    lab.wait_until(lambda: at("asp 1/1"))
    lab.wait_until(lambda: grown([0] * len(FLOWS)))
    recorded = tmp_path / "b.pcapng"
    lab.capture("b", "port 4/1", recorded)
    lab.kill("b", "asp 1/1")
    lab.wait_until(lambda: at("asp 1/2"))
    before = received()
    lab.wait_until(lambda: grown(before))
    ledger = failures.at_rest(lab)
    assert failures.has_names(ledger), ledger.to_json()
    lab.capture_stop("b", "port 4/1", recorded)
    assert len(list(wire.packets(recorded))) > 200
    assert wire.used_twice(recorded) == []
    assert all(lab.report(flow)["duplicated"] == 0 for flow in FLOWS)
