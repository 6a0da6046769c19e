"""How the C library keeps the memory of large buffers (mallopt(3), GNU libc only)."""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

MAX_KEPT_OCTETS: Final = 16 << 20
"""Free memory (octets) at the end of the heap that is not given back to the system."""


def keep_large_buffers() -> None:
    """Keep freed buffers for the next batch.

    A batch of large packets takes several buffers of 100 kB and more. By default each is mapped when it is made
    and unmapped when it is freed, or the heap grows and shrinks with it, which costs more than to fill it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAX_KEPT_OCTETS)
        mallopt(_M_TRIM_THRESHOLD, MAX_KEPT_OCTETS)
