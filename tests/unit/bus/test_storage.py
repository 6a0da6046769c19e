"""Files of state are written whole and synced, or left as they were; what is mapped has its room on disk."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chassis.bus import environment
from chassis.bus.engine import Append, Persist, ToFlash
from chassis.bus.environment import Environment
from chassis.xcrp.shell import ControllerShell
from launch.run_folders import write_private

LINES = b"".join(b'{"number": %d}\n' % number for number in range(500))


@pytest.fixture
def shell() -> Iterator[ControllerShell]:
    """A controller's shell that does not run, in folders of its own: a socket's path is short."""
    with tempfile.TemporaryDirectory(prefix="st") as name:
        run, state = Path(name) / "run", Path(name) / "state"
        run.mkdir()
        state.mkdir()
        made = ControllerShell(Environment("lab", "a", "xcrp", 1, run, state, startup=("card ase 2\n", "a.cfg")))
        made.engine.on_stored = lambda file, error, now: []  # type: ignore[method-assign]
        yield made
        made.context.destroy(linger=0)


def some_at_a_time(monkeypatch: pytest.MonkeyPatch, octets: int, room: float = float("inf")) -> None:
    """The disk takes no more than so many octets with a write, and has room for `room` of them."""
    usual, left = os.write, [room]

    def write(fd: int, data: bytes | memoryview) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = usual(fd, bytes(data)[: int(min(octets, left[0]))])
        left[0] -= taken
        return taken

    monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize("kind", [Append, Persist])
def test_a_write_that_takes_a_part_goes_on(
    kind: Callable[[str, bytes], Append | Persist], shell: ControllerShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        some_at_a_time(patch, 4096)
        shell.perform([kind("journal", LINES)])
    assert (shell.env.state / "journal").read_bytes() == LINES


def test_an_append_without_room_is_cut_back(shell: ControllerShell, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = shell.env.state / "journal"
    journal.write_bytes(b"first\n")
    with monkeypatch.context() as patch, contextlib.suppress(OSError):
        some_at_a_time(patch, 4096, room=5000)
        shell.perform([Append("journal", LINES)])
    assert journal.read_bytes() == b"first\n"
    shell.perform([Append("journal", b"second\n")])
    assert journal.read_bytes() == b"first\nsecond\n"


def test_a_line_is_not_lost_behind_one_that_has_no_end(shell: ControllerShell) -> None:
    journal = shell.env.state / "journal"
    journal.write_bytes(b"first\nsec")
    shell.perform([Append("journal", b"third\n")])
    assert journal.read_bytes().split(b"\n") == [b"first", b"sec", b"third", b""]


def test_a_file_without_room_stays_as_it_was(shell: ControllerShell, monkeypatch: pytest.MonkeyPatch) -> None:
    leases = shell.env.state / "leases.json"
    leases.write_bytes(b"{}")
    with monkeypatch.context() as patch, contextlib.suppress(OSError):
        some_at_a_time(patch, 4096, room=5000)
        shell.perform([Persist("leases.json", LINES)])
    assert leases.read_bytes() == b"{}"
    files = [path.name for path in shell.env.state.iterdir() if path.is_file()]
    assert files == ["leases.json"], "what is left over takes room"


def test_a_flash_that_can_not_be_made_is_told_and_made_later(
    shell: ControllerShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    flash = shell.env.state / "flash"
    assert flash.is_dir()
    flash.rmdir()

    def full(folder: Path, source: Path | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("chassis.xcrp.shell.fill", full)
        (problem,) = shell._flash()
        assert problem.error == "the flash can't be made: No space left on device"
        answer = shell._flash_folder.perform(ToFlash(1, "write", ("a.cfg",), b"x"))
        assert answer.error == "Can't open /flash/a.cfg: No such file or directory"
    assert shell._flash() == ()
    assert not shell._flash_folder.perform(ToFlash(1, "write", ("a.cfg",), b"x")).error


def test_the_launchers_files_are_on_disk_with_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    usual = os.fsync

    def fsync(fd: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        usual(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    write_private(tmp_path / "boots.json", "{}")
    assert synced == ["boots.json.tmp", tmp_path.name]


def test_a_mapped_file_has_all_of_its_room(tmp_path: Path) -> None:
    environment.map_file(tmp_path / "asp-1-1.sa", 1 << 20)
    assert (tmp_path / "asp-1-1.sa").stat().st_blocks * 512 >= 1 << 20, "a store into it may be a SIGBUS"
