"""When something is due in an IKE SA of version 2, and what (RFC 7296 2.4, 2.8; RFC 3948 section 4)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from chassis.ase.ike.host import AGED
from chassis.ase.ike.v2 import informational, rekey
from chassis.ase.ike.v2.child_sa import ChildSaEvent
from chassis.ase.ike.v2.ike_sa import ESTABLISHED_STATES, HALF_OPEN_STATES, IkeSaState
from chassis.ase.link import SaExpiring

if TYPE_CHECKING:
    from chassis.ase.ike.v2.session import SessionV2


def _probe_at(session: SessionV2) -> float:
    """When the peer has been silent long enough to be asked; any request that is out asks already."""
    connection = session.connection
    if connection is None or not connection.keepalive or session.exchanges.outstanding is not None:
        return math.inf
    return session.heard + session.host.settings.dpd_interval


def _keepalive_at(session: SessionV2) -> float:
    return session.sent + session.host.settings.nat_keepalive if session.nat.here else math.inf


def wake(session: SessionV2) -> float:
    """When `run` has something to do."""
    if session.closed:
        return math.inf
    at = session.deadline
    if session.exchanges.outstanding is not None:
        at = min(at, session.exchanges.outstanding.due)
    if session.sa.state in ESTABLISHED_STATES:
        at = min(at, session.hard, _probe_at(session), _keepalive_at(session))
        if session.sa.state is IkeSaState.ESTABLISHED:
            at = min(at, session.soft)
        for due, _ in session.postponed:
            at = min(at, due)
        for child in session.children.by_serial.values():
            at = min(at, child.hard)
            if child.may(ChildSaEvent.REKEY):
                at = min(at, child.soft)
    return at


def run(session: SessionV2, now: float) -> None:
    """Do what is due."""
    if session.closed:
        return
    if now >= session.deadline:
        _overdue(session, now)
        return
    outstanding = session.exchanges.outstanding
    if outstanding is not None and now >= outstanding.due and not _again(session, now):
        return
    if session.sa.state not in ESTABLISHED_STATES:
        return
    if now >= session.hard:
        session.close("the lifetime of the IKE SA is over", now)
        return
    _lifetimes(session, now)
    if now >= _probe_at(session):
        session.put(informational.DpdTask())
    if now >= _keepalive_at(session):
        session.transmit((b"",), session.path, now)


def _overdue(session: SessionV2, now: float) -> None:
    """A state that must not last has lasted too long."""
    state = session.sa.state
    if state in HALF_OPEN_STATES or state is IkeSaState.DELETING:
        session.silence(now)
    else:
        session.close(session.ending or "the peer left it behind", now)


def _again(session: SessionV2, now: float) -> bool:
    """Send the request that is out once more; False when the session ended over it."""
    outstanding = session.exchanges.outstanding
    assert outstanding is not None
    datagrams = session.exchanges.again(now)
    if datagrams is None:
        if not isinstance(outstanding.task, informational.DpdTask) or session.heard < outstanding.due - (
            session.host.settings.dpd_interval * session.host.settings.dpd_tries
        ):
            session.silence(now)
            return False
        # Its packets came in meanwhile, so it lives, and only the answer is missing.
        session.exchanges.steady(session.host.settings.dpd_interval, session.host.settings.dpd_tries, now)
        datagrams = outstanding.datagrams
    session.host.count("retransmitted")
    session.transmit(datagrams, session.path, now)
    return True


def _lifetimes(session: SessionV2, now: float) -> None:
    due = [task for at, task in session.postponed if at <= now]
    session.postponed = [(at, task) for at, task in session.postponed if at > now]
    for task in due:
        session.put(task)
    for child in list(session.children.by_serial.values()):
        if now >= child.hard:
            session.expire(child, child.reason or "its lifetime is over", now)
        elif now >= child.soft and child.may(ChildSaEvent.REKEY):
            session.host.emit(SaExpiring(session.tunnel, child.serial, False, AGED))
            session.renew(child, now)
    if session.exchanges.worn:
        session.soft = min(session.soft, now)
    if now >= session.soft and session.sa.state is IkeSaState.ESTABLISHED:
        session.soft = math.inf
        if not session.rekeying:
            session.put(rekey.RekeyIkeSaTask())
