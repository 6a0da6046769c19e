"""The planner: makes the plan of a configuration, from the plan before it and what a commit affects.

What the commit does not affect is taken over as it is. So a tunnel more among thousands costs little more than a
look at each of the others. The first plan, and one after a change of cards, pools or groups, is made from nothing,
which is the same work with an empty plan before it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from chassis.bus.records import Key, policy_key
from chassis.config.affected import Affected, affected_by
from chassis.model.acl import Acl
from chassis.model.ipsec import ManualSa
from chassis.model.router import LOCAL, Config, Interface, Tunnel
from chassis.model.source import as_carried
from chassis.net.address import parse_address
from chassis.xcrp import ike_config, instance_plans, prefixes
from chassis.xcrp.capacity import CAPACITY, Capacity, SessionCount, home
from chassis.xcrp.flash import PkiStore
from chassis.xcrp.id_allocator import CIRCUIT, CONTEXT, TUNNEL, IdAllocator
from chassis.xcrp.inventory import card_of_port, cards_of, is_shut
from chassis.xcrp.placement import Place, place
from chassis.xcrp.plan import Plan, PortPlan, TunnelPlan
from chassis.xcrp.prefixes import ChangedPrefixes
from chassis.xcrp.spares import Takeovers
from chassis.xcrp.tunnels import first_config_error

_K = TypeVar("_K")

At = tuple[str, str]
"""(context, interface)"""


@dataclass(frozen=True, slots=True)
class PlanChange:
    """A plan, the one before it, and where they differ.

    `before` is an empty plan if nothing of the one in force could be taken over. `affected` is the difference of
    their configurations. `ports`, `tunnels` and `prefixes` are the keys of what is new, changed or removed in the
    plan; `interfaces` are the names of those by context that are touched or have something else bound to them.
    `needs` are by ASP the keys of records that it begins or ceases to need. `on_demand` are the numbers of
    on-demand tunnels that are planned anew or removed. `ended` are the instances that are not carried over, with
    the reason.
    """

    plan: Plan
    before: Plan
    affected: Affected
    ports: frozenset[str]
    tunnels: frozenset[int]
    prefixes: ChangedPrefixes
    interfaces: dict[str, set[str]]
    needs: dict[str, set[Key]]
    on_demand: frozenset[int] = frozenset()
    ended: Mapping[int, str] = field(default_factory=dict)


def mac_of(node: str, port: str) -> bytes:
    """Return the hardware address of a port: unicast, locally administered, and the same at every start."""
    return b"\x02" + hashlib.sha256(f"{node} {port}".encode()).digest()[:5]


def make_plan(
    config: Config,
    numbers: IdAllocator,
    node: str,
    flash: PkiStore | None = None,
    before: Plan | None = None,
    more: Iterable[TunnelPlan] = (),
    takeovers: Takeovers | None = None,
    capacity: Capacity | None = None,
) -> PlanChange:
    """Make the plan of a configuration. Allocate missing numbers, and release unused ones.

    `before` is the plan in force; without it the plan is made from nothing. Its instances are carried over, and
    `more`, which ASPs hold. `takeovers` are the places that spares take in this plan, already in `numbers.seats`.
    `capacity` is what cards and router hold.
    """
    store = PkiStore() if flash is None else flash
    held = [*more] if before is None else [*instance_plans.instances(before), *more]
    affected = None if before is None or before.flash is not store else affected_by(before.config, config)
    if affected is None or before is None or affected.cards or affected.pools or affected.groups:
        before = Plan(Config(contexts={}), store)
        affected = affected_by(before.config, config)
    plan = Plan(config, store, cards_of(config))
    return _Planner(before, plan, affected, numbers, node, capacity or Capacity()).make(held, takeovers)


class _Planner:
    """Makes one plan."""

    def __init__(
        self, before: Plan, plan: Plan, affected: Affected, numbers: IdAllocator, node: str, capacity: Capacity
    ) -> None:
        self.before, self.plan, self.affected = before, plan, affected
        self.numbers = numbers
        self.node = node
        self.capacity = capacity
        self._holders: dict[str, dict[str, list[Interface]]] = {}

    def make(self, held: Iterable[TunnelPlan], takeovers: Takeovers | None) -> PlanChange:
        """`held` are the instances of on-demand tunnels that there are, `takeovers` what spares take over."""
        plan, numbers, config = self.plan, self.numbers, self.plan.config
        numbers.begin()
        plan.contexts = dict(numbers.allocate(CONTEXT, config.contexts))
        for name, number in numbers.allocate(TUNNEL, config.tunnels).items():
            demanded = config.tunnels[name].kind == "on-demand"
            (plan.on_demand_by_name if demanded else plan.by_name)[name] = number
        homes = [name for name in config.ports if card_of_port(config, name)]
        circuits = dict(numbers.allocate(CIRCUIT, homes))
        placed = numbers.placement
        numbers.set_placement(place(config, placed, numbers.seats, takeovers))
        moved = {at for at, _ in placed.items() ^ numbers.placement.items()}
        for name in homes:
            self._port(name, circuits[name])
        ports = _differing(self.before.bound_ports, plan.bound_ports)
        self._bind()
        for name in [name for name in numbers.tunnel_circuits if name not in plan.by_name]:
            numbers.circuit(name, "")
        more = self._with_ends_at(ports) | (self._at(moved) if takeovers else set())
        tunnels, on_demand, ended = self._tunnels(more, held)
        touched = {name: set(context.interfaces.touched) for name, context in self.affected.contexts.items()}
        for context, interface in ports | _differing(self.before.bound_tunnels, plan.bound_tunnels):
            touched.setdefault(context, set()).add(interface)
        for name, interfaces in touched.items():
            interfaces.update(self._borrowers(name, interfaces))
        changed = prefixes.update(plan, self.before, self.affected, touched, moved, numbers.placement)
        return PlanChange(
            plan,
            self.before,
            self.affected,
            frozenset(_differing(self.before.ports, plan.ports)),
            tunnels,
            changed,
            touched,
            differing_needs(self.before, plan),
            on_demand,
            ended,
        )

    # ports

    def _port(self, name: str, circuit: int) -> None:
        plan = self.plan
        port = plan.config.ports[name]
        context_name = port.context or LOCAL
        context = plan.config.contexts.get(context_name)
        interface = context.interfaces.get(port.interface) if context is not None and port.interface else None
        enabled = interface is not None and not port.shutdown
        addresses = interface.addresses if interface is not None else ()
        networks = [(parse_address(text), length) for text, length in addresses]
        address, length = networks.pop(0) if networks else (0, 0)
        policy = plan.config.policing_policies.get(port.policing_policy) if port.policing_policy else None
        descriptor = policy.descriptor if policy is not None else None
        plan.ports[name] = PortPlan(
            name=name,
            card=card_of_port(plan.config, name),
            context=plan.contexts.get(context_name, 0),
            interface=port.interface or "",
            address=address,
            length=length,
            secondary=tuple(networks),
            mac=mac_of(self.node, name),
            circuit=circuit,
            enabled=enabled,
            shut=is_shut(plan.config, card_of_port(plan.config, name)),
            descriptor=-1 if descriptor is None else descriptor,
        )
        if enabled and interface is not None:
            plan.bound_ports.setdefault((context_name, interface.name), []).append(name)

    # tunnels

    def _bind(self) -> None:
        """Give each interface to the first tunnel that is bound to it. A multibind interface takes many."""
        plan, before, affected = self.plan, self.before, self.affected
        config = plan.config
        moved: set[At] = set()
        for name in affected.tunnels | affected.all_tunnels.touched:
            for tunnels in (before.config.tunnels, config.tunnels):
                tunnel = tunnels.get(name)
                if tunnel is not None and tunnel.interface:
                    moved.add((tunnel.interface_context, tunnel.interface))
        plan.bound_tunnels = {at: bound for at, bound in before.bound_tunnels.items() if at not in moved}
        if not moved:
            return
        several: list[At] = []
        for name, tunnel in config.tunnels.items():
            if not tunnel.interface or (tunnel.interface_context, tunnel.interface) not in moved:
                continue
            context, number = config.contexts.get(tunnel.interface_context), plan.by_name.get(name)
            interface = context.interfaces.get(tunnel.interface) if context is not None else None
            if interface is None or number is None:
                continue
            at = (tunnel.interface_context, tunnel.interface)
            bound = plan.bound_tunnels.setdefault(at, [])
            if bound and interface.kind == "multibind":
                several.append(at)
            if not bound or interface.kind == "multibind":
                bound.append(number)
        names = {number: name for name, number in plan.by_name.items()} if several else {}
        for at in several:
            plan.bound_tunnels[at].sort(key=names.__getitem__)

    def _with_ends_at(self, interfaces: set[At]) -> set[str]:
        """Return the tunnels with their local end at an address of these interfaces."""
        ends: set[Place] = set()
        for name, interface in interfaces:
            for config in (self.before.config, self.plan.config):
                context = config.contexts.get(name)
                found = context.interfaces.get(interface) if context is not None else None
                ends.update((name, address) for address, _ in (found.addresses if found is not None else ()))
        return self._at(ends)

    def _at(self, ends: set[Place]) -> set[str]:
        """Return the tunnels with these local ends."""
        tunnels = self.plan.config.tunnels.items() if ends else ()
        return {name for name, tunnel in tunnels if (tunnel.context, tunnel.local) in ends}

    def _tunnels(
        self, more: set[str], held: Iterable[TunnelPlan]
    ) -> tuple[frozenset[int], frozenset[int], dict[int, str]]:
        """Plan the affected tunnels, and `more`. Return the numbers of those, and of the ones that are gone; the
        same of on-demand tunnels; and the instances of `held` that end, with the reason."""
        plan, before = self.plan, self.before
        redone = {plan.by_name[name]: name for name in (self.affected.tunnels | more) & plan.by_name.keys()}
        made: dict[int, TunnelPlan] = {}
        for number, name in sorted(redone.items()):
            made[number] = self._tunnel(number, plan.config.tunnels[name])
        plan.tunnels = {number: made.get(number) or before.tunnels[number] for number in plan.by_name.values()}
        on_demand = self._on_demand(more)
        ended: dict[int, str] = {}
        for instance in held:
            assert instance.instance is not None
            template = plan.on_demand.get(instance.instance.on_demand)
            number = instance.number
            if template is not None and template.number not in on_demand:
                plan.tunnels[number] = instance
                continue
            goes_on = instance_plans.carry_over(instance, template, plan.config)
            if isinstance(goes_on, str):
                ended[number] = goes_on
            else:
                plan.tunnels[number] = goes_on
                if goes_on is not instance or self._policies_touched or number not in before.tunnels:
                    made[number] = goes_on
        self._limit(made)
        gone = before.tunnels.keys() - plan.tunnels.keys()
        self._leases(made)
        self._needs({*made, *gone, *on_demand})
        self._index()
        return frozenset((*made, *gone)), on_demand, ended

    def _limit(self, made: dict[int, TunnelPlan]) -> None:
        """Let the static tunnels down for which there is no room. Peers that are there have theirs before them,
        and tunnels whose ASP is in its own place before those that a spare took over."""
        plan, before = self.plan, self.before
        most = self.capacity
        if len(plan.tunnels) <= min(most.card, most.router) and not before.surplus:
            return
        room = SessionCount(most)
        here: list[TunnelPlan] = []
        taken: list[TunnelPlan] = []
        for _, tunnel_plan in sorted(plan.tunnels.items()):
            if tunnel_plan.config.kind == "manual" or not tunnel_plan.asp:
                continue
            at = (tunnel_plan.config.context, tunnel_plan.config.local or "")
            if tunnel_plan.instance is not None:
                room.add(tunnel_plan.asp)
            elif home(plan.config, at, tunnel_plan.asp, self.numbers.seats) == tunnel_plan.asp:
                here.append(tunnel_plan)
            else:
                taken.append(tunnel_plan)
        found = set()
        for tunnel_plan in (*here, *taken):
            number, lacking = tunnel_plan.number, room.lacking(tunnel_plan.asp)
            if not lacking:
                room.add(tunnel_plan.asp)
                continue
            found.add(number)
            was_full = tunnel_plan.config_error.startswith(CAPACITY)
            error = lacking if was_full else tunnel_plan.config_error or lacking
            if error != tunnel_plan.config_error:
                plan.tunnels[number] = made[number] = replace(tunnel_plan, config_error=error)
        plan.surplus = frozenset(found)
        for number in before.surplus - found - made.keys():
            if number in plan.tunnels:
                tunnel = plan.config.tunnels[plan.tunnels[number].config.name]
                plan.tunnels[number] = made[number] = self._tunnel(number, tunnel)

    def _on_demand(self, more: set[str]) -> frozenset[int]:
        """Plan the affected on-demand tunnels, and `more`. Return the numbers of those, and of the ones that are
        gone."""
        plan, before, affected = self.plan, self.before, self.affected
        anew = affected.tunnels | more
        redone = set()
        for name, number in plan.on_demand_by_name.items():
            tunnel, known = plan.config.tunnels[name], before.on_demand.get(number)
            inner = affected.contexts.get(tunnel.interface_context)
            # A profile may have any name, so what may be one of the tunnel's counts.
            may_use = self._policies_touched or (
                inner is not None and (inner.exists_anew or inner.interfaces or inner.acls or inner.profiles)
            )
            if known is not None and not may_use and name not in anew:
                plan.on_demand[number] = known
                continue
            plan.on_demand[number] = self._tunnel(number, tunnel)
            redone.add(number)
        return frozenset((*redone, *(before.on_demand.keys() - plan.on_demand.keys())))

    @property
    def _policies_touched(self) -> bool:
        """Whether an instance may need other records than before."""
        return bool(self.affected.ipsec_policies or self.affected.ipsec_proposals)

    def _borrowers(self, context: str, lenders: set[str]) -> list[str]:
        """Return the multibind interfaces that borrow the address of one of these interfaces."""
        found = self.plan.config.contexts.get(context)
        interfaces = found.interfaces.values() if found is not None else ()
        return [one.name for one in interfaces if one.kind == "multibind" and one.unnumbered in lenders]

    def _tunnel(self, number: int, tunnel: Tunnel) -> TunnelPlan:
        plan, config = self.plan, self.plan.config
        at = (tunnel.context, tunnel.local or "")
        holders = self._holding(*at)
        follows: tuple[str, ...] = ()
        if not any(interface.kind == "loopback" for interface in holders):
            follows = tuple(
                port
                for interface in holders
                for port in plan.bound_ports.get((tunnel.context, interface.name), ())
            )
        asp = self.numbers.placement.get(at, "")
        qos = config.qos_policies.get(tunnel.qos_policy) if tunnel.qos_policy else None
        return TunnelPlan(
            number=number,
            config=self._carried(number, tunnel),
            asp=asp,
            context=plan.contexts.get(tunnel.interface_context, 0),
            outer=plan.contexts.get(tunnel.context, 0),
            local=parse_address(tunnel.local) if tunnel.local else 0,
            remote=parse_address(tunnel.remote) if tunnel.remote else 0,
            queues=(qos.num_queues or 1) if qos is not None else 1,
            config_error=first_config_error(
                config,
                tunnel,
                asp,
                holders,
                follows,
                plan.has_line_cards,
                plan.flash,
                self._other_tunnel(number, tunnel),
            ),
            local_ports=follows,
        )

    def _carried(self, number: int, tunnel: Tunnel) -> Tunnel:
        """Return a tunnel as it arrives at a card; that of the plan before if the same lines made it."""
        before = self.before
        known = before.tunnels.get(number) or before.on_demand.get(number)
        if known is not None and before.config.tunnels.get(tunnel.name) is tunnel:
            return known.config
        return as_carried(tunnel)

    def _holding(self, name: str, address: str) -> list[Interface]:
        """Return the interfaces of a context with an address."""
        held = self._holders.get(name)
        if held is None:
            held = self._holders[name] = {}
            context = self.plan.config.contexts.get(name)
            for interface in context.interfaces.values() if context is not None else ():
                for one, _ in interface.addresses:
                    held.setdefault(one, []).append(interface)
        return held.get(address, [])

    def _other_tunnel(self, number: int, tunnel: Tunnel) -> str:
        """Return the name of the tunnel that has the interface of this one; empty if that is its own."""
        bound = self.plan.bound_tunnels.get((tunnel.interface_context, tunnel.interface or ""), [number])
        if number in bound:
            return ""
        return next(name for name, other in self.plan.by_name.items() if other == bound[0])

    def _leases(self, made: Mapping[int, TunnelPlan]) -> None:
        """Lease sequence numbers to the entries of tunnels with manual keys."""
        plan, numbers = self.plan, self.numbers
        plan.leases = {lease for lease in self.before.leases if lease[0] in plan.tunnels and lease[0] not in made}
        for number, tunnel_plan in made.items():
            tunnel, asp = plan.config.tunnels[tunnel_plan.config.name], tunnel_plan.asp
            for entry in tunnel.entries if asp and tunnel.kind == "manual" else ():
                uses = _lease_names(plan.config, tunnel, entry.sa)
                if uses:
                    where = f"{tunnel_plan.outer} {tunnel_plan.local} {tunnel_plan.remote}"
                    numbers.lease(number, entry.seq, asp, uses, where, _sa_spis(plan.config, entry.sa))
                    plan.leases.add((number, entry.seq))
        numbers.drop_leases(plan.leases)

    def _needs(self, changed: Iterable[int]) -> None:
        """Count the uses of records by the tunnels of each ASP. `changed` are new, gone, or others than before."""
        plan, before = self.plan, self.before
        changes: dict[str, Counter[Key]] = {}
        for number in changed:
            for one, sign in ((before, -1), (plan, 1)):
                tunnel_plan = one.tunnels.get(number) or one.on_demand.get(number)
                if tunnel_plan is not None and tunnel_plan.asp:
                    uses = changes.setdefault(tunnel_plan.asp, Counter())
                    for key in needed(one, tunnel_plan):
                        uses[key] += sign
        plan.records_by_asp = dict(before.records_by_asp)
        for asp, uses in changes.items():
            if not any(uses.values()):
                continue
            held = plan.records_by_asp[asp] = dict(before.records_by_asp.get(asp, {}))
            for key, count in uses.items():
                held[key] = held.get(key, 0) + count
                if not held[key]:
                    del held[key]
            if not held:
                del plan.records_by_asp[asp]

    def _index(self) -> None:
        plan = self.plan
        for tunnel_plan in plan.tunnels.values():
            plan.index(tunnel_plan)
        plan.asps_with_fib = frozenset(
            tunnel_plan.asp
            for tunnel_plan in (*plan.tunnels.values(), *plan.on_demand.values())
            if tunnel_plan.config.economical and tunnel_plan.asp
        )


def _differing(old: Mapping[_K, object], new: Mapping[_K, object]) -> set[_K]:
    """Return the keys whose values are new, removed or other than before."""
    return {key for key in {**old, **new} if old.get(key) != new.get(key)}


def differing_needs(old: Plan, new: Plan) -> dict[str, set[Key]]:
    """Return by ASP the keys of records that it begins or ceases to need."""
    found = {}
    for asp in {**old.records_by_asp, **new.records_by_asp}:
        before, after = old.records_by_asp.get(asp, {}), new.records_by_asp.get(asp, {})
        if before is not after:
            found[asp] = before.keys() ^ after.keys()
    return found


def needed(plan: Plan, tunnel_plan: TunnelPlan) -> Iterator[Key]:
    """Return the keys of the records that only ASPs with this tunnel need. An instance needs those of its `seq`
    lines: the others are its on-demand tunnel's."""
    if tunnel_plan.instance is not None:
        yield from ike_config.of_entries(plan.config, tunnel_plan.config.entries, tunnel_plan.context)
        return
    tunnel = plan.config.tunnels[tunnel_plan.config.name]
    if tunnel.kind != "manual":
        yield from ike_config.needed(plan.config, tunnel, plan.contexts, plan.flash)
        return
    context = plan.contexts.get(tunnel.interface_context, 0)
    for entry in tunnel.entries:
        if entry.sa:
            yield policy_key(ManualSa, entry.sa)
        if entry.acl:
            yield policy_key(Acl, entry.acl, context)


def _lease_names(config: Config, tunnel: Tunnel, sa_name: str | None) -> tuple[str, ...]:
    """Return each (destination, protocol, SPI) whose sequence numbers an entry of a tunnel uses.

    The context is not included: on a wire only these three values distinguish two senders.
    """
    sa = config.manual_sas.get(sa_name) if sa_name else None
    send = sa.send if sa is not None and sa.complete else None
    if send is None or not tunnel.remote:
        return ()
    spis = (("esp", send.esp_spi if send.has_esp else None), ("ah", send.ah_spi if send.has_ah else None))
    return tuple(f"{tunnel.remote} {protocol} {spi}" for protocol, spi in spis if spi is not None)


def _sa_spis(config: Config, sa_name: str | None) -> tuple[str, ...]:
    """Return direction, protocol and SPI of the SAs of a manual pair."""
    sa = config.manual_sas.get(sa_name) if sa_name else None
    found = []
    for direction, spi in (("in", sa.receive), ("out", sa.send)) if sa is not None else ():
        if spi is not None and spi.has_ah:
            found.append(f"{direction} ah {spi.ah_spi}")
        if spi is not None and spi.has_esp:
            found.append(f"{direction} esp {spi.esp_spi}")
    return tuple(found)
