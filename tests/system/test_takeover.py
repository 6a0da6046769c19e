"""An ASP dies, hangs, comes back: the second tunnel takes over, nothing leaves in clear, traffic returns."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launch.lab.model import Endpoint
from tests.support import capture as wire
from tests.support import failures

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

LAB = "configs/high-availability-manual/lab.yaml"
ROUTERS = ("ha", "gateway")
LEAVES = Endpoint("ha", "3/11")
"""Where the packets of the preferred ASP leave."""
SENDS = 12290
"""SPI of what it protects."""
ROUNDS = 2
RESTART = 0.3
QUICK = {"restart-delay": "300ms"}
"""`make bench` measures with the delay that a lab has by itself."""

pytestmark = pytest.mark.multiprocess


@pytest.mark.behaviour("B-199", "B-201", "B-202", "B-203")
def test_the_second_tunnel_takes_over_from_a_killed_asp_and_gives_back(
    lab_factory: LabFactory, tmp_path: Path
) -> None:
    lab = lab_factory(LAB, settings=QUICK)
    ports = ("port 3/11", "port 3/12")
    captures = [lab.capture("ha", what, tmp_path / f"{index}.pcapng") for index, what in enumerate(ports)]
    failures.flowing(lab)
    failures.asp_killed(lab, ROUNDS, RESTART)
    ledger = failures.at_rest(lab)
    assert failures.has_names(ledger), ledger.to_json()
    for flow in ("forward", "reverse"):
        report = lab.report(flow)
        assert report["corrupted"] == report["duplicated"] == 0
    for what, file in zip(ports, captures, strict=True):
        lab.capture_stop("ha", what, file)
        assert len(list(wire.packets(file))) > 200
        assert wire.clear(file) == []
        assert wire.used_twice(file) == []
    assert not any(lab.unexpected(node) for node in ("t1", "t2"))


def test_the_second_tunnel_takes_over_from_a_hung_asp(lab_factory: LabFactory) -> None:
    lab = lab_factory(LAB, settings=QUICK)
    failures.flowing(lab)
    failures.asp_hung(lab, ROUNDS)
    ledger = failures.at_rest(lab)
    assert failures.has_names(ledger), ledger.to_json()
    assert not any(lab.unexpected(node) for node in ("t1", "t2"))


def test_a_hung_asp_that_goes_on_after_it_was_given_up_sends_nothing_old(
    lab_factory: LabFactory, tmp_path: Path
) -> None:
    lab = lab_factory(LAB)
    ends = sorted({end for link in lab.file.links for end in link.ends if end.node in ROUTERS}, key=str)
    assert len(ends) == 6
    captures = {
        end: lab.capture(end.node, f"port {end.port}", tmp_path / f"{index}.pcapng", snaplen=96)
        for index, end in enumerate(ends)
    }
    failures.flowing(lab)
    given_up = []
    for _ in range(3):
        stopped = lab.stop_card("ha", "asp 2/1")
        lab.wait_until(lambda stopped=stopped: lab.clock() >= stopped + 0.7)
        lab.wait_until(lambda: not lab.node("ha").card("asp 2/1")["usable"])
        epoch = lab.node("ha").card("asp 2/1")["epoch"]
        lab.continue_card("ha", "asp 2/1")
        lab.wait_until("tunnel Tun-1 of ha up")
        lab.wait_until(lambda: lab.node("ha").card("asp 2/1")["usable"])
        admitted = lab.clock()
        assert lab.node("ha").card("asp 2/1")["epoch"] >= epoch
        lab.wait_until(lambda admitted=admitted: failures.took(lab, "forward", "ha 2/1 encapsulate", admitted))
        given_up.append(_given_up(lab, stopped))
    lab.stop("forward", "reverse")
    lab.drain("forward", "reverse")
    wall = time.time() - lab.clock()
    for end, file in captures.items():
        lab.capture_stop(end.node, f"port {end.port}", file)
        for begin, back in given_up:
            old = [
                seen for seen in wire.packets(file) if begin <= seen.time - wall < back and _of_the_asp(end, seen)
            ]
            assert old == [], f"{len(old)} packets of the ASP at {end} while it was given up"
    # It had sent before each of the times, and goes on above the last number of them afterwards.
    sent = [seen for seen in wire.packets(captures[LEAVES]) if seen.way == "out" and seen.spi == SENDS]
    for begin, back in given_up:
        before = max(seen.number for seen in sent if seen.time - wall < begin)
        after = [seen.number for seen in sent if seen.time - wall >= back]
        assert 0 < before < min(after)
    assert lab.report("forward", final=True)["duplicated"] == 0
    for end in (LEAVES, Endpoint("ha", "3/12")):
        assert wire.used_twice(captures[end]) == []
        assert wire.clear(captures[end]) == []


def _given_up(lab: LabClient, since: float) -> tuple[float, float]:
    """When the controller gave the preferred ASP up, and when it admitted it again."""
    events = [(event["time"], event["text"]) for event in lab.events(since)]
    begin = next(at for at, text in events if text.startswith("asp 2/1 hung: "))
    return begin, next(at for at, text in events if at >= begin and text.startswith("asp 2/1 admitted: "))


def _of_the_asp(end: Endpoint, seen: wire.Seen) -> bool:
    """Whether a packet that is on its way is one that the preferred ASP has protected or opened."""
    if seen.spi:
        return seen.spi == SENDS
    # Only the gateway's packets by Tun-1 leave here, and this ASP alone opens them.
    return str(end) == "ha:3/1" and seen.way == "out" and seen.source == "172.168.3.10"
