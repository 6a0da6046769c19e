"""The UDP of the router's services at a line card: what leaves, what the controller gets, and its bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chassis.bus.batch import Step
from chassis.bus.messages import MAX_DATAGRAM, MAX_DATAGRAMS, Datagram, Datagrams, LogRecord, Welcome
from chassis.bus.records import UdpPeer, UdpPortRecord
from chassis.linecard.datagrams import RECEIVE_BURST, RECEIVE_RATE, SEND_BURST
from chassis.net import icmp
from chassis.net.address import parse_address as ip
from chassis.net.fragments import fragment
from chassis.net.icmp import Icmp
from chassis.net.ipv4 import PROTOCOL_ICMP, Ipv4
from chassis.net.udp import Udp
from tests.support.linecard import EPOCH, GATEWAY, HOST, INNER, OUTER, RECORDS, Rig, packet, packets_of

PORT = 1812
SERVER = "10.0.0.5"


def send(rig: Rig, *payloads: bytes, to: str = SERVER, context: int = INNER, **fields: Any) -> Rig:
    made = Datagram(context, 0, ip(to), PORT, PORT, b"")
    rig.do(rig.card.receive(Datagrams(tuple(replace(made, payload=p, **fields) for p in payloads)), rig.now))
    return rig


def udp(
    data: bytes = b"answer", to: str = "10.0.0.1", source: str = SERVER, port: int = PORT, **more: Any
) -> Ipv4:
    octets = Udp(more.pop("source_port", PORT), port, data).emit((ip(source), ip(to)))
    return packet(to, source, octets, **more)


def listening(*peers: UdpPeer) -> Rig:
    return Rig((*RECORDS, UdpPortRecord(PORT, peers)))


def got(rig: Rig) -> list[Datagram]:
    return [datagram for message in rig.told(Datagrams) for datagram in message.datagrams]


def answers(rig: Rig) -> list[tuple[int, int]]:
    """Type and code of the ICMP messages that left."""
    found = [Icmp.parse(p.payload) for _, _, p in rig.sent() if p.protocol == PROTOCOL_ICMP]
    return [(message.type, message.code) for message in found]


# out


def test_datagrams_leave_by_the_route_from_the_address_there() -> None:
    rig = send(Rig().knows("3/1", SERVER, HOST), b"a", b"b")
    sent = rig.sent()
    assert [(name, link[:6]) for name, link, _ in sent] == [("3/1", HOST)] * 2
    addresses = ip("10.0.0.1"), ip(SERVER)
    for data, (_, _, left) in zip((b"a", b"b"), sent, strict=True):
        assert (left.source, left.destination) == addresses
        assert Udp.parse(left.payload, addresses) == Udp(PORT, PORT, data)


@pytest.mark.parametrize(("to", "asp", "source"), [
    ("30.0.0.1", "asp 1/1", "172.16.0.1"),
    # The circuit of the other tunnel has no address: that of the context's first interface is taken.
    ("31.0.0.1", "asp 1/1", "10.0.0.1"),
])  # fmt: skip
def test_datagrams_leave_through_tunnels(to: str, asp: str, source: str) -> None:
    ((card, batch),) = send(Rig(), b"a", to=to).fabric()
    (left,) = packets_of(batch)
    assert (card, batch.step, left.source) == (asp, Step.ENCAPSULATE, ip(source))


def test_a_datagram_by_a_port_of_another_card_goes_there() -> None:
    ((card, batch),) = send(Rig(), b"a", to="10.4.0.7").fabric()
    assert (card, batch.step, batch.port) == ("lc 4", Step.EGRESS, "4/1")


def test_the_source_that_was_asked_for_is_taken() -> None:
    rig = send(Rig().knows("3/1", SERVER, HOST), b"a", source=ip("172.16.0.1"))
    assert [left.source for _, _, left in rig.sent()] == [ip("172.16.0.1")]


def test_the_longest_datagram_leaves_in_fragments() -> None:
    data = bytes(range(256)) * (MAX_DATAGRAM // 256)
    rig = send(Rig().knows("3/1", SERVER, HOST), data)
    pieces = [left for _, _, left in rig.sent()]
    whole = b"".join(piece.payload for piece in sorted(pieces, key=lambda piece: piece.offset))
    assert len(pieces) == 3
    assert Udp.parse(whole, (ip("10.0.0.1"), ip(SERVER))).payload == data


@pytest.mark.parametrize("fields", [
    {"destination": 2**32}, {"destination": ip("224.0.0.1")}, {"source": -1}, {"source_port": 0},
    {"destination_port": 65_536}, {"payload": bytes(MAX_DATAGRAM + 1)},
])  # fmt: skip
def test_wrong_datagrams_of_the_controller_are_refused_and_logged(fields: dict[str, Any]) -> None:
    rig = Rig().knows("3/1", SERVER, HOST)
    good = Datagram(INNER, 0, ip(SERVER), PORT, PORT, b"good")
    rig.do(rig.card.receive(Datagrams((good, replace(good, **fields))), rig.now))
    assert rig.sent() == []
    (record,) = rig.told(LogRecord)
    assert (record.severity, record.text) == (
        "error", "2 datagrams were not sent: too many, or one is not valid",
    )  # fmt: skip


def test_too_many_datagrams_of_the_controller_are_refused() -> None:
    rig = send(Rig().knows("3/1", SERVER, HOST), *[b"a"] * (MAX_DATAGRAMS + 1))
    assert rig.sent() == []
    assert "65 datagrams" in rig.told(LogRecord)[0].text


def test_a_context_without_an_address_sends_nothing() -> None:
    rig = send(Rig(), b"a", context=9)
    assert rig.outputs == []
    assert rig.drops() == {"no source address": 1}


def test_what_the_controller_sends_is_limited() -> None:
    rig = Rig().knows("3/1", SERVER, HOST)
    sent = 0
    for _ in range(int(SEND_BURST) // MAX_DATAGRAMS + 2):
        sent += len(send(rig, *[b"a"] * MAX_DATAGRAMS).sent())
    assert sent == SEND_BURST
    assert set(rig.drops()) == {"udp rate limit"}


def test_a_fenced_card_sends_none() -> None:
    rig = Rig().knows("3/1", SERVER, HOST)
    rig.do(rig.card.on_stall(1.0, rig.now))
    assert send(rig, b"a").sent() == []
    assert rig.drops() == {"fenced": 1}


# in


def test_an_answer_by_a_port_comes_to_the_controller() -> None:
    rig = listening()
    rig.frames("3/1", udp(b"one"), udp(b"two"))
    (message,) = rig.told(Datagrams)
    expected = Datagram(INNER, ip(SERVER), ip("10.0.0.1"), PORT, PORT, b"one")
    assert message.datagrams == (expected, replace(expected, payload=b"two"))
    assert "one" not in repr(message)


@pytest.mark.parametrize("step", [Step.LOCAL, Step.CIRCUIT_IN])
def test_an_answer_out_of_a_tunnel_comes_to_the_controller(step: Step) -> None:
    rig = listening()
    answer = udp(to="172.16.0.1", source="30.0.0.1")
    rig.batch(step, answer, context=INNER, circuit=17 if step is Step.CIRCUIT_IN else 0)
    assert [(datagram.context, datagram.source) for datagram in got(rig)] == [(INNER, ip("30.0.0.1"))]


def test_an_answer_to_an_address_that_an_asp_owns_comes_too() -> None:
    rig = listening()
    rig.frames("3/11", udp(to="5.5.5.1", source="6.6.6.6"))
    assert [(datagram.context, datagram.destination) for datagram in got(rig)] == [(OUTER, ip("5.5.5.1"))]


def test_a_datagram_in_fragments_comes_whole() -> None:
    rig = listening()
    data = bytes(range(256)) * (MAX_DATAGRAM // 256)
    pieces = fragment(udp(data, identification=5), 1500)
    for piece in reversed(pieces):
        rig.frames("3/1", piece)
    assert [datagram.payload for datagram in got(rig)] == [data]


def test_other_ports_stay_unreachable() -> None:
    rig = listening().knows("3/1", SERVER, HOST)
    rig.frames("3/1", udp(port=PORT + 1), packet("10.0.0.1", SERVER, b"\0" * 7))
    assert got(rig) == []
    assert rig.drops() == {"port unreachable": 2}
    assert answers(rig) == [(icmp.UNREACHABLE, icmp.PORT_UNREACHABLE)] * 2


@pytest.mark.parametrize("fields", [{"source": "10.0.0.6"}, {"source_port": 99}])
def test_the_port_is_closed_to_who_is_no_peer(fields: dict[str, Any]) -> None:
    rig = listening(UdpPeer(INNER, ip(SERVER), PORT))
    rig.frames("3/1", udp())
    assert len(got(rig)) == 1
    rig.frames("3/1", udp(**fields))
    assert got(rig) == []
    assert rig.drops() == {"port unreachable": 1}


def test_a_port_is_opened_and_closed_as_the_controller_says() -> None:
    rig = Rig()
    for opened in (True, False, True):
        record = UdpPortRecord(PORT)
        rig.delta(*(record,) if opened else (), delete=() if opened else (record.key,))
        rig.frames("3/1", udp())
        assert len(got(rig)) == opened


@pytest.mark.parametrize("octets", [
    # Its checksum, its length, and a payload that is longer than any service takes.
    Udp(PORT, PORT, b"answer").emit((1, 2)),
    Udp(PORT, PORT, b"answer").emit((ip(SERVER), ip("10.0.0.1"))) + b"more",
    Udp(PORT, PORT, bytes(MAX_DATAGRAM + 1)).emit((ip(SERVER), ip("10.0.0.1"))),
])  # fmt: skip
def test_wrong_datagrams_are_dropped(octets: bytes) -> None:
    rig = listening()
    for piece in fragment(packet("10.0.0.1", SERVER, octets, identification=9), 1500):
        rig.frames("3/1", piece)
    assert got(rig) == []
    assert rig.drops() == {"malformed udp": 1}


def test_a_flood_costs_the_controller_little() -> None:
    rig = listening()
    told = 0
    for _ in range(10):
        rig.frames("3/1", *[udp()] * 200)
        assert all(len(message.datagrams) <= MAX_DATAGRAMS for message in rig.told(Datagrams))
        told += len(got(rig))
        rig.after(0.1)
    assert told <= RECEIVE_BURST + RECEIVE_RATE
    assert rig.drops() == {"udp rate limit": 2000 - told}


def test_none_waits_for_a_controller_that_is_away() -> None:
    rig = listening()
    rig.do(rig.card.on_disconnected(rig.now))
    rig.frames("3/1", udp())
    assert rig.outputs == []
    assert rig.drops() == {"no controller": 1}
    rig.do(rig.card.on_connected(rig.now))
    rig.do(rig.card.receive(Welcome(EPOCH, 10, 0.1, 5, {}), rig.now))
    rig.frames("3/1", udp())
    assert len(got(rig)) == 1


def test_a_datagram_to_the_router_itself() -> None:
    rig = send(listening().knows("3/1", "10.0.0.9", GATEWAY), b"self", to="172.16.0.1")
    assert [(datagram.destination, datagram.payload) for datagram in got(rig)] == [(ip("172.16.0.1"), b"self")]
