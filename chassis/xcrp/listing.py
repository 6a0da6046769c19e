"""The operators' request `tunnels`: a slice of the list of tunnels, and the key of the slice after it.

Tunnels are listed in the order of their numbers, which is the order in which they were configured or their peers
came. A number is never used again, so a slice goes on where the one before it ended, whatever commits were between
the two. Only the rows of the slice are made.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from chassis.bus.arguments import ArgumentError
from chassis.bus.engine import Output, ToOperator
from chassis.model.router import Tunnel
from chassis.net.address import parse_address
from chassis.xcrp import show
from chassis.xcrp.node import NodeState
from chassis.xcrp.operators import Method, Operators

_Item = tuple[int, Tunnel, str]
"""A tunnel's number, configuration and ASP."""


def tunnels(node: NodeState, given: dict[str, Any]) -> dict[str, Any]:
    """Return `tunnels`, at most `limit` rows, and `next`, the key to go on from; empty after the last one.

    The last slice also has the number of tunnels that were asked for (`total`), and of those that are up (`up`).
    An on-demand tunnel with peers counts as the tunnels of its peers.

    Raises:
        ArgumentError: there is no such tunnel, context or ASP, or the key is none.
    """
    _refuse_unknown(node, given)
    chosen = _filter(given)
    found = list(islice(filter(chosen, _after(node, given["after"], given["remote"])), given["limit"] + 1))
    shown = found[: given["limit"]]
    rows = [_row(node, number, given["detail"]) for number, _, _ in shown]
    if len(found) > len(shown):
        return {"tunnels": rows, "next": str(shown[-1][0])}
    asked = {number for number, _, _ in filter(chosen, _after(node, "", given["remote"]))}
    counted = [number for number in asked if asked.isdisjoint(node.plan.instances.get(number, ()))]
    return {"tunnels": rows, "next": "", "total": len(counted), "up": sum(_up(node, one) for one in counted)}


def _row(node: NodeState, number: int, detail: bool) -> show.Row:
    if number in node.plan.on_demand:
        return show.on_demand(node, number)
    return show.tunnel(node, number, detail=detail)


def _up(node: NodeState, number: int) -> bool:
    return any(map(node.tunnel_up, node.plan.instances.get(number, (number,))))


def _refuse_unknown(node: NodeState, given: dict[str, Any]) -> None:
    config, name, context, card = node.plan.config, given["name"], given["context"], given["card"]
    if name and name not in config.tunnels:
        raise ArgumentError(f"no tunnel {name!r}")
    if context and context not in config.contexts:
        raise ArgumentError(f"no context {context!r}")
    if card and f"asp {card}" not in node.cards:
        raise ArgumentError(f"no asp {card}")


def _filter(given: dict[str, Any]) -> Callable[[_Item], bool]:
    """Return whether a tunnel was asked for."""
    wanted: list[tuple[Callable[[_Item], str | None], str]] = []
    if given["name"]:
        wanted.append((lambda item: item[1].name, given["name"]))
    if given["remote"]:
        wanted.append((lambda item: item[1].remote, given["remote"]))
    if given["context"]:
        wanted.append((lambda item: item[1].interface_context, given["context"]))
    if given["kind"] != "all":
        wanted.append((lambda item: item[1].kind, given["kind"]))
    if given["card"]:
        wanted.append((lambda item: item[2], f"asp {given['card']}"))
    return lambda item: all(value(item) == text for value, text in wanted)


def _candidates(node: NodeState, remote: str) -> Iterable[int]:
    """Return the numbers of the tunnels among which are those with a remote end; without one all."""
    plan = node.plan
    try:
        address = parse_address(remote)
    except ValueError:
        address = 0
    found = [number for peers in plan.tunnels_by_peer.values() for number in peers.get(address, ())]
    # A tunnel without an outer context is in no table.
    return found or [*plan.tunnels, *plan.on_demand]


def _after(node: NodeState, key: str, remote: str) -> Iterator[_Item]:
    """Return the tunnels after the one of this key, or all; with `remote` those that may have it.

    Raises:
        ArgumentError: no slice ends with such a key.
    """
    if key and not key.isdecimal():
        raise ArgumentError(f"after: {key!r} is not the `next` of a slice")
    tunnels, on_demand = node.plan.tunnels, node.plan.on_demand
    numbers = sorted(_candidates(node, remote))
    begin = bisect_right(numbers, int(key)) if key else 0
    plans = (tunnels.get(one) or on_demand[one] for one in islice(numbers, begin, None))
    return ((plan.number, plan.config, plan.asp) for plan in plans)


def _tunnels(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    return [ToOperator(number, tunnels(operators.node, given))]


COMMANDS: Final[dict[str, Method]] = {"tunnels": _tunnels}
"""Functions that carry out the commands, by name."""
