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
def test_without_df_a_packet_is_cut_before_it_is_protected() -> None:
    a, b = both(mtu=600)
    clear = udp_packet(size=1400)
    [(card, out)] = a.protect(CIRCUIT, [clear], marks=((0, 5),))
    assert (card, len(out), out.marks) == (LC3, 3, ((0, 5),))
    [opened] = [batch for _, part in [(card, out)] for _, batch in b.open(part, marks=())]
    pieces = packets_of(opened)
    assert max(map(len, pieces)) <= 600
    assert joined(pieces) == Ipv4.parse(clear).payload
    assert a.count("fragments created") == 2


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


def test_df_bit_clear_without_mtu_leaves_the_cutting_to_the_outer_packet() -> None:
    a, b = both(df_bit="clear")
    clear = udp_packet("50.0.0.1", "62.0.0.1", size=1500, df=True)
    [(_, out)] = a.protect(ECONOMICAL, [clear])
    pieces = packets_of(out)
    assert len(pieces) == 2
    assert max(map(len, pieces)) <= 1500
    assert not any(Ipv4.parse(piece).dont_fragment for piece in pieces)
    # The card that looks the outer packet up cuts it where there is a circuit.
    [(_, whole)] = a.protect(CIRCUIT, [clear])
    assert len(whole) == 1
    assert max(whole.lengths) > 1514
    [(_, opened)] = b.open(whole)
    assert packets_of(opened) == [clear]


def test_df_bit_clear_with_an_mtu_line_sends_back_what_is_larger() -> None:
    a, _ = both(df_bit="clear", mtu=1000)
    [(_, error)] = a.protect(ECONOMICAL, [udp_packet("50.0.0.1", "62.0.0.1", size=1001, df=True)])
    assert icmp_error(packets_of(error)[0])[1].mtu == 1000


def test_df_bit_set_never_makes_a_packet_that_no_port_takes() -> None:
    a, _ = both(df_bit="set", mtu=9000)
    [(_, out)] = a.protect(ECONOMICAL, [udp_packet("50.0.0.1", "62.0.0.1", size=1500)])
    assert len(out) == 2
    assert all(Ipv4.parse(piece).dont_fragment for piece in packets_of(out))
    assert max(out.lengths) - 14 <= 1500


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
