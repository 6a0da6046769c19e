"""The operators' commands that start cards again, and those that clear what was learnt and recorded."""

from __future__ import annotations

from typing import Any, Final

from chassis.bus.arguments import ArgumentError
from chassis.bus.engine import Output, ToLauncher, ToOperator
from chassis.bus.messages import Attributes
from chassis.xcrp import inventory
from chassis.xcrp.events import Log
from chassis.xcrp.operators import Method, Operators


def _restarted(operators: Operators, number: int, cards: list[str], user: str, now: float) -> list[Output]:
    """Have the launcher start these cards again; each goes through its admission as after any other end."""
    names: list[Any] = list(cards)
    outputs: list[Output] = []
    for card in cards:
        outputs += operators.state.event(f"{card}: reload{f' by {user}' if user else ''}", now)
    outputs.append(ToOperator(number, {"cards": names}))
    return [*outputs, *(ToLauncher("restart", {"card": card}) for card in cards)]


def _reload_card(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    slot = given["slot"]
    cards = [card for card in operators.node.cards if card.rpartition(" ")[2].partition("/")[0] == str(slot)]
    if not cards:
        raise ArgumentError(f"no card in slot {slot} has a process")
    return _restarted(operators, number, cards, given["user"], now)


def _reload_asp(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    card = inventory.asp(given["asp"])
    if card not in operators.node.cards:
        known = ", ".join(name for name in operators.node.cards if name.startswith("asp ")) or "none"
        raise ArgumentError(f"no {card}; there are: {known}")
    return _restarted(operators, number, [card], given["user"], now)


def _clear_arp(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    asked: Attributes = {"context": operators.context_number(given["context"])}
    if given["address"] is not None:
        asked["address"] = given["address"]
    return operators.request_cards(number, [(card, asked) for card in operators.line_cards()], "clear-arp", now)


def _clear_log(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    history = operators.state.history
    cleared = len(history.log)
    history.log = Log()
    return [ToOperator(number, {"cleared": cleared})]


COMMANDS: Final[dict[str, Method]] = {
    "reload-card": _reload_card,
    "reload-asp": _reload_asp,
    "clear-arp": _clear_arp,
    "clear-log": _clear_log,
}
"""Functions that carry out the commands, by name."""
