"""The balance of a line card: every packet that came in or was made is found again in exactly one place.

    from wire + from fabric + made = to wire + to fabric + consumed + waiting + all drops

`waiting` is what waits at this moment: for its neighbour's hardware address, or for the rest of its fragments.
`drops` are those of `chassis.fwd.drop_causes`; what a shell drops after that is in the shell's own counters.
"""

from __future__ import annotations

from chassis.bus.counters import Counters
from chassis.fwd.drop_causes import DropCause

FROM_WIRE = "packets from wire"
FROM_FABRIC = "packets from fabric"
MADE = "packets originated"
TO_WIRE = "packets to wire"
TO_FABRIC = "packets to fabric"
CONSUMED = "packets delivered"
WAITING = "packets queued"


class Balance:
    """Slots of the balance, taken once; hot paths add to `values[slot]`."""

    __slots__ = ("consumed", "from_fabric", "from_wire", "made", "to_fabric", "to_wire", "values", "waiting")

    def __init__(self, counters: Counters) -> None:
        self.values = counters.values
        self.from_wire = counters.slot(FROM_WIRE)
        self.from_fabric = counters.slot(FROM_FABRIC)
        self.made = counters.slot(MADE)
        self.to_wire = counters.slot(TO_WIRE)
        self.to_fabric = counters.slot(TO_FABRIC)
        self.consumed = counters.slot(CONSUMED)
        self.waiting = counters.slot(WAITING)
        # A new process of the card holds no packets of the one before it.
        self.values[self.waiting] = 0


def unaccounted(counters: Counters) -> int:
    """Packets that the balance does not explain: zero, unless there is a bug."""
    seen = dict(counters.items())
    came = seen.get(FROM_WIRE, 0) + seen.get(FROM_FABRIC, 0) + seen.get(MADE, 0)
    went = seen.get(TO_WIRE, 0) + seen.get(TO_FABRIC, 0) + seen.get(CONSUMED, 0) + seen.get(WAITING, 0)
    return came - went - sum(seen.get(f"drop {cause}", 0) for cause in DropCause)
