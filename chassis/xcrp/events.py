"""The history: events, log records of all cards, and stamps of traced packets. All of them are bounded."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from chassis.bus.engine import Output
from chassis.bus.messages import Stamp
from chassis.model.router import Config
from chassis.xcrp.log import Log
from chassis.xcrp.log_file import LogFile, entries

MAX_EVENTS = 1000
MAX_TRACES = 1000
MAX_STAMPS_PER_TRACE = 64


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One line of the node's history; `time` in monotonic seconds."""

    time: float
    text: str


@dataclass(slots=True)
class History:
    """The last events, log records and traces of a node, since `began` in monotonic seconds.

    `wall_offset`: what the clock of the day (s since 1970) shows more than the monotonic one."""

    began: float = 0.0
    wall_offset: float = 0.0
    events: deque[HistoryEvent] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    log: Log = field(default_factory=Log)
    log_file: LogFile = field(default_factory=lambda: LogFile(b""))
    traces: OrderedDict[int, list[Stamp]] = field(default_factory=OrderedDict)

    def restore_log(self, data: bytes, wall_offset: float) -> None:
        """Take up the log of the controller before, from its file, and go on with the file."""
        self.wall_offset, self.log_file = wall_offset, LogFile(data)
        for entry in entries(data, wall_offset):
            self.log.adopt(entry)

    def configure_log(self, config: Config) -> list[Output]:
        """Follow the settings of the log; return the writes of its file that come of it."""
        if config.log_ring_size != self.log.most:
            self.log = self.log.resized(config.log_ring_size)
        enabled, level = config.log_file is not False, config.log_filter_file
        if (enabled, level) == (self.log_file.enabled, self.log_file.level):
            return []
        self.log_file.enabled, self.log_file.level = enabled, level
        return self.log_file.rewrite(self.log)

    def clear_log(self) -> int:
        """Forget the log; return the number of its records. Numbers go on."""
        cleared, self.log = len(self.log), Log(self.log.most, self.log.number)
        return cleared

    def event(self, time: float, text: str) -> HistoryEvent:
        event = HistoryEvent(time, text)
        self.events.append(event)
        return event

    def stamps(self, stamps: Iterable[Stamp]) -> None:
        """Add stamps to their traces; remove the oldest traces if there are too many."""
        for stamp in stamps:
            trace = self.traces.get(stamp.number)
            if trace is None:
                trace = self.traces[stamp.number] = []
                if len(self.traces) > MAX_TRACES:
                    self.traces.popitem(last=False)
            if len(trace) < MAX_STAMPS_PER_TRACE:
                trace.append(stamp)
