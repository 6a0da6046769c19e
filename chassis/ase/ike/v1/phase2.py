"""The states of a quick mode (RFC 2409 section 5.5) as a table, both roles."""

from __future__ import annotations

from enum import Enum
from typing import Final


class QuickModeState(Enum):
    IDLE = "idle"
    OFFERED = "message 1 sent"
    ANSWERED = "message 2 sent, the pair receives"
    DONE = "done"
    """Kept for a while to answer messages that come again."""
    FAILED = "failed"


class QuickModeEvent(Enum):
    BEGIN = "begin"
    OFFER = "message 1"
    ANSWER = "message 2"
    CONFIRM = "message 3, or a packet by the new pair"
    FAIL = "refused or timed out"


QUICK_MODE_TRANSITIONS: Final[dict[QuickModeState, dict[QuickModeEvent, QuickModeState]]] = {
    QuickModeState.IDLE: {
        QuickModeEvent.BEGIN: QuickModeState.OFFERED,
        QuickModeEvent.OFFER: QuickModeState.ANSWERED,
        QuickModeEvent.FAIL: QuickModeState.FAILED,
    },
    QuickModeState.OFFERED: {
        QuickModeEvent.ANSWER: QuickModeState.DONE,
        QuickModeEvent.FAIL: QuickModeState.FAILED,
    },
    QuickModeState.ANSWERED: {
        QuickModeEvent.CONFIRM: QuickModeState.DONE,
        QuickModeEvent.FAIL: QuickModeState.FAILED,
    },
    QuickModeState.DONE: {},
    QuickModeState.FAILED: {},
}
"""What is not in a row cannot happen in that state: the message is passed over."""
