"""A node's state as plain values for operators: no keys, addresses as text, times in monotonic seconds."""

from __future__ import annotations

from typing import Any

from chassis.bus.messages import Attributes
from chassis.bus.records import CircuitRecord, NextHop, RouteRecord
from chassis.net.address import format_address, format_mac, format_prefix
from chassis.xcrp import ike_config, waiting_changes
from chassis.xcrp.events import History
from chassis.xcrp.node import NodeState
from chassis.xcrp.plan import TunnelPlan
from chassis.xcrp.state import ControllerState
from chassis.xcrp.tunnels import ASP, NO_PEER

STATUS_EVENTS = 50
"""Events in `status` (count); `events` returns all that are kept."""

Row = dict[str, Any]


def status(state: ControllerState) -> Attributes:
    """Return cards, tunnels, ports, circuits and the last events."""
    node, history, diagnostics = state.node, state.history, state.diagnostics
    return {
        "node": node.name,
        "boot": state.boot,
        "version": node.publisher.version,
        "configuration": committed(state),
        "cards": cards(node),
        "tunnels": tunnels(node),
        "ports": ports(node),
        "circuits": circuits(node),
        "events": events(history, 0.0)[-STATUS_EVENTS:],
        "diagnostics": {
            severity: sum(
                found.severity == severity
                for found in (diagnostics.all_diagnostics if diagnostics is not None else ())
            )
            for severity in ("error", "warning", "note")
        },
        "ignored_messages": dict(state.ignored),
    }


def committed(state: ControllerState) -> Row:
    """Return the commit in force (0: none), its file, and whether its text differs from the start-up file."""
    last, startup = state.journal.last, state.startup
    if last is None:
        return {"commit": 0, "file": "", "differs": False}
    return {
        "commit": last.number,
        "file": last.file,
        "differs": startup is not None and startup[0] != last.text,
    }


def cards(node: NodeState) -> list[Row]:
    return [
        {
            "card": entry.card,
            "kind": entry.kind,
            "type": _card_type(node, entry.card),
            "pid": entry.pid,
            "boot": entry.admitted_boot,
            "epoch": entry.epoch,
            "usable": entry.usable,
            "in_sync": entry.reported_version >= node.publisher.sent(entry.card),
            "state": entry.state.value,
            "loop_lag": entry.loop_lag,
            "down_reason": entry.down_reason,
            "remarks": list(entry.remarks),
        }
        for entry in node.cards.values()
    ]


def _card_type(node: NodeState, card: str) -> str:
    """Return the configured type of the card that a process is of; empty without one."""
    configured = node.plan.config.cards.get(int(card.rpartition(" ")[2].partition("/")[0]))
    return configured.type if configured is not None else ""


def tunnels(node: NodeState) -> list[Row]:
    """Return the rows of all tunnels. An on-demand tunnel has one row, with the number of its instances."""
    plans = node.plan.tunnels.values()
    rows = [tunnel(node, one.number) for one in plans if one.instance is None]
    return rows + [on_demand(node, number) for number in node.plan.on_demand]


def tunnel(node: NodeState, number: int, *, detail: bool = True) -> Row:
    """Return the row of a tunnel; `detail`: with its policy, peer and SAs if it is negotiated."""
    tunnel_plan, state = node.plan.tunnels[number], node.tunnels[number]
    config = tunnel_plan.config
    return {
        "name": config.name,
        "number": number,
        "kind": config.kind,
        "mode": "economical" if config.economical else "circuit-based",
        "asp": tunnel_plan.asp,
        "circuit": state.circuit,
        "home": state.home,
        "context": config.interface_context,
        "outer_context": config.context,
        "interface": config.interface or "",
        "local": config.local or "",
        "remote": config.remote or "",
        "up": state.up,
        "state": state.status.value,
        "reason": state.reason(tunnel_plan.asp, node.asp_usable(tunnel_plan.asp)),
        "since": state.since,
        "waiting": _waiting(node, number),
        **(_negotiated(node, number) if detail and state.negotiated else {}),
        **_instance(tunnel_plan),
    }


def _waiting(node: NodeState, number: int) -> list[str]:
    """Return the lines of a tunnel that wait for its end or a `clear`."""
    if number not in node.waiting:
        return []
    held = node.plan.tunnels[number].config
    return waiting_changes.changes(node.configured.tunnels[held.name], held)


