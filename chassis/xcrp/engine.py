"""The controller's engine: the shell's calls, commits, and the operators' commands in order.

Every call returns outputs in the order in which the shell must carry them out. `chassis.xcrp.admission` handles
cards, `chassis.xcrp.reports` what they report, `chassis.xcrp.operators` commands, `chassis.xcrp.node` what follows
from all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from chassis.bus.engine import Output, ToCard, ToLauncher
from chassis.bus.messages import Datagrams, Goodbye, Heartbeat, HeldInstances, Hello, Message, Reply
from chassis.xcrp import (
    access_commands,
    boot_file,
    capacity_alarms,
    card_commands,
    cli_commands,
    file_commands,
    ike_commands,
    inventory,
    listing,
    log_commands,
    pki_commands,
    secret_commands,
    show_commands,
    trace_commands,
    transactions,
)
from chassis.xcrp.admission import Admission
from chassis.xcrp.alarm_watch import CERTIFICATE_KINDS, AlarmWatch
from chassis.xcrp.alarms import ALARMS_FILE, FACILITY
from chassis.xcrp.cards import AdmissionEvent, CardEntry
from chassis.xcrp.commits import Commits
from chassis.xcrp.configuration import CheckedConfig
from chassis.xcrp.flash import FlashFile, read_store
from chassis.xcrp.flash_operations import FlashAnswer
from chassis.xcrp.id_allocator import IdAllocator
from chassis.xcrp.journal import JOURNAL, Journal
from chassis.xcrp.log_file import LOG_FILE
from chassis.xcrp.node import NodeState
from chassis.xcrp.on_demand import OnDemand
from chassis.xcrp.operators import Operators
from chassis.xcrp.peer_services import PeerServices
from chassis.xcrp.reports import Reports
from chassis.xcrp.session_store import SESSIONS
from chassis.xcrp.settings import ControllerSettings
from chassis.xcrp.state import ControllerState

BOOT_SHIFT = 32
"""The first version of a boot is its number shifted by this: above every version of the boots before."""


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
        wall_offset: float = 0.0,
        random: Callable[[int], bytes],
        read_flash: boot_file.ReadFlash = lambda path: FlashAnswer("no flash", missing=True),
    ) -> None:
        """`files`: the node's state folder as it is now. `startup`: text and name of the lab's file, read only if
        there is neither a journal nor a boot file (S-113). `flash`: the files of the router's PKI stores.
        `wall_offset`: what the clock of the day (s since 1970) shows more than `now`. `read_flash` reads the boot
        file, in `start` alone. `random(n)` gives n octets that nobody can guess."""
        read, problems = ControllerSettings.read(settings)
        numbers = IdAllocator(files, boot)
        journal = Journal(files.get(JOURNAL))
        self.node = NodeState(node, numbers, read, boot << BOOT_SHIFT)
        secret, faults = secret_commands.read_secret(files)
        watch = AlarmWatch(self.node, wall_offset)
        self.state = ControllerState(boot, read, self.node, journal, startup, secret, watch)
        self.state.history.restore_log(files.get(LOG_FILE, b""), wall_offset)
        watch.restore(files.get(ALARMS_FILE, b""), self.state.history.log)
        self._problems = problems + faults + journal.problems + numbers.problems
        self._flash: tuple[FlashFile, ...] = ()
        self._read_file = read_flash
        self._problems += self._read_flash(flash)
        self._reports = Reports(self.state)
        self._peers = PeerServices(self.state, random, files.get(SESSIONS, b""))
        self._on_demand = OnDemand(self.state, self._peers, self._reports.publish)
        self._began = False
        """Whether there is a plan."""
        self._commits = Commits(
            self.state, numbers, self._force, lambda: self._admission.welcome_all(), wall_offset
        )
        commands = {
            **access_commands.COMMANDS,
            **card_commands.COMMANDS,
            **file_commands.COMMANDS,
            **cli_commands.COMMANDS,
            **ike_commands.COMMANDS,
            **listing.COMMANDS,
            **log_commands.COMMANDS,
            **pki_commands.COMMANDS,
            **secret_commands.COMMANDS,
            **show_commands.COMMANDS,
            **trace_commands.COMMANDS,
            **transactions.COMMANDS,
        }
        self._operators = Operators(self.state, self._commits, commands)
        self._admission = Admission(self.state, self._reports, self._operators)
        self._commands: list[tuple[int, str, dict[str, Any]]] = []
        """Commands that wait for the end of the reconcile window, or for a commit before them."""
        self._receivers: dict[type, Callable[[CardEntry, Any, float], list[Output]]] = {
            **self._reports.receivers,
            **self._on_demand.receivers,
            **self._peers.receivers,
            Heartbeat: self._admission.on_heartbeat,
            Datagrams: self.state.udp.receive,
            Reply: lambda entry, message, now: self._operators.on_reply(entry.card, message, now),
        }

    # time

    def start(self, now: float) -> list[Output]:
        self.state.history.began = now
        outputs = self._commits.repair_journal() + self.state.events(self._problems, now)
        fresh = self.state.journal.last is None
        startup = boot_file.start_file(self.state, self._read_file, now) if fresh else None
        outputs += self._commits.load(startup, now)
        outputs += self._admission.start(now)
        return outputs + self._run_commands(now)

    def on_timer(self, now: float) -> list[Output]:
        outputs = self._admission.process_pending(now) + self._commits.on_timer(now)
        outputs += self._admission.on_timer(now) + self._run_commands(now)
        outputs += self._reports.on_timer(now) + self._admission.check_heartbeats(now)
        outputs += self._operators.on_timer(now) + self._check_alarms(now)
        outputs += self._peers.on_timer(now)
        history = self.state.history
        outputs += history.log_file.on_timer(history.log, now)
        return outputs + self._send_syslog(now)

    def _send_syslog(self, now: float) -> list[Output]:
        if not self.state.reconciled:
            return []
        contexts, wall = self.node.plan.contexts, now + self.state.history.wall_offset
        return self.state.syslog.on_timer(self.state.config, contexts, self.state.udp.send, now, wall)

    def end(self) -> list[Output]:
        """The process ends in good order: write what was logged last."""
        history = self.state.history
        return [*history.log_file.flush(history.log), *self._peers.flush()]

    def next_timer(self) -> float:
        file = self.state.history.log_file
        parts = (self._commits, self._admission, self._reports, self._operators, file, self._peers)
        alarms = self.state.alarms.next_timer() if self.state.reconciled else inf
        syslog = self.state.syslog.next_timer() if self.state.reconciled else inf
        return min(alarms, syslog, *[part.next_timer() for part in parts])

    def set_clock(self, wall_offset: float) -> None:
        """The clock of the day (s since 1970) shows so much more than the engine's; it may have been set."""
        self.state.alarms.set_clock(wall_offset)
        self.state.history.wall_offset = wall_offset
        self._peers.set_clock(wall_offset)

    def on_stall(self, seconds: float, now: float) -> list[Output]:
        """The controller could not run for `seconds`: do not count that time as silence of cards."""
        self.node.heartbeats.extend_deadlines(seconds, now)
        self._admission.on_stall(seconds)
        return []

    # cards

    def cards(self) -> tuple[tuple[str, str], ...]:
        """Return (card, kind) of every process that the configuration calls for."""
        return inventory.cards_of(self.state.config)

    def receive(self, card: str, message: Message, now: float) -> list[Output]:
        """A message came on this card's connection."""
        if isinstance(message, Hello):
            return self._admission.on_hello(card, message, now) + self._run_commands(now)
        if isinstance(message, HeldInstances):
            return self._admission.on_held_instances(card, message, now) + self._run_commands(now)
        if isinstance(message, Heartbeat) and self.is_still(card, message, now):
            return []
        entry = self.node.cards.get(card)
        receiver = self._receivers.get(type(message))
        if entry is None or receiver is None:
            cause = "message of an unknown card" if entry is None else "message of an unknown type"
            self.state.count_ignored(cause)
            return []
        if entry.expects_heartbeats:
            entry.last_heartbeat, entry.cpu_wait = max(entry.last_heartbeat, now), 0.0
        return receiver(entry, message, now)

    def is_still(self, card: str, message: Heartbeat, now: float) -> bool:
        """Return whether a heartbeat only says that the card goes on as it was: then it is handled, and nothing is
        due earlier than before. Otherwise `receive` has to handle it."""
        return self._admission.is_still(card, message, now)

    def on_undecodable(self, card: str, error: str, now: float) -> list[Output]:
        """A message of a card could not be decoded; `card` is empty if the sender is unknown."""
        self.state.count_ignored("undecodable message")
        text = f"{card or 'an unknown card'} sent an undecodable message: {error}"
        self.state.log("warning", "bus", text, now, card=card)
        return []

    def on_unsendable(self, card: str, error: str, now: float) -> None:
        """A message to a card could not be encoded, and was not sent."""
        self.state.count_ignored("unsendable message")
        self.state.log("error", "bus", f"a message to {card} can't be sent: {error}", now, card=card)

    def on_connection_lost(self, card: str, now: float) -> list[Output]:
        """The connection to a card closed."""
        outputs = self._admission.on_event(card, AdmissionEvent.LOST, "connection lost", now)
        return outputs + self._run_commands(now)

    def on_card_started(self, card: str, boot: int, pid: int, now: float) -> list[Output]:
        """The launcher started the card, which has not sent a hello."""
        return self._admission.on_started(card, boot, now) + self._run_commands(now)

    def on_card_died(self, card: str, boot: int, now: float) -> list[Output]:
        """The launcher saw this process of the card end."""
        return self._admission.on_died(card, boot, now) + self._run_commands(now)

    def cards_at_risk(self, now: float) -> list[tuple[str, int]]:
        """Return (card, process id) of the cards that are half way to missing their heartbeats, or hung."""
        return [(entry.card, entry.pid) for entry in self.node.heartbeats.at_risk(now)]

    def next_risk(self) -> float:
        """Return when `cards_at_risk` may next return something."""
        return self.node.heartbeats.next_risk()

    def on_cpu_wait(self, card: str, seconds: float, now: float) -> None:
        """A silent card waited for a core of the machine for `seconds`, up to now."""
        self.node.heartbeats.credit_cpu_wait(card, seconds, now)

    # operators, files

    def on_operator_command(self, number: int, command: str, arguments: Any, now: float) -> list[Output]:
        """An operator gave a command. Each command is answered by one last `ToOperator` of its number."""
        self._commands.append((number, command, arguments))
        return self._run_commands(now)

    def on_flash_changed(self, files: Sequence[FlashFile], now: float) -> list[Output]:
        """The files of the flash are these now; the next commit uses their certificates."""
        return self.state.events(self._read_flash(files), now)

    def on_flash(self, number: int, answer: FlashAnswer, now: float) -> list[Output]:
        """The shell's answer to a `ToFlash`."""
        return self.state.flash.on_answer(number, answer, now) + self._run_commands(now)

    def on_stored(self, file: str, error: str, now: float) -> list[Output]:
        """The shell's answer to a `Persist` or `Append`: why the file is not on disk, or empty if it is."""
        if error:
            self._admission.on_write_failed(now)
        if file == SESSIONS:
            if error:
                self._peers.store.on_unwritten(now)
            return self._run_commands(now)
        if file == ALARMS_FILE:
            if error:
                self.state.alarms.on_unwritten(now)
            return self._run_commands(now)
        return self._commits.on_stored(file, error, now) + self._run_commands(now)

    def on_log_written(self, error: str, now: float) -> None:
        """The shell's answer to a `WriteLog`: why it was not written, or empty if it was."""
        said = self.state.history.log_file.on_written(error, now)
        if said is not None:
            self.state.log(said[0], "log", said[1], now)

    # inside

    def _run_commands(self, now: float) -> list[Output]:
        """Run the waiting commands in order; each waits for the commit before it. Questions about peers that came
        before there was a plan are answered first."""
        outputs: list[Output] = []
        if self.state.reconciled and not self._began:
            self._began = True
            outputs += self._peers.start(now) + self._on_demand.process_early(now)
        while self.state.reconciled and self._commands and not self._commits.busy:
            number, command, arguments = self._commands.pop(0)
            outputs += self._admission.process_pending(now) + self._check_alarms(now)
            outputs += self._operators.command(number, command, arguments, now)
        return outputs

    def _check_alarms(self, now: float) -> list[Output]:
        """Tell of alarms that are new or over, where it is time to look."""
        state = self.state
        if not state.reconciled:
            return []
        outputs: list[Output] = []
        for alarm in state.alarms.check(now):
            state.log(alarm.logged_as, FACILITY, alarm.line, now, **alarm.values)
            if alarm.kind in (*CERTIFICATE_KINDS, *capacity_alarms.KINDS):
                # Of cards, ports and tunnels the history tells itself.
                outputs += state.event(alarm.line, now)
        return outputs + state.alarms.write(state.history.log.number, now)

    def _force(self, checked: CheckedConfig, what: str, now: float) -> list[Output]:
        """The configuration is on disk: put it into force."""
        lines = self._reports.process_gathered(now)
        self.state.config, self.state.diagnostics = checked.config, checked
        before = tuple(self.node.cards)
        lines += self.node.commit(checked.config, now)
        outputs = self.state.history.configure_log(checked.config) + self.state.publish()
        for card in before:
            if card not in self.node.cards:
                outputs.append(ToCard(card, Goodbye("no longer in the configuration")))
                outputs += self._operators.on_card_down(card, now)
        if tuple(self.node.cards) != before:
            outputs.append(ToLauncher("cards", {"cards": dict(self.cards())}))
        outputs += self._peers.aaa.configure(now)
        outputs += self.state.event(f"{what} in force", now)
        return outputs + self.state.events(lines, now)

    def _read_flash(self, files: Sequence[FlashFile]) -> list[str]:
        """Read the files of the flash if they have changed; return what is wrong with them."""
        if tuple(files) == self._flash:
            return []
        self._flash = tuple(files)
        self.node.flash = read_store(files, self.state.secret.passwords)
        return [str(problem) for problem in self.node.flash.problems]
