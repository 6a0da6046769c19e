"""The states of an ISAKMP SA (RFC 2409 sections 5.1 to 5.4) as a table: main and aggressive mode, both roles."""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Final

from chassis.ase.ike.errors import FailureReason
from chassis.ase.ike.v1.child_sas import DELETE_DELAY, PEER_DELETE_TIMEOUT, REKEY_RETRY_INTERVAL
from chassis.state_machine import StateMachine, without_actions

if TYPE_CHECKING:
    from chassis.ase.ike.v1.session import SessionV1


class Phase1State(Enum):
    IDLE = "idle"
    """No message was sent or received yet."""
    MM1_SENT = "main mode: SA sent"
    MM3_SENT = "main mode: KE and nonce sent"
    MM5_SENT = "main mode: identity and proof sent"
    MM2_SENT = "main mode: SA answered"
    MM4_SENT = "main mode: KE and nonce answered"
    AM1_SENT = "aggressive mode: SA, KE and identity sent"
    AM2_SENT = "aggressive mode: answered with proof"
    ESTABLISHED = "established"
    REPLACED = "established, with a successor"
    """A newer ISAKMP SA of the same connection has its CHILD SAs; this one is deleted after a delay."""
    ORPHANED = "deleted, its pairs live on"
    """Deleted; its CHILD SAs wait for another ISAKMP SA of the connection (RFC 2408 3.15)."""
    CLOSED = "closed"


class Phase1Event(Enum):
    BEGIN_MAIN = "begin main mode"
    BEGIN_AGGRESSIVE = "begin aggressive mode"
    MM1_RECEIVED = "message 1 of main mode"
    MM2_RECEIVED = "message 2 of main mode"
    KE_RECEIVED = "message 3 or 4 of main mode"
    AUTH_RECEIVED = "last message of the peer"
    """Message 5 or 6 of main mode, or 3 of aggressive mode, and the peer is authenticated."""
    AM1_RECEIVED = "message 1 of aggressive mode"
    AM2_RECEIVED = "message 2 of aggressive mode"
    SUCCESSOR_ESTABLISHED = "successor established"
    SUCCESSOR_GONE = "successor gone"
    ORPHAN = "deleted or expired, CHILD SAs stay"
    CLOSE = "failed, deleted or expired"


_S, _E = Phase1State, Phase1Event

PHASE_1 = StateMachine(
    "IKEv1, phase 1",
    Phase1State,
    Phase1Event,
    without_actions(
        {
            _S.IDLE: {
                _E.BEGIN_MAIN: _S.MM1_SENT,
                _E.BEGIN_AGGRESSIVE: _S.AM1_SENT,
                _E.MM1_RECEIVED: _S.MM2_SENT,
                _E.AM1_RECEIVED: _S.AM2_SENT,
                _E.CLOSE: _S.CLOSED,
            },
            _S.MM1_SENT: {_E.MM2_RECEIVED: _S.MM3_SENT, _E.CLOSE: _S.CLOSED},
            _S.MM3_SENT: {_E.KE_RECEIVED: _S.MM5_SENT, _E.CLOSE: _S.CLOSED},
            _S.MM5_SENT: {_E.AUTH_RECEIVED: _S.ESTABLISHED, _E.CLOSE: _S.CLOSED},
            _S.MM2_SENT: {_E.KE_RECEIVED: _S.MM4_SENT, _E.CLOSE: _S.CLOSED},
            _S.MM4_SENT: {_E.AUTH_RECEIVED: _S.ESTABLISHED, _E.CLOSE: _S.CLOSED},
            _S.AM1_SENT: {_E.AM2_RECEIVED: _S.ESTABLISHED, _E.CLOSE: _S.CLOSED},
            _S.AM2_SENT: {_E.AUTH_RECEIVED: _S.ESTABLISHED, _E.CLOSE: _S.CLOSED},
            _S.ESTABLISHED: {
                _E.SUCCESSOR_ESTABLISHED: _S.REPLACED,
                _E.ORPHAN: _S.ORPHANED,
                _E.CLOSE: _S.CLOSED,
            },
            _S.REPLACED: {
                _E.SUCCESSOR_GONE: _S.ESTABLISHED,
                _E.SUCCESSOR_ESTABLISHED: _S.REPLACED,
                _E.ORPHAN: _S.ORPHANED,
                _E.CLOSE: _S.CLOSED,
            },
            _S.ORPHANED: {_E.CLOSE: _S.CLOSED},
            _S.CLOSED: {},
        }
    ),
    partial=True,
    theory="""\
One ISAKMP SA, in both roles. Phase 1 is main mode or aggressive mode (RFC 2409 5.1, 5.4): a state is named for
the message that was sent last, and the next message of the peer leads to the next state. A message that is not
due in a state, or that fails a check, changes no state: it is dropped, so that a forged message does not end
the exchange of the real peer. The responder of main mode computes no Diffie-Hellman secret before message 5.

An ISAKMP SA is established when the peer is authenticated. Quick modes and informational exchanges follow. IKEv1
cannot rekey it: a new phase 1 of the same connection replaces it, and takes over its CHILD SAs and the requests
that wait. The initiator of the new one deletes the old one after a delay; if the new one goes first, the old one
is established again. If an ISAKMP SA ends and no other of its connection is established, its CHILD SAs stay, and
pass to the next one that is established (RFC 2408 3.15, RFC 2409 5.5). CLOSE ends everything in any state.""",
)

ESTABLISHED_STATES: Final = frozenset((Phase1State.ESTABLISHED, Phase1State.REPLACED))
"""States in which the peer is authenticated and phase 2 is allowed."""


