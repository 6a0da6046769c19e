"""The CHILD SAs of an IKE SA of version 2: their states, which one of a policy entry sends (RFC 7296 1.3, 2.8)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from chassis.ase.ike.child_proposals import Suite
from chassis.ase.ike.connection import Line
from chassis.ase.ike.host import Child
from chassis.ase.ike.payloads.numbers import Protocol
from chassis.ase.link import SaDelete, SaInstall, SaMove, SaSwitch
from chassis.bus.records import AclRuleRecord
from chassis.state_machine import StateMachine, without_actions

if TYPE_CHECKING:
    from chassis.ase.ike.v2.session import SessionV2


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


_TRANSITIONS: dict[ChildSaState, dict[ChildSaEvent, ChildSaState]] = {
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
    def networks(self) -> tuple[tuple[int, int], ...]:
        """The peer's networks as negotiated: (address, prefix length), each once."""
        found = {(rule.destination, rule.destination_length): None for rule in self.rules}
        return tuple(found) or ((0, 0),)


MAX_CHILD_SAS_PER_ENTRY = 4
"""Pairs of one policy line: the old one, a successor from each end, and one to spare."""


class ChildSasV2:
    """`by_serial` holds every pair that is installed, oldest first; `sending` the one that sends, by line."""

    def __init__(self) -> None:
        self.by_serial: dict[int, ChildSaV2] = {}
        self.sending: dict[int, ChildSaV2] = {}

    def find(self, protocol: int, spi: bytes) -> ChildSaV2 | None:
        """The pair whose outbound SPI this is: what the peer calls its own."""
        for child in self.by_serial.values():
            if protocol != Protocol.IPCOMP and child.outbound.get(protocol) == spi:
                return child
        return None

    def of(self, seq: int) -> list[ChildSaV2]:
        """Pairs of a policy line, oldest first."""
        return [child for child in self.by_serial.values() if child.line.seq == seq]

    def served(self, seq: int) -> bool:
        """Whether a policy line has a pair that lives on."""
        return any(child.live for child in self.of(seq))


def install(session: SessionV2, child: ChildSaV2, message: SaInstall, now: float) -> None:
    """A pair comes into use; `message.send` says whether it sends from now on."""
    children = session.children
    children.by_serial[child.serial] = child
    if message.send:
        child.transition(ChildSaEvent.INSTALL)
        children.sending[child.line.seq] = child
    else:
        child.transition(ChildSaEvent.STAND_BY)
    session.host.emit(message)
    session.host.installed(session, described(session, child), now)


def described(session: SessionV2, child: ChildSaV2) -> Child:
    """A pair as the engine keeps it."""
    return Child(session.tunnel, child.serial, child.line.seq, child.networks, child.replaces)


def switch(session: SessionV2, child: ChildSaV2) -> None:
    """A pair that only received sends from now on."""
    child.transition(ChildSaEvent.SWITCH)
    session.children.sending[child.line.seq] = child
    session.host.emit(SaSwitch(session.tunnel, child.serial))


def remove(session: SessionV2, child: ChildSaV2, reason: str, now: float) -> None:
    """A pair goes; if it sent, another one of its line sends first."""
    children, seq = session.children, child.line.seq
    if children.by_serial.pop(child.serial, None) is None:
        return
    if children.sending.get(seq) is child:
        del children.sending[seq]
        _inherit(session, seq)
    child.transition(ChildSaEvent.END)
    session.host.emit(SaDelete(session.tunnel, child.serial, reason))
    session.host.release(child.inbound)
    session.host.removed(session, described(session, child), reason, now)


def _inherit(session: SessionV2, seq: int) -> None:
    """Have the newest pair that is left send for a line."""
    left = session.children.of(seq)
    heir = next((one for one in reversed(left) if one.state is ChildSaState.STANDBY), None)
    if heir is not None:
        switch(session, heir)
        return
    heir = next((one for one in reversed(left) if one.live), None)
    if heir is None:
        heir = next((one for one in reversed(left) if one.allows(ChildSaEvent.RESUME)), None)
        if heir is None:
            return
        heir.transition(ChildSaEvent.RESUME)
    session.children.sending[seq] = heir
    session.host.emit(SaSwitch(session.tunnel, heir.serial))


def remove_all(session: SessionV2, reason: str, now: float) -> None:
    """All pairs go, none of them replaced."""
    session.children.sending.clear()
    for child in list(session.children.by_serial.values()):
        remove(session, child, reason, now)


def moved(session: SessionV2) -> None:
    """The peer is reached by another address or port: so are its pairs."""
    encapsulation = session.encapsulation
    if encapsulation:
        for serial in session.children.by_serial:
            session.host.emit(SaMove(session.tunnel, serial, encapsulation[0]))
