"""Packet counters of a line card: each packet that came in or was originated is found in exactly one place.

    from wire + from fabric + originated = to wire + to fabric + delivered + queued + all drops

`queued` is what waits at this moment: for its neighbour's hardware address, or for the rest of its fragments.
`drops` are those of `chassis.fwd.drop_causes`; what a shell drops after that is in the shell's own counters.
"""

from __future__ import annotations

from collections.abc import Iterable

from chassis.bus.counters import Counters
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.forwarder import ORIGINATED

FROM_WIRE = "packets from wire"
FROM_FABRIC = "packets from fabric"
TO_WIRE = "packets to wire"
TO_FABRIC = "packets to fabric"
DELIVERED = "packets delivered"
WAITING = "packets queued"


class PacketCounters:
    """Slots of the counters of packets, taken once; hot paths add to `values[slot]`."""

    __slots__ = (
        "delivered",
        "from_fabric",
        "from_wire",
        "originated",
        "to_fabric",
        "to_wire",
        "values",
        "waiting",
    )

    def __init__(self, counters: Counters) -> None:
        self.values = counters.values
        self.from_wire = counters.slot(FROM_WIRE)
        self.from_fabric = counters.slot(FROM_FABRIC)
        self.originated = counters.slot(ORIGINATED)
        self.to_wire = counters.slot(TO_WIRE)
        self.to_fabric = counters.slot(TO_FABRIC)
        self.delivered = counters.slot(DELIVERED)
        self.waiting = counters.slot(WAITING)
        # A new process of the card holds no packets of the one before it.
        self.values[self.waiting] = 0

    def add_waiting(self, packets: int) -> None:
        """Count packets that wait from now on; a negative number no longer does."""
        self.values[self.waiting] += packets


_NO_LOSS = ("duplicate", "reorder")
"""Faults of a wire that lose no packet."""


def port_counters(counters: Counters, ports: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return, by port, the packets that it received and sent, and those that it dropped or its wire lost.

    The shell's drivers of the ports count them.
    """
    found = {port: {"packets_in": 0, "packets_out": 0, "drops": 0} for port in ports}
    for name, value in counters.items() if found else ():
        if not name.startswith("port "):
            continue
        _, port, *words = name.split(" ")
        row = found.get(port)
        if row is None:
            continue
        if words[0] == "frames":
            row["packets_out" if words[1] == "sent" else "packets_in"] += value
        elif words[-1] not in _NO_LOSS:
            row["drops"] += value
    return found


def unaccounted(counters: Counters) -> int:
    """Packets that the balance does not explain: zero, unless there is a bug."""
    seen = dict(counters.items())
    came = seen.get(FROM_WIRE, 0) + seen.get(FROM_FABRIC, 0) + seen.get(ORIGINATED, 0)
    went = seen.get(TO_WIRE, 0) + seen.get(TO_FABRIC, 0) + seen.get(DELIVERED, 0) + seen.get(WAITING, 0)
    return came - went - sum(seen.get(f"drop {cause}", 0) for cause in DropCause)
