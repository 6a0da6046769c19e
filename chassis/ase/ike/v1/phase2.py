"""The states of a quick mode (RFC 2409 section 5.5) as a table, both roles."""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    IDLE = "idle"
    OFFERED = "message 1 sent"
    ANSWERED = "message 2 sent, the pair receives"
    DONE = "done"
    """Kept for a while to answer messages that come again."""
    FAILED = "failed"


class Event(Enum):
    BEGIN = "begin"
    OFFER = "message 1"
    ANSWER = "message 2"
    CONFIRM = "message 3, or a packet by the new pair"
    FAIL = "refused or timed out"


TABLE: Final[dict[State, dict[Event, State]]] = {
    State.IDLE: {Event.BEGIN: State.OFFERED, Event.OFFER: State.ANSWERED, Event.FAIL: State.FAILED},
    State.OFFERED: {Event.ANSWER: State.DONE, Event.FAIL: State.FAILED},
    State.ANSWERED: {Event.CONFIRM: State.DONE, Event.FAIL: State.FAILED},
    State.DONE: {},
    State.FAILED: {},
}
"""What is not in a row cannot happen in that state: the message is passed over."""
