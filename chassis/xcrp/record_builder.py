"""Builder of the cards' records, from the plan and the current state; decides which card needs which record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from chassis.bus import records as bus
from chassis.bus.records import Key, Policy, PolicyRecord, Record, policy_key
from chassis.model.source import as_carried
from chassis.net.address import parse_address
from chassis.xcrp.cards import CardEntry
from chassis.xcrp.id_allocator import IdAllocator
from chassis.xcrp.inventory import ASP
from chassis.xcrp.plan import Plan, TunnelPlan, entry_lease
from chassis.xcrp.tunnels import ControllerTunnel

_BY_NEED = (bus.PolicyRecord, bus.CertificateRecord)
"""Types of records that only ASPs with tunnels that use them get; most contain or name a key."""


def needs_record(plan: Plan, card: str, record: Record) -> bool:
    """Return whether a card needs a record.

    Line cards never get keys or ACLs. An ASP gets its own tunnels, with their SAs, policies and ACLs. An ASP that
    looks up routes also gets the other tunnels, without keys: it would treat an unknown tunnel of a route as down,
    and the next hop after it may send in clear.
    """
    if isinstance(record, _BY_NEED):
        return record.key in plan.records_by_asp.get(card, ())
    if isinstance(record, bus.TunnelRecord):
        return record.asp == card or card in plan.asps_with_fib or not card.startswith(ASP)
    if isinstance(record, bus.CircuitRecord):
        return record.card == card
    return True


def fixed(plan: Plan, *, discard: bool, esn: bool) -> Iterator[Record]:
    """Return the records that only a commit changes."""
    for name, number in plan.contexts.items():
        yield bus.ContextRecord(number, name, discard, plan.config.contexts[name].keepalive)
    for context, interface in plan.interfaces():
        at = (context, interface.name)
        ports, tunnels = plan.bound_ports.get(at, []), plan.bound_tunnels.get(at, [])
        yield bus.InterfaceRecord(
            context=plan.contexts[context],
            name=interface.name,
            kind=interface.kind,
            address=parse_address(interface.address) if interface.address else 0,
            prefix_length=interface.prefix_len,
            port=ports[0] if ports else "",
            tunnel=tunnels[0] if tunnels else 0,
        )
    for port in plan.ports.values():
        yield bus.PortRecord(
            port=port.name,
            card=port.card,
            enabled=port.enabled,
            context=port.context,
            interface=port.interface,
            address=port.address,
            prefix_length=port.length,
            secondary=tuple(number for pair in port.secondary for number in pair),
            mac=port.mac,
            circuit=port.circuit,
        )
        yield bus.CircuitRecord(
            number=port.circuit,
            kind="port",
            card=port.card,
            context=port.context,
            interface=port.interface,
            port=port.name,
        )
    for (number, address), owner in plan.local.items():
        yield bus.LocalAddressRecord(number, address, owner)
    wanted = frozenset().union(*plan.records_by_asp.values())
    yield from _policies(plan, wanted, esn)
    for name, number in plan.contexts.items():
        for item in plan.flash.items.get(name, ()):
            certificate = bus.CertificateRecord(number, item.name, item.kind, item.pem)
            if certificate.key in wanted:
                yield certificate


def _policies(plan: Plan, wanted: frozenset[Key], esn: bool) -> Iterator[PolicyRecord]:
    """Return the records of manual SAs, access lists, proposals and policies that an ASP needs."""
    config = plan.config
    contexts = [(plan.contexts[name], context) for name, context in config.contexts.items()]
    values: list[tuple[int, Policy]] = [(0, sa) for sa in config.manual_sas.values() if sa.complete]
    values += [(number, acl) for number, context in contexts for acl in context.acls.values()]
    values += [(0, proposal) for proposal in config.ike_proposals.values()]
    values += [(0, proposal) for proposal in config.ipsec_proposals.values()]
    values += [(0, replace(policy, esn=esn)) for policy in config.ipsec_policies.values()]
    values += [(number, policy) for number, context in contexts for policy in context.ike_policies.values()]
    for number, value in values:
        if policy_key(type(value), value.name, number) in wanted:
            yield PolicyRecord(number, as_carried(value))


def card_state(entry: CardEntry) -> bus.CardStateRecord:
    return bus.CardStateRecord(entry.card, entry.kind, entry.admitted_boot, entry.epoch, entry.usable, entry.pid)


def tunnel(plan: Plan, tunnel_plan: TunnelPlan, state: ControllerTunnel, numbers: IdAllocator) -> bus.TunnelRecord:
    return bus.TunnelRecord(
        number=tunnel_plan.number,
        config=tunnel_plan.config,
        asp=tunnel_plan.asp,
        circuit=state.circuit,
        home=state.home,
        context=tunnel_plan.context,
        outer_context=tunnel_plan.outer,
        local=tunnel_plan.local,
        remote=tunnel_plan.remote,
        queues=tunnel_plan.queues,
        leases=tuple(
            lease(numbers, tunnel_plan.number, entry.seq) for entry in tunnel_plan.config.entries if entry.sa
        ),
        up=not state.unmet_condition,
        reason=state.unmet_condition,
        wanted=not tunnel_plan.config_error,
    )


def lease(numbers: IdAllocator, number: int, seq: int) -> bus.LeaseRecord:
    """Return the lease of an entry of a tunnel with manual keys."""
    granted = entry_lease(numbers, number, seq)
    return bus.LeaseRecord(seq, granted.start, granted.end, granted.assignment, numbers.hold(number, seq))


def circuit(tunnel_plan: TunnelPlan, state: ControllerTunnel) -> bus.CircuitRecord:
    """Return the circuit of a circuit-based tunnel."""
    return bus.CircuitRecord(
        number=state.circuit,
        kind="tunnel",
        card=state.home,
        context=tunnel_plan.context,
        interface=tunnel_plan.config.interface or "",
        tunnel=tunnel_plan.number,
    )
