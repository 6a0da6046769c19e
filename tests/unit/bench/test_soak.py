"""The judge of a soak finds what it is there for."""

from __future__ import annotations

import pytest

from bench.soak import NOISE, Soaked, judged
from launch.client.accounting import PacketAccounting

SECONDS, RATE, SENT = 60.0, 2000, 120_000


def soaked(taken: int = 0, memory: list[int] | None = None) -> Soaked:
    """A minute with five kills of which the others knew after 10 ms; no packet was longer than 30 ms under way."""
    result = Soaked(SECONDS, kills=5, rekeys=20, injected=100, captured=1000, inside=100, unknown=[0.01] * 5)
    result.reports = {
        way: {"sent": SENT // 2, "received": SENT // 2 - taken // 2, "latency": {"max_ms": 30.0}}
        for way in ("forward", "reverse")
    }
    looks = memory or [50 << 20] * 30
    result.memory = {"a lc 3": {7: [(2.0 * at, size) for at, size in enumerate(looks)]}}
    result.ledger = PacketAccounting(SENT, SENT - taken, lost_in_crash={"a fabric": taken} if taken else {})
    return result


def test_a_good_one_is_good() -> None:
    assert judged(soaked()) == []
    assert judged(soaked(taken=5 * int(RATE * 0.04))) == []


@pytest.mark.parametrize("taken", [8_000, 30_000])
def test_more_than_can_have_waited_did_not_go_with_a_process(taken: int) -> None:
    """The queues would have held it all: it cannot have been in them."""
    (wrong,) = judged(soaked(taken))
    assert wrong.startswith(f"{taken:,} packets went with 5 processes")


def test_queues_hold_no_more_than_they_do_however_late_the_others_knew() -> None:
    result = soaked()
    result.unknown = [1000.0]
    assert result.max_lost_in_crash() < SENT


def test_a_leak_of_a_few_octets_a_packet_is_found() -> None:
    """At 100 packets a look the noise is larger; at 100,000 it is not."""
    for octets in (3, 8):
        looks = [(50 << 20) + octets * 100_000 * at for at in range(60)]
        result = soaked(memory=looks)
        result.seconds, result.reports = 120.0, {"forward": {**soaked().reports["forward"], "sent": 6_000_000}}
        result.reports["forward"]["received"] = 6_000_000
        assert result.growth() == {"a lc 3": pytest.approx(octets)}
        (wrong,) = judged(result, 2.0)
        assert "memory grew" in wrong


def test_every_life_of_a_card_that_is_killed_is_looked_at() -> None:
    result = soaked()
    leaking = [(2.0 * at, (50 << 20) + at * NOISE) for at in range(12)]
    result.memory = {"a asp 1/1": dict.fromkeys(range(3), leaking) | {9: leaking[:5]}}
    assert result.growth() == {"a asp 1/1": pytest.approx(NOISE / 2 / RATE)}
    assert "memory grew" in judged(result)[0]


@pytest.mark.parametrize(
    "extra",
    [
        [0] * 12 + [30 << 20] * 5 + [0] * 13,  # full for a moment
        [0] * 26 + [30 << 20] * 4,  # at the end
        [30 << 20] * 8 + [0] * 22,  # at the beginning
        [(at % 3) << 18 for at in range(30)],  # what an allocator does
    ],
)
def test_queues_that_fill_are_no_leak(extra: list[int]) -> None:
    result = soaked(memory=[(50 << 20) + more for more in extra])
    assert result.growth() == {"a lc 3": 0.0}
    assert judged(result) == []
