"""Processes of a lab: start, watch, restart and end one process for each card (S-112).

Input: pidfds that become readable when a process ends, and messages of controllers. Output: processes, events for
operators, and reports to a node's controller over the socket that the controller inherited.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from chassis.bus.environment import Environment
from chassis.bus.loop import Loop
from chassis.bus.scheduling import task_state, waited_for_core
from launch.run_folders import FolderError, Folders
from launch.supervisor.channel import Channel
from launch.supervisor.fork import ended, fork

CONTROLLER = "xcrp"

MANAGEMENT = "mgmt"
"""The process that serves SSH: started and killed like a card, but its controller does not know it as one."""

CONTROLLER_SILENCE_TIMEOUT = 2.0
"""Silence (s) after which a controller counts as hung and is killed."""

CONTROLLER_BUSY_TIMEOUT = 60.0
"""Longest silence (s) of a controller that uses its processor; until then it counts as busy and not as hung. A
commit of thousands of tunnels takes seconds."""

MIN_BUSY_CPU_FACTOR = 0.05
"""Share of the elapsed time, 0 to 1, that a process must have used its processor to count as busy."""

CARD_KINDS = ("linecard", "asp")
"""Kinds of the processes that a reload starts again, beside the controller."""

RESTART_DELAY = 0.5
"""Delay (s) before the restart of a process that ended right after its start."""

TERMINATE_TIMEOUT = 1.0
"""Time (s) that processes have to end after SIGTERM before they are killed."""

FORK_RETRY_DELAY = 1.0
"""Delay (s) before the next try of a start that the machine did not allow."""

EntryPoint = Callable[[Environment], int]


@dataclass(slots=True)
class ProcessSlot:
    """One card of a node, with or without a process.

    `state` is running, stopped (by an operator), dead, or gone (no longer configured). Times are monotonic (s).
    """

    node: str
    card: str
    kind: str
    boot: int = 0
    pid: int = 0
    pidfd: int = -1
    state: str = "dead"
    started: float = 0.0
    restart_at: float = inf
    restart_now: bool = False
    starts: int = 0
    ended: str = ""
    channel: Channel | None = None
    heard: float = inf
    busy: float = 0.0
    """Silence (s) that was excused because the process used its processor."""
    used: float = 0.0
    """Processor time (s) at the last check."""
    trouble: str = ""
    """Reason of the last failed start."""

    @property
    def alive(self) -> bool:
        return self.state in ("running", "stopped")

    @property
    def name(self) -> str:
        return f"{self.node} {self.card}"

    def facts(self) -> dict[str, Any]:
        return {"pid": self.pid if self.alive else 0, "boot": self.boot, "state": self.state, "kind": self.kind}


@dataclass(frozen=True, slots=True)
class ProcessTemplate:
    """How to start the processes of one node.

    `environment(card)` returns a process's settings, `keep(card)` the descriptors that it inherits. With
    `restart_delay` None a process that ended is not restarted.
    """

    environment: Callable[[str], Mapping[str, Any]]
    restart_delay: float | None = 1.0
    keep: Callable[[str], list[int]] = field(default=lambda card: [])


class Processes:
    """All process slots of a lab."""

    def __init__(
        self,
        loop: Loop,
        lab: str,
        folders: Folders,
        entry_points: Mapping[str, EntryPoint],
        blueprints: Mapping[str, ProcessTemplate],
        on_event: Callable[[str, str, str, str], None],
        on_report: Callable[[ProcessSlot, dict[str, Any]], None],
    ) -> None:
        """Call `on_event(node, card, what, text)` for each start and end, and `on_report(slot, message)` for a
        controller's message that does not concern processes."""
        self._loop, self._lab, self._folders = loop, lab, folders
        self._entry_points, self._blueprints = entry_points, blueprints
        self._on_event, self._on_report = on_event, on_report
        self.slots: dict[tuple[str, str], ProcessSlot] = {}

    # queries

    def find(self, node: str, card: str) -> ProcessSlot | None:
        return self.slots.get((node, card))

    def of(self, node: str) -> list[ProcessSlot]:
        return [slot for slot in self.slots.values() if slot.node == node]

    def add(self, node: str, card: str, kind: str) -> ProcessSlot:
        """Add a slot and start its process."""
        slot = self.slots[node, card] = ProcessSlot(node, card, kind)
        self.start(slot)
        return slot

    def set_cards(self, node: str, cards: Iterable[tuple[str, str]]) -> None:
        """Run exactly these cards in a node, and what every router has: start new ones, end those no longer
        configured."""
        wanted = dict(cards)
        for slot in self.of(node):
            if slot.card not in (CONTROLLER, MANAGEMENT) and wanted.pop(slot.card, None) is None:
                slot.state, alive = "gone", slot.alive
                slot.restart_at = inf
                if alive:
                    self._signal(slot, signal.SIGKILL)
                else:
                    del self.slots[slot.node, slot.card]
                self._on_event(node, slot.card, "removed", "is no longer in the configuration")
        for card, kind in wanted.items():
            self.add(node, card, kind)

    # actions

    def start(self, slot: ProcessSlot) -> None:
        """Start a process in an empty slot. If the machine does not allow it (disk full, process limit), report an
        event and try again after `FORK_RETRY_DELAY`."""
        try:
            self._start(slot)
        except (OSError, FolderError) as error:
            why = (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
            slot.restart_at, slot.restart_now = time.monotonic() + FORK_RETRY_DELAY, False
            if slot.trouble != why:
                slot.trouble = why
                self._on_event(slot.node, slot.card, "failed", f"cannot be started ({why}); trying again")
        else:
            slot.trouble = ""

    def _start(self, slot: ProcessSlot) -> None:
        blueprint = self._blueprints[slot.node]
        slot.boot = self._folders.next_boot(slot.node, slot.card)
        slot.restart_at, slot.heard, slot.restart_now = inf, inf, False
        slot.busy = slot.used = 0.0
        keep = blueprint.keep(slot.card)
        theirs: socket.socket | None = None
        if slot.card == CONTROLLER:
            ours, theirs = socket.socketpair()
            keep = [*keep, theirs.fileno()]
            slot.channel = Channel(self._loop, ours, lambda message: self._on_message(slot, message))
        environment = Environment(
            self._lab,
            slot.node,
            slot.card,
            slot.boot,
            self._folders.run,
            self._folders.node_state(slot.node),
            launcher=theirs,
            **blueprint.environment(slot.card),
        )
        run = self._entry_points[slot.kind]
        title = f"chassis {slot.node} {slot.card}"
        try:
            child = fork(lambda: run(environment), title, self._folders.log_file(slot.node, slot.card), keep)
        except OSError:
            if slot.channel is not None:
                slot.channel.close()
                slot.channel = None
            raise
        finally:
            if theirs is not None:
                theirs.close()
        slot.pid, slot.pidfd, slot.state = child.pid, child.pidfd, "running"
        slot.started = time.monotonic()
        slot.starts += 1
        self._loop.add(child.pidfd, lambda now: self._reap(slot, now))
        if slot.channel is not None:
            for other in self.of(slot.node):
                if other is not slot and other.alive and other.card != MANAGEMENT:
                    slot.channel.send(what="started", card=other.card, boot=other.boot, pid=other.pid)
        self._report(slot, what="started", pid=slot.pid)
        self._on_event(slot.node, slot.card, "started", f"boot {slot.boot}, pid {slot.pid}")

    def kill(self, slot: ProcessSlot) -> None:
        self._signal(slot, signal.SIGKILL)

    def stop(self, slot: ProcessSlot) -> None:
        """Suspend the process with SIGSTOP, so that it appears hung."""
        self._signal(slot, signal.SIGSTOP)
        slot.state = "stopped"
        self._on_event(slot.node, slot.card, "stopped", "by an operator")

    def resume(self, slot: ProcessSlot) -> None:
        self._signal(slot, signal.SIGCONT)
        slot.state = "running"
        self._on_event(slot.node, slot.card, "continued", "by an operator")

    def restart(self, slot: ProcessSlot) -> None:
        """End the slot's process and start a new one at once."""
        if slot.alive:
            slot.restart_now = True
            self._signal(slot, signal.SIGKILL)
        else:
            self.start(slot)

    def next_timer(self) -> float:
        """Return the time of the next call of `on_timer`."""
        return min(
            (min(slot.restart_at, slot.heard + CONTROLLER_SILENCE_TIMEOUT) for slot in self.slots.values()),
            default=inf,
        )

    def on_timer(self, now: float) -> None:
        for slot in list(self.slots.values()):
            if slot.state == "dead" and slot.restart_at <= now:
                self.start(slot)
            elif slot.alive and slot.heard + CONTROLLER_SILENCE_TIMEOUT <= now:
                if self._works(slot) and slot.busy < CONTROLLER_BUSY_TIMEOUT:
                    slot.busy += CONTROLLER_SILENCE_TIMEOUT
                    slot.heard = now
                    continue
                slot.heard = inf
                self._on_event(
                    slot.node, slot.card, "hung", f"silent for {CONTROLLER_SILENCE_TIMEOUT:g} s: killed"
                )
                self._signal(slot, signal.SIGKILL)

    def _works(self, slot: ProcessSlot) -> bool:
        """Return whether a silent controller computes, waits for a core, or waits for the disk."""
        state, computed = task_state(str(slot.pid))
        before, slot.used = slot.used, computed + waited_for_core(slot.pid)
        return state == "D" or slot.used - before >= MIN_BUSY_CPU_FACTOR * CONTROLLER_SILENCE_TIMEOUT

    def on_stall(self, seconds: float) -> None:
        """Restart the silence timers after a stall of the launcher itself, in which it could not read
        heartbeats."""
        for slot in self.slots.values():
            slot.heard += seconds

    def end_all(self) -> None:
        """End every process: send SIGTERM, wait up to `TERMINATE_TIMEOUT`, kill the rest. Return when all
        ended."""
        alive = [slot for slot in self.slots.values() if slot.pidfd >= 0]
        for slot in alive:
            self._signal(slot, signal.SIGTERM)
            self._signal(slot, signal.SIGCONT)
        deadline = time.monotonic() + TERMINATE_TIMEOUT
        for slot in alive:
            if not _ended_by(slot.pidfd, deadline):
                self._signal(slot, signal.SIGKILL)
        for slot in alive:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(slot.pid, 0)
            self._loop.remove(slot.pidfd)
            os.close(slot.pidfd)
            slot.pidfd, slot.state = -1, "dead"
            if slot.channel is not None:
                slot.channel.close()

    # private

    def _signal(self, slot: ProcessSlot, number: signal.Signals) -> None:
        if slot.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(slot.pidfd, number)

    def _reap(self, slot: ProcessSlot, now: float) -> None:
        pid, status = os.waitpid(slot.pid, os.WNOHANG)
        if not pid:
            return
        self._loop.remove(slot.pidfd)
        os.close(slot.pidfd)
        slot.pidfd, slot.heard = -1, inf
        slot.ended = ended(status)
        if slot.channel is not None:
            slot.channel.close()
            slot.channel = None
        self._report(slot, what="died")
        if slot.state == "gone":
            del self.slots[slot.node, slot.card]
            return
        slot.state = "dead"
        delay = self._blueprints[slot.node].restart_delay
        if slot.restart_now:
            delay = 0.0
        elif delay is not None and os.WIFEXITED(status) and now - slot.started < RESTART_DELAY:
            delay = max(delay, RESTART_DELAY)
        slot.restart_at = inf if delay is None else now + delay
        log = self._folders.log_file(slot.node, slot.card).name
        hint = f"; see {log}" if os.WIFEXITED(status) and os.WEXITSTATUS(status) else ""
        self._on_event(slot.node, slot.card, "died", f"boot {slot.boot} {slot.ended}{hint}")
        if delay == 0.0:
            self.start(slot)

    def _report(self, slot: ProcessSlot, what: str, **values: Any) -> None:
        """Report an event of a card's process to the node's controller."""
        controller = self.find(slot.node, CONTROLLER) if slot.card != MANAGEMENT else None
        if controller is not None and controller is not slot and controller.channel is not None:
            controller.channel.send(what=what, card=slot.card, boot=slot.boot, **values)

    def _on_message(self, slot: ProcessSlot, message: dict[str, Any]) -> None:
        slot.heard = time.monotonic()
        what = message.get("what")
        if what == "alive":
            slot.busy = 0.0
            slot.used = task_state(str(slot.pid))[1] + waited_for_core(slot.pid)
            return
        if what == "kill":
            hung = self.find(slot.node, str(message.get("card")))
            if hung is None or message.get("boot", hung.boot) != hung.boot:
                return
            if hung.alive:
                self._on_event(slot.node, hung.card, "hung", f"killed: {message.get('why', 'hung')}")
                self._signal(hung, signal.SIGKILL)
            elif hung.state == "dead":
                # It ended while no controller ran that could hear of it.
                self._report(hung, what="died")
            return
        if what in ("restart", "reload"):
            self._restart_cards(slot, None if what == "reload" else str(message.get("card")))
            return
        self._on_report(slot, message)

    def _restart_cards(self, controller: ProcessSlot, card: str | None) -> None:
        """Start a card of a controller's node again, or the whole node: its cards, and the controller last."""
        cards = [slot for slot in self.of(controller.node) if slot.kind in CARD_KINDS]
        for slot in [slot for slot in cards if card in (None, slot.card)]:
            self._on_event(slot.node, slot.card, "reloaded", "by an operator")
            self.restart(slot)
        if card is None:
            self._on_event(controller.node, controller.card, "reloaded", "by an operator")
            self.restart(controller)


def _ended_by(pidfd: int, deadline: float) -> bool:
    """Wait until a process has ended or the deadline has passed. Return whether it ended."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(max(deadline - time.monotonic(), 0) * 1000))


def usage(pid: int) -> dict[str, Any]:
    """Return the CPU time (s) and resident memory (octets) of a process, from /proc; empty if it has ended."""
    state, seconds = task_state(str(pid))
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return {}
    return {"cpu": seconds, "memory": resident * os.sysconf("SC_PAGE_SIZE")} if state else {}
