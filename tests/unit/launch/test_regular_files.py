"""What a user names for us to read is a regular file, or refused: a pipe would wait, a device would never end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chassis.xcrp import shell
from launch import checking, main
from launch.ctl.main import main as chassisctl
from tests.support import odd


@pytest.fixture(params=["pipe", "device"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """What is no regular file; who waits for it gives up after two seconds."""
    path = tmp_path / "pki" / "a" / "keys" / "x.pem"
    path.parent.mkdir(parents=True)
    if request.param == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")

    def give_up(*_: object) -> None:
        raise TimeoutError("it was waited for, or read without end")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 2.0)
    yield path
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, before)


def invoked(command: Any, *arguments: str) -> str:
    result = CliRunner().invoke(command, list(arguments))
    assert not isinstance(result.exception, TimeoutError), arguments
    assert result.exit_code == 1
    return result.output


def test_a_configuration(file: Path) -> None:
    parsed = odd.survived(checking.read_config, file)
    assert [(found.severity, found.line, found.column) for found in parsed.diagnostics] == [("error", 1, 1)]
    assert "not a regular file" in parsed.diagnostics[0].message


def test_a_certificate_or_a_key(file: Path) -> None:
    (found,) = odd.survived(shell.read_folder, file.parents[3])
    assert (found.data, "not a regular file" in found.error) == (b"", True)


def test_a_lab(file: Path) -> None:
    assert "not a regular file" in invoked(main.main, "check", str(file))


def test_a_record(file: Path) -> None:
    assert "not a regular file" in invoked(chassisctl, "bus", "--replay", str(file))


def test_a_configuration_that_is_applied(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.ctl.base.RunningLab.find", lambda name: None)
    assert "not a regular file" in invoked(chassisctl, "apply", "a", str(file))


def test_a_capture_that_is_injected(file: Path) -> None:
    from chassis.ports.shell import PortDrivers

    ports = PortDrivers.__new__(PortDrivers)
    ports.drivers = {"1": object()}  # type: ignore[dict-item]

    def replay() -> str:
        try:
            next(ports._replay({"port": "1", "file": str(file), "seconds": 0}))
        except OSError as error:
            return str(error)
        return ""

    assert "not a regular file" in odd.survived(replay)
