"""ICMP errors of an ASP: from which address, and to whom (RFC 1812 4.3.2)."""

from __future__ import annotations

import pytest

from chassis.bus.batch import Step
from chassis.bus.records import InterfaceRecord, PortRecord
from tests.support.asp import (
    CIRCUIT,
    INNER,
    LC4,
    Controller,
    icmp_error,
    ip,
    packets_of,
    port_hop,
    records,
    route,
    udp_packet,
)


def router(*, address: str) -> Controller:
    """A router whose tunnel takes 600 octets. It reaches 70/8 by a second port, with or without an address."""
    more = (
        InterfaceRecord(context=INNER, name="loop", kind="loopback", address=ip("9.9.9.9"), prefix_length=32),
        InterfaceRecord(context=INNER, name="lan2", kind="numbered", address=ip(address), prefix_length=8,
            port="4/1"),
        PortRecord(port="4/1", card=LC4, enabled=True, context=INNER, interface="lan2", address=ip(address),
            prefix_length=8, mac=b"\2\0\0\0\4\1"),
        route(INNER, "70.0.0.0/8", port_hop(LC4, "4/1")),
    )  # fmt: skip
    return Controller([*records(mtu=600), *more])


@pytest.mark.parametrize(("sender", "address", "by", "source"), [
    ("50.0.0.1", "70.0.0.254", "3/1", "50.0.0.254"),
    ("70.0.0.1", "70.0.0.254", "4/1", "70.0.0.254"),
    pytest.param("70.0.0.1", "0.0.0.0", "4/1", "9.9.9.9", id="without an address there, from a loopback"),
])  # fmt: skip
def test_an_error_is_from_the_interface_by_which_it_leaves(
    sender: str, address: str, by: str, source: str
) -> None:
    large = udp_packet(sender, size=601, df=True)
    ((_, error),) = router(address=address).protect(CIRCUIT, [large], ingress="3/1")
    packet, _ = icmp_error(packets_of(error)[0])
    assert (error.step, error.port, packet.source) == (Step.EGRESS, by, ip(source))


def test_the_router_sends_no_error_to_itself() -> None:
    a = router(address="70.0.0.254")
    assert a.protect(CIRCUIT, [udp_packet("50.0.0.254", size=601, df=True)], ingress="3/1") == []
    assert a.drops() == {"fragmentation needed": 1}
    assert (a.count("icmp errors sent"), a.count("icmp errors rate limited")) == (0, 0)
