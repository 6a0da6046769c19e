"""The controller's engine: what happened in, what to do out, in the order in which it must be done.

A controller that starts waits until every card that it remembers has said hello, or for `Settings.reconcile`
seconds, before it publishes anything: what the cards still hold is only replaced where it is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from chassis.bus.engine import Output, ToCard, ToLauncher
from chassis.bus.messages import (
    PROTOCOL,
    Attributes,
    Goodbye,
    Heartbeat,
    Hello,
    LogRecord,
    Message,
    NeighbourEvent,
    PeerNetworks,
    PortEvent,
    Reply,
    SaEvent,
    TraceStamps,
    TunnelEvent,
    Welcome,
)
from chassis.model.router import Config
from chassis.xcrp import configuration, ike_commands, inventory, trace_commands
from chassis.xcrp.cards import AdmissionAction, AdmissionEvent, AdmissionState, CardEntry
from chassis.xcrp.commits import Commits
from chassis.xcrp.configuration import CheckedConfig, Journal
from chassis.xcrp.events import History
from chassis.xcrp.flash import FlashFile, read_store
from chassis.xcrp.handover import Handover
from chassis.xcrp.id_allocator import LEASE_SIZE, IdAllocator
from chassis.xcrp.node import NodeState
from chassis.xcrp.operators import Operators
from chassis.xcrp.settings import ControllerSettings

TUNNEL_REPORT_DELAY = 0.002
"""Seconds for which reports about tunnels are gathered: thousands that come up together are one change."""

MAX_LOGGED_ERRORS = 100
"""Errors of a start-up file that the log has one by one; `status` has their number."""

BOOT_SHIFT = 32
"""Versions of one start of the controller: above every one of the start before."""


class ControllerEngine:
    """The active controller of one node."""

    def __init__(
        self,
        node: str,
        *,
        boot: int,
        files: Mapping[str, bytes],
        startup: tuple[str, str] | None,
        settings: Mapping[str, Any],
        now: float,
        flash: Sequence[FlashFile] = (),
    ) -> None:
        """`files`: the node's state folder as it is now. `startup`: text and name of the start-up file, read
        only where there is no journal (S-113). `flash`: the files of the router's flash."""
        self.boot = boot
        self.settings, problems = ControllerSettings.read(settings)
        self.history = History()
        numbers = IdAllocator(files, boot)
        journal = Journal(files.get(configuration.JOURNAL))
        self.node = NodeState(node, numbers, self.settings, boot << BOOT_SHIFT)
        self._handover = Handover(self.node)
        self.config = Config()
        self.diagnostics: CheckedConfig | None = None
        self.open = False
        """Whether the reconcile window is over: nothing is published before."""
        self.dropped: dict[str, int] = {}
        """Messages that were not acted on, by cause."""
        self.startup = startup
        self._open_at = inf
        self._greeted: dict[str, None] = {}
        self._early: dict[str, set[int]] = {}
        """Tunnels whose SAs an ASP said to hold before anything was planned."""
        self._early_networks: dict[str, tuple[PeerNetworks, ...]] = {}
        """The networks behind their peers, as its hello had them."""
        self._early_reports: dict[int, tuple[str, TunnelEvent]] = {}
        """What ASPs said of tunnels before anything was planned, with who said it."""
        self._aftermath: dict[str, bool] = {}
        """Cards whose flag went down and is told, and whether their SAs went with them: what follows from it is
        still to be computed, when nothing waits for it any more."""
        self._reports: dict[int, TunnelEvent] = {}
        self._report_at = inf
        self._waiting: list[tuple[int, str, dict[str, Any]]] = []
        self._problems = problems + journal.problems + numbers.problems
        self.commits = Commits(journal, numbers, self._put_in_force, self._event, self._tell_all)
        self._flash: tuple[FlashFile, ...] = ()
        self._flash_problems = self._read_flash(flash)
        self._operators = Operators(self, {**ike_commands.COMMANDS, **trace_commands.COMMANDS})
        self._receivers: dict[type, Callable[[CardEntry, Any, float], list[Output]]] = {
            Heartbeat: self._heartbeat,
            PortEvent: self._port_event,
            NeighbourEvent: lambda card, message, now: [],
            TunnelEvent: self._tunnel_event,
            SaEvent: self._sa_event,
            LogRecord: self._log_record,
            TraceStamps: self._trace_stamps,
            Reply: lambda card, message, now: [
                *self._operators.reply(card.card, message, now),
                *self._news(now),
            ],
        }

    # the shell's calls

    def cards(self) -> tuple[tuple[str, str], ...]:
        """(card, kind) of every process that the configuration calls for."""
        return inventory.cards_of(self.config)

    def on_flash_changed(self, files: Sequence[FlashFile], now: float) -> list[Output]:
        """The flash as it is now: certificates are taken from it with the next commit."""
        return [output for problem in self._read_flash(files) for output in self._event(problem, now)]

    def start(self, now: float) -> list[Output]:
        self.history.began = now
        outputs = self.commits.repair()
        for problem in (*self._problems, *self._flash_problems):
            outputs += self._event(problem, now)
        outputs += self._load(now)
        remembered = False
        for card, kind in inventory.cards_of(self.config):
            held = self.node.numbers.cards.get(card)
            if held is None:
                self.node.cards[card] = CardEntry(card, kind, boot=-1)
                continue
            remembered = True
            self.node.cards[card] = CardEntry(
                card, kind, AdmissionState.RESTORED, boot=held.boot, admitted_boot=held.boot, epoch=held.epoch
            )
        if not remembered:
            return outputs + self._publish_all(now)
        self._open_at = now + self.settings.reconcile
        return outputs

    def receive(self, card: str, message: Message, now: float) -> list[Output]:
        """A message that came on this card's connection."""
        if isinstance(message, Hello):
            return self._hello(card, message, now)
        entry = self.node.cards.get(card)
        receiver = self._receivers.get(type(message))
        if entry is None or receiver is None:
            self._drop("message of an unknown card" if entry is None else "message of an unknown type")
            return []
        if entry.expects_heartbeats:
            entry.last_heartbeat, entry.cpu_wait = max(entry.last_heartbeat, now), 0.0
        return receiver(entry, message, now)

    def on_undecodable(self, card: str, error: str, now: float) -> list[Output]:
        """Bytes came that are no message."""
        self._drop("undecodable message")
        text = f"{card or 'an unknown card'} sent what is no message: {error}"
        self.history.log.append(LogRecord(now, "warning", "bus", "", text, {"card": card}))
        return []

    def on_unsendable(self, card: str, error: str, now: float) -> None:
        """A message to a card is none that the bus can carry: it was not sent."""
        self._drop("unsendable message")
        text = f"a message to {card} can't be sent: {error}"
        self.history.log.append(LogRecord(now, "error", "bus", "", text, {"card": card}))

    def on_connection_lost(self, card: str, now: float) -> list[Output]:
        """The connection to a card closed."""
        return self._card_event(card, AdmissionEvent.LOST, now, "connection lost")

    def on_card_died(self, card: str, boot: int, now: float) -> list[Output]:
        """The launcher saw this start of the card end."""
        outputs = self._freed(self._handover.on_card_died(card, boot))
        entry = self.node.cards.get(card)
        if entry is None or boot < entry.boot:
            return outputs
        entry.boot = max(entry.boot, boot)
        return outputs + self._card_event(card, AdmissionEvent.DIED, now, "died")

    def on_card_started(self, card: str, boot: int, pid: int, now: float) -> list[Output]:
        """The launcher started the card; it has yet to say hello."""
        outputs = self._freed(self._handover.on_card_runs(card, boot))
        entry = self.node.cards.get(card)
        if entry is None or boot <= entry.boot:
            return outputs
        entry.boot = boot
        return outputs + self._card_event(card, AdmissionEvent.STARTED, now, "replaced")

    def _freed(self, some: bool) -> list[Output]:
        """Whoever waits for SAs that others had may have them now."""
        return self.node.publish() if some and self.open else []

    def on_operator_command(self, number: int, command: str, arguments: Any, now: float) -> list[Output]:
        """A command of an operator; every one is answered by `ToOperator` of its number."""
        self._waiting.append((number, command, arguments))
        return self._serve(now) if self.open else []

    def on_stall(self, seconds: float, now: float) -> list[Output]:
        """The controller itself stood still for that long: that silence is no card's fault, nor is it counted as
        time in which cards could have said what they hold."""
        self.node.heartbeats.extend_deadlines(seconds, now)
        self._open_at += seconds
        return []

    def cards_at_risk(self, now: float) -> list[tuple[str, int]]:
        """The cards that will soon be given up, or killed, unless they speak, and their processes."""
        return [(entry.card, entry.pid) for entry in self.node.heartbeats.at_risk(now)]

    def on_cpu_wait(self, card: str, seconds: float, now: float) -> None:
        """A silent card waited for a core of the machine for so long, up to now: it could not have spoken."""
        self.node.heartbeats.credit_cpu_wait(card, seconds, now)

    def on_timer(self, now: float) -> list[Output]:
        outputs = self._settle_deaths(now) + self.commits.write_again(now)
        if now >= self._open_at:
            outputs += self._publish_all(now)
        if now >= self._report_at:
            outputs += self._flush_reports(now)
        if self.open:
            behind = now - self.node.heartbeats.next_timer()
            if self.settings.heartbeat < behind < inf:
                # What was sent meanwhile may still wait to be read: one more interval for it.
                self.node.heartbeats.extend_deadlines(
                    behind + self.settings.heartbeat, now + self.settings.heartbeat
                )
            for entry, event in self.node.heartbeats.pop_expired(now):
                if event is AdmissionEvent.EXPIRED:
                    entry.hung_at = now
                outputs += self._card_event(entry.card, event, now, "hung")
        return outputs + self._operators.on_timer(now)

    def next_timer(self) -> float:
        if not self.open:
            return min(self._open_at, self._operators.next_timer(), self.commits.retry_at)
        if self._aftermath:
            return -inf
        return min(
            self._report_at, self.node.heartbeats.next_timer(), self._operators.next_timer(), self.commits.retry_at
        )

    def on_stored(self, file: str, error: str, now: float) -> list[Output]:
        """The shell's answer to a `Persist` or `Append`: why the file is not on disk, or nothing where it is."""
        if error:
            for entry in self.node.cards.values():
                if entry.state is AdmissionState.SYNCHRONISING:
                    # It waits for a welcome that it may not be given yet.
                    entry.last_heartbeat = max(entry.last_heartbeat, now)
        outputs = self.commits.on_stored(file, error, now)
        return outputs + self._serve(now) if self.open else outputs

    # commits

    def _serve(self, now: float) -> list[Output]:
        """The operators' commands in order; each waits for the commit before it."""
        outputs: list[Output] = []
        while self._waiting and not self.commits.busy:
            number, command, arguments = self._waiting.pop(0)
            outputs += self._settle_deaths(now) + self._operators.command(number, command, arguments, now)
        return outputs

    def _put_in_force(self, file: str, checked: CheckedConfig, now: float) -> list[Output]:
        """The configuration is on disk: act on it, whole."""
        self._settle_reports(now)
        self.config, self.diagnostics = checked.config, checked
        before = tuple(self.node.cards)
        gone = self.node.commit(checked.config, now)
        outputs = self.node.publish()
        for card in gone:
            outputs.append(ToCard(card, Goodbye("no longer in the configuration")))
            outputs += self._operators.on_card_down(card, now)
        if tuple(self.node.cards) != before:
            outputs.append(ToLauncher("cards", {"cards": dict(self.cards())}))
        outputs += self._event(f"configuration {file or 'from an operator'} in force", now)
        return outputs + self._news(now)

    def _load(self, now: float) -> list[Output]:
        """The last commit of the journal, or the start-up file."""
        last = self.commits.journal.last
        if last is not None:
            text, file = last.text, last.file
        elif self.startup is not None:
            text, file = self.startup
        else:
            return []
        checked = configuration.check(text, file, modern=self.settings.modern)
        self.diagnostics = checked
        errors = checked.errors
        for found in errors[:MAX_LOGGED_ERRORS]:
            self.history.log.append(LogRecord(now, "error", "configuration", "", str(found), {}))
        if errors and last is None and self.settings.refuse:
            return self._event(f"configuration {file} refused: {errors[0]}", now)
        self.config = checked.config
        outputs: list[Output] = [self.commits.journal.append(file, text)] if last is None else []
        if errors:
            what = "1 error: its line has" if len(errors) == 1 else f"{len(errors)} errors: their lines have"
            outputs += self._event(f"configuration {file} in force with {what} no effect; {errors[0]}", now)
        return outputs

    def _publish_all(self, now: float) -> list[Output]:
        """The window is over: what is wanted is made of what the cards said, and given to all of them."""
        self._open_at = inf
        silent = [entry for entry in self.node.cards.values() if entry.state is AdmissionState.RESTORED]
        for entry in silent:
            self._step(entry, AdmissionEvent.SILENCE, now, "silent since the controller started")
        for entry in self.node.cards.values():
            if entry.expects_heartbeats:
                entry.last_heartbeat = now
        self.open = True
        self._handover.on_all_met()
        self.node.commit(self.config, now)
        for asp, held in self._early.items():
            self.node.on_held_tunnels(asp, held, now, self._early_networks.get(asp, ()))
        self._early.clear()
        self._early_networks.clear()
        early, self._early_reports = self._early_reports, {}
        planned = self.node.plan.tunnels
        said = {n: report for n, (asp, report) in early.items() if n in planned and planned[n].asp == asp}
        self.node.on_tunnel_reports(said, now)
        self.node.news.clear()
        outputs = self.node.publish()
        for card in self._greeted:
            entry = self.node.cards[card]
            if entry.expects_heartbeats:
                outputs += self._welcome(entry)
        if self._greeted:
            up = sum(state.up for state in self.node.tunnels.values())
            text = f"{len(self._greeted)} cards met, {up} of {len(self.node.tunnels)} tunnels up"
            outputs += self._event(text, now)
        self._greeted.clear()
        return outputs + self._serve(now)

    # cards

    def _hello(self, card: str, hello: Hello, now: float) -> list[Output]:
        entry = self.node.cards.get(card)
        if hello.card != card:
            self._drop("hello in the name of another card")
            return []
        if entry is None:
            self._handover.on_card_runs(card, hello.boot)
            return [ToCard(card, Goodbye(f"the configuration has no card {hello.card!r}"))]
        if hello.protocol != PROTOCOL:
            return [ToCard(card, Goodbye(f"protocol {hello.protocol}; this controller speaks {PROTOCOL}"))]
        if hello.boot < entry.boot:
            return [ToCard(card, Goodbye(f"start {hello.boot} of {card}; start {entry.boot} is newer"))]
        outputs = self._settle_deaths(now) + self._freed(self._handover.on_card_runs(card, hello.boot))
        holds = hello.boot == entry.admitted_boot and hello.epoch == entry.epoch
        if hello.boot > entry.boot or hello.epoch > entry.epoch:
            event = AdmissionEvent.HELLO_NEW
        elif holds and (hello.version or entry.state is not AdmissionState.RESTORED):
            event = AdmissionEvent.HELLO_RESUMED
        else:
            event = AdmissionEvent.HELLO_AGAIN
        was = entry.state
        action = self._step(entry, event, now, "", hello)
        if action is AdmissionAction.IGNORE:
            return outputs
        if self.open and action is AdmissionAction.ADMIT:
            # Whatever held the card before is fenced before its successor's state follows from anything.
            outputs += self.node.publish()
        self._holds(entry, hello, now)
        if self.open:
            self.node.update_dependents(entry, now)
            outputs += self.node.publish()
            # Before the rest, so that the captures miss nothing.
            outputs += self._operators.on_card_up(card)
            outputs += self._welcome(entry)
        else:
            self._greeted[card] = None
        if action is not AdmissionAction.WELCOME or was is AdmissionState.RESTORED:
            how = "still there" if action is AdmissionAction.WELCOME else "admitted"
            outputs += self._event(f"{card} {how}: boot {entry.admitted_boot}, epoch {entry.epoch}", now)
        outputs += self._news(now)
        return outputs + self._open_early(now)

    def _open_early(self, now: float) -> list[Output]:
        """Open when there is nobody left to wait for."""
        awaited = (AdmissionState.RESTORED, AdmissionState.STARTED)
        if self.open or any(entry.state in awaited for entry in self.node.cards.values()):
            return []
        return self._publish_all(now)

    def _step(
        self, entry: CardEntry, event: AdmissionEvent, now: float, why: str, hello: Hello | None = None
    ) -> AdmissionAction:
        """Let the table decide, and do what concerns the card alone: epoch, record, subscription."""
        numbers = self.node.numbers
        action = entry.transition(event)
        if hello is not None and action is not AdmissionAction.IGNORE:
            if action is AdmissionAction.ADMIT:
                self._renew_leases(entry, hello)
                entry.epoch = numbers.increment_epoch(entry.card, hello.boot, hello.epoch)
            else:
                numbers.admit(entry.card, hello.boot)
            if hello.boot != entry.admitted_boot:
                entry.since = now
            entry.boot = entry.admitted_boot = hello.boot
            entry.pid, entry.last_heartbeat, entry.cpu_wait, entry.hung_at, entry.down_reason = (
                hello.pid,
                now,
                0.0,
                inf,
                "",
            )
            self.node.publisher.forget(entry.card)
            if self.open:
                self.node.publish_card(entry)
        elif action in (AdmissionAction.FENCE, AdmissionAction.FENCE_AND_UNSUBSCRIBE):
            entry.down_reason = why
            entry.epoch = numbers.increment_epoch(entry.card, entry.admitted_boot)
            entry.hung_at = now
            if action is AdmissionAction.FENCE_AND_UNSUBSCRIBE:
                self.node.publisher.forget(entry.card)
            if self.open:
                self.node.publish_card(entry)
        elif action is AdmissionAction.UNSUBSCRIBE:
            entry.down_reason = why
            self.node.publisher.forget(entry.card)
        elif action is AdmissionAction.MARK_USABLE:
            numbers.serve(entry.card)
            self.node.publish_card(entry)
        return action

    def _card_event(self, card: str, event: AdmissionEvent, now: float, why: str) -> list[Output]:
        entry = self.node.cards.get(card)
        if entry is None:
            return []
        was = entry.state
        action = self._step(entry, event, now, why)
        if action is AdmissionAction.KILL:
            values: Attributes = {
                "card": card,
                "boot": entry.boot,
                "why": f"{entry.down_reason} for {self.settings.kill_after:g} s",
            }
            said = self._event(f"{card} is to be killed: {why}", now) if was is AdmissionState.HUNG else []
            return [ToLauncher("kill", values), *said]
        if action is AdmissionAction.MARK_USABLE:
            self.node.update_dependents(entry, now)
            outputs = self.node.publish()
            outputs += self._event(f"{card} usable", now)
            return outputs + self._news(now)
        if action not in (AdmissionAction.FENCE, AdmissionAction.FENCE_AND_UNSUBSCRIBE):
            return []
        self._greeted.pop(card, None)
        self._early.pop(card, None)
        self._early_networks.pop(card, None)
        self._early_reports = {n: said for n, said in self._early_reports.items() if said[0] != card}
        self._drop_reports(card)
        outputs = []
        if self.open:
            # The card's own flag first, alone: what follows from it may be thousands of records.
            outputs += self.node.publish()
            self._aftermath[card] = action is AdmissionAction.FENCE_AND_UNSUBSCRIBE
        outputs += self._operators.on_card_down(card, now)
        outputs += self._event(f"{card} {why}: epoch {entry.epoch}", now)
        return outputs + self._open_early(now)

    def _settle_deaths(self, now: float) -> list[Output]:
        """What follows from the cards that went down: routes, tunnels, circuits."""
        if not self._aftermath:
            return []
        aftermath, self._aftermath = self._aftermath, {}
        for card, gone in aftermath.items():
            if gone:
                self.node.on_held_tunnels(card, (), now)
            self.node.update_dependents(self.node.cards[card], now)
        return self.node.publish() + self._news(now)

    def _holds(self, entry: CardEntry, hello: Hello, now: float) -> None:
        """Take over the operational state that a hello reports."""
        if entry.kind == inventory.ASP:
            held = {sa.tunnel for sa in hello.sas}
            if self.open:
                self._drop_reports(entry.card)
                self.node.on_held_tunnels(entry.card, held, now, hello.networks)
            else:
                self._early[entry.card] = held
                self._early_networks[entry.card] = hello.networks
        else:
            slot = entry.card.removeprefix("lc ") + "/"
            self.node.carrier = {port for port in self.node.carrier if not port.startswith(slot)}
            self.node.carrier.update(port for port in hello.ports if port.startswith(slot))

    def _drop_reports(self, asp: str) -> None:
        of_asp = set(self.node.plan.tunnels_by_asp.get(asp, ()))
        self._reports = {number: said for number, said in self._reports.items() if number not in of_asp}

    def _welcome(self, entry: CardEntry) -> list[Output]:
        publisher = self.node.publisher
        snapshot = publisher.snapshot(entry.card)
        entry.usable_at_version = publisher.version
        settings = self.settings
        welcome = Welcome(entry.epoch, publisher.version, settings.heartbeat, settings.misses, settings.cards)
        return [ToCard(entry.card, welcome), *(ToCard(entry.card, part) for part in snapshot)]

    def _tell_all(self) -> list[Output]:
        """Cards were told nothing for a while: each gets all that it needs."""
        outputs = self.node.publish() if self.open else []
        for entry in self.node.cards.values():
            if entry.expects_heartbeats and self.open:
                outputs += self._welcome(entry)
        return outputs

    def _renew_leases(self, entry: CardEntry, hello: Hello) -> None:
        """An ASP that lost its SA state goes on above every number that it can have used; what it received nobody
        knows any more."""
        numbers = self.node.numbers
        if entry.kind != inventory.ASP or not hello.fresh or not numbers.is_admitted_boot(entry.card, hello.boot):
            return
        for number, seq in [key for key, lease in numbers.leases.items() if lease.asp == entry.card]:
            numbers.renew_lease(number, seq)
            if number in self.node.plan.tunnels:
                self.node.publish_tunnel(number)
        if numbers.served(entry.card):
            self.node.on_windows_lost(entry.card)

    # what cards report

    def _heartbeat(self, entry: CardEntry, message: Heartbeat, now: float) -> list[Output]:
        if message.epoch != entry.epoch or not entry.expects_heartbeats:
            return []
        entry.loop_lag, entry.reported_version = message.late, message.version
        outputs = self._freed(self.open and self._handover.on_version_held(entry.card, message.version))
        if (
            entry.state is AdmissionState.SYNCHRONISING
            and self.open
            and message.version >= entry.usable_at_version
        ):
            return outputs + self._card_event(entry.card, AdmissionEvent.SYNCHRONISED, now, "")
        return outputs

    def _port_event(self, entry: CardEntry, message: PortEvent, now: float) -> list[Output]:
        slot = entry.card.removeprefix("lc ") + "/"
        if entry.kind != inventory.LINE_CARD or not message.port.startswith(slot):
            self._drop("event of a port of another card")
            return []
        if message.up == (message.port in self.node.carrier):
            return []
        (self.node.carrier.add if message.up else self.node.carrier.discard)(message.port)
        if not self.open:
            return []
        self.node.update_ports([message.port], now)
        outputs = self.node.publish()
        state = "up" if message.up else f"down ({message.reason})" if message.reason else "down"
        outputs += self._event(f"port {message.port} {state}", now)
        return outputs + self._news(now)

    def _tunnel_event(self, entry: CardEntry, message: TunnelEvent, now: float) -> list[Output]:
        if not self.open:
            held = self._early.setdefault(entry.card, set())
            (held.add if message.up else held.discard)(message.tunnel)
            self._early_reports[message.tunnel] = (entry.card, message)
            return []
        made = self.node.plan.tunnels.get(message.tunnel)
        if made is None or made.asp != entry.card or not entry.expects_heartbeats:
            self._drop("report about a tunnel of another ASP")
            return []
        self._reports[message.tunnel] = message
        self._report_at = min(self._report_at, now + TUNNEL_REPORT_DELAY)
        return []

    def _flush_reports(self, now: float) -> list[Output]:
        self._settle_reports(now)
        return self.node.publish() + self._news(now)

    def _settle_reports(self, now: float) -> None:
        """Act on what was gathered; before a new plan, because it belongs to the one in force."""
        reports, self._reports = self._reports, {}
        self._report_at = inf
        self.node.on_tunnel_reports(reports, now)

    def _sa_event(self, entry: CardEntry, message: SaEvent, now: float) -> list[Output]:
        name = f"tunnel {message.sa.tunnel}"
        made = self.node.plan.tunnels.get(message.sa.tunnel)
        if made is not None:
            name = f"tunnel {made.config.name}"
        if made is None or made.asp != entry.card or not self.open:
            self._drop("report about an SA of another ASP")
            return []
        if message.event != "lease":
            self.node.sas.update(message, now)
            why = f": {message.reason}" if message.reason else ""
            text = f"{name}: {message.sa.protocol} SA {message.sa.spi} {message.sa.direction} {message.event}{why}"
            record = LogRecord(now, "informational", "ipsec", f"sa-{message.event}", text, {"card": entry.card})
            self.history.log.append(record)
            return self._event(text, now) if message.event == "exhausted" else []
        numbers = self.node.numbers
        lease = numbers.leases.get((made.number, message.sa.serial))
        # One that has more than half of it left asked before it saw the last extension.
        if lease is None or 0 < message.next_sequence < lease.end - LEASE_SIZE // 2:
            return []
        numbers.extend_lease(made.number, message.sa.serial, message.next_sequence)
        self.node.publish_tunnel(made.number)
        return self.node.publish()

    def _log_record(self, entry: CardEntry, message: LogRecord, now: float) -> list[Output]:
        self.history.log.append(replace(message, values={"card": entry.card, **message.values}))
        return []

    def _trace_stamps(self, entry: CardEntry, message: TraceStamps, now: float) -> list[Output]:
        self.history.stamps(message.stamps)
        return []

    # history

    def _read_flash(self, files: Sequence[FlashFile]) -> list[str]:
        """Take the files of the flash where they are not those that are known; what is wrong with them."""
        if tuple(files) == self._flash:
            return []
        self._flash = tuple(files)
        self.node.flash = read_store(files)
        return [str(problem) for problem in self.node.flash.problems]

    def _event(self, text: str, now: float) -> list[Output]:
        event = self.history.event(now, text)
        return [ToLauncher("event", {"text": event.text, "time": event.time})]

    def _news(self, now: float) -> list[Output]:
        news, self.node.news = self.node.news, []
        return [output for text in news for output in self._event(text, now)]

    def _drop(self, cause: str) -> None:
        self.dropped[cause] = self.dropped.get(cause, 0) + 1
