"""Moved end points and other SPIs of tunnels that are up wait for the end of a tunnel or a `clear` (guide 11)."""

from __future__ import annotations

import pytest

from chassis.bus.engine import ToController
from chassis.bus.messages import SaEvent, SaReport
from chassis.bus.records import LocalAddressRecord, PolicyRecord, TunnelRecord
from chassis.model.ipsec import ManualSa
from chassis.net.address import format_address, parse_address
from tests.engine.xcrp.test_ike_tunnels import say
from tests.engine.xcrp.test_plan_changes import check
from tests.support.cli_node import run
from tests.support.xcrp import HIGH_AVAILABILITY, Node, booted, sa
from tests.support.xcrp_ike import PORTS, STATIC

SECOND_END = "context L1\n interface second loopback\n  ip address 1.1.1.2/32\n"
MOVE = "tunnel ipsec Tun-1 manual\n peer-end-point local 1.1.1.2 remote 3.3.3.3 context L1\n"
MOVED = "peer-end-point local 1.1.1.2 remote 3.3.3.3 context L1"


def commit(node: Node, lines: str) -> None:
    assert node.ask("commit", lines=lines, base=-1, user="x")["applied"]
    node.run(0.2)
    check(node)


def clear(node: Node, tunnel: str, what: str = "ipsec") -> None:
    node.ask("clear", tunnel=tunnel, what=what)
    node.run(0.2)
    check(node)


def record(node: Node, name: str = "Tun-1", card: str = "asp 2/1") -> TunnelRecord:
    records = node.cards[card].replica.records.values()
    (found,) = [one for one in records if isinstance(one, TunnelRecord) and one.config.name == name]
    return found


def ends(node: Node, name: str = "Tun-1", card: str = "asp 2/1") -> tuple[str, str]:
    """Local and remote end as a card was told."""
    found = record(node, name, card)
    return format_address(found.local), format_address(found.remote)


def spi(node: Node, name: str = "Tun-1", card: str = "asp 2/1") -> int:
    """The SPI of the manual SA that a card was told to use."""
    (entry,) = record(node, name, card).config.entries
    sent = node.cards[card].replica.records["manual-sa", str(entry.sa)]
    assert isinstance(sent, PolicyRecord)
    assert isinstance(sent.value, ManualSa)
    return sent.value.keys("out").esp_spi


def moved(node: Node) -> Node:
    """A move of Tun-1 that waits."""
    commit(node, SECOND_END)
    commit(node, MOVE)
    assert ends(node) == ("1.1.1.1", "3.3.3.3")
    row = node.tunnel("Tun-1")
    assert (row["up"], row["local"], row["waiting"]) == (True, "1.1.1.1", [MOVED])
    return node


@pytest.mark.behaviour("B-193", "B-195")
def test_a_moved_end_point_waits_for_a_clear_of_its_tunnel() -> None:
    node = moved(booted())
    since = node.tunnel("Tun-1")["since"]
    assert MOVED in str(node.ask("config")["text"]), "what is configured is printed"
    assert f"Waits for a clear: {MOVED}" in run(node, "show tunnel ipsec name Tun-1 detail")
    commit(node, "tunnel ipsec Tun-1 manual\n mtu 1300\n")
    assert record(node).config.mtu == 1300, "what is no matter of SAs acts at once"
    clear(node, "Tun-2")
    assert (ends(node), node.tunnel("Tun-1")["since"]) == (("1.1.1.1", "3.3.3.3"), since)
    clear(node, "Tun-1")
    assert ends(node) == ("1.1.1.2", "3.3.3.3")
    assert node.tunnel("Tun-1")["waiting"] == []
    # The address that is no longer used belongs to no ASP.
    owner = [
        one.owner
        for one in node.cards["lc 3"].replica.records.values()
        if isinstance(one, LocalAddressRecord) and one.address == parse_address("1.1.1.2")
    ]
    assert owner == ["asp 2/1"]
    assert node.tunnel("Tun-1")["up"]


@pytest.mark.behaviour("B-195")
def test_a_clear_of_all_tunnels_is_one_of_each() -> None:
    node = moved(booted())
    clear(node, "")
    assert ends(node) == ("1.1.1.2", "3.3.3.3")


@pytest.mark.behaviour("B-193")
def test_a_moved_end_point_acts_when_the_tunnel_goes_down() -> None:
    node = moved(booted())
    node.carrier_event("3/11", False)
    node.run(0.1)
    check(node)
    assert ends(node) == ("1.1.1.2", "3.3.3.3")
    node.carrier_event("3/11", True)
    node.run(0.2)
    assert node.tunnel("Tun-1")["up"]
    assert "tunnel Tun-1: the change that waited is in force" in node.events()


def test_it_acts_when_its_asp_fails_and_with_another_controller() -> None:
    node = moved(booted())
    node.kill_card("asp 2/1")
    node.run(0.1)
    assert node.tunnel("Tun-1")["waiting"] == []
    node = moved(booted())
    node.kill_controller()
    node.start()
    node.run(2.5)
    check(node)
    assert ends(node) == ("1.1.1.2", "3.3.3.3")


def test_a_move_that_is_taken_back_was_none() -> None:
    node = moved(booted())
    before = record(node)
    commit(node, MOVE.replace("1.1.1.2", "1.1.1.1"))
    assert record(node) is before, "nothing is sent"
    assert node.tunnel("Tun-1")["waiting"] == []


