"""Admission of cards: hellos, heartbeats, failures, and the reconcile window, by the table in
`chassis.xcrp.cards`.

A controller that starts waits until every card that it knows from its files has sent a hello, or for the
setting `reconcile`, before it publishes anything. It then plans with what the cards hold, so that only wrong
state is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from chassis.bus.engine import Output, ToCard, ToLauncher
from chassis.bus.messages import PROTOCOL, Goodbye, Heartbeat, HeldInstances, Hello, Welcome
from chassis.bus.records import TunnelRecord
from chassis.xcrp import inventory
from chassis.xcrp.cards import (
    GREETED_STATES,
    PENDING_STATES,
    AdmissionAction,
    AdmissionEvent,
    AdmissionState,
    CardEntry,
)
from chassis.xcrp.handover import Handover
from chassis.xcrp.operators import Operators
from chassis.xcrp.reports import Reports
from chassis.xcrp.state import ControllerState


class Admission:
    """The cards of a controller, each in a state of its own."""

    def __init__(self, state: ControllerState, reports: Reports, operators: Operators) -> None:
        self._state, self._reports, self._operators = state, reports, operators
        self._node = state.node
        self._handover = Handover(state.node)
        self._reconcile_deadline = inf
        self._partial: dict[str, tuple[Hello, list[HeldInstances]]] = {}
        """Hellos of cards of whose instances not all parts are there yet."""

    # the reconcile window

    def start(self, now: float) -> list[Output]:
        """Restore the cards of the configuration from the files; end the window at once where there are
        none."""
        for card, kind in inventory.cards_of(self._state.config):
            self._node.cards[card] = self._node.new_card(card, kind, AdmissionState.RESTORED)
        if all(entry.state is AdmissionState.ABSENT for entry in self._node.cards.values()):
            return self.end_reconcile(now)
        self._reconcile_deadline = now + self._state.settings.reconcile
        return []

    def end_reconcile(self, now: float) -> list[Output]:
        """Plan with what the cards reported, publish, and welcome each card that sent a hello."""
        state, node = self._state, self._node
        self._reconcile_deadline = inf
        greeted = [entry for entry in node.cards.values() if entry.state in GREETED_STATES]
        greeted.sort(key=lambda entry: entry.greeted_at)
        for entry in node.cards.values():
            if entry.transition(AdmissionEvent.RECONCILED) is AdmissionAction.FENCE:
                self._fence(entry, "silent since the controller started", now)
                # The plan below is made without this card.
                entry.transition(AdmissionEvent.UPDATED)
            if entry.expects_heartbeats:
                entry.last_heartbeat = now
        state.reconciled = True
        self._handover.on_all_met()
        node.hold_instances(self._reports.held_instances())
        node.commit(state.config, now)
        self._reports.process_before_plan(now)
        outputs = state.publish()
        for entry in greeted:
            outputs += self._welcome(entry)
        if greeted:
            up = sum(tunnel.up for tunnel in node.tunnels.values())
            outputs += state.event(f"{len(greeted)} cards met, {up} of {len(node.tunnels)} tunnels up", now)
        return outputs

    def _end_reconcile_early(self, now: float) -> list[Output]:
        """End the window when no card is awaited any longer."""
        awaited = (AdmissionState.RESTORED, AdmissionState.STARTED)
        if self._state.reconciled or any(entry.state in awaited for entry in self._node.cards.values()):
            return []
        return self.end_reconcile(now)

    # time

    def next_timer(self) -> float:
        if not self._state.reconciled:
            return self._reconcile_deadline
        if any(entry.state in PENDING_STATES for entry in self._node.cards.values()):
            return -inf
        return min(self._node.heartbeats.next_timer(), self._node.refill_at, self._handover.next_timer())

    def on_stall(self, seconds: float) -> None:
        """The controller could not run for `seconds`, in which no card could report what it holds."""
        self._reconcile_deadline += seconds

    def on_timer(self, now: float) -> list[Output]:
        """End the reconcile window, or give room that is left to tunnels that found none, where it is time."""
        if now >= self._reconcile_deadline:
            return self.end_reconcile(now)
        if not self._state.reconciled or now < self._node.refill_at:
            return []
        lines = self._reports.process_gathered(now) + self._node.take_over(now)
        return self._state.publish() + self._state.events(lines, now)

    def check_heartbeats(self, now: float) -> list[Output]:
        """Act on cards that missed their heartbeats, or stayed hung."""
        if not self._state.reconciled:
            return []
        monitor, interval = self._node.heartbeats, self._state.settings.heartbeat_interval
        behind = now - monitor.next_timer()
        if interval < behind < inf:
            # Messages of that time may still wait to be read: allow one more interval.
            monitor.extend_deadlines(behind + interval, now + interval)
        outputs: list[Output] = []
        for entry, event in monitor.pop_expired(now):
            if event is AdmissionEvent.EXPIRED:
                entry.hung_at = now
            outputs += self.on_event(entry.card, event, "hung", now)
        lines = self._handover.on_timer(now)
        return outputs + self._state.publish() + self._state.events(lines, now) if lines else outputs

    # what happens to cards

    def on_started(self, card: str, boot: int, now: float) -> list[Output]:
        """The launcher started a process of the card."""
        outputs = self._publish_freed(self._handover.on_card_runs(card, boot))
        entry = self._node.cards.get(card)
        if entry is None or boot <= entry.boot:
            return outputs
        entry.boot = boot
        return outputs + self.on_event(card, AdmissionEvent.STARTED, "replaced", now)

    def on_died(self, card: str, boot: int, now: float) -> list[Output]:
        """The launcher saw a process of the card end."""
        outputs = self._publish_freed(self._handover.on_card_died(card, boot))
        entry = self._node.cards.get(card)
        if entry is None or boot < entry.boot:
            return outputs
        entry.boot = boot
        return outputs + self.on_event(card, AdmissionEvent.DIED, "died", now)

    def is_still(self, card: str, message: Heartbeat, now: float) -> bool:
        """Handle a heartbeat if nothing is new in it; return whether that was so."""
        entry, node = self._node.cards.get(card), self._node
        if (
            entry is None
            or entry.state is not AdmissionState.USABLE
            or (message.epoch, message.version) != (entry.epoch, entry.reported_version)
            or card in node.releasing
        ):
            return False
        if now > entry.last_heartbeat:
            entry.last_heartbeat = now
        entry.cpu_wait, entry.loop_lag = 0.0, message.loop_lag
        return True

    def on_heartbeat(self, entry: CardEntry, message: Heartbeat, now: float) -> list[Output]:
        if message.epoch != entry.epoch or not entry.expects_heartbeats:
            return []
        entry.loop_lag, entry.reported_version = message.loop_lag, message.version
        if not self._state.reconciled:
            return []
        outputs = self._publish_freed(self._handover.on_version_held(entry.card, message.version))
        if entry.state is AdmissionState.SYNCHRONISING and message.version >= entry.usable_at_version:
            return outputs + self.on_event(entry.card, AdmissionEvent.SYNCHRONISED, "", now)
        return outputs

    def on_write_failed(self, now: float) -> None:
        """A file is not on disk. Do not count the silence of cards whose welcome is held back by that."""
        for entry in self._node.cards.values():
            if entry.state is AdmissionState.SYNCHRONISING:
                entry.last_heartbeat = max(entry.last_heartbeat, now)

    def on_hello(self, card: str, hello: Hello, now: float) -> list[Output]:
        state, node = self._state, self._node
        entry = node.cards.get(card)
        if hello.card != card:
            state.count_ignored("hello in the name of another card")
            return []
        if entry is None:
            self._handover.on_card_runs(card, hello.boot)
            return [ToCard(card, Goodbye(f"the configuration has no card {hello.card!r}"))]
        if hello.protocol != PROTOCOL:
            return [ToCard(card, Goodbye(f"protocol {hello.protocol}; this controller speaks {PROTOCOL}"))]
        if hello.boot < entry.boot:
            return [ToCard(card, Goodbye(f"start {hello.boot} of {card}; start {entry.boot} is newer"))]
        if hello.parts:
            self._partial[card] = (hello, [])
            return []
        return self._greet(entry, hello, (), now)

    def on_held_instances(self, card: str, message: HeldInstances, now: float) -> list[Output]:
        """A part of the instances that a card holds. With the last one its hello counts; a part out of order is
        ignored with the hello, which the card repeats."""
        entry, partial = self._node.cards.get(card), self._partial.get(card)
        if entry is None or partial is None:
            self._state.count_ignored("instances without a hello")
            return []
        hello, parts = partial
        if (message.part, message.parts) != (len(parts) + 1, hello.parts):
            self._state.count_ignored("instances out of order")
            del self._partial[card]
            return []
        parts.append(message)
        if message.part < message.parts:
            return []
        del self._partial[card]
        if hello.boot < entry.boot:
            return []
        held = [record for part in parts for record in part.instances if record.asp == card]
        return self._greet(entry, hello, held, now)

    def _greet(self, entry: CardEntry, hello: Hello, held: Sequence[TunnelRecord], now: float) -> list[Output]:
        """Act on a hello; `held` are the instances of on-demand tunnels that the card holds."""
        state, node, card = self._state, self._node, entry.card
        self._partial.pop(card, None)
        outputs = self.process_pending(now) + self._publish_freed(self._handover.on_card_runs(card, hello.boot))
        was = entry.state
        action = entry.transition(_hello_event(entry, hello))
        if action is AdmissionAction.IGNORE:
            return outputs
        if state.reconciled:
            entry.transition(AdmissionEvent.RECONCILED)
        elif was not in GREETED_STATES:
            entry.greeted_at = now
        self._admit(entry, action, hello, now)
        if action is AdmissionAction.ADMIT:
            # Other cards fence the old process before they get records of its successor.
            outputs += state.publish()
        lines = self._reports.adopt(entry, hello, held, now)
        if state.reconciled:
            lines += node.update_dependents(entry, now)
            outputs += state.publish()
            # Captures start before the snapshot, so that they miss no packet.
            outputs += self._operators.on_card_up(card, now)
            outputs += self._welcome(entry)
        if action is not AdmissionAction.KEEP_EPOCH or was is AdmissionState.RESTORED:
            how = "still there" if action is AdmissionAction.KEEP_EPOCH else "admitted"
            outputs += state.event(f"{card} {how}: boot {entry.admitted_boot}, epoch {entry.epoch}", now)
        outputs += state.events(lines, now)
        return outputs + self._end_reconcile_early(now)

    def on_event(self, card: str, event: AdmissionEvent, reason: str, now: float) -> list[Output]:
        """Act on any event but a hello."""
        state, node = self._state, self._node
        entry = node.cards.get(card)
        if entry is None:
            return []
        outputs = self.process_pending(now) if entry.state in PENDING_STATES else []
        was = entry.state
        action = entry.transition(event)
        if action is AdmissionAction.KILL:
            why = f"{entry.down_reason} for {state.settings.kill_after:g} s"
            outputs.append(ToLauncher("kill", {"card": card, "boot": entry.boot, "why": why}))
            if was is AdmissionState.HUNG:
                outputs += state.event(f"{card} is to be killed: {reason}", now)
        elif action is AdmissionAction.MARK_USABLE:
            node.numbers.serve(card)
            node.publish_card(entry)
            lines = node.update_dependents(entry, now) + self._take_over(now)
            outputs += state.publish() + state.events([f"{card} usable", *lines], now)
        elif action is AdmissionAction.UNSUBSCRIBE:
            entry.down_reason = reason
            node.publisher.unsubscribe(card)
            # Its process has ended, and its peers with it.
            lines = node.end_instances_of(card, f"{card} {reason}", now)
            outputs += state.publish() + state.events(lines, now)
        elif action in (AdmissionAction.FENCE, AdmissionAction.FENCE_AND_UNSUBSCRIBE):
            if action is AdmissionAction.FENCE_AND_UNSUBSCRIBE:
                node.publisher.unsubscribe(card)
            self._fence(entry, reason, now)
            self._reports.remove(card)
            # The card's own record goes first, alone: its dependents may be thousands of records.
            outputs += state.publish()
            if not state.reconciled:
                entry.transition(AdmissionEvent.UPDATED)
            outputs += self._operators.on_card_down(card, now)
            outputs += state.event(f"{card} {reason}: epoch {entry.epoch}", now)
            outputs += self._end_reconcile_early(now)
        return outputs

    def process_pending(self, now: float) -> list[Output]:
        """Update routes, tunnels and circuits for the cards that failed since the last call. Call it before
        anything that reads them."""
        lines: list[str] = []
        pending = [entry for entry in self._node.cards.values() if entry.state in PENDING_STATES]
        for entry in pending:
            if entry.state is not AdmissionState.FENCED:
                lines += self._node.on_held_tunnels(entry.card, (), now)
                lines += self._node.end_instances_of(entry.card, f"{entry.card} {entry.down_reason}", now)
            entry.transition(AdmissionEvent.UPDATED)
            lines += self._node.update_dependents(entry, now)
        lines += self._take_over(now) if pending else []
        return self._state.publish() + self._state.events(lines, now) if pending else []

    def _take_over(self, now: float) -> list[str]:
        """Let spares that are ready take the places of ASPs that have failed. Return history lines."""
        if not self._node.spares_wanted():
            return []
        return self._reports.process_gathered(now) + self._node.take_over(now)

    def welcome_all(self) -> list[Output]:
        """Publish, and send each admitted card all records that it needs: deltas were withheld for a while."""
        outputs = self._state.publish()
        for entry in self._node.cards.values():
            if self._state.reconciled and entry.expects_heartbeats:
                outputs += self._welcome(entry)
        return outputs

    # inside

    def _admit(self, entry: CardEntry, action: AdmissionAction, hello: Hello, now: float) -> None:
        """Note which process of the card is admitted, and under which epoch."""
        numbers = self._node.numbers
        if action is AdmissionAction.ADMIT:
            self._renew_leases(entry, hello)
            entry.epoch = numbers.increment_epoch(entry.card, hello.boot, hello.epoch)
        else:
            numbers.admit(entry.card, hello.boot)
        if hello.boot != entry.admitted_boot:
            entry.since = now
        entry.boot = entry.admitted_boot = hello.boot
        entry.pid, entry.last_heartbeat, entry.cpu_wait = hello.pid, now, 0.0
        entry.hung_at, entry.down_reason = inf, ""
        entry.cipher_engine, entry.remarks = hello.cipher_engine, hello.remarks
        self._node.publisher.unsubscribe(entry.card)
        if self._state.reconciled:
            self._node.publish_card(entry)

    def _fence(self, entry: CardEntry, reason: str, now: float) -> None:
        """Raise the epoch of a card, so that other cards drop what it still sends."""
        entry.down_reason, entry.hung_at = reason, now
        entry.epoch = self._node.numbers.increment_epoch(entry.card, entry.admitted_boot)
        if self._state.reconciled:
            self._node.publish_card(entry)

    def _welcome(self, entry: CardEntry) -> list[Output]:
        publisher, settings = self._node.publisher, self._state.settings
        snapshot = publisher.snapshot(entry.card)
        entry.usable_at_version = publisher.version
        welcome = Welcome(
            entry.epoch, publisher.version, settings.heartbeat_interval, settings.heartbeat_misses, settings.cards
        )
        return [ToCard(entry.card, welcome), *(ToCard(entry.card, part) for part in snapshot)]

    def _publish_freed(self, freed: bool) -> list[Output]:
        """Publish to the ASPs that wait for SAs which another ASP has released."""
        return self._state.publish() if freed else []

    def _renew_leases(self, entry: CardEntry, hello: Hello) -> None:
        """Where an ASP lost its SA state, let it continue above every sequence number that it can have used,
        and hold back SAs whose replay windows it lost."""
        node = self._node
        numbers = node.numbers
        if (
            entry.kind != inventory.ASP
            or not hello.fresh
            or not numbers.another_boot_admitted(entry.card, hello.boot)
        ):
            return
        for number, seq in [key for key, lease in numbers.leases.items() if lease.asp == entry.card]:
            numbers.renew_lease(number, seq)
            if number in node.plan.tunnels:
                node.publish_tunnel(number)
        if numbers.served(entry.card):
            node.on_windows_lost(entry.card)


def _hello_event(entry: CardEntry, hello: Hello) -> AdmissionEvent:
    if hello.boot > entry.boot or hello.epoch > entry.epoch:
        return AdmissionEvent.HELLO_NEW
    resumes = hello.boot == entry.admitted_boot and hello.epoch == entry.epoch
    if resumes and (hello.version or entry.state is not AdmissionState.RESTORED):
        return AdmissionEvent.HELLO_RESUMED
    return AdmissionEvent.HELLO_AGAIN
