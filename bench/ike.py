"""IKEv2 set-ups of a responder with many tunnels between two addresses: this project's and charon's.

Both get the same load: this project's engine as initiator, in its own process and namespace, with as many
concurrent negotiations as it allows. The main figure is the responder's CPU time for each set-up, that is its rate
on one core; set-ups per second depend on both ends and on the number of cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from bench.ike_ends import (
    INITIATOR,
    NETWORKS,
    PREFIX,
    PSK,
    RESPONDER,
    Initiator,
    Responder,
    identity,
)
from bench.report import Report
from tests.support.charon import PROGRAM, Auth, Charon, Conn
from tests.support.netns import Host, Namespaces, why_not

GROUPS = {2: "modp1024", 14: "modp2048"}
RUNS = {100: 10, 1000: 2, 4000: 1}
"""Runs for each number of tunnels. CPU time has a resolution of 10 ms, a sixth of the cost of a hundred set-ups,
so their cost is computed from all runs together."""
WITHIN = {100: 20.0, 1000: 60.0, 4000: 60.0}
"""Time (s) after which a set-up of all tunnels is aborted."""


FLAT = 1.25
"""Largest cost of a set-up with any number of tunnels, as a factor of the cost with the fewest."""
BESIDE = {100: 1 / 3, 1000: 1.0, 4000: 1.0}
"""Smallest rate on one core as a factor of charon's."""


class Answers(Protocol):
    """A running responder with its tunnels configured."""

    def cpu(self) -> float:
        """Return the CPU time (s) so far."""

    def close(self) -> None: ...


class CharonResponder:
    """charon with strongswan-pair's settings and minimal logging."""

    def __init__(self, namespaces: Namespaces, tunnels: int, group: int) -> None:
        self._charon = Charon(namespaces, "responder", level=0)
        self._charon.load_psk(PSK.decode())
        for number in range(1, tunnels + 1):
            self._charon.load(
                Conn(
                    f"t{number}",
                    2,
                    RESPONDER,
                    INITIATOR,
                    Auth(identity(RESPONDER, number)),
                    Auth(identity(INITIATOR, number)),
                    ike=f"aes128-sha1-{GROUPS[group]}",
                    esp="aes128-sha1",
                    local_ts=f"{NETWORKS[1]}/{PREFIX}[udp/{number}]",
                    remote_ts=f"{NETWORKS[0]}/{PREFIX}[udp/{number}]",
                    unique="never",
                )
            )
        self.cpu = self._charon.cpu

    def close(self) -> None:
        self._charon.end(9)


@dataclass(frozen=True, slots=True)
class Load:
    """The result of one load: tunnels up at the end, set-ups/s, the responder's CPU time (s)."""

    up: int
    rate: float
    cpu: float


def set_up(start: Callable[[Namespaces], Answers], tunnels: int, group: int) -> Load:
    """Set up all tunnels between a new responder and a new initiator, in their own namespaces."""
    hosts = {
        "initiator": Host({"eth0": [f"{INITIATOR}/24"], "lo": ["10.1.0.1/16"]}),
        "responder": Host({"eth0": [f"{RESPONDER}/24"], "lo": ["10.2.0.1/16"]}),
    }
    with TemporaryDirectory() as folder:
        namespaces = Namespaces(Path(folder), hosts, [("initiator:eth0", "responder:eth0")])
        try:
            responder = start(namespaces)
            sockets = {port: namespaces.udp("initiator", INITIATOR, port) for port in (500, 4500)}
            try:
                before = responder.cpu()
                initiator = Initiator(sockets, tunnels, group, WITHIN[tunnels])
                try:
                    progress = initiator.result()
                    used = responder.cpu() - before
                finally:
                    initiator.close()
                return Load(progress.up, progress.up / progress.seconds, used)
            finally:
                responder.close()
                for one in sockets.values():
                    one.close()
        finally:
            namespaces.close()


