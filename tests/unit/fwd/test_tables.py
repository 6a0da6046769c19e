"""What decisions rest on: usable next hops, our own address, the card of a local address."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.bus.counters import Counters
from chassis.bus.records import NextHop, PortRecord
from chassis.bus.replication import RecordChange
from chassis.fwd.tables import DEFAULT_MTU, ForwardingTables
from chassis.net.address import parse_address as ip
from tests.support.forwarder import RECORDS, TUNNEL
from tests.support.linecard import tunnel

OWN, OTHER = NextHop("port", 0, "lc 3", "3/1"), NextHop("port", 0, "lc 4", "4/1")
BY_TUNNEL = NextHop("tunnel", 0, "asp 1/1", tunnel=7)
CIRCUIT = tunnel(7, "asp 1/1", economical=False, home="lc 4")


def tables(*more: object, down: str = "", port_up: bool = True) -> ForwardingTables:
    """Of line card 3, which is connected to all cards but `down`."""
    up = {card: card != down for card in ("lc 3", "lc 4", "asp 1/1")}
    made = ForwardingTables("lc 3", up, lambda port: port_up, Counters())
    made.apply(RecordChange((*RECORDS, *more), ()))  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("hop", [OWN, OTHER, BY_TUNNEL])
def test_a_next_hop_is_usable_while_all_of_it_is_up(hop: NextHop) -> None:
    assert tables().usable(hop)
    assert tables(CIRCUIT).usable(hop)


@pytest.mark.parametrize(("hop", "by"), [
    (OWN, tables(port_up=False)),
    (OTHER, tables(down="lc 4")),
    (OTHER, tables(replace(RECORDS[1], enabled=False))),
    (NextHop("port", 0, "lc 4", "4/9"), tables()),
    (BY_TUNNEL, tables(down="asp 1/1")),
    (BY_TUNNEL, tables(replace(TUNNEL, up=False))),
    (BY_TUNNEL, tables(replace(TUNNEL, asp="asp 1/2"))),
    (BY_TUNNEL, tables(CIRCUIT, down="lc 4")),
    (BY_TUNNEL, tables(replace(CIRCUIT, home=""))),
    (replace(BY_TUNNEL, tunnel=8), tables()),
])  # fmt: skip
def test_a_next_hop_is_not_usable_without_any_part_of_it(hop: NextHop, by: ForwardingTables) -> None:
    assert not by.usable(hop)


def test_a_circuit_at_home_needs_no_connection() -> None:
    assert tables(replace(CIRCUIT, home="lc 3"), down="lc 3").usable(BY_TUNNEL)


@pytest.mark.parametrize(
    ("destination", "address"),
    [("10.0.0.9", "10.0.0.1"), ("11.0.0.9", "11.0.0.1"), ("30.0.0.9", "9.9.9.9"), ("99.0.0.9", "9.9.9.9")],
)
def test_our_address_is_that_of_the_way_out_else_a_loopback(destination: str, address: str) -> None:
    made = tables()
    assert made.egress_address(1, made.decider.decide_destination(1, ip(destination))) == ip(address)
    assert made.egress_address(2, made.decider.decide_destination(2, ip(destination))) == 0


def test_an_mtu_is_that_of_the_port_by_which_a_destination_is_reached() -> None:
    port = RECORDS[1]
    assert isinstance(port, PortRecord)
    made = tables(replace(port, mtu=1400))
    assert (made.egress_mtu(1, ip("11.0.0.9")), made.mtu("4/1")) == (1400, 1400)
    assert (made.egress_mtu(1, ip("99.0.0.9")), made.mtu("9/9")) == (DEFAULT_MTU, DEFAULT_MTU)


def test_a_local_address_is_answered_for_by_its_ports_card_else_by_the_first() -> None:
    assert tables().line_card(1, ip("11.0.0.1")) == "lc 4"
    assert tables(down="lc 4").line_card(1, ip("11.0.0.1")) == "lc 3"
    assert tables().line_card(1, ip("9.9.9.9")) == "lc 3"
