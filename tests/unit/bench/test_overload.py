"""The judge of a minute with too much load finds what it is there for."""

from __future__ import annotations

from typing import Any

import pytest

from bench import overload
from bench.overload import Overloaded, judged
from launch.client.accounting import PacketAccounting
from launch.client.lab_client import LabTimeout

SENT, ARRIVED = 4_000_000, 2_000_000


def overloaded(**values: Any) -> Overloaded:
    """A minute in which half of the packets did not get in; six rekeys, and a probe every second."""
    ledger = PacketAccounting(SENT, ARRIVED, dropped={"t1": {"port 1 drop not sent": SENT - ARRIVED}})
    return Overloaded(33_000.0, **{"rekeys": [0.1] * 6, "probes": 55, "messages": 170, "ledger": ledger} | values)


def test_a_good_one_is_good() -> None:
    assert judged(overloaded()) == []
    # A message may come late, and be sent again.
    assert judged(overloaded(retransmissions=3, lag=0.2)) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"harm": ["b: asp 1/2 hung: epoch 2"]}, "asp 1/2 hung"),
        ({"harm": ["a: tunnel rec_1_1 down (dead peer)"]}, "rec_1_1 down"),
        ({"failed": ["CHILD SA rekey from a: not within 10 s"]}, "rekey from a: not within"),
        ({"fenced": 900}, "fenced itself: it dropped 900 packets"),
        ({"lost": 1}, "IKE lost 1 messages, of 170"),
        ({"probes": 0}, "part did not run: 6 rekeys, 0 probes"),
        ({"rekeys": []}, "part did not run: 0 rekeys"),
        ({"ledger": PacketAccounting(SENT, SENT)}, "too little was offered"),
    ],
)
def test_harm_is_found(values: dict[str, Any], expected: str) -> None:
    (wrong,) = judged(overloaded(**values))
    assert expected in wrong


@pytest.mark.parametrize(
    "part",
    [
        {"unexplained": {"wire a:3/11 to b:3/12": 1}},
        {"unexplained": {"wire a:3/11 to b:3/12": 1, "a fabric": -1}},
        {"lost_in_crash": {"a asp 1/1": 7}},
        {"overflowed": {"a lc 3": 1}},
        {"non_flow": 1},
    ],
)
def test_a_balance_that_is_not_exact_is_found(part: dict[str, Any]) -> None:
    result = overloaded()
    assert result.ledger is not None
    for name, value in part.items():
        setattr(result.ledger, name, value)
    (wrong,) = judged(result)
    assert wrong.startswith("the accounting does not balance")


class FakeLab:
    """Two routers whose SAs are tables. A rekey makes a new pair at both ends, at end a alone, or none."""

    def __init__(self, ends: str) -> None:
        self.ends = ends
        self.serials = {"a": 1, "b": 1}
        self.now = 0.0
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.name = ""

    def node(self, name: str) -> FakeLab:
        self.name = name
        return self

    def call(self, command: str, **arguments: str) -> dict[str, Any]:
        if command == "rekey":
            self.asked.append((self.name, arguments))
            for end in self.ends:
                self.serials[end] += 1
            return {}
        serial, other = self.serials[self.name], self.name == "b"
        rows = [
            {"serial": number, "direction": way, "spi": 100 * number + ((way == "in") != other)}
            for number in range(1, serial + 1)
            for way in ("out", "in")
        ]
        ike = [
            {"state": "established", "ends": float(number), "cookie_i": f"cookie {number}"}
            for number in range(1, serial + 1)
        ]
        return {"cards": {"asp 1/1": {"tunnels": [{"sas": rows, "ike": ike}]}}}

    def clock(self) -> float:
        self.now += 0.5
        return self.now

    def wait_until(self, condition: Any, within: float) -> None:
        if not condition():
            raise LabTimeout(f"not within {within:g} s")


@pytest.mark.parametrize(("ends", "succeeds"), [("ab", True), ("a", False), ("", False)])
def test_a_rekey_succeeds_when_both_ends_have_the_same_new_sa(ends: str, succeeds: bool) -> None:
    lab, result = FakeLab(ends), Overloaded(0.0)
    for _ in overload.REKEYS:
        overload._rekey(lab, result)  # type: ignore[arg-type]
    assert [(node, arguments.get("what", "")) for node, arguments in lab.asked] == list(overload.REKEYS)
    assert (len(result.rekeys), len(result.failed)) == ((4, 0) if succeeds else (0, 4))
    if not succeeds:
        assert "ike rekey from a: not within 10 s" in result.failed[2]
