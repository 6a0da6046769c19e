"""A real controller is killed at ten moments of saves: the file is the old or the new one, and whole."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chassis.bus import endpoints
from chassis.bus.operator import OperatorClient, OperatorError
from tests.support.lab_files import CALM, MANUAL_KEYS

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

MOMENTS = 10


class Saver:
    """Saves the configuration of `a` again and again, until its controller is gone."""

    def __init__(self, lab: LabClient) -> None:
        assert lab.run is not None
        self._path = endpoints.operator(lab.run, "a")
        self.saved = 0
        self.begun = threading.Event()
        self._thread = threading.Thread(target=self._save, daemon=True)
        self._thread.start()

    def _save(self) -> None:
        with contextlib.suppress(OperatorError, OSError), OperatorClient(self._path, 10.0) as client:
            while True:
                client.call("save", overwrite=True, file="a.cfg")
                self.saved += 1
                self.begun.set()

    def end(self) -> None:
        self._thread.join(20.0)
        assert not self._thread.is_alive()


def test_a_controller_killed_while_it_saves_leaves_a_whole_file(lab_factory: LabFactory) -> None:
    lab = lab_factory(MANUAL_KEYS, flows=CALM, settings={"restart-delay": 0})
    assert lab.folder is not None
    file: Path = lab.folder / "s" / "manual-keys" / "a" / "flash" / "a.cfg"
    whole: set[str] = set()
    for moment in range(MOMENTS):
        lines = f"port ethernet 3/1\n description moment-{moment}\n"
        assert lab.node("a").call("commit", lines=lines, user="test")["applied"]
        # A file is of this moment, or of the one before.
        whole.add(str(lab.node("a").call("config", keys=False)["text"]))
        boot = lab.node("a").status()["boot"]
        pid = next(row["pid"] for row in _processes(lab) if (row["node"], row["card"]) == ("a", "xcrp"))
        saver = Saver(lab)
        if moment % 2:
            assert saver.begun.wait(20.0)
        os.kill(pid, signal.SIGKILL)
        saver.end()
        lab.wait_until(lambda boot=boot: lab.node("a").status()["boot"] > boot, within=60)  # type: ignore[misc]
        if file.exists():
            assert file.read_text() in whole
        if saver.saved:
            assert f"description moment-{moment}\n" in file.read_text()
        assert f"description moment-{moment}\n" in lab.node("a").call("config", keys=False)["text"]
    assert not lab.node("a").call("save", overwrite=True, file="a.cfg")["exists"]
    assert sorted(path.name for path in file.parent.iterdir()) == ["a.cfg"]


def _processes(lab: LabClient) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = lab.ask("", "ps", {})["processes"]
    return rows
