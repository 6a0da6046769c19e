"""The launcher's processes, with stand-ins: born, killed, hung, restarted, ended, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path

import pytest

from chassis.bus.operator import OperatorError
from launch.run_folders import FolderError, Folders, running, sweep
from launch.supervisor.processes import CONTROLLER_SILENCE_TIMEOUT
from tests.support.processes import FakeLauncher, eventually, lives

pytestmark = pytest.mark.multiprocess


def test_every_process_is_told_who_it_is(fake: FakeLauncher) -> None:
    rows = fake.call("ps")["processes"]
    assert [(row["node"], row["card"]) for row in rows] == [
        ("a", "xcrp"),
        ("a", "lc 3"),
        ("a", "asp 1/1"),
        ("b", "xcrp"),
        ("b", "lc 3"),
        ("b", "asp 1/1"),
    ]
    titles = [Path(f"/proc/{row['pid']}/cmdline").read_text().strip("\0 ") for row in rows]
    assert titles[2] == "chassis a asp 1/1"
    told = json.loads((fake.run / "a.lc3.told").read_text())
    assert told["wires"] == ["3/1"]
    assert told["settings"]["restart-delay"] == 0.02
    assert fake.controller("a", "status")["startup"] == ["context local\n", "a.cfg"]
    started = {"what": "started", "card": "lc 3", "boot": 1, "pid": rows[1]["pid"]}
    eventually(lambda: started in fake.heard("a"), "the controller was told of lc 3")


def test_folders_and_files_are_their_owners_alone(fake: FakeLauncher) -> None:
    for folder in (fake.run, fake.state, fake.state / "a"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in (fake.run / "lab.json", fake.run / "a.lc3.log", fake.state / "a" / "boots.json"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((fake.run / "launcher.sock").stat().st_mode) == 0o600


def test_a_terminal_signals_no_card_and_all_cards_share_the_cores_as_one(fake: FakeLauncher) -> None:
    said = fake.call("ps")
    pids = [row["pid"] for row in said["processes"]]
    # Ctrl-C goes to the launcher's process group. Sessions may have their shares of the cores, where nice values
    # and slices count only within one.
    assert [os.getpgid(pid) for pid in pids] == pids
    assert {os.getsid(pid) for pid in pids} == {os.getsid(said["launcher"])}


def test_a_killed_card_comes_back_under_a_new_boot_number(fake: FakeLauncher) -> None:
    pid = fake.row("a", "asp 1/1")["pid"]
    os.kill(pid, signal.SIGKILL)
    row = fake.running("a", "asp 1/1", 2)
    assert row["pid"] != pid
    assert row["ended"] == "killed by SIGKILL"
    assert json.loads((fake.state / "a" / "boots.json").read_text())["asp 1/1"] == 2
    told = [message for message in fake.heard("a") if message["card"] == "asp 1/1"]
    assert [(message["what"], message["boot"]) for message in told] == [
        ("started", 1),
        ("died", 1),
        ("started", 2),
    ]
    assert all(message["card"] != "asp 1/1" or message["boot"] == 1 for message in fake.heard("b"))
    eventually(lambda: fake.facts()["nodes"]["a"]["cards"]["asp 1/1"]["boot"] == 2, "lab.json says so")


@pytest.mark.parametrize("fake", ["never"], indirect=True)
def test_a_card_that_is_never_to_come_back_stays_dead_until_an_operator_restarts_it(fake: FakeLauncher) -> None:
    fake.call("kill", node="a", card="lc 3")
    eventually(lambda: fake.row("a", "lc 3")["state"] == "dead", "lc 3 is dead")
    with pytest.raises(OperatorError, match=r"a lc 3 is already dead \(killed by SIGKILL\)"):
        fake.call("kill", node="a", card="lc 3")
    fake.call("restart", node="a", card="lc 3")
    assert fake.running("a", "lc 3", 2)["starts"] == 2
    fake.call("restart", node="a", card="lc 3")
    fake.running("a", "lc 3", 3)


def test_stop_and_continue(fake: FakeLauncher) -> None:
    pid = fake.row("b", "lc 3")["pid"]
    fake.call("stop", node="b", card="lc 3")

    def state() -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    eventually(lambda: state() == "T", "the process is stopped")
    assert fake.row("b", "lc 3")["state"] == "stopped"
    fake.call("continue", node="b", card="lc 3")
    eventually(lambda: state() == "S", "the process goes on")


def test_a_controller_has_a_hung_card_killed_but_only_the_start_that_it_means(fake: FakeLauncher) -> None:
    first = fake.row("a", "lc 3")["pid"]
    fake.controller("a", "say", what="kill", card="lc 3", boot=7, why="hung")
    fake.controller("a", "say", what="kill", card="asp 1/1", boot=1, why="hung")
    fake.running("a", "asp 1/1", 2)
    assert fake.row("a", "lc 3")["pid"] == first
    texts = [event["text"] for event in fake.call("events")["events"]]
    assert "asp 1/1 hung: killed: hung" in texts


def test_a_controller_that_is_silent_is_killed_and_its_successor_hears_of_every_card(fake: FakeLauncher) -> None:
    fake.controller("a", "hush")
    fake.running("a", "xcrp", 2)
    assert fake.row("a", "lc 3")["boot"] == 1
    started = eventually(lambda: fake.heard("a"), "the new controller was told of the cards")
    assert sorted((message["what"], message["card"]) for message in started) == [
        ("started", "asp 1/1"),
        ("started", "lc 3"),
    ]


def test_a_controller_that_works_is_not_taken_for_a_hung_one(fake: FakeLauncher) -> None:
    eventually(lambda: fake.row("a", "xcrp")["state"] == "running", "the controller runs")
    fake.controller("a", "work", seconds=2.2 * CONTROLLER_SILENCE_TIMEOUT)
    assert fake.controller("a", "status")["cards"]
    assert fake.row("a", "xcrp")["boot"] == 1


def test_a_changed_configuration_changes_the_processes(fake: FakeLauncher) -> None:
    gone = fake.row("a", "asp 1/1")["pid"]
    fake.controller("a", "say", what="cards", cards={"lc 3": "linecard", "lc 4": "linecard"})
    fake.running("a", "lc 4", 1)
    eventually(lambda: not lives(gone), "the card that is no more has ended")
    eventually(lambda: not fake.row("a", "asp 1/1"), "its slot is gone")
    assert fake.row("a", "lc 3")["boot"] == 1


def test_sigterm_ends_everything_and_keeps_the_state(fake: FakeLauncher) -> None:
    pids = fake.pids()
    fake.call("stop", node="a", card="lc 3")
    fake.process.send_signal(signal.SIGTERM)
    assert fake.process.wait(20) == 0
    assert not [pid for pid in pids if lives(pid)]
    assert not fake.run.exists()
    assert json.loads((fake.state / "a" / "boots.json").read_text())["xcrp"] == 1
    fake.start()
    assert fake.row("a", "xcrp")["boot"] == 2


def test_destroy_deletes_the_state(fake: FakeLauncher) -> None:
    assert fake.call("destroy") == {"destroyed": "s"}
    assert fake.process.wait(20) == 0
    assert not fake.run.exists()
    assert not fake.state.exists()


def test_a_killed_launcher_leaves_no_process_and_its_folder_is_swept(
    fake: FakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = fake.pids()
    fake.process.kill()
    fake.process.wait(20)
    eventually(lambda: not [pid for pid in pids if lives(pid)], "every process has ended")
    monkeypatch.setenv("CHASSIS_RUN", fake.environment["CHASSIS_RUN"])
    assert fake.run.exists()
    assert running() == []
    assert sweep(fake.run.parent) == ["s"]
    assert not fake.run.exists()


def test_a_running_labs_name_is_taken(fake: FakeLauncher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHASSIS_RUN", fake.environment["CHASSIS_RUN"])
    monkeypatch.setenv("CHASSIS_STATE", fake.environment["CHASSIS_STATE"])
    assert [lab.name for lab in running()] == ["s"]
    with pytest.raises(FolderError, match="a lab 's' already runs; end it with 'chassis-launch destroy s'"):
        Folders("s", ["a"])
    other = Folders("t", ["a"])
    assert fake.run.exists()
    other.close()
    assert not other.run.exists()


def test_refusals_say_what_there_is(fake: FakeLauncher) -> None:
    for node, card, said in (
        ("c", "lc 3", "'c' is not a node of this lab; nodes: a, b"),
        ("a", "lc 9", "'lc 9' is not a card of a; cards: xcrp, lc 3, asp 1/1"),
    ):
        with pytest.raises(OperatorError, match=said):
            fake.call("kill", node=node, card=card)
    with pytest.raises(OperatorError, match="the launcher does not know 'dance'"):
        fake.call("dance")
    status = fake.call("status")
    assert (status["missing"], list(status["nodes"])) == ([], ["a", "b"])


def test_a_run_folder_that_is_too_long_for_sockets_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHASSIS_RUN", str(tmp_path / ("r" * 100)))
    monkeypatch.setenv("CHASSIS_STATE", str(tmp_path / "s"))
    with pytest.raises(FolderError, match="bytes too long for the sockets in it; set CHASSIS_RUN"):
        Folders("fake", ["router"])
