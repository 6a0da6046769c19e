"""A thousand tunnels of every kind at one hub, a hundred of them of a real charon: up, full, gone, three times."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.charon import PROGRAM, require
from tests.support.large_lab import (
    BRANCHES,
    KINDS,
    PEERS,
    SINK,
    SITES,
    SWAN,
    TRAFFIC,
    Caller,
    LargeLab,
    ManyCalls,
    kind_of_site,
)

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

LARGE = LargeLab(branches=250, nomads=250, sites=400, swans=100)
SAMPLE = LARGE.callers[: 2 * len(KINDS)]
"""Two of each kind, that send packets."""
PINGS = 3
COUNTS = dict(zip(PEERS, (LARGE.branches, LARGE.nomads, LARGE.sites), strict=True))
SENDING = TRAFFIC["peers"]
STATIC = [one.kind for one in SAMPLE if not one.kind.on_demand] + [kind_of_site(1 + n) for n in range(SENDING)]
COUNTED = {"asp": 4 * len(STATIC), "lc": 4 * sum(not kind.economical for kind in STATIC)}
"""Counters of the sample's static tunnels: packets and octets, both ways."""
CARDS = ("lc 3", "asp 2/1", "asp 2/2")
WITHIN = 120.0
"""Time (s) that a wave may take to come up, or to go, on a crowded machine."""
SETTINGS = {"router-capacity": LARGE.total, "heartbeat-misses": 50}
GROWTH = 1.05
MOST_WAVES = 5
"""Where the machine held a process up in the third wave, what waited made memory grow: a leak grows in each."""


