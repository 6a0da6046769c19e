"""The states of an ISAKMP SA (RFC 2409 sections 5.1 to 5.4) as a table: main and aggressive mode, both roles."""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Final

from chassis.ase.ike.host import Blame
from chassis.ase.ike.v1.child_sas import DELETE_DELAY, PEER_DELETE_TIMEOUT, REKEY_RETRY_INTERVAL

if TYPE_CHECKING:
    from chassis.ase.ike.v1.session import SessionV1


class Phase1State(Enum):
    IDLE = "idle"
    """Nothing was sent or received yet."""
    OFFERED = "main mode: SA sent"
    VALUES_SENT = "main mode: KE and nonce sent"
    PROOF_SENT = "main mode: identity and proof sent"
    CHOSEN = "main mode: SA answered"
    VALUES_ANSWERED = "main mode: KE and nonce answered"
    AGGRESSIVE_SENT = "aggressive mode: SA, KE and identity sent"
    AGGRESSIVE_ANSWERED = "aggressive mode: answered with proof"
    ESTABLISHED = "established"
    SUCCEEDED = "established, with a successor"
    """A newer ISAKMP SA of the same connection has taken over the children; this one is on its way out."""
    ORPHANED = "deleted, its pairs live on"
    """The ISAKMP SA is gone; its children wait for another one that takes them over (RFC 2408 3.15)."""
    CLOSED = "closed"


class Phase1Event(Enum):
    BEGIN_MAIN = "begin main mode"
    BEGIN_AGGRESSIVE = "begin aggressive mode"
    MAIN_OFFER = "message 1 of main mode"
    CHOICE = "message 2 of main mode"
    VALUES = "message 3 or 4 of main mode"
    PROOF = "last message of the peer"
    AGGRESSIVE_OFFER = "message 1 of aggressive mode"
    AGGRESSIVE_ANSWER = "message 2 of aggressive mode"
    SUCCESSOR = "a successor stands"
    ALONE = "the successor is gone"
    LAY_DOWN = "deleted or expired, with pairs that stay"
    CLOSE = "failed, deleted or expired"


PHASE_1_TRANSITIONS: Final[dict[Phase1State, dict[Phase1Event, Phase1State]]] = {
    Phase1State.IDLE: {
        Phase1Event.BEGIN_MAIN: Phase1State.OFFERED,
        Phase1Event.BEGIN_AGGRESSIVE: Phase1State.AGGRESSIVE_SENT,
        Phase1Event.MAIN_OFFER: Phase1State.CHOSEN,
        Phase1Event.AGGRESSIVE_OFFER: Phase1State.AGGRESSIVE_ANSWERED,
        Phase1Event.CLOSE: Phase1State.CLOSED,
    },
    Phase1State.OFFERED: {Phase1Event.CHOICE: Phase1State.VALUES_SENT, Phase1Event.CLOSE: Phase1State.CLOSED},
    Phase1State.VALUES_SENT: {Phase1Event.VALUES: Phase1State.PROOF_SENT, Phase1Event.CLOSE: Phase1State.CLOSED},
    Phase1State.PROOF_SENT: {Phase1Event.PROOF: Phase1State.ESTABLISHED, Phase1Event.CLOSE: Phase1State.CLOSED},
    Phase1State.CHOSEN: {Phase1Event.VALUES: Phase1State.VALUES_ANSWERED, Phase1Event.CLOSE: Phase1State.CLOSED},
    Phase1State.VALUES_ANSWERED: {
        Phase1Event.PROOF: Phase1State.ESTABLISHED,
        Phase1Event.CLOSE: Phase1State.CLOSED,
    },
    Phase1State.AGGRESSIVE_SENT: {
        Phase1Event.AGGRESSIVE_ANSWER: Phase1State.ESTABLISHED,
        Phase1Event.CLOSE: Phase1State.CLOSED,
    },
    Phase1State.AGGRESSIVE_ANSWERED: {
        Phase1Event.PROOF: Phase1State.ESTABLISHED,
        Phase1Event.CLOSE: Phase1State.CLOSED,
    },
    Phase1State.ESTABLISHED: {
        Phase1Event.SUCCESSOR: Phase1State.SUCCEEDED,
        Phase1Event.LAY_DOWN: Phase1State.ORPHANED,
        Phase1Event.CLOSE: Phase1State.CLOSED,
    },
    Phase1State.SUCCEEDED: {
        Phase1Event.ALONE: Phase1State.ESTABLISHED,
        Phase1Event.SUCCESSOR: Phase1State.SUCCEEDED,
        Phase1Event.LAY_DOWN: Phase1State.ORPHANED,
        Phase1Event.CLOSE: Phase1State.CLOSED,
    },
    Phase1State.ORPHANED: {Phase1Event.CLOSE: Phase1State.CLOSED},
    Phase1State.CLOSED: {},
}
"""What is not in a row cannot happen in that state: the message is passed over."""

ESTABLISHED_STATES: Final = frozenset((Phase1State.ESTABLISHED, Phase1State.SUCCEEDED))
"""States in which the peer is authenticated and phase 2 may go on."""


PSK_MISMATCH_TEXT: Final = "the preshared keys of the two ends differ, as it seems"

PSK_MISMATCH_NOTIFIES: Final = frozenset(
    ("UNEQUAL_PAYLOAD_LENGTHS", "PAYLOAD_MALFORMED", "INVALID_HASH_INFORMATION", "AUTHENTICATION_FAILED")
)
"""What peers refuse a proof of identity with that makes no sense under their key."""


def keys_may_differ(session: SessionV1) -> bool:
    """Whether all that is missing is the peer's answer to our proof, which it can open with our preshared key
    alone (RFC 2409 5.4)."""
    return session.state is Phase1State.PROOF_SENT and session.handshake.by_psk


def refusal(session: SessionV1, notify: str) -> Blame:
    """The peer refused by a notification in clear."""
    text = f"the peer refuses: {notify}"
    if keys_may_differ(session) and notify in PSK_MISMATCH_NOTIFIES:
        return Blame("preshared key", f"{text}; {PSK_MISMATCH_TEXT}")
    return Blame("refused by the peer", text)


def silence(session: SessionV1) -> Blame:
    """Nothing came in the time that there was."""
    text = f"{session.peer} does not answer"
    if keys_may_differ(session):
        text += " our proof of identity: the preshared keys of the two ends may differ"
    return Blame("timeout", text)


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
