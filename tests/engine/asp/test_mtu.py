"""Packets that are too large for their tunnel or their port (S-110)."""

from __future__ import annotations

import pytest

from chassis.bus.batch import Step
from chassis.net.ipv4 import Ipv4
from tests.support.asp import CIRCUIT, ECONOMICAL, LC3, Controller, icmp_error, ip, packets_of, records, udp_packet

LARGEST = 1500 - 70
"""With aes-128-cbc and hmac-sha1-96: 20 outer header, 8 ESP, 16 IV, up to 15 padding, 2 trailer, 12 ICV, less
what padding the largest packet does not need."""


def joined(packets: list[bytes]) -> bytes:
    """The payload of a fragmented packet."""
    pieces = sorted((Ipv4.parse(packet) for packet in packets), key=lambda piece: piece.offset)
    payload = b""
    for index, piece in enumerate(pieces):
        assert piece.offset == len(payload)
        assert piece.more_fragments == (index < len(pieces) - 1)
        payload += piece.payload
    return payload


def both(**fields: object) -> tuple[Controller, Controller]:
    return Controller(records(**fields)), Controller(records(there=True, **fields))  # type: ignore[arg-type]


@pytest.mark.behaviour("B-145")
def test_with_df_the_sender_is_told_the_mtu() -> None:
    a, _ = both(mtu=600)
    small, large = udp_packet(size=600, df=True, number=1), udp_packet(size=601, df=True, number=2)
    (card, error), (_, out) = a.protect(CIRCUIT, [large, small])
    assert (card, error.step, error.port, error.address) == (LC3, Step.EGRESS, "3/1", ip("50.0.0.1"))
    packet, message = icmp_error(packets_of(error)[0])
    assert (packet.source, packet.destination) == (ip("50.0.0.254"), ip("50.0.0.1"))
    assert (message.type, message.code, message.mtu) == (3, 4, 600)
    assert message.payload == large[:548]
    assert len(out) == 1
    assert a.drops() == {"fragmentation needed": 1}


def test_without_an_mtu_line_the_egress_port_less_the_worst_overhead_is_the_limit() -> None:
    a, _ = both()
    overhead = a.asp.tunnels.local[CIRCUIT].overhead
    assert overhead == 20 + 8 + 16 + 15 + 2 + 12
    for tunnel, to in ((CIRCUIT, "60.0.0.1"), (ECONOMICAL, "62.0.0.1")):
        fits = udp_packet("50.0.0.1", to, size=1500 - overhead, df=True)
        [(_, out)] = a.protect(tunnel, [fits])
        assert max(out.lengths) - 14 <= 1500
        over = udp_packet("50.0.0.1", to, size=1501 - overhead, df=True)
        [(_, error)] = a.protect(tunnel, [over])
        assert icmp_error(packets_of(error)[0])[1].mtu == 1500 - overhead


def test_the_limit_follows_the_mtu_of_the_port_in_use() -> None:
    a, _ = both()
    port = a.record("port", "4/11")
    a.put(type(port)(**{name: getattr(port, name) for name in port.__slots__} | {"mtu": 1000}))  # type: ignore[attr-defined]
    clear = udp_packet(size=1000, df=True)
    assert [batch.step for _, batch in a.protect(ECONOMICAL, [clear])] == [Step.EGRESS]
    a.asp.on_fabric_peer(LC3, 1, False, a.now)
    assert a.protect(ECONOMICAL, [clear]) == []
    a.asp.on_fabric_peer(LC3, 1, True, a.now)
    assert [batch.port for _, batch in a.protect(ECONOMICAL, [clear])] == ["3/11"]


def test_an_opened_packet_that_the_egress_port_does_not_take_is_cut_or_sent_back() -> None:
    a, b = both()
    port = b.record("port", "3/1")
    b.put(type(port)(**{name: getattr(port, name) for name in port.__slots__} | {"mtu": 500}))  # type: ignore[attr-defined]
    clear = udp_packet("52.0.0.1", "62.0.0.1", size=1200)
    [(_, out)] = a.protect(ECONOMICAL, [clear, udp_packet("52.0.0.1", "62.0.0.1", size=501, df=True)])
    (_, error), (_, opened) = b.open(out)
    assert joined(packets_of(opened)) == Ipv4.parse(clear).payload
    assert max(opened.lengths) - 14 <= 500
    [(_, back)] = a.open(error)
    assert icmp_error(packets_of(back)[0])[1].mtu == 500


def test_no_error_about_an_error_and_not_without_end() -> None:
    a, _ = both(mtu=600)
    icmp_like = bytearray(udp_packet(size=700, df=True, protocol=1))
    icmp_like[20] = 3
    assert a.protect(CIRCUIT, [bytes(icmp_like)]) == []
    sent = a.protect(CIRCUIT, [udp_packet(size=700, df=True)] * 250)
    assert len(sent) == 200
    assert a.drops() == {"fragmentation needed": 251}
