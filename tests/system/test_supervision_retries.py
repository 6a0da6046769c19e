"""What the machine does not allow is an event for the launcher and tried again; a launcher that crashes leaves its
log."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from chassis.bus.operator import OperatorError
from launch.lab.parser import load
from launch.run_folders import Folders
from launch.supervisor.supervisor import Supervisor
from tests.support.processes import FakeLauncher, eventually


def failures(fake: FakeLauncher) -> list[str]:
    """What the launcher says could not be done; nothing of one that is gone."""
    try:
        events = fake.call("events")["events"]
    except OperatorError:
        return []
    return [event["text"] for event in events if event["what"] == "failed"]


def made(folder: Path) -> bool:
    """Whether this made a folder; no while the launcher is writing a file of that name."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


@pytest.mark.multiprocess
def test_a_card_that_can_not_be_started_is_started_when_that_is_possible(fake: FakeLauncher) -> None:
    pid = fake.call("ps")["launcher"]
    # The boot number can't be written.
    eventually(lambda: made(fake.state / "a" / "boots.json.tmp"), "a folder has the name of the file")
    fake.call("kill", node="a", card="lc 3")
    fake.call("kill", node="a", card="xcrp")
    eventually(lambda: len(failures(fake)) == 2, "the launcher says so and lives")
    assert all("cannot be started" in text and "trying again" in text for text in failures(fake))
    (fake.state / "a" / "boots.json.tmp").rmdir()
    eventually(lambda: fake.row("a", "lc 3")["state"] == "running", "lc 3 is started")
    eventually(lambda: fake.row("a", "xcrp")["state"] == "running", "the controller is started")
    assert fake.call("ps")["launcher"] == pid
    assert len(failures(fake)) == 2, "said once, not with every try"


@pytest.mark.multiprocess
def test_facts_that_can_not_be_written_are_written_later(fake: FakeLauncher) -> None:
    eventually(lambda: made(fake.run / "lab.json.tmp"), "a folder has the name of the file")
    with contextlib.suppress(OperatorError):
        fake.call("kill", node="a", card="lc 3")
    eventually(lambda: any("lab.json" in text for text in failures(fake)), "the launcher says so and lives")
    fake.running("a", "lc 3", 2)
    (fake.run / "lab.json.tmp").rmdir()
    eventually(lambda: fake.facts()["nodes"]["a"]["cards"]["lc 3"]["boot"] == 2, "lab.json says so")


def test_a_launcher_that_crashes_leaves_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHASSIS_RUN", str(tmp_path / "r"))
    monkeypatch.setenv("CHASSIS_STATE", str(tmp_path / "s"))
    (tmp_path / "lab.yaml").write_text("name: c\ntopology: {nodes: {a: {kind: smartedge, config: a.cfg}}}\n")
    (tmp_path / "a.cfg").write_text("context local\n")
    lab, _ = load(tmp_path / "lab.yaml")
    folders = Folders("c", lab.nodes)
    (folders.run / "launcher.log").write_text("what it said before\n")
    supervisor = Supervisor(lab, folders, {}, {"a": ()}, {"a": ("", "a.cfg")})

    def crash() -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(supervisor, "_start", crash)
    with pytest.raises(RuntimeError, match="planted"):
        supervisor.run()
    assert not folders.run.exists()
    log = folders.state / "launcher.log"
    text = log.read_text() if log.exists() else ""
    assert text.startswith("what it said before\n")
    assert "RuntimeError: planted" in text
