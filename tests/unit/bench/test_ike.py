"""The bars that IKE's benchmarks hold."""

from __future__ import annotations

from math import inf

import pytest

from bench import ike, ike_load

RIGHT = ike_load.Carried(1000, 4.9, 20.0, 0, 50.0, 1.0, 1.0, 30.0)
CHARON = {100: 1.2, 1000: 5.7, 4000: 55.0}


def missed(found: list[tuple[str, bool]]) -> list[str]:
    return [text for text, reached in found if not reached]


def test_a_set_up_costs_the_same_with_many_tunnels_and_less_than_charons() -> None:
    right = {100: 3.6, 1000: 4.0, 4000: 4.5}
    assert not missed(ike.bars(2, right, CHARON))
    assert not missed(ike.bars(2, right, {}))
    assert len(missed(ike.bars(2, {**right, 100: 3.7}, CHARON))) == 1
    assert len(missed(ike.bars(2, {**right, 4000: 4.6}, CHARON))) == 1
    assert len(missed(ike.bars(2, {100: 5.0, 1000: 5.8, 4000: 5.8}, CHARON))) == 2
    assert len(missed(ike.bars(2, {100: 3.0, 1000: 3.0, 4000: inf}, CHARON))) == 2


@pytest.mark.parametrize("wrong", [(1000, 5.0, 20.0, 0), (1000, 4.9, 20.0, 1), (0, 4.9, 20.0, 0)])
def test_packets_beside_set_ups(wrong: tuple[int, float, float, int]) -> None:
    assert not missed(ike_load.bars(RIGHT))
    assert len(missed(ike_load.bars(ike_load.Carried(*wrong, 50.0, 1.0, 1.0, 30.0)))) == 1


def test_heartbeats_beside_set_ups() -> None:
    assert len(missed(ike_load.bars(ike_load.Carried(1000, 4.9, 20.0, 0, 50.0, 1.0, 1.0, 100.0)))) == 1
