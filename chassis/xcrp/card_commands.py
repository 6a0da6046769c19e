"""The operators' commands that start cards again, and those that clear what was learnt and recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chassis.bus.arguments import ArgumentError
from chassis.bus.engine import Output, ToLauncher, ToOperator
from chassis.bus.messages import Attributes
from chassis.bus.records import CircuitRecord
from chassis.xcrp import inventory
from chassis.xcrp.ike_commands import requests_of
from chassis.xcrp.operators import Method, Operators

LAST_CIRCUIT: Final = 2**62
"""A number that no circuit exceeds."""


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


def _clear_counters(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    what, name, bases = given["what"], given["name"], operators.state.bases
    node = operators.node
    circuits = {one.number for one in node.publisher.records.values() if isinstance(one, CircuitRecord)}
    bases.retain(node.plan.tunnels, circuits)

    def cleared(replies: Mapping[str, Any], errors: Mapping[str, str]) -> Attributes:
        if what == "tunnel":
            bases.clear_tunnels(replies.values())
        else:
            bases.clear_cards(replies.values(), name)
        return {"errors": dict(errors)}

    if what == "tunnel":
        requests = requests_of(operators, name, "", negotiated=False)
        return operators.request_cards(number, requests, "sas", now, finish=cleared)
    if name and name not in operators.node.plan.ports:
        raise ArgumentError(f"no port {name!r}")
    if name and what == "circuit":
        raise ArgumentError("circuits are cleared all together")
    ask: Attributes = {"ports": True, "first": 1, "last": LAST_CIRCUIT} if what == "circuit" else {"ports": True}
    cards = [(card, ask) for card in operators.line_cards()]
    return operators.request_cards(number, cards, "counters", now, finish=cleared)


COMMANDS: Final[dict[str, Method]] = {
    "reload-card": _reload_card,
    "reload-asp": _reload_asp,
    "clear-arp": _clear_arp,
    "clear-counters": _clear_counters,
}
"""Functions that carry out the commands, by name."""
