"""The operators' commands about the SAs of tunnels, carried out by ASPs: `clear`, `rekey`, `ike`, `keys`,
`queues`, `sas`.

A request names a tunnel by its number; without a number it is for all tunnels of the ASP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chassis.bus.arguments import ArgumentError
from chassis.bus.engine import Output
from chassis.bus.messages import Attributes
from chassis.xcrp.operators import Method, Operators
from chassis.xcrp.plan import TunnelPlan
from chassis.xcrp.tunnels import NO_PEER


def _tunnel_plans(operators: Operators, name: str) -> list[TunnelPlan]:
    """Return the tunnel of a name; the instances of an on-demand one.

    Raises:
        ArgumentError: there is no such tunnel, or it has no peer.
    """
    plan = operators.node.plan
    number = plan.on_demand_by_name.get(name)
    if number is not None:
        if number not in plan.instances:
            raise ArgumentError(f"tunnel {name}: {plan.on_demand[number].config_error or NO_PEER}")
        return [plan.tunnels[one] for one in plan.instances[number]]
    number = plan.by_name.get(name)
    if number is None:
        known = ", ".join([*plan.by_name, *plan.on_demand_by_name][:8]) or "none"
        raise ArgumentError(f"no tunnel {name!r}; there are: {known}")
    return [plan.tunnels[number]]


def requests_of(operators: Operators, tunnel: str, what: str, *, negotiated: bool) -> list[tuple[str, Attributes]]:
    """Return (ASP, arguments) for one tunnel, or for all; `what` is empty for a request without that argument."""
    more: Attributes = {"what": what} if what else {}
    if tunnel:
        plans = _tunnel_plans(operators, tunnel)
        if negotiated and plans[0].config.kind == "manual":
            raise ArgumentError(f"tunnel {tunnel} has manual keys: it has no IKE SA")
        if not plans[0].asp:
            raise ArgumentError(f"tunnel {tunnel} has no ASP: {plans[0].config_error}")
        asp = operators.usable(plans[0].asp)
        return [(asp, {"tunnel": one.number, **more}) for one in plans]
    node = operators.node
    asps = {
        tunnel_plan.asp: None
        for tunnel_plan in node.plan.tunnels.values()
        if tunnel_plan.asp and (tunnel_plan.config.kind != "manual" or not negotiated)
    }
    return [(asp, dict(more)) for asp in sorted(asps) if node.asp_usable(asp)]


def _clear(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    what, tunnel = given["what"], given["tunnel"]
    requests = requests_of(operators, tunnel, what, negotiated=what == "ike")
    node, state = operators.node, operators.state
    waited = {one for one in node.waiting if what != "ike" or node.plan.tunnels[one].config.kind != "manual"}
    if tunnel:
        waited &= {node.plan.by_name.get(tunnel, 0)}
    if not waited:
        return operators.request_cards(number, requests, "clear", now)
    lines = node.let_go(waited, now)
    outputs = state.publish() + state.events(lines, now)
    try:
        requests = requests_of(operators, tunnel, what, negotiated=what == "ike")
    except ArgumentError:
        # It has no ASP at its new end points: with its move its SAs are gone.
        requests = []
    return outputs + operators.request_cards(number, requests, "clear", now)


def _rekey(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    what = given["what"]
    requests = requests_of(operators, given["tunnel"], what, negotiated=what == "ike")
    return operators.request_cards(number, requests, "rekey", now)


def _ike(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    requests = requests_of(operators, given["tunnel"], given["what"], negotiated=True)
    return operators.request_cards(number, requests, "ike", now)


def _keys(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    return operators.request_cards(
        number, requests_of(operators, given["tunnel"], "keys", negotiated=True), "ike", now
    )


def _queues(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    requests = requests_of(operators, given["tunnel"], "", negotiated=False)
    return operators.request_cards(number, requests, "queues", now)


def _sas(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    requests = requests_of(operators, given["tunnel"], "", negotiated=False)
    if not given["cleared"]:
        return operators.request_cards(number, requests, "sas", now)

    def finish(replies: Mapping[str, Any], errors: Mapping[str, str]) -> Attributes:
        counted: dict[str, Any] = {
            card: operators.state.bases.count_tunnels(reply) for card, reply in replies.items()
        }
        return {"cards": counted, "errors": dict(errors)}

    return operators.request_cards(number, requests, "sas", now, finish=finish)


COMMANDS: Final[dict[str, Method]] = {
    "clear": _clear,
    "rekey": _rekey,
    "ike": _ike,
    "keys": _keys,
    "queues": _queues,
    "sas": _sas,
}
"""Functions that carry out the commands, by name."""
