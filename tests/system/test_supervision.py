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
from tests.support.processes import StandIn, eventually, lives

pytestmark = pytest.mark.multiprocess


def test_every_process_is_told_who_it_is(stand_in: StandIn) -> None:
    rows = stand_in.call("ps")["processes"]
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
    told = json.loads((stand_in.run / "a.lc3.told").read_text())
    assert told["wires"] == ["3/1"]
    assert told["settings"]["restart-delay"] == 0.02
    assert stand_in.controller("a", "status")["startup"] == ["context local\n", "a.cfg"]
    started = {"what": "started", "card": "lc 3", "boot": 1, "pid": rows[1]["pid"]}
    eventually(lambda: started in stand_in.heard("a"), "the controller was told of lc 3")


def test_folders_and_files_are_their_owners_alone(stand_in: StandIn) -> None:
    for folder in (stand_in.run, stand_in.state, stand_in.state / "a"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in (stand_in.run / "lab.json", stand_in.run / "a.lc3.log", stand_in.state / "a" / "boots.json"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((stand_in.run / "launcher.sock").stat().st_mode) == 0o600


def test_a_terminal_signals_no_card_and_all_cards_share_the_cores_as_one(stand_in: StandIn) -> None:
    said = stand_in.call("ps")
    pids = [row["pid"] for row in said["processes"]]
    # Ctrl-C goes to the launcher's process group. Sessions may have their shares of the cores, where nice values
    # and slices count only within one.
    assert [os.getpgid(pid) for pid in pids] == pids
    assert {os.getsid(pid) for pid in pids} == {os.getsid(said["launcher"])}


def test_a_killed_card_comes_back_under_a_new_boot_number(stand_in: StandIn) -> None:
    pid = stand_in.row("a", "asp 1/1")["pid"]
    os.kill(pid, signal.SIGKILL)
    row = stand_in.running("a", "asp 1/1", 2)
    assert row["pid"] != pid
    assert row["ended"] == "killed by SIGKILL"
    assert json.loads((stand_in.state / "a" / "boots.json").read_text())["asp 1/1"] == 2
    told = [message for message in stand_in.heard("a") if message["card"] == "asp 1/1"]
    assert [(message["what"], message["boot"]) for message in told] == [
        ("started", 1),
        ("died", 1),
        ("started", 2),
    ]
    assert all(message["card"] != "asp 1/1" or message["boot"] == 1 for message in stand_in.heard("b"))
    eventually(lambda: stand_in.facts()["nodes"]["a"]["cards"]["asp 1/1"]["boot"] == 2, "lab.json says so")


@pytest.mark.parametrize("stand_in", ["never"], indirect=True)
def test_a_card_that_is_never_to_come_back_stays_dead_until_an_operator_restarts_it(stand_in: StandIn) -> None:
    stand_in.call("kill", node="a", card="lc 3")
    eventually(lambda: stand_in.row("a", "lc 3")["state"] == "dead", "lc 3 is dead")
    with pytest.raises(OperatorError, match=r"a lc 3 is dead already \(killed by SIGKILL\)"):
        stand_in.call("kill", node="a", card="lc 3")
    stand_in.call("restart", node="a", card="lc 3")
    assert stand_in.running("a", "lc 3", 2)["starts"] == 2
    stand_in.call("restart", node="a", card="lc 3")
    stand_in.running("a", "lc 3", 3)


def test_stop_and_continue(stand_in: StandIn) -> None:
    pid = stand_in.row("b", "lc 3")["pid"]
    stand_in.call("stop", node="b", card="lc 3")

    def state() -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    eventually(lambda: state() == "T", "the process is stopped")
    assert stand_in.row("b", "lc 3")["state"] == "stopped"
    stand_in.call("continue", node="b", card="lc 3")
    eventually(lambda: state() == "S", "the process goes on")


def test_a_controller_has_a_hung_card_killed_but_only_the_start_that_it_means(stand_in: StandIn) -> None:
    first = stand_in.row("a", "lc 3")["pid"]
    stand_in.controller("a", "say", what="kill", card="lc 3", boot=7, why="hung")
    stand_in.controller("a", "say", what="kill", card="asp 1/1", boot=1, why="hung")
    stand_in.running("a", "asp 1/1", 2)
    assert stand_in.row("a", "lc 3")["pid"] == first
    texts = [event["text"] for event in stand_in.call("events")["events"]]
    assert "asp 1/1 hung: killed: hung" in texts


def test_a_controller_that_is_silent_is_killed_and_its_successor_hears_of_every_card(stand_in: StandIn) -> None:
    stand_in.controller("a", "hush")
    stand_in.running("a", "xcrp", 2)
    assert stand_in.row("a", "lc 3")["boot"] == 1
    started = eventually(lambda: stand_in.heard("a"), "the new controller was told of the cards")
    assert sorted((message["what"], message["card"]) for message in started) == [
        ("started", "asp 1/1"),
        ("started", "lc 3"),
    ]


def test_a_controller_that_works_is_not_taken_for_a_hung_one(stand_in: StandIn) -> None:
    eventually(lambda: stand_in.row("a", "xcrp")["state"] == "running", "the controller runs")
    stand_in.controller("a", "work", seconds=2.2 * CONTROLLER_SILENCE_TIMEOUT)
    assert stand_in.controller("a", "status")["cards"]
    assert stand_in.row("a", "xcrp")["boot"] == 1


def test_a_changed_configuration_changes_the_processes(stand_in: StandIn) -> None:
    gone = stand_in.row("a", "asp 1/1")["pid"]
    stand_in.controller("a", "say", what="cards", cards={"lc 3": "linecard", "lc 4": "linecard"})
    stand_in.running("a", "lc 4", 1)
    eventually(lambda: not lives(gone), "the card that is no more has ended")
    eventually(lambda: not stand_in.row("a", "asp 1/1"), "its slot is gone")
    assert stand_in.row("a", "lc 3")["boot"] == 1


def test_sigterm_ends_everything_and_keeps_the_state(stand_in: StandIn) -> None:
    pids = stand_in.pids()
    stand_in.call("stop", node="a", card="lc 3")
    stand_in.process.send_signal(signal.SIGTERM)
    assert stand_in.process.wait(20) == 0
    assert not [pid for pid in pids if lives(pid)]
    assert not stand_in.run.exists()
    assert json.loads((stand_in.state / "a" / "boots.json").read_text())["xcrp"] == 1
    stand_in.start()
    assert stand_in.row("a", "xcrp")["boot"] == 2


def test_destroy_deletes_the_state(stand_in: StandIn) -> None:
    assert stand_in.call("destroy") == {"destroyed": "s"}
    assert stand_in.process.wait(20) == 0
    assert not stand_in.run.exists()
    assert not stand_in.state.exists()


def test_a_killed_launcher_leaves_no_process_and_its_folder_is_swept(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = stand_in.pids()
    stand_in.process.kill()
    stand_in.process.wait(20)
    eventually(lambda: not [pid for pid in pids if lives(pid)], "every process has ended")
    monkeypatch.setenv("CHASSIS_RUN", stand_in.environment["CHASSIS_RUN"])
    assert stand_in.run.exists()
    assert running() == []
    assert sweep(stand_in.run.parent) == ["s"]
    assert not stand_in.run.exists()


def test_a_running_labs_name_is_taken(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHASSIS_RUN", stand_in.environment["CHASSIS_RUN"])
    monkeypatch.setenv("CHASSIS_STATE", stand_in.environment["CHASSIS_STATE"])
    assert [lab.name for lab in running()] == ["s"]
    with pytest.raises(FolderError, match="a lab 's' runs already; end it with 'chassis-launch destroy s'"):
        Folders("s", ["a"])
    other = Folders("t", ["a"])
    assert stand_in.run.exists()
    other.close()
    assert not other.run.exists()


def test_refusals_say_what_there_is(stand_in: StandIn) -> None:
    for node, card, said in (
        ("c", "lc 3", "there is no node 'c': there are a, b"),
        ("a", "lc 9", "a has no card 'lc 9': it has xcrp, lc 3, asp 1/1"),
    ):
        with pytest.raises(OperatorError, match=said):
            stand_in.call("kill", node=node, card=card)
    with pytest.raises(OperatorError, match="the launcher does not know 'dance'"):
        stand_in.call("dance")
    status = stand_in.call("status")
    assert (status["missing"], list(status["nodes"])) == ([], ["a", "b"])


def test_a_run_folder_that_is_too_long_for_sockets_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHASSIS_RUN", str(tmp_path / ("r" * 100)))
    monkeypatch.setenv("CHASSIS_STATE", str(tmp_path / "s"))
    with pytest.raises(FolderError, match="bytes too long for the sockets in it; set CHASSIS_RUN"):
        Folders("lab", ["router"])
