"""INFORMATIONAL in both roles: Deletes of CHILD SAs and of the IKE SA, dead peer detection (RFC 7296 1.4, 2.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from chassis.ase.ike.payloads.numbers import NotifyTypeV2, Protocol
from chassis.ase.ike.payloads.v2 import PayloadV2, find_notify
from chassis.ase.ike.payloads.v2_payloads import DeleteV2, NotifyV2
from chassis.ase.ike.v2.child_sas import ChildSaEvent, ChildSaState, ChildSaV2
from chassis.ase.ike.v2.ike_sa import IkeSa, IkeSaEvent, IkeSaState, Task

MAX_UNKNOWN_DELETES = 64
"""SPIs of Deletes without a CHILD SA that are remembered (count)."""


def delete_payloads(spis: Iterable[Mapping[int, bytes]]) -> tuple[DeleteV2, ...]:
    """Return the Deletes of CHILD SAs, given their inbound SPIs by protocol: one for each protocol."""
    by_protocol: dict[int, list[bytes]] = {}
    for one in spis:
        for protocol, spi in one.items():
            if protocol != Protocol.IPCOMP:
                by_protocol.setdefault(protocol, []).append(spi)
    return tuple(DeleteV2(protocol, tuple(found)) for protocol, found in by_protocol.items())


class DeleteChildTask(Task):
    """Delete a CHILD SA. It receives until the response, so that no packet in flight is lost."""

    urgent: ClassVar[bool] = True
    about_child: ClassVar[bool] = True

    def __init__(self, child: ChildSaV2, reason: str) -> None:
        self.child = child
        self.reason = reason

    def build_request(self, sa: IkeSa, now: float) -> tuple[PayloadV2, ...] | None:
        if self.child.state is ChildSaState.DELETED:
            return None
        return delete_payloads((self.child.spis_in,))

    def on_response(self, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
        sa.remove_child(self.child, self.reason, now)

    def on_malformed_response(self, sa: IkeSa, reason: str, now: float) -> None:
        sa.remove_child(self.child, self.reason, now)


class DeleteChildSpisTask(Task):
    """Tell the peer to delete a CHILD SA that is removed here already, or was never installed."""

    urgent: ClassVar[bool] = True
    about_child: ClassVar[bool] = True

    def __init__(self, spis_in: Mapping[int, bytes]) -> None:
        self._spis_in = spis_in

    def build_request(self, sa: IkeSa, now: float) -> tuple[PayloadV2, ...] | None:
        return delete_payloads((self._spis_in,))


class DeleteIkeSaTask(Task):
    """Delete the IKE SA. `notify` tells a peer that failed to authenticate why (RFC 7296 2.21.2); 0 is none."""

    urgent: ClassVar[bool] = True
    bound_to_ike_sa: ClassVar[bool] = True

    def __init__(self, reason: str, notify: int = 0) -> None:
        self.reason = reason
        self.notify = notify

    def build_request(self, sa: IkeSa, now: float) -> tuple[PayloadV2, ...] | None:
        notify = (NotifyV2(self.notify),) if self.notify else ()
        return (*notify, DeleteV2(Protocol.IKE))

    def on_response(self, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
        sa.terminate(self.reason, now)

    def on_malformed_response(self, sa: IkeSa, reason: str, now: float) -> None:
        sa.terminate(self.reason, now)


class DpdTask(Task):
    """Check that the peer is alive: a request without payloads (RFC 7296 2.4)."""

    bound_to_ike_sa: ClassVar[bool] = True
    liveness_check: ClassVar[bool] = True

    def build_request(self, sa: IkeSa, now: float) -> tuple[PayloadV2, ...] | None:
        return ()


def close_child(sa: IkeSa, child: ChildSaV2, reason: str) -> None:
    """Delete a CHILD SA by an exchange, unless that was started already."""
    if child.allows(ChildSaEvent.DELETE_STARTED):
        child.transition(ChildSaEvent.DELETE_STARTED)
        child.reason = reason
        sa.enqueue_task(DeleteChildTask(child, reason))


def expire_child(sa: IkeSa, child: ChildSaV2, reason: str, now: float) -> None:
    """Remove a CHILD SA whose lifetime is over at once, and tell the peer."""
    sa.remove_child(child, reason, now)
    sa.enqueue_task(DeleteChildSpisTask(child.spis_in))


def close(sa: IkeSa, reason: str, now: float) -> None:
    """Remove the CHILD SAs and delete the IKE SA by an exchange; without a peer to tell, end it at once."""
    if sa.closed:
        return
    successor, sa.colliding_successor = sa.colliding_successor, None
    if successor is not None and not successor.closed:
        close(successor, reason, now)
        sa.host.register_session(successor)
    if not sa.allows(IkeSaEvent.DELETE_STARTED):
        if sa.state is not IkeSaState.DELETING:
            sa.terminate(reason, now)
        return
    sa.remove_children(reason, now)
    sa.transition(IkeSaEvent.DELETE_STARTED)
    sa.delete_reason = reason
    sa.deadline = now + sa.host.settings.half_open_timeout
    for task in sa.task_manager.clear_queue():
        task.cancel(sa)
    sa.postponed_tasks.clear()
    sa.enqueue_task(DeleteIkeSaTask(reason))
    sa.send_next_request(now)


def respond(sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
    """Respond to the peer's INFORMATIONAL request."""
    deletes = [one for one in payloads if isinstance(one, DeleteV2)]
    if any(one.protocol == Protocol.IKE for one in deletes):
        sa.reply((), now)
        _on_ike_sa_delete(sa, now)
        return
    if find_notify(payloads, NotifyTypeV2.AUTHENTICATION_FAILED) is not None:
        sa.reply((), now)
        sa.terminate("the peer rejects our authentication", now)
        return
    found: dict[int, ChildSaV2] = {}
    for one in deletes:
        for spi in one.spis:
            child = sa.child_sas.find_by_outbound_spi(one.protocol, spi)
            if child is not None:
                found[child.serial] = child
            elif len(sa.unknown_deletes) < MAX_UNKNOWN_DELETES:
                sa.unknown_deletes |= {(one.protocol, spi)}
    # Our own request named the CHILD SAs that we are deleting: the response must not (RFC 7296 1.4.1).
    response = delete_payloads(
        child.spis_in for child in found.values() if child.state is not ChildSaState.DELETING
    )
    for child in found.values():
        reason = "replaced" if child.state is ChildSaState.REKEYED else child.reason or "deleted by the peer"
        sa.remove_child(child, reason, now)
    sa.reply(response, now)


def _on_ike_sa_delete(sa: IkeSa, now: float) -> None:
    """End an IKE SA that the peer deleted; its CHILD SAs migrate if the peer replaced it."""
    if sa.colliding_successor is not None and not sa.colliding_successor.closed:
        sa.migrate_children(sa.colliding_successor, now)
        sa.terminate("replaced", now)
        return
    sa.terminate(sa.delete_reason or "deleted by the peer", now)
