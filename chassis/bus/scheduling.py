"""Time slices of the Linux scheduler (6.12 and later), and whether a silent process waited for a core.

A process that becomes runnable waits, in the worst case, until the slice of the running process ends. A packet
passes several processes, which each run only briefly. They therefore ask for a short slice, which also lets them
interrupt processes with longer slices. Their share of the processor does not change, and no privilege is needed.

Between groups of processes (terminals, containers) Linux shares the cores less evenly than within a group: a
process may wait hundreds of milliseconds while another group has its core. The controller cannot tell it from a
hung one; the states and CPU times of its threads in /proc can.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final

PACKET_SLICE: Final = 0.0002
"""Slice (s) of a process that carries packets."""
BATCH_SLICE: Final = 0.003
"""Slice (s) of a process that carries packets while it has to wait for a core."""
COMPUTE_SLICE: Final = 0.004
"""Slice (s) of a process that computes for a long time without a break."""

MIN_CPU_SHARE: Final = 0.25
"""Share of a core (0 to 1). A thread that was runnable and had less of a core waited for it."""

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")

_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""struct sched_attr, version 0: size, policy, flags, nice, priority, runtime, deadline, period."""
_NORMAL = 0
_BATCH = 3
"""Policies of sched(7). A thread of the second kind does not interrupt a running one when it becomes runnable."""
_CALLS: Final = {"x86_64": 314, "aarch64": 274}
"""Number of the system call sched_setattr by machine; the C library has no function for it."""

_libc = ctypes.CDLL(None, use_errno=True)


def ask_for_slice(seconds: float, *, batch: bool = False, thread: int = 0) -> bool:
    """Ask for slices of this length (s) for a thread, by default this one, and its later children.

    With `batch` it does not interrupt others, so that more packets wait when its turn comes and fewer switches are
    made. An older kernel ignores the length. Return whether the thread has them: False without the system call.
    """
    call = _CALLS.get(platform.machine())
    if call is None:
        return False
    nanoseconds = round(seconds * 1e9)
    policy = _BATCH if batch else _NORMAL
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, policy, 0, os.nice(0), 0, nanoseconds, 0, 0)
    return bool(_libc.syscall(call, thread, attributes, 0) == 0)


class Contention:
    """Whether this process has to wait for a core, and its slices by that.

    On a machine with time to spare a process that carries packets interrupts others, so that a packet is carried
    at once. On a full one that costs a process with many packets more than it brings: switches between processes
    take the time, and batches stay small. `crowded` is set by what the thread waited and ran in the last
    `INTERVAL`. One with few packets keeps its short slices on a full machine: it has heartbeats to send.
    """

    INTERVAL: Final = 0.1
    """Time (s) between two looks."""
    CROWDED_SHARE: Final = 0.25
    """Share of the time for which the thread waited for a core, from which the machine is crowded."""
    CALM_SHARE: Final = 0.18
    """Share below which it no longer is."""
    BUSY_SHARE: Final = 0.1
    """Share of a core that the thread uses, from which it has many packets."""

    def __init__(self) -> None:
        """Call it in the thread that carries packets."""
        self.crowded = False
        self.due = 0.0
        """Time at which `look` wants to be called."""
        self._since = self._ran = self._waited = 0.0
        try:
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # A kernel that does not tell.
            self.due = inf

    def look(self, now: float) -> None:
        """Measure, and ask for other slices if the machine became crowded or calm."""
        self.due = now + self.INTERVAL
        try:
            # Nanoseconds that it ran and that it waited, and slices.
            ran, waited = [int(field) * 1e-9 for field in os.pread(self._file, 64, 0).split()[:2]]
        except (OSError, ValueError):
            self.due = inf
            return
        span, share, busy = now - self._since, 0.0, False
        if self._since and span > 0:
            share, busy = (waited - self._waited) / span, (ran - self._ran) / span > self.BUSY_SHARE
        self._since, self._ran, self._waited = now, ran, waited
        crowded = busy and share > (self.CALM_SHARE if self.crowded else self.CROWDED_SHARE)
        if crowded != self.crowded:
            self.crowded = crowded
            self._ask()

    def _ask(self) -> None:
        seconds = BATCH_SLICE if self.crowded else PACKET_SLICE
        for thread in os.listdir("/proc/self/task"):
            ask_for_slice(seconds, batch=self.crowded, thread=int(thread))


@dataclass(frozen=True, slots=True)
class CpuSample:
    """The runnable threads of a process at one time.

    `at` is in monotonic seconds. `runnable` maps each thread that runs or waits for a core to its CPU time so far
    (s). Threads that are stopped or wait for anything else are not in it.
    """

    at: float
    runnable: Mapping[int, float] = field(default_factory=dict)


def task_state(task: str) -> tuple[str, float]:
    """Return state (a letter of proc_pid_stat(5)) and CPU time (s) of a process (`7`) or thread (`7/task/8`);
    ("", 0) if it has ended."""
    try:
        with open(f"/proc/{task}/stat", encoding="utf-8", errors="replace") as file:
            # The name of the process is in brackets, and may contain brackets.
            fields = file.read().rpartition(")")[2].split()
        return fields[0], (int(fields[11]) + int(fields[12])) * _TICK
    except (OSError, IndexError):
        return "", 0.0


def waited_for_core(pid: int) -> float:
    """Return the time (s) for which the main thread of a process could have run and had no core; 0 if it has ended
    or the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) * 1e-9
    except (OSError, ValueError, IndexError):
        return 0.0


def sample_threads(pid: int, now: float) -> CpuSample:
    """Return the runnable threads of a process; none if it has ended."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        threads = []
    seen = {int(thread): task_state(f"{pid}/task/{thread}") for thread in threads}
    return CpuSample(now, {thread: ran for thread, (state, ran) in seen.items() if state == "R"})


def cpu_wait(before: CpuSample, after: CpuSample) -> float:
    """Return the time (s) between two observations if a thread waited for a core all that time, otherwise 0.

    A thread in an endless loop has a core, so it did not wait.
    """
    span = after.at - before.at
    for thread, ran in after.runnable.items():
        if thread in before.runnable and ran - before.runnable[thread] < MIN_CPU_SHARE * span:
            return span
    return 0.0
