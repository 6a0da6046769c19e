"""The states of an ISAKMP SA (RFC 2409 sections 5.1 to 5.4) as a table: main and aggressive mode, both roles."""

from __future__ import annotations

from enum import Enum
from typing import Final


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
