"""The pairs of an IKE SA, and what the data engine is told: no line is without one while there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chassis.ase.ike.host import Child
from chassis.ase.ike.payloads.numbers import Protocol
from chassis.ase.ike.v2.child_sa import ChildSaEvent, ChildSaState, ChildSaV2
from chassis.ase.link import SaDelete, SaInstall, SaMove, SaSwitch

if TYPE_CHECKING:
    from chassis.ase.ike.v2.session import SessionV2

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
        child.take(ChildSaEvent.INSTALL)
        children.sending[child.line.seq] = child
    else:
        child.take(ChildSaEvent.STAND_BY)
    session.host.emit(message)
    session.host.installed(session, described(session, child), now)


def described(session: SessionV2, child: ChildSaV2) -> Child:
    """A pair as the engine keeps it."""
    return Child(session.tunnel, child.serial, child.line.seq, child.networks, child.replaces)


def switch(session: SessionV2, child: ChildSaV2) -> None:
    """A pair that only received sends from now on."""
    child.take(ChildSaEvent.SWITCH)
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
    child.take(ChildSaEvent.END)
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
        heir = next((one for one in reversed(left) if one.may(ChildSaEvent.RESUME)), None)
        if heir is None:
            return
        heir.take(ChildSaEvent.RESUME)
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
