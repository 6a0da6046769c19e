"""By which line card a packet of the router itself leaves."""

from __future__ import annotations

from chassis.bus.records import NextHop, RouteRecord
from chassis.fwd.fib import choose_next_hop
from chassis.net.address import MASKS
from chassis.xcrp.inventory import LINE_CARD
from chassis.xcrp.node import NodeState


class UnreachableError(Exception):
    """Nothing can be sent to an address now; the text says why."""


def usable_line_cards(node: NodeState) -> list[str]:
    return [name for name, entry in node.cards.items() if entry.kind == LINE_CARD and entry.usable]


def leaving_card(node: NodeState, context: int, address: int) -> str:
    """Return the line card that can send a packet of the router to an address of a context.

    That is the card of the port by which the route leads, or the home of its circuit-based tunnel. Any line card
    can send into an economical tunnel, and to the router itself.

    Raises:
        UnreachableError: no line card is usable, there is no route, or what it leads to is down.
    """
    usable = usable_line_cards(node)
    if not usable:
        raise UnreachableError("no line card is usable")
    if ("local", context, address) in node.publisher.records:
        return usable[0]
    route = route_towards(node, context, address)
    if route is None:
        raise UnreachableError("no route")

    def carries(hop: NextHop) -> bool:
        if hop.kind == "port":
            return hop.card in usable
        tunnel = node.plan.tunnels.get(hop.tunnel)
        if tunnel is None or not node.tunnel_up(hop.tunnel) or not node.asp_usable(tunnel.asp):
            return False
        return tunnel.config.economical or node.tunnels[hop.tunnel].home in usable

    hop, passed = choose_next_hop(route.next_hops, carries)
    if hop is None:
        raise UnreachableError("the tunnel is down" if passed else "no usable next hop")
    if hop.kind == "port":
        return hop.card
    if hop.kind == "discard":
        raise UnreachableError("the route discards")
    home = node.tunnels[hop.tunnel].home if hop.kind == "tunnel" else ""
    return home or usable[0]


def route_towards(node: NodeState, context: int, address: int) -> RouteRecord | None:
    """Return the route of a context with the longest prefix that has an address."""
    for length in range(32, -1, -1):
        record = node.publisher.records.get((RouteRecord.TYPE, context, address & MASKS[length], length))
        if isinstance(record, RouteRecord):
            return record
    return None
