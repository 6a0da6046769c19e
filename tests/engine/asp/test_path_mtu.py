"""A link on the way to a tunnel's peer that is smaller than the egress port: what its router says is believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from chassis.ase.ike_messages import SaUpdateAddress, UdpEncapsulation
from chassis.ase.path_mtu import LOG_BURST, MIN_PATH_MTU, PATH_MTU_TIMEOUT
from chassis.bus.batch import Step
from chassis.bus.messages import LogRecord
from chassis.net import icmp
from chassis.net.address import parse_address
from chassis.net.ipv4 import PROTOCOL_ICMP, Ipv4
from tests.support.asp import (
    CIRCUIT,
    ECONOMICAL,
    OUTER,
    Controller,
    batch_of,
    icmp_error,
    packets_of,
    records,
    udp_packet,
)
from tests.support.asp_negotiated import A, B, encapsulated, install, sides

ROUTER = parse_address("40.0.7.7")
LINK = 1000
"""MTU of the link on the way."""


def refused(outer: bytes, mtu: int = LINK, *, quote: int = 548, code: int = 4) -> Ipv4:
    """What a router says of a protected packet."""
    message = icmp.unreachable(code, outer[:quote], mtu)
    return Ipv4(ROUTER, int.from_bytes(outer[12:16], "big"), PROTOCOL_ICMP, message.emit())


def tell(side: Controller, *messages: Ipv4) -> None:
    """ICMP as the line card hands it on; nothing is answered to it."""
    assert side.give(batch_of([message.emit() for message in messages], Step.DECAPSULATE, context=OUTER)) == []


def large(tunnel: int = CIRCUIT, size: int = 1300, *, df: bool = True) -> list[bytes]:
    far = "60.0.0.1" if tunnel == CIRCUIT else "62.0.0.1"
    return [udp_packet("50.0.0.1", far, size, df=df)]


def outer(side: Controller, tunnel: int = CIRCUIT, size: int = 1300) -> bytes:
    ((_, batch),) = side.protect(tunnel, large(tunnel, size))
    (packet,) = packets_of(batch)
    return packet


def limit(side: Controller, tunnel: int = CIRCUIT) -> int:
    """The MTU of which the sender of a packet of 1,400 octets is told; 0 when it passes."""
    ((_, batch),) = side.protect(tunnel, large(tunnel, 1400))
    (packet,) = packets_of(batch)
    return icmp_error(packet)[1].mtu if packet[9] == PROTOCOL_ICMP else 0


def after(side: Controller, tunnel: int, mtu: int) -> int:
    """The largest inner packet with a path of `mtu`."""
    return mtu - side.asp.tunnels.local[tunnel].overhead


@pytest.mark.parametrize("tunnel", [CIRCUIT, ECONOMICAL])
@pytest.mark.parametrize("kind", ["esp", "ah", "bundle"])
@pytest.mark.parametrize("quote", [28, 548])
def test_senders_hear_of_a_smaller_link_on_the_way(kind: str, tunnel: int, quote: int) -> None:
    a = Controller(records(kind=kind))
    tell(a, refused(outer(a, tunnel), quote=quote))
    assert limit(a, tunnel) == after(a, tunnel, LINK)
    # What fits the link passes, what may be cut is cut to it, and the other tunnel's way is its own.
    assert len(outer(a, tunnel, after(a, tunnel, LINK))) <= LINK
    ((_, batch),) = a.protect(tunnel, large(tunnel, df=False))
    assert len(batch.lengths) == 2
    assert max(map(len, packets_of(batch))) <= LINK
    assert limit(a, CIRCUIT + ECONOMICAL - tunnel) == 0
    assert a.count("path mtu updates") == a.count("packets delivered") == 1


@pytest.mark.parametrize("kind", ["esp", "gcm"])
def test_esp_in_udp_by_its_peers_port(kind: str) -> None:
    left, _ = sides()
    for tunnel, port in ((CIRCUIT, 4500), (ECONOMICAL, 4501)):
        left.ike(install(tunnel, 1, kind=kind, encapsulation=encapsulated(B, port)))
    packet = outer(left, ECONOMICAL)
    # Eight octets of UDP do not say which SA it was.
    tell(left, refused(packet, quote=28))
    assert left.drops() == {"path mtu ignored": 1}
    tell(left, refused(packet, quote=32))
    assert limit(left, ECONOMICAL) == after(left, ECONOMICAL, LINK)
    assert limit(left, CIRCUIT) == 0


def changed(packet: bytes, at: int, octets: bytes) -> bytes:
    return packet[:at] + octets + packet[at + len(octets) :]


FORGED = {
    "another spi": lambda packet: refused(changed(packet, 20, b"\0\0\xff\xff")),
    "another destination": lambda packet: refused(changed(packet, 16, b"\x28\0\0\x09")),
    "another source": lambda packet: replace(refused(changed(packet, 12, b"\x28\0\0\x09")), destination=A),
    "another protocol": lambda packet: refused(changed(packet, 9, b"\x33")),
    "no df": lambda packet: refused(changed(packet, 6, b"\0")),
    "no mtu for another spi": lambda packet: refused(changed(packet, 20, b"\0\0\xff\xff"), 0),
    "no mtu for what was to be cut": lambda packet: refused(changed(packet, 6, b"\0"), 0),
    "too small for another source": lambda packet: replace(
        refused(changed(packet, 12, b"\x28\0\0\x09"), 100), destination=A
    ),
    "not smaller": lambda packet: refused(packet, 1500),
    "no header quoted": lambda packet: refused(packet, quote=19),
    "too little quoted": lambda packet: refused(packet, quote=27),
    "not ipv4": lambda packet: refused(changed(packet, 0, b"\x65")),
    "a header too short": lambda packet: refused(changed(packet, 0, b"\x41")),
    "a header too long": lambda packet: refused(changed(packet, 0, b"\x4f"), quote=60),
}


@pytest.mark.parametrize("how", FORGED)
def test_what_is_not_believed(how: str) -> None:
    a = Controller(records())
    tell(a, FORGED[how](outer(a)))
    assert limit(a) == 0
    assert a.drops() == {"path mtu ignored": 1}
    assert [message for message in a.said if isinstance(message, LogRecord)] == []


def test_a_message_that_is_damaged_or_about_something_else() -> None:
    a = Controller(records())
    packet = outer(a)
    damaged = refused(packet)
    tell(a, replace(damaged, payload=changed(damaged.payload, 40, b"??")))
    tell(a, refused(packet, code=1))
    assert limit(a) == 0
    assert a.drops() == {"malformed": 1, "not ipsec": 1}


def test_the_least_is_believed_and_only_less_is_news() -> None:
    a = Controller(records())
    packet = outer(a)
    for mtu, now in (
        (1200, 1200),
        (1201, 1200),
        (1200, 1200),
        (MIN_PATH_MTU, MIN_PATH_MTU),
        (MIN_PATH_MTU - 1, MIN_PATH_MTU),
    ):
        tell(a, refused(packet, mtu))
        assert limit(a) == after(a, CIRCUIT, now)
    assert a.count("path mtu updates") == 2


@pytest.mark.parametrize("tunnel", [CIRCUIT, ECONOMICAL])
@pytest.mark.parametrize(("named", "size", "taken"), [
    # A router of before RFC 1191 names none: the next size of a link below that of the packet.
    (0, 1500, 1492),
    (0, 1493, 1492),
    (0, 1492, 1006),
    (0, 1007, 1006),
    (0, 1006, MIN_PATH_MTU),
    (0, 577, MIN_PATH_MTU),
    # Packets that small are not the ones that tell, but the link is no larger than the least.
    (0, 300, MIN_PATH_MTU),
    # Some quote another length than the packet had (RFC 1191 5): ours was no longer than its port takes.
    (0, 2500, 1492),
    (0, 65535, 1492),
    (0, 0, MIN_PATH_MTU),
    # Less than the least is not believed to the letter, but nothing larger than that gets through.
    (1, 1500, MIN_PATH_MTU),
    (68, 1500, MIN_PATH_MTU),
    (MIN_PATH_MTU - 1, 1500, MIN_PATH_MTU),
])  # fmt: skip
def test_a_router_that_names_no_mtu_or_one_below_the_least(tunnel: int, named: int, size: int, taken: int) -> None:
    a = Controller(records())
    packet = changed(outer(a, tunnel), 2, size.to_bytes(2, "big"))
    tell(a, refused(packet, named, quote=28))
    largest = after(a, tunnel, taken)
    assert limit(a, tunnel) == (largest if largest < 1400 else 0)
    assert a.count("path mtu updates") == 1
    assert [line.values["mtu"] for line in lines(a)] == [taken]
    # What was found is not raised.
    tell(a, refused(packet, named, quote=28), refused(packet, 1499))
    assert [line.values["mtu"] for line in lines(a)][-1] <= taken


def test_packets_get_through_by_plateaus_and_no_further_down_than_they_must() -> None:
    a = Controller(records())
    taken = []
    for _ in range(5):
        size = min(limit(a) or 1400, 1400)
        packet = outer(a, CIRCUIT, size)
        if len(packet) <= 700:
            break
        tell(a, refused(packet, 0))
        taken.append(limit(a))
    assert taken == [after(a, CIRCUIT, 1006), after(a, CIRCUIT, MIN_PATH_MTU)]


def test_it_is_forgotten_after_ten_minutes() -> None:
    a = Controller(records())
    packets = {tunnel: outer(a, tunnel) for tunnel in (CIRCUIT, ECONOMICAL)}
    began = a.now

    def known(at: float) -> tuple[bool, bool]:
        a.pass_time(began + at - a.now)
        return limit(a) != 0, limit(a, ECONOMICAL) != 0

    tell(a, refused(packets[CIRCUIT], 1300))
    assert known(300) == (True, False)
    tell(a, refused(packets[ECONOMICAL]))
    assert known(450) == (True, True)
    # Less than before counts from when it was heard.
    tell(a, refused(packets[CIRCUIT]))
    assert known(300 + PATH_MTU_TIMEOUT - 1) == (True, True)
    assert known(300 + PATH_MTU_TIMEOUT + 1) == (True, False)
    assert known(450 + PATH_MTU_TIMEOUT - 1) == (True, False)
    assert known(450 + PATH_MTU_TIMEOUT + 1) == (False, False)


def test_an_mtu_line_counts_where_it_is_smaller() -> None:
    for line in (700, 1300):
        a = Controller(records(mtu=line))
        ((_, batch),) = a.protect(CIRCUIT, large(size=700))
        tell(a, refused(packets_of(batch)[0]))
        assert limit(a) == min(line, after(a, CIRCUIT, LINK))


def test_a_peer_that_is_elsewhere_is_reached_by_another_way() -> None:
    left, _ = sides()
    left.ike(install(CIRCUIT, 1, encapsulation=encapsulated(B)))
    before = outer(left)
    tell(left, refused(before))
    assert limit(left)
    left.ike(SaUpdateAddress(CIRCUIT, 1, UdpEncapsulation(4500, B + 1, 4500)))
    assert limit(left) == 0
    tell(left, refused(before, 900))
    assert left.drops()["path mtu ignored"] == 1
    tell(left, refused(outer(left)))
    assert limit(left) == after(left, CIRCUIT, LINK)


def test_nothing_is_heard_of_an_sa_that_is_gone() -> None:
    a = Controller(records())
    packet = outer(a)
    a.put(delete=[("tunnel", CIRCUIT)])
    tell(a, refused(packet))
    assert a.drops() == {"path mtu ignored": 1}


def lines(side: Controller) -> Sequence[LogRecord]:
    return [message for message in side.said if isinstance(message, LogRecord)]


def test_one_line_says_so_and_not_too_often() -> None:
    a = Controller(records())
    packet = outer(a)
    tell(a, refused(packet))
    (line,) = lines(a)
    assert (line.severity, line.facility) == ("notice", "ipsec")
    assert line.values == {"card": "asp 1/1", "tunnel": "t1", "mtu": LINK, "router": "40.0.7.7"}
    tell(a, *(refused(packet, LINK - number) for number in range(1, 100)))
    assert len(lines(a)) == LOG_BURST
    assert a.count("path mtu updates") == 100


def test_packets_go_on_to_the_other_end_of_a_smaller_link() -> None:
    """A sender finds its packets' size, as RFC 1191 has it, across a link of 1,000 octets."""
    left, right = sides()
    left.ike(install(CIRCUIT, 1))
    right.ike(install(CIRCUIT, 1, there=True))
    size, tries, got = 1400, 0, list[bytes]()
    while not got and tries < 5:
        tries += 1
        ((_, batch),) = left.protect(CIRCUIT, large(size=size))
        (packet,) = packets_of(batch)
        if packet[9] == PROTOCOL_ICMP:
            size = icmp_error(packet)[1].mtu
        elif len(packet) > LINK:
            tell(left, refused(packet))
        else:
            got = [one for _, out in right.open(batch) for one in packets_of(out)]
    assert got == large(size=size)
    assert tries == 3
