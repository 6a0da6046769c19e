"""A line card dies, or the controller: what had another way goes on, and what is right is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lab_many
import lab_wire as wire
import pytest
from lab_bounds import within

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory
    from launch.scenario_lab import LabClient

LINE_CARDS = "configs/line-cards/lab.yaml"
FLOWS = ("economical", "circuit", "other")
ROUNDS = 10
TUNNELS = 1000

pytestmark = pytest.mark.multiprocess


@pytest.mark.alone
def test_a_line_card_dies_under_three_kinds_of_tunnels(lab_factory: LabFactory, tmp_path: Path) -> None:
    lab = lab_factory(LINE_CARDS)
    capture = lab.capture("a", "port 5/1", tmp_path / "5.pcapng")
    lab.wait_until("tunnels up")
    lab.start(*FLOWS)
    for flow in FLOWS:
        lab.wait_until(f"flow {flow} received >= 100")
    economical, circuit, other = [], [], []
    for _ in range(ROUNDS):
        before = lab.node("a").tunnel("circuit")
        assert before["home"] == "lc 4"
        killed = lab.kill("a", "lc 4")
        lab.wait_until(lambda: lab.node("a").tunnel("circuit")["home"] == "lc 5")
        lab.wait_until("tunnel circuit of a up")
        moved = lab.node("a").tunnel("circuit")
        assert moved["circuit"] not in (0, before["circuit"])
        circuit.append((lab.clock() - killed) * 1000)
        half = lab.clock()
        economical.append(lab.report("economical", since=killed - 0.05, until=half)["window_loss_ms"])
        lab.wait_until(lambda: lab.node("a").tunnel("circuit")["home"] == "lc 4")
        lab.wait_until("tunnels up")
        settled = lab.clock()
        for flow in FLOWS:
            lab.wait_until(lambda flow=flow, settled=settled: _arrives(lab, flow, settled))
        other.append(lab.report("other", since=killed - 0.05)["window_lost"])
        said = [event["text"] for event in lab.events(killed)]
        assert (
            f"tunnel circuit: circuit {moved['circuit']} on lc 5 in place of {before['circuit']} on lc 4" in said
        )
    lab.capture_stop("a", "port 5/1", capture)
    assert wire.clear(capture) == []
    assert wire.used_twice(capture) == []
    within("economical tunnel: forward loss when its line card is killed", economical, 50)
    within("circuit-based tunnel: time until its circuit is made on another line card", circuit, 500)
    assert other == [0] * ROUNDS


def _arrives(lab: LabClient, flow: str, since: float) -> bool:
    report = lab.report(flow, since=since)
    return lab.clock() > since + 0.3 and bool(report["window_lost"] < 50) and report["window_gap_ms"] < 250


def standing(lab: LabClient, node: str) -> dict[str, Any]:
    """What a controller's death must not change."""
    status = lab.node(node).status()
    return {
        "cards": {row["card"]: (row["boot"], row["epoch"], row["usable"]) for row in status["cards"]},
        "circuits": sorted(map(str, status["circuits"])),
        "tunnels": {
            row["name"]: (row["number"], row["circuit"], row["home"], row["asp"], row["up"])
            for row in status["tunnels"]
        },
    }


@pytest.mark.alone
def test_the_controller_dies_with_a_thousand_tunnels_and_traffic(lab_factory: LabFactory) -> None:
    used = [0, 1, 500, 999]
    lab = lab_factory.text(
        lab_many.lab(used),
        {"a.cfg": lab_many.router(True, TUNNELS), "b.cfg": lab_many.router(False, TUNNELS)},
    )
    lab.wait_until("tunnels up")
    flows = [f"{way}{number}" for number in used for way in ("forward", "reverse")]
    lab.start(*flows)
    for flow in flows:
        lab.wait_until(f"flow {flow} received >= 100")
    began = lab.clock()
    before = {node: standing(lab, node) for node in ("a", "b")}
    assert len(before["a"]["tunnels"]) == TUNNELS
    boot = lab.node("a").status()["boot"]
    times = []
    for round_ in range(3):
        killed = lab.kill("a", "xcrp")
        lab.wait_until(lambda round_=round_: lab.node("a").status()["boot"] == boot + round_ + 1)
        lab.wait_until(lambda: standing(lab, "a") == before["a"])
        times.append(lab.clock() - killed)
        events = [event["text"] for event in lab.node("a").status()["events"]]
        assert not [text for text in events if text.startswith("tunnel")], events
    print("\nuntil the new controller knew everything again, s:", [round(value, 2) for value in times])
    lab.stop(*flows)
    lab.drain(*flows)
    assert {node: standing(lab, node) for node in ("a", "b")} == before
    for flow in flows:
        report = lab.report(flow, final=True, since=began)
        assert (report["window_lost"], report["duplicated"], report["reordered"]) == (0, 0, 0), flow
