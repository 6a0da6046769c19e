"""QoS policies of ports, which mark what comes in (guide 8.5: "QoS remarking on the ingress line card").

The mark of a packet is its priority descriptor (PD), of the six-bit scale of the DSCP. It chooses the queue of an
SA instead of the packet's DSCP; the packet stays as it is. No manual of the router was found that says how its
policies mark; that both marks set the PD, and the scale of `mark priority`, are a choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from chassis.model.source import Kept, kept_field, line_field, written_field

DSCPS: Final[Mapping[str, int]] = {
    **{f"cs{number}": number << 3 for number in range(8)},
    **{f"af{group}{drop}": group << 3 | drop << 1 for group in range(1, 5) for drop in range(1, 4)},
    "ef": 46,
    "df": 0,
}
"""Values of the DSCP by name (RFC 4594); the first name of a value is printed."""

POLICY_KINDS: Final = frozenset({"policing", "metering", "queuing", "pq", "pwfq", "edrr", "mdrr", "atmwfq"})
"""Words after the name of a policy, which say what it is."""

MAX_PRIORITY: Final = 7
"""The lowest priority of `mark priority`; 0 is the highest."""


@dataclass(frozen=True, slots=True)
class PolicingPolicy:
    """`qos policy NAME policing`. `dscp` (0 to 63) or `priority` (0 to 7, 0 the highest) marks every packet; both
    are None for a policy that marks nothing."""

    name: str
    dscp: int | None = None
    priority: int | None = None
    kept: tuple[Kept, ...] = kept_field()
    written: frozenset[str] = written_field()
    line: int = line_field()

    @property
    def descriptor(self) -> int | None:
        """The PD that packets get; None: the DSCP of each decides. A priority is two of it to a queue."""
        if self.priority is not None:
            return (MAX_PRIORITY - self.priority) << 3
        return self.dscp


CLASS_COUNT: Final = 4
"""Traffic classes of packets: 0 the highest, 3 the lowest (guide 8.5, table 3; S-040)."""

LOWEST_CLASS: Final = CLASS_COUNT - 1


def class_of(value: int) -> int:
    """Return the class of a six-bit DSCP or PD value: two class selectors per class, a higher value is more
    urgent."""
    return LOWEST_CLASS - (value >> 4)
