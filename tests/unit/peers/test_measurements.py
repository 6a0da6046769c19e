"""Measurements of peers: counts stay right whatever happens, and those of processes add up to the whole."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from chassis.peers.measurements import SetupMeasurements
from chassis.peers.report import report

COUNT = 20
REASONS = ("", "negotiating with 10.0.0.1", "no answer", "refused")


def events(seed: int) -> list[tuple[str, int, bool, str, float]]:
    """What happens to peers, in order."""
    random, now, made = Random(seed), 1.0, []
    for _ in range(400):
        now += random.random()
        kind = random.choice(("wanted", "sent", "state", "state"))
        made.append((kind, random.randint(1, COUNT), random.random() < 0.6, random.choice(REASONS), now))
    return made


def play(setups: SetupMeasurements, happened: list[tuple[str, int, bool, str, float]], before: int = 0) -> None:
    for kind, number, flag, reason, now in happened:
        if kind == "wanted":
            setups.on_wanted(number - before, flag)
        elif kind == "sent":
            setups.on_sent(number - before, now)
        else:
            setups.on_state(number - before, flag, "" if flag else reason, now)


def counts(setups: SetupMeasurements) -> dict[str, Any]:
    """What a process says of its peers, with the rest of its counts."""
    rest = {
        "now": 1.0,
        "state": "running",
        "towards": "",
        "waiting": 0,
        "ike_sas": 0,
        "parked": 0,
        "ike": {},
        "log": [],
    }
    return {**setups.counts(), **rest}


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_the_peers(seed: int) -> None:
    setups = SetupMeasurements(COUNT)
    happened = events(seed)
    for at in range(len(happened)):
        play(setups, happened[at : at + 1])
        peers = setups.peers
        assert setups.up == sum(peer.up for peer in peers)
        assert setups.wanted == sum(peer.wanted for peer in peers)
        assert setups.on_the_way == sum(peer.on_the_way for peer in peers)
        down = Counter(peer.cause for peer in peers if peer.wanted and not peer.up)
        assert setups.counts()["down"] == down
    assert setups.setups > 20
    assert setups.latency.count == setups.setups


@pytest.mark.parametrize("seed", range(5))
def test_the_report_of_two_processes_is_that_of_one(seed: int) -> None:
    happened = events(seed)
    whole, first, second = SetupMeasurements(COUNT), SetupMeasurements(COUNT // 2), SetupMeasurements(COUNT // 2)
    play(whole, happened)
    play(first, [one for one in happened if one[1] <= COUNT // 2])
    play(second, [one for one in happened if one[1] > COUNT // 2], COUNT // 2)
    together, alone = report([counts(first), counts(second)]), report([counts(whole)])
    assert (together.pop("processes"), alone.pop("processes")) == (2, 1)
    assert together == alone
    assert alone["latency"]["p50_ms"] <= alone["latency"]["p90_ms"] <= alone["latency"]["max_ms"]
