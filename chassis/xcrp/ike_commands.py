"""The operators' commands about tunnels' SAs, carried out by ASPs: `clear`, `rekey`, `ike`, `keys`, `queues`,
`sas`.

A request names a tunnel by its number; without one it is about every tunnel of the ASP.
"""

from __future__ import annotations

from typing import Any, Final

from chassis.bus.engine import Output
from chassis.bus.messages import Attributes
from chassis.xcrp.operators import Argument, ArgumentError, Entry, Operators
from chassis.xcrp.plan import TunnelPlan

CLEAR: Final = ("all", "ike", "ipsec")
"""What of a tunnel is negotiated anew: everything, or the SAs that the guide's two clear commands name."""

REKEY: Final = ("ipsec", "ike")
SHOW: Final = ("sas", "statistics")


def _made(operators: Operators, name: str) -> TunnelPlan:
    plan = operators.node.plan
    number = plan.by_name.get(name)
    if number is None:
        known = ", ".join(list(plan.by_name)[:8]) or "none"
        raise ArgumentError(f"no tunnel {name!r}; there are: {known}")
    return plan.tunnels[number]


def _what(given: str, known: tuple[str, ...]) -> str:
    if given not in known:
        raise ArgumentError(f"{given!r} is none of {', '.join(known)}")
    return given


def _requests(operators: Operators, tunnel: str, what: str, *, negotiated: bool) -> list[tuple[str, Attributes]]:
    """(ASP, arguments) for one tunnel, or for all."""
    if tunnel:
        made = _made(operators, tunnel)
        if negotiated and made.config.kind != "static":
            raise ArgumentError(f"tunnel {tunnel} has manual keys: it has no IKE SA")
        if not made.asp:
            raise ArgumentError(f"tunnel {tunnel} has no ASP: {made.fault}")
        return [(operators.usable(made.asp), {"tunnel": made.number, "what": what})]
    node = operators.node
    asps = {
        made.asp: None
        for made in node.plan.tunnels.values()
        if made.asp and (made.config.kind == "static" or not negotiated)
    }
    return [(asp, {"what": what}) for asp in sorted(asps) if node.asp_usable(asp)]


def _clear(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    what = _what(given["what"], CLEAR)
    requests = _requests(operators, given["tunnel"], what, negotiated=what == "ike")
    return operators.ask(number, requests, "clear", now)


def _rekey(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    what = _what(given["what"], REKEY)
    requests = _requests(operators, given["tunnel"], what, negotiated=what == "ike")
    return operators.ask(number, requests, "rekey", now)


def _ike(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    what = _what(given["what"], SHOW)
    return operators.ask(number, _requests(operators, given["tunnel"], what, negotiated=True), "ike", now)


def _keys(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    return operators.ask(number, _requests(operators, given["tunnel"], "keys", negotiated=True), "ike", now)


def _queues(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    requests = _requests(operators, given["tunnel"], "queues", negotiated=False)
    return operators.ask(number, requests, "queues", now)


def _sas(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    requests = _requests(operators, given["tunnel"], "sas", negotiated=False)
    return operators.ask(number, requests, "sas", now)


_TUNNEL = Argument(str, "")

COMMANDS: Final[dict[str, Entry]] = {
    "clear": (_clear, {"tunnel": _TUNNEL, "what": Argument(str, "all")}, False),
    "rekey": (_rekey, {"tunnel": Argument(str, required=True), "what": Argument(str, "ipsec")}, False),
    "ike": (_ike, {"tunnel": _TUNNEL, "what": Argument(str, "sas")}, False),
    "keys": (_keys, {"tunnel": _TUNNEL}, False),
    "queues": (_queues, {"tunnel": _TUNNEL}, False),
    "sas": (_sas, {"tunnel": _TUNNEL}, False),
}
"""By name: what is done, its arguments, whether it takes others."""
