"""Peers that come and go at a rate: the gateway has those that are there, and nothing of those that went."""

from __future__ import annotations

from pathlib import Path

from chassis.peers.churn import Churn
from chassis.peers.measurements import SetupMeasurements
from tests.support import CONFIGS
from tests.support.load_lab import LoadShell


def test_peers_come_and_go_and_none_is_lost(tmp_path: Path) -> None:
    shell = LoadShell(CONFIGS / "load" / "lab.yaml", tmp_path, peers=8, start="auto", rate=50, traffic=None)
    shell.wait_until(lambda: all(shell.status(node)["up"] == 8 for node in shell.engines), 30.0)
    for node in shell.engines:
        shell.command(node, "churn", rate=4.0, away=0.5)
    shell.pass_time(5.0)
    for node in shell.engines:
        report = shell.status(node)
        assert report["state"] == "coming and going"
        # Four a second for five seconds; at most those of the last half second are away, or on their way.
        assert 19 <= report["left"] <= 21
        assert report["left"] + 8 - 3 <= report["setups"] <= report["left"] + 8
        assert 5 <= report["up"] <= 8
        assert (report["lost"], report["failures"]) == (0, {})
        shell.command(node, "start")
    shell.wait_until(lambda: all(shell.status(node)["up"] == 8 for node in shell.engines), 10.0)
    shell.wait_until(lambda: len(shell.instances()) == 16, 5.0)
    assert {shell.status(node)["state"] for node in shell.engines} == {"running"}
    shell.pass_time(2.0)
    assert {shell.status(node)["left"] for node in shell.engines} <= {19, 20, 21}


def test_those_that_are_not_up_are_passed_over() -> None:
    setups = SetupMeasurements(5)
    churn = Churn()
    churn.start(10.0, 1.0, 100.0)
    assert churn.pop_going(setups, 100.0) == []
    for number in (2, 4):
        setups.on_wanted(number, True)
        setups.on_state(number, True, "", 99.0)
    assert churn.pop_going(setups, 100.5) == [2, 4]
    assert churn.pop_back(101.4) == []
    assert churn.pop_back(101.5) == [2, 4]
    churn.stop()
    assert not churn.active
    assert churn.next_timer() == float("inf")
