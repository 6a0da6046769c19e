"""Captures into files and pipes: who may read them, what is kept, and that no packet waits for its capture."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from chassis.bus import regular_files
from chassis.bus.batch import Batch, Step, pack
from chassis.bus.capture import Capture, Captures, read, read_file
from chassis.net.ethernet import HEADROOM


def batch(*packets: bytes, headroom: int = 0) -> Batch:
    return Batch(Step.INGRESS, *pack(packets, headroom))


class Points:
    """Something with one point to capture."""

    def __init__(self) -> None:
        self.tapped: Capture | None = None
        self.captures = Captures(self.tap, lambda what: 0)

    def tap(self, what: str, capture: Capture | None) -> None:
        if what != "here":
            raise ValueError(f"no {what!r}")
        self.tapped = capture


@pytest.fixture
def points() -> Points:
    return Points()


def test_only_its_owner_reads_a_file_even_one_that_was_there(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.write_text("seen by all")
    old.chmod(0o644)
    mask = os.umask(0)
    try:
        for file in (new, old):
            Capture(file).close()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert list(read(file.read_bytes())) == []
    finally:
        os.umask(mask)


def test_packets_are_cut_but_say_how_long_they_were(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "x", skip=HEADROOM, snaplen=40)
    capture.write("one", batch(b"a" * 100, b"b" * 30, headroom=HEADROOM))
    capture.close()
    data = (tmp_path / "x").read_bytes()
    assert [(name, packet) for name, _, packet in read(data)] == [("one", b"a" * 40), ("one", b"b" * 30)]
    assert (40).to_bytes(4, "little") + (100).to_bytes(4, "little") + b"a" * 40 in data


def test_a_pipe_without_reader_is_refused_at_once(tmp_path: Path, points: Points) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="the pipe has no reader"):
        points.captures.start({"what": "here", "file": str(pipe)})
    assert points.tapped is None
    assert pipe.exists()


def test_a_full_pipe_leaves_packets_out_and_never_half_of_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    capture = Capture(pipe)
    sent = [number.to_bytes(2, "big") * 500 for number in range(400)]
    for packet in sent:
        capture.write("one", batch(packet))
    assert capture.missed > 100
    missed = capture.missed
    got = drained(reader)
    capture.write("one", batch(b"after"))
    assert capture.missed == missed
    got += drained(reader)
    capture.close()
    packets = [packet for _, _, packet in read(got)]
    assert packets == [*sent[: 400 - missed], b"after"]
    assert os.read(reader, 1) == b""
    os.close(reader)


def drained(reader: int) -> bytes:
    """All that is in a pipe now."""
    found = b""
    while True:
        try:
            data = os.read(reader, 1 << 16)
        except BlockingIOError:
            return found
        if not data:
            return found
        found += data


def test_a_reader_that_goes_away_ends_the_capture(tmp_path: Path, points: Points) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    points.captures.start({"what": "here", "file": str(pipe)})
    capture = points.tapped
    assert capture is not None
    capture.write("one", batch(b"a"))
    os.close(reader)
    capture.write("one", batch(b"b"))
    assert points.tapped is None, "what nobody reads costs nothing"
    capture.write("one", batch(b"c"))
    assert points.captures.stop({"what": "here"}) == {"stopped": True, "missed": 1, "error": "Broken pipe"}
    assert points.captures.stop({"what": "here"})["stopped"] is False


def test_a_full_disk_refuses_a_capture(points: Points, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(regular_files, "create", lambda path: os.open("/dev/full", os.O_RDWR))
    with pytest.raises(OSError, match="space"):
        points.captures.start({"what": "here", "file": str(tmp_path / "x")})
    assert points.tapped is None


@pytest.mark.parametrize(("wrong", "said"), [
    ({"what": "there"}, "no 'there'"),
    ({"file": "relative"}, "absolute"),
    ({"file": ""}, "absolute"),
    ({"snaplen": -1}, "snaplen"),
    ({"snaplen": "9"}, "snaplen"),
    ({"snaplen": 70000}, "snaplen"),
])  # fmt: skip
def test_what_is_refused_makes_no_file(
    tmp_path: Path, points: Points, wrong: dict[str, str | int], said: str
) -> None:
    file = tmp_path / "x"
    with pytest.raises(ValueError, match=said):
        points.captures.start({"what": "here", "file": str(file), **wrong})
    assert not file.exists()


def test_another_capture_of_the_same_takes_the_place_of_the_first(tmp_path: Path, points: Points) -> None:
    for name in ("first", "second"):
        points.captures.start({"what": "here", "file": str(tmp_path / name)})
        assert points.tapped is not None
        points.tapped.write("one", batch(name.encode()))
    points.captures.close()
    assert points.tapped is None
    for name in ("first", "second"):
        assert [packet for _, _, packet in read((tmp_path / name).read_bytes())] == [name.encode()]


def frame(
    protocol: int, *, ports: bytes = b"", options: int = 0, fragment: int = 0, ethertype: int = 0x0800
) -> bytes:
    header = bytes([0x45 + options]) + bytes(5) + fragment.to_bytes(2, "big") + bytes([64, protocol]) + bytes(10)
    return bytes(12) + ethertype.to_bytes(2, "big") + header + bytes(4 * options) + ports + bytes(20)


IKE, NAT_T, OTHER = ((4000).to_bytes(2, "big") + port.to_bytes(2, "big") for port in (500, 4500, 501))


def test_what_is_in_clear_is_kept_alone(tmp_path: Path) -> None:
    hidden = [
        frame(50),
        frame(51),
        frame(50, fragment=100),
        frame(17, ports=IKE),
        frame(17, ports=NAT_T),
        frame(17, ports=IKE, options=2),
        frame(0, ethertype=0x0806),
    ]
    clear = [
        frame(17, ports=OTHER),
        frame(17, ports=OTHER, options=2),
        frame(17, ports=IKE, fragment=100),
        frame(1),
        frame(6, ports=IKE),
        frame(108),
        frame(0, ethertype=0x86DD),
        bytes(12) + b"\x08\x00",
    ]
    capture = Capture(tmp_path / "x", clear=True)
    capture.write("one", batch(*hidden))
    assert (tmp_path / "x").stat().st_size < 100
    capture.write("one", batch(hidden[0], *clear, hidden[1]))
    capture.close()
    assert [packet for _, _, packet in read((tmp_path / "x").read_bytes())] == clear


def test_what_is_in_clear_can_be_told_on_a_wire_only(tmp_path: Path) -> None:
    captures = Captures(lambda what, capture: None, lambda what: HEADROOM)
    with pytest.raises(ValueError, match="for ports"):
        captures.start({"what": "clear", "file": str(tmp_path / "x"), "clear": True})
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("cut", [0, 1, 50, 119, 120])
def test_a_file_goes_on_after_the_last_whole_block_of_a_process_that_died(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "x"
    first = Capture(file)
    first.write("one", batch(b"a" * 60))
    first.write("two", batch(b"b" * 88))
    size = file.stat().st_size
    os.truncate(file, size - cut)
    second = Capture(file, append=True)
    # In another order than before, which is that of the first section to older readers.
    second.write("two", batch(b"c" * 60))
    second.write("one", batch(b"d" * 60))
    first.close()
    second.close()
    wanted = [
        ("one", b"a" * 60),
        *([("two", b"b" * 88)] if not cut else []),
        ("two", b"c" * 60),
        ("one", b"d" * 60),
    ]
    assert [(name, packet) for name, _, packet in read(file.read_bytes())] == wanted
    if shutil.which("tshark") is None:
        return
    command = ["tshark", "-r", str(file), "-T", "fields", "-e", "frame.interface_name", "-e", "frame.len"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [tuple(line.split("\t")) for line in done.stdout.splitlines()] == [
        (name, str(len(packet))) for name, packet in wanted
    ]


def test_only_a_file_that_is_there_goes_on(tmp_path: Path, points: Points) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (pipe, tmp_path / "none"):
        with pytest.raises(OSError, match="is not a regular file"):
            points.captures.start({"what": "here", "file": str(path), "append": True})
        assert points.tapped is None
    assert not (tmp_path / "none").exists()
    os.close(reader)


def test_a_ring_keeps_the_last_packets_within_its_size(tmp_path: Path, points: Points) -> None:
    ring = 1 << 17
    (tmp_path / "x.older.pcapng").write_text("of another capture")
    points.captures.start({"what": "here", "file": str(tmp_path / "x.pcapng"), "ring": ring})
    assert points.tapped is not None
    assert os.listdir(tmp_path) == ["x.pcapng"]
    sent = [(("one", "two")[number % 3 == 0], number.to_bytes(2, "big") * 500) for number in range(500)]
    largest = 0
    for number, (name, packet) in enumerate(sent):
        points.tapped.write(name, batch(packet))
        if number % 10 == 0:
            largest = max(largest, sum(file.stat().st_size for file in tmp_path.iterdir()))
    points.captures.stop({"what": "here"})
    assert ring // 2 < largest <= ring
    assert sorted(os.listdir(tmp_path)) == ["x.older.pcapng", "x.pcapng"]
    kept = [
        (name, packet)
        for file in ("x.older.pcapng", "x.pcapng")
        for name, _, packet in read((tmp_path / file).read_bytes())
    ]
    assert kept == sent[-len(kept) :]
    assert len(kept) * 1000 > ring // 2 - 2000
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in tmp_path.iterdir())


@pytest.mark.parametrize("between", [False, True])
def test_a_ring_goes_on_with_the_next_start_of_its_card(tmp_path: Path, between: bool) -> None:
    file = tmp_path / "x.pcapng"
    first = Capture(file, ring=1 << 17)
    for _ in range(60):
        first.write("one", batch(b"a" * 1000))
    if between:
        # Killed after the old file had gone aside and before the new one was there.
        file.rename(tmp_path / "x.older.pcapng")
    second = Capture(file, ring=1 << 17, append=True)
    for _ in range(10):
        second.write("one", batch(b"b" * 1000))
    first.close()
    second.close()
    assert [packet[:1] for _, _, packet in read(file.read_bytes())][-5:] == [b"b"] * 5
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1 << 17


@pytest.mark.parametrize("ring", [-1, 1, 1 << 16, "9", True])
def test_a_ring_that_is_none_is_refused(tmp_path: Path, points: Points, ring: object) -> None:
    with pytest.raises(ValueError, match="'ring' is 0 for no bound"):
        points.captures.start({"what": "here", "file": str(tmp_path / "x"), "ring": ring})  # type: ignore[dict-item]
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_cut_while_it_is_read_ends_there(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    capture = Capture(path)
    for number in range(1000):
        capture.write("port 3/1 in", batch(bytes([number % 256]) * 1000))
    capture.close()
    with path.open("rb") as file:
        packets = read_file(file)
        first = next(packets)
        os.truncate(path, 4096)
        rest = list(packets)
    assert first[0] == "port 3/1 in"
    # What was read ahead may still come; nothing that was cut away does, and nothing raises.
    assert len(rest) < 20
