"""The plan: a configuration in numbers, with indices of dependent objects.

The controller makes it at each commit. It does not contain the state of the running router (carrier, cards, SAs).
Its indices return the tunnels and prefixes that depend on such state, so that only these are computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from chassis.bus.records import Key, policy_key
from chassis.model.acl import Acl
from chassis.model.ipsec import ManualSa
from chassis.model.router import LOCAL, NULL0, Config, Interface, StaticRoute, Tunnel
from chassis.model.source import as_carried
from chassis.net.address import MASKS, network_of, parse_address, parse_prefix
from chassis.xcrp import ike_config
from chassis.xcrp.flash import PkiStore
from chassis.xcrp.id_allocator import CIRCUIT, CONTEXT, TUNNEL, IdAllocator, LeaseGrant
from chassis.xcrp.inventory import CONTROLLER, card_of_port, cards_of
from chassis.xcrp.placement import place
from chassis.xcrp.routes import Candidate, PortTable, PrefixKey, order
from chassis.xcrp.tunnels import first_config_error

Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PortPlan:
    """A configured Ethernet port. `enabled`: not shut down, and bound to an interface that exists."""

    name: str
    card: str
    context: int
    interface: str
    address: int
    length: int
    secondary: tuple[tuple[int, int], ...]
    mac: bytes
    circuit: int
    enabled: bool

    @property
    def management(self) -> bool:
        return self.card == CONTROLLER


@dataclass(frozen=True, slots=True)
class TunnelPlan:
    """A tunnel in numbers. `config_error` is the first condition that the configuration leaves unmet, or empty.

    `local_ports` are the ports of which one must be up for the local end point to be up; empty for a loopback.
    """

    number: int
    config: Tunnel
    asp: str
    context: int
    outer: int
    local: int
    remote: int
    queues: int
    config_error: str
    local_ports: tuple[str, ...] = ()


@dataclass(slots=True)
class Plan:
    """The whole configuration in numbers, with indices; not changed after `make_plan`."""

    config: Config
    flash: PkiStore = field(default_factory=PkiStore)
    cards: tuple[tuple[str, str], ...] = ()
    contexts: dict[str, int] = field(default_factory=dict)
    ports: dict[str, PortPlan] = field(default_factory=dict)
    bound_ports: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """Enabled ports by the (context, interface) that they are bound to."""
    bound_tunnels: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    tunnels: dict[int, TunnelPlan] = field(default_factory=dict)
    by_name: dict[str, int] = field(default_factory=dict)
    prefixes: dict[PrefixKey, tuple[Candidate, ...]] = field(default_factory=dict)
    port_tables: dict[int, PortTable] = field(default_factory=dict)
    """By context: prefixes that leave by a line card's port, or are discarded; for routes to tunnels' peers."""
    local: dict[tuple[int, int], str] = field(default_factory=dict)
    """ASP that owns an address of the router, or empty, by (context, address)."""
    prefixes_by_port: dict[str, list[PrefixKey]] = field(default_factory=dict)
    prefixes_by_tunnel: dict[int, list[PrefixKey]] = field(default_factory=dict)
    tunnels_by_asp: dict[str, list[int]] = field(default_factory=dict)
    tunnels_by_peer: dict[int, dict[int, list[int]]] = field(default_factory=dict)
    """Tunnels by outer context and by address of the peer."""
    tunnels_by_port: dict[str, list[int]] = field(default_factory=dict)
    """Tunnels with a local end at an address of a port, by port."""
    asps_with_fib: frozenset[str] = frozenset()
    """ASPs with an economical tunnel: they look up routes themselves, and a route may lead into any tunnel."""
    records_by_asp: dict[str, frozenset[Key]] = field(default_factory=dict)
    """Keys of the SAs, policies, proposals, certificates and ACLs that the tunnels of an ASP use, by ASP."""

    @property
    def has_line_cards(self) -> bool:
        return any(kind == "linecard" for _, kind in self.cards)

    def interfaces(self) -> Iterator[tuple[str, Interface]]:
        for name, context in self.config.contexts.items():
            for interface in context.interfaces.values():
                yield name, interface

    def on_demand(self) -> Iterator[Tunnel]:
        """Return the on-demand tunnels. They have no number."""
        return (tunnel for name, tunnel in self.config.tunnels.items() if name not in self.by_name)


def mac_of(node: str, port: str) -> bytes:
    """Return the hardware address of a port: unicast, locally administered, and the same at every start."""
    return b"\x02" + hashlib.sha256(f"{node} {port}".encode()).digest()[:5]


def make_plan(config: Config, numbers: IdAllocator, node: str, flash: PkiStore | None = None) -> Plan:
    """Return the plan of a configuration. Allocate missing numbers, and release unused ones."""
    plan = Plan(config, PkiStore() if flash is None else flash, cards_of(config))
    numbers.begin()
    plan.contexts = dict(numbers.allocate(CONTEXT, config.contexts))
    tunnel_numbers = numbers.allocate(
        TUNNEL, [name for name, tunnel in config.tunnels.items() if tunnel.kind != "on-demand"]
    )
    homes = [name for name in config.ports if card_of_port(config, name)]
    circuits = numbers.allocate(CIRCUIT, homes)
    numbers.set_placement(place(config, numbers.placement))
    for name in homes:
        _port(plan, name, circuits[name], node)
    for name, number in tunnel_numbers.items():
        tunnel = config.tunnels[name]
        interface = config.contexts.get(tunnel.interface_context)
        if tunnel.interface and interface is not None and tunnel.interface in interface.interfaces:
            plan.bound_tunnels.setdefault((tunnel.interface_context, tunnel.interface), []).append(number)
        plan.by_name[name] = number
    names = {number: name for name, number in plan.by_name.items()}
    for bound in plan.bound_tunnels.values():
        bound.sort(key=names.__getitem__)
    for name in [name for name in numbers.tunnel_circuits if name not in tunnel_numbers]:
        numbers.circuit(name, "")
    _tunnels(plan, numbers)
    _local(plan, numbers)
    _prefixes(plan)
    return plan


def _port(plan: Plan, name: str, circuit: int, node: str) -> None:
    port = plan.config.ports[name]
    context_name = port.context or LOCAL
    context = plan.config.contexts.get(context_name)
    interface = context.interfaces.get(port.interface) if context is not None and port.interface else None
    enabled = interface is not None and not port.shutdown
    addresses = interface.addresses if interface is not None else ()
    networks = [(parse_address(text), length) for text, length in addresses]
    address, length = networks.pop(0) if networks else (0, 0)
    plan.ports[name] = PortPlan(
        name=name,
        card=card_of_port(plan.config, name),
        context=plan.contexts.get(context_name, 0),
        interface=port.interface or "",
        address=address,
        length=length,
        secondary=tuple(networks),
        mac=mac_of(node, name),
        circuit=circuit,
        enabled=enabled,
    )
    if enabled and interface is not None:
        plan.bound_ports.setdefault((context_name, interface.name), []).append(name)


def _tunnels(plan: Plan, numbers: IdAllocator) -> None:
    config = plan.config
    ends: dict[Place, list[Interface]] = {}
    for context, interface in plan.interfaces():
        for address, _ in interface.addresses:
            ends.setdefault((context, address), []).append(interface)
    leases: set[tuple[int, int]] = set()
    needs: dict[str, set[Key]] = {}
    for name, number in plan.by_name.items():
        tunnel = config.tunnels[name]
        at = (tunnel.context, tunnel.local or "")
        holders = ends.get(at, [])
        follows: tuple[str, ...] = ()
        if not any(interface.kind == "loopback" for interface in holders):
            follows = tuple(
                port
                for interface in holders
                for port in plan.bound_ports.get((tunnel.context, interface.name), ())
            )
        asp = numbers.placement.get(at, "")
        qos = config.qos_policies.get(tunnel.qos_policy) if tunnel.qos_policy else None
        tunnel_plan = TunnelPlan(
            number=number,
            config=as_carried(tunnel),
            asp=asp,
            context=plan.contexts.get(tunnel.interface_context, 0),
            outer=plan.contexts.get(tunnel.context, 0),
            local=parse_address(tunnel.local) if tunnel.local else 0,
            remote=parse_address(tunnel.remote) if tunnel.remote else 0,
            queues=(qos.num_queues or 1) if qos is not None else 1,
            config_error=first_config_error(
                config, tunnel, asp, holders, follows, plan.has_line_cards, plan.flash
            ),
            local_ports=follows,
        )
        plan.tunnels[number] = tunnel_plan
        if asp:
            plan.tunnels_by_asp.setdefault(asp, []).append(number)
            needs.setdefault(asp, set()).update(_needed(plan, tunnel))
        for port in follows:
            plan.tunnels_by_port.setdefault(port, []).append(number)
        if tunnel_plan.outer and tunnel_plan.remote:
            plan.tunnels_by_peer.setdefault(tunnel_plan.outer, {}).setdefault(tunnel_plan.remote, []).append(
                number
            )
        if asp and tunnel.kind == "manual":
            for entry in tunnel.entries:
                uses = lease_names(config, tunnel, entry.sa)
                if uses:
                    place = f"{tunnel_plan.outer} {tunnel_plan.local} {tunnel_plan.remote}"
                    numbers.lease(number, entry.seq, asp, uses, place, sa_spis(config, entry.sa))
                    leases.add((number, entry.seq))
    numbers.drop_leases(leases)
    plan.asps_with_fib = frozenset(
        tunnel_plan.asp
        for tunnel_plan in plan.tunnels.values()
        if tunnel_plan.config.economical and tunnel_plan.asp
    )
    plan.records_by_asp = {asp: frozenset(keys) for asp, keys in needs.items()}


def _needed(plan: Plan, tunnel: Tunnel) -> Iterator[Key]:
    if tunnel.kind == "static":
        yield from ike_config.needed(plan.config, tunnel, plan.contexts, plan.flash)
        return
    context = plan.contexts.get(tunnel.interface_context, 0)
    for entry in tunnel.entries:
        if entry.sa:
            yield policy_key(ManualSa, entry.sa)
        if entry.acl:
            yield policy_key(Acl, entry.acl, context)


def lease_names(config: Config, tunnel: Tunnel, sa_name: str | None) -> tuple[str, ...]:
    """Return each (destination, protocol, SPI) whose sequence numbers an entry of a tunnel uses.

    The context is not included: on a wire only these three values distinguish two senders.
    """
    sa = config.manual_sas.get(sa_name) if sa_name else None
    send = sa.send if sa is not None and sa.complete else None
    if send is None or not tunnel.remote:
        return ()
    spis = (("esp", send.esp_spi if send.has_esp else None), ("ah", send.ah_spi if send.has_ah else None))
    return tuple(f"{tunnel.remote} {protocol} {spi}" for protocol, spi in spis if spi is not None)


def sa_spis(config: Config, sa_name: str | None) -> tuple[str, ...]:
    """Return direction, protocol and SPI of the SAs of a manual pair."""
    sa = config.manual_sas.get(sa_name) if sa_name else None
    found = []
    for direction, spi in (("in", sa.receive), ("out", sa.send)) if sa is not None else ():
        if spi is not None and spi.has_ah:
            found.append(f"{direction} ah {spi.ah_spi}")
        if spi is not None and spi.has_esp:
            found.append(f"{direction} esp {spi.esp_spi}")
    return tuple(found)


def entry_lease(numbers: IdAllocator, number: int, seq: int) -> LeaseGrant:
    """Return the lease of an entry; the default one for an entry that does not send."""
    return numbers.leases.get((number, seq)) or LeaseGrant("", 1, 1 << 20, ())


def _local(plan: Plan, numbers: IdAllocator) -> None:
    for context, interface in plan.interfaces():
        at = (context, interface.name)
        there = interface.kind == "loopback" or at in plan.bound_ports or at in plan.bound_tunnels
        for address, _ in interface.addresses if there else ():
            key = (plan.contexts[context], parse_address(address))
            owner = numbers.placement.get((context, address), "")
            plan.local[key] = plan.local.get(key, "") or owner


def _prefixes(plan: Plan) -> None:
    found: dict[PrefixKey, list[Candidate]] = {}
    for holder, own in plan.local:
        found.setdefault((holder, own, 32), []).append(Candidate(0, "local"))
    for name, context in plan.config.contexts.items():
        number = plan.contexts[name]
        connected: dict[tuple[int, int], list[Interface]] = {}
        for interface in context.interfaces.values():
            if interface.kind == "loopback":
                continue
            for address, prefix_len in interface.addresses:
                network, length = network_of(parse_address(address), prefix_len)
                connected.setdefault((network, length), []).append(interface)
                ways = list(_candidates(plan, name, interface, 0, 0, length))
                if ways:
                    found.setdefault((number, network, length), []).extend(ways)
        for route in context.routes:
            prefix, length = parse_prefix(route.prefix, host_bits=True)
            ways = list(_static(plan, name, route, connected))
            if ways:
                found.setdefault((number, prefix, length), []).extend(ways)
    for key, candidates in found.items():
        ordered = order(candidates)
        plan.prefixes[key] = ordered
        for port in {candidate.port for candidate in ordered if candidate.kind == "port"}:
            plan.prefixes_by_port.setdefault(port, []).append(key)
        for tunnel in {candidate.tunnel for candidate in ordered if candidate.kind == "tunnel"}:
            plan.prefixes_by_tunnel.setdefault(tunnel, []).append(key)
        if any(c.kind == "discard" or (c.port and not plan.ports[c.port].management) for c in ordered):
            table = plan.port_tables.setdefault(key[0], {})
            table.setdefault(key[2], set()).add(key[1])


def _candidates(
    plan: Plan, context: str, interface: Interface, address: int, cost: int, length: int, distance: int = 0
) -> Iterator[Candidate]:
    """Return the candidates of an interface, for its network of this length: its ports or its tunnels."""
    at = (context, interface.name)
    for port in plan.bound_ports.get(at, ()):
        yield Candidate(cost, "port", interface.name, port, address, length=length, distance=distance)
    for tunnel in plan.bound_tunnels.get(at, ()):
        yield Candidate(cost, "tunnel", interface.name, tunnel=tunnel, length=length, distance=distance)


def _static(
    plan: Plan, context: str, route: StaticRoute, connected: dict[tuple[int, int], list[Interface]]
) -> Iterator[Candidate]:
    """Return the candidates of a static route: of its interface, or of every connected network with its next hop.

    Longer networks come first. Shorter ones are used while the port of the longer one is down.
    """
    if route.context not in (None, context) or (route.next_hop or route.interface) is None:
        return
    if route.interface == NULL0:
        yield Candidate(route.cost, "discard", distance=route.distance)
        return
    if route.interface is not None:
        interface = plan.config.contexts[context].interfaces.get(route.interface)
        if interface is not None and interface.kind != "multibind":
            yield from _candidates(plan, context, interface, 0, route.cost, interface.prefix_len, route.distance)
        return
    next_hop = parse_address(route.next_hop or "0.0.0.0")
    for length in range(32, -1, -1):
        for interface in connected.get((next_hop & MASKS[length], length), ()):
            yield from _candidates(plan, context, interface, next_hop, route.cost, length, route.distance)
