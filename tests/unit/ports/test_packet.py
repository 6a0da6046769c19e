"""A packet port whose far end makes no faults makes those of both directions, and accounts for every frame."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest

from chassis.bus.batch import Batch, Step, pack
from chassis.bus.counters import Counters
from chassis.bus.environment import WireSpec
from chassis.bus.loop import Loop
from chassis.bus.operator import OperatorError
from chassis.ports.packet import PacketPort
from launch.client.accounting import account_for
from launch.client.lab_client import LabClient
from launch.lab.parser import load

FRAMES = [bytes((number,)) * 60 for number in range(200)]
CARD = "lc 3"


class Port:
    """A port, and the device at the other end of its socket."""

    def __init__(self, far_seed: int | None) -> None:
        # It keeps frames apart as a packet socket does.
        ours, self.device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.device.setblocking(False)
        self.counters = Counters()
        self.came: list[bytes] = []
        self.captured: list[str] = []
        self.carrier: list[bool] = []
        self.driver = PacketPort(
            Loop(),
            "3/1",
            WireSpec("packet", fd=ours.detach(), seed=5, far_seed=far_seed),
            self.counters,
            lambda port, batch, now: self.came.extend(map(bytes, batch.packets())),
            lambda port, up, now: self.carrier.append(up),
        )
        self.driver.tap = lambda way, batch: self.captured.extend([way] * len(batch.lengths))

    def send(self, frames: list[bytes], now: float = 0.0) -> list[bytes]:
        """What the device gets of it."""
        for at in range(0, len(frames), 50):
            self.driver.transmit(Batch(Step.INGRESS, *pack(frames[at : at + 50])), now)
        return self.got()

    def got(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self.device.recv(2000))
            except BlockingIOError:
                return found

    def receive(self, frames: list[bytes], now: float = 0.0) -> list[bytes]:
        """What the process gets of what the device sends."""
        self.came.clear()
        for at in range(0, len(frames), 50):
            for frame in frames[at : at + 50]:
                self.device.send(frame)
            self.driver._on_readable(now)
        return list(self.came)

    def count(self, what: str) -> int:
        return self.counters.get(f"port 3/1 {what}")

    def close(self) -> None:
        ours = self.driver._socket.fileno()
        self.driver.close()
        socket.close(ours)
        self.device.close()


@pytest.fixture
def linux() -> Iterator[Port]:
    port = Port(far_seed=7)
    yield port
    port.close()


def test_without_faults_everything_passes(linux: Port) -> None:
    assert linux.send(FRAMES) == linux.receive(FRAMES) == FRAMES
    assert (linux.count("frames sent"), linux.count("frames received")) == (200, 200)
    assert linux.driver.next_timer() == inf


def test_each_direction_has_faults_and_random_numbers_of_its_own(linux: Port) -> None:
    assert linux.driver.set_impairment({"loss": "30%"}, 0.0, far=True) == {"loss": 0.3}
    assert linux.send(FRAMES) == FRAMES
    came = linux.receive(FRAMES)
    assert 100 < len(came) < 180
    assert linux.count("impairment loss") == 200 - len(came)
    assert linux.captured.count("in") == len(came)
    assert linux.driver.set_impairment({"loss": "30%"}, 0.0) == {"loss": 0.3}
    assert linux.send(FRAMES) != came
    again = Port(far_seed=7)
    again.driver.set_impairment({"loss": "30%"}, 0.0, far=True)
    assert again.receive(FRAMES) == came
    again.close()


def test_a_delay_of_what_comes_is_waited_for(linux: Port) -> None:
    linux.driver.set_impairment({"delay": "20ms"}, 0.0, far=True)
    assert linux.receive(FRAMES[:5], 1.0) == []
    assert linux.driver.next_timer() == pytest.approx(1.02)
    linux.driver.on_timer(1.01)
    assert linux.came == []
    linux.driver.on_timer(1.03)
    assert linux.came == FRAMES[:5]


def test_a_device_that_is_down_takes_and_gives_nothing_and_this_end_keeps_its_carrier(linux: Port) -> None:
    linux.driver.set_impairment({"down": True}, 0.0, far=True)
    assert linux.send(FRAMES[:7]) == linux.receive(FRAMES[:5]) == []
    assert linux.driver.carrier
    assert linux.carrier == []
    assert (linux.count("drop down"), linux.count("impairment down")) == (7, 5)
    linux.driver.set_impairment({"clear": True}, 0.0, far=True)
    assert linux.send(FRAMES[:7]) == FRAMES[:7]


def test_every_frame_is_accounted_for(linux: Port) -> None:
    for settings in ({"loss": "20%", "duplicate": "10%"}, {"down": True}):
        for ends in ((False,), (True,), (False, True)):
            for far in ends:
                linux.driver.set_impairment(settings, 0.0, far=far)
            linux.receive(FRAMES)
            # What it got went on to other cards, and what it sent had come from them.
            linux.counters.add("fabric sent", len(linux.came))
            linux.send(FRAMES)
            linux.counters.add("fabric received", len(FRAMES))
            for far in ends:
                linux.driver.set_impairment({"clear": True}, 0.0, far=far)
    values = dict(linux.counters.items())
    ledger = account_for({"r": "smartedge", "h": "linux"}, [("r:3/1", "h:eth1")], {"r": {CARD: values}}, [])
    assert (
        min(
            values["port 3/1 impairment loss"],
            values["port 3/1 impairment duplicate"],
            values["port 3/1 drop down"],
        )
        > 0
    )
    assert f"r {CARD}" not in ledger.unexplained


def test_where_both_ends_are_ports_each_makes_its_own() -> None:
    port = Port(far_seed=None)
    with pytest.raises(ValueError, match="makes its own faults: ask there"):
        port.driver.set_impairment({"loss": 1}, 0.0, far=True)
    port.driver.set_impairment({"loss": 1}, 0.0)
    assert (port.send(FRAMES), port.receive(FRAMES)) == ([], FRAMES)
    port.close()


LAB = """\
name: ends
topology:
  nodes:
    t: {kind: tester, ports: {"1": {address: 10.0.0.1/24}}}
    h: {kind: linux}
    g: {kind: linux}
  links: [{endpoints: ["t:1", "h:eth1"]}, {endpoints: ["h:eth2", "g:eth1"]}]
"""


def test_a_scenario_may_name_the_linux_end_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(LAB)
    asked: list[tuple[str, dict[str, Any]]] = []

    def ask(node: str, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        asked.append((node, arguments))
        return {}

    lab = LabClient(load(tmp_path / "lab.yaml")[0], ask, tmp_path)  # type: ignore[arg-type]
    lab.link("h:eth1", loss="1%")
    lab.link_down("t:1")
    assert asked == [
        ("t", {"port": "1", "loss": "1%", "far": True}),
        ("t", {"port": "1", "down": True}),
        ("t", {"port": "1", "down": True, "far": True}),
    ]
    with pytest.raises(OperatorError, match="no end is a port of a router or tester"):
        lab.link("g:eth1", loss="1%")
