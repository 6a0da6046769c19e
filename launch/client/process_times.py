"""Processor time and switches of processes, by thread, from /proc (proc(5)).

The main thread runs the engine and its shell, ZeroMQ's I/O threads move messages between queue and socket.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")

MAIN, IO, OTHER = "main", "io", "other"


@dataclass(frozen=True, slots=True)
class Times:
    """What threads have used so far: seconds, except the switches (count).

    `cpu` is user and system time together, in nanoseconds where the kernel counts so. `user` and `system` are in
    ticks, of 10 ms as a rule. `waited` is the time in which a thread could have run and had no core.
    """

    cpu: float = 0.0
    user: float = 0.0
    system: float = 0.0
    waited: float = 0.0
    voluntary: int = 0
    involuntary: int = 0

    def __add__(self, other: Times) -> Times:
        return Times(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def __sub__(self, other: Times) -> Times:
        return Times(*(getattr(self, one.name) - getattr(other, one.name) for one in fields(self)))


@dataclass(frozen=True, slots=True)
class ProcessTimes:
    """The threads of one process by kind: `MAIN`, `IO`, `OTHER`. Empty: the process has ended."""

    pid: int
    threads: Mapping[str, Times] = field(default_factory=dict)

    def whole(self) -> Times:
        return sum(self.threads.values(), Times())


def process_times(pid: int) -> ProcessTimes:
    """Return the times of a process's threads by kind."""
    found: dict[str, Times] = {}
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return ProcessTimes(pid)
    for thread in threads:
        folder = Path(f"/proc/{pid}/task/{thread}")
        try:
            times = _thread(folder)
            name = (folder / "comm").read_text(errors="replace")
        except (OSError, ValueError, IndexError):
            # The thread has ended.
            continue
        kind = MAIN if thread == str(pid) else IO if name.startswith("ZMQbg/IO") else OTHER
        found[kind] = found.get(kind, Times()) + times
    return ProcessTimes(pid, found)


def children(pid: int) -> list[int]:
    """Return the ids of a process's children; none if it has ended, or the kernel does not list them."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _thread(folder: Path) -> Times:
    # The name is in brackets, and may contain brackets.
    numbers = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    user, system = int(numbers[11]) * TICK, int(numbers[12]) * TICK
    cpu, waited = user + system, 0.0
    try:
        ran, delayed, _ = (folder / "schedstat").read_text().split()
        cpu, waited = int(ran) / 1e9, int(delayed) / 1e9
    except (OSError, ValueError):
        # A kernel without CONFIG_SCHED_INFO: ticks will do.
        pass
    switches = {
        line.partition(":")[0]: int(line.partition(":")[2])
        for line in (folder / "status").read_text(errors="replace").splitlines()
        if "ctxt_switches" in line
    }
    return Times(
        cpu,
        user,
        system,
        waited,
        switches.get("voluntary_ctxt_switches", 0),
        switches.get("nonvoluntary_ctxt_switches", 0),
    )
