"""Snapshots and deltas: what a card holds is what the controller wants it to hold."""

from __future__ import annotations

from random import Random

from chassis.bus.messages import Delta
from chassis.bus.records import ContextRecord, Record, RouteRecord
from chassis.bus.replication import MAX_RECORDS_PER_PART, MAX_RECORDS_PER_SLICE, Publisher, RecordChange, Replica


def everything(card: str, record: Record) -> bool:
    return True


def even(card: str, record: Record) -> bool:
    return card != "lc 1" or not isinstance(record, ContextRecord) or record.number % 2 == 0


def test_deltas_follow_the_snapshot() -> None:
    publisher, replica = Publisher(everything, 7), Replica()
    publisher.put(ContextRecord(1, "local"))
    publisher.flush()
    (snapshot,) = publisher.snapshot("lc 1")
    change = replica.snapshot(snapshot)
    assert change is not None
    assert [record.key for record in change.put] == [("context", 1)]
    publisher.put(ContextRecord(2, "red"))
    publisher.delete(("context", 1))
    ((card, delta),) = publisher.flush()
    change = replica.delta(delta)
    assert card == "lc 1"
    assert change is not None
    assert change.put == (ContextRecord(2, "red"),)
    assert change.deleted == (ContextRecord(1, "local"),)
    assert replica.version == publisher.version


def test_a_gap_asks_for_a_snapshot() -> None:
    publisher, replica = Publisher(everything, 0), Replica()
    publisher.flush()
    for number in range(3):
        publisher.put(ContextRecord(number, "x"))
        publisher.flush()
    for part in publisher.snapshot("lc 1"):
        replica.snapshot(part)
    publisher.put(ContextRecord(9, "lost"))
    publisher.flush()
    publisher.put(ContextRecord(10, "next"))
    ((_, delta),) = publisher.flush()
    assert replica.delta(delta) is None


def test_a_snapshot_in_parts_reports_only_differences_and_flushes_nothing() -> None:
    publisher, replica = Publisher(everything, 0), Replica()
    for number in range(MAX_RECORDS_PER_PART + 10):
        publisher.put(RouteRecord(1, number << 8, 24, ()))
    publisher.flush()
    first, second = publisher.snapshot("asp 1/1")
    assert replica.snapshot(first) is None
    assert replica.version == 0
    change = replica.snapshot(second)
    assert change is not None
    assert len(change.put) == MAX_RECORDS_PER_PART + 10
    again = [replica.snapshot(part) for part in publisher.snapshot("asp 1/1")]
    assert again[-1] is not None
    assert again[-1].put == ()
    assert again[-1].deleted == ()


def test_parts_of_two_snapshots_do_not_mix() -> None:
    publisher, replica = Publisher(everything, 0), Replica()
    for number in range(MAX_RECORDS_PER_PART + 10):
        publisher.put(RouteRecord(1, number << 8, 24, ()))
    publisher.flush()
    first, _ = publisher.snapshot("asp 1/1")
    publisher.put(ContextRecord(1, "new"))
    publisher.flush()
    _, second = publisher.snapshot("asp 1/1")
    replica.snapshot(first)
    assert replica.snapshot(second) is None
    assert replica.version == 0


def test_a_record_that_a_card_no_longer_needs_is_deleted_there() -> None:
    needs = {"asp 1/1": True}
    publisher, replica = Publisher(lambda card, record: needs[card], 0), Replica()
    publisher.put(ContextRecord(1, "local"))
    publisher.flush()
    for part in publisher.snapshot("asp 1/1"):
        replica.snapshot(part)
    needs["asp 1/1"] = False
    publisher.put(ContextRecord(1, "other"))
    ((_, delta),) = publisher.flush()
    replica.delta(delta)
    assert replica.records == {}


def test_a_record_goes_to_the_card_that_begins_to_need_it_alone() -> None:
    needs = {"asp 1/1"}
    publisher = Publisher(lambda card, record: card in needs, 0)
    record = ContextRecord(1, "local")
    publisher.put(record)
    publisher.flush()
    for card in ("asp 1/1", "asp 1/2"):
        publisher.snapshot(card)
    needs.add("asp 1/2")
    publisher.reconsider(record.key)
    publisher.reconsider(("context", 9))
    assert [(card, delta.put, delta.delete) for card, delta in publisher.flush()] == [("asp 1/2", (record,), ())]
    needs.remove("asp 1/1")
    publisher.reconsider(record.key)
    assert [(card, delta.put, delta.delete) for card, delta in publisher.flush()] == [
        ("asp 1/1", (), (record.key,))
    ]
    other = ContextRecord(1, "other")
    publisher.reconsider(record.key)
    publisher.put(other)
    publisher.reconsider(record.key)
    assert [(card, delta.put) for card, delta in publisher.flush()] == [("asp 1/2", (other,))]


