"""Files of the flash: which names lead to one, and that no name, link or kill does harm."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.bus.engine import ToFlash
from chassis.config.parser import parse
from chassis.xcrp import flash_folder, flash_paths
from chassis.xcrp.flash_folder import FlashFolder, fill, read_folder
from chassis.xcrp.flash_paths import FlashPathError, boot_file, resolve, resolve_file, written

NEVER = "is not a valid path on a local file system"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ()),
        ("/flash", ()),
        ("/flash/", ()),
        ("a.cfg", ("a.cfg",)),
        ("/flash/a.cfg", ("a.cfg",)),
        ("old/a.cfg", ("old", "a.cfg")),
        ("/flash/old/", ("old",)),
        ("flash/a.cfg", ("flash", "a.cfg")),
    ],
)
def test_a_bare_name_is_in_the_flash(text: str, path: tuple[str, ...]) -> None:
    assert resolve(text) == path
    assert resolve(written(path)) == path


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/", NEVER),
        ("/etc/passwd", NEVER),
        ("..", NEVER),
        ("../a", NEVER),
        ("/flash/../a", NEVER),
        ("a/../../b", NEVER),
        ("/flash//a", NEVER),
        ("//flash/a", NEVER),
        (".", NEVER),
        (".hidden", NEVER),
        ("old/.hidden", NEVER),
        ("a b", NEVER),
        ("a\0b", NEVER),
        ("a\n", NEVER),
        ("ä.cfg", NEVER),
        ("a" * 129, NEVER),
        ("a/b/c/d/e/f/g", NEVER),
        ("/flashy/a", NEVER),
        ("/pcmcia0", "No such device"),
        ("/pcmcia1/", "No such device"),
        ("/md/a.cfg", "No such device"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(text: str, why: str) -> None:
    with pytest.raises(FlashPathError, match=why):
        resolve(text)


@pytest.mark.parametrize("text", ["", "/flash", "old/", "pki/local/keys/a.pem", "/flash/pki/local/self/a.pem"])
def test_folders_and_the_files_of_the_pki_are_no_files_to_work_on(text: str) -> None:
    with pytest.raises(FlashPathError):
        resolve_file(text)


PIECES = st.sampled_from(
    ["..", ".", "/", "flash", "/flash", "a", "b.cfg", "\\", "\0", "%2e", "~", " ", "link", "é"]
)


@given(
    st.lists(PIECES, max_size=8).map("".join) | st.lists(PIECES, max_size=6).map("/".join) | st.text(max_size=20)
)
def test_no_text_leads_out_of_the_flash(text: str) -> None:
    try:
        path = resolve(text)
    except FlashPathError:
        return
    root = Path("/flash")
    assert root in (root.joinpath(*path), *root.joinpath(*path).parents)
    assert os.path.normpath("/".join(("/flash", *path))) == "/".join(("/flash", *path))
    assert resolve(written(path)) == path


def test_the_boot_file_is_named_by_the_configuration() -> None:
    assert boot_file(parse("", "a").config) == "redback.cfg"
    assert boot_file(parse("boot configuration /flash/b.cfg\nboot configuration c.cfg\n", "a").config) == "c.cfg"


# the folder


@pytest.fixture
def flash(tmp_path: Path) -> FlashFolder:
    (tmp_path / "flash" / "old").mkdir(parents=True)
    return FlashFolder(tmp_path / "flash")


def work(flash: FlashFolder, operation: str, name: str, **more: Any) -> Any:
    return flash.perform(ToFlash(1, operation, resolve(name), **more))


def test_a_file_is_written_read_copied_listed_and_deleted(flash: FlashFolder) -> None:
    assert work(flash, "write", "a.cfg", data=b"one") == work(flash, "write", "old/b.cfg", data=b"")
    assert work(flash, "read", "a.cfg").data == b"one"
    assert (flash.folder / "a.cfg").stat().st_mode & 0o777 == 0o600
    answer = work(flash, "write", "a.cfg", data=b"two")
    assert (answer.exists, answer.error) == (True, "")
    assert work(flash, "read", "a.cfg").data == b"one"
    assert not work(flash, "write", "a.cfg", data=b"two", overwrite=True).exists
    assert work(flash, "copy", "a.cfg", target=resolve("old/b.cfg")).exists
    assert not work(flash, "copy", "a.cfg", target=resolve("old/b.cfg"), overwrite=True).exists
    assert work(flash, "read", "old/b.cfg").data == b"two"
    entries = work(flash, "list", "").entries
    assert [(entry.name, entry.octets, entry.folder) for entry in entries] == [
        ("a.cfg", 3, False),
        ("old", 0, True),
    ]
    assert [entry.name for entry in work(flash, "list", "old/b.cfg").entries] == ["b.cfg"]
    assert work(flash, "delete", "a.cfg").error == ""
    assert work(flash, "read", "a.cfg").missing
    assert os.listdir(flash.folder) == ["old"]


@pytest.mark.parametrize("operation", ["list", "read", "delete", "copy"])
def test_what_is_not_there_is_missing(flash: FlashFolder, operation: str) -> None:
    answer = work(flash, operation, "none.cfg", target=("x",))
    assert answer.missing
    assert answer.error == "Can't open /flash/none.cfg: No such file or directory"


def test_links_folders_and_devices_are_no_files(flash: FlashFolder, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("kept")
    (flash.folder / "link").symlink_to(secret)
    (flash.folder / "away").symlink_to(tmp_path)
    os.mkfifo(flash.folder / "pipe")
    for name in ("link", "away/secret", "old", "pipe"):
        answer = work(flash, "read", name)
        assert answer.error.startswith("Can't open "), name
        assert answer.data == b""
        for operation in ("write", "delete"):
            assert work(flash, operation, name, data=b"x", overwrite=True).error.startswith("Can't open "), name
    assert work(flash, "copy", "link", target=("new",)).error == "Can't open /flash/link: is a link"
    assert work(flash, "list", "away").error
    assert [entry.name for entry in work(flash, "list", "").entries] == ["old"]
    assert secret.read_text() == "kept"
    assert not (flash.folder / "new").exists()


def test_a_full_flash_says_so_and_changes_nothing(flash: FlashFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    work(flash, "write", "a.cfg", data=b"one")
    monkeypatch.setattr(flash_folder, "MAX_OCTETS", 5)
    assert "the flash is full" in work(flash, "write", "b.cfg", data=b"two").error
    monkeypatch.undo()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    answer = work(flash, "write", "a.cfg", data=b"two", overwrite=True)
    assert answer.error == "Can't write /flash/a.cfg: No space left on device"
    copied = work(flash, "copy", "a.cfg", target=("b.cfg",))
    assert copied.error == "Can't write /flash/b.cfg: No space left on device"
    assert sorted(os.listdir(flash.folder)) == ["a.cfg", "old"]
    assert work(flash, "read", "a.cfg").data == b"one"


class _KilledHere(BaseException):
    """The process ended."""


def test_a_kill_at_any_system_call_leaves_the_old_or_the_new_file(flash: FlashFolder) -> None:
    calls = ("open", "stat", "unlink", "fsync", "rename", "close", "listdir", "lstat")
    moment, contents = 0, set()
    while True:
        work(flash, "write", "a.cfg", data=b"old", overwrite=True)
        left = moment
        with pytest.MonkeyPatch.context() as patch:
            for name in calls:
                real = getattr(os, name)

                def dying(*arguments: Any, real: Any = real, **more: Any) -> Any:
                    nonlocal left
                    if left == 0:
                        raise _KilledHere
                    left -= 1
                    return real(*arguments, **more)

                patch.setattr(os, name, dying)
            try:
                answer = work(flash, "write", "a.cfg", data=b"new, and longer", overwrite=True)
                ended = True
                assert not answer.error
            except _KilledHere:
                ended = False
        held = (flash.folder / "a.cfg").read_bytes()
        contents.add(held)
        assert held in (b"old", b"new, and longer")
        if ended:
            assert held == b"new, and longer"
            break
        moment += 1
    assert contents == {b"old", b"new, and longer"}
    assert moment > 8
    # What a killed process left is not listed, and goes with the next write.
    assert [entry.name for entry in work(flash, "list", "").entries] == ["a.cfg", "old"]
    assert sorted(os.listdir(flash.folder)) == ["a.cfg", "old"]


# the first start


def test_the_flash_is_filled_once(tmp_path: Path) -> None:
    source, folder = tmp_path / "lab", tmp_path / "state" / "flash"
    (source / "pki" / "local" / "keys").mkdir(parents=True)
    folder.parent.mkdir()
    (source / "a.cfg").write_text("one")
    (source / "pki" / "local" / "keys" / "a.pem").write_text("key")
    (source / "linked.cfg").symlink_to(source / "a.cfg")
    (source / "away").symlink_to(tmp_path)
    os.mkfifo(source / "pipe")
    # An earlier controller was killed meanwhile.
    (folder.parent / "flash.new" / "half").mkdir(parents=True)
    fill(folder, source)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "a.cfg", "linked.cfg", "pki/local/keys/a.pem"
    ]  # fmt: skip
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert [file.path for file in read_folder(folder)] == ["pki/local/keys/a.pem"]
    assert not read_folder(folder)[0].exposed
    (source / "a.cfg").write_text("two")
    fill(folder, source)
    assert (folder / "a.cfg").read_text() == "one"


def test_a_flash_without_a_source_is_empty(tmp_path: Path) -> None:
    fill(tmp_path / "flash", None)
    assert os.listdir(tmp_path / "flash") == []
    assert FlashFolder(tmp_path / "flash").perform(ToFlash(1, "list", ())).entries == ()


def test_a_source_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "a").write_text("four")
    monkeypatch.setattr(flash_folder, "MAX_OCTETS", 3)
    with pytest.raises(OSError, match="a flash has at most"):
        fill(tmp_path / "flash", tmp_path / "lab")
    monkeypatch.undo()
    fill(tmp_path / "flash", tmp_path / "lab")
    assert (tmp_path / "flash" / "a").read_text() == "four"


def test_hidden_names_are_those_of_incomplete_files() -> None:
    with pytest.raises(FlashPathError):
        flash_paths.resolve(flash_folder.NEW + "a.cfg")


def _make_and_die(folder: Path, call: str) -> None:
    """Make a key pair as the controller does, and be killed at the first use of a call."""
    setattr(os, call, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    FlashFolder(folder).perform(
        ToFlash(1, "key-pair", ("pki", "local", "keys", "k.pem"), data=b"password", bits=512)
    )


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_controller_that_is_killed_leaves_no_half_of_a_key_pair(tmp_path: Path, call: str) -> None:
    child = multiprocessing.get_context("fork").Process(target=_make_and_die, args=(tmp_path, call))
    child.start()
    child.join(20)
    assert child.exitcode == -signal.SIGKILL
    assert [path.name for path in tmp_path.rglob("*.pem")] == [".new.k.pem"]
    assert read_folder(tmp_path) == ()
    FlashFolder(tmp_path).remove_unfinished()
    assert list(tmp_path.rglob("*.pem")) == []
