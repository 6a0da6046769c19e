"""The processes of a lab: one slot for each card, started, watched, restarted and ended.

Deaths are seen through pidfds. What must be told to a node's controller goes over the socket that it inherited.
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
from chassis.bus.scheduling import task_state
from launch.run_folders import FolderError, Folders
from launch.supervisor.channel import Channel
from launch.supervisor.fork import ended, fork

CONTROLLER = "xcrp"

CONTROLLER_SILENCE_TIMEOUT = 2.0
"""Seconds without a sign of life after which a controller counts as hung and is killed."""

CONTROLLER_BUSY_TIMEOUT = 60.0
"""Seconds for which a silent controller that uses its processor counts as busy (a commit of thousands of tunnels
takes seconds) and not as hung."""

MIN_BUSY_CPU_FACTOR = 0.05
"""Part of the time that a process must have used its processor to count as busy."""

RESTART_DELAY = 0.5
"""Seconds before a process is started again that ended by itself as soon as it was there."""

TERMINATE_TIMEOUT = 1.0
"""Seconds between asking all processes to end and killing them."""

FORK_RETRY_DELAY = 1.0
"""Seconds after a start that the machine did not allow until the next try."""

EntryPoint = Callable[[Environment], int]


@dataclass(slots=True)
class ProcessSlot:
    """One card's place in a node, whether or not a process is in it now.

    `state` is running, stopped (by an operator), dead, or gone (no longer wanted). Times are monotonic.
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
    """Seconds of silence that were excused because the process worked."""
    used: float = 0.0
    """Processor time, in seconds, when that was last looked at."""
    trouble: str = ""
    """Why it could not be started the last time."""

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
    """How to start the processes of one node: `environment(card)` says what each is told.

    `keep(card)` are the descriptors that the process inherits. `restart_delay` None: the dead stay dead.
    """

    environment: Callable[[str], Mapping[str, Any]]
    restart_delay: float | None = 1.0
    keep: Callable[[str], list[int]] = field(default=lambda card: [])


