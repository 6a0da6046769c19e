"""Faults of wires between real processes are what testers then see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from launch.client.lab_client import LabClient
from launch.pytest_plugin import LabFactory
from tests.support import CONFIGS, failures

pytestmark = pytest.mark.multiprocess

LAB = CONFIGS / "manual-keys" / "lab.yaml"
BACK = "economical-reverse"
SHIPPED = ("circuit-forward", "circuit-reverse", "economical-forward", BACK)
FLOWS = [f"flow-{number}" for number in range(10)]
"""Flows by the economical tunnel: a test takes one, as what is told of a flow is of all that it ever sent."""
FLOW = "  {name}: {{from: t1:1, to: t2:1, source: 50.2.0.1, destination: 60.2.0.1, rate: 1000, start: manual}}\n"


class Wire:
    """A lab without any faults, and a flow that has sent nothing yet."""

    def __init__(self, lab: LabClient, flow: str) -> None:
        self.lab = lab
        self.flow = flow
        self._before = self._counted()

    def sent(self, packets: int) -> dict[str, Any]:
        """What came of so many packets more, and of all that the flow had sent before."""
        self.lab.start(self.flow, count=packets)
        self.lab.wait_until(f"flow {self.flow} done")
        self.lab.drain(self.flow)
        return self.lab.report(self.flow, final=True)

    def refused(self) -> int:
        """Packets that the far end's window has refused since this was made."""
        return self._counted() - self._before

    def _counted(self) -> int:
        counters = self.lab.counters("b", self.lab.node("b").tunnel("economical")["asp"])
        return counters.get("drop replayed", 0) + counters.get("drop outside replay window", 0)


def meet(lab: LabClient) -> None:
    """All neighbours of the way know each other: only 64 packets wait for one that doesn't answer at once."""
    lab.start(BACK, count=5)
    lab.wait_until(f"flow {BACK} received >= 5")


@pytest.fixture(scope="module")
def shared(shared_lab_factory: LabFactory) -> Iterator[Wire]:
    text = LAB.read_text().rstrip() + "\n" + "".join(FLOW.format(name=name) for name in FLOWS)
    files = {file.name: file.read_text() for file in LAB.parent.glob("*.cfg")}
    lab = shared_lab_factory.text(text, files, flows={name: {"start": "manual"} for name in SHIPPED})
    lab.wait_until("tunnels up")
    meet(lab)
    return (Wire(lab, flow) for flow in FLOWS)


@pytest.fixture
def wire(shared: Iterator[Wire]) -> Iterator[Wire]:
    made = next(shared)
    yield made
    made.lab.link("a:3/11", clear=True)


def test_a_clean_wire_loses_nothing(wire: Wire) -> None:
    report = wire.sent(1000)
    assert (report["sent"], report["received"]) == (1000, 1000)
    assert report["lost"] == report["duplicated"] == report["reordered"] == report["corrupted"] == 0
    assert wire.lab.unexpected() == {}


def test_loss_is_loss(wire: Wire) -> None:
    wire.lab.link("a:3/11", loss="20%")
    report = wire.sent(1000)
    assert 100 < report["lost"] < 300
    assert report["received"] + report["lost"] == 1000
    assert report["loss_ms"] == pytest.approx(report["lost"])


def test_delay_is_delay(wire: Wire) -> None:
    wire.lab.link("a:3/11", delay="40ms")
    report = wire.sent(200)
    assert report["lost"] == 0
    assert report["latency"]["min_ms"] >= 40


def test_what_comes_twice_is_refused_by_the_replay_window(wire: Wire) -> None:
    wire.lab.link("a:3/11", duplicate="100%")
    report = wire.sent(500)
    assert (report["received"], report["duplicated"]) == (500, 0)
    assert wire.refused() == 500


def test_reordering_is_seen_and_loses_nothing(wire: Wire) -> None:
    wire.lab.link("a:3/11", reorder="10%")
    report = wire.sent(1000)
    assert report["lost"] == 0
    assert 10 < report["reordered"] < 300


def test_a_link_that_is_down_both_ways_and_up_again(wire: Wire) -> None:
    lab, flow = wire.lab, wire.flow
    lab.start(flow)
    lab.wait_until(f"flow {flow} received >= 50")
    cut = lab.link_down("a:3/11")
    lab.wait_until(lambda: lab.clock() > cut + 0.3)
    lab.link_down("a:3/11", down=False)
    received = lab.report(flow)["received"]
    lab.wait_until(f"flow {flow} received >= {received + 100}")
    lab.stop(flow)
    lab.drain(flow)
    # What was under way when the link went down was sent before that.
    report = lab.report(flow, since=cut - 0.1, final=True)
    assert report["window_lost"] == report["lost"] > 50
    ledger = failures.at_rest(lab)
    assert failures.has_names(ledger), ledger.to_json()


def test_a_rate_holds_back_what_is_too_much(wire: Wire) -> None:
    wire.lab.link("a:3/11", rate="1M")
    report = wire.sent(1000)
    assert report["lost"] > 400
    assert report["reordered"] == 0


def test_captured_packets_that_are_sent_in_again_go_nowhere(wire: Wire) -> None:
    assert wire.lab.folder is not None
    capture = wire.lab.capture("b", "port 3/12", wire.lab.folder / "in.pcapng")
    wire.sent(200)
    wire.lab.capture_stop("b", "port 3/12", capture)
    assert wire.lab.inject("b:3/12", capture, seconds=5) >= 200
    report = wire.sent(50)
    assert (report["received"], report["duplicated"]) == (250, 0)
    assert wire.refused() == 200
    assert wire.lab.unexpected() == {}


def test_a_link_of_linux_devices_loses_nothing(lab_factory: LabFactory) -> None:
    lab = lab_factory("tests/system/veth.yaml")
    lab.wait_until("tunnels up")
    meet(lab)
    wire = Wire(lab, "economical-forward")
    report = wire.sent(1000)
    assert (report["sent"], report["received"]) == (1000, 1000)
    assert report["duplicated"] == report["reordered"] == report["corrupted"] == 0
    assert lab.unexpected() == {}
    lab.link("a:3/11", loss="20%")
    assert 100 < wire.sent(1000)["lost"] < 300
