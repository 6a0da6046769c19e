"""A batch is made to fit an MTU: fragments, packets given back, and marks."""

from __future__ import annotations

from array import array
from typing import Any

from chassis.bus.batch import pack
from chassis.fwd.mtu import FitResult, FragmentDecision, MtuLimits, fit_to_mtu
from chassis.net.address import parse_address as ip
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import Ipv4


def packet(size: int, *, df: bool = False) -> bytes:
    return Ipv4(ip("10.0.0.1"), ip("10.0.0.2"), 17, bytes(size - 20), dont_fragment=df).emit()


def fit(*packets: bytes, limits: MtuLimits, **more: Any) -> tuple[list[int], FitResult]:
    body, lengths = pack(packets, HEADROOM)
    result = fit_to_mtu(body, lengths, limits, **more)
    assert sum(result.lengths) == len(result.body)
    return [length - HEADROOM for length in result.lengths], result


def test_packets_are_fragmented_or_given_back_in_their_order() -> None:
    sizes, result = fit(packet(100), packet(1000), packet(600, df=True), limits=MtuLimits(500, 500))
    assert sizes == [100, 500, 500, 40]
    assert result.fragments == 2
    assert [bytes(p) for p in result.too_long] == [packet(600, df=True)]


def test_a_mark_stays_with_the_first_fragment_and_goes_with_what_is_given_back() -> None:
    marks = ((0, 7), (1, 8), (2, 9))
    _, result = fit(packet(1000), packet(600, df=True), packet(30), limits=MtuLimits(500, 500), marks=marks)
    assert result.marks == ((0, 7), (3, 9))


def test_a_policy_decides_about_what_is_too_large_only() -> None:
    asked: list[int] = []

    def policy(view: memoryview, start: int, end: int) -> FragmentDecision:
        asked.append(end - start)
        return FragmentDecision.KEEP_WHOLE

    sizes, result = fit(packet(100), packet(900), limits=MtuLimits(500, 500, 500), policy=policy)
    assert (sizes, asked, result.whole) == ([100, 900], [900], 1)
    sizes, result = fit(packet(900), limits=MtuLimits(500, 500), policy=policy)
    assert (sizes, len(result.too_long)) == ([], 1)


def test_what_is_no_packet_is_counted_and_left_out() -> None:
    body = bytearray(HEADROOM + 10)
    result = fit_to_mtu(body, array("H", [len(body)]), MtuLimits(500, 500))
    assert (result.malformed, list(result.lengths)) == (1, [])
