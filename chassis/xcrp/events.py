"""The history: events, log records of all cards, and stamps of traced packets. All of them are bounded."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge

from chassis.bus.messages import LogRecord, Stamp, Value

MAX_EVENTS = 1000
MAX_LOG_RECORDS = 5000
MAX_TRACES = 1000
MAX_STAMPS_PER_TRACE = 64


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One line of the node's history; `time` in monotonic seconds."""

    time: float
    text: str


_Kind = tuple[str, str, str, Value]


def _kind(record: LogRecord) -> _Kind:
    """Return the kind of a record: its id and tunnel, without regard to the text."""
    return record.facility, record.id, "" if record.id else record.severity, record.values.get("tunnel")


class Log:
    """The last log records, at most `most` (count). A full log removes the oldest record of the kind that has the
    most records, so that a peer that causes many records of one kind removes no others."""

    def __init__(self, most: int = MAX_LOG_RECORDS) -> None:
        self._most = most
        self._number = self._held = 0
        self._kinds: dict[_Kind, deque[tuple[int, LogRecord]]] = {}
        self._sizes: dict[int, dict[_Kind, None]] = {}
        """The kinds that have so many records."""
        self._largest = 0

    def append(self, record: LogRecord) -> None:
        kind = _kind(record)
        lines = self._kinds.setdefault(kind, deque())
        self._number += 1
        lines.append((self._number, record))
        self._held += 1
        self._sized(kind, len(lines) - 1, len(lines))
        self._largest = max(self._largest, len(lines))
        if self._held > self._most:
            self._make_room()

    def __iter__(self) -> Iterator[LogRecord]:
        """Return the records in the order in which they came."""
        return (record for _, record in merge(*self._kinds.values(), key=lambda line: line[0]))

    def __len__(self) -> int:
        return self._held

    def _make_room(self) -> None:
        kind = next(iter(self._sizes[self._largest]))
        lines = self._kinds[kind]
        lines.popleft()
        self._held -= 1
        self._sized(kind, len(lines) + 1, len(lines))
        if not lines:
            del self._kinds[kind]
        if self._largest not in self._sizes:
            self._largest -= 1

    def _sized(self, kind: _Kind, before: int, after: int) -> None:
        if before:
            same = self._sizes[before]
            del same[kind]
            if not same:
                del self._sizes[before]
        if after:
            self._sizes.setdefault(after, {})[kind] = None


@dataclass(slots=True)
class History:
    """The last events, log records and traces of a node, since `began` in monotonic seconds."""

    began: float = 0.0
    events: deque[HistoryEvent] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    log: Log = field(default_factory=Log)
    traces: OrderedDict[int, list[Stamp]] = field(default_factory=OrderedDict)

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
