"""Builder of the cards' records, from the plan and the current state; decides which card needs which record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from chassis.bus import records as bus
from chassis.bus.records import POLICY_KINDS, Key, Policy, PolicyRecord, Record, policy_key
from chassis.model.acl import Acl
from chassis.model.ike import IkePolicy, IkeProposal
from chassis.model.ipsec import IpsecPolicy, IpsecProposal, ManualSa
from chassis.model.router import Config, Context
from chassis.model.source import as_carried
from chassis.net.address import parse_address
from chassis.xcrp.cards import CardEntry
from chassis.xcrp.id_allocator import IdAllocator, LeaseGrant
from chassis.xcrp.inventory import ASP, rate_of
from chassis.xcrp.plan import Plan, PortPlan, TunnelPlan
from chassis.xcrp.planner import PlanChange
from chassis.xcrp.tunnels import ControllerTunnel

_BY_NEED = (bus.PolicyRecord, bus.CertificateRecord)
"""Types of records that only ASPs with tunnels that use them get; most contain or name a key."""


def needs_record(plan: Plan, card: str, record: Record) -> bool:
    """Return whether a card needs a record.

    Line cards never get keys or ACLs. An ASP gets its own tunnels, with their SAs, policies and ACLs. Every card
    that looks up routes gets all tunnels as next hops: it would treat an unknown tunnel of a route as down, and
    the next hop after it may send in clear.
    """
    # The types of which there are thousands come first.
    if isinstance(record, bus.TunnelHopRecord):
        return card in plan.asps_with_fib or record.asp == card or not card.startswith(ASP)
    if isinstance(record, bus.TunnelRecord):
        return record.asp == card
    if isinstance(record, bus.RouteRecord):
        return True
    if isinstance(record, _BY_NEED):
        return record.key in plan.records_by_asp.get(card, ())
    if isinstance(record, bus.UdpPortRecord):
        return not card.startswith(ASP)
    if isinstance(record, bus.OnDemandRecord):
        return record.asp == card
    if isinstance(record, (bus.CircuitRecord, bus.AspRateRecord)):
        return record.card == card
    return True


Change = tuple[Key, Record | None]
"""The key of a record, and the record as it is now; None if there is none."""


def fixed(change: PlanChange, *, discard: bool, esn: bool) -> Iterator[Change]:
    """Return the records that only a commit changes: those that a change of the plan concerns."""
    plan, before = change.plan, change.before
    yield from _contexts(change, discard)
    for name, interfaces in change.interfaces.items():
        yield from _interfaces(change, name, interfaces)
    for port in sorted(change.ports):
        yield from _port(plan.ports.get(port), before.ports.get(port))
    for number, address in sorted(change.prefixes.local):
        owner = plan.local.get((number, address))
        record = None if owner is None else bus.LocalAddressRecord(number, address, owner)
        yield (bus.LocalAddressRecord.TYPE, number, address), record
    for demanded in sorted(change.on_demand):
        yield (bus.OnDemandRecord.TYPE, demanded), on_demand(plan.on_demand.get(demanded))
    if change.affected.pools:
        # A change of pools makes the plan from nothing: these are all records of this type.
        yield from ((record.key, record) for record in _rates(plan))
    yield from _policies(change, esn)


def _rates(plan: Plan) -> Iterator[bus.AspRateRecord]:
    for card, kind in plan.cards:
        rate = rate_of(plan.config, card) if kind == ASP else None
        if rate is not None:
            yield bus.AspRateRecord(card, rate)


def _contexts(change: PlanChange, discard: bool) -> Iterator[Change]:
    plan, before = change.plan, change.before
    for name in change.affected.contexts:
        number = plan.contexts.get(name)
        if number is None:
            yield (bus.ContextRecord.TYPE, before.contexts[name]), None
        else:
            record = bus.ContextRecord(number, name, discard, plan.config.contexts[name].keepalive)
            yield record.key, record


def _interfaces(change: PlanChange, context: str, names: Iterable[str]) -> Iterator[Change]:
    plan, before = change.plan, change.before
    number = plan.contexts.get(context) or before.contexts.get(context, 0)
    held = plan.config.contexts[context].interfaces if context in plan.config.contexts else {}
    for name in sorted(names):
        interface = held.get(name)
        if interface is None:
            yield (bus.InterfaceRecord.TYPE, number, name), None
            continue
        # A multibind interface has the address that it borrows, as the source of what the router says itself.
        lender = held.get(interface.unnumbered or "") if interface.kind == "multibind" else None
        address = interface.address if lender is None else lender.address
        at = (context, name)
        ports, tunnels = plan.bound_ports.get(at, []), plan.bound_tunnels.get(at, [])
        record = bus.InterfaceRecord(
            context=number,
            name=name,
            kind=interface.kind,
            address=parse_address(address) if address else 0,
            prefix_length=interface.prefix_len,
            port=ports[0] if ports else "",
            tunnel=tunnels[0] if tunnels else 0,
        )
        yield record.key, record


def _port(port: PortPlan | None, before: PortPlan | None) -> Iterator[Change]:
    if before is not None and (port is None or port.circuit != before.circuit):
        yield (bus.CircuitRecord.TYPE, before.circuit), None
    if port is None:
        if before is not None:
            yield (bus.PortRecord.TYPE, before.name), None
        return
    record = bus.PortRecord(
        port=port.name,
        card=port.card,
        enabled=port.enabled and not port.shut,
        context=port.context,
        interface=port.interface,
        address=port.address,
        prefix_length=port.length,
        secondary=tuple(number for pair in port.secondary for number in pair),
        mac=port.mac,
        circuit=port.circuit,
        descriptor=port.descriptor,
    )
    yield record.key, record
    circuit = bus.CircuitRecord(
        number=port.circuit,
        kind="port",
        card=port.card,
        context=port.context,
        interface=port.interface,
        port=port.name,
    )
    yield circuit.key, circuit


def _policies(change: PlanChange, esn: bool) -> Iterator[Change]:
    """Return the records of manual SAs, access lists, proposals, policies and certificates whose object is
    touched, or that the first ASP begins or the last one ceases to need."""
    plan, affected = change.plan, change.affected
    keys = {
        key
        for key in set().union(*change.needs.values())
        if not (_is_needed(change.before, key) and _is_needed(plan, key))
    }
    for kind, names in (
        (ManualSa, affected.manual_sas),
        (IkeProposal, affected.ike_proposals),
        (IpsecProposal, affected.ipsec_proposals),
        (IpsecPolicy, affected.ipsec_policies),
    ):
        keys.update(policy_key(kind, name) for name in names.touched)
    for context, touched in affected.contexts.items():
        number = plan.contexts.get(context) or change.before.contexts.get(context, 0)
        keys.update(policy_key(Acl, name, number) for name in touched.acls.touched)
        keys.update(policy_key(IkePolicy, name, number) for name in touched.ike_policies.touched)
    yield from needs(plan, keys, esn)


def needs(plan: Plan, keys: Iterable[Key], esn: bool) -> Iterator[Change]:
    """Return the records of these keys, None of one that no ASP needs."""
    contexts = {number: name for name, number in plan.contexts.items()}
    for key in sorted(keys, key=str):
        yield key, _needed(plan, key, contexts, esn) if _is_needed(plan, key) else None


def _is_needed(plan: Plan, key: Key) -> bool:
    """Return whether an ASP needs the record of a key."""
    return any(key in held for held in plan.records_by_asp.values())


def _needed(plan: Plan, key: Key, contexts: Mapping[int, str], esn: bool) -> Record | None:
    """Return the record of a key that ASPs need: a policy or a certificate. `contexts` are their names by number.
    None: there is no such object, or it is a manual SA that is not complete."""
    config = plan.config
    kind, *_, name = key
    if kind == bus.CertificateRecord.TYPE:
        number = int(key[1])
        for item in plan.flash.items.get(contexts.get(number, ""), ()):
            certificate = bus.CertificateRecord(number, item.name, item.kind, item.pem)
            if certificate.key == key:
                return certificate
        return None
    number, value = 0, _of_router(config, str(kind), str(name))
    if len(key) == 3:
        number = int(key[1])
        # What a tunnel names may be in a context that does not exist; its number is 0.
        context = config.contexts.get(contexts.get(number, ""), Context(""))
        held: Mapping[str, Policy] = context.acls if kind == POLICY_KINDS[Acl] else context.ike_policies
        value = held.get(str(name))
    if isinstance(value, IpsecPolicy):
        value = replace(value, esn=esn)
    if value is None or (isinstance(value, ManualSa) and not value.complete):
        return None
    return PolicyRecord(number, as_carried(value))


def _of_router(config: Config, kind: str, name: str) -> Policy | None:
    held: dict[str, Mapping[str, Policy]] = {
        POLICY_KINDS[ManualSa]: config.manual_sas,
        POLICY_KINDS[IkeProposal]: config.ike_proposals,
        POLICY_KINDS[IpsecProposal]: config.ipsec_proposals,
        POLICY_KINDS[IpsecPolicy]: config.ipsec_policies,
    }
    return held[kind].get(name) if kind in held else None


def card_state(entry: CardEntry) -> bus.CardStateRecord:
    return bus.CardStateRecord(entry.card, entry.kind, entry.admitted_boot, entry.epoch, entry.usable, entry.pid)


def tunnel(tunnel_plan: TunnelPlan, state: ControllerTunnel, numbers: IdAllocator) -> bus.TunnelRecord:
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
        instance=tunnel_plan.instance,
    )


def of_tunnel(tunnel_plan: TunnelPlan, state: ControllerTunnel, numbers: IdAllocator) -> Iterator[Change]:
    """Return the records that a tunnel has as it is now."""
    record = tunnel(tunnel_plan, state, numbers)
    hop = record.hop
    yield record.key, record
    yield hop.key, hop
    if state.circuit:
        yield (bus.CircuitRecord.TYPE, state.circuit), circuit(tunnel_plan, state)


def without_tunnel(number: int, state: ControllerTunnel) -> Iterator[Change]:
    """Return what is left of the records of a tunnel that is gone."""
    yield (bus.TunnelRecord.TYPE, number), None
    yield (bus.TunnelHopRecord.TYPE, number), None
    if state.circuit:
        yield (bus.CircuitRecord.TYPE, state.circuit), None


def on_demand(template: TunnelPlan | None) -> bus.OnDemandRecord | None:
    """Return the record of an on-demand tunnel; None if there is no such tunnel, or no ASP for it."""
    if template is None or not template.asp:
        return None
    return bus.OnDemandRecord(
        number=template.number,
        config=template.config,
        asp=template.asp,
        context=template.context,
        outer_context=template.outer,
        local=template.local,
        wanted=not template.config_error,
        reason=template.config_error,
    )


def lease(numbers: IdAllocator, number: int, seq: int) -> bus.LeaseRecord:
    """Return the lease of an entry of a tunnel with manual keys; the default one for one that does not send."""
    granted = numbers.leases.get((number, seq)) or LeaseGrant("", 1, 1 << 20, ())
    hold = numbers.hold(number, seq)
    return bus.LeaseRecord(seq, granted.start, granted.end, granted.assignment, hold, granted.closed)


def circuit(tunnel_plan: TunnelPlan, state: ControllerTunnel) -> bus.CircuitRecord:
    """Return the circuit of a circuit-based tunnel."""
    return bus.CircuitRecord(
        number=state.circuit,
        kind="tunnel",
        card=state.home,
        context=tunnel_plan.context,
        interface=tunnel_plan.config.interface or "",
        tunnel=tunnel_plan.number,
        temporary=tunnel_plan.instance is not None,
    )
