"""The log: the last records of all cards and of the controller, errors apart from the rest.

Each record has a number, the time of day, and the context and circuit that it is about, where they are known.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from typing import Any, Final

from chassis.bus.log_lines import ERROR_LEVEL, level_of, row_of
from chassis.bus.messages import LogRecord, Value

MAX_LOG_RECORDS: Final = 2500
"""Records of each class that are kept (count)."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A record in the log. `wall`: Unix time (s). `context`: an id as `show context` prints it, 0 for none."""

    number: int
    wall: float
    record: LogRecord
    context: int = 0
    circuit: str = ""

    @property
    def level(self) -> int:
        return level_of(self.record.severity)

    def row(self) -> dict[str, Any]:
        return row_of(self.record, self.number, self.wall, self.context, self.circuit)


_Family = tuple[str, str, str]
_Kind = tuple[_Family, Value]


def _kind(record: LogRecord) -> _Kind:
    """Return the kind of a record: its id and tunnel, without regard to the text."""
    family = record.facility, record.id, "" if record.id else record.severity
    return family, record.values.get("tunnel")


class _Ring:
    """The last entries of a class, at most `most` (count). A full ring removes the oldest entry of the kind that
    has the most, of several kinds one of the id that has the most, so that a peer that causes many entries of one
    kind removes no others."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self.kinds: dict[_Kind, deque[LogEntry]] = {}
        self._families: Counter[_Family] = Counter()
        self._sizes: dict[int, dict[_Family, dict[_Kind, None]]] = {}
        """The kinds that have so many entries, by family."""
        self._largest = 0

    def append(self, entry: LogEntry) -> None:
        kind = _kind(entry.record)
        lines = self.kinds.setdefault(kind, deque())
        lines.append(entry)
        self.held += 1
        self._families[kind[0]] += 1
        self._sized(kind, len(lines) - 1, len(lines))
        self._largest = max(self._largest, len(lines))
        if self.held > self.most:
            self._make_room()

    def _make_room(self) -> None:
        of_size = self._sizes[self._largest]
        family = next(iter(of_size)) if len(of_size) == 1 else max(of_size, key=self._families.__getitem__)
        kind = next(iter(of_size[family]))
        lines = self.kinds[kind]
        lines.popleft()
        self.held -= 1
        self._families[family] -= 1
        self._sized(kind, len(lines) + 1, len(lines))
        if not lines:
            del self.kinds[kind]
            if not self._families[family]:
                del self._families[family]
        if self._largest not in self._sizes:
            self._largest -= 1

    def _sized(self, kind: _Kind, before: int, after: int) -> None:
        family = kind[0]
        if before:
            of_size = self._sizes[before]
            same = of_size[family]
            del same[kind]
            if not same:
                del of_size[family]
            if not of_size:
                del self._sizes[before]
        if after:
            self._sizes.setdefault(after, {}).setdefault(family, {})[kind] = None


class Log:
    """The last entries, at most `most` (count) of warnings and errors, and as many of the others: no flood of the
    one costs the other its place."""

    def __init__(self, most: int = MAX_LOG_RECORDS, number: int = 0) -> None:
        """`number`: that of the last entry before."""
        self._errors, self._others = _Ring(most), _Ring(most)
        self.most, self.number = most, number

    def resized(self, most: int) -> Log:
        """Return a log of another size with the entries of this one, as many as it holds."""
        log = Log(most, self.number)
        for entry in self:
            log.adopt(entry)
        return log

    def append(self, record: LogRecord, wall: float = 0.0, context: int = 0, circuit: str = "") -> LogEntry:
        """Add a record under the next number."""
        entry = LogEntry(self.number + 1, wall, record, context, circuit)
        self.adopt(entry)
        return entry

    def adopt(self, entry: LogEntry) -> None:
        """Add an entry that has its number, which is above those of all before."""
        self.number = entry.number
        (self._errors if entry.level <= ERROR_LEVEL else self._others).append(entry)

    def __iter__(self) -> Iterator[LogEntry]:
        """Return the entries in the order in which they came."""
        kinds = (*self._errors.kinds.values(), *self._others.kinds.values())
        return merge(*kinds, key=lambda entry: entry.number)

    def after(self, number: int) -> Iterator[LogEntry]:
        """Return the entries above a number in order. Sessions ask often, and mostly there is none."""
        if number >= self.number:
            return iter(())
        kinds = (*self._errors.kinds.values(), *self._others.kinds.values())
        newer = [
            [entry for entry in lines if entry.number > number] for lines in kinds if lines[-1].number > number
        ]
        return merge(*newer, key=lambda entry: entry.number)

    def __len__(self) -> int:
        return self._errors.held + self._others.held
