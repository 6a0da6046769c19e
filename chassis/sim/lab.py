"""A lab in the simulator: its routers, testers and wires, and the actions for the schedule of faults."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chassis.sim.checks import Checks, Identify
from chassis.sim.node import NodeModel, SimNode
from chassis.sim.testers import TesterModel, TesterProcess
from chassis.sim.wires import MAX_REPLAY_BATCHES, WireEnd, link
from chassis.sim.world import Simulation

CODEC_SAMPLE = 8
"""One of this number of seeds encodes and decodes every message on the bus (count)."""

CODEC_REMAINDER = 0
"""Remainder of the seeds that encode messages."""

Trace = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class LabModel:
    """A lab for the simulator, with functions that make the engines.

    `links` are pairs of (node, port). `identify` returns flow and number of the packet in a frame.
    """

    name: str
    nodes: tuple[NodeModel, ...]
    testers: tuple[TesterModel, ...]
    links: tuple[tuple[tuple[str, str], tuple[str, str]], ...]
    identify: Identify


class Run:
    """The state of one run."""

    def __init__(self, lab: LabModel, seed: int, trace: Trace | None = None) -> None:
        self.world = world = Simulation(seed, trace)
        self.checks = Checks(world, lab.identify)
        codec = seed % CODEC_SAMPLE == CODEC_REMAINDER
        self.nodes = [SimNode(world, model, self.checks.check_replicated, codec=codec) for model in lab.nodes]
        self.testers = [TesterProcess(world, model) for model in lab.testers]
        self.between: list[WireEnd] = []
        """Ends of wires between routers."""
        self.ends: list[WireEnd] = []
        self.commits = 0
        self.down: dict[str, str] = {}
        """Why tunnels were down before the first fault, by `TUNNEL of NODE`."""
        self._up: dict[str, set[str]] = {}
        self._mark = 0
        self._wire(lab)

    def _wire(self, lab: LabModel) -> None:
        routers = {node.model.name: node for node in self.nodes}
        testers = {tester.model.name: tester for tester in self.testers}
        for number, (one, other) in enumerate(lab.links):
            for end in link(self.world, one, other, self.world.seed * 1000 + number):
                self.ends.append(end)
                if end.node in routers:
                    routers[end.node].ends[end.port] = end
                    if end.far.node in routers:
                        end.tap = self.checks.between_routers
                        end.replay_buffer = deque(maxlen=MAX_REPLAY_BATCHES)
                        self.between.append(end)
                    else:
                        end.tap = self.checks.to_tester
                else:
                    testers[end.node].ends[end.port] = end
                    end.tap = self.checks.from_tester

    def boot(self) -> None:
        for node in self.nodes:
            node.boot()
        for tester in self.testers:
            tester.start()

    # actions of the schedule

    def commit(self, node: SimNode) -> None:
        """Apply the next configuration to a node."""
        variants = node.model.variants
        if len(variants) < 2:
            return
        number = self.checks.begin_commit(node)
        text = variants[number % len(variants)].text
        self.commits += 1

        def answered(result: dict[str, Any], error: str) -> None:
            if error:
                raise self.world.violation("a commit is whole", f"{node.model.name} refused one: {error}")
            self.checks.acknowledge_commit(node, number)

        node.operate("apply", {"text": text, "file": f"commit-{number}.cfg"}, answered)

    def mark_traffic(self) -> None:
        self._mark = len(self.checks.traffic.sent)

    def expect_all_arrived(self, what: str) -> None:
        """Check that every packet sent since the mark has arrived."""
        traffic = self.checks.traffic
        lost = traffic.lost(self._mark)
        sent = len(traffic.sent) - self._mark
        if lost or (self.testers and not sent):
            raise self.world.violation("flows run", f"{what} lost {lost} of {sent} packets")

    def heal(self) -> None:
        """Clear all faults, and resume stopped processes."""
        for end in self.ends:
            end.impair(clear=True)
        for node in self.nodes:
            for process in (node.controller, *node.cards.values()):
                if process is not None and process.stopped:
                    process.resume()

    def remember_up(self) -> None:
        """Remember which tunnels are up before the first fault.

        It calls the controllers' engines directly: a message would draw a random delay and change every schedule.
        """
        for node in self.nodes:
            name = node.model.name
            if node.controller is None:
                raise self.world.violation("flows run", f"{name} has no controller, before anything broke")
            (answer,) = node.controller.engine.on_operator_command(0, "status", {}, self.world.now)
            tunnels = answer.result["tunnels"]
            self._up[name] = {tunnel["name"] for tunnel in tunnels if tunnel["up"]}
            for tunnel in tunnels:
                if not tunnel["up"]:
                    self.down[f"{tunnel['name']} of {name}"] = str(tunnel.get("reason"))

    def expect_recovered(self, _: Any = None) -> None:
        """Check that every card runs and is usable, and that the tunnels are up that were up before the faults."""
        for node in self.nodes:
            missing = [card for card in node.models if card not in node.cards]
            if missing or node.controller is None:
                raise self.world.violation(
                    "everything comes back", f"{node.model.name}: not running: {', '.join(missing) or 'xcrp'}"
                )
            self.checks.check_configuration(node)
            node.operate("status", {}, self._check_status(node))

    def _check_status(self, node: SimNode) -> Callable[[dict[str, Any], str], None]:
        def answered(result: dict[str, Any], error: str) -> None:
            wrong = [
                f"{card['card']} is {card.get('state')}" for card in result.get("cards", ()) if not card["usable"]
            ]
            tunnels = {tunnel["name"]: tunnel for tunnel in result.get("tunnels", ())}
            for name in sorted(self._up[node.model.name]):
                tunnel = tunnels.get(name, {"up": False, "reason": "it is not there"})
                if not tunnel["up"]:
                    wrong.append(f"tunnel {name} is down: {tunnel.get('reason')}")
            if error or wrong:
                what = error or "; ".join(wrong)
                raise self.world.violation("everything comes back", f"{node.model.name}: {what}")

        return answered
