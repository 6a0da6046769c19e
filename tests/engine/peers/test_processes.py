"""Peers of one node in several processes: one port, one report; who is where, and what is shared out."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from chassis.peers.spec import PeersSpec, read_spec
from tests.support import CONFIGS
from tests.support.load_lab import STATIC_PEERS, LoadShell, PeersInOneProcess, static_lab


def test_three_processes_share_a_port_and_a_report(tmp_path: Path) -> None:
    traffic = {"peers": 8, "to": "10.100.0.2", "rate": 5}
    shell = LoadShell(static_lab(tmp_path, peers=16, processes=3, traffic=traffic), tmp_path)
    shell.wait_until(lambda: shell.status("peers")["up"] == 16, 30.0)
    shell.pass_time(4.0)
    report = shell.status("peers")
    assert (report["processes"], report["peers"], report["setups"], report["lost"]) == (3, 16, 16, 0)
    assert report["state"] == "running"
    assert 0 < report["latency"]["p50_ms"] <= report["latency"]["max_ms"]
    assert report["traffic"]["sending"] == 8
    assert report["traffic"]["received"] == report["traffic"]["sent"] > 100
    engine = shell.testers["peers"].engine
    assert isinstance(engine, PeersInOneProcess)
    assert [member.setups.up for member in engine.members] == [5, 5, 6]
    assert all(
        not name.startswith("unexpected") for member in engine.members for name, _ in member.counters.items()
    )
    shell.command("peers", "down")
    shell.wait_until(lambda: shell.status("peers")["state"] == "stopped", 10.0)
    assert shell.status("peers")["left"] == 16


def test_processes_with_peers_behind_nat(tmp_path: Path) -> None:
    changes = {"peers": 7, "nat": 2, "processes": 3, "start": "auto"}
    shell = LoadShell(CONFIGS / "load" / "lab.yaml", tmp_path, **changes)
    shell.wait_until(lambda: all(shell.status(node)["up"] == 7 for node in ("branches", "nomads")), 30.0)
    shell.wait_until(lambda: len(shell.instances()) == 14, 5.0)


def test_the_shares_are_the_whole() -> None:
    for count, nat, processes in ((1000, 0, 7), (1000, 30, 7), (5, 0, 8), (5, 4, 8)):
        values = {**STATIC_PEERS, "peers": count, "nat": nat, "processes": processes, "at-once": 100}
        values["traffic"] = {"to": "10.0.0.1", "peers": 50}
        whole = read_spec(values)[0]
        assert isinstance(whole, PeersSpec)
        parts = whole.split()
        assert len(parts) == min(processes, -(-count // (nat or 1)))
        ends = [part.outer_addresses() for part in parts]
        assert all(after[0] == before[1] for before, after in pairwise(ends))
        assert (ends[0][0], ends[-1][1]) == whole.outer_addresses()
        one_by_one = [
            (
                part.address(number),
                part.key(number),
                part.version(number),
                part.towards(number),
                part.network(number),
            )
            for part in parts
            for number in range(1, part.count + 1)
        ]
        assert one_by_one == [
            (whole.address(one), whole.key(one), whole.version(one), whole.towards(one), whole.network(one))
            for one in range(1, count + 1)
        ]
        assert sum(part.rate for part in parts) == pytest.approx(whole.rate)
        assert sum(part.traffic.peers for part in parts if part.traffic) == min(50, count)
        assert sum(part.at_once for part in parts) == 100
