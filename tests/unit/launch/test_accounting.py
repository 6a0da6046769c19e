"""The ledger of a lab's packets: every one is found, or its place and cause are told."""

from __future__ import annotations

import pytest

from chassis.bus.counters import OVERFLOW_NAME
from launch.client.accounting import PacketAccounting, account_for

KINDS = {"t1": "tester", "t2": "tester", "a": "smartedge"}
LINKS = (("t1:1", "a:3/1"), ("a:3/2", "t2:1"))


def counters() -> dict[str, dict[str, dict[str, int]]]:
    """A router between two testers: 100 packets sent, 90 received, ARP beside them; nobody died."""
    return {
        "t1": {"tester": {"flow f sent": 100, "port 1 frames sent": 101, "port 1 impairment loss": 1}},
        "t2": {"tester": {"flow f received": 90, "port 1 frames received": 91}},
        "a": {
            "lc 3": {"port 3/1 frames received": 101, "packets originated": 1, "packets delivered": 3,
                "drop no route": 3, "fabric sent": 96, "fabric received": 92, "packets from wire": 101,
                "port 3/2 frames sent": 91, "port 3/2 drop not sent": 1, "drop fabric full to asp 1/1": 0},
            "asp 1/1": {"fabric received": 96, "drop no outbound sa": 4, "fabric sent": 92},
        },
    }  # fmt: skip


def settled(values: dict[str, dict[str, dict[str, int]]], *died: tuple[str, str]) -> PacketAccounting:
    return account_for(KINDS, LINKS, values, died)


def test_every_packet_is_found() -> None:
    ledger = settled(counters())
    assert (ledger.sent, ledger.received, ledger.lost) == (100, 90, 10)
    assert ledger.dropped == {
        "t1": {"port 1 impairment loss": 1},
        "a lc 3": {"no route": 3, "port 3/2 drop not sent": 1},
        "a asp 1/1": {"no outbound sa": 4},
    }
    assert (ledger.unexplained, ledger.lost_in_crash, ledger.residual) == ({}, {}, 0)


@pytest.mark.parametrize(("node", "card", "counter", "where"), [
    ("a", "asp 1/1", "drop no outbound sa", "a asp 1/1"),
    ("a", "asp 1/1", "fabric received", "a fabric"),
    ("a", "lc 3", "port 3/2 frames sent", "wire a:3/2 to t2:1"),
    ("a", "lc 3", "port 3/1 frames received", "wire t1:1 to a:3/1"),
    ("a", "lc 3", "drop no route", "a lc 3"),
])  # fmt: skip
def test_a_packet_that_nobody_counted_has_a_place(node: str, card: str, counter: str, where: str) -> None:
    values = counters()
    values[node][card][counter] -= 1
    ledger = settled(values)
    assert where in ledger.unexplained
    assert ledger.residual == 0


def test_what_a_process_took_with_it_is_told_apart() -> None:
    values = counters()
    values["a"]["asp 1/1"]["fabric received"] -= 5
    values["a"]["asp 1/1"]["drop no outbound sa"] -= 2
    values["a"]["asp 1/1"]["fabric sent"] -= 4
    values["a"]["lc 3"]["fabric received"] -= 4
    values["a"]["lc 3"]["port 3/2 frames sent"] -= 4
    values["t2"]["tester"]["port 1 frames received"] -= 4
    values["t2"]["tester"]["flow f received"] -= 4
    ledger = settled(values, ("a", "asp 1/1"))
    assert ledger.lost_in_crash == {"a asp 1/1": 1, "a fabric": 5}
    assert (ledger.unexplained, ledger.residual) == ({}, 0)


@pytest.mark.parametrize("died", [("a", "lc 3"), ("t2", "tester")])
def test_what_was_on_a_wire_went_with_the_process_at_either_end(died: tuple[str, str]) -> None:
    values = counters()
    values["t2"]["tester"]["port 1 frames received"] -= 4
    values["t2"]["tester"]["flow f received"] -= 4
    ledger = settled(values, died)
    assert ledger.lost_in_crash == {"wire a:3/2 to t2:1": 4}
    assert (ledger.unexplained, ledger.residual) == ({}, 0)


def test_copies_made_by_a_wire_are_packets_too() -> None:
    values = counters()
    values["t1"]["tester"]["port 1 impairment duplicate"] = 2
    values["t1"]["tester"]["port 1 frames sent"] += 2
    values["a"]["lc 3"]["port 3/1 frames received"] += 2
    values["a"]["lc 3"]["drop no route"] += 2
    ledger = settled(values)
    assert (ledger.unexplained, ledger.residual) == ({}, 0)


def test_a_linux_node_may_send_and_take_what_it_likes() -> None:
    values = counters()
    del values["t2"]
    ledger = account_for(
        {"t1": "tester", "h": "linux", "a": "smartedge"}, (LINKS[0], ("a:3/2", "h:eth1")), values, ()
    )
    assert (ledger.received, ledger.unexplained, ledger.residual) == (0, {}, 0)


def test_what_was_counted_without_a_name_has_a_row_of_its_own() -> None:
    values = counters()
    values["a"]["asp 1/1"][OVERFLOW_NAME] = 77
    ledger = settled(values)
    assert ledger.overflowed == ledger.to_json()["overflowed"] == {"a asp 1/1": 77}
    assert (ledger.unexplained, ledger.residual) == ({}, 0)
