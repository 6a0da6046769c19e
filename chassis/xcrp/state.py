"""What the parts of a controller share: its node, configuration, settings and history."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from chassis.bus.engine import Output, ToLauncher
from chassis.bus.messages import LogRecord, Value
from chassis.config.secrets import RouterSecret
from chassis.model.router import Config
from chassis.xcrp import capacity
from chassis.xcrp.alarm_watch import AlarmWatch
from chassis.xcrp.configuration import CheckedConfig, refuse_surplus
from chassis.xcrp.counter_bases import CounterBases
from chassis.xcrp.events import History
from chassis.xcrp.flash_operations import FlashOperations
from chassis.xcrp.journal import Journal
from chassis.xcrp.log_places import placed
from chassis.xcrp.node import NodeState
from chassis.xcrp.router_udp import RouterUdp
from chassis.xcrp.settings import ControllerSettings
from chassis.xcrp.syslog import SyslogSender


@dataclass(slots=True)
class ControllerState:
    """The state of one controller. `startup` is the text and name of the start-up file.

    `secret` makes and reads the encrypted forms of keys. `config` is the configuration in force, `diagnostics` has
    those of its text. `ignored` counts ignored messages by cause; `sessions` are those of operators, as `mgmt`
    told last. While `reconciled` is False the reconcile window is open, and no records are published.
    """

    boot: int
    settings: ControllerSettings
    node: NodeState
    journal: Journal
    startup: tuple[str, str] | None
    secret: RouterSecret
    alarms: AlarmWatch
    config: Config = field(default_factory=Config)
    diagnostics: CheckedConfig | None = None
    history: History = field(default_factory=History)
    ignored: dict[str, int] = field(default_factory=dict)
    reconciled: bool = False
    flash: FlashOperations = field(default_factory=FlashOperations)
    bases: CounterBases = field(default_factory=CounterBases)
    syslog: SyslogSender = field(default_factory=SyslogSender)
    sessions: Mapping[str, dict[str, Value]] = field(default_factory=dict)
    udp: RouterUdp = field(init=False)

    def __post_init__(self) -> None:
        self.udp = RouterUdp(self.node, self.count_ignored)

    @property
    def running(self) -> CheckedConfig:
        """Return the configuration in force with its diagnostics."""
        found = self.diagnostics
        return CheckedConfig(self.config, () if found is None else found.all_diagnostics)

    def with_room(self, checked: CheckedConfig, file: str) -> CheckedConfig:
        """Return a configuration that is to come into force, without new tunnels for which there is no room."""
        numbers = self.node.numbers
        over = capacity.surplus(
            checked.config, self.config, numbers.placement, numbers.seats, self.settings.capacity
        )
        return refuse_surplus(checked, self.config, file, over)

    def publish(self, only: Collection[str] | None = None) -> list[Output]:
        """Return the deltas of everything that changed; none before the reconcile window is over. With `only`
        those of these cards: `Reports` sees to the others."""
        return self.node.publish(only) if self.reconciled else []

    def event(self, text: str, now: float) -> list[Output]:
        """Add a line to the history, and report it to the launcher."""
        event = self.history.event(now, text)
        return [ToLauncher("event", {"text": event.text, "time": event.time})]

    def events(self, lines: Iterable[str], now: float) -> list[Output]:
        """Add lines to the history, and report them to the launcher."""
        return [output for text in lines for output in self.event(text, now)]

    def log(self, severity: str, facility: str, text: str, now: float, **values: Value) -> None:
        """Add a record of the controller to the log."""
        self.record(LogRecord(now, severity, facility, "", text, values))

    def record(self, record: LogRecord) -> None:
        """Add a record to the log, with the time of day and the context and circuit that it is about."""
        record, context, circuit = placed(self.node, record)
        history = self.history
        entry = history.log.append(record, record.time + history.wall_offset, context, circuit)
        history.log_file.add(entry, record.time)
        self.syslog.add(self.config, entry)

    def count_ignored(self, cause: str) -> None:
        self.ignored[cause] = self.ignored.get(cause, 0) + 1
