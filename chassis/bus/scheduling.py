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
from typing import Final

PACKET_SLICE: Final = 0.0002
"""Slice (s) of a process that carries packets."""
COMPUTE_SLICE: Final = 0.004
"""Slice (s) of a process that computes for a long time without a break."""

MIN_CPU_SHARE: Final = 0.25
"""Share of a core (0 to 1). A thread that was runnable and had less of a core waited for it."""

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")

_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""struct sched_attr, version 0: size, policy, flags, nice, priority, runtime, deadline, period."""
_NORMAL = 0
_CALLS: Final = {"x86_64": 314, "aarch64": 274}
"""Number of the system call sched_setattr by machine; the C library has no function for it."""

_libc = ctypes.CDLL(None, use_errno=True)


def ask_for_slice(seconds: float) -> bool:
    """Ask for slices of this length (s) for this process and its later children. An older kernel ignores the
    length. Return whether the machine has the system call."""
    call = _CALLS.get(platform.machine())
    if call is None:
        return False
    nanoseconds = round(seconds * 1e9)
    nice = os.nice(0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, _NORMAL, 0, nice, 0, nanoseconds, 0, 0)
    return bool(_libc.syscall(call, 0, attributes, 0) == 0)


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
