"""The CHILD SAs of an IKE SA of version 2: their states, which one of a policy entry sends (RFC 7296 1.3, 2.8)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from chassis.ase.ike.child_proposals import Suite
from chassis.ase.ike.connections import PolicyEntry
from chassis.ase.ike.payloads.numbers import Protocol
from chassis.model.acl import AclRule
from chassis.net.address import ANY
from chassis.state_machine import StateMachine, without_actions


class ChildSaState(Enum):
    CREATED = "new"
    INBOUND_INSTALLED = "standby"
    """It receives; another CHILD SA of its policy entry sends."""
    INSTALLED = "active"
    REKEYING = "rekeying"
    """Installed, and our request to rekey it is pending."""
    REKEYED = "replaced"
    """Its successor is installed; one of the ends deletes it."""
    DELETING = "deleting"
    """It receives until the response to our Delete."""
    DELETED = "gone"


class ChildSaEvent(Enum):
    INSTALL = "installed to send and receive"
    INSTALL_INBOUND = "installed to receive"
    ACTIVATE_OUTBOUND = "outbound SA activated"
    REKEY = "rekey started"
    REKEY_FAILED = "rekey failed"
    REKEY_DONE = "successor installed"
    REKEY_UNDONE = "successor deleted"
    DELETE_STARTED = "delete started"
    DELETED = "deleted"


_TRANSITIONS: dict[ChildSaState, dict[ChildSaEvent, ChildSaState]] = {
    ChildSaState.CREATED: {
        ChildSaEvent.INSTALL: ChildSaState.INSTALLED,
        ChildSaEvent.INSTALL_INBOUND: ChildSaState.INBOUND_INSTALLED,
        ChildSaEvent.DELETED: ChildSaState.DELETED,
    },
    ChildSaState.INBOUND_INSTALLED: {
        ChildSaEvent.ACTIVATE_OUTBOUND: ChildSaState.INSTALLED,
        ChildSaEvent.REKEY_DONE: ChildSaState.REKEYED,
        ChildSaEvent.DELETE_STARTED: ChildSaState.DELETING,
        ChildSaEvent.DELETED: ChildSaState.DELETED,
    },
    ChildSaState.INSTALLED: {
        ChildSaEvent.REKEY: ChildSaState.REKEYING,
        ChildSaEvent.REKEY_DONE: ChildSaState.REKEYED,
        ChildSaEvent.DELETE_STARTED: ChildSaState.DELETING,
        ChildSaEvent.DELETED: ChildSaState.DELETED,
    },
    ChildSaState.REKEYING: {
        ChildSaEvent.REKEY_FAILED: ChildSaState.INSTALLED,
        ChildSaEvent.REKEY_DONE: ChildSaState.REKEYED,
        ChildSaEvent.DELETE_STARTED: ChildSaState.DELETING,
        ChildSaEvent.DELETED: ChildSaState.DELETED,
    },
    ChildSaState.REKEYED: {
        ChildSaEvent.REKEY_UNDONE: ChildSaState.INSTALLED,
        ChildSaEvent.DELETE_STARTED: ChildSaState.DELETING,
        ChildSaEvent.DELETED: ChildSaState.DELETED,
    },
    ChildSaState.DELETING: {
        ChildSaEvent.DELETED: ChildSaState.DELETED,
    },
    ChildSaState.DELETED: {},
}

CHILD_SA = StateMachine(
    "IKEv2, a CHILD SA",
    ChildSaState,
    ChildSaEvent,
    without_actions(_TRANSITIONS),
    theory="""\
One CHILD SA: a pair of IPsec SAs, one of each direction (RFC 7296 1.3, 2.8, 2.25.1; RFC 4301 4.1).

A new CHILD SA sends at once unless another one of its policy entry does: then it only receives until the peer's
first packet or the deletion of the other one activates its outbound SA.
A rekey of ours keeps the CHILD SA in use until the response. When the successor is installed, the replaced one
still receives, and one end deletes it. If the successor is deleted first, the replaced one sends again, so a
policy entry has an outbound SA as long as one CHILD SA is left.
Until the response to our Delete, the CHILD SA receives what the peer sent before it got the Delete.
If both ends rekey at once, the CHILD SA negotiated with the lowest nonce is redundant and deleted unused.
""",
    partial=True,
)

LIVE_STATES = frozenset((ChildSaState.INBOUND_INSTALLED, ChildSaState.INSTALLED, ChildSaState.REKEYING))
"""States in which its policy entry needs no other CHILD SA."""


@dataclass(slots=True, eq=False)
class ChildSaV2:
    """One CHILD SA. `spis_in` and `spis_out` are SPIs by protocol; our CPI is in `spis_in` under IPCOMP.

    `rules` are the negotiated selectors; `()` is everything. `lowest_nonce` is the lower of the two nonces of its
    negotiation, which decides which of two simultaneous CHILD SAs is redundant (RFC 7296 2.8.1). `replaces` is the
    serial of its predecessor or 0. `soft` is when to rekey it, `hard` when its lifetime ends (s, monotonic clock).
    """

    entry: PolicyEntry
    serial: int
    suite: Suite
    spis_in: Mapping[int, bytes]
    spis_out: Mapping[int, bytes]
    rules: tuple[AclRule, ...]
    initiator: bool
    lowest_nonce: bytes = field(repr=False)
    replaces: int = 0
    cpi_out: int = 0
    created_at: float = 0.0
    soft: float = math.inf
    hard: float = math.inf
    reason: str = ""
    """Why it is being deleted."""
    colliding_child: ChildSaV2 | None = None
    """The successor that the peer created while our own request to rekey this CHILD SA was pending."""
    state: ChildSaState = ChildSaState.CREATED

    def allows(self, event: ChildSaEvent) -> bool:
        """Return whether the event is possible now."""
        return CHILD_SA.allows(self.state, event)

    def transition(self, event: ChildSaEvent) -> None:
        """Change the state as the table says.

        Raises:
            IllegalTransition: the event is impossible in this state.
        """
        self.state, _ = CHILD_SA.transition(self.state, event)

    @property
    def live(self) -> bool:
        return self.state in LIVE_STATES

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        return self.suite.protocols

    @property
    def remote_networks(self) -> tuple[tuple[int, int], ...]:
        """The peer's networks as negotiated: (address, prefix length), each once; (0, 0) is everything."""
        return tuple(dict.fromkeys(rule.destination for rule in self.rules)) or (ANY,)


MAX_CHILD_SAS_PER_ENTRY = 4
"""CHILD SAs of one policy entry (count): the old one, a successor from each end, and one to spare."""


class ChildSasV2:
    """Installed CHILD SAs by serial, oldest first; `current_outbound` is the one that sends, by policy entry."""

    __slots__ = ("by_serial", "current_outbound")

    def __init__(self) -> None:
        self.by_serial: dict[int, ChildSaV2] = {}
        self.current_outbound: dict[int, ChildSaV2] = {}

    def find_by_outbound_spi(self, protocol: int, spi: bytes) -> ChildSaV2 | None:
        """Return the CHILD SA with this outbound SPI, by which the peer names it; None without one."""
        for child in self.by_serial.values():
            if protocol != Protocol.IPCOMP and child.spis_out.get(protocol) == spi:
                return child
        return None

    def of_entry(self, seq: int) -> list[ChildSaV2]:
        """Return the CHILD SAs of a policy entry, oldest first."""
        return [child for child in self.by_serial.values() if child.entry.seq == seq]

    def has_child(self, seq: int) -> bool:
        """Return whether a policy entry has a CHILD SA that is neither replaced nor being deleted."""
        return any(child.live for child in self.of_entry(seq))