@pytest.mark.parametrize(
    "lines",
    [
        MOVE + "context L1\n no interface Tun-1-Local\n",
        MOVE + "context L1\n interface Tun-1-Local loopback\n  ip address 1.1.1.9/32\n",
    ],
)
def test_an_end_point_that_is_gone_does_not_wait(lines: str) -> None:
    node = booted()
    commit(node, SECOND_END)
    commit(node, lines)
    assert ends(node) == ("1.1.1.2", "3.3.3.3")
    assert node.tunnel("Tun-1")["up"]


@pytest.mark.behaviour("B-211")
def test_a_tunnel_that_is_removed_and_made_again_has_what_is_configured() -> None:
    node = booted()
    commit(node, SECOND_END)
    commit(node, "no tunnel ipsec Tun-1\n")
    commit(node, f"{MOVE} bind interface TI-1 C1\n seq 10 security-association sa-1 access-group acl-C1\n")
    assert ends(node) == ("1.1.1.2", "3.3.3.3")
    assert node.tunnel("Tun-1")["up"]


def test_a_context_without_its_service_takes_the_tunnel_down_with_what_waited() -> None:
    node = moved(booted())
    commit(node, "context L1\n no asp-group\n")
    assert node.tunnel("Tun-1")["reason"] == "no Security service"
    assert node.tunnel("Tun-1")["waiting"] == []
    commit(node, "context L1\n asp-group G1 service security\n")
    assert ends(node) == ("1.1.1.2", "3.3.3.3")
    assert node.tunnel("Tun-1")["up"]


@pytest.mark.behaviour("B-193", "B-195", "B-197")
def test_another_spi_waits_for_a_clear_of_its_tunnel_alone() -> None:
    """Two tunnels use one manual SA; each takes its new SPI with its own clear."""
    node = booted(
        HIGH_AVAILABILITY.replace("security-association sa-2 access", "security-association sa-1 access")
    )
    commit(node, sa("sa-1", 401))
    assert (spi(node), spi(node, "Tun-2", "asp 2/2")) == (301, 301)
    row = node.tunnel("Tun-1")
    assert (row["up"], row["waiting"]) == (True, ["seq 10 security-association sa-1"])
    commit(node, sa("sa-1", 501))
    assert spi(node) == 301
    clear(node, "Tun-1")
    assert (spi(node), spi(node, "Tun-2", "asp 2/2")) == (501, 301)
    assert node.keys_of("asp 2/1") == {"sa-1"}
    commit(node, "tunnel ipsec Tun-2 manual economical\n shutdown\n")
    commit(node, "tunnel ipsec Tun-2 manual economical\n no shutdown\n")
    assert spi(node, "Tun-2", "asp 2/2") == 501
    assert node.keys_of("asp 2/2") == {"sa-1"}


def test_a_line_with_another_manual_sa_waits_and_its_access_list_does_not() -> None:
    node = booted()
    commit(node, "context C1\n ipsec access-list more\n  seq 10 172.168.2.0/24 172.168.3.0/24\n")
    line = "tunnel ipsec Tun-1 manual\n seq 10 security-association sa-2 access-group more\n"
    commit(node, line)
    (entry,) = record(node).config.entries
    assert (spi(node), entry.acl) == (301, "more")
    commit(node, "no ipsec security-association sa-1\n")
    assert (spi(node), node.tunnel("Tun-1")["up"]) == (301, True), "no line uses it; its SA has not ended"
    clear(node, "Tun-1")
    assert spi(node) == 302


def test_a_manual_sa_that_is_removed_takes_its_tunnel_down() -> None:
    node = booted()
    commit(node, "no ipsec security-association sa-1\n")
    assert node.tunnel("Tun-1")["reason"] == "manual SA not configured: sa-1"


NEW_WAY = (
    "context outer\n interface second loopback\n  ip address 40.9.0.1/32\n"
    "tunnel ipsec T\n peer-end-point local 40.9.0.1 remote 40.0.0.2 context outer\n"
)


def negotiated() -> Node:
    """A negotiated tunnel that is up, and a move of its end point that waits."""
    node = Node(STATIC)
    node.boot_all(*PORTS)
    say(node, True)
    assert node.tunnel("T")["up"]
    commit(node, NEW_WAY)
    assert ends(node, "T") == ("40.0.0.1", "40.0.0.2")
    return node


@pytest.mark.behaviour("B-193", "B-195")
@pytest.mark.parametrize("what", ["ike", "ipsec"])
def test_a_moved_end_point_of_a_negotiated_tunnel_waits(what: str) -> None:
    node = negotiated()
    clear(node, "T", what)
    assert ends(node, "T") == ("40.9.0.1", "40.0.0.2")


@pytest.mark.behaviour("B-193")
def test_a_moved_end_point_acts_when_new_sas_are_negotiated() -> None:
    node = negotiated()
    report = SaReport(record(node, "T").number, 1, "out", "esp", 1001, 0, "aes-128-cbc hmac-sha1-96", 64)
    node.card_does("asp 2/1", [ToController(SaEvent(report, "expiring", ""))])
    node.run(0.1)
    assert ends(node, "T") == ("40.0.0.1", "40.0.0.2")
    node.card_does("asp 2/1", [ToController(SaEvent(report, "rekeyed", "by SPI 1002"))])
    node.run(0.1)
    check(node)
    assert ends(node, "T") == ("40.9.0.1", "40.0.0.2")
