"""A line card dies, or the controller: what had another way goes on, and what is right is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import capture as wire
from tests.support import failures, lab_files

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

LINE_CARDS = "configs/line-cards/lab.yaml"
ROUNDS = 2
TUNNELS = 1000

pytestmark = pytest.mark.multiprocess


def test_a_line_card_dies_under_three_kinds_of_tunnels(lab_factory: LabFactory, tmp_path: Path) -> None:
    # Patient: a crowded machine must not make a card look dead that was not killed.
    lab = lab_factory(LINE_CARDS, settings={"restart-delay": "300ms", "heartbeat-misses": 100})
    capture = lab.capture("a", "port 5/1", tmp_path / "5.pcapng")
    failures.line_card_killed(lab, ROUNDS)
    ledger = failures.at_rest(lab)
    assert failures.has_names(ledger), ledger.to_json()
    other = lab.report("other", final=True)
    # None on a quiet machine; a crowded one may drop a few of any flow, never as many as a kill costs.
    assert other["lost"] * 50 <= other["sent"], ledger.to_json()
    lab.capture_stop("a", "port 5/1", capture)
    assert wire.clear(capture) == []
    assert wire.used_twice(capture) == []


def test_the_controller_dies_with_a_thousand_tunnels_and_traffic(lab_factory: LabFactory, tmp_path: Path) -> None:
    used = [0, 1, 500, 999]
    lab = lab_factory(
        # No card fences itself because a crowded machine leaves its controller no time.
        lab_files.written(tmp_path, TUNNELS, used, rate=100),
        settings={"restart-delay": "100ms", "heartbeat-misses": 30},
    )
    lab.wait_until("tunnels up")
    flows = [f"{way}{number}" for number in used for way in ("forward", "reverse")]
    lab.start(*flows)
    for flow in flows:
        lab.wait_until(f"flow {flow} received >= 100")
    began = lab.clock()
    before = {node: failures.standing(lab, node) for node in ("a", "b")}
    assert len(before["a"]["tunnels"]) == TUNNELS
    failures.controller_killed(lab, "a", ROUNDS)
    lab.stop(*flows)
    lab.drain(*flows)
    assert {node: failures.standing(lab, node) for node in ("a", "b")} == before
    for flow in flows:
        report = lab.report(flow, final=True, since=began)
        assert (report["window_lost"], report["duplicated"], report["reordered"]) == (0, 0, 0), flow