def test_replicas_equal_what_they_need_after_any_history() -> None:
    random = Random(1)
    publisher = Publisher(even, 0)
    replicas = {"lc 1": Replica(), "lc 2": Replica()}
    publisher.flush()
    for card, replica in replicas.items():
        for part in publisher.snapshot(card):
            replica.snapshot(part)
    for _ in range(300):
        for _ in range(random.randrange(4)):
            number = random.randrange(20)
            if random.random() < 0.4:
                publisher.delete(("context", number))
            else:
                publisher.put(ContextRecord(number, str(random.randrange(5))))
        # A part of the changes goes to one card at once, and to the other one later.
        only = {"lc 1"} if random.random() < 0.5 else None
        for card, delta in publisher.flush(only):
            assert card == "lc 1" or only is None
            if replicas[card].delta(delta) is None:
                # It has nothing yet that the delta could follow.
                assert delta.from_version == 0
                for part in publisher.snapshot(card):
                    replicas[card].snapshot(part)
        if random.random() < 0.05:
            publisher.unsubscribe("lc 2")
            for part in publisher.snapshot("lc 2"):
                replicas["lc 2"].snapshot(part)
        for card in ("lc 1",) if only else replicas:
            wanted = {key: record for key, record in publisher.records.items() if even(card, record)}
            assert replicas[card].records == wanted


def test_replace_counts_what_changed() -> None:
    publisher = Publisher(everything, 0)
    assert publisher.replace([ContextRecord(1, "a"), ContextRecord(2, "b")]) == 2
    assert publisher.replace([ContextRecord(1, "a"), ContextRecord(3, "c")]) == 2
    assert publisher.replace([ContextRecord(1, "a"), ContextRecord(3, "c")]) == 0


def filled(count: int) -> tuple[Publisher, Replica, list[RecordChange]]:
    """A card that has been sent all of a snapshot of so many routes, and a context behind them."""
    publisher, replica = Publisher(everything, 0), Replica()
    for number in range(count):
        publisher.put(RouteRecord(1, number << 8, 24, ()))
    publisher.put(ContextRecord(1, "local"))
    publisher.flush()
    changes = [replica.snapshot(part) for part in publisher.snapshot("asp 1/1")]
    return publisher, replica, [change for change in changes if change is not None]


def rest(replica: Replica) -> list[RecordChange]:
    slices = []
    while replica.waiting:
        slices.append(replica.next_slice())
    return slices


def test_a_large_change_is_given_in_slices_with_routes_last() -> None:
    count = 3 * MAX_RECORDS_PER_SLICE
    publisher, replica, changes = filled(count)
    (first,) = changes
    assert isinstance(first.put[0], ContextRecord)
    assert (first.more, replica.version) == (True, 0)
    assert len(replica.records) == len(first.put) == MAX_RECORDS_PER_SLICE
    slices = [first, *rest(replica)]
    assert max(len(change.put) for change in slices) == MAX_RECORDS_PER_SLICE
    assert [change.more for change in slices] == [True] * 3 + [False]
    assert replica.records == publisher.records
    assert replica.version == publisher.version
    for number in range(count):
        publisher.delete(("route", 1, number << 8, 24))
    ((_, delta),) = publisher.flush()
    change = replica.delta(delta)
    assert change is not None
    assert len(change.deleted) == MAX_RECORDS_PER_SLICE
    rest(replica)
    assert list(replica.records) == [("context", 1)]


def test_deltas_wait_behind_the_slices_before_them() -> None:
    publisher, replica, _ = filled(2 * MAX_RECORDS_PER_SLICE)
    publisher.put(ContextRecord(1, "other"))
    publisher.delete(("route", 1, 0, 24))
    ((_, delta),) = publisher.flush()
    assert replica.delta(delta) == RecordChange((), (), more=True)
    assert not replica.settled
    last = rest(replica)[-1]
    assert last == RecordChange((ContextRecord(1, "other"),), (RouteRecord(1, 0, 24, ()),))
    assert replica.settled
    assert replica.records == publisher.records
    assert replica.version == publisher.version


def test_a_new_snapshot_takes_the_place_of_slices_that_wait() -> None:
    publisher, replica, _ = filled(3 * MAX_RECORDS_PER_SLICE)
    publisher.put(ContextRecord(2, "new"))
    publisher.delete(("route", 1, 0, 24))
    publisher.flush()
    first, *others = publisher.snapshot("asp 1/1")
    assert replica.snapshot(first) is None
    # No delta follows what is held, until the snapshot is whole.
    assert not replica.waiting
    assert not replica.settled
    assert replica.delta(Delta(replica.received, replica.received + 1, (), ())) is None
    for part in others:
        replica.snapshot(part)
    rest(replica)
    assert replica.records == publisher.records
    assert replica.version == publisher.version
