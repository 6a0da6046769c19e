"""INFORMATIONAL: deletes of both kinds, liveness (RFC 7296 1.4, 2.4, 2.25)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from chassis.ase.ike.payloads.numbers import NotifyTypeV2, Protocol
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import DeleteV2, NotifyV2
from chassis.ase.ike.v2 import rekey_ike_sa
from chassis.ase.ike.v2.child_sas import ChildSaEvent, ChildSaState, ChildSaV2, remove
from chassis.ase.ike.v2.ike_sa import Task

if TYPE_CHECKING:
    from chassis.ase.ike.v2.session import SessionV2


MAX_UNKNOWN_DELETES = 64
"""Unknown SPIs of deletes that are kept in mind."""


def deletes(spis: Iterable[Mapping[int, bytes]]) -> tuple[DeleteV2, ...]:
    """Delete payloads for pairs by their inbound SPIs, one payload for each protocol."""
    by_protocol: dict[int, list[bytes]] = {}
    for pair in spis:
        for protocol, spi in pair.items():
            if protocol != Protocol.IPCOMP:
                by_protocol.setdefault(protocol, []).append(spi)
    return tuple(DeleteV2(protocol, tuple(found)) for protocol, found in by_protocol.items())


class DeleteChildTask(Task):
    """Delete a pair. It receives until the peer has answered, so that nothing on its way is lost."""

    urgent: ClassVar[bool] = True

    def __init__(self, child: ChildSaV2, reason: str) -> None:
        self.child = child
        self.reason = reason

    def build_request(self, session: SessionV2, now: float) -> tuple[PayloadV2, ...] | None:
        if self.child.state is ChildSaState.DELETED:
            return None
        return deletes((self.child.spis_in,))

    def on_response(self, session: SessionV2, payloads: tuple[PayloadV2, ...], now: float) -> None:
        remove(session, self.child, self.reason, now)

    def on_malformed_response(self, session: SessionV2, reason: str, now: float) -> None:
        remove(session, self.child, self.reason, now)


class DeleteChildSpisTask(Task):
    """Tell the peer of a pair that is gone here already, or that never came into use."""

    urgent: ClassVar[bool] = True

    def __init__(self, inbound: Mapping[int, bytes]) -> None:
        self.inbound = inbound

    def build_request(self, session: SessionV2, now: float) -> tuple[PayloadV2, ...] | None:
        return deletes((self.inbound,))


class DeleteIkeSaTask(Task):
    """Delete the IKE SA. `notify` says why where the peer did not prove who it is (RFC 7296 2.21.2)."""

    urgent: ClassVar[bool] = True
    bound_to_ike_sa: ClassVar[bool] = True

    def __init__(self, reason: str, notify: int = 0) -> None:
        self.reason = reason
        self.notify = notify

    def build_request(self, session: SessionV2, now: float) -> tuple[PayloadV2, ...] | None:
        said = (NotifyV2(self.notify),) if self.notify else ()
        return (*said, DeleteV2(Protocol.IKE))

    def on_response(self, session: SessionV2, payloads: tuple[PayloadV2, ...], now: float) -> None:
        session.terminate(self.reason, now)

    def on_malformed_response(self, session: SessionV2, reason: str, now: float) -> None:
        session.terminate(self.reason, now)


class DpdTask(Task):
    """Is the peer there? An empty exchange."""

    bound_to_ike_sa: ClassVar[bool] = True

    def build_request(self, session: SessionV2, now: float) -> tuple[PayloadV2, ...] | None:
        return ()


def close_child(session: SessionV2, child: ChildSaV2, reason: str) -> None:
    """Have a pair deleted, by an exchange."""
    if child.allows(ChildSaEvent.DELETE_STARTED):
        child.transition(ChildSaEvent.DELETE_STARTED)
        child.reason = reason
        session.enqueue_task(DeleteChildTask(child, reason))


def handle(session: SessionV2, payloads: tuple[PayloadV2, ...], now: float) -> None:
    """A request of the peer."""
    said = [one for one in payloads if isinstance(one, DeleteV2)]
    if any(one.protocol == Protocol.IKE for one in said):
        session.reply((), now)
        _ended(session, now)
        return
    if any(isinstance(one, NotifyV2) and one.notify == NotifyTypeV2.AUTHENTICATION_FAILED for one in payloads):
        session.reply((), now)
        session.terminate("the peer refuses our proof of identity", now)
        return
    found: dict[int, ChildSaV2] = {}
    for one in said:
        for spi in one.spis:
            child = session.child_sas.find_by_outbound_spi(one.protocol, spi)
            if child is not None:
                found[child.serial] = child
            elif len(session.unknown_deletes) < MAX_UNKNOWN_DELETES:
                session.unknown_deletes.add((one.protocol, spi))
    # A pair that we are deleting ourselves was named in our own request already (RFC 7296 1.4.1).
    answered = deletes(child.spis_in for child in found.values() if child.state is not ChildSaState.DELETING)
    for child in found.values():
        reason = "replaced" if child.state is ChildSaState.REKEYED else child.reason or "deleted by the peer"
        remove(session, child, reason, now)
    session.reply(answered, now)


def _ended(session: SessionV2, now: float) -> None:
    """The peer deleted the IKE SA. What it began to replace it with goes on."""
    if session.colliding_successor is not None and not session.colliding_successor.closed:
        rekey_ike_sa.hand_over(session, session.colliding_successor, now)
        session.terminate("replaced", now)
        return
    session.terminate(session.delete_reason or "deleted by the peer", now)
