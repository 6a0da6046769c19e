"""Alarms through 200 kills: `show alarms` gives what the faults in force say, and the log tells of each once.

Processes that are killed stay dead until the test starts them again, and wires stay cut. A model says from that
which alarms stand: it knows the rules, and which processes run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any

import pytest

from chassis.sim.failpoints import OutputFailpoint
from chassis.sim.lab import Run
from chassis.sim.node import SimNode
from chassis.xcrp.tunnel_alarms import RETURN_TIME
from launch.simulate import model
from tests.support import CONFIGS

DOWN = "ipsecTunnelDown"

GAP = 0.2
"""Time (s) between two faults of a step: the controller has seen the first, and no port is an alarm yet."""

START_GAP = 0.6
"""Time (s) until a card that was started is back."""

REST = 3.0
"""Time (s) after which a port without carrier is an alarm."""

RECONCILED = 2.5
"""Time (s) in which a controller is back that waits for cards which do not come."""


@dataclass
class Expected:
    """What must stand at one router: a model of the rules of alarms.

    `asps` has the ASP of each tunnel, `ways` the ports to the peer. `idle` are ASPs in no pool. `far` is the other
    router where a tunnel needs both: those that IKE negotiates.
    """

    node: SimNode
    asps: dict[str, str]
    ways: tuple[str, ...]
    idle: tuple[str, ...] = ()
    shut: set[str] = field(default_factory=set)
    routes: bool = True
    been_up: set[str] = field(default_factory=set)
    standing: set[tuple[str, str]] = field(default_factory=set)
    far: Expected | None = None

    def alive(self, card: str) -> bool:
        return card in self.node.cards

    def port_up(self, port: str) -> bool:
        end = self.node.ends[port]
        return self._card_of(port) and not end.impairment.down and end.far.process is not None

    def _card_of(self, port: str) -> bool:
        return self.alive(f"lc {port.partition('/')[0]}")

    def ready(self, tunnel: str) -> bool:
        """Whether a tunnel has all that it needs here."""
        way = self.routes and any(map(self.port_up, self.ways))
        return tunnel not in self.shut and self.alive(self.asps[tunnel]) and way

    def up(self, tunnel: str) -> bool:
        return self.ready(tunnel) and (self.far is None or self.far.ready(tunnel))

    def faults(self) -> dict[tuple[str, str], bool]:
        """Everything that is wrong: True where it raises an alarm, False where it is only down with another."""
        found = {}
        for card in self.node.models:
            if not self.alive(card):
                name = f"aseAsp{card[-1]}Down" if card.startswith("asp") else "cardDown"
                found[card, name] = True
        for card in self.idle:
            found[card, f"asp{card[-1]}MissingServiceAssoc"] = self.alive(card)
        for port in self.node.ends:
            if not self.port_up(port):
                found[f"port {port}", "portDown"] = self._card_of(port)
        for tunnel, asp in self.asps.items():
            if tunnel in self.been_up and tunnel not in self.shut and not self.up(tunnel):
                ways_lost = self.routes and not any(map(self.port_up, self.ways))
                found[f"tunnel {tunnel}", DOWN] = self.alive(asp) and not ways_lost
        return found

    def observe(self, rested: bool) -> None:
        """The controller sees what is there; with `rested` also what has to last for a while."""
        for tunnel in self.asps:
            if self.up(tunnel):
                self.been_up.add(tunnel)
            if tunnel in self.shut:
                self.been_up.discard(tunnel)
        faults = self.faults()
        self.standing &= faults.keys()
        self.standing |= {key for key, own in faults.items() if own and (rested or not key[0].startswith("port"))}


class Faults:
    """A lab under random faults."""

    def __init__(self, lab: str, seed: int, most: int) -> None:
        """At most so many things of the routers are broken at a time."""
        self.most = most
        found = model(CONFIGS / lab / "lab.yaml")
        nodes = tuple(replace(node, restart_delay=None) for node in found.nodes)
        self.run = Run(replace(found, nodes=nodes), seed)
        self.world = self.run.world
        self.draw = Random(seed)
        self.nodes = {node.model.name: node for node in self.run.nodes}
        self.expected: dict[str, Expected] = {}
        self.kills = self.steps = 0
        self.before: dict[tuple[str, str, str], float] = {}
        """When each alarm that stood at the rest before was raised, by router and key."""
        self.run.boot()

    def wait(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def ask(self, name: str, command: str, **arguments: Any) -> dict[str, Any]:
        answers: list[tuple[dict[str, Any], str]] = []
        assert self.nodes[name].operate(command, arguments, lambda *answer: answers.append(answer))
        while not answers:
            self.wait(0.05)
        ((result, error),) = answers
        assert not error, error
        return result

    # what happens

    def change(self) -> float:
        """Break something, or mend it; return the time (s) that this takes."""
        draw = self.draw
        things = [
            (node, thing)
            for name, node in self.nodes.items()
            for thing in (*node.models, *self.expected[name].ways, *self.expected[name].ways)
        ]
        broken = [(node, thing) for node, thing in things if self.is_broken(node, thing)]
        node, thing = draw.choice(broken if len(set(broken)) >= self.most else things)
        if thing in node.ends:
            end = node.ends[thing]
            self.kills += not end.impairment.down
            end.impair(down=not end.impairment.down)
            return GAP
        process = node.cards.get(thing)
        if process is None:
            node.start_again(thing)
            return START_GAP
        if draw.random() < 0.15:
            # It hangs, and is fenced; not so long that it is killed.
            process.stop()
            self.wait(draw.choice((0.3, 0.6, 1.2)))
            process.resume()
            return START_GAP
        self.kills += 1
        process.kill()
        return GAP

    def is_broken(self, node: SimNode, thing: str) -> bool:
        return node.ends[thing].impairment.down if thing in node.ends else thing not in node.cards

    def observe(self, rested: bool = False) -> None:
        for name, expected in self.expected.items():
            controller = self.nodes[name].controller
            if controller is not None and controller.engine.state.reconciled:
                expected.observe(rested)

    def kill_controller(self, name: str) -> None:
        controller = self.nodes[name].controller
        if controller is not None:
            self.kills += 1
            controller.kill()

    def changes(self, most: int) -> None:
        for _ in range(self.draw.randint(1, most)):
            self.wait(self.change())
            self.observe()

    def without_a_controller(self) -> None:
        """Something changes while a controller is dead."""
        name = self.draw.choice([*self.nodes])
        self.kill_controller(name)
        self.wait(self.draw.choice((0.0, 0.05, 0.4)))
        self.changes(1)
        self.nodes[name].start_again("xcrp")
        self.wait(RECONCILED)

    def within_a_call(self) -> None:
        """A controller is killed between two outputs of a call, while something changes."""
        name = self.draw.choice([*self.nodes])
        controller = self.nodes[name].controller
        assert controller is not None
        controller.engine = OutputFailpoint(controller.engine, self.draw.randrange(5), chance=self.draw.random)
        self.change()
        self.wait(self.draw.choice((0.05, 0.2, 0.5, 0.7)))
        self.kill_controller(name)
        self.wait(0.1)
        self.nodes[name].start_again("xcrp")
        self.wait(RECONCILED)

    def commit(self) -> None:
        """A tunnel is shut down or not, or the routes to the peers go or come."""
        name = self.draw.choice([*self.nodes])
        expected = self.expected[name]
        if expected.far is None and self.draw.random() < 0.5:
            expected.routes = not expected.routes
            to, hops = ("1.1.2.0", "2") if name == "a" else ("1.1.1.0", "1")
            no = "no " * (not expected.routes)
            lines = "context outer\n" + "".join(
                f"{no}ip route {to}/24 10.0.{way}.{hops} cost {5 * way}\n" for way in (1, 2)
            )
        else:
            if expected.far is not None and expected.far.shut:
                # One end is enough.
                name, expected = next((one, found) for one, found in self.expected.items() if found.shut)
            tunnel = self.draw.choice([*expected.asps])
            expected.shut ^= {tunnel}
            lines = f"tunnel ipsec {tunnel}\n{'no ' * (tunnel not in expected.shut)}shutdown\n"
        assert self.ask(name, "commit", lines=lines, user="ann")["applied"]
        self.wait(GAP)
        self.observe()

    # what must hold

    def check(self, rest: float) -> None:
        self.wait(rest)
        self.observe(rested=True)
        self.steps += 1
        found: dict[tuple[str, str, str], float] = {}
        for name, expected in self.expected.items():
            answer = self.ask(name, "alarms")
            rows = {(row["object"], row["alarm"]): row for row in answer["alarms"]}
            assert rows.keys() == expected.standing, f"step {self.steps}, router {name}"
            assert sum(answer["total"].values()) == len(answer["alarms"]) == len(rows)
            found |= {(name, *key): row["raised"] for key, row in rows.items()}
        self.before = found

    def check_log(self) -> Counter[str]:
        """Check that the log tells once of each alarm and of its end; return how many were raised, by name."""
        raised: Counter[str] = Counter()
        for name, expected in self.expected.items():
            told: list[Any] = self.ask(name, "log", facility="alarm")["records"]
            standing: dict[tuple[str, str], float] = {}
            for record in told:
                values = record["values"]
                key = values["object"], values["alarm"]
                assert (key in standing) == (values["state"] == "cleared"), record
                if values["state"] == "cleared":
                    del standing[key]
                else:
                    raised[values["alarm"]] += 1
                    standing[key] = record["wall"]
            assert standing.keys() == expected.standing
            assert standing == {key[1:]: at for key, at in self.before.items() if key[0] == name}
        return raised

    def check_until(self, kills: int, ways: Mapping[Callable[[], None], int], rest: float) -> Counter[str]:
        """Have something happen, by the weights of `ways`, until there were so many kills; check at each rest."""
        while self.kills < kills:
            (happens,) = self.draw.choices([*ways], [*ways.values()])
            happens()
            self.check(rest)
        return self.check_log()


@pytest.mark.parametrize("seed", [1, 2])
def test_alarms_of_cards_ports_and_tunnels_are_what_the_faults_say(seed: int) -> None:
    lab = Faults("simulate", seed, most=6)
    for name, node in lab.nodes.items():
        asps = {"circuit": "asp 1/1", "economical": "asp 1/2"}
        lab.expected[name] = Expected(node, asps, ("3/2", "4/1"))
    lab.check(4.0)
    ways = {partial(lab.changes, 3): 5, lab.without_a_controller: 3, lab.within_a_call: 3, lab.commit: 3}
    raised = lab.check_until(100, ways, REST)
    assert min(raised[name] for name in ("cardDown", "aseAsp1Down", "aseAsp2Down", "portDown", DOWN)) > 4, raised


def test_alarms_of_tunnels_whose_peer_is_lost_are_what_the_faults_say() -> None:
    """Tunnels of IKE: the rest is longer than the time that they have to come up after their card."""
    lab = Faults("ikev2", 3, most=1)
    a, b = (Expected(lab.nodes[name], {"ipsec_tunnel": "asp 4/1"}, ("3/11",), ("asp 4/2",)) for name in ("a", "b"))
    a.far, b.far = b, a
    lab.expected = {"a": a, "b": b}
    lab.check(20.0)
    ways = {partial(lab.changes, 1): 3, lab.without_a_controller: 1, lab.within_a_call: 2, lab.commit: 1}
    raised = lab.check_until(25, ways, RETURN_TIME + 20.0)
    assert raised[DOWN] > 4, raised
