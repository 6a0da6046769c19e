"""One ISAKMP SA after the other: in version 1 pairs outlive the SA that they were negotiated under.

A new phase 1 of a connection takes the pairs over at both ends; who began it deletes the older SA a little later.
Where an SA goes and no other one stands its pairs stay as they are until one does (RFC 2408 3.15, RFC 2409 5.5).
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from chassis.ase.ike.v1.pairs import DELETE_DELAY, PEER_DELETE_TIMEOUT, REKEY_RETRY_INTERVAL
from chassis.ase.ike.v1.phase1 import Phase1Event

if TYPE_CHECKING:
    from chassis.ase.ike.v1.session import SessionV1


def stands(session: SessionV1, now: float) -> None:
    """This SA has come to stand beside older ones of its connection, whose pairs it takes over.

    Of two SAs that both ends began at once the one stays that the end with the lower address began.
    """
    for elder in session.siblings():
        at_once = elder.initiator != session.initiator and elder.stood >= session.born
        if at_once and session.initiator != (session.path.local < session.path.remote):
            succeed(session, elder, now)
        else:
            if not at_once and elder.heir is None:
                session.host.count("IKE SAs rekeyed")
            succeed(elder, session, now)
    for orphan in session.orphans():
        inherit(session.holder, orphan, now)
        orphan.close("another IKE SA has its pairs", now, tell=False)
        session.host.changed(orphan)


def succeed(elder: SessionV1, heir: SessionV1, now: float) -> None:
    """`heir` has the pairs from now on, and `elder` goes once nothing is under way any more."""
    heir = heir.holder
    if heir is elder:
        return  # It is the successor of all of them already: chains have an end.
    elder.heir = heir
    elder.renewal = None
    elder.soft = inf
    # Who began the newer SA ends the older one; the other end only makes sure that it goes some time.
    spread = elder.host.random(1)[0] / 255
    elder.retire = now + (DELETE_DELAY if heir.initiator else PEER_DELETE_TIMEOUT * (1 + spread))
    elder.take(Phase1Event.SUCCESSOR)
    inherit(heir, elder, now)
    elder.host.changed(elder)


def inherit(heir: SessionV1, elder: SessionV1, now: float) -> None:
    """Take over what another SA of the connection has."""
    heir.pairs.take_over(elder.pairs.give_away(), now)
    heir.negotiations.take_over(elder.negotiations)
    heir.host.changed(heir)


def hand_on(session: SessionV1, now: float) -> None:
    """A session ends: another SA of the connection has its pairs, if one stands, and may have no successor now."""
    siblings = session.siblings()
    heir = None if session.void else next((one for one in reversed(siblings) if not one.void), None)
    if heir is not None:
        inherit(heir, session, now)
    next_one = session.heir if session.heir is not None and session.heir.established else None
    for one in siblings:
        if one.heir is not session:
            continue
        one.heir = next_one if next_one is not one else None
        if one.heir is None:
            # It has its own lifetime still.
            one.retire = inf
            one.soft = max(one.renew, now + REKEY_RETRY_INTERVAL)
            one.take(Phase1Event.ALONE)
            one.host.changed(one)


def peer_began_anew(session: SessionV1, now: float) -> None:
    """INITIAL-CONTACT: the peer does not know any more what was made before it began this SA.

    Two ends that begin at once may both say so: an SA that came to stand meanwhile is not meant.
    """
    younger = False
    for elder in (*session.siblings(), *session.orphans()):
        if elder.stood < session.born:
            elder.void = True
            elder.close("the peer began anew", now, tell=False)
            session.host.changed(elder)
        else:
            younger = True
    for pair in [one for one in session.pairs.all if one.born < session.born]:
        session.pairs.remove(pair, "the peer began anew", now, tell=False)
    if not younger:
        session.host.contacted(session, now)


def isakmp_deleted(session: SessionV1, cookies: bytes, now: float) -> None:
    """The peer deleted this SA, or another one of the connection: of pairs nothing was said."""
    for one in (session, *session.siblings()):
        if one.handshake.cky_i + one.handshake.cky_r == cookies:
            one.close("deleted by the peer", now, tell=False, keep=True)
            if one is not session:
                session.host.changed(one)
            return


def pair_deleted(session: SessionV1, protocol: int, spi: bytes, now: float) -> None:
    """The peer deleted the SA that we send by with this SPI, under whichever SA the pair is now."""
    for one in (session, *session.siblings()):
        one.pairs.deleted(protocol, spi, now)