PSK_MISMATCH_TEXT: Final = "the preshared keys of the two ends differ, as it seems"

PSK_MISMATCH_NOTIFIES: Final = frozenset(
    ("UNEQUAL_PAYLOAD_LENGTHS", "PAYLOAD_MALFORMED", "INVALID_HASH_INFORMATION", "AUTHENTICATION_FAILED")
)
"""What peers refuse a proof of identity with that makes no sense under their key."""


def psk_may_differ(session: SessionV1) -> bool:
    """Whether all that is missing is the peer's answer to our proof, which it can open with our preshared key
    alone (RFC 2409 5.4)."""
    return session.state is Phase1State.MM5_SENT and session.phase1.by_psk


def refusal_failure(session: SessionV1, notify: str) -> FailureReason:
    """The peer refused by a notification in clear."""
    text = f"the peer refuses: {notify}"
    if psk_may_differ(session) and notify in PSK_MISMATCH_NOTIFIES:
        return FailureReason("preshared key", f"{text}; {PSK_MISMATCH_TEXT}")
    return FailureReason("refused by the peer", text)


def timeout_failure(session: SessionV1) -> FailureReason:
    """Nothing came in the time that there was."""
    text = f"{session.peer} does not answer"
    if psk_may_differ(session):
        text += " our proof of identity: the preshared keys of the two ends may differ"
    return FailureReason("timeout", text)


def replace_older_sas(session: SessionV1, now: float) -> None:
    """This SA has come to stand beside older ones of its connection, whose pairs it takes over.

    Of two SAs that both ends began at once the one stays that the end with the lower address began.
    """
    for elder in session.sibling_sessions():
        at_once = elder.initiator != session.initiator and elder.established_at >= session.created_at
        if at_once and session.initiator != (session.path.local < session.path.remote):
            replace_isakmp_sa(session, elder, now)
        else:
            if not at_once and elder.successor is None:
                session.host.count("IKE SAs rekeyed")
            replace_isakmp_sa(elder, session, now)
    for orphan in session.orphaned_sessions():
        migrate_children(session.current_session, orphan, now)
        orphan.close("another IKE SA has its pairs", now, tell=False)
        session.host.changed(orphan)


def replace_isakmp_sa(elder: SessionV1, heir: SessionV1, now: float) -> None:
    """`heir` has the pairs from now on, and `elder` goes once nothing is under way any more."""
    heir = heir.current_session
    if heir is elder:
        return  # It is the successor of all of them already: chains have an end.
    elder.successor = heir
    elder.pending_successor = None
    elder.soft = inf
    # Who began the newer SA ends the older one; the other end only makes sure that it goes some time.
    spread = elder.host.random(1)[0] / 255
    elder.delete_at = now + (DELETE_DELAY if heir.initiator else PEER_DELETE_TIMEOUT * (1 + spread))
    elder.transition(Phase1Event.SUCCESSOR_ESTABLISHED)
    migrate_children(heir, elder, now)
    elder.host.changed(elder)


def migrate_children(heir: SessionV1, elder: SessionV1, now: float) -> None:
    """Take over what another SA of the connection has."""
    heir.child_sas.take_over(elder.child_sas.give_away(), now)
    heir.quick_modes.take_over_wanted(elder.quick_modes)
    heir.host.changed(heir)


def migrate_on_close(session: SessionV1, now: float) -> None:
    """A session ends: another SA of the connection has its pairs, if one stands, and may have no successor now."""
    siblings = session.sibling_sessions()
    heir = (
        None
        if session.peer_lost_state
        else next((one for one in reversed(siblings) if not one.peer_lost_state), None)
    )
    if heir is not None:
        migrate_children(heir, session, now)
    next_one = session.successor if session.successor is not None and session.successor.established else None
    for one in siblings:
        if one.successor is not session:
            continue
        one.successor = next_one if next_one is not one else None
        if one.successor is None:
            # It has its own lifetime still.
            one.delete_at = inf
            one.soft = max(one.first_soft, now + REKEY_RETRY_INTERVAL)
            one.transition(Phase1Event.SUCCESSOR_GONE)
            one.host.changed(one)


def on_initial_contact(session: SessionV1, now: float) -> None:
    """INITIAL-CONTACT: the peer does not know any more what was made before it began this SA.

    Two ends that begin at once may both say so: an SA that came to stand meanwhile is not meant.
    """
    younger = False
    for elder in (*session.sibling_sessions(), *session.orphaned_sessions()):
        if elder.established_at < session.created_at:
            elder.peer_lost_state = True
            elder.close("the peer began anew", now, tell=False)
            session.host.changed(elder)
        else:
            younger = True
    for pair in [one for one in session.child_sas.all if one.created_at < session.created_at]:
        session.child_sas.remove(pair, "the peer began anew", now, tell=False)
    if not younger:
        session.host.contacted(session, now)


def on_isakmp_sa_delete(session: SessionV1, cookies: bytes, now: float) -> None:
    """The peer deleted this SA, or another one of the connection: of pairs nothing was said."""
    for one in (session, *session.sibling_sessions()):
        if one.phase1.cky_i + one.phase1.cky_r == cookies:
            one.close("deleted by the peer", now, tell=False, keep=True)
            if one is not session:
                session.host.changed(one)
            return


def on_child_sa_delete(session: SessionV1, protocol: int, spi: bytes, now: float) -> None:
    """The peer deleted the SA that we send by with this SPI, under whichever SA the pair is now."""
    for one in (session, *session.sibling_sessions()):
        one.child_sas.on_delete(protocol, spi, now)
