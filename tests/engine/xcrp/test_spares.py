"""A spare ASP takes a place: what the controller tells cards and operators of it (S-108)."""

from __future__ import annotations

from contextlib import suppress
from math import inf

import pytest

from chassis.bus.records import LocalAddressRecord, OnDemandRecord
from tests.support.on_demand import HUB, hub
from tests.support.xcrp import HIGH_AVAILABILITY, Cut, Node, booted

POOL = "asp pool P1 service security\n  asp 2/1\n"
SPARE = HIGH_AVAILABILITY.replace("card ase 2\n", "card ase 2\ncard ase 5\n").replace(POOL, f"{POOL}  asp 5/1\n")


def roles(node: Node) -> dict[str, tuple[str, str, list[str]]]:
    """State, role and contexts of each ASP."""
    return {row["asp"]: (row["state"], row["role"], row["contexts"]) for row in node.ask("asps")["asps"]}


def owners(node: Node, card: str = "lc 3") -> set[str]:
    records = node.cards[card].replica.records.values()
    return {one.owner for one in records if isinstance(one, LocalAddressRecord) and one.owner}


def commit(node: Node, lines: str) -> None:
    assert node.ask("commit", lines=lines, user="me", base=-1)["applied"]
    node.run(0.1)


@pytest.mark.behaviour("B-200")
def test_cards_and_operators_learn_the_new_owner_at_once() -> None:
    node = booted(SPARE)
    assert owners(node) == {"asp 2/1", "asp 2/2"}
    assert roles(node)["5/1"] == ("up", "spare", [])
    node.kill_card("asp 2/1")
    assert owners(node) == owners(node, "lc 4") == {"asp 5/1", "asp 2/2"}
    assert roles(node)["5/1"] == ("up", "active", ["L1"])
    assert roles(node)["2/1"] == ("down", "spare", [])
    assert roles(node)["2/2"] == ("up", "active", ["L2"])
    node.run(0.1)
    assert node.tunnel("Tun-1")["up"]
    assert node.tunnel("Tun-1")["asp"] == "asp 5/1"
    assert [text for text in node.events() if "takes the place" in text] == ["asp 5/1 takes the place of asp 2/1"]
    node.start_card("asp 2/1")
    node.run(0.3)
    assert roles(node)["2/1"] == ("up", "spare", [])
    (pool,) = [row for row in node.ask("asps")["pools"] if row["pool"] == "P1"]
    assert (pool["up"], pool["spare"]) == (2, 1)
    (group,) = [row for row in node.ask("asps")["groups"] if row["group"] == "G1"]
    assert group["active"] == ["5/1"]


@pytest.mark.behaviour("B-200")
def test_without_a_spare_the_place_waits_for_its_asp() -> None:
    node = booted(SPARE)
    node.kill_card("asp 2/2")
    node.run(0.1)
    assert owners(node) == {"asp 2/1", "asp 2/2"}
    assert node.tunnel("Tun-2")["reason"] == "ASP: asp 2/2 is down"
    assert node.tunnel("Tun-1")["up"]


def test_a_place_that_waits_goes_to_the_first_that_is_ready() -> None:
    node = booted(SPARE)
    for card in ("asp 5/1", "asp 2/1"):
        node.kill_card(card)
    node.run(0.1)
    assert owners(node) == {"asp 2/1", "asp 2/2"}
    node.start_card("asp 5/1")
    node.run(0.3)
    assert owners(node) == {"asp 5/1", "asp 2/2"}
    assert node.tunnel("Tun-1")["up"]


@pytest.mark.parametrize("line", ["asp 1 shutdown", "shutdown"])
def test_an_asp_that_is_shut_down_gives_its_place_away(line: str) -> None:
    node = booted(SPARE)
    commit(node, f"card ase 2\n {line}\n")
    assert owners(node) == {"asp 5/1", "asp 2/2"}
    assert roles(node)["2/1"][:2] == ("shutdown", "spare")
    commit(node, f"card ase 2\n no {line}\n")
    node.run(0.5)
    assert owners(node) == {"asp 5/1", "asp 2/2"}
    assert node.tunnel("Tun-1")["up"]
    assert node.tunnel("Tun-2")["up"]


def test_a_spare_that_is_shut_down_takes_nothing() -> None:
    node = booted(SPARE)
    commit(node, "card ase 5\n asp 1 shutdown\n")
    node.kill_card("asp 2/1")
    node.run(0.1)
    assert owners(node) == {"asp 2/1", "asp 2/2"}


def test_the_first_start_gives_no_place_away() -> None:
    """A spare that is up before the ASP that it stands by for."""
    node = Node(SPARE)
    node.start()
    for card in ("lc 3", "lc 4", "asp 5/1", "asp 5/2", "asp 2/2"):
        node.start_card(card)
    node.run(3.0)
    assert owners(node) == {"asp 2/1", "asp 2/2"}
    node.start_card("asp 2/1")
    node.run(0.3)
    assert roles(node)["2/1"][:2] == ("up", "active")


@pytest.mark.behaviour("B-171")
def test_peers_of_on_demand_tunnels_come_again_at_the_spare() -> None:
    node = hub(HUB.replace("  asp 2/1\n", "  asp 2/1\n  asp 2/2\n"))
    for at in (1, 2, 3):
        node.admit(f"{at}.example", f"50.0.0.{at}")
    assert owners(node) == {"asp 2/1"}
    node.kill_card("asp 2/1")
    node.run(0.1)
    assert owners(node) == {"asp 2/2"}
    assert not node.instances("lc 3")
    records = node.cards["asp 2/2"].replica.records.values()
    (record,) = [one for one in records if isinstance(one, OnDemandRecord)]
    assert (record.asp, record.wanted) == ("asp 2/2", True)


def test_a_controller_that_is_killed_in_a_takeover_leaves_one_owner() -> None:
    """At each of its outputs: the next controller finishes it, or finds it done."""
    for outputs in range(14):
        node = booted(SPARE)
        node.budget = outputs
        with suppress(Cut):
            node.kill_card("asp 2/1")
        node.budget = inf
        node.kill_controller()
        node.start()
        node.run(3.0)
        found = owners(node)
        assert found == owners(node, "lc 4") == {"asp 5/1", "asp 2/2"}
        assert node.tunnel("Tun-1")["up"]
        node.start_card("asp 2/1")
        node.run(0.3)
        node.kill_controller()
        node.start()
        node.run(3.0)
        assert owners(node) == found
        assert roles(node)["2/1"] == ("up", "spare", [])
