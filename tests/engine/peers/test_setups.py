"""Peers of one node against a whole hub on a fake clock: all come up, what it took is measured, all go."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from chassis.peers.engine import PeersEngine
from launch.lab.parser import load
from tests.support import CONFIGS
from tests.support.load_lab import LoadShell

LOAD = CONFIGS / "load" / "lab.yaml"


def loaded(folder: Path, count: int, **changes: Any) -> LoadShell:
    """The hub of configs/load, and `count` peers at each of its two nodes; `changes` are of their keys."""
    return LoadShell(LOAD, folder, peers=count, **changes)


def test_peers_of_both_versions_come_up_are_measured_and_go(tmp_path: Path) -> None:
    shell = loaded(tmp_path, 6)
    shell.pass_time(5.0)
    for node in shell.engines:
        assert shell.status(node)["state"] == "stopped"
        shell.command(node, "start", rate=4.0)
    shell.pass_time(0.6)
    assert shell.status("branches")["state"] == "starting"
    shell.wait_until(lambda: all(shell.status(node)["up"] == 6 for node in shell.engines), 30.0)
    for node, engine in shell.engines.items():
        report = shell.status(node)
        assert report["state"] == "running"
        assert (report["peers"], report["wanted"], report["setups"], report["lost"]) == (6, 6, 6, 0)
        assert report["down"] == report["failures"] == {}
        # One begins each 250 ms: five intervals from the first to the last.
        assert 1.2 <= report["seconds"] < 2.0
        assert 3.0 <= report["setups_per_second"] <= 5.0
        assert 0 <= report["latency"]["p50_ms"] <= report["latency"]["p99_ms"] <= report["latency"]["max_ms"] < 500
        assert report["ike_sas"] == 6
        assert {engine.spec.version(number) for number in range(1, 7)} == {2 if node == "branches" else 1}
    names = {f"p{number}.{kind}.example" for number in range(1, 7) for kind in ("branch", "nomad")}
    assert shell.instances() == names
    rows = shell.ask("hub", "routes", {"context": "private"})["routes"]
    assert {"10.112.0.0/30", "10.112.0.20/30"} <= {row["prefix"] for row in rows}

    for node in shell.engines:
        shell.command(node, "down")
    # Each Delete reaches the hub: nothing here waits for its dead peer detection.
    shell.wait_until(lambda: not shell.instances(), 5.0)
    for node in shell.engines:
        assert shell.status(node)["state"] == "stopped"
        assert shell.status(node)["up"] == 0
        assert shell.status(node)["lost"] == 0
        assert shell.status(node)["latency"]

    # They come again, as if for the first time.
    shell.command("branches", "start")
    shell.wait_until(lambda: shell.status("branches")["up"] == 6, 30.0)
    assert shell.status("branches")["setups"] == 6


GROW = ("LogEntry", "LogRecord", "HistoryEvent", "Decision")
"""What the log, the events and the flow caches of line cards keep, which have bounds of their own."""


def objects() -> Counter[str]:
    """How many objects of each class of ours there are, here and in whatever ran before."""
    gc.collect()
    kinds = [type(one) for one in gc.get_objects()]
    return Counter(
        f"{kind.__module__}.{kind.__name__}"
        for kind in kinds
        if str(kind.__module__).startswith("chassis.") and kind.__name__ not in GROW
    )


def test_peers_that_came_and_went_leave_nothing(tmp_path: Path) -> None:
    """Not one object more after the third time than after the second, in any engine of either end."""
    shell = loaded(tmp_path, 6)
    shell.pass_time(5.0)
    left = []
    for _ in range(3):
        for node in shell.engines:
            shell.command(node, "start", rate=1000.0)
        shell.wait_until(lambda: all(shell.status(node)["up"] == 6 for node in shell.engines), 30.0)
        up = objects()
        for node in shell.engines:
            shell.command(node, "down")
        shell.wait_until(lambda: not shell.instances(), 30.0)
        shell.pass_time(1.0)
        left.append(objects())
    assert left[2] - left[1] == Counter()
    assert (up - left[2]).total() > 100 * len(shell.engines)


def test_stop_leaves_those_that_are_up(tmp_path: Path) -> None:
    shell = loaded(tmp_path, 6)
    shell.pass_time(5.0)
    shell.command("branches", "start", rate=2.0)
    shell.wait_until(lambda: shell.status("branches")["up"] == 2, 10.0)
    assert shell.command("branches", "stop")["waiting"] == 0
    shell.pass_time(5.0)
    assert shell.status("branches")["up"] == shell.status("branches")["wanted"] == 2


def test_peers_with_another_key_are_counted_by_cause(tmp_path: Path) -> None:
    shell = loaded(tmp_path, 3, pre_shared_key="another-key", start="auto")
    shell.wait_until(lambda: sum(shell.status("branches")["failures"].values()) >= 3, 30.0)
    report = shell.status("branches")
    assert report["up"] == report["setups"] == 0
    assert report["latency"] == {}
    assert sum(report["down"].values()) == 3
    assert any("AUTHENTICATION_FAILED" in cause.upper().replace(" ", "_") for cause in report["failures"]), report
    assert "another-key" not in str(report) + repr(shell.engines["branches"].spec)


def test_a_peer_that_the_hub_takes_down_is_lost_and_comes_again(tmp_path: Path) -> None:
    shell = loaded(tmp_path, 2, start="auto", rate=50)
    shell.wait_until(lambda: shell.status("branches")["up"] == 2, 30.0)
    shell.ask("hub", "clear", {"tunnel": "branches"})
    shell.wait_until(lambda: shell.status("branches")["lost"] == 2, 10.0)
    shell.wait_until(lambda: shell.status("branches")["up"] == 2, 60.0)
    assert shell.status("branches")["setups"] == 4


@pytest.mark.parametrize("frame", [b"", b"\0" * 13, b"\0" * 60, b"\xff" * 6 + b"\0" * 6 + b"\x08\x00" + b"E" * 20])
def test_odd_frames_are_counted(tmp_path: Path, frame: bytes) -> None:
    from chassis.tester.host import frames_batch

    values = load(LOAD)[0].peers()[0].values
    engine = PeersEngine("p", ports={"1": {"address": "10.0.0.1/24"}}, peers=values, random=Random(1).randbytes)
    engine.start(0.0)
    for one in (frame, engine._host.mac + frame[6:]):
        assert engine.receive_frames("1", frames_batch([one]), 1.0) == []
    assert sum(value for name, value in engine.counters.items() if name.startswith("unexpected")) == 2


def test_so_many_are_on_their_way_at_once_and_one_that_fails_makes_room(tmp_path: Path) -> None:
    shell = loaded(tmp_path, 6, at_once=2, pre_shared_key="wrong", rate=1000.0)
    shell.pass_time(5.0)
    shell.command("branches", "start")
    shell.pass_time(0.003)
    assert (shell.status("branches")["wanted"], shell.status("branches")["waiting"]) == (2, 4)
    shell.wait_until(lambda: shell.status("branches")["wanted"] == 6, 30.0)
    assert shell.status("branches")["up"] == 0
    assert sum(shell.status("branches")["failures"].values()) >= 4
