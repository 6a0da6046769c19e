"""Faults of wires between real processes are what testers then see."""

from __future__ import annotations

import pytest

from launch.pytest_plugin import LabFactory
from launch.scenario_lab import LabClient

pytestmark = pytest.mark.multiprocess

LAB = "configs/manual-keys/lab.yaml"
FLOW = "economical-forward"
BACK = "economical-reverse"


@pytest.fixture
def lab(lab_factory: LabFactory) -> LabClient:
    flows = {name: {"start": "manual"} for name in ("circuit-forward", "circuit-reverse", BACK)}
    lab = lab_factory(LAB, flows={**flows, FLOW: {"start": "manual", "rate": 1000}})
    lab.wait_until("tunnels up")
    meet(lab)
    return lab


def meet(lab: LabClient) -> None:
    """All neighbours of the way know each other: only 64 packets wait for one that doesn't answer at once."""
    lab.start(BACK, count=5)
    lab.wait_until(f"flow {BACK} received >= 5")


def sent(lab: LabClient, packets: int) -> dict[str, float]:
    """What came of so many packets."""
    lab.start(FLOW, count=packets)
    lab.wait_until(f"flow {FLOW} done")
    lab.drain(FLOW)
    return lab.report(FLOW, final=True)


def test_a_clean_wire_loses_nothing(lab: LabClient) -> None:
    report = sent(lab, 1000)
    assert (report["sent"], report["received"]) == (1000, 1000)
    assert report["lost"] == report["duplicated"] == report["reordered"] == report["corrupted"] == 0
    assert lab.leaks() == {}


def test_loss_is_loss(lab: LabClient) -> None:
    lab.link("a:3/11", loss="20%")
    report = sent(lab, 1000)
    assert 100 < report["lost"] < 300
    assert report["received"] + report["lost"] == 1000
    assert report["loss_ms"] == pytest.approx(report["lost"])


def test_delay_is_delay(lab: LabClient) -> None:
    lab.link("a:3/11", delay="40ms")
    report = sent(lab, 200)
    assert report["lost"] == 0
    assert report["latency"]["min_ms"] >= 40  # type: ignore[index]


def test_what_comes_twice_is_refused_by_the_replay_window(lab: LabClient) -> None:
    lab.link("a:3/11", duplicate="100%")
    report = sent(lab, 500)
    assert (report["received"], report["duplicated"]) == (500, 0)
    asp = lab.node("b").tunnel("economical")["asp"]
    assert lab.counters("b", asp)["drop duplicate"] == 500


def test_reordering_is_seen_and_loses_nothing(lab: LabClient) -> None:
    lab.link("a:3/11", reorder="10%")
    report = sent(lab, 1000)
    assert report["lost"] == 0
    assert 10 < report["reordered"] < 300


def test_a_link_that_is_down_both_ways_and_up_again(lab: LabClient) -> None:
    lab.start(FLOW)
    lab.wait_until(f"flow {FLOW} received >= 50")
    cut = lab.cut("a:3/11")
    lab.wait_until(lambda: lab.clock() > cut + 0.3)
    up = lab.cut("a:3/11", down=False)
    received = lab.report(FLOW)["received"]
    lab.wait_until(f"flow {FLOW} received >= {received + 100}")
    lab.stop(FLOW)
    lab.drain(FLOW)
    # What was under way when the link went down was sent before that.
    report = lab.report(FLOW, since=cut - 0.1, final=True)
    assert report["window_loss_ms"] == pytest.approx((up - cut) * 1e3, abs=200)
    assert report["window_lost"] == report["lost"] > 50


def test_a_rate_holds_back_what_is_too_much(lab: LabClient) -> None:
    lab.link("a:3/11", rate="1M")
    report = sent(lab, 1000)
    assert report["lost"] > 400
    assert report["reordered"] == 0


def test_captured_packets_that_are_sent_in_again_go_nowhere(lab: LabClient) -> None:
    assert lab.folder is not None
    capture = lab.capture("b", "port 3/12", lab.folder / "in.pcapng")
    sent(lab, 200)
    lab.capture_stop("b", "port 3/12", capture)
    assert lab.inject("b:3/12", capture, seconds=5) >= 200
    report = sent(lab, 50)
    assert (report["received"], report["duplicated"]) == (250, 0)
    asp = lab.node("b").tunnel("economical")["asp"]
    counters = lab.counters("b", asp)
    assert counters["drop duplicate"] + counters["drop late"] == 200
    assert lab.leaks() == {}


def test_a_link_of_linux_devices_loses_nothing(lab_factory: LabFactory) -> None:
    lab = lab_factory("tests/chassis/veth.yaml")
    lab.wait_until("tunnels up")
    meet(lab)
    report = sent(lab, 1000)
    assert (report["sent"], report["received"]) == (1000, 1000)
    assert report["duplicated"] == report["reordered"] == report["corrupted"] == 0
    assert lab.leaks() == {}
    lab.link("a:3/11", loss="20%")
    assert 100 < sent(lab, 1000)["lost"] < 300
