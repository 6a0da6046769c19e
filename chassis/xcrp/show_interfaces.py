"""Contexts, interfaces, ports, circuits and ARP entries as plain values for operators.

What line cards count or know is asked from them and merged here by the request that shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from chassis.model.router import LOCAL, Config, Interface
from chassis.net.address import format_address, format_mac
from chassis.xcrp.log_places import CONTEXT_IDS
from chassis.xcrp.node import NodeState
from chassis.xcrp.plan import PortPlan

Row = dict[str, Any]

IP_MTU: Final = 1500
"""MTU (octets) of an interface that has none of its own."""

SPEED: Final = 1000
"""Speed (Mbit/s) of an Ethernet port: wires here have none."""

MAX_CIRCUITS: Final = 500
"""Most circuits in one answer (count)."""


def contexts(node: NodeState) -> list[Row]:
    config = node.plan.config
    return [
        {
            "context": name,
            "id": CONTEXT_IDS + node.plan.contexts[name],
            "vpn_rd": context.vpn_rd or "",
            "interfaces": len(context.interfaces),
            "routes": len(context.routes),
            "asp_group": context.asp_group or "",
            "keepalive": context.keepalive,
        }
        for name, context in config.contexts.items()
    ]


def interfaces(node: NodeState, context: str) -> list[Row]:
    """Return the interfaces of a context, or of all where it is empty. `state` is up, down (what it is bound to
    is), or unbound."""
    config = node.plan.config
    bound = _bindings(config)
    return [
        _interface(node, name, interface, bound.get((name, interface.name), []))
        for name, one in config.contexts.items()
        if context in ("", name)
        for interface in one.interfaces.values()
    ]


def _bindings(config: Config) -> dict[tuple[str, str], list[str]]:
    """Return what is bound to each (context, interface), in words of the configuration."""
    found: dict[tuple[str, str], list[str]] = {}
    for port in config.ports.values():
        if port.interface:
            found.setdefault((port.context or LOCAL, port.interface), []).append(f"ethernet {port.name}")
    for tunnel in config.tunnels.values():
        if tunnel.interface:
            at = (tunnel.interface_context, tunnel.interface)
            found.setdefault(at, []).append(f"ipsec {tunnel.name}")
    return found


def _interface(node: NodeState, context: str, interface: Interface, bindings: list[str]) -> Row:
    plan, at = node.plan, (context, interface.name)
    loopback = interface.kind == "loopback"
    up = loopback or any(node.port_up(port) for port in plan.bound_ports.get(at, ()))
    up = up or any(node.tunnel_up(number) for number in plan.bound_tunnels.get(at, ()))
    up = up or (interface.kind == "multibind" and _carries_peers(node, at))
    limits = [
        tunnel.mtu
        for number in plan.bound_tunnels.get(at, ())
        if (tunnel := plan.tunnels[number].config).mtu is not None
    ]
    return {
        "interface": interface.name,
        "context": context,
        "kind": interface.kind,
        "description": interface.description or "",
        "address": f"{interface.address}/{interface.prefix_len}" if interface.address else "",
        "secondary": list(interface.secondary),
        "unnumbered": interface.unnumbered or "",
        "mtu": min(limits, default=IP_MTU),
        "state": "up" if up else "down" if bindings else "unbound",
        "bindings": bindings,
    }


def _carries_peers(node: NodeState, at: tuple[str, str]) -> bool:
    """Return whether an instance of an on-demand tunnel that is bound to an interface is up."""
    plan = node.plan
    bound = (
        number
        for number, template in plan.on_demand.items()
        if (template.config.interface_context, template.config.interface) == at
    )
    return any(node.tunnel_up(one) for number in bound for one in plan.instances.get(number, ()))


def ports(node: NodeState, port: str = "") -> list[Row]:
    """Return the configured Ethernet ports, or this one; those of a slot without a port card are down.

    `mark` is the priority descriptor (0 to 63) that packets get as they come in, None where they get none.
    """
    rows = []
    for name, configured in node.plan.config.ports.items():
        if port in ("", name):
            plan = node.plan.ports.get(name)
            rows.append(
                {
                    "port": name,
                    "type": "ethernet",
                    "description": configured.description or "",
                    "admin": not configured.shutdown,
                    "up": node.port_up(name),
                    "reason": _port_reason(node, plan),
                    "card": plan.card if plan is not None else "",
                    "interface": configured.interface or "",
                    "context": (configured.context or LOCAL) if configured.interface else "",
                    "mac": format_mac(plan.mac) if plan is not None else "",
                    "mtu": IP_MTU,
                    "speed": SPEED,
                    "circuit": plan.circuit if plan is not None else 0,
                    "qos_policy": configured.policing_policy or "",
                    "mark": None if plan is None or plan.descriptor < 0 else plan.descriptor,
                }
            )
    return rows


def _port_reason(node: NodeState, plan: PortPlan | None) -> str:
    """Return why a port is down; empty where it is up."""
    if plan is None:
        return "no port card in its slot"
    if node.port_up(plan.name):
        return ""
    if node.plan.config.ports[plan.name].shutdown:
        return "shutdown"
    if not plan.enabled:
        return "not bound to an interface"
    if plan.shut:
        return f"{plan.card} is shut down"
    card = node.cards.get(plan.card)
    return "no carrier" if card is not None and card.usable else f"{plan.card} is down"


def circuits(node: NodeState, context: str, after: int) -> Row:
    """Return the circuits of a context (of all where it is empty) with numbers above `after`, by number.

    Only the rows of this part are made. `next` is where the following one begins, 0 after the last one, which has
    the numbers of all in `total`.
    """
    found: list[tuple[int, PortPlan | int]] = [
        (port.circuit, port) for port in node.plan.ports.values() if context in ("", _context_of(node, port))
    ]
    found += [
        (state.circuit, number)
        for number, state in node.tunnels.items()
        if state.circuit and context in ("", _context_of(node, number))
    ]
    found.sort(key=lambda one: one[0])
    left = [one for number, one in found if number > after]
    rows = [_circuit(node, one) for one in left[:MAX_CIRCUITS]]
    if len(left) > MAX_CIRCUITS:
        return {"circuits": rows, "next": rows[-1]["circuit"]}
    total = {
        "circuits": len(found),
        "up": sum(_circuit_up(node, one) for _, one in found),
        "bound": sum(bool(_context_of(node, one)) for _, one in found),
    }
    return {"circuits": rows, "next": 0, "total": total}


def _context_of(node: NodeState, one: PortPlan | int) -> str:
    """Return the context in which a port or tunnel is bound to an interface; empty where it is not."""
    if isinstance(one, PortPlan):
        port = node.plan.config.ports[one.name]
        return (port.context or LOCAL) if port.interface else ""
    tunnel = node.plan.tunnels[one].config
    return tunnel.interface_context if tunnel.interface else ""


def _circuit_up(node: NodeState, one: PortPlan | int) -> bool:
    return node.port_up(one.name) if isinstance(one, PortPlan) else node.tunnel_up(one)


def _circuit(node: NodeState, one: PortPlan | int) -> Row:
    """Return the row of the circuit of a port or of a tunnel."""
    row: Row = {"up": _circuit_up(node, one), "context": _context_of(node, one)}
    if isinstance(one, PortPlan):
        interface = node.plan.config.ports[one.name].interface or ""
        return {
            "circuit": one.circuit,
            "kind": "port",
            "name": one.name,
            "card": one.card,
            "interface": interface,
            **row,
        }
    state, config = node.tunnels[one], node.plan.tunnels[one].config
    return {
        "circuit": state.circuit,
        "kind": "tunnel",
        "name": config.name,
        "card": state.home,
        "interface": config.interface or "",
        **row,
    }


def add_counters(rows: Iterable[Row], replies: Mapping[str, Any]) -> None:
    """Add what line cards counted to rows of ports or circuits; nothing to those whose card did not answer."""
    for row in rows:
        reply = replies.get(row["card"], {})
        by_port = row.get("port") or (row["name"] if row.get("kind") == "port" else "")
        if by_port:
            found = reply.get("ports", {}).get(by_port)
        else:
            found = reply.get("circuits", {}).get(str(row["circuit"]))
        if found is not None:
            row["counters"] = found


def arp(node: NodeState, context: str, replies: Mapping[str, Any]) -> list[Row]:
    """Return the ARP entries of a context, or of all where it is empty: our own addresses, which do not age, and
    the neighbours that line cards know."""
    names = {number: name for name, number in node.plan.contexts.items()}
    rows = []
    for port in node.plan.ports.values():
        name = names.get(port.context, "")
        if not port.enabled or context not in ("", name):
            continue
        own = [address for address, _ in ((port.address, port.length), *port.secondary) if address]
        rows += [_entry(name, port.name, format_address(address), format_mac(port.mac)) for address in own]
    for reply in replies.values():
        for neighbour in reply.get("neighbours", ()):
            held = node.plan.ports.get(neighbour["port"])
            name = names.get(held.context, "") if held is not None else ""
            if context in ("", name):
                mac = "" if neighbour["state"] == "incomplete" else neighbour["mac"]
                rows.append(_entry(name, neighbour["port"], neighbour["address"], mac, neighbour.get("ttl", 0)))
    return rows


def _entry(context: str, port: str, address: str, mac: str, ttl: int | None = None) -> Row:
    return {"context": context, "address": address, "mac": mac, "ttl": ttl, "circuit": port}
