"""What happened lately: events for people, log records of all cards, and stamps of traced packets. All bounded."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from chassis.bus.messages import LogRecord, Stamp

EVENTS = 1000
LOG_RECORDS = 5000
TRACES = 1000
STAMPS_OF_A_TRACE = 64


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the node's history; `time` in monotonic seconds."""

    time: float
    text: str


@dataclass(slots=True)
class History:
    """The last events, log records and traces of a node."""

    events: deque[Event] = field(default_factory=lambda: deque(maxlen=EVENTS))
    log: deque[LogRecord] = field(default_factory=lambda: deque(maxlen=LOG_RECORDS))
    traces: OrderedDict[int, list[Stamp]] = field(default_factory=OrderedDict)

    def event(self, time: float, text: str) -> Event:
        event = Event(time, text)
        self.events.append(event)
        return event

    def stamps(self, stamps: Iterable[Stamp]) -> None:
        """Sort stamps to their traces; the oldest traces make room."""
        for stamp in stamps:
            trace = self.traces.get(stamp.number)
            if trace is None:
                trace = self.traces[stamp.number] = []
                if len(self.traces) > TRACES:
                    self.traces.popitem(last=False)
            if len(trace) < STAMPS_OF_A_TRACE:
                trace.append(stamp)
