"""Kill after kill with manual keys: no number goes out twice, no replay comes in, few good packets are refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from chassis.tester.source import MAX_CATCH_UP_INTERVAL
from tests.support import capture as wire

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

LAB = "configs/manual-keys/lab.yaml"
FLOWS = ("circuit-forward", "circuit-reverse", "economical-forward", "economical-reverse")
RATE = 200
BATCH = int(RATE * MAX_CATCH_UP_INTERVAL)
"""Good packets that a kill may have refused at most: one batch of the one flow that an ASP opens here, for a
window is kept before its batch is delivered. A source sends what is due within a thousandth of a second together,
which is one packet at this rate; where it stood still it makes up for no more than this."""
PORTS = {"a": "3/11", "b": "3/12"}
PARTS, KILLS = 2, 10
SECONDS = 5.0
"""How far back the packets reach that are sent in again after each kill."""
UNSEEN = 2 * 64
"""Most injected packets that no window refuses: two tunnels, windows of 64."""
LEAST = 1000
"""Packets of each flow at least, however soon a machine is through with all kills."""
ROTATE = 4
"""Kills after which a new capture is begun."""

pytestmark = pytest.mark.multiprocess


def refused(lab: LabClient, node: str) -> int:
    """Packets that the windows of a node's ASPs have refused so far."""
    counted: Counter[str] = Counter()
    for asp in ("asp 1/1", "asp 1/2"):
        counted.update(lab.counters(node, asp))
    return counted["drop outside replay window"] + counted["drop replayed"]


def ended(lab: LabClient, node: str) -> int:
    """Packets of a node that a window refused, or that were lost before they got to one: a card that stands still
    on a busy machine is taken for dead, and what is injected meanwhile finds no ASP, no tunnel or no port."""
    return sum(
        count
        for card in ("lc 3", "asp 1/1", "asp 1/2")
        for name, count in lab.counters(node, card).items()
        if name.startswith("drop ")
    )


def replay(lab: LabClient, node: str, file: Path) -> int:
    """Send the last packets of a capture in again, as soon as the line card can be told to; how many they were."""
    sent: list[int] = []

    def told() -> bool:
        sent.append(lab.inject(f"{node}:{PORTS[node]}", file, SECONDS))
        return True

    lab.wait_until(told)
    return sent[0]


def asps_in_use(lab: LabClient, node: str) -> list[str]:
    return sorted({row["asp"] for row in lab.node(node).status()["tunnels"]})


@pytest.mark.parametrize("part", range(PARTS))
def test_no_number_twice_and_no_replay_over_many_kills(lab_factory: LabFactory, tmp_path: Path, part: int) -> None:
    random = Random(part)
    lab = lab_factory(
        LAB, settings={"restart-delay": "0"}, flows={name: {"rate": RATE, "start": "manual"} for name in FLOWS}
    )
    lab.wait_until("tunnels up")
    lab.start(*FLOWS)
    for flow in FLOWS:
        lab.wait_until(f"flow {flow} received >= 50")
    cards = [(node, asp) for node in PORTS for asp in asps_in_use(lab, node)]
    captures: dict[str, list[Path]] = {node: [] for node in PORTS}
    injected = 0
    for kill in range(KILLS):
        if kill % ROTATE == 0:
            for node, port in PORTS.items():
                captures[node].append(lab.capture(node, f"port {port}", tmp_path / f"{node}{kill}.pcapng"))
        node, asp = random.choice(cards)
        before = {each: refused(lab, each) for each in PORTS}
        boot = lab.node(node).card(asp)["boot"]
        killed = lab.kill(node, asp)
        lab.wait_until(lambda node=node, asp=asp, boot=boot: usable(lab, node, asp, boot + 1))
        lab.wait_until("tunnels up")
        received = {flow: lab.report(flow)["received"] for flow in FLOWS}
        for flow in FLOWS:
            lab.wait_until(f"flow {flow} received >= {received[flow] + 10}")
        for each in PORTS:
            now = refused(lab, each)
            assert now - before[each] <= BATCH, f"kill {kill} of {node} {asp} at {killed}"
            before[each] = now
        lab.wait_until("cards up")
        least = {each: ended(lab, each) - UNSEEN for each in PORTS}
        for each in PORTS:
            again = sum(replay(lab, each, file) for file in captures[each][-2:])
            injected += again
            # They end at a window, but for ARP, and for those that found no ASP the first time: these are no
            # replays, and a window may still be open for them.
            least[each] += again * 9 // 10
        lab.wait_until(Through(lab))
        lab.wait_until(lambda least=least: all(ended(lab, each) >= least[each] for each in PORTS))
        for flow in FLOWS:
            report = lab.report(flow)
            assert (report["duplicated"], report["corrupted"]) == (0, 0), f"{flow} after kill {kill}"
    for flow in FLOWS:
        lab.wait_until(f"flow {flow} received >= {LEAST}")
    lab.stop(*FLOWS)
    lab.drain(*FLOWS)
    for flow in FLOWS:
        report = lab.report(flow, final=True)
        assert (report["duplicated"], report["corrupted"]) == (0, 0)
    for node, port in PORTS.items():
        lab.capture_stop(node, f"port {port}", captures[node][-1])
        sent: Counter[tuple[str, int, int, int]] = Counter()
        for file in captures[node]:
            assert [seen for seen in wire.clear(file) if seen.way == "out"] == []
            sent.update(
                (seen.destination, seen.protocol, seen.spi, seen.number)
                for seen in wire.packets(file)
                if seen.way == "out" and seen.spi
            )
        assert len(sent) > LEAST
        assert [key for key, times in sent.items() if times > 1] == []
    assert injected > 10 * KILLS
    # Seldom does a card stand still: nearly all replays met a window.
    assert sum(refused(lab, node) for node in PORTS) >= injected * 8 // 10
    assert not any(lab.unexpected(node) for node in ("t1", "t2"))


class Through:
    """Whether all that was given to the ports before this was made is through the windows: each flow has brought a
    packet that was sent since, and of one port nothing overtakes on its way through the ASP that opens it."""

    def __init__(self, lab: LabClient) -> None:
        self._lab = lab
        self._sent = {flow: lab.report(flow)["sent"] for flow in FLOWS}

    def __call__(self) -> bool:
        return all(newest(self._lab, flow) >= sent for flow, sent in self._sent.items())


def newest(lab: LabClient, flow: str) -> int:
    """The highest number, counted from 0, of a flow's packets that arrived."""
    asked = lab.ask(lab.flow(flow).target.node, "flows", {"flow": flow})
    return int(asked["flows"][flow]["sink"]["highest"])


def usable(lab: LabClient, node: str, asp: str, boot: int) -> bool:
    card = lab.node(node).card(asp)
    return bool(card["usable"] and card["boot"] >= boot)
