"""The CHILD SAs of an IKE SA of version 2: their states, which one of a policy entry sends (RFC 7296 1.3, 2.8)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from chassis.ase.ike.child_proposals import Suite
from chassis.ase.ike.connections import Line
from chassis.ase.ike.payloads.numbers import Protocol
from chassis.model.acl import AclRule
from chassis.net.address import ANY
from chassis.state_machine import StateMachine, without_actions


class ChildSaState(Enum):
    CREATED = "new"
    INBOUND_INSTALLED = "standby"
    """It receives; another pair of its line sends."""
    INSTALLED = "active"
    REKEYING = "rekeying"
    """Active, and our request to replace it is out."""
    REKEYED = "replaced"
    """Its successor is installed; one of the ends deletes it."""
    DELETING = "deleting"
    """It still receives while our delete is on its way."""
    DELETED = "gone"


class ChildSaEvent(Enum):
    INSTALL = "installed to send"
    INSTALL_INBOUND = "installed to receive"
    ACTIVATE_OUTBOUND = "sends from now on"
    REKEY = "replacement begun"
    REKEY_FAILED = "replacement came to nothing"
    REKEY_DONE = "successor installed"
    REKEY_UNDONE = "successor deleted"
    DELETE_STARTED = "to be deleted"
    DELETED = "gone"


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
A rekey of ours keeps the CHILD SA in use until the answer. When the successor is installed, the replaced one
still receives, and one end deletes it. If the successor is deleted first, the replaced one sends again, so a
policy entry has an outbound SA as long as one CHILD SA is left.
While our own Delete is out, the CHILD SA receives what the peer sent before it saw the Delete.
If both ends rekey at once, the CHILD SA negotiated with the lowest nonce is redundant and deleted unused.
""",
    partial=True,
)

LIVE_STATES = frozenset((ChildSaState.INBOUND_INSTALLED, ChildSaState.INSTALLED, ChildSaState.REKEYING))
"""States in which it serves its line."""


@dataclass(slots=True, eq=False)
class ChildSaV2:
    """One pair. `inbound` and `outbound` are SPIs by protocol (our CPI is in `inbound` under IPCOMP).

    `lowest` is the lower of the two nonces of its negotiation: of two pairs that were made at once for the same
    line the one with the lowest nonce of all is redundant (RFC 7296 2.8.1). `rival` is the pair that the peer made
    while our own request to replace this one was out. Times are of the monotonic clock.
    """

    entry: Line
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
    """Why it is to be deleted."""
    colliding_child: ChildSaV2 | None = None
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
        """The peer's networks as negotiated: (address, prefix length), each once."""
        return tuple(dict.fromkeys(rule.destination for rule in self.rules)) or (ANY,)


MAX_CHILD_SAS_PER_ENTRY = 4
"""Pairs of one policy line: the old one, a successor from each end, and one to spare."""


class ChildSasV2:
    """`by_serial` holds every pair that is installed, oldest first; `sending` the one that sends, by line."""

    def __init__(self) -> None:
        self.by_serial: dict[int, ChildSaV2] = {}
        self.current_outbound: dict[int, ChildSaV2] = {}

    def find_by_outbound_spi(self, protocol: int, spi: bytes) -> ChildSaV2 | None:
        """The pair whose outbound SPI this is: what the peer calls its own."""
        for child in self.by_serial.values():
            if protocol != Protocol.IPCOMP and child.spis_out.get(protocol) == spi:
                return child
        return None

    def of_entry(self, seq: int) -> list[ChildSaV2]:
        """Pairs of a policy line, oldest first."""
        return [child for child in self.by_serial.values() if child.entry.seq == seq]

    def has_child(self, seq: int) -> bool:
        """Whether a policy line has a pair that lives on."""
        return any(child.live for child in self.of_entry(seq))
