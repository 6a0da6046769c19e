"""How soon a process that has something to do gets a core that another one has (Linux 6.12 and later).

Linux gives the cores in slices: who wakes waits, in the worst case, for the end of the slice of whoever runs.
Processes that carry packets run for a moment at a time, and a packet meets many of them: each asks for a short
slice, which also lets it interrupt those with longer ones. It has no more of the processor's time for that, only
sooner, and it needs no rights.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final

SHORT: Final = 0.0002
"""Seconds: what a process that carries packets asks for."""
LONG: Final = 0.004
"""Seconds: what one asks for that computes for long at a time."""

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
