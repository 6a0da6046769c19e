"""Thousands of generated requests for an ASP and its IKE: each is answered, nothing is raised."""

from __future__ import annotations

import pytest

from chassis.bus.engine import ToController, ToIke
from chassis.bus.messages import Reply, Request
from chassis.bus.requests import ASP
from tests.support import odd
from tests.support.asp import records
from tests.support.asp_negotiated import Side


@pytest.mark.parametrize("seed", range(2))
def test_generated_requests(seed: int) -> None:
    side = Side(records())
    for number, (name, arguments) in enumerate(odd.requests(ASP, 500, seed, odd.RAW)):
        about = (name, arguments)
        request = odd.survived(odd.over_the_bus, Request(number, name, arguments), about=about)
        if request is None:
            continue
        outputs = odd.survived(side.asp.receive, request, side.now, about=about)
        assert odd.asked(odd.carried(outputs, about)), about
        for output in outputs:
            if isinstance(output, ToController) and isinstance(output.message, Reply):
                assert output.message.number == number
            elif isinstance(output, ToIke):
                side.take([output])