def ours(tunnels: int, group: int) -> Callable[[Namespaces], Answers]:
    def start(namespaces: Namespaces) -> Answers:
        sockets = {port: namespaces.udp("responder", RESPONDER, port) for port in (500, 4500)}
        try:
            return Responder(sockets, tunnels, group)
        finally:
            for one in sockets.values():
                one.close()

    return start


def theirs(tunnels: int, group: int) -> Callable[[Namespaces], Answers]:
    return lambda namespaces: CharonResponder(namespaces, tunnels, group)


def _cost(loads: list[Load]) -> float:
    """Return the CPU time (ms) for each set-up."""
    return sum(load.cpu for load in loads) / max(sum(load.up for load in loads), 1) * 1e3


def _reached(loads: list[Load], tunnels: int) -> str:
    fewest = min(load.up for load in loads)
    return "" if fewest == tunnels else f", cut off with {fewest:,} up"


def bars(group: int, ours: Mapping[int, float], charon: Mapping[int, float]) -> list[tuple[str, bool]]:
    """Return (bar, whether it is reached) for the cost of a set-up, in ms by number of tunnels. Ours is infinite
    if it was aborted. Without charon there is no bar relative to it."""
    fewest = min(ours, default=0)
    found = []
    for tunnels, cost in ours.items():
        if tunnels != fewest:
            times = cost / ours[fewest]
            text = f"group {group}, {tunnels:,} tunnels cost {times:.2f} of {fewest}, bar {FLAT:g} at most"
            found.append((text, times <= FLAT))
        if tunnels in charon:
            rate = charon[tunnels] / cost
            text = f"group {group}, {tunnels:,} tunnels on one core {rate:.2f} x charon, bar {BESIDE[tunnels]:.2f}"
            found.append((text, rate >= BESIDE[tunnels]))
    return found


def run(report: Report) -> None:
    """Measure both responders with each group and number of tunnels; only ours if charon cannot run."""
    reason = why_not()
    if reason:
        print(f"IKE is not measured: {reason}")
        return
    peer = Path(PROGRAM).exists()
    if not peer:
        print(f"IKE is measured without charon beside it: there is no {PROGRAM}")
    for group in GROUPS:
        costs: dict[int, float] = {}
        charons: dict[int, float] = {}
        for tunnels in RUNS:
            with report.row(f"IKEv2 group {group}, {tunnels:,} tunnels"):
                _beside(report, group, tunnels, peer, costs, charons)
        report.judge(bars(group, costs, charons))


def _beside(
    report: Report, group: int, tunnels: int, peer: bool, costs: dict[int, float], charons: dict[int, float]
) -> None:
    """Measure one number of tunnels; store a set-up's cost in `costs`, charon's in `charons` if it is a `peer`."""
    mine: list[Load] = []
    peers: list[Load] = []
    for _ in range(RUNS[tunnels]):
        mine.append(set_up(ours(tunnels, group), tunnels, group))
        if peer:
            peers.append(set_up(theirs(tunnels, group), tunnels, group))
    what = f"IKEv2 group {group}, {tunnels:,} tunnels"
    rate, cost = 0.0, 0.0
    if peers:
        rate = report.add(f"{what}: charon{_reached(peers, tunnels)}", [load.rate for load in peers], "set-ups/s")
        cost = charons[tunnels] = report.add("  charon's CPU for each", [_cost(peers)], "ms")
    rates = [load.rate for load in mine]
    report.add(f"{what}: ours{_reached(mine, tunnels)}", rates, "set-ups/s", "charon", rate)
    own = report.add("  our CPU for each", [_cost(mine)], "ms", "charon", cost)
    costs[tunnels] = inf if _reached(mine, tunnels) else own
    report.add("  ours on one core", [1e3 / own], "set-ups/s", "charon", 1e3 / cost if cost else 0.0)
    if tunnels > min(RUNS) and min(RUNS) in costs:
        times = own / costs[min(RUNS)]
        report.add(f"  our CPU for each, of that with {min(RUNS)} tunnels", [times], "times")
