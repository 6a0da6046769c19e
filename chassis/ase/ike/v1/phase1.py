"""The states of an ISAKMP SA (RFC 2409 sections 5.1 to 5.4) as a table: main and aggressive mode, both roles."""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
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


class Event(Enum):
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


TABLE: Final[dict[State, dict[Event, State]]] = {
    State.IDLE: {
        Event.BEGIN_MAIN: State.OFFERED,
        Event.BEGIN_AGGRESSIVE: State.AGGRESSIVE_SENT,
        Event.MAIN_OFFER: State.CHOSEN,
        Event.AGGRESSIVE_OFFER: State.AGGRESSIVE_ANSWERED,
        Event.CLOSE: State.CLOSED,
    },
    State.OFFERED: {Event.CHOICE: State.VALUES_SENT, Event.CLOSE: State.CLOSED},
    State.VALUES_SENT: {Event.VALUES: State.PROOF_SENT, Event.CLOSE: State.CLOSED},
    State.PROOF_SENT: {Event.PROOF: State.ESTABLISHED, Event.CLOSE: State.CLOSED},
    State.CHOSEN: {Event.VALUES: State.VALUES_ANSWERED, Event.CLOSE: State.CLOSED},
    State.VALUES_ANSWERED: {Event.PROOF: State.ESTABLISHED, Event.CLOSE: State.CLOSED},
    State.AGGRESSIVE_SENT: {Event.AGGRESSIVE_ANSWER: State.ESTABLISHED, Event.CLOSE: State.CLOSED},
    State.AGGRESSIVE_ANSWERED: {Event.PROOF: State.ESTABLISHED, Event.CLOSE: State.CLOSED},
    State.ESTABLISHED: {
        Event.SUCCESSOR: State.SUCCEEDED,
        Event.LAY_DOWN: State.ORPHANED,
        Event.CLOSE: State.CLOSED,
    },
    State.SUCCEEDED: {
        Event.ALONE: State.ESTABLISHED,
        Event.SUCCESSOR: State.SUCCEEDED,
        Event.LAY_DOWN: State.ORPHANED,
        Event.CLOSE: State.CLOSED,
    },
    State.ORPHANED: {Event.CLOSE: State.CLOSED},
    State.CLOSED: {},
}
"""What is not in a row cannot happen in that state: the message is passed over."""

STANDING: Final = frozenset((State.ESTABLISHED, State.SUCCEEDED))
"""States in which the peer is authenticated and phase 2 may go on."""
