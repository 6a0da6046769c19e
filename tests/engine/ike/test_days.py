"""Six hours, simulated, of short lifetimes, lost messages and kills: every tunnel always has a usable SA."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

import pytest

from chassis.ase.ike_messages import IkePacket
from tests.support.ike.pair import START, Ends, EnginePair, esp, other, proposal

DURATION = 21_600
BETWEEN_KILLS = 900
"""Seconds."""
LOSS = 0.01
LIFETIME = 300
RESTART = 1.0
"""Seconds that the launcher waits before it starts a dead ASP again."""

BOUND = 6.0
"""Seconds from a kill until both directions have a usable SA again, with one message in a hundred lost."""


@pytest.mark.parametrize("version", [1, 2])
def test_short_lifetimes_and_kills(version: int, measured: Callable[[str], None]) -> None:
    chance = Random(version)

    def trouble(sender: int, packet: IkePacket, now: float) -> Iterable[float]:
        return () if chance.random() < LOSS else (0.002 + 0.02 * chance.random(),)

    ends = Ends(
        version=version,
        lifetime=LIFETIME,
        proposals=(proposal(version, lifetime=LIFETIME),),
        suites=(esp(seconds=LIFETIME),),
        keepalive=True,
    )
    far = other(ends)
    two = EnginePair(ends, far, trouble=trouble, **{"dpd-interval": 10.0})
    assert two.until(lambda: two.packet(two.a) and two.packet(two.b), BOUND)
    outages: list[float] = []
    lost_at = 0.0
    kill_at = START + BETWEEN_KILLS
    while two.now < START + DURATION:
        if two.now >= kill_at:
            kill_at += BETWEEN_KILLS
            victim, config = (two.a, ends) if chance.random() < 0.5 else (two.b, far)
            killed = two.now
            two.mute(victim)
            two.run(RESTART)
            two.restart(victim, config)
            two.until(lambda: two.packet(two.a) and two.packet(two.b), 60)
            outages.append(two.now - killed)
            assert outages[-1] < BOUND, f"a kill cost {outages[-1]:.2f} s"
        two.run(1.0)
        for end in (two.a, two.b):
            if not two.packet(end):
                lost_at = two.now
        assert lost_at == 0.0, f"no usable SA {lost_at - START:.0f} s after the start, without a kill"
        assert len(two.a.pairs) <= 4
        assert len(two.b.pairs) <= 4
    worst, median = max(outages), sorted(outages)[len(outages) // 2]
    measured(
        f"six hours of IKEv{version}: {len(outages)} kills, usable again after median {median:.2f} s, "
        f"worst {worst:.2f} s (bound {BOUND:.0f} s); otherwise always"
    )
