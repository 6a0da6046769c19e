"""Both ends do something at once, with packets flowing both ways and messages lost: nothing is lost, all agree.

The packets go through the data engines of both ends. While either end holds a successor none may be lost. Where a
pair was deleted, by the operator or because it was used up, packets are dropped until there is a new one: by a
data engine, which counts it, and never sent in clear.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import pytest

from chassis.ase.ike_messages import IkePacket
from tests.support.ike.dataplane import LEFT, DataplanePair, carried_ends
from tests.support.ike.pair import End, other

PACE = 0.005
"""Seconds between two packets of a flow."""

ACTIONS = ("child", "ike", "clear", "used up", "")
OFFSETS = (0.0, 0.005, 0.012)
"""Seconds from what a does until b does something."""
DELETING = {"clear", "used up"}
TROUBLES = ("none", "first of a", "first of b", "first of both", "second of a", "second of b", "slow a", "twice")
CAUSES = {"no outbound sa", "no inbound sa"}
"""Why a packet is dropped while there is no pair: the sender has none, or the receiver none that fits."""


class Wire:
    """Loses, delays or doubles the first messages after it was armed."""

    def __init__(self, trouble: str) -> None:
        self.trouble = trouble
        self.armed = False
        self._count = {LEFT: 0, other(carried_ends()).local: 0}

    def __call__(self, sender: int, packet: IkePacket, now: float) -> Iterable[float]:
        if not self.armed:
            return (0.01,)
        self._count[sender] += 1
        number, name = self._count[sender], "a" if sender == LEFT else "b"
        order = {1: "first", 2: "second"}.get(number, "")
        if self.trouble in (f"{order} of {name}", f"{order} of both"):
            return ()
        if self.trouble == f"slow {name}" and number <= 2:
            return (0.3,)
        return (0.01, 0.011) if self.trouble == "twice" else (0.01,)


def act(two: DataplanePair, end: End, action: str) -> None:
    if action == "clear":
        two.ask(end, "clear")
    elif action == "used up":
        two.used_up(end)
    elif action:
        two.ask(end, "rekey", what=action)


def flow(two: DataplanePair, seconds: float, pace: float = PACE) -> None:
    until = two.now + seconds
    while two.now < until:
        two.flow(two.a)
        two.flow(two.b)
        two.run(pace)


def settled(two: DataplanePair) -> None:
    two.run(1)
    assert two.paired() == 1
    for end in (two.a, two.b):
        row = two.ask(end, "sas").result["tunnels"][0]
        # A delete of version 1 is not answered: where it was lost, the old phase 1 stays until its lifetime ends.
        serving = [one for one in row["ike"] if "successor" not in one["state"]]
        assert len(serving) == 1, row
        assert end.ike.ike_sa_manager.spis_held == sum(
            bool(pair.inbound.esp_spi) + bool(pair.inbound.ah_spi) + bool(pair.cpi_in)
            for pair in end.pairs.values()
        )


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("apart", OFFSETS)
def test_whatever_two_ends_do_at_once(version: int, trouble: str, apart: float) -> None:
    """Each pair of actions meets every trouble, at one of the offsets."""
    turn = TROUBLES.index(trouble) + OFFSETS.index(apart)
    for number, (first, second) in enumerate(product(ACTIONS[:-1], ACTIONS)):
        if (number + turn) % len(OFFSETS):
            continue
        ends = carried_ends(version=version)
        wire = Wire(trouble)
        two = DataplanePair(ends, other(ends), trouble=wire)
        two.learns = 0.65 if trouble == "slow a" else two.learns
        assert two.until(lambda two=two: two.a.up(1) and two.b.up(1), 10)
        two.run(15)
        flow(two, 0.05)
        assert not two.drops()
        wire.armed = True
        act(two, two.a, first)
        flow(two, apart) if apart else None
        act(two, two.b, second)
        flow(two, 0.1)
        flow(two, 0.9, 0.03)
        flow(two, 2.0, 0.1)
        # Successors are made by then, predecessors deleted.
        wire.armed = False
        two.run(60)
        before = two.drops()
        flow(two, 0.05)
        two.run(1)
        what = f"{first} of a, {second or 'nothing'} of b, {trouble}, {apart} s apart"
        drops = two.drops()
        if not DELETING & {first, second}:
            assert not drops, f"{what}: {drops} of {two.flown}"
        assert drops == before, what
        assert set(drops) <= CAUSES, f"{what}: {drops}"
        assert not two.spared, f"{what}: {two.spared[:3]}"
        assert two.flown == two.arrived + sum(drops.values()), what
        assert two.flown > 150
        settled(two)
