"""Traffic selectors narrowed to rules (RFC 7296 section 2.9)."""

from __future__ import annotations

from dataclasses import replace

from chassis.ase.ike.payloads.v2_payloads import TrafficSelector
from chassis.ase.ike.traffic_selectors import EVERYTHING, MAX_RULES, narrow


def test_many_selectors_make_few_rules() -> None:
    ours = tuple(TrafficSelector(at << 8, (at << 8) + 5, 6) for at in range(255))
    theirs = tuple(TrafficSelector(at << 8, (at << 8) + 5, 17) for at in range(255))
    rules = tuple(replace(EVERYTHING, seq=at, source=(at << 24, 8)) for at in range(100))
    assert narrow(rules, ours, theirs) is None
    found = narrow((), ours, tuple(replace(one, protocol=0) for one in theirs))
    assert found is not None
    assert len(found) == MAX_RULES


def test_a_range_becomes_prefixes() -> None:
    everything = (TrafficSelector(0, 0xFFFFFFFF),)
    assert narrow((), everything, everything) == ()
    part = narrow((), (TrafficSelector(1, 6),), everything)
    assert part is not None
    assert [one.source for one in part] == [(1, 32), (2, 31), (4, 31), (6, 32)]
