"""Thousands of generated requests for a tester: each is answered or handed to the shell, nothing is raised."""

from __future__ import annotations

import pytest

from chassis.bus.requests import TESTER
from tests.support import odd
from tests.support.tester import Pair


def test_the_table_names_every_command() -> None:
    pair = Pair()
    assert {*pair.t1._commands, *pair.t1.performs} == TESTER.keys()


@pytest.mark.parametrize("seed", range(2))
def test_generated_requests(seed: int) -> None:
    pair = Pair()
    for number, (name, arguments) in enumerate(odd.requests(TESTER, 500, seed, odd.RAW)):
        about = (name, arguments)
        outputs = odd.survived(pair.t1.on_operator_command, number, name, arguments, pair.now, about=about)
        assert odd.asked(odd.carried(outputs, about)), about
        # A flow as fast as the wire takes it would take all the time that there is.
        pair.call(pair.t1, "stop")
        odd.survived(pair.run, 0.001, about=about)
    pair.call(pair.t1, "start", flow="forward", count=3)
    pair.run(1.0)
    assert pair.ends()[0]["sent"] >= 3
