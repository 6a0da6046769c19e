"""A service of one router asks a service of another in the simulator: by ports and tunnels, and after deaths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from chassis.bus.batch import Batch
from chassis.bus.engine import Output
from chassis.bus.messages import Datagram
from chassis.net.address import parse_address as ip
from chassis.sim.lab import Run
from chassis.sim.node import ControllerStart, NodeModel
from chassis.sim.wires import WireEnd
from chassis.xcrp.engine import ControllerEngine
from chassis.xcrp.leaving_card import UnreachableError
from launch.simulate import model
from tests.support import CONFIGS

MODEL = model(CONFIGS / "line-cards" / "lab.yaml")
PORT, ASKING = 1812, 1645

PLAIN, OTHER_PORT = ("wan", "172.16.4.2"), ("wan", "172.16.5.2")
TUNNEL_END = ("wan", "9.9.2.1")
"""An address at which an ASP of router b terminates IPsec."""
ECONOMICAL, CIRCUIT = ("lan", "192.168.1.2"), ("lan", "192.168.2.2")


class Lab:
    """Two routers with three line cards each. Router b answers what it is asked, router a asks."""

    def __init__(self) -> None:
        self.asked: list[Datagram] = []
        """What router b heard."""
        self.heard: list[Datagram] = []
        """What router a heard."""
        self.between: list[bytes] = []
        """What the wires between the routers carried."""
        nodes = tuple(self._serving(node) for node in MODEL.nodes)
        # Of this seed every message on the bus is encoded and decoded.
        self.run = Run(replace(MODEL, nodes=nodes), 8)
        self.a, self.b = self.run.nodes
        for end in self.run.between:
            end.tap = self.look
        self.run.boot()
        self.wait(4.0)

    def _serving(self, node: NodeModel) -> NodeModel:
        make = node.controller

        def controller(start: ControllerStart) -> ControllerEngine:
            engine: ControllerEngine = make(start)
            if node.name == "a":
                engine.state.udp.listen(ASKING, self.hear)
            else:
                engine.state.udp.listen(PORT, partial(self.answer, engine))
            return engine

        return replace(node, controller=controller)

    def look(self, end: WireEnd, batch: Batch) -> None:
        self.between.append(bytes(batch.body))

    def wait(self, seconds: float) -> None:
        self.run.world.run(self.run.world.now + seconds)

    def hear(self, datagram: Datagram, now: float) -> list[Output]:
        self.heard.append(datagram)
        return []

    def answer(self, engine: ControllerEngine, datagram: Datagram, now: float) -> list[Output]:
        self.asked.append(datagram)
        back = (datagram.context, datagram.source, datagram.source_port)
        answers = [b"answer to " + datagram.payload]
        return engine.state.udp.send(*back, PORT, answers, now, source=datagram.destination)

    def ask(self, way: tuple[str, str], *payloads: bytes) -> list[bytes]:
        """Ask router b at an address, and return what it answers in a second."""
        number = self.send(way, *payloads)
        self.wait(1.0)
        assert all(datagram.source == ip(way[1]) and datagram.context == number for datagram in self.heard)
        return [datagram.payload for datagram in self.heard]

    def send(self, way: tuple[str, str], *payloads: bytes) -> int:
        """Send to router b from a context, and return its number."""
        self.heard.clear()
        self.between.clear()
        controller = self.a.controller
        assert controller is not None
        engine: Any = controller.engine
        number: int = engine.node.plan.contexts[way[0]]
        outputs = engine.state.udp.send(number, ip(way[1]), PORT, ASKING, payloads, self.run.world.now)
        controller.perform(outputs)
        return number

    def answered(self, way: tuple[str, str]) -> bool:
        """Whether an answer comes, now or to one of a few more tries: ARP may take the first."""
        return any(self.tries(way, 5))

    def tries(self, way: tuple[str, str], count: int) -> Iterator[bool]:
        for number in range(count):
            try:
                yield self.ask(way, b"question %d" % number) == [b"answer to question %d" % number]
            except UnreachableError:
                self.wait(1.0)

    def in_clear(self, text: bytes) -> bool:
        return any(text in frame for frame in self.between)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


@pytest.mark.parametrize(("way", "clear"), [
    (PLAIN, True), (OTHER_PORT, True), (TUNNEL_END, True), (ECONOMICAL, False), (CIRCUIT, False),
])  # fmt: skip
def test_questions_and_answers_by_each_way(lab: Lab, way: tuple[str, str], clear: bool) -> None:
    assert lab.answered(way)
    questions = b"question one", b"question two", b"long question " + bytes(range(256)) * 12
    assert lab.ask(way, *questions) == [b"answer to " + question for question in questions]
    assert lab.between
    assert lab.in_clear(b"question one") is clear


@pytest.mark.parametrize("way", [PLAIN, ECONOMICAL, CIRCUIT])
def test_the_next_process_of_a_card_or_a_controller_goes_on(lab: Lab, way: tuple[str, str]) -> None:
    assert lab.answered(way)
    for victim in ("lc 4", "asp 1/1", "asp 1/2", "xcrp"):
        for node in (lab.a, lab.b):
            process = node.controller if victim == "xcrp" else node.cards[victim]
            assert process is not None
            process.kill()
            lab.wait(4.0)
            assert lab.answered(way), f"{victim} of {node.model.name}"


def test_tunnels_go_on_by_the_other_line_card() -> None:
    lab = Lab()
    for way in (PLAIN, ECONOMICAL, CIRCUIT):
        assert lab.answered(way)
    lab.a.model = replace(lab.a.model, restart_delay=None)
    lab.a.cards["lc 4"].kill()
    lab.wait(1.0)
    for way in (ECONOMICAL, CIRCUIT):
        assert lab.answered(way)
    with pytest.raises(UnreachableError):
        lab.ask(PLAIN, b"question")


def test_what_comes_while_no_controller_runs_is_dropped(lab: Lab) -> None:
    assert lab.answered(PLAIN)
    (asked,) = lab.asked[-1:]
    assert lab.a.controller is not None
    assert lab.b.controller is not None
    lab.a.controller.kill()
    lab.wait(0.1)
    lab.heard.clear()
    lab.b.controller.perform(lab.answer(lab.b.controller.engine, asked, lab.run.world.now))
    lab.wait(5.0)
    assert lab.heard == []
    assert lab.a.cards["lc 4"].engine.counters.get("drop no controller") == 1
    assert lab.answered(PLAIN)
