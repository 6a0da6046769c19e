"""Lines of real routers that have an effect: secondary addresses, null0, routes to other contexts, management."""

from __future__ import annotations

import pytest

from tests.support.xcrp import HA_PORTS, HIGH_AVAILABILITY, Node

CONFIG = """\
card ether-12-port 3
context a
 interface x
  description the \u00e9 network
  ip address 10.0.0.1/24
  ip address 10.7.0.1/16 secondary
 interface y
  ip address 11.0.0.1/24
 interface m
  ip address 12.0.0.1/24
 ip route 20.0.0.0/8 10.7.9.9 description by the second network
 ip route 20.1.0.0/16 null0
 ip route 21.0.0.0/8 10.0.0.9 cost 5
 ip route 21.0.0.0/8 null0 cost 7
 ip route 22.0.0.0/8 11.0.0.9
 ip route 22.0.0.0/8 null0
 ip route 23.0.0.0/8 1.1.1.1 context b cost 3
 ip route 24.0.0.0/8 10.0.0.9 context a
 ip route 25.0.0.0/8 context b
 ip route 26.0.0.0/8 11.0.0.9 distance 200
 ip route 26.0.0.0/8 10.0.0.9 cost 60
context b
port ethernet 3/1
 description to the core
 no shutdown
 bind interface x a
port ethernet 3/2
 no shutdown
 bind interface y a
port ethernet management
 no shutdown
 bind interface m a
"""


def booted(text: str = CONFIG, *ports: str) -> Node:
    node = Node(text)
    node.boot_all(*(ports or ("3/1",)))
    return node


def test_a_secondary_address_is_a_network_of_its_interface() -> None:
    node = booted()
    assert node.hops("lc 3", "a", "10.0.0.0/24") == ["3/1"]
    assert node.hops("lc 3", "a", "10.7.0.0/16") == ["3/1"]
    assert node.hops("lc 3", "a", "10.7.0.1/32") == ["local"]
    assert node.hops("lc 3", "a", "20.0.0.0/8") == ["3/1"]
    row = next(row for row in node.ask("status")["ports"] if row["port"] == "3/1")
    assert (row["address"], row["secondary"]) == ("10.0.0.1/24", ["10.7.0.1/16"])


def test_null0_discards_after_what_costs_less_or_the_same() -> None:
    node = booted()
    assert node.hops("lc 3", "a", "20.1.0.0/16") == ["discard"]
    assert node.hops("lc 3", "a", "21.0.0.0/8") == ["3/1", "discard"]
    assert node.hops("lc 3", "a", "22.0.0.0/8") == ["discard"]
    node.carrier_event("3/2", True)
    assert node.hops("lc 3", "a", "22.0.0.0/8") == ["3/2", "discard"]
    node.carrier_event("3/1", False)
    assert node.hops("lc 3", "a", "21.0.0.0/8") == ["discard"]


def test_the_lower_distance_goes_before_the_lower_cost() -> None:
    node = booted(CONFIG, "3/1", "3/2")
    assert node.hops("lc 3", "a", "26.0.0.0/8") == ["3/1", "3/2"]
    node.carrier_event("3/1", False)
    assert node.hops("lc 3", "a", "26.0.0.0/8") == ["3/2"]


def test_a_route_to_another_context_stays_down_and_says_why() -> None:
    node = booted()
    assert node.route("lc 3", "a", "23.0.0.0/8") is None
    assert node.hops("lc 3", "a", "24.0.0.0/8") == ["3/1"]
    answer = node.ask("routes", context="a")
    assert answer["down"] == [
        {"prefix": "23.0.0.0/8", "next_hop": "1.1.1.1", "cost": 3, "reason": "no packet leaves for context b"},
        {"prefix": "25.0.0.0/8", "next_hop": "", "cost": 1, "reason": "no packet leaves for context b"},
    ]
    assert node.ask("routes", context="b")["down"] == []


def test_the_management_port_by_its_name() -> None:
    node = booted()
    row = next(row for row in node.ask("status")["ports"] if row["port"] == "management")
    assert (row["card"], row["enabled"], row["up"]) == ("xcrp", True, True)
    assert node.hops("lc 3", "a", "12.0.0.1/32") == ["local"]


@pytest.mark.parametrize("loopback", [True, False])
def test_a_secondary_address_is_the_local_end_of_a_tunnel(loopback: bool) -> None:
    text = HIGH_AVAILABILITY.replace(
        "ip address 1.1.1.1/32", "ip address 1.1.1.7/32\n    ip address 1.1.1.1/32 secondary"
    )
    if not loopback:
        text = text.replace("interface Tun-1-Local loopback", "interface Tun-1-Local")
    node = booted(text, *HA_PORTS)
    tunnel = node.tunnel("Tun-1")
    assert (tunnel["up"], tunnel["reason"]) == ((True, "") if loopback else (False, "end point not configured"))


def test_a_peer_whose_route_discards_has_no_way() -> None:
    text = HIGH_AVAILABILITY.replace(
        "ip route 3.3.3.3/32 4.4.4.4", "ip route 3.3.3.3/32 null0\n  ip route 0.0.0.0/0 4.4.4.4"
    )
    node = booted(text, *HA_PORTS)
    assert node.tunnel("Tun-1")["reason"] == "no route to the peer"
    assert node.tunnel("Tun-2")["up"]
