"""The IKE SA of version 2 as a table of states (RFC 7296 1.2, 1.3.2, 2.25.2).

An event that a state has no row for must not happen there: code asks `may` before it does what the event
stands for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class IkeSaState(Enum):
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


class IkeSaEvent(Enum):
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


TRANSITIONS: dict[IkeSaState, dict[IkeSaEvent, IkeSaState]] = {
    IkeSaState.NEW: {
        IkeSaEvent.START: IkeSaState.INIT_SENT,
        IkeSaEvent.ANSWERED: IkeSaState.INIT_ANSWERED,
        IkeSaEvent.STAND_BY: IkeSaState.STANDBY,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.INIT_SENT: {
        IkeSaEvent.AGAIN: IkeSaState.INIT_SENT,
        IkeSaEvent.KEYED: IkeSaState.AUTH_SENT,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.INIT_ANSWERED: {
        IkeSaEvent.AUTHENTICATED: IkeSaState.ESTABLISHED,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.AUTH_SENT: {
        IkeSaEvent.AUTHENTICATED: IkeSaState.ESTABLISHED,
        IkeSaEvent.CLOSE: IkeSaState.DELETING,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.STANDBY: {
        IkeSaEvent.SUCCEED: IkeSaState.ESTABLISHED,
        IkeSaEvent.CLOSE: IkeSaState.DELETING,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.ESTABLISHED: {
        IkeSaEvent.REKEY: IkeSaState.REKEYING,
        IkeSaEvent.REPLACE: IkeSaState.REPLACED,
        IkeSaEvent.CLOSE: IkeSaState.DELETING,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.REKEYING: {
        IkeSaEvent.KEEP: IkeSaState.ESTABLISHED,
        IkeSaEvent.REPLACE: IkeSaState.REPLACED,
        IkeSaEvent.CLOSE: IkeSaState.DELETING,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.REPLACED: {
        IkeSaEvent.CLOSE: IkeSaState.DELETING,
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.DELETING: {
        IkeSaEvent.END: IkeSaState.CLOSED,
    },
    IkeSaState.CLOSED: {},
}

ESTABLISHED_STATES = frozenset((IkeSaState.ESTABLISHED, IkeSaState.REKEYING))
"""States in which it carries its children."""

HALF_OPEN_STATES = frozenset(
    (IkeSaState.NEW, IkeSaState.INIT_SENT, IkeSaState.INIT_ANSWERED, IkeSaState.AUTH_SENT)
)
"""States before the peer is authenticated."""


@dataclass(slots=True)
class IkeSa:
    """Where an IKE SA is in its table."""

    state: IkeSaState = IkeSaState.NEW

    def may(self, event: IkeSaEvent) -> bool:
        return event in TRANSITIONS[self.state]

    def take(self, event: IkeSaEvent) -> None:
        """Go where the table says; KeyError where it has no row, which is a bug of ours."""
        self.state = TRANSITIONS[self.state][event]
