"""Whole routers whose ASPs have a rate, under the simulator: packets wait through kills, stalls and commits."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis.ase.queues import DequeuedBatch, Queues
from launch.simulate import campaign, model
from tests.support import CONFIGS

LAB = CONFIGS / "simulate" / "lab.yaml"


def limited(folder: Path, rate: str) -> Path:
    """The lab with a rate of its ASPs."""
    lab = folder / "lab.yaml"
    text = LAB.read_text().replace("config: ", f"config: {LAB.parent}/")
    lab.write_text(f"{text}\nsettings: {{asp-rate: {rate}}}\n")
    return lab


def test_schedules_pass_while_packets_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []
    take = Queues.dequeue

    def watched(self: Queues, now: float) -> DequeuedBatch | None:
        waited.append(self.waiting)
        return take(self, now)

    monkeypatch.setattr(Queues, "dequeue", watched)
    lab = limited(tmp_path, "500pps")
    for outcome in campaign(model(lab), range(1, 2), workers=1):
        assert outcome.passed, outcome
        assert outcome.kills + outcome.stops >= 15
        assert outcome.protected > outcome.sent // 4
    assert max(waited) > 50, "more came at times than the ASPs can do"


def test_a_run_with_queues_is_repeated_from_its_seed(tmp_path: Path) -> None:
    lab = limited(tmp_path, "1M")
    first, second = (list(campaign(model(lab), [7], 1.0, workers=1)) for _ in range(2))
    assert [str(one) for one in first] == [str(one) for one in second]
