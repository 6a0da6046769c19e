"""Replication of the controller's records to every card: a snapshot, then deltas in order.

`Publisher` is the controller's end, `Replica` the card's. All state reaches a card this way, so the first boot, a
killed card, a hung card and a restarted controller need no code of their own. A snapshot does not flush: the
replica compares it with its records and reports only the differences.

A card carries packets and sends heartbeats, so it must not be busy with thousands of changed records at a time: a
large change is given in slices (`Replica.next_slice`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from chassis.bus.messages import Delta, Snapshot
from chassis.bus.records import (
    CardStateRecord,
    Key,
    OnDemandRecord,
    Record,
    RouteRecord,
    TunnelHopRecord,
    TunnelRecord,
)

MAX_RECORDS_PER_PART = 250
"""Most records of one part of a snapshot (count). A card reads a part in a few milliseconds."""

MAX_RECORDS_PER_SLICE = 500
"""Most records that a card acts on at a time (count). It takes a few hundredths of a second."""

Wants = Callable[[str, Record], bool]
"""Returns whether a card needs a record."""


@dataclass(slots=True)
class _Subscriber:
    version: int
    held: set[Key] = field(default_factory=set)
    late: dict[Key, bool] = field(default_factory=dict)
    """Changes that this card has not been given yet, as in `Publisher._dirty`."""


class Publisher:
    """The controller's records, and which of them each card has.

    `put` and `delete` only note what changed; `flush` raises the version once and gives each card its delta.
    """

    def __init__(self, wants: Wants, version: int) -> None:
        """`version`: first version of this controller, above those of all controllers before it."""
        self.version = version
        self.records: dict[Key, Record] = {}
        self._wants = wants
        self._dirty: dict[Key, bool] = {}
        """Keys to look at, in order; False for one whose record is the same, but not who needs it."""
        self._cards: dict[str, _Subscriber] = {}

    def put(self, record: Record) -> bool:
        """Replace the record with this key; return whether anything changed."""
        key = record.key
        if self.records.get(key) == record:
            return False
        self.records[key] = record
        self._dirty[key] = True
        return True

    def delete(self, key: Key) -> bool:
        if self.records.pop(key, None) is None:
            return False
        self._dirty[key] = True
        return True

    def reconsider(self, key: Key) -> None:
        """Other cards than before may need the record of a key; those that have it and go on get nothing."""
        self._dirty.setdefault(key, False)

    def update(self, changes: Iterable[tuple[Key, Record | None]]) -> None:
        """Replace or delete the records of these keys."""
        for key, record in changes:
            if record is None:
                self.delete(key)
            else:
                self.put(record)

    def replace(self, wanted: Iterable[Record]) -> int:
        """Replace all records; return the number of changed ones."""
        changed = 0
        keep = set()
        for record in wanted:
            keep.add(record.key)
            changed += self.put(record)
        for key in [key for key in self.records if key not in keep]:
            changed += self.delete(key)
        return changed

    def unsubscribe(self, card: str) -> None:
        """Send nothing more to a card until its next snapshot."""
        self._cards.pop(card, None)

    def sent(self, card: str) -> int:
        """Return the version that was last sent to a card; 0 for a card that gets no records."""
        subscriber = self._cards.get(card)
        return 0 if subscriber is None else subscriber.version

    def snapshot(self, card: str) -> list[Snapshot]:
        """Return all records that a card needs, in parts; `flush` keeps the card up to date afterwards.

        Call `flush` first, so that no change is both in the snapshot and in the next delta.
        """
        wants = self._wants
        needed = {key: record for key, record in self.records.items() if wants(card, record)}
        records = list(needed.values())
        self._cards[card] = _Subscriber(self.version, set(needed))
        cuts = range(0, max(len(records), 1), MAX_RECORDS_PER_PART)
        return [
            Snapshot(self.version, number, len(cuts), tuple(records[at : at + MAX_RECORDS_PER_PART]))
            for number, at in enumerate(cuts, 1)
        ]

    def flush(self, only: Collection[str] | None = None) -> list[tuple[str, Delta]]:
        """Return the deltas that bring every subscribed card up to date, in the order of the changes.

        With `only` these cards alone; the others get the changes with the next flush of theirs.
        """
        if self._dirty:
            self.version += 1
        dirty, self._dirty = self._dirty, {}
        deltas = []
        for card, subscriber in self._cards.items():
            changes = dirty
            if subscriber.late or (only is not None and card not in only):
                changes = subscriber.late
                for key, changed in dirty.items():
                    changes[key] = changed or changes.get(key, False)
                if only is not None and card not in only:
                    continue
                subscriber.late = {}
            put, delete = [], []
            for key, changed in changes.items():
                record = self.records.get(key)
                if record is not None and self._wants(card, record):
                    if changed or key not in subscriber.held:
                        put.append(record)
                        subscriber.held.add(key)
                elif key in subscriber.held:
                    delete.append(key)
                    subscriber.held.discard(key)
            if put or delete:
                deltas.append((card, Delta(subscriber.version, self.version, tuple(put), tuple(delete))))
                subscriber.version = self.version
        return deltas


@dataclass(frozen=True, slots=True)
class RecordChange:
    """The changes of a snapshot or delta on a card, or a slice of them: new or different records, and removed
    ones. `more`: further slices follow."""

    put: tuple[Record, ...]
    deleted: tuple[Record, ...]
    more: bool = False


_RANKS: dict[type, int] = {
    CardStateRecord: -1,
    OnDemandRecord: 1,
    TunnelRecord: 2,
    TunnelHopRecord: 2,
    RouteRecord: 3,
}
"""Places of types of records in the slices of a change; 0 for the others."""


def _rank(record: Record) -> int:
    return _RANKS.get(type(record), 0)


@dataclass(slots=True)
class _Waiting:
    """The part of a change that is not given to the card yet: keys to delete and records to put, in order; and the
    version that is reached with all of it."""

    version: int
    steps: deque[Key | Record]


class Replica:
    """A card's copy of the records. `version` 0 means that it holds none.

    `records` and `version` are those of the slices that were given. In the slices of a change records that others
    name come before these, and routes last, so that no route leads where the card knows nothing yet.
    """

    def __init__(self) -> None:
        self.version = 0
        self.records: dict[Key, Record] = {}
        self.received = 0
        """The version that is reached with all that waits."""
        self._waiting: deque[_Waiting] = deque()
        self._wanted: dict[Key, Record] = {}
        self._changed: list[Record] = []
        """What the parts of a snapshot had so far, and what of it is new. Each part is compared when it comes: all
        of thousands at the end would take longer than a card may be silent."""
        self._expected = 1
        self._pending = 0
        self._broken = False
        """A snapshot has begun and is not complete: no delta follows what is held."""

    @property
    def waiting(self) -> bool:
        """Return whether `next_slice` has something to give."""
        return bool(self._waiting)

    @property
    def settled(self) -> bool:
        """Return whether all that came is given, and no part of a snapshot is missing."""
        return not self._waiting and not self._broken

    def snapshot(self, message: Snapshot) -> RecordChange | None:
        """Add one part; return the change, or its first slice, after the last part, otherwise None. A part out of
        order starts again."""
        if message.part == 1:
            # It is compared with what was given of changes before it; the rest of them is void.
            self._waiting.clear()
            self._broken = True
            self._wanted, self._changed, self._pending = {}, [], message.version
        elif message.part != self._expected or message.version != self._pending:
            self._expected = 1
            return None
        for record in message.records:
            key = record.key
            held = self.records.get(key)
            if held == record:
                self._wanted[key] = held
            else:
                self._wanted[key] = record
                self._changed.append(record)
        self._expected = message.part + 1
        if message.part < message.parts:
            return None
        self._expected = 1
        self._broken = False
        self.received = message.version
        wanted, put = self._wanted, self._changed
        self._wanted, self._changed = {}, []
        deleted = [key for key in self.records if key not in wanted]
        if len(put) + len(deleted) <= MAX_RECORDS_PER_SLICE:
            gone = tuple([self.records[key] for key in deleted])
            self.records, self.version = wanted, message.version
            return RecordChange(tuple(put), gone)
        self._waiting.append(_Waiting(message.version, _in_order(put, deleted)))
        return self.next_slice()

    def delta(self, message: Delta) -> RecordChange | None:
        """Apply a delta; return the change, or its first slice, or None if it does not follow the version held.
        The card must then send a hello. While slices of a change before it wait, it waits behind them."""
        if self.received == 0 or self._broken or message.from_version != self.received:
            return None
        self.received = message.to_version
        steps = deque[Key | Record]((*message.delete, *message.put))
        if len(steps) > MAX_RECORDS_PER_SLICE:
            steps = _in_order(message.put, message.delete)
        self._waiting.append(_Waiting(message.to_version, steps))
        return self.next_slice() if len(self._waiting) == 1 else RecordChange((), (), more=True)

    def next_slice(self) -> RecordChange:
        """Apply the next slice of what waits, and return it."""
        change = self._waiting[0]
        put: list[Record] = []
        deleted: list[Record] = []
        for _ in range(min(len(change.steps), MAX_RECORDS_PER_SLICE)):
            step = change.steps.popleft()
            if isinstance(step, tuple):
                record = self.records.pop(step, None)
                if record is not None:
                    deleted.append(record)
            else:
                self.records[step.key] = step
                put.append(step)
        if not change.steps:
            self._waiting.popleft()
            self.version = change.version
        return RecordChange(tuple(put), tuple(deleted), more=bool(change.steps))


def _in_order(put: Iterable[Record], delete: Iterable[Key]) -> deque[Key | Record]:
    """Return the steps of a large change: what is deleted, then what is put, and all routes last."""
    keys = sorted(delete, key=lambda key: key[0] == RouteRecord.TYPE)
    routes = len(keys) - sum(key[0] == RouteRecord.TYPE for key in keys)
    ordered = sorted(put, key=_rank)
    first = [record for record in ordered if not isinstance(record, RouteRecord)]
    return deque((*keys[:routes], *first, *keys[routes:], *ordered[len(first) :]))
