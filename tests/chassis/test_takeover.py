"""An ASP dies, hangs, comes back: the second tunnel takes over, nothing leaves in clear, traffic returns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import lab_wire as wire
import pytest
from lab_bounds import within

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory
    from launch.scenario_lab import LabClient

LAB = "configs/high-availability-manual/lab.yaml"
ROUNDS = 10
RESTART = 1.0
"""Seconds after which the launcher starts a dead card again (S-112)."""

pytestmark = pytest.mark.multiprocess


def flowing(lab: LabClient) -> None:
    """Both flows run, the forward one by the preferred tunnel."""
    lab.wait_until("tunnels up")
    lab.start("forward", "reverse")
    lab.wait_until("flow forward via ha asp 2/1")
    lab.wait_until("flow reverse received >= 100")


@pytest.mark.alone
def test_the_second_tunnel_takes_over_from_a_killed_asp_and_gives_back(
    lab_factory: LabFactory, tmp_path: Path
) -> None:
    lab = lab_factory(LAB)
    ports = ("port 3/11", "port 3/12")
    captures = [lab.capture("ha", what, tmp_path / f"{index}.pcapng") for index, what in enumerate(ports)]
    flowing(lab)
    moved, returned, reverse = [], [], []
    for _ in range(ROUNDS):
        reordered = lab.report("forward")["reordered"]
        killed = lab.kill("ha", "asp 2/1")
        lab.wait_until(lambda killed=killed: _took(lab, "ha 2/2 protect", killed))
        lab.wait_until("tunnel Tun-1 of ha up")
        back = lab.clock()
        lab.wait_until(lambda back=back: _took(lab, "ha 2/1 protect", back))
        settled = lab.clock()
        lab.wait_until(lambda settled=settled: lab.report("forward", since=settled)["received"] > 0)
        lab.wait_until(lambda settled=settled: lab.clock() > settled + 0.3)
        half = killed + RESTART / 2
        moved.append(lab.report("forward", since=killed - 0.05, until=half)["window_loss_ms"])
        after = lab.report("forward", since=half)
        returned.append(after["window_lost"] + after["reordered"] - reordered)
        took = (settled - killed) * 1000
        reverse.append(lab.report("reverse", since=killed - 0.05)["window_loss_ms"] - took)
    for flow in ("forward", "reverse"):
        report = lab.report(flow)
        assert report["corrupted"] == report["duplicated"] == 0
    for what, file in zip(ports, captures, strict=True):
        lab.capture_stop("ha", what, file)
        assert len(list(wire.packets(file))) > 1000
        assert wire.clear(file) == []
        assert wire.used_twice(file) == []
    assert not any(lab.leaks(node) for node in ("t1", "t2"))
    within("forward loss when the preferred ASP is killed", moved, 50)
    within("forward packets lost or reordered on the way back", returned, 5, "packets")
    print("\nreverse loss less the time until traffic was back, ms:", [round(value) for value in reverse])
    assert max(reverse) <= 0


def _took(lab: LabClient, step: str, since: float) -> bool:
    """Whether a traced packet of the forward flow that was sent since then arrived by way of this step."""
    return any(step in path.steps for path in lab.paths("forward", since) if path.arrived)


@pytest.mark.alone
def test_the_second_tunnel_takes_over_from_a_hung_asp(lab_factory: LabFactory) -> None:
    lab = lab_factory(LAB)
    flowing(lab)
    lost = []
    for _ in range(ROUNDS):
        stopped = lab.stop_card("ha", "asp 2/1")
        lab.wait_until(lambda stopped=stopped: _took(lab, "ha 2/2 protect", stopped))
        # One that stays hung is killed and started again.
        lab.wait_until("tunnel Tun-1 of ha up")
        back = lab.clock()
        lab.wait_until(lambda back=back: _took(lab, "ha 2/1 protect", back))
        lost.append(lab.report("forward", since=stopped - 0.05, until=back)["window_loss_ms"])
    within("forward loss when the preferred ASP hangs", lost, 800)


def test_a_hung_asp_that_goes_on_after_it_was_given_up_sends_nothing_old(
    lab_factory: LabFactory, tmp_path: Path
) -> None:
    lab = lab_factory(LAB)
    capture = lab.capture("ha", "port 3/11", tmp_path / "out.pcapng")
    flowing(lab)
    for _ in range(3):
        stopped = lab.stop_card("ha", "asp 2/1")
        lab.wait_until(lambda stopped=stopped: lab.clock() >= stopped + 0.7)
        before = max((seen.number for seen in wire.packets(capture) if seen.way == "out" and seen.spi), default=0)
        assert not lab.node("ha").card("asp 2/1")["usable"]
        epoch = lab.node("ha").card("asp 2/1")["epoch"]
        lab.continue_card("ha", "asp 2/1")
        lab.wait_until("tunnel Tun-1 of ha up")
        lab.wait_until(lambda: lab.node("ha").card("asp 2/1")["usable"])
        admitted = lab.clock()
        assert lab.node("ha").card("asp 2/1")["epoch"] >= epoch
        lab.wait_until(lambda admitted=admitted: _took(lab, "ha 2/1 protect", admitted))
        # What waited at the hung process was dropped by it, and what it had on the way by its receivers.
        assert before > 0
    lab.stop("forward", "reverse")
    lab.drain("forward", "reverse")
    assert lab.counters("ha", "asp 2/1").get("drop fenced", 0) > 0
    assert lab.report("forward", final=True)["duplicated"] == 0
    assert wire.used_twice(capture) == []
    assert wire.clear(capture) == []