class Crowd:
    """The lab, and what its hub holds of tunnels."""

    def __init__(self, lab: LabClient) -> None:
        self.lab = lab
        self.calls = ManyCalls(lab, [*LARGE.callers, *LARGE.surplus])

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return self.lab.ask("hub", command, arguments)

    def settles(self, *, full: bool) -> None:
        """Wait until all tunnels are up, or all gone, and every card has what the controller says."""
        there = (LARGE.total, LARGE.total) if full else (LARGE.total - LARGE.on_demand, 0)

        def settled() -> bool:
            rows = self.ask("asps")["asps"]
            return (sum(row["tunnels"] for row in rows), sum(row["up"] for row in rows)) == there

        self.lab.wait_until(settled, WITHIN)
        self.lab.wait_until(lambda: all(row["in_sync"] for row in self.ask("status")["cards"]), WITHIN)

    def come(self) -> None:
        for node in PEERS:
            self.lab.ask(node, "start", {})
        self.calls.begin(*LARGE.callers)
        for node, count in COUNTS.items():
            self.lab.wait_until(lambda node=node, count=count: self.at(node)["up"] == count, WITHIN)
        self.lab.wait_until(lambda: self.calls.states() == ["INSTALLED"] * LARGE.swans, WITHIN)
        self.settles(full=True)

    def go(self) -> None:
        self.calls.end(*LARGE.callers)
        for node in PEERS:
            self.lab.ask(node, "down", {})
        self.lab.wait_until(lambda: not self.calls.states(), WITHIN)
        self.settles(full=False)

    def at(self, node: str) -> dict[str, Any]:
        """What a node of peers reports."""
        return self.lab.ask(node, "status", {})

    def packets_pass(self, *callers: Caller) -> None:
        """Pings from the network of each to the sink behind the hub, all at once: they come back, and the hub
        loses none. Charon on a crowded machine may."""
        before = self.carried()
        sources = " ".join(one.inside for one in callers)
        ping = f"ping -q -c {PINGS} -i 0.02 -W 5 -I $from {SINK} || echo lost $from"
        command = f"for from in {sources}; do ({ping}) & done; wait"
        answer = self.lab.ask("", "exec", {"node": SWAN, "command": command})
        assert "lost" not in answer["output"].replace("packet loss", ""), answer["output"]
        after = self.carried()
        for one in callers:
            name = one.identity if one.kind.on_demand else one.tunnel
            received, sent = (new - old for new, old in zip(after[name], before.get(name, (0, 0)), strict=True))
            assert 0 < received <= PINGS
            assert sent == received
        for node in (BRANCHES, SITES):
            # A request each, and its answer.
            self.lab.wait_until(lambda node=node: self.at(node)["traffic"]["received"] >= 2 * SENDING, WITHIN)
            traffic = self.at(node)["traffic"]
            assert (traffic["sending"], traffic["drops"]) == (SENDING, {})

    def carried(self) -> dict[str, tuple[int, int]]:
        """Packets of each tunnel of charon, in and out, by the peer's identity or the static tunnel's name."""
        asps = self.ask("sas")["cards"].values()
        return {
            row["identity"] or row["name"]: (row["decapsulated"]["packets"], row["encapsulated"]["packets"])
            for asp in asps
            for row in asp["tunnels"]
        }

    def one_more_is_refused(self) -> None:
        (one,) = LARGE.surplus
        assert self.calls.refused(one)
        why = f"capacity: the router holds {LARGE.total} tunnels"
        line = f"peer {one.identity} at {one.outside} refused: {why}"
        self.lab.wait_until(
            lambda: any(line in row["text"] for row in self.ask("log", last=500)["records"]), WITHIN
        )
        self.settles(full=True)

    def held(self) -> dict[str, Any]:
        """How much there is of tunnels in every table of the hub, and at its peers."""
        rows = self.ask("status")["tunnels"]
        totals = [self.ask("ike-statistics", asp=asp)["ike_sas"] for asp in ("2/1", "2/2")]
        asps = self.ask("sas")["cards"].values()
        return {
            "up": sum(row["up"] for row in rows),
            "instances": sum(row.get("instances", 0) for row in rows),
            "circuits": len(self.circuits()),
            "routes": {name: len(self.ask("routes", context=name)["routes"]) for name in ("inner", "outer")},
            "IKE SAs": sum(count for total in totals for count in total.values()),
            "SAs": sum(len(tunnel["sas"]) for asp in asps for tunnel in asp["tunnels"]),
            "IKE SAs of peers": [self.at(node)["ike_sas"] for node in PEERS],
            "counters": self.counted(),
        }

    def circuits(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after = 0
        while True:
            part = self.ask("circuits", after=after)
            found += part["circuits"]
            if not (after := part["next"]):
                return found

    def counted(self) -> dict[str, int]:
        """How many counters of tunnels and circuits are in the files of ASPs and of the line card."""
        found = {"asp": 0, "lc": 0}
        for card in CARDS:
            names = self.lab.counters("hub", card)
            found[card.partition(" ")[0]] += sum(
                name.startswith(("tunnel ", "circuit ", "instance ")) for name in names
            )
        return found

    def memory(self) -> dict[str, int]:
        """kB that no other process has, of each process of the hub and of each node of peers."""
        found = {}
        for row in self.lab.ask("", "ps", {})["processes"]:
            if row["node"] == "hub" or row["kind"] == "peers":
                name = f"{row['node']} {row['card']}"
                found[name] = private(row["pid"])
                for child in Path(f"/proc/{row['pid']}/task/{row['pid']}/children").read_text().split():
                    found[f"{name}, IKE"] = private(int(child))
        return found


def private(pid: int) -> int:
    """kB that a process shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def test_three_waves_of_a_thousand_leave_nothing(lab_factory: LabFactory, measured: Callable[[str], None]) -> None:
    require(PROGRAM)
    assert LARGE.total == 1000
    lab = lab_factory.text(LARGE.text(**SETTINGS), {"hub.cfg": LARGE.hub()})
    crowd = Crowd(lab)
    before = crowd.held()
    assert not any(before["counters"].values())
    memory: list[dict[str, int]] = []
    while len(memory) < 3 or (len(memory) < MOST_WAVES and grown(memory) > GROWTH):
        began = time.monotonic()
        crowd.come()
        took = time.monotonic() - began
        crowd.packets_pass(*SAMPLE)
        full = crowd.held()
        assert (full["instances"], full["IKE SAs"], full["SAs"]) == (LARGE.on_demand, LARGE.total, 2 * LARGE.total)
        assert full["IKE SAs of peers"] == list(COUNTS.values())
        crowd.one_more_is_refused()
        crowd.go()
        # Counters of static tunnels stay, those of peers go with them.
        assert crowd.held() == {**before, "counters": COUNTED}
        memory.append(crowd.memory())
        measured(f"1,000 tunnels up after {took:.1f} s; memory when they are gone {sum(memory[-1].values())} kB")
    assert grown(memory) <= GROWTH, memory


def grown(memory: list[dict[str, int]]) -> float:
    """Memory of all processes after the last wave in parts of that after the one before."""
    return sum(memory[-1].values()) / sum(memory[-2].values())
