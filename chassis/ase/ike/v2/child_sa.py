"""A CHILD SA of version 2: what is known of a pair, and its states as a table (RFC 7296 1.3, 2.8, 2.25.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from chassis.ase.ike.child_proposals import Suite
from chassis.ase.ike.connection import Line
from chassis.ase.ike.payloads.numbers import Protocol
from chassis.bus.records import AclRuleRecord


class ChildSaState(Enum):
    NEW = "new"
    STANDBY = "standby"
    """It receives; another pair of its line sends."""
    ACTIVE = "active"
    REKEYING = "rekeying"
    """Active, and our request to replace it is out."""
    REPLACED = "replaced"
    """Its successor is installed; one of the ends deletes it."""
    DELETING = "deleting"
    """It still receives while our delete is on its way."""
    GONE = "gone"


class ChildSaEvent(Enum):
    INSTALL = "installed to send"
    STAND_BY = "installed to receive"
    SWITCH = "sends from now on"
    REKEY = "replacement begun"
    KEEP = "replacement came to nothing"
    REPLACE = "successor installed"
    RESUME = "successor deleted"
    CLOSE = "to be deleted"
    END = "gone"


TRANSITIONS: dict[ChildSaState, dict[ChildSaEvent, ChildSaState]] = {
    ChildSaState.NEW: {
        ChildSaEvent.INSTALL: ChildSaState.ACTIVE,
        ChildSaEvent.STAND_BY: ChildSaState.STANDBY,
        ChildSaEvent.END: ChildSaState.GONE,
    },
    ChildSaState.STANDBY: {
        ChildSaEvent.SWITCH: ChildSaState.ACTIVE,
        ChildSaEvent.REPLACE: ChildSaState.REPLACED,
        ChildSaEvent.CLOSE: ChildSaState.DELETING,
        ChildSaEvent.END: ChildSaState.GONE,
    },
    ChildSaState.ACTIVE: {
        ChildSaEvent.REKEY: ChildSaState.REKEYING,
        ChildSaEvent.REPLACE: ChildSaState.REPLACED,
        ChildSaEvent.CLOSE: ChildSaState.DELETING,
        ChildSaEvent.END: ChildSaState.GONE,
    },
    ChildSaState.REKEYING: {
        ChildSaEvent.KEEP: ChildSaState.ACTIVE,
        ChildSaEvent.REPLACE: ChildSaState.REPLACED,
        ChildSaEvent.CLOSE: ChildSaState.DELETING,
        ChildSaEvent.END: ChildSaState.GONE,
    },
    ChildSaState.REPLACED: {
        ChildSaEvent.RESUME: ChildSaState.ACTIVE,
        ChildSaEvent.CLOSE: ChildSaState.DELETING,
        ChildSaEvent.END: ChildSaState.GONE,
    },
    ChildSaState.DELETING: {
        ChildSaEvent.END: ChildSaState.GONE,
    },
    ChildSaState.GONE: {},
}

LIVE_STATES = frozenset((ChildSaState.STANDBY, ChildSaState.ACTIVE, ChildSaState.REKEYING))
"""States in which it serves its line."""


@dataclass(slots=True, eq=False)
class ChildSaV2:
    """One pair. `inbound` and `outbound` are SPIs by protocol (our CPI is in `inbound` under IPCOMP).

    `lowest` is the lower of the two nonces of its negotiation: of two pairs that were made at once for the same
    line the one with the lowest nonce of all is redundant (RFC 7296 2.8.1). `rival` is the pair that the peer made
    while our own request to replace this one was out. Times are of the monotonic clock.
    """

    line: Line
    serial: int
    suite: Suite
    inbound: Mapping[int, bytes]
    outbound: Mapping[int, bytes]
    rules: tuple[AclRuleRecord, ...]
    initiator: bool
    lowest: bytes = field(repr=False)
    replaces: int = 0
    cpi_out: int = 0
    born: float = 0.0
    soft: float = math.inf
    hard: float = math.inf
    reason: str = ""
    """Why it is to be deleted."""
    rival: ChildSaV2 | None = None
    state: ChildSaState = ChildSaState.NEW

    def may(self, event: ChildSaEvent) -> bool:
        return event in TRANSITIONS[self.state]

    def take(self, event: ChildSaEvent) -> None:
        """Go where the table says; KeyError where it has no row, which is a bug of ours."""
        self.state = TRANSITIONS[self.state][event]

    @property
    def live(self) -> bool:
        return self.state in LIVE_STATES

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        return self.suite.protocols

    @property
    def networks(self) -> tuple[tuple[int, int], ...]:
        """The peer's networks as negotiated: (address, prefix length), each once."""
        found = {(rule.destination, rule.destination_length): None for rule in self.rules}
        return tuple(found) or ((0, 0),)
