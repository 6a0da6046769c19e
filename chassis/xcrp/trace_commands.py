"""The operators' command `traces`: the stamps of traced packets, at once or when every card has reported.

Cards report a stamp after they sent the packet, so a packet may leave the node before its last stamp arrives here.
A card answers the request `stamps` after all its earlier stamps. When each card has answered, all stamps of
packets that left the node before the request are here. The answer names the cards that did not answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from chassis.bus.engine import Output, ToOperator
from chassis.bus.messages import Attributes
from chassis.xcrp import show
from chassis.xcrp.operators import Method, Operators
from chassis.xcrp.state import ControllerState

STAMPS_TIMEOUT = 2.0
"""Time (s) that a card has to report its stamps; a hung card fails before that, by its heartbeats."""


def _stamps(state: ControllerState, errors: Mapping[str, str]) -> Attributes:
    """Return the traces. `began` is the start of this controller, `since` the admission of each card's process, if
    this controller saw it: stamps of earlier packets may be lost with the process before. `given_up` are the cards
    whose stamps may be missing, and why. Times in monotonic seconds."""
    node = state.node
    absent = {
        card: f"{card} is {entry.state.value}"
        for card, entry in node.cards.items()
        if not entry.expects_heartbeats
    }
    return {
        "traces": show.traces(state.history),
        "began": state.history.began,
        "since": {card: entry.since for card, entry in node.cards.items() if entry.since > -inf},
        "given_up": {**absent, **errors},
    }


def _traces(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    state = operators.state
    if not given["settled"]:
        return [ToOperator(number, {"traces": show.traces(state.history)})]
    asked: list[tuple[str, Attributes]] = [
        (card, {}) for card, entry in operators.node.cards.items() if entry.expects_heartbeats
    ]
    if not asked:
        return [ToOperator(number, _stamps(state, {}))]
    return operators.request_cards(
        number, asked, "stamps", now, patience=STAMPS_TIMEOUT, finish=lambda _, errors: _stamps(state, errors)
    )


COMMANDS: dict[str, Method] = {"traces": _traces}
