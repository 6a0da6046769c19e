"""The schedule of a run: what breaks, when, and the traffic around it, all drawn from the seed.

A run is made of slots. In most of them a few things break together: processes are killed or stopped, at any
moment, between two outputs or between two writes to mapped memory; wires lose packets or are cut;
configurations are applied; packets seen on the wires come in again. In some only a controller is killed, and
nobody may notice. A burst of each flow runs into every fault, since nothing shows how idle processes die.
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
"""Seconds before the first slot: everything boots and the first bursts must arrive whole."""

RECOVERY_TIMEOUT = 14.0
"""Seconds after the last slot: everything must come back, and the last bursts arrive whole."""

MIN_SLOT_INTERVAL = 9.0
"""Shortest slot, in seconds: the faults of one are over before the next begins."""

STOP_LENGTHS = (0.03, 0.2, 0.39, 0.42, 0.48, 0.55, 0.7, 0.9, 1.05, 1.4, 2.5)
"""Lengths of a stop in seconds, around each limit: noticed, fenced, given up, killed."""

POWER_CUT_SHARE = 0.03
"""Share of ends in which all processes of a node end at once."""

MAX_BOOT_LOSS = 3
"""Packets of a burst that may be lost."""

FAILPOINT_TIMEOUT = 0.4
"""Seconds that an armed end waits for its moment before it comes anyway."""

OVERPLAN_FACTOR = 1.2
"""So many times the packets that are asked for are planned: some find no wire."""

MIN_RUN_TIME = WARM_UP_DELAY + RECOVERY_TIMEOUT + MIN_SLOT_INTERVAL
"""Seconds of the shortest run."""

REPLAY_INTERVAL = 5.0
"""Seconds of wire packets that a replay sends in again."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How much breaks: kills and stops of processes, kills of a controller that nobody may notice, commits
    applied, faulty wires, packets that testers send in all."""

    ends: int = 26
    quiet: int = 4
    commits: int = 6
    wires: int = 4
    packets: int = 10_000
    rate: float = 20_000.0


@dataclass(frozen=True, slots=True)
class FaultCounts:
    """What a schedule came to."""

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
        """Put everything on the world's clock."""
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
        # What is sent into a wire whose far end is dead does not count.
        self._burst = max(int(OVERPLAN_FACTOR * self._faults.packets / max(flows * bursts, 1)) + 1, 10)

    def _plan_bursts(self, when: float, count: int = 0) -> None:
        count = count or self._burst
        for tester in self._run.testers:
            for flow in tester.model.flows:
                # One that still runs is not started again: what is asked for then is not sent.
                self._at(when + 0.01 * self._random.random(), tester.burst, flow, self._faults.rate, count)

    def _send_first_packets(self, when: float) -> None:
        """A few packets of each flow, so that neighbours know each other: a port holds back few that wait."""
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
            # Already gone: whatever still runs here takes its place.
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
            # Something to do, so that there are outputs to fall between.
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

    # everything else

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
