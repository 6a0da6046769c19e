"""Dead peer detection (RFC 3706): R-U-THERE after a silence, and how many may stay without an answer.

A sign of life is a message that the peer made just now, as sequence numbers show (section 7): an answer has the
number of a question that waits for one, a question has a higher number than the peer's last.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from chassis.ase.ike.payloads.v1 import VendorV1

DPD_VENDOR: Final = VendorV1(bytes.fromhex("afcad71368a1f1c96b8696fc77570100"))


def newer(number: int, before: int | None) -> bool:
    """Whether a R-U-THERE has a higher number than the one before; numbers begin again after the last one."""
    return before is None or 0 < (number - before) & 0xFFFFFFFF < 1 << 31


@dataclass(slots=True)
class Detector:
    """One side's probing of its peer. `due` is when the next probe, or the verdict, is to be made.

    A probe goes out after `interval` seconds without a sign of life and again each `interval`; after `tries`
    probes without one, and another interval, the peer is dead.
    """

    interval: float
    tries: int
    sequence: int
    """Number of the next R-U-THERE; the first one is random (RFC 3706 5.4)."""
    due: float = inf
    sent: int = 0

    def rest(self, now: float) -> None:
        """A sign of life."""
        self.sent = 0
        self.due = now + self.interval

    def answers(self, number: int) -> bool:
        """Whether one of the probes since the last sign of life has this number."""
        return 0 < (self.sequence - number) & 0xFFFFFFFF <= self.sent

    def probe(self, now: float) -> int | None:
        """The number to ask with, None when the peer counts as dead."""
        if self.sent >= self.tries:
            return None
        number = self.sequence
        self.sequence = (self.sequence + 1) & 0xFFFFFFFF
        self.sent += 1
        self.due = now + self.interval
        return number
