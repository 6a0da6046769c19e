"""Files that are written for somebody: new ones, and what stands there is left alone or replaced."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from chassis.bus.capture import Capture
from launch.client.running_lab import RunningLab
from launch.ctl import bus_commands
from launch.ctl.main import main as chassisctl
from launch.main import main as launch
from tests.support import CONFIGS

Write = Callable[[Path], str]


class OneLab:
    """A lab with one router that has one IKE SA, and no message on its bus."""

    name = "mine"
    nodes = {"a": {"kind": "smartedge"}}  # noqa: RUF012

    def routers(self) -> list[str]:
        return ["a"]

    def node(self, name: str, command: str, /, **arguments: object) -> object:
        key = {"kind": "ikev1", "cookie_i": "c0ffee", "key": "5ec2e7"}
        return {"cards": {"asp 1/1": {"keys": [key]}}, "errors": {}}


@pytest.fixture(params=["capture", "record", "keys", "graph"])
def write(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Has a file written by one of those who do, and returns what was said."""
    monkeypatch.setattr(RunningLab, "find", lambda name: OneLab())
    monkeypatch.setattr(bus_commands, "_passing", lambda *_: iter(()))
    lab = CONFIGS / "manual-keys" / "lab.yaml"

    def capture(path: Path) -> str:
        try:
            Capture(path).close()
        except OSError as error:
            return str(error.strerror)
        return ""

    return {
        "capture": capture,
        "record": lambda path: CliRunner().invoke(chassisctl, ["bus", "--record", str(path)]).output,
        "keys": lambda path: CliRunner().invoke(chassisctl, ["keys", "a", "--file", str(path)]).output,
        "graph": lambda path: CliRunner().invoke(launch, ["graph", str(lab), "-o", str(path)]).output,
    }[request.param]


def test_whoever_has_the_old_file_open_sees_nothing_of_the_new(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    path.chmod(0o666)
    with path.open() as reader:
        said = write(path)
        assert path.read_bytes() not in (b"", b"old"), said
        assert reader.read() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_secrets_are_for_their_owner_alone(tmp_path: Path, write: Write, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    path.chmod(0o666)
    mask = os.umask(0o022)
    try:
        write(path)
    finally:
        os.umask(mask)
    plain = request.node.callspec.params["write"] == "graph"
    assert stat.S_IMODE(path.stat().st_mode) == (0o644 if plain else 0o600)


def test_a_link_is_not_followed(tmp_path: Path, write: Write) -> None:
    target = tmp_path / "precious"
    target.write_text("years of work")
    path = tmp_path / "out"
    for to in (target, tmp_path / "not-yet"):
        path.unlink(missing_ok=True)
        path.symlink_to(to)
        said = write(path)
        assert path.is_symlink()
        assert target.read_bytes() == b"years of work"
        assert not (tmp_path / "not-yet").exists()
        assert "is a symbolic link" in said


def test_what_is_no_file_stays(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "out"
    path.mkdir()
    write(path)
    assert os.listdir(tmp_path) == ["out"]
    assert path.is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, write: Write) -> None:
    path = tmp_path / "out"
    path.write_text("theirs")
    os.chown(path, 12345, 12345)
    said = write(path)
    assert (path.read_text(), path.stat().st_uid) == ("theirs", 12345)
    assert "belongs to another user" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a pipe away")
def test_a_pipe_of_somebody_else_gets_no_packets(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    os.chown(path, 12345, 12345)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="belongs to another user"):
        Capture(path)
    assert os.read(reader, 100) == b""
    os.close(reader)
