"""The schedule of a run: its faults and the traffic around them, all drawn from the seed.

A run consists of slots. In most slots several faults happen together: processes are killed or stopped at any
moment, between two outputs or between two writes to mapped memory; wires lose packets or are cut; configurations
are committed; packets of the wires are replayed. In some slots only a controller is killed, which must have no
effect on traffic. A burst of each flow runs at every fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from chassis.sim.failpoints import OutputFailpoint, TornWriteFailpoint
from chassis.sim.lab import Run
from chassis.sim.node import CardProcess, SimNode
from chassis.sim.process import Process

WARM_UP_DELAY = 6.0
"""Time before the first slot (s): everything boots, and the first bursts must arrive complete."""

RECOVERY_TIMEOUT = 14.0
"""Time after the last slot (s): everything must recover, and the last bursts must arrive complete."""

MIN_SLOT_INTERVAL = 9.0
"""Shortest slot (s): the faults of one are over before the next begins."""

STOP_LENGTHS = (0.03, 0.2, 0.39, 0.42, 0.48, 0.55, 0.7, 0.9, 1.05, 1.4, 2.5)
"""Lengths of a stop (s), around each limit: noticed, fenced, hung, killed."""

POWER_CUT_SHARE = 0.03
"""Share of faults that kill all processes of a node at once (0 to 1)."""

MAX_BOOT_LOSS = 3
"""Packets of the first burst, which may be lost (count)."""

FAILPOINT_TIMEOUT = 0.4
"""Time after which a failpoint that was not reached ends the process anyway (s)."""

OVERPLAN_FACTOR = 1.2
"""Factor for the packets to plan: some are sent while the far end of a wire is dead."""

MIN_RUN_TIME = WARM_UP_DELAY + RECOVERY_TIMEOUT + MIN_SLOT_INTERVAL
"""Length of the shortest run (s)."""

REPLAY_INTERVAL = 5.0
"""Age of the oldest packets that a replay delivers (s)."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Numbers of faults: kills and stops of processes (`ends`), kills of a controller alone (`quiet`), commits,
    impaired wires; `packets` of all testers, sent at `rate` (1/s)."""

    ends: int = 26
    quiet: int = 4
    commits: int = 6
    wires: int = 4
    packets: int = 10_000
    rate: float = 20_000.0


@dataclass(frozen=True, slots=True)
class FaultCounts:
    """Faults that a schedule carried out (count)."""

    kills: int
    stops: int


class Schedule:
    """Draws and carries out the faults of one run."""

    def __init__(self, run: Run, faults: Faults, seconds: float) -> None:
        self._run = run
        self._world = run.world
        self._faults = faults
        self._random: Random = run.world.random
        self._seconds = seconds
        self._burst = 0
        self.kills = self.stops = 0
        self._memories = {
            (node.model.name, card.card) for node in run.nodes for card in node.model.cards if card.memory
        }

    def plan(self) -> None:
        """Schedule everything."""
        world, faults, draw = self._world, self._faults, self._random
        begin, room = world.now + WARM_UP_DELAY, self._seconds - WARM_UP_DELAY - RECOVERY_TIMEOUT
        slots = max(min(int(room / MIN_SLOT_INTERVAL), 22), 1)
        length = room / slots
        quiet = min(faults.quiet, slots // 3)
        kinds = ["quiet"] * quiet + ["faults"] * (slots - quiet)
        draw.shuffle(kinds)
        loud = [number for number, kind in enumerate(kinds) if kind == "faults"]
        at = {number: begin + number * length for number in range(slots)}
        self._size_bursts(slots, faults.ends)

        self._send_first_packets(world.now + WARM_UP_DELAY - 3.0)
        self._at(begin - 2.1, self._run.mark_traffic)
        self._plan_bursts(begin - 2.0)
        self._at(begin - 0.5, self._run.expect_all_arrived, "the first bursts, before anything broke,")
        self._at(begin - 0.4, self._run.remember_up)
        for number, kind in enumerate(kinds):
            if kind == "quiet":
                self._plan_quiet(at[number], length)
            else:
                self._plan_bursts(at[number] + length * 0.75)
        for number in range(faults.ends):
            slot = loud[number % len(loud)]
            self._plan_end(at[slot] + length * 0.3 * draw.random() ** 2)
        for _ in range(faults.commits):
            self._at(at[draw.choice(loud)] + length * 0.3 * draw.random(), self._commit)
        for _ in range(faults.wires):
            self._at(at[draw.choice(loud)], self._break_wire, length * 0.3)
        for number in loud:
            self._at(at[number] + length * (0.35 + 0.3 * draw.random()), self._replay)
        heal = begin + room
        self._at(heal, self._run.heal)
        self._plan_bursts(heal + RECOVERY_TIMEOUT - 4.0)
        self._send_first_packets(heal + RECOVERY_TIMEOUT - 5.0)
        self._at(heal + RECOVERY_TIMEOUT - 4.1, self._run.expect_recovered)
        self._at(heal + RECOVERY_TIMEOUT - 4.05, self._run.mark_traffic)
        self._at(
            heal + RECOVERY_TIMEOUT - 1.0,
            self._run.expect_all_arrived,
            "the last bursts, after everything healed,",
        )

    def _at(self, when: float, call: Callable[..., None], *arguments: Any) -> None:
        self._world.at(when, lambda _: call(*arguments))

    # traffic

    def _size_bursts(self, slots: int, ends: int) -> None:
        flows = sum(len(tester.model.flows) for tester in self._run.testers)
        bursts = 2 + slots + ends + 3 * self._faults.quiet
        # Packets that are sent while the far end of a wire is dead do not count.
        self._burst = max(int(OVERPLAN_FACTOR * self._faults.packets / max(flows * bursts, 1)) + 1, 10)

    def _plan_bursts(self, when: float, count: int = 0) -> None:
        count = count or self._burst
        for tester in self._run.testers:
            for flow in tester.model.flows:
                # A flow that still runs is not started again: its packets of this burst are not sent.
                self._at(when + 0.01 * self._random.random(), tester.burst, flow, self._faults.rate, count)

    def _send_first_packets(self, when: float) -> None:
        """Send a few packets of each flow, so that neighbours are resolved: a port queues few packets."""
        self._plan_bursts(when, MAX_BOOT_LOSS)

    # processes

    def _plan_end(self, when: float) -> None:
        draw = self._random
        self._plan_bursts(when - 0.02 * draw.random())
        node = draw.choice(self._run.nodes)
        card = draw.choice([*node.models, "xcrp"])
        if draw.random() < POWER_CUT_SHARE:
            self._at(when, self._cut_power, node)
            return
        kind = draw.choice(["kill", "kill within", "stop", "stop within"])
        if (node.model.name, card) in self._memories and node.model.module and draw.random() < 0.4:
            kind = "tear"
        self._at(when, self._end_process, node, card, kind)

    def _end_process(self, node: SimNode, card: str, kind: str) -> None:
        process = node.process(card)
        if process is None or not process.alive or process.stopped:
            # It has ended already: choose another process of the node.
            process = next((p for p in node.cards.values() if not p.stopped), None)
            if process is None:
                return
        self._world.log_event(f"fault: {kind} {process.name}")
        seconds = self._random.choice(STOP_LENGTHS)
        if kind == "kill":
            self._kill(process)
        elif kind == "stop":
            self._stop(process, seconds)
        else:
            self._arm(node, process, kind, seconds)

    def _cut_power(self, node: SimNode) -> None:
        self._world.log_event(f"fault: every process of {node.model.name} is killed")
        for process in (node.controller, *node.cards.values()):
            if process is not None:
                self._kill(process)

    def _kill(self, process: Process) -> None:
        if process.alive:
            self.kills += 1
            process.kill()

    def _stop(self, process: Process, seconds: float) -> None:
        if process.alive and not process.stopped:
            self.stops += 1
            process.stop()
            self._world.after(seconds, lambda _: process.resume())

    def _arm(self, node: SimNode, process: Process, kind: str, seconds: float) -> None:
        draw, engine = self._random, process.engine
        if isinstance(engine, OutputFailpoint | TornWriteFailpoint):
            return
        armed: OutputFailpoint | TornWriteFailpoint
        if kind == "tear" and isinstance(process, CardProcess) and process.model.memory:
            memory = node.memory[process.card]
            armed = TornWriteFailpoint(engine, node.model.module, memory, draw.randint(1, 60), draw)
        elif kind == "stop within":
            armed = OutputFailpoint(engine, draw.randint(0, 4), halt=seconds, chance=draw.random)
        else:
            armed = OutputFailpoint(engine, draw.randint(0, 6), chance=draw.random)
        process.engine = armed
        if process is node.controller:
            # A commit makes outputs, between which the failpoint can be reached.
            self._run.commit(node)
        self._at(self._world.now + FAILPOINT_TIMEOUT, self._disarm, process, engine, armed, seconds)

    def _disarm(
        self, process: Process, engine: Any, armed: OutputFailpoint | TornWriteFailpoint, seconds: float
    ) -> None:
        process.engine = engine
        stop = isinstance(armed, OutputFailpoint) and armed.is_stop
        if armed.spent:
            self.stops += stop
            self.kills += not stop
        elif stop:
            self._stop(process, seconds)
        else:
            self._kill(process)

    # quiet slots, commits and wires

    def _plan_quiet(self, when: float, length: float) -> None:
        node = self._random.choice(self._run.nodes)
        kill = when + 0.1 * length + self._random.random()
        self._send_first_packets(kill - 0.7)
        self._at(kill - 0.5, self._run.expect_recovered)
        self._at(kill - 0.3, self._run.mark_traffic)
        self._at(kill - 0.2, self._run.checks.freeze_records, node)
        for after in (-0.01, 0.3, 1.2):
            self._plan_bursts(kill + after)
        self._at(kill, self._kill_controller, node)
        over = when + 0.95 * length
        self._at(over - 0.1, self._run.expect_all_arrived, "what was sent while only a controller was killed")
        self._at(over, self._run.checks.unfreeze_records, node)
        self._at(over, self._run.checks.check_configuration, node)

    def _kill_controller(self, node: SimNode) -> None:
        if node.controller is not None:
            self._kill(node.controller)

    def _commit(self) -> None:
        self._run.commit(self._random.choice(self._run.nodes))

    def _break_wire(self, seconds: float) -> None:
        if not self._run.between:
            return
        draw = self._random
        end = draw.choice(self._run.between)
        fault = draw.choice(
            (
                {"down": True},
                {"loss": 0.2},
                {"duplicate": 0.3},
                {"reorder": 0.2},
                {"delay": 0.03, "jitter": 0.02, "duplicate": 0.1, "reorder": 0.1},
            )
        )
        end.impair(**fault)
        self._at(self._world.now + seconds, partial(end.impair, clear=True))

    def _replay(self) -> None:
        for end in self._run.between:
            end.replay(REPLAY_INTERVAL)
