"""The request for a part of the log: its times and filters, and the line of a record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from chassis.bus.arguments import ArgumentError, read
from chassis.bus.log_lines import date, line
from chassis.bus.messages import LogRecord
from chassis.bus.requests import CONTROLLER
from chassis.xcrp.log import Log
from chassis.xcrp.log_commands import chosen, read_time

NOW = datetime(2026, 11, 29, 14, 30, 20, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", datetime(2026, 11, 29, 14, 28, 50, tzinfo=UTC)),
        ("2h", datetime(2026, 11, 29, 12, 30, 20, tzinfo=UTC)),
        ("1d", datetime(2026, 11, 28, 14, 30, 20, tzinfo=UTC)),
        ("14:30:15", datetime(2026, 11, 29, 14, 30, 15, tzinfo=UTC)),
        ("14:31", datetime(2026, 11, 28, 14, 31, tzinfo=UTC)),
        ("2026-01-02T03:04", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("2026-01-02T03:04:05+02:00", datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
    ],
)
def test_times_that_are_read(text: str, expected: datetime) -> None:
    assert read_time(text, NOW) == expected.timestamp()


@pytest.mark.parametrize("text", ["yesterday", "25:00", "1w", "-1s", "2026-13-01", "9999999999999s"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(ArgumentError, match="is no time"):
        read_time(text, NOW)


def made() -> Log:
    log = Log()
    for number, (severity, facility, tunnel, context) in enumerate(
        [
            ("error", "ike", "t1", "lan"),
            ("warning", "ipsec", "t1", "wan"),
            ("informational", "ike", "t2", "lan"),
            ("notice", "bus", "", ""),
        ]
    ):
        values = {name: value for name, value in (("tunnel", tunnel), ("context", context)) if value}
        log.append(LogRecord(float(number), severity, facility, "", f"r{number}", dict(values)), NOW + number)
    return log


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"since": 2.0}, [2, 3]),
        ({"level": 4}, [0, 1]),
        ({"level": 2}, []),
        ({"facility": "IKE"}, [0, 2]),
        ({"tunnel": "t1"}, [0, 1]),
        ({"tunnel": "t1", "context": "lan"}, [0]),
        ({"from": "14:30:22"}, [2, 3]),
    ],
)
def test_filters(given: dict[str, Any], expected: list[int]) -> None:
    found = chosen(made(), read(CONTROLLER["log"], given), NOW + 10)
    assert [entry.record.text for entry in found] == [f"r{number}" for number in expected]


def test_what_came_after_a_number() -> None:
    log = made()
    assert [[entry.number for entry in log.after(number)] for number in (0, 2, 4, 9)] == [
        [1, 2, 3, 4],
        [3, 4],
        [],
        [],
    ]


def test_a_line_has_what_is_known() -> None:
    """The form is that of a line of the box (platform facts, 7)."""
    row = {
        "wall": datetime(2013, 8, 22, 11, 46, 14, tzinfo=UTC).timestamp() + 0.9,
        "severity": "debug",
        "facility": "aaa",
        "text": "aaa_idx 1",
        "context_id": 0x40080002,
        "circuit": "2/1:1023:63/7/2/117",
    }
    assert line(row) == "Aug 22 11:46:14: [0002]: [2/1:1023:63/7/2/117]: %AAA-7-DEBUG: aaa_idx 1"
    assert line({**row, "circuit": ""}) == "Aug 22 11:46:14: [0002]: %AAA-7-DEBUG: aaa_idx 1"
    assert line({**row, "context_id": 0, "circuit": ""}) == "Aug 22 11:46:14: %AAA-7-DEBUG: aaa_idx 1"


def test_a_day_has_two_digits() -> None:
    assert date(datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC).timestamp()) == "Mar 04 05:06:07"