class Processes:
    """All slots of a lab."""

    def __init__(
        self,
        loop: Loop,
        lab: str,
        folders: Folders,
        entry_points: Mapping[str, EntryPoint],
        blueprints: Mapping[str, ProcessTemplate],
        on_event: Callable[[str, str, str, str], None],
        on_said: Callable[[ProcessSlot, dict[str, Any]], None],
    ) -> None:
        """`on_event(node, card, what, text)` for each start and end; `on_said(slot, message)` for what a
        controller says that is not about processes."""
        self._loop, self._lab, self._folders = loop, lab, folders
        self._entry_points, self._blueprints = entry_points, blueprints
        self._on_event, self._on_said = on_event, on_said
        self.slots: dict[tuple[str, str], ProcessSlot] = {}

    # what there is

    def find(self, node: str, card: str) -> ProcessSlot | None:
        return self.slots.get((node, card))

    def of(self, node: str) -> list[ProcessSlot]:
        return [slot for slot in self.slots.values() if slot.node == node]

    def add(self, node: str, card: str, kind: str) -> ProcessSlot:
        """A slot with a process in it."""
        slot = self.slots[node, card] = ProcessSlot(node, card, kind)
        self.start(slot)
        return slot

    def have(self, node: str, cards: Iterable[tuple[str, str]]) -> None:
        """Have exactly these cards (and the controller) in a node: start what is new, end what is no more."""
        wanted = dict(cards)
        for slot in self.of(node):
            if slot.card != CONTROLLER and wanted.pop(slot.card, None) is None:
                slot.state, alive = "gone", slot.alive
                slot.restart_at = inf
                if alive:
                    self._signal(slot, signal.SIGKILL)
                else:
                    del self.slots[slot.node, slot.card]
                self._on_event(node, slot.card, "removed", "is no longer in the configuration")
        for card, kind in wanted.items():
            self.add(node, card, kind)

    # acts

    def start(self, slot: ProcessSlot) -> None:
        """Put a new process into an empty slot. Where the machine does not allow it (a full disk, no process
        more), that is an event, and it is tried again."""
        try:
            self._start(slot)
        except (OSError, FolderError) as error:
            why = (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
            slot.restart_at, slot.restart_now = time.monotonic() + FORK_RETRY_DELAY, False
            if slot.trouble != why:
                slot.trouble = why
                self._on_event(slot.node, slot.card, "failed", f"can't be started ({why}): it is tried again")
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
            slot.channel = Channel(self._loop, ours, lambda message: self._said(slot, message))
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
                if other is not slot and other.alive:
                    slot.channel.send(what="started", card=other.card, boot=other.boot, pid=other.pid)
        self._tell(slot, what="started", pid=slot.pid)
        self._on_event(slot.node, slot.card, "started", f"boot {slot.boot}, pid {slot.pid}")

    def kill(self, slot: ProcessSlot) -> None:
        self._signal(slot, signal.SIGKILL)

    def stop(self, slot: ProcessSlot) -> None:
        """Make it hang, as SIGSTOP does."""
        self._signal(slot, signal.SIGSTOP)
        slot.state = "stopped"
        self._on_event(slot.node, slot.card, "stopped", "by an operator")

    def resume(self, slot: ProcessSlot) -> None:
        self._signal(slot, signal.SIGCONT)
        slot.state = "running"
        self._on_event(slot.node, slot.card, "continued", "by an operator")

    def restart(self, slot: ProcessSlot) -> None:
        """End what is there and start anew at once."""
        if slot.alive:
            slot.restart_now = True
            self._signal(slot, signal.SIGKILL)
        else:
            self.start(slot)

    def next_timer(self) -> float:
        """When `on_timer` wants to be called."""
        return min(
            (min(slot.restart_at, slot.heard + CONTROLLER_SILENCE_TIMEOUT) for slot in self.slots.values()),
            default=inf,
        )

    def on_timer(self, now: float) -> None:
        for slot in list(self.slots.values()):
            if slot.state == "dead" and slot.restart_at <= now:
                self.start(slot)
            elif slot.alive and slot.heard + CONTROLLER_SILENCE_TIMEOUT <= now:
                before, slot.used = slot.used, task_state(str(slot.pid))[1]
                if (
                    slot.used - before >= MIN_BUSY_CPU_FACTOR * CONTROLLER_SILENCE_TIMEOUT
                    and slot.busy < CONTROLLER_BUSY_TIMEOUT
                ):
                    slot.busy += CONTROLLER_SILENCE_TIMEOUT
                    slot.heard = now
                    continue
                slot.heard = inf
                self._on_event(
                    slot.node, slot.card, "hung", f"silent for {CONTROLLER_SILENCE_TIMEOUT:g} s: killed"
                )
                self._signal(slot, signal.SIGKILL)

    def late(self, seconds: float) -> None:
        """The launcher itself stood still: nobody is blamed for that."""
        for slot in self.slots.values():
            slot.heard += seconds

    def end_all(self) -> None:
        """End every process: ask, wait for `GRACE` seconds, kill. Returns when none is left."""
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

    # inside

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
        self._tell(slot, what="died")
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

    def _tell(self, slot: ProcessSlot, what: str, **values: Any) -> None:
        """Tell a card's controller about it."""
        controller = self.find(slot.node, CONTROLLER)
        if controller is not None and controller is not slot and controller.channel is not None:
            controller.channel.send(what=what, card=slot.card, boot=slot.boot, **values)

    def _said(self, slot: ProcessSlot, message: dict[str, Any]) -> None:
        slot.heard = time.monotonic()
        what = message.get("what")
        if what == "alive":
            slot.busy = 0.0
            return
        if what == "kill":
            hung = self.find(slot.node, str(message.get("card")))
            if hung is not None and hung.alive and message.get("boot", hung.boot) == hung.boot:
                self._on_event(slot.node, hung.card, "hung", f"killed: {message.get('why', 'hung')}")
                self._signal(hung, signal.SIGKILL)
            return
        self._on_said(slot, message)


def _ended_by(pidfd: int, deadline: float) -> bool:
    """Wait until a process has ended, or the deadline."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(max(deadline - time.monotonic(), 0) * 1000))


def usage(pid: int) -> dict[str, Any]:
    """CPU seconds and resident bytes of a process, from /proc; empty where it is gone."""
    state, seconds = task_state(str(pid))
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return {}
    return {"cpu": seconds, "memory": resident * os.sysconf("SC_PAGE_SIZE")} if state else {}
