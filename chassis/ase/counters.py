"""What an ASP counts.

    packets from fabric + packets made = packets to fabric + all drops

whenever no batch is in hand; what a kill takes is the difference. What was made is told apart by `fragments made`
(those beyond the first of a packet that was cut) and `icmp made`.

A tunnel has `tunnel N protected packets`, `tunnel N protected octets`, `tunnel N opened packets` and
`tunnel N opened octets`, counted in inner packets; they begin with its first packet.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from chassis.ase.ipsec import causes as ipsec
from chassis.bus.counters import Counters
from chassis.fwd import causes as fwd

TUNNEL_COUNTERS: Final = (
    "protected packets",
    "protected octets",
    "opened packets",
    "opened octets",
)
PROTECTED, OPENED = 0, 2
"""Where a tunnel's pair of slots begins."""


class AspCause(StrEnum):
    """Causes that only an ASP has; the others are those of forwarding and of the packet engine."""

    NO_TUNNEL = "no tunnel"
    TUNNEL_DOWN = "tunnel down"
    NO_SA = "no security association"
    NO_CIRCUIT = "no circuit"
    HOME_DOWN = "line card down"


AnyCause = AspCause | fwd.Cause | ipsec.Cause

FORWARDING: Final = (
    fwd.Cause.FENCED,
    fwd.Cause.OLD_EPOCH,
    fwd.Cause.WRONG_STEP,
    fwd.Cause.SHORT,
    fwd.Cause.VERSION,
    fwd.Cause.HEADER,
    fwd.Cause.CHECKSUM,
    fwd.Cause.MARTIAN_SOURCE,
    fwd.Cause.MARTIAN_DESTINATION,
    fwd.Cause.BROADCAST,
    fwd.Cause.MULTICAST,
    fwd.Cause.TTL,
    fwd.Cause.TOO_LONG,
    fwd.Cause.NO_ROUTE,
    fwd.Cause.DISCARD,
    fwd.Cause.TUNNEL_DOWN,
    fwd.Cause.NEXT_HOP_DOWN,
    fwd.Cause.OWNER_DOWN,
    fwd.Cause.LOOP,
)
"""Causes of forwarding that an ASP can have."""

CAUSES: Final = tuple(dict.fromkeys(cause.value for cause in (*ipsec.Cause, *FORWARDING, *AspCause)))
"""Every cause for which the ASP drops a packet, by the name of its counter."""


class AspCounters:
    """Slots taken once, so that a batch costs a few additions.

    The slots of all causes are taken at the start: thousands of tunnels may fill the table, the sum of the
    named causes stays whole.
    """

    __slots__ = ("_counters", "_fragments", "_icmp", "_made", "_tunnels", "received", "sent", "values")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self.values = counters.values
        self.received = counters.slot("packets from fabric")
        self.sent = counters.slot("packets to fabric")
        self._made = counters.slot("packets made")
        self._fragments = counters.slot("fragments made")
        self._icmp = counters.slot("icmp made")
        for cause in CAUSES:
            counters.slot("drop " + cause)
        self._tunnels: dict[int, tuple[int, ...]] = {}

    def fragments(self, count: int) -> None:
        """Count fragments that were made out of whole packets, without the first of each."""
        self.values[self._made] += count
        self.values[self._fragments] += count

    def error(self) -> None:
        """Count an ICMP error."""
        self.values[self._made] += 1
        self.values[self._icmp] += 1

    def tunnel(self, number: int, which: int, packets: int, octets: int) -> None:
        """Count packets and their octets for a tunnel; `which` is `PROTECTED` or `OPENED`."""
        slots = self._tunnels.get(number)
        if slots is None:
            slot = self._counters.slot
            slots = self._tunnels[number] = tuple([slot(f"tunnel {number} {name}") for name in TUNNEL_COUNTERS])
        self.values[slots[which]] += packets
        self.values[slots[which + 1]] += octets

    def forget(self, number: int) -> None:
        """The tunnel is no more here; its counters stay in the file."""
        self._tunnels.pop(number, None)
