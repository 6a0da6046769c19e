"""The log that a controller keeps: whoever makes it long drives out lines of that kind, and no others."""

from __future__ import annotations

import pytest

from chassis.bus.messages import LogRecord
from chassis.xcrp.events import History
from chassis.xcrp.log import MAX_LOG_RECORDS


def line(time: float, id: str, text: str = "", **values: str) -> LogRecord:
    return LogRecord(time, "warning", "ike", id, text or id, dict(values))


@pytest.mark.parametrize("id", ["ike-no-tunnel", "ikev2-invalid-hdr-length", ""])
def test_a_flood_of_one_kind_leaves_the_lines_of_all_others(id: str) -> None:
    log = History().log
    for time in range(100):
        log.append(line(time, "esp-icv-esp", tunnel=f"t{time}"))
    for source in range(4 * MAX_LOG_RECORDS):
        log.append(line(100 + source, id, f"10.{source >> 8}.{source & 255}.1 begins IKEv2"))
    kept = [entry.record for entry in log]
    assert len(kept) == len(log) == MAX_LOG_RECORDS
    assert [record.values.get("tunnel") for record in kept[:100]] == [f"t{time}" for time in range(100)]
    # Of the flood it is the newest lines that are there, and all stand in the order in which they came.
    assert kept[-1].time == 99 + 4 * MAX_LOG_RECORDS
    assert [record.time for record in kept] == sorted(record.time for record in kept)


def test_floods_of_several_kinds_share_the_room() -> None:
    log = History().log
    for time in range(MAX_LOG_RECORDS):
        log.append(line(time, "ike-no-tunnel"))
    for time in range(MAX_LOG_RECORDS):
        log.append(line(MAX_LOG_RECORDS + time, f"ike-failed-{time % 4}", tunnel=f"t{time % 10}"))
    of = [entry.record.id for entry in log]
    assert len(of) == MAX_LOG_RECORDS
    counts = {id: of.count(id) for id in set(of)}
    # Twenty kinds of a tunnel and cause, and the first flood.
    assert len(counts) == 5
    assert min(counts.values()) >= MAX_LOG_RECORDS // 21


def test_every_single_kind_is_bounded_by_the_whole() -> None:
    log = History().log
    for time in range(2 * MAX_LOG_RECORDS):
        log.append(line(time, "ike-no-tunnel", tunnel=f"t{time}"))
    assert [entry.record.time for entry in log] == list(range(MAX_LOG_RECORDS, 2 * MAX_LOG_RECORDS))


def test_a_flood_of_a_hundred_thousand_notes_costs_no_error_its_place() -> None:
    log = History().log
    for time in range(MAX_LOG_RECORDS):
        log.append(line(time, f"ike-failed-{time % 7}", tunnel=f"t{time % 50}"))
    for time in range(100_000):
        log.append(LogRecord(time, "informational", "ipsec", "sa-added", "", {"tunnel": f"t{time}"}))
    kept = [entry.record for entry in log]
    assert [record.time for record in kept if record.severity == "warning"] == list(range(MAX_LOG_RECORDS))
    assert len(kept) == len(log) == 2 * MAX_LOG_RECORDS


def test_a_flood_about_many_tunnels_leaves_the_lines_of_another_id() -> None:
    log = History().log
    for time in range(100):
        log.append(line(time, f"ike-failed-{time}"))
    for time in range(4 * MAX_LOG_RECORDS):
        log.append(line(100 + time, "esp-icv-esp", tunnel=f"t{time}"))
    assert [entry.record.time for entry in log][:100] == list(range(100))


def test_numbers_go_on_after_the_log_was_cleared() -> None:
    history = History()
    assert history.log.append(line(1, "a")).number == 1
    assert history.clear_log() == 1
    assert not len(history.log)
    assert history.log.append(line(2, "b")).number == 2
