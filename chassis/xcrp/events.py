"""The history: events, log records of all cards, and stamps of traced packets. All of them are bounded."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from chassis.bus.messages import Stamp
from chassis.xcrp.log import Log

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
    traces: OrderedDict[int, list[Stamp]] = field(default_factory=OrderedDict)

    def clear_log(self) -> int:
        """Forget the log; return the number of its records. Numbers go on."""
        cleared, self.log = len(self.log), Log(number=self.log.number)
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
