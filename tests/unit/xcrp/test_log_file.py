"""The log's file: what is gathered and written, torn tails, a bounded size, and a disk that is full."""

from __future__ import annotations

import os
from math import inf
from pathlib import Path

import pytest

from chassis.bus import storage
from chassis.bus.engine import WriteLog
from chassis.bus.messages import LogRecord
from chassis.xcrp.log import Log, LogEntry
from chassis.xcrp.log_file import (
    FLUSH_DELAY,
    MAX_GATHERED,
    RETRY_INTERVAL,
    SLACK,
    LogFile,
    decode,
    encode,
    entries,
)

OFFSET = 1_000_000.0


class Disk:
    """A file of a log, and a log that is written into it."""

    def __init__(self, data: bytes = b"", most: int = 2500) -> None:
        self.data, self.full, self.writes = data, False, 0
        self.file, self.log = LogFile(data), Log(most)
        for entry in entries(data, OFFSET):
            self.log.adopt(entry)

    def add(self, now: float, text: str = "said", severity: str = "error") -> None:
        record = LogRecord(now, severity, "ike", "", text, {"tunnel": "t1", "spi": 7, "raw": b"\1"})
        self.file.add(self.log.append(record, now + OFFSET, 3, "1/0"), now)

    def turn(self, now: float) -> list[str]:
        """Let the file do what is due; return what is to be logged of it."""
        said = []
        for output in self.file.on_timer(self.log, now):
            assert isinstance(output, WriteLog)
            self.writes += 1
            if not self.full:
                self.data = output.data if output.whole else self.data + output.data
            told = self.file.on_written("No space" if self.full else "", now)
            said += [told[1]] if told is not None else []
        return said

    def texts(self) -> list[str]:
        return [entry.record.text for entry in entries(self.data, OFFSET)]


def test_what_is_written_is_read_back() -> None:
    entry = LogEntry(5, OFFSET + 2.5, LogRecord(2.5, "warning", "ipsec", "x", '"é"\n', {"a": 1}), 7, "c")
    assert encode(entry).count(b"\n") == 1
    assert decode(encode(entry), OFFSET) == entry


def test_records_are_gathered_and_appended_together() -> None:
    disk = Disk()
    disk.add(1.0)
    disk.add(1.05)
    assert disk.file.next_timer() == 1.0 + FLUSH_DELAY
    assert (disk.turn(1.05), disk.writes) == ([], 0)
    disk.turn(1.2)
    assert (disk.writes, disk.texts(), disk.file.next_timer()) == (1, ["said", "said"], inf)


def test_many_records_do_not_wait() -> None:
    disk = Disk()
    for _ in range(MAX_GATHERED):
        disk.add(1.0)
    assert disk.file.next_timer() == 1.0


def test_a_torn_tail_costs_its_own_record_alone() -> None:
    disk = Disk()
    for number in range(4):
        disk.add(1.0, f"r{number}")
    disk.turn(2.0)
    for cut in range(len(disk.data)):
        torn = Disk(disk.data[:cut])
        whole = disk.data[:cut].count(b"\n")
        # A line that lacks its end alone is whole.
        held = len(torn.texts())
        assert held in (whole, whole + 1)
        torn.add(3.0, "after")
        torn.turn(4.0)
        assert torn.texts() == [*(f"r{number}" for number in range(held)), "after"]


@pytest.mark.parametrize(
    "line",
    [b"x", b"[]", b'{"a": 1}', b"[1,2,3,4,5,6,7,8,9]", b'[1,1e999,"a","b","c","d",0,"",{}]',
     b'[true,1.0,"a","b","c","d",0,"",{}]', b'[1,1.0,"a","b","c","d",0,"",{"x":[1]}]', b"[" * 100_000,
     b"\xff\xfe"],
)  # fmt: skip
def test_what_is_no_record_is_passed_over(line: bytes) -> None:
    good = encode(LogEntry(9, OFFSET, LogRecord(0.0, "error", "ike", "", "good", {})))
    assert [entry.record.text for entry in entries(line + b"\n" + good, OFFSET)] == ["good"]


def test_the_file_is_written_anew_before_it_is_long_and_keeps_the_errors() -> None:
    disk = Disk(most=200)
    for number in range(150):
        disk.add(0.0, f"error {number}")
    longest = 0
    for number in range(100_000):
        disk.add(number / 1000, f"note {number}", "informational")
        if disk.file.next_timer() <= number / 1000:
            disk.turn(number / 1000)
            longest = max(longest, len(disk.data))
    disk.turn(inf)
    assert longest < 2 * 400 * 200 + SLACK
    after = Disk(disk.data, 200)
    assert list(after.log) != []
    texts = [entry.record.text for entry in after.log]
    assert texts[:150] == [f"error {number}" for number in range(150)]
    assert texts[-1] == "note 99999"


def test_a_full_disk_stops_the_file_once_and_the_log_goes_on() -> None:
    disk = Disk()
    disk.full = True
    disk.add(1.0, "a")
    assert len(disk.turn(2.0)) == 1
    for number in range(10):
        disk.add(3.0 + number, f"b{number}")
        assert disk.turn(3.0 + number) == []
    assert disk.writes == 1
    assert disk.turn(2.0 + RETRY_INTERVAL) == []
    disk.full = False
    assert disk.turn(2.0 + 2 * RETRY_INTERVAL) == ["the log's file is written again"]
    assert disk.texts() == ["a", *(f"b{number}" for number in range(10))]
    disk.add(70.0, "c")
    disk.turn(71.0)
    assert disk.texts()[-1] == "c"


def test_a_cleared_log_is_gone_from_its_file() -> None:
    disk = Disk()
    disk.add(1.0)
    disk.turn(2.0)
    disk.add(3.0, "gathered")
    (output,) = disk.file.rewrite(())
    assert output == WriteLog("log.jsonl", b"", whole=True)
    assert (disk.turn(inf), disk.writes) == ([], 1)


def test_on_disk_it_is_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    storage.write_unsynced(path, b"a\n", whole=False)
    storage.write_unsynced(path, b"b\n", whole=False)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"a\nb\n", 0o600)
    storage.write_unsynced(path, b"c\n", whole=True)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"c\n", 0o600)
    assert os.listdir(tmp_path) == ["log.jsonl"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    storage.write_unsynced(path, b"a\n", whole=False)
    real, calls = os.write, []

    def short(fd: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) % 2 == 0:
            raise OSError(28, "No space left on device")
        return real(fd, data[:1])

    monkeypatch.setattr(os, "write", short)
    for whole in (False, True):
        with pytest.raises(OSError, match="No space"):
            storage.write_unsynced(path, b"more\n", whole=whole)
    assert path.read_bytes() == b"a\n"
    assert os.listdir(tmp_path) == ["log.jsonl"]
