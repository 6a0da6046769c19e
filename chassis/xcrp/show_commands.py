"""The operators' commands that show the router: its hardware, interfaces, circuits, neighbours and counters.

What a card counts is asked from it; a card that does not answer in time is named in `errors`, and the rest is
shown.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Final

from chassis.bus.arguments import ArgumentError
from chassis.bus.engine import Output, ToOperator
from chassis.bus.messages import Attributes
from chassis.bus.records import Key
from chassis.xcrp import show, show_hardware, show_interfaces, show_pki
from chassis.xcrp.inventory import ASP
from chassis.xcrp.operators import Method, Operators


def _system(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    return [ToOperator(number, show_hardware.system(operators.state, now))]


def _hardware(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    return [ToOperator(number, show_hardware.hardware(operators.state))]


def _processes(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    state = operators.state
    return [ToOperator(number, {"boot": state.boot, "cards": show.cards(state.node)})]


def _asps(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    return [ToOperator(number, show_hardware.asps(operators.node))]


def _alarms(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    return [ToOperator(number, show_hardware.alarms(operators.state, given["after"]))]


def _contexts(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    return [ToOperator(number, {"contexts": show_interfaces.contexts(operators.node)})]


def _interfaces(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    context, name = given["context"], given["name"]
    if context:
        operators.context_number(context)
    rows = show_interfaces.interfaces(operators.node, context)
    if name:
        rows = [row for row in rows if row["interface"] == name]
        if not rows:
            raise ArgumentError(f"no interface {name!r}")
    return [ToOperator(number, {"interfaces": rows})]


def _ports(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    port = given["port"]
    rows = show_interfaces.ports(operators.node, port)
    if port and not rows:
        raise ArgumentError(f"no port {port!r}")
    if not given["counters"]:
        return [ToOperator(number, {"ports": rows, "errors": {}})]

    def finish(replies: Mapping[str, Any], errors: Mapping[str, str]) -> Attributes:
        bases = operators.state.bases
        show_interfaces.add_counters(rows, {card: bases.count_cards(reply) for card, reply in replies.items()})
        return {"ports": rows, "errors": dict(errors)}

    wanted: Attributes = {"ports": True}
    return operators.request_cards(number, _cards_of(operators, rows, wanted), "counters", now, finish=finish)


def _cards_of(operators: Operators, rows: list[dict[str, Any]], ask: Attributes) -> list[tuple[str, Attributes]]:
    """Return (line card, arguments) for the usable line cards that these rows are on."""
    cards = {row["card"] for row in rows}
    return [(card, ask) for card in operators.line_cards() if card in cards]


def _circuits(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    context = given["context"]
    if context:
        operators.context_number(context)
    answer = show_interfaces.circuits(operators.node, context, given["after"])
    rows = answer["circuits"]
    if not given["counters"] or not rows:
        return [ToOperator(number, {**answer, "errors": {}})]

    def finish(replies: Mapping[str, Any], errors: Mapping[str, str]) -> Attributes:
        bases = operators.state.bases
        show_interfaces.add_counters(rows, {card: bases.count_cards(reply) for card, reply in replies.items()})
        return {**answer, "errors": dict(errors)}

    wanted: Attributes = {"ports": True, "first": rows[0]["circuit"], "last": rows[-1]["circuit"]}
    return operators.request_cards(number, _cards_of(operators, rows, wanted), "counters", now, finish=finish)


def _arp(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    context, node = given["context"], operators.node
    if context:
        operators.context_number(context)
    contexts = {row["context"]: row["id"] for row in show_interfaces.contexts(node)}

    def finish(replies: Mapping[str, Any], errors: Mapping[str, str]) -> Attributes:
        rows = show_interfaces.arp(node, context, replies)
        return {"contexts": contexts, "entries": rows, "errors": dict(errors)}

    asked: list[tuple[str, Attributes]] = [(card, {}) for card in operators.line_cards()]
    return operators.request_cards(number, asked, "neighbours", now, finish=finish)


def _asp_card(operators: Operators, asp: str) -> str:
    """Return the card name of an ASP that takes requests.

    Raises:
        ArgumentError: there is none, or it is not admitted.
    """
    if not any(entry.kind == ASP and entry.card == f"asp {asp}" for entry in operators.node.cards.values()):
        raise ArgumentError(f"no asp {asp}")
    return operators.usable(f"asp {asp}")


def _ike_statistics(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    card = _asp_card(operators, given["asp"])
    return operators.request_cards(number, [(card, {"what": "total"})], "ike", now, single=True)


def _ipsec_statistics(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    card = _asp_card(operators, given["asp"])
    context = operators.context_number(given["context"])
    tunnels = [
        plan.number
        for plan in map(operators.node.plan.tunnels.__getitem__, operators.node.plan.tunnels_by_asp.get(card, ()))
        if context in (plan.context, plan.outer)
    ]

    def finish(replies: Mapping[str, Any], errors: Mapping[str, str]) -> Attributes:
        # The request has one card: without a reply its error is the answer.
        return operators.state.bases.count_totals(replies[card], tunnels)

    return operators.request_cards(
        number, [(card, {"context": context})], "totals", now, single=True, finish=finish
    )


def _certificates(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    context, node, asp = given["context"], operators.node, given["asp"]
    in_number = operators.context_number(context)
    held: Container[Key] | None = None
    if asp:
        if f"asp {asp}" not in node.cards:
            raise ArgumentError(f"no asp {asp}")
        held = node.plan.records_by_asp.get(f"asp {asp}", {})
    rows = show_pki.certificates(node.plan.flash, context, given["whose"], held, in_number)
    if identity := given["identity"]:
        rows = [row for row in rows if show_pki.is_of(row, identity)]
    if handle := given["handle"]:
        rows = [row for row in rows if row["handle"] == handle.lower()]
    if (identity or handle) and not rows:
        raise ArgumentError(f"no certificate {identity or handle!r}")
    return [ToOperator(number, {"certificates": rows})]


def _key_pairs(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    operators.context_number(given["context"])
    rows = show_pki.key_pairs(operators.node.plan.flash, given["context"])
    if name := given["name"]:
        rows = [row for row in rows if row["name"] == name]
        if not rows:
            raise ArgumentError(f"no key pair {name!r}")
    return [ToOperator(number, {"key_pairs": rows})]


def _certificate_requests(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    if context := given["context"]:
        operators.context_number(context)
    rows = show_pki.certificate_requests(operators.node.plan.flash, context)
    return [ToOperator(number, {"certificate_requests": rows})]


COMMANDS: Final[dict[str, Method]] = {
    "system": _system,
    "hardware": _hardware,
    "processes": _processes,
    "asps": _asps,
    "alarms": _alarms,
    "contexts": _contexts,
    "interfaces": _interfaces,
    "ports": _ports,
    "circuits": _circuits,
    "arp": _arp,
    "ike-statistics": _ike_statistics,
    "ipsec-statistics": _ipsec_statistics,
    "certificates": _certificates,
    "key-pairs": _key_pairs,
    "certificate-requests": _certificate_requests,
}
"""Functions that carry out the commands, by name."""
