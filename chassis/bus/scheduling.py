"""How soon a process that has something to do gets a core that another one has (Linux 6.12 and later).

Linux gives the cores in slices: who wakes waits, in the worst case, for the end of the slice of whoever runs.
Processes that carry packets run for a moment at a time, and a packet meets many of them: each asks for a short
slice, which also lets it interrupt those with longer ones. It has no more of the processor's time for that, only
sooner, and it needs no rights.

Between groups of processes (terminals, containers) Linux shares the cores less evenly than within one: a process
may wait for hundreds of milliseconds while another group has its core. From outside it looks hung; what Linux says
of its threads tells that it is not.
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
"""Seconds: what a process that carries packets asks for."""
COMPUTE_SLICE: Final = 0.004
"""Seconds: what one asks for that computes for long at a time."""

MIN_CPU_SHARE: Final = 0.25
"""Share of a core: a thread that could run all the while and had less of it waited."""

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")

_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""struct sched_attr, version 0: size, policy, flags, nice, priority, runtime, deadline, period."""
_NORMAL = 0
_CALLS: Final = {"x86_64": 314, "aarch64": 274}
"""Number of the sched_setattr call, which the C library has no function for, by machine."""

_libc = ctypes.CDLL(None, use_errno=True)


def ask_for_slice(seconds: float) -> bool:
    """Ask for slices of this length, for this process and what it forks from now on. An older kernel takes the
    call and makes nothing of it; says whether this machine has it."""
    call = _CALLS.get(platform.machine())
    if call is None:
        return False
    nanoseconds = round(seconds * 1e9)
    nice = os.nice(0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, _NORMAL, 0, nice, 0, nanoseconds, 0, 0)
    return bool(_libc.syscall(call, 0, attributes, 0) == 0)


@dataclass(frozen=True, slots=True)
class CpuSample:
    """A process as Linux shows it at one time.

    `at` is in seconds, monotonic. `runnable` has the threads that run or would if they were given a core, and for
    how many seconds each has had one so far. A thread that was stopped, or waits for anything else, is not in it.
    """

    at: float
    runnable: Mapping[int, float] = field(default_factory=dict)


def task_state(task: str) -> tuple[str, float]:
    """The state of a process (`7`) or of a thread (`7/task/8`), a letter of proc_pid_stat(5), and for how many
    seconds it has had a core so far. Of one that is gone: no letter, and 0."""
    try:
        with open(f"/proc/{task}/stat", encoding="utf-8", errors="replace") as file:
            # The name of the process is in brackets, and may have any in it.
            fields = file.read().rpartition(")")[2].split()
        return fields[0], (int(fields[11]) + int(fields[12])) * _TICK
    except (OSError, IndexError):
        return "", 0.0


def sample_threads(pid: int, now: float) -> CpuSample:
    """How the threads of a process stand; of one that is gone, none do."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        threads = []
    seen = {int(thread): task_state(f"{pid}/task/{thread}") for thread in threads}
    return CpuSample(now, {thread: ran for thread, (state, ran) in seen.items() if state == "R"})


def cpu_wait(before: CpuSample, after: CpuSample) -> float:
    """Seconds between two looks at a process, if a thread of it waited for a core all that time; otherwise 0.

    One that goes round in a circle has its core, and did not wait.
    """
    span = after.at - before.at
    for thread, ran in after.runnable.items():
        if thread in before.runnable and ran - before.runnable[thread] < MIN_CPU_SHARE * span:
            return span
    return 0.0
