"""Counters in a mapped file."""

from __future__ import annotations

from pathlib import Path

from chassis.bus.counters import FILE_SIZE, OVERFLOW, SLOTS, Counters, read
from chassis.bus.environment import map_file


def test_they_outlive_whoever_counted(tmp_path: Path) -> None:
    view, fresh = map_file(tmp_path / "x.counters", FILE_SIZE)
    counters = Counters(view)
    counters.add("drop no route", 3)
    counters.values[counters.slot("sent")] += 5
    again, still_fresh = map_file(tmp_path / "x.counters", FILE_SIZE)
    assert fresh
    assert not still_fresh
    assert dict(Counters(again).items()) == {"drop no route": 3, "sent": 5}
    assert read((tmp_path / "x.counters").read_bytes()) == {"drop no route": 3, "sent": 5}
    assert (tmp_path / "x.counters").stat().st_mode & 0o777 == 0o600


def test_a_full_table_counts_on_in_one_place() -> None:
    counters = Counters()
    for number in range(SLOTS + 20):
        counters.add(f"name {number}")
    assert sum(count for _, count in counters.items()) == SLOTS + 20
    assert counters.get(OVERFLOW) == 21


def test_a_file_that_is_none_holds_nothing() -> None:
    assert read(b"") == {}
    assert read(bytes(FILE_SIZE)) == {}
