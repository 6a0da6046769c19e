"""Both ends do something at once, with packets flowing both ways and messages lost: nothing is lost, all agree.

While either end holds a successor no packet may be lost. Where the operator deleted what there was, packets wait
for a new pair: they are not sent, which is counted, and never in clear.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import pytest
from engines import TUNNEL, A, B, Ends, Two, agree, other

from chassis.ase.link import IkePacket

PACE = 0.002
"""Seconds between two packets of a flow."""

ACTIONS = ("child", "ike", "clear", "")
TROUBLES = ("none", "first of a", "first of b", "first of both", "second of a", "second of b", "slow a", "twice")


class Wire:
    """Loses, delays or doubles the first messages after it was armed."""

    def __init__(self, trouble: str) -> None:
        self.trouble = trouble
        self.armed = False
        self._count = {A: 0, B: 0}

    def __call__(self, sender: int, packet: IkePacket, now: float) -> Iterable[float]:
        if not self.armed:
            return (0.01,)
        self._count[sender] += 1
        number, name = self._count[sender], "a" if sender == A else "b"
        order = {1: "first", 2: "second"}.get(number, "")
        if self.trouble in (f"{order} of {name}", f"{order} of both"):
            return ()
        if self.trouble == f"slow {name}" and number <= 2:
            return (0.3,)
        return (0.01, 0.011) if self.trouble == "twice" else (0.01,)


def act(two: Two, which: str, action: str) -> None:
    end = two.a if which == "a" else two.b
    if action == "clear":
        two.ask(end, "clear")
    elif action:
        two.ask(end, "rekey", what=action)


def flow(two: Two, seconds: float) -> None:
    until = two.now + seconds
    while two.now < until:
        two.flow(two.a)
        two.flow(two.b)
        two.run(PACE)


def settled(two: Two) -> None:
    two.run(1)
    agree(two)
    assert len(two.a.pairs) == 1, two.a.pairs
    for end in (two.a, two.b):
        row = two.ask(end, "sas").result["tunnels"][0]
        # A delete of version 1 is not answered: where it was lost, the old phase 1 stays until its lifetime ends.
        serving = [one for one in row["ike"] if "successor" not in one["state"]]
        assert len(serving) == 1, row
        assert end.ike.spis_held == sum(
            bool(pair.inbound.esp_spi) + bool(pair.inbound.ah_spi) + bool(pair.cpi_in)
            for pair in end.pairs.values()
        )


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("apart", [0.0, 0.005, 0.012])
def test_whatever_two_ends_do_at_once(version: int, trouble: str, apart: float) -> None:
    for first, second in product(ACTIONS, ACTIONS):
        if not first:
            continue
        ends = Ends(version=version)
        wire = Wire(trouble)
        two = Two(ends, other(ends), trouble=wire)
        assert two.until(lambda two=two: two.a.up(TUNNEL) and two.b.up(TUNNEL), 10)
        two.run(15)
        flow(two, 0.1)
        assert not two.lost
        assert not two.unsent
        wire.armed = True
        act(two, "a", first)
        flow(two, apart) if apart else None
        act(two, "b", second)
        flow(two, 3.0)
        # Successors are made by then, predecessors deleted.
        wire.armed = False
        two.run(60)
        flow(two, 0.1)
        what = f"{first} of a, {second or 'nothing'} of b, {trouble}, {apart} s apart"
        if "clear" not in (first, second):
            assert not two.lost, f"{what}: {len(two.lost)} lost of {two.flown}, {two.lost[:3]}"
            assert not two.unsent, f"{what}: {two.unsent} not sent"
        assert two.flown > 3000
        settled(two)
