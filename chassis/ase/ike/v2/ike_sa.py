"""The IKE SA of version 2 as a table of states (RFC 7296 1.2, 1.3.2, 2.25.2).

An event that a state has no row for must not happen there: code asks `may` before it does what the event
stands for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    NEW = "new"
    """Nothing was sent."""
    INIT_SENT = "IKE_SA_INIT sent"
    INIT_ANSWERED = "IKE_SA_INIT answered"
    """A responder: half open."""
    AUTH_SENT = "IKE_AUTH sent"
    STANDBY = "standby"
    """Made by an older IKE SA, but not chosen yet to take its children over."""
    ESTABLISHED = "established"
    REKEYING = "rekeying"
    """Our request to replace it is out."""
    REPLACED = "replaced"
    """Its children went to a successor; one of the ends deletes it."""
    DELETING = "deleting"
    """Our delete is to go out, or is out."""
    CLOSED = "closed"


class Event(Enum):
    START = "first message sent"
    AGAIN = "asked for a cookie or another group"
    ANSWERED = "first message answered"
    KEYED = "keys agreed"
    AUTHENTICATED = "peer authenticated"
    STAND_BY = "made by an older IKE SA"
    SUCCEED = "took the children over"
    REKEY = "replacement begun"
    KEEP = "replacement came to nothing"
    REPLACE = "successor took over"
    CLOSE = "to be deleted"
    END = "gone"


TABLE: dict[State, dict[Event, State]] = {
    State.NEW: {
        Event.START: State.INIT_SENT,
        Event.ANSWERED: State.INIT_ANSWERED,
        Event.STAND_BY: State.STANDBY,
        Event.END: State.CLOSED,
    },
    State.INIT_SENT: {
        Event.AGAIN: State.INIT_SENT,
        Event.KEYED: State.AUTH_SENT,
        Event.END: State.CLOSED,
    },
    State.INIT_ANSWERED: {
        Event.AUTHENTICATED: State.ESTABLISHED,
        Event.END: State.CLOSED,
    },
    State.AUTH_SENT: {
        Event.AUTHENTICATED: State.ESTABLISHED,
        Event.CLOSE: State.DELETING,
        Event.END: State.CLOSED,
    },
    State.STANDBY: {
        Event.SUCCEED: State.ESTABLISHED,
        Event.CLOSE: State.DELETING,
        Event.END: State.CLOSED,
    },
    State.ESTABLISHED: {
        Event.REKEY: State.REKEYING,
        Event.REPLACE: State.REPLACED,
        Event.CLOSE: State.DELETING,
        Event.END: State.CLOSED,
    },
    State.REKEYING: {
        Event.KEEP: State.ESTABLISHED,
        Event.REPLACE: State.REPLACED,
        Event.CLOSE: State.DELETING,
        Event.END: State.CLOSED,
    },
    State.REPLACED: {
        Event.CLOSE: State.DELETING,
        Event.END: State.CLOSED,
    },
    State.DELETING: {
        Event.END: State.CLOSED,
    },
    State.CLOSED: {},
}

STANDING = frozenset((State.ESTABLISHED, State.REKEYING))
"""States in which it carries its children."""

HALF_OPEN = frozenset((State.NEW, State.INIT_SENT, State.INIT_ANSWERED, State.AUTH_SENT))
"""States before the peer is authenticated."""


@dataclass(slots=True)
class IkeSa:
    """Where an IKE SA is in its table."""

    state: State = State.NEW

    def may(self, event: Event) -> bool:
        return event in TABLE[self.state]

    def take(self, event: Event) -> None:
        """Go where the table says; KeyError where it has no row, which is a bug of ours."""
        self.state = TABLE[self.state][event]
