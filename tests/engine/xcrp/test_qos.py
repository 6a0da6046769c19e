"""Marks and rates on their way from the configuration to line cards and ASPs, and what is said of them."""

from __future__ import annotations

import pytest

from chassis.bus.records import AspRateRecord, PortRecord
from tests.support.xcrp import HIGH_AVAILABILITY, Node, booted

MARK = "qos policy voice policing\n mark dscp ef\n"
BOUND = "port ethernet 3/1\n qos policy policing voice\n"


def descriptor(node: Node, card: str = "lc 3") -> int:
    record = node.cards[card].replica.records["port", "3/1"]
    assert isinstance(record, PortRecord)
    return record.descriptor


def rates(node: Node) -> dict[str, str]:
    """What each ASP got as its rate; no card has that of another."""
    found = {}
    for card, held in node.cards.items():
        for record in held.replica.records.values():
            if isinstance(record, AspRateRecord):
                assert record.card == card
                found[card] = record.rate
    return found


def apply(node: Node, text: str) -> None:
    assert node.ask("apply", text=text, file="a.cfg")["applied"]
    node.run(0.5)


@pytest.mark.behaviour("B-136")
def test_the_mark_of_a_policy_is_the_ports_until_one_of_them_goes() -> None:
    node = booted(HIGH_AVAILABILITY)
    assert descriptor(node) == -1
    for text, wanted in (
        (BOUND, -1),
        (BOUND + MARK, 46),
        (BOUND + MARK.replace("dscp ef", "priority 0"), 56),
        (BOUND + MARK.replace(" mark dscp ef\n", ""), -1),
        (MARK, -1),
    ):
        apply(node, HIGH_AVAILABILITY + text)
        assert descriptor(node) == wanted, text
        (row,) = node.ask("ports", port="3/1")["ports"]
        assert row["mark"] == (None if wanted < 0 else wanted)
        assert row["qos_policy"] == ("voice" if BOUND in text else "")


def test_a_mark_typed_as_a_difference_reaches_the_line_card() -> None:
    node = booted(HIGH_AVAILABILITY + BOUND)
    base = node.ask("identity")["version"]
    assert node.ask("commit", lines=MARK, base=base, user="u")["applied"]
    node.run(0.5)
    assert descriptor(node) == 46


def test_each_asp_gets_the_rate_of_its_pool_and_no_other() -> None:
    node = booted(HIGH_AVAILABILITY)
    assert rates(node) == {}
    apply(node, HIGH_AVAILABILITY.replace("  asp 2/1\n", "  asp 2/1\n  rate 20kpps\n"))
    assert rates(node) == {"asp 2/1": "20kpps"}
    rows = {row["asp"]: row["rate"] for row in node.ask("asps")["asps"]}
    assert rows == {"2/1": "20000 packets/s", "2/2": ""}
    # Of two pools that have an ASP the first says it.
    both = HIGH_AVAILABILITY.replace("  asp 2/1\n", "  asp 2/1\n  asp 2/2\n  rate 20kpps\n")
    apply(node, both.replace("P2 service security\n", "P2 service security\n  rate 1M\n"))
    assert rates(node) == {"asp 2/1": "20kpps", "asp 2/2": "20kpps"}
    # A commit about something else leaves it, and a controller that comes back has it too.
    assert node.ask("commit", lines=MARK, base=node.ask("identity")["version"], user="u")["applied"]
    node.run(0.5)
    assert rates(node) == {"asp 2/1": "20kpps", "asp 2/2": "20kpps"}
    node.kill_controller()
    node.start()
    node.run(2.0)
    assert rates(node) == {"asp 2/1": "20kpps", "asp 2/2": "20kpps"}
    apply(node, HIGH_AVAILABILITY)
    assert rates(node) == {}


def test_the_labs_word_is_shown_where_no_pool_has_a_rate() -> None:
    node = Node(
        HIGH_AVAILABILITY.replace("  asp 2/1\n", "  asp 2/1\n  rate 5M\n"), settings={"asp-rate": "100pps"}
    )
    node.boot_all("3/1")
    assert {row["asp"]: row["rate"] for row in node.ask("asps")["asps"]} == {
        "2/1": "5000000 bit/s",
        "2/2": "100 packets/s",
    }
    assert [(row["pool"], row["rate"]) for row in node.ask("asps")["pools"]] == [("P1", "5M"), ("P2", "")]
