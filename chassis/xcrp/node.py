"""The present state of the node: cards, carrier, tunnels and routes, and the records made of it.

Each method takes one change and computes again only what depends on it. Nothing leaves before `publish`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf

from chassis.bus import records as bus
from chassis.bus.engine import Output, ToCard
from chassis.bus.messages import PeerNetworks, TunnelEvent
from chassis.bus.replication import Publisher
from chassis.model.router import Config
from chassis.xcrp import instance_plans, inventory, record_builder, routes, spares, tunnels, waiting_changes
from chassis.xcrp import planner as planning
from chassis.xcrp.cards import AdmissionState, CardEntry, HeartbeatMonitor
from chassis.xcrp.flash import PkiStore
from chassis.xcrp.id_allocator import CIRCUIT, IdAllocator
from chassis.xcrp.instance_plans import EndedInstance
from chassis.xcrp.instances import InstanceTable
from chassis.xcrp.inventory import ASP, MANAGEMENT_PORTS
from chassis.xcrp.plan import Plan, TunnelPlan
from chassis.xcrp.planner import PlanChange
from chassis.xcrp.routes import Candidate, PrefixKey
from chassis.xcrp.sas import SaTable
from chassis.xcrp.selector_routes import SelectorRoutes
from chassis.xcrp.settings import ControllerSettings
from chassis.xcrp.tunnels import ControllerTunnel

REFILL_DELAY = 1.0
"""Time (s) until room that peers leave is given to tunnels that found none: thousands may leave together."""

MAX_NAMED_TUNNELS = 8
"""Most tunnels that the history names for one cause (count); of more it gives the number."""


def _takeover_lines(taken: spares.Takeovers) -> list[str]:
    """Return what the history tells of spares that took a place."""
    pairs = dict.fromkeys((gone, spare) for (_, gone), spare in taken.items())
    return [f"asp {spare} takes the place of asp {gone}" for gone, spare in pairs]


@dataclass(slots=True)
class NodeChanges:
    """What has changed since it was looked at last: cards or ports at all, and which tunnels."""

    hardware: bool = False
    tunnels: set[int] = field(default_factory=set)

    def __bool__(self) -> bool:
        return self.hardware or bool(self.tunnels)

    def take(self) -> tuple[bool, set[int]]:
        """Return the changes, and forget them."""
        taken = self.hardware, self.tunnels
        self.hardware, self.tunnels = False, set()
        return taken


class NodeState:
    """The state of a node, with the plan and the publisher of its records."""

    def __init__(self, name: str, numbers: IdAllocator, settings: ControllerSettings, version: int) -> None:
        self.name = name
        self.numbers = numbers
        self.settings = settings
        self.configured = Config()
        """The configuration in force. The plan's differs from it by the changes that wait."""
        self.plan = Plan(self.configured)
        self.waiting: set[int] = set()
        """Tunnels of which a change waits."""
        self.flash = PkiStore()
        """The certificates for the next plan."""
        self.heartbeats = HeartbeatMonitor(settings.silence, settings.kill_after)
        self.cards: dict[str, CardEntry] = self.heartbeats.cards
        self.carrier: set[str] = set()
        self.tunnels: dict[int, ControllerTunnel] = {}
        self.changes = NodeChanges()
        self.sas = SaTable()
        self.selectors = SelectorRoutes()
        self.publisher = Publisher(
            lambda card, record: record_builder.needs_record(self.plan, card, record), version
        )
        self.releasing: dict[str, int] = {}
        """By ASP: the version with which it has released the SAs that are no longer its own."""
        self._up_counts: dict[str, int] = {}
        """Tunnels that are up by ASP, while none of the ASP's has come up or gone."""
        self._peer_routes: dict[tuple[int, int], Candidate | str] = {}
        self._udp_ports: dict[int, bus.UdpPortRecord] = {}
        self.instances = InstanceTable()
        self.ended: list[EndedInstance] = []
        """Instances that have ended: whoever acts on that takes them out."""
        self.taken_over: list[TunnelPlan] = []
        """Instances of an earlier controller that ASPs hold: whoever acts on that takes them out."""
        self._held: dict[int, bus.TunnelRecord] = {}
        """Instances that ASPs hold from the controller before, until the next plan."""
        self.refill_at = inf
        """When tunnels that found no room get the room that is left since then (s)."""

    # what is asked

    def port_up(self, port: str) -> bool:
        """Return whether packets can leave by a port now."""
        port_plan = self.plan.ports.get(port)
        if port_plan is None or not port_plan.enabled or port_plan.shut:
            return False
        if port_plan.management:
            return True
        card = self.cards.get(port_plan.card)
        return port in self.carrier and card is not None and card.usable

    def tunnel_up(self, number: int) -> bool:
        state = self.tunnels.get(number)
        return state is not None and state.up

    def asp_usable(self, asp: str) -> bool:
        card = self.cards.get(asp)
        return card is not None and card.usable

    def tunnels_up(self, asp: str) -> int:
        """Return how many tunnels of an ASP are up. Where none of them changed, that is not counted again."""
        count = self._up_counts.get(asp)
        if count is None:
            numbers = self.plan.tunnels_by_asp.get(asp, ())
            count = self._up_counts[asp] = sum(self.tunnels[number].up for number in numbers)
        return count

    def port_to_peer(self, tunnel_plan: TunnelPlan) -> str:
        """Return the port by which a tunnel's peer is reached; empty if there is none."""
        way = self._peer_routes.get((tunnel_plan.outer, tunnel_plan.remote), "")
        return "" if isinstance(way, str) else way.port

    def lost_port(self, tunnel_plan: TunnelPlan) -> str:
        """Return the port that is down and, were it up, would be a tunnel's local end or way to its peer."""
        ports = tunnel_plan.local_ports
        if ports and not any(map(self.port_up, ports)):
            return next(filter(self._may_come_up, ports), "")
        if self.port_to_peer(tunnel_plan):
            return ""
        context = tunnel_plan.outer
        way = routes.egress_to_peer(
            self.plan.port_tables.get(context, {}),
            context,
            tunnel_plan.remote,
            self.plan.prefixes.__getitem__,
            self._may_come_up,
        )
        return "" if way is None else way.port

    def publish(self, only: Collection[str] | None = None) -> list[Output]:
        """Return everything that changed: first the files of numbers, then each card's delta; with `only` those of
        these cards, and others have theirs with the next ones."""
        outputs: list[Output] = list(self.numbers.pending_writes())
        outputs += [ToCard(card, delta) for card, delta in self.publisher.flush(only)]
        if only is not None:
            return outputs
        for asp in self.numbers.asps_holding_moved_sas():
            # A card that is not subscribed gets a snapshot of a later version first.
            self.releasing.setdefault(asp, self.publisher.sent(asp) or self.publisher.version)
        return outputs

    # what happens

    def open_udp_port(self, record: bus.UdpPortRecord) -> None:
        """A service of the router listens to a UDP port."""
        self._udp_ports[record.port] = record
        self.publisher.put(record)

    def close_udp_port(self, port: int) -> None:
        """No service listens to a UDP port any longer."""
        record = self._udp_ports.pop(port)
        self.publisher.delete(record.key)

    def commit(self, config: Config, now: float) -> list[str]:
        """Put a configuration into force. Cards that it no longer has are removed. Return history lines.

        Some changes of tunnels that are up wait: see `chassis.xcrp.waiting_changes`.
        """
        return self._put_into_force(config, set(), now)

    def let_go(self, numbers: Iterable[int], now: float) -> list[str]:
        """Put into force the changes of these tunnels that wait. Return history lines."""
        ended = self.waiting.intersection(numbers)
        if not ended:
            return []
        names = [self.plan.tunnels[number].config.name for number in sorted(ended)]
        lines = [f"tunnel {name}: the change that waited is in force" for name in names]
        return lines + self._put_into_force(self.configured, set(names), now)

    def _put_into_force(self, config: Config, ended: set[str], now: float) -> list[str]:
        """Make the plan, and the records that it changes. Of the tunnels named in `ended` nothing waits."""
        before = self.plan

        def stays(name: str) -> bool:
            number = before.by_name.get(name, 0)
            if name in ended or not self.tunnel_up(number):
                return False
            entries = before.tunnels[number].config.entries
            # An SA that may not be used where it is carries nothing, and may need another SPI.
            return not any(self.numbers.hold(number, entry.seq) for entry in entries)

        wanted_config = waiting_changes.planned(config, before.config, stays)
        held = [instance_plans.held_plan(record) for record in self._held.values()]
        seats, taken = self._takeovers(config)
        self.numbers.set_seats(seats)
        capacity = self.settings.capacity
        change = planning.make_plan(
            wanted_config, self.numbers, self.name, self.flash, before, held, taken, capacity
        )
        self.configured, self.plan = config, change.plan
        self._up_counts.clear()
        plan = change.plan
        self.waiting = {plan.by_name[name] for name in waiting_changes.waiting(config, wanted_config)}
        # Whether nothing of the plan before could be taken over.
        whole = change.before is not before
        self.releasing.clear()
        freed: set[int] = set()
        for asp in self.numbers.asps_holding_moved_sas():
            if asp in self.cards and self.cards[asp].state in (AdmissionState.ABSENT, AdmissionState.STARTED):
                freed |= self.numbers.release_moved_sas(asp)
        for card in [card for card in self.cards if card not in dict(plan.cards)]:
            del self.cards[card]
            self.publisher.unsubscribe(card)
        for card, kind in plan.cards:
            if card not in self.cards or self.cards[card].kind != kind:
                self.cards[card] = self.new_card(card, kind, AdmissionState.ABSENT)
        touched = set(before.tunnels) | set(plan.tunnels) if whole else {*change.tunnels, *freed}
        wanted: list[record_builder.Change] = list(self._tunnel_states(before, touched))
        keys = self.selectors.retain(plan, touched)
        touched |= self._peers(change, whole)
        for port in change.ports:
            touched.update(plan.tunnels_by_port.get(port, ()))
            keys.update(plan.prefixes_by_port.get(port, ()))
        # Cards may begin or cease to need a record that does not change.
        for needed in (planning.differing_needs(before, plan) if whole else change.needs).values():
            for key in needed:
                self.publisher.reconsider(key)
        if plan.asps_with_fib != before.asps_with_fib:
            for number in plan.tunnels:
                self.publisher.reconsider((bus.TunnelHopRecord.TYPE, number))
        cards = (record_builder.card_state(card) for card in self.cards.values() if card.epoch)
        wanted += ((record.key, record) for record in cards)
        wanted += ((record.key, record) for record in self._udp_ports.values())
        wanted += record_builder.fixed(change, discard=self.settings.discard, esn=self.settings.esn)
        flipped, lines = [], _takeover_lines(taken) + self._instances_of(change, before, held)
        self.changes.hardware = True
        self.changes.tunnels |= touched
        ordered = sorted(number for number in touched if number in plan.tunnels)
        for number in ordered:
            tunnel_plan, state = plan.tunnels[number], self.tunnels[number]
            lines += self._evaluate(tunnel_plan, state)
            if state.set_conditions(self._conditions_met(tunnel_plan, state), now):
                flipped.append(number)
        lines += self._history_lines(flipped)
        for number in ordered:
            tunnel_plan, state = plan.tunnels[number], self.tunnels[number]
            wanted += record_builder.of_tunnel(tunnel_plan, state, self.numbers)
            keys.update(plan.prefixes_by_tunnel.get(number, ()))
            keys.update(self.selectors.of_tunnel(number))
        for route in map(self._route, sorted(keys | change.prefixes.prefixes)):
            wanted.append((route.key, route if route.next_hops else None))
        if whole:
            self.publisher.replace(record for _, record in wanted if record is not None)
        else:
            self.publisher.update(wanted)
        return lines + self._let_go_of_ended(now)

    def spares_wanted(self) -> bool:
        """Return whether a spare is ready to take the place of an ASP that has failed."""
        return bool(self._takeovers(self.configured)[1])

    def take_over(self, now: float) -> list[str]:
        """Let the spares that are ready take the places of ASPs that have failed, and tunnels the room that is
        left. Return history lines."""
        self.refill_at = inf
        return self._put_into_force(self.configured, set(), now)

    def _takeovers(self, config: Config) -> tuple[spares.Seats, spares.Takeovers]:
        """Return who has which place under a configuration, with the ASPs as they are now, and which places spares
        take by that."""

        def failed(name: str) -> bool:
            card = self.cards.get(inventory.asp(name))
            return inventory.is_shut(config, inventory.asp(name)) or (card is not None and card.failed)

        def ready(name: str) -> bool:
            card = inventory.asp(name)
            return self.asp_usable(card) and not inventory.is_shut(config, card)

        return spares.take_over(config, self.numbers.seats, failed, ready)

    def _let_go_of_ended(self, now: float) -> list[str]:
        """Put into force the changes of tunnels that waited for their end, and have gone down."""
        return self.let_go([number for number in self.waiting if not self.tunnel_up(number)], now)

    def publish_card(self, card: CardEntry) -> None:
        """Publish the card's own record, which tells other cards at once whether they may send to it."""
        self.changes.hardware = True
        self.publisher.put(record_builder.card_state(card))

    def update_dependents(self, card: CardEntry, now: float) -> list[str]:
        """Update routes, tunnels and circuits because a card became usable or failed. Return history lines."""
        if card.kind != ASP:
            ports = (name for name, port in self.plan.ports.items() if port.card == card.card)
            return self.update_ports(ports, now)
        flipped = [
            number
            for number in self.plan.tunnels_by_asp.get(card.card, ())
            if self.tunnels[number].set_conditions(
                self._conditions_met(self.plan.tunnels[number], self.tunnels[number]), now
            )
        ]
        return self._on_tunnels_changed(flipped, set(), now)

    def update_ports(self, ports: Iterable[str], now: float) -> list[str]:
        """Update what depends on ports that may have come up or gone down. Return history lines."""
        self.changes.hardware = True
        plan = self.plan
        keys: set[PrefixKey] = set()
        touched: dict[int, None] = {}
        for port in ports:
            keys.update(plan.prefixes_by_port.get(port, ()))
            touched.update(dict.fromkeys(plan.tunnels_by_port.get(port, ())))
        for context in sorted({key[0] for key in keys}):
            for remote, numbers in plan.tunnels_by_peer.get(context, {}).items():
                way = self._route_to_peer(context, remote)
                if way != self._peer_routes.get((context, remote)):
                    self._peer_routes[context, remote] = way
                    touched.update(dict.fromkeys(numbers))
        flipped, lines = self._evaluate_all(touched, now)
        return lines + self._on_tunnels_changed(flipped, keys, now)

    def on_held_tunnels(
        self, asp: str, numbers: Iterable[int], now: float, networks: Iterable[PeerNetworks] = ()
    ) -> list[str]:
        """An ASP reports all tunnels of which it holds SAs, and the networks behind their peers. Return history
        lines."""
        held = set(numbers)
        keys: set[PrefixKey] = set()
        for behind in networks:
            tunnel_plan = self.plan.tunnels.get(behind.tunnel)
            if tunnel_plan is not None and tunnel_plan.asp == asp and behind.tunnel in held:
                keys |= self.selectors.replace(self.plan, behind.tunnel, behind.networks)
        for number in self.plan.tunnels_by_asp.get(asp, ()):
            if number not in held:
                self.sas.remove(number)
        flipped = [
            number
            for number in self.plan.tunnels_by_asp.get(asp, ())
            if self.tunnels[number].set_sas(number in held, now)
        ]
        return self._on_tunnels_changed(flipped, keys, now)

    def on_tunnel_reports(self, reports: Mapping[int, TunnelEvent], now: float) -> list[str]:
        """ASPs report of some tunnels whether their SAs can carry packets, and if not, why. Return history
        lines."""
        flipped: list[int] = []
        keys: set[PrefixKey] = set()
        self.changes.tunnels.update(reports)
        for number, report in reports.items():
            state = self.tunnels.get(number)
            if state is None:
                continue
            state.asp_reason = report.reason
            state.identity = report.identity or state.identity
            if report.sas or not report.up:
                self.sas.replace(number, report.sas, now)
            if report.up:
                keys |= self.selectors.replace(self.plan, number, report.selectors)
            else:
                self.selectors.on_down(number)
                keys.update(self.selectors.of_tunnel(number))
            if state.set_sas(report.up, now):
                flipped.append(number)
        return self._on_tunnels_changed(flipped, keys, now)

    # instances of on-demand tunnels

    def add_instance(self, tunnel_plan: TunnelPlan, now: float) -> list[str]:
        """Add an instance to the plan in force, and publish its records. Return history lines."""
        number = tunnel_plan.number
        self.plan.tunnels[number] = tunnel_plan
        self.plan.index(tunnel_plan)
        self._count_needs(tunnel_plan, 1)
        self.instances.add(tunnel_plan)
        state = self.tunnels[number] = self._new_state(tunnel_plan)
        state.negotiated = True
        peer = (tunnel_plan.outer, tunnel_plan.remote)
        if peer not in self._peer_routes:
            self._peer_routes[peer] = self._route_to_peer(*peer)
        flipped, lines = self._evaluate_all([number], now)
        return lines + self._on_tunnels_changed(flipped, set(), now)

    def end_instances(self, numbers: Iterable[int], reason: str, now: float) -> list[str]:
        """Take instances out of the plan in force, and delete their records. Return history lines."""
        keys: set[PrefixKey] = set()
        ended = []
        for number in numbers:
            gone = self.plan.remove_instance(number)
            self._up_counts.pop(gone.asp, None)
            self._count_needs(gone, -1)
            self.instances.remove(gone)
            keys.update(self.selectors.remove(number))
            self.sas.remove(number)
            state = self.tunnels.pop(number)
            self.publisher.update(record_builder.without_tunnel(number, state))
            if gone.remote not in self.plan.tunnels_by_peer.get(gone.outer, ()):
                self._peer_routes.pop((gone.outer, gone.remote), None)
            ended.append(EndedInstance(gone, reason))
        self.ended += ended
        if ended and self.plan.surplus:
            self.refill_at = min(self.refill_at, now + REFILL_DELAY)
        return instance_plans.ended_lines(ended) + self._on_tunnels_changed([], keys, now)

    def end_instances_of(self, asp: str, reason: str, now: float) -> list[str]:
        """End all instances of an ASP. Return history lines."""
        numbers = self.plan.tunnels_by_asp.get(asp, ())
        ended = [number for number in numbers if self.plan.tunnels[number].instance is not None]
        return self.end_instances(ended, reason, now) if ended else []

    def hold_instances(self, records: Iterable[bus.TunnelRecord]) -> None:
        """ASPs hold these instances from the controller before: the first plan takes them over."""
        newest: dict[tuple[int, str], bus.TunnelRecord] = {}
        for record in sorted(records, key=lambda one: one.instance.since if one.instance is not None else 0.0):
            if record.instance is not None:
                newest[record.outer_context, record.instance.identity.lower()] = record
        self._held = {record.number: record for record in newest.values()}

    def on_held_instances(self, asp: str, records: Iterable[bus.TunnelRecord], now: float) -> list[str]:
        """An ASP reports all instances that it has peers of: end the others, and take over those that are not
        known, as of a controller that ended before this one heard of the ASP. Return history lines."""
        held = {record.number: record for record in records if record.instance is not None}
        known = self.plan.tunnels_by_asp.get(asp, ())
        gone = [one for one in known if self.plan.tunnels[one].instance is not None and one not in held]
        lines = self.end_instances(gone, "peer gone", now) if gone else []
        for number, record in held.items():
            if number in self.plan.tunnels or record.instance is None:
                continue
            template = self.plan.on_demand.get(record.instance.on_demand)
            made = instance_plans.carry_over(instance_plans.held_plan(record), template, self.plan.config)
            if isinstance(made, str) or self.instances.of(made.outer, record.instance.identity) is not None:
                continue
            self._held[number] = record
            lines += self.add_instance(made, now)
            self.taken_over.append(made)
            del self._held[number]
        return lines

    def _count_needs(self, tunnel_plan: TunnelPlan, sign: int) -> None:
        """Count the records that an instance needs at its ASP; publish what that begins or ceases to need."""
        held = self.plan.records_by_asp.setdefault(tunnel_plan.asp, {})
        changed = []
        for key in planning.needed(self.plan, tunnel_plan):
            count = held.get(key, 0)
            if count == 0 or count + sign == 0:
                changed.append(key)
            held[key] = count + sign
            if not held[key]:
                del held[key]
        if not held:
            del self.plan.records_by_asp[tunnel_plan.asp]
        for key, record in record_builder.needs(self.plan, changed, self.settings.esn):
            self.publisher.update([(key, record)])
            self.publisher.reconsider(key)

    def on_sas_released(self, asp: str, *, ended: bool = True) -> None:
        """An ASP has released the SAs that are no longer its own, or has `ended`, or nothing that it sends reaches
        anybody: give them to the ASPs that wait for them."""
        self.releasing.pop(asp, None)
        self._publish_tunnels(self.numbers.release_moved_sas(asp, ended=ended))

    def on_windows_lost(self, asp: str) -> None:
        """An ASP lost the replay windows of its SAs: hold these back."""
        self._publish_tunnels(self.numbers.hold_back_sas(asp))

    def _publish_tunnels(self, numbers: Iterable[int]) -> None:
        for number in sorted(numbers):
            if number in self.plan.tunnels:
                self.publish_tunnel(number)

    def publish_tunnel(self, number: int) -> None:
        """Publish a tunnel's records again."""
        tunnel_plan, state = self.plan.tunnels[number], self.tunnels[number]
        self.publisher.update(record_builder.of_tunnel(tunnel_plan, state, self.numbers))

    # inside

    def new_card(self, card: str, kind: str, known: AdmissionState) -> CardEntry:
        """Return the entry of a card of a new configuration: ABSENT, or `known` with its epoch if it has had
        one."""
        held = self.numbers.cards.get(card)
        if held is None:
            return CardEntry(card, kind, boot=-1)
        return CardEntry(card, kind, known, boot=held.boot, admitted_boot=held.boot, epoch=held.epoch)

    def _tunnel_states(self, before: Plan, numbers: Iterable[int]) -> Iterator[record_builder.Change]:
        """Make, change and remove the states of these tunnels. Return the records of those that are removed."""
        for number in sorted(numbers):
            tunnel_plan, state = self.plan.tunnels.get(number), self.tunnels.get(number)
            if tunnel_plan is None:
                self.sas.remove(number)
                if state is not None:
                    del self.tunnels[number]
                    yield from record_builder.without_tunnel(number, state)
                continue
            if state is not None and before.tunnels[number].config.kind != tunnel_plan.config.kind:
                state.set_sas(False, state.since)
                self.sas.remove(number)
            if state is None:
                state = self._new_state(tunnel_plan)
            elif before.tunnels[number].asp != tunnel_plan.asp:
                state.set_sas(False, state.since)
                self.sas.remove(number)
            state.negotiated = tunnel_plan.config.kind != "manual"
            self.tunnels[number] = state

    def _new_state(self, tunnel_plan: TunnelPlan) -> ControllerTunnel:
        """Return the state of a tunnel that had none, with the circuit that is known of it."""
        if tunnel_plan.instance is not None:
            record = self._held.get(tunnel_plan.number)
            held = (record.circuit, record.home) if record is not None else None
        else:
            held = self.numbers.tunnel_circuits.get(tunnel_plan.config.name)
        return ControllerTunnel(circuit=held[0], home=held[1]) if held is not None else ControllerTunnel()

    def _instances_of(self, change: PlanChange, before: Plan, held: Iterable[TunnelPlan]) -> list[str]:
        """Take over the instances that ASPs hold, and let go of those that a commit ends. Return history lines."""
        self._held.clear()
        plans = {one.number: one for one in held}
        for number in plans:
            if number in change.plan.tunnels:
                self.instances.add(change.plan.tunnels[number])
                self.taken_over.append(change.plan.tunnels[number])
        ended = []
        for number, why in change.ended.items():
            gone = before.tunnels.get(number)
            if gone is not None:
                self.instances.remove(gone)
            ended.append(EndedInstance(gone or plans[number], why, by_commit=True))
        self.ended += ended
        return instance_plans.ended_lines(ended)

    def _peers(self, change: PlanChange, whole: bool) -> set[int]:
        """Find the routes to new peers, and to those whose routes may be others. Return the tunnels to peers with
        another route."""
        plan, before = change.plan, change.before
        again = {
            key[0]
            for key in change.prefixes.prefixes
            for way in (*before.prefixes.get(key, ()), *plan.prefixes.get(key, ()))
            if way.kind in ("port", "discard")
        }
        known, self._peer_routes = self._peer_routes, {}
        found: set[int] = set()
        for context, remotes in plan.tunnels_by_peer.items():
            anew = whole or bool(change.ports) or context in again
            for remote, numbers in remotes.items():
                way = known.get((context, remote))
                if way is None or anew:
                    was, way = way, self._route_to_peer(context, remote)
                    if way != was:
                        found.update(numbers)
                self._peer_routes[context, remote] = way
        return found

    def _route_to_peer(self, context: int, remote: int) -> Candidate | str:
        """Return the route to a peer, or the reason why there is none."""
        plan = self.plan
        table = plan.port_tables.get(context, {})
        prefixes = plan.prefixes
        way = routes.egress_to_peer(table, context, remote, prefixes.__getitem__, self._usable_for_transit)
        if way is not None:
            return way
        way = routes.egress_to_peer(table, context, remote, prefixes.__getitem__, self._up_if_card_up)
        if way is not None:
            return self._card_reason(way.port)
        return tunnels.ROUTE

    def _usable_for_transit(self, port: str) -> bool:
        return port not in MANAGEMENT_PORTS and self.port_up(port)

    def _may_come_up(self, port: str) -> bool:
        """Return whether nothing in the configuration keeps packets from leaving by a port."""
        port_plan = self.plan.ports[port]
        return port_plan.enabled and not port_plan.shut and port not in MANAGEMENT_PORTS

    def _up_if_card_up(self, port: str) -> bool:
        """Return whether a port is down only because its line card is, or is shut down."""
        port_plan = self.plan.ports[port]
        if port_plan.shut:
            return port_plan.enabled
        card = self.cards.get(port_plan.card)
        return port_plan.enabled and card is not None and not card.usable

    def _card_reason(self, port: str) -> str:
        """Return why the line card of a port carries nothing."""
        port_plan = self.plan.ports[port]
        return tunnels.card_shut(port_plan.card) if port_plan.shut else tunnels.LINE_CARD

    def _first_unmet(self, tunnel_plan: TunnelPlan) -> tuple[str, str]:
        """Return the first unmet condition or empty, and the line card by which the peer is reached."""
        if tunnel_plan.config_error:
            return tunnel_plan.config_error, ""
        if tunnel_plan.local_ports and not any(map(self.port_up, tunnel_plan.local_ports)):
            dead = next(filter(self._up_if_card_up, tunnel_plan.local_ports), "")
            return self._card_reason(dead) if dead else tunnels.END_POINT, ""
        way = self._peer_routes.get((tunnel_plan.outer, tunnel_plan.remote), tunnels.ROUTE)
        if isinstance(way, str):
            return way, ""
        return "", self.plan.ports[way.port].card

    def _evaluate(self, tunnel_plan: TunnelPlan, state: ControllerTunnel) -> list[str]:
        """Find a tunnel's first unmet condition, and move its circuit to where its peer is reached. Return
        history lines."""
        lines = []
        state.unmet_condition, card = self._first_unmet(tunnel_plan)
        home = "" if tunnel_plan.config.economical else card
        circuit = self._circuit(tunnel_plan, state, home)
        if state.circuit and circuit and state.circuit != circuit:
            was = f"{state.circuit} on {state.home}"
            lines.append(f"tunnel {tunnel_plan.label}: circuit {circuit} on {home} in place of {was}")
        if state.circuit and state.circuit != circuit:
            self.publisher.delete((bus.CircuitRecord.TYPE, state.circuit))
        state.circuit, state.home = circuit, home
        return lines

    def _circuit(self, tunnel_plan: TunnelPlan, state: ControllerTunnel, home: str) -> int:
        """Return the circuit of a tunnel on the card `home`, a new one if it was on another; 0 without a home."""
        if tunnel_plan.instance is None:
            return self.numbers.circuit(tunnel_plan.config.name, home)
        if home == state.home:
            return state.circuit
        return self.numbers.temporary(CIRCUIT) if home else 0

    def _conditions_met(self, tunnel_plan: TunnelPlan, state: ControllerTunnel) -> bool:
        return not state.unmet_condition and self.asp_usable(tunnel_plan.asp)

    def _evaluate_all(self, numbers: Iterable[int], now: float) -> tuple[list[int], list[str]]:
        """Evaluate some tunnels and publish their records. Return those that came up or went down, and history
        lines."""
        flipped, lines = [], []
        for number in numbers:
            self.changes.tunnels.add(number)
            tunnel_plan, state = self.plan.tunnels[number], self.tunnels[number]
            lines += self._evaluate(tunnel_plan, state)
            self.publish_tunnel(number)
            if state.set_conditions(self._conditions_met(tunnel_plan, state), now):
                flipped.append(number)
        return flipped, lines

    def _on_tunnels_changed(self, numbers: list[int], keys: set[PrefixKey], now: float) -> list[str]:
        """Update the routes into tunnels that came up or went down, and the routes `keys`. Return history
        lines."""
        self.changes.tunnels.update(numbers)
        for number in numbers:
            self._up_counts.pop(self.plan.tunnels[number].asp, None)
            keys.update(self.plan.prefixes_by_tunnel.get(number, ()))
            keys.update(self.selectors.of_tunnel(number))
        for key in sorted(keys):
            route = self._route(key)
            if route.next_hops:
                self.publisher.put(route)
            else:
                self.publisher.delete(route.key)
        return self._history_lines(numbers) + self._let_go_of_ended(now)

    def _history_lines(self, numbers: Iterable[int]) -> list[str]:
        """Return what the history tells of tunnels that came up or went down."""
        by_cause: dict[str, list[str]] = {}
        for number in numbers:
            tunnel_plan, state = self.plan.tunnels[number], self.tunnels[number]
            reason = state.reason(tunnel_plan.asp, self.asp_usable(tunnel_plan.asp))
            by_cause.setdefault("up" if state.up else f"down ({reason})", []).append(tunnel_plan.label)
        lines = []
        for cause, names in by_cause.items():
            if len(names) > MAX_NAMED_TUNNELS:
                lines.append(f"{len(names)} tunnels {cause}: {names[0]} to {names[-1]}")
            else:
                lines += [f"tunnel {name} {cause}" for name in names]
        return lines

    def _route(self, key: PrefixKey) -> bus.RouteRecord:
        plan = self.plan
        hops = routes.next_hops(
            self.selectors.with_added(plan, key),
            lambda port: plan.ports[port].card,
            lambda number: plan.tunnels[number].asp,
            self.port_up,
            self.tunnel_up,
            self.settings.discard,
        )
        return bus.RouteRecord(*key, hops)
