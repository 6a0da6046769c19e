"""Thousands of generated requests for a line card: each is answered or handed to the shell, nothing is raised."""

from __future__ import annotations

import pytest

from chassis.bus.engine import ToController
from chassis.bus.messages import Request
from chassis.bus.requests import LINE_CARD
from tests.support import odd
from tests.support.linecard import HOST, Rig


def test_the_table_names_every_request() -> None:
    assert LINE_CARD.keys() == {
        "ping", "trace", "neighbours", "clear-arp", "counters", "stamps", *Rig().card.performs
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
def test_generated_requests(seed: int) -> None:
    rig = Rig()
    for number, (name, arguments) in enumerate(odd.requests(LINE_CARD, 500, seed, odd.RAW)):
        about = (name, arguments)
        request = odd.survived(odd.over_the_bus, Request(number, name, arguments), about=about)
        if request is None:
            continue
        outputs = odd.survived(rig.card.receive, request, rig.now, about=about)
        odd.carried(rig.do(outputs), about)
        if name != "ping":
            assert odd.asked(outputs), about
        rig.after(0.01)


def test_the_largest_echo_request_fits_into_a_batch() -> None:
    rig = Rig().knows("3/1", "10.0.0.5", HOST)
    largest = 65_535 - 14 - 20 - 8
    for size, refused in ((largest, False), (largest + 1, True)):
        outputs = odd.survived(
            rig.card.receive, Request(1, "ping", {"context": "vpn", "address": "10.0.0.5", "size": size}), rig.now
        )
        rig.do(outputs)
        answers = [output.message.error for output in outputs if isinstance(output, ToController)]
        assert ["size" in error for error in answers] == [True] * refused, (size, answers)


def test_counters_are_of_each_port_and_of_the_circuits_between_two_numbers() -> None:
    """What drivers count by name is told by port: frames, and what was dropped or lost on the wire."""
    rig = Rig()
    for name, count in {
        "port 3/1 frames received": 7,
        "port 3/1 frames injected": 2,
        "port 3/1 frames sent": 5,
        "port 3/1 drop not sent": 1,
        "port 3/1 impairment loss": 3,
        "port 3/1 impairment duplicate": 4,
        "port 3/10 frames sent": 100,
    }.items():
        rig.card.counters.add(name, count)
    circuit = next(iter(rig.card.circuits.own))
    rig.card.counters.add(f"circuit {circuit} packets out", 9)
    rig.card.counters.add(f"circuit {circuit} bytes out", 900)

    def told(**asked: object) -> dict[str, object]:
        (answer,) = rig.card.receive(Request(1, "counters", asked), rig.now)
        assert isinstance(answer, ToController)
        return dict(answer.message.result)

    ports = told(ports=True)["ports"]
    assert isinstance(ports, dict)
    assert ports.keys() == rig.card.ports.own.keys()
    assert ports["3/1"] == {"packets_in": 9, "packets_out": 5, "drops": 4}
    assert told(ports=True)["circuits"] == {}
    counted = {"packets_in": 0, "octets_in": 0, "packets_out": 9, "octets_out": 900}
    assert told(first=circuit, last=circuit) == {"ports": {}, "circuits": {str(circuit): counted}}
    assert told(first=circuit + 1, last=circuit + 1)["circuits"] == {}