def on_demand(node: NodeState, number: int) -> Row:
    """Return the row of an on-demand tunnel. It is up while one of its instances is."""
    template = node.plan.on_demand[number]
    config = template.config
    instances = node.plan.instances.get(number, {})
    up = sum(map(node.tunnel_up, instances))
    reason = "" if up else template.config_error or NO_PEER
    if reason == NO_PEER and not node.asp_usable(template.asp):
        reason = f"{ASP}: {template.asp} is down"
    return {
        "name": config.name,
        "number": number,
        "kind": config.kind,
        "mode": "economical" if config.economical else "circuit-based",
        "asp": template.asp,
        "context": config.interface_context,
        "outer_context": config.context,
        "interface": config.interface or "",
        "local": config.local or "",
        "up": up > 0,
        "reason": reason,
        "instances": len(instances),
        "instances_up": up,
        "max_tunnels": config.max_tunnels or 0,
        "ike_policy": config.ike_policy or "",
    }


def _instance(tunnel_plan: TunnelPlan) -> Row:
    """Return what only an instance of an on-demand tunnel has: its peer, profile and inner address."""
    one = tunnel_plan.instance
    if one is None:
        return {}
    return {
        "identity": one.identity,
        "profile": one.profile,
        "assigned": format_prefix((one.address, one.prefix_length)) if one.address else "",
        "pool": one.pool,
        "session": one.session,
        "peer_since": one.since,
    }


def _negotiated(node: NodeState, number: int) -> Row:
    """Return what only negotiated tunnels have: policy, peer, and the SAs that the ASP reported."""
    tunnel_plan, state = node.plan.tunnels[number], node.tunnels[number]
    policy = ike_config.policy_of(node.plan.config, tunnel_plan.config)
    return {
        "ike_policy": tunnel_plan.config.ike_policy or "",
        "ike_version": policy.version if policy is not None else 0,
        "identity": state.identity,
        "networks": [format_prefix((prefix, length)) for _, prefix, length in node.selectors.of_tunnel(number)],
        "sas": [
            {
                "serial": held.sa.serial,
                "direction": held.sa.direction,
                "protocol": held.sa.protocol,
                "spi": held.sa.spi,
                "algorithms": held.sa.algorithms,
                "window": held.sa.window,
                "event": held.event,
                "since": held.since,
            }
            for held in node.sas.of(number)
        ],
    }


def ports(node: NodeState) -> list[Row]:
    contexts = {number: name for name, number in node.plan.contexts.items()}
    return [
        {
            "port": port.name,
            "card": port.card,
            "context": contexts.get(port.context, ""),
            "interface": port.interface,
            "address": f"{format_address(port.address)}/{port.length}" if port.address else "",
            "secondary": [format_prefix(network) for network in port.secondary],
            "mac": format_mac(port.mac),
            "enabled": port.enabled,
            "carrier": port.name in node.carrier,
            "up": node.port_up(port.name),
        }
        for port in node.plan.ports.values()
    ]


def circuits(node: NodeState) -> list[Row]:
    return [
        {
            "circuit": record.number,
            "kind": record.kind,
            "card": record.card,
            "port": record.port,
            "tunnel": record.tunnel,
            "interface": record.interface,
        }
        for record in node.publisher.records.values()
        if isinstance(record, CircuitRecord)
    ]


def routes(node: NodeState, context: int) -> list[Row]:
    """Return the routes of a context that have next hops, by prefix."""
    found = [
        record
        for record in node.publisher.records.values()
        if isinstance(record, RouteRecord) and record.context == context
    ]
    found.sort(key=lambda route: (route.prefix, route.length))
    return [
        {
            "prefix": format_prefix((route.prefix, route.length)),
            "next_hops": [_next_hop(node, hop) for hop in route.next_hops],
        }
        for route in found
    ]


def down_routes(node: NodeState, context: str) -> list[Row]:
    """Return the static routes of a context that can never come up, with the reason."""
    return [
        {
            "prefix": route.prefix,
            "next_hop": route.next_hop or route.interface or "",
            "cost": route.cost,
            "reason": f"no packet leaves for context {route.context}",
        }
        for route in node.plan.config.contexts[context].routes
        if route.context not in (None, context) or (route.next_hop or route.interface) is None
    ]


def _next_hop(node: NodeState, hop: NextHop) -> Row:
    tunnel_plan = node.plan.tunnels.get(hop.tunnel)
    return {
        "kind": hop.kind,
        "cost": hop.cost,
        "card": hop.card,
        "port": hop.port,
        "address": format_address(hop.address) if hop.address else "",
        "tunnel": tunnel_plan.label if tunnel_plan is not None else "",
    }


def events(history: History, since: float) -> list[Row]:
    return [{"time": event.time, "text": event.text} for event in history.events if event.time >= since]


def traces(history: History) -> list[Row]:
    """Return each trace with its stamps in order of time."""
    return [
        {
            "number": number,
            "stamps": [{"step": stamp.step, "time": stamp.time} for stamp in sorted(stamps, key=lambda s: s.time)],
        }
        for number, stamps in history.traces.items()
    ]
