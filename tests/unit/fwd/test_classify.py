"""The loop over a batch: every check, every decision, splitting, and rewriting in place."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.bus.batch import pack
from chassis.fwd.classify import classify
from chassis.fwd.decision import DecisionKind
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.rewrite import decrement_ttls, write_link_headers
from chassis.net import icmp, ipv4
from chassis.net.address import parse_address as ip
from chassis.net.arp import Arp
from chassis.net.ethernet import ETHERTYPE_ARP, HEADROOM, header, padded
from chassis.net.ipv4 import Ipv4
from chassis.net.udp import Udp
from tests.support.fwd import MAC, PEER, TUNNEL, decider, packet, run


def only(*args: bytes | Ipv4, mac: bytes = b"", transit: bool = True) -> tuple[DecisionKind, DropCause | None]:
    ((decision, _, _),) = run(*args, mac=mac, transit=transit)
    return decision.kind, decision.cause


def test_one_decision_keeps_the_very_buffer() -> None:
    body, lengths = pack([bytes(HEADROOM) + packet(f"30.1.1.{n}").emit() for n in range(1, 65)])
    ((decision, same, sizes),) = classify(decider(), 1, body, lengths)
    assert decision.kind is DecisionKind.TUNNEL
    assert (decision.card, decision.tunnel) == ("asp 1/1", 7)
    assert same is body
    assert sizes is lengths


def test_mixed_packets_are_split_by_decision_with_their_order_kept() -> None:
    destinations = ["30.0.0.1", "40.0.0.1", "40.0.0.2", "30.0.0.2", "10.0.0.7", "60.0.0.1", "30.0.0.3"]
    groups = run(*(packet(d, identification=n) for n, d in enumerate(destinations)))
    seen = []
    for decision, body, lengths in groups:
        assert isinstance(body, bytearray)
        at, numbers = 0, []
        for length in lengths:
            numbers.append(Ipv4.parse(body[at + HEADROOM : at + length]).identification)
            at += length
        assert at == len(body)
        seen.append((decision.kind, numbers))
    assert seen == [
        (DecisionKind.TUNNEL, [0, 3, 6]),
        (DecisionKind.PORT, [1, 2]),
        (DecisionKind.PORT, [4]),
        (DecisionKind.DROP, [5]),
    ]


def test_a_connected_network_is_its_own_next_hop() -> None:
    one, two = run(packet("10.0.0.7"), packet("10.0.0.8"), packet("10.0.0.7"))
    assert (one[0].address, two[0].address) == (ip("10.0.0.7"), ip("10.0.0.8"))
    assert [len(group[2]) for group in (one, two)] == [2, 1]


@pytest.mark.parametrize(("sent", "cause"), [
    (packet("60.0.0.1"), DropCause.NO_ROUTE),
    (packet("50.0.0.1"), DropCause.DISCARD),
    (packet("224.0.0.5"), DropCause.MULTICAST),
    (packet("255.255.255.255"), DropCause.BROADCAST),
    (packet("10.0.0.255"), DropCause.BROADCAST),
    (packet("10.0.0.0"), DropCause.BROADCAST),
    (packet("127.0.0.1"), DropCause.MARTIAN_DESTINATION),
    (packet("245.0.0.1"), DropCause.MARTIAN_DESTINATION),
    (packet(source="0.0.0.0"), DropCause.MARTIAN_SOURCE),
    (packet(source="224.0.0.1"), DropCause.MARTIAN_SOURCE),
    (packet(source="127.0.0.1"), DropCause.MARTIAN_SOURCE),
    (packet(ttl=1), DropCause.TTL),
    (packet(ttl=0), DropCause.TTL),
    (bytes(20), DropCause.SHORT),
    (bytes(HEADROOM) + b"\x65" + bytes(40), DropCause.VERSION),
    (bytes(HEADROOM) + b"\x44\0\0\x14" + bytes(16), DropCause.HEADER),
    (bytes(HEADROOM) + b"\x46\0\0\x14" + bytes(16), DropCause.HEADER),
    (bytes(HEADROOM) + packet().emit()[:-1], DropCause.HEADER),
    (bytes(HEADROOM) + b"\x45\0\0\x14" + bytes(16), DropCause.CHECKSUM),
    (bytes(HEADROOM) + packet(options=b"\1\1\1\1").emit()[:20] + b"\2" * 24, DropCause.CHECKSUM),
])  # fmt: skip
def test_what_is_dropped_and_why(sent: bytes | Ipv4, cause: DropCause) -> None:
    assert only(sent) == (DecisionKind.DROP, cause)
    assert run(packet(), sent)[1][0].cause is cause


@pytest.mark.parametrize(("frame", "wanted"), [
    (header(MAC, PEER), (DecisionKind.TUNNEL, None)),
    (header(PEER, MAC), (DecisionKind.DROP, DropCause.LINK_ADDRESS)),
    (header(b"\xff" * 6, PEER), (DecisionKind.DROP, DropCause.LINK_BROADCAST)),
    (header(b"\1\0\x5e\0\0\5", PEER), (DecisionKind.DROP, DropCause.LINK_BROADCAST)),
    (header(MAC, PEER, 0x86DD), (DecisionKind.DROP, DropCause.ETHERTYPE)),
    (header(b"\xff" * 6, PEER, ETHERTYPE_ARP), (DecisionKind.ARP, None)),
    (header(MAC, PEER, ETHERTYPE_ARP), (DecisionKind.ARP, None)),
    (header(PEER, MAC, ETHERTYPE_ARP), (DecisionKind.DROP, DropCause.LINK_ADDRESS)),
])  # fmt: skip
def test_link_headers_are_looked_at_on_the_way_in_from_a_port(
    frame: bytes, wanted: tuple[DecisionKind, DropCause | None]
) -> None:
    assert only(frame + packet().emit(), mac=MAC) == wanted
    assert only(frame + packet().emit()) == (DecisionKind.TUNNEL, None)


def test_packets_of_the_router_itself_need_no_ttl() -> None:
    assert only(packet(ttl=1), transit=False) == (DecisionKind.TUNNEL, None)


def test_options_are_forwarded() -> None:
    assert only(packet(options=b"\x94\4\0\0")) == (DecisionKind.TUNNEL, None)


def test_padding_is_cut_and_the_order_stays() -> None:
    small, large = packet(payload=b"abc"), packet(payload=bytes(100))
    arp = Arp(1, PEER, ip("10.0.0.5"), bytes(6), ip("10.0.0.1")).emit()
    groups = run(
        large,
        padded(header(MAC, PEER) + small.emit()),
        padded(header(b"\xff" * 6, PEER, ETHERTYPE_ARP) + arp),
        large,
        mac=MAC,
    )
    (tunnel, body, lengths), (asked, _, sizes) = groups
    assert (tunnel.kind, asked.kind) == (DecisionKind.TUNNEL, DecisionKind.ARP)
    assert list(lengths) == [134, 37, 134]
    assert Ipv4.parse(body[134 + HEADROOM : 134 + 37]) == small
    assert list(sizes) == [60]


def about(protocol: int, kind: int = icmp.UNREACHABLE, code: int = 4, quote: int = 28, **fields: object) -> Ipv4:
    """ICMP to an address that an ASP owns, about a packet from there."""
    quoted = packet("8.8.8.8", "9.9.9.9", protocol=protocol).emit()[:quote]
    return packet(
        "9.9.9.9", protocol=ipv4.PROTOCOL_ICMP, payload=icmp.Icmp(kind, code, 0, quoted).emit(), **fields
    )


@pytest.mark.parametrize(("sent", "kind"), [
    (packet("9.9.9.9", protocol=ipv4.PROTOCOL_ESP, ttl=1), DecisionKind.DECAPSULATE),
    (packet("9.9.9.9", protocol=ipv4.PROTOCOL_AH), DecisionKind.DECAPSULATE),
    (packet("9.9.9.9", payload=Udp(500, 500, b"").emit()), DecisionKind.DECAPSULATE),
    (packet("9.9.9.9", payload=Udp(9, 4500, b"").emit(), options=b"\1\1\1\1"), DecisionKind.DECAPSULATE),
    (packet("9.9.9.9", payload=Udp(500, 501, b"").emit()), DecisionKind.LOCAL),
    (packet("9.9.9.9", payload=b""), DecisionKind.LOCAL),
    (packet("9.9.9.9", protocol=ipv4.PROTOCOL_UDP, more_fragments=True), DecisionKind.DECAPSULATE),
    (packet("9.9.9.9", protocol=ipv4.PROTOCOL_UDP, offset=64), DecisionKind.DECAPSULATE),
    (packet("9.9.9.9", protocol=ipv4.PROTOCOL_AH, offset=64), DecisionKind.DECAPSULATE),
    (packet("9.9.9.9", protocol=ipv4.PROTOCOL_ICMP, more_fragments=True), DecisionKind.LOCAL),
    (packet("9.9.9.9", protocol=ipv4.PROTOCOL_ICMP, offset=64), DecisionKind.LOCAL),
    (packet("9.9.9.9", protocol=ipv4.PROTOCOL_ICMP), DecisionKind.LOCAL),
    (about(ipv4.PROTOCOL_ESP), DecisionKind.DECAPSULATE),
    (about(ipv4.PROTOCOL_AH, options=b"\1\1\1\1"), DecisionKind.DECAPSULATE),
    (about(ipv4.PROTOCOL_UDP), DecisionKind.DECAPSULATE),
    (about(ipv4.PROTOCOL_ICMP), DecisionKind.LOCAL),
    (about(ipv4.PROTOCOL_ESP, code=1), DecisionKind.LOCAL),
    (about(ipv4.PROTOCOL_ESP, kind=icmp.TIME_EXCEEDED), DecisionKind.LOCAL),
    (about(ipv4.PROTOCOL_ESP, kind=icmp.ECHO_REQUEST), DecisionKind.LOCAL),
    (about(ipv4.PROTOCOL_ESP, quote=19), DecisionKind.LOCAL),
    (about(ipv4.PROTOCOL_ESP, more_fragments=True), DecisionKind.LOCAL),
    (about(ipv4.PROTOCOL_ESP, offset=64), DecisionKind.LOCAL),
    (packet("10.0.0.1", protocol=ipv4.PROTOCOL_ESP), DecisionKind.LOCAL),
])  # fmt: skip
def test_what_an_asp_owns_goes_to_it(sent: Ipv4, kind: DecisionKind) -> None:
    assert only(sent)[0] is kind


def test_a_dead_asp_takes_the_next_tunnel_and_its_own_addresses_are_dropped() -> None:
    by = decider()
    esp = packet("9.9.9.9", protocol=ipv4.PROTOCOL_ESP)
    up = by._card_up

    def ways() -> list[tuple[DecisionKind, str, DropCause | None]]:
        return [(d.kind, d.card, d.cause) for d, _, _ in run(packet(), esp, by=by)]

    assert ways() == [(DecisionKind.TUNNEL, "asp 1/1", None), (DecisionKind.DECAPSULATE, "asp 1/1", None)]
    up["asp 1/1"] = False
    by.invalidate()
    assert ways() == [(DecisionKind.TUNNEL, "asp 1/2", None), (DecisionKind.DROP, "", DropCause.OWNER_DOWN)]
    up["asp 1/2"] = False
    assert ways()[0] == (DecisionKind.TUNNEL, "asp 1/2", None)  # a decision stands for its generation
    by.invalidate()
    assert ways()[0] == (DecisionKind.DROP, "", DropCause.TUNNEL_DOWN)
    up["asp 1/1"] = True
    by.invalidate()
    assert ways() == [(DecisionKind.TUNNEL, "asp 1/1", None), (DecisionKind.DECAPSULATE, "asp 1/1", None)]


def test_a_flow_is_decided_once_a_generation() -> None:
    asked = []
    by = decider()
    inner = by._usable
    by._usable = lambda hop: asked.append(hop) is None and inner(hop)
    for _ in range(3):
        run(packet(), packet(), packet("60.0.0.1"), by=by)
    assert asked == [TUNNEL]
    by.invalidate()
    run(packet(), by=by)
    assert asked == [TUNNEL, TUNNEL]


@given(
    st.lists(st.tuples(st.integers(1, 255), st.integers(0, 0xFFFF), st.integers(0, 40)), min_size=1, max_size=20),
    st.booleans(),
    st.booleans(),
)
def test_ttls_of_a_batch_equal_new_headers(
    drawn: list[tuple[int, int, int]], same_size: bool, as_view: bool
) -> None:
    def made(less: int) -> tuple[bytearray, array[int]]:
        return pack(
            [packet(ttl=ttl - less, identification=n, payload=bytes(12 if same_size else size)).emit() for ttl, n,
                size in drawn],
            HEADROOM,
        )  # fmt: skip

    body, lengths = made(0)
    decrement_ttls(memoryview(body) if as_view else body, lengths)
    assert body == made(1)[0]


def test_ttl_with_every_checksum() -> None:
    packets = [packet(identification=n, payload=b"").emit() for n in range(65536)]
    body, lengths = pack(packets, HEADROOM)
    for begin in range(0, 65536, 64):
        part = body[begin * 34 : (begin + 64) * 34]
        decrement_ttls(part, lengths[:64])
        body[begin * 34 : (begin + 64) * 34] = part
    wanted, _ = pack([packet(identification=n, payload=b"", ttl=63).emit() for n in range(65536)], HEADROOM)
    assert body == wanted


def test_link_headers_go_before_every_packet() -> None:
    body, lengths = pack([packet(payload=bytes(n)).emit() for n in (1, 5, 9)], HEADROOM)
    write_link_headers(body, lengths, header(PEER, MAC))
    wanted, _ = pack([header(PEER, MAC) + packet(payload=bytes(n)).emit() for n in (1, 5, 9)])
    assert body == wanted


@given(st.lists(st.binary(min_size=14, max_size=70), min_size=1, max_size=8), st.booleans())
def test_any_bytes_are_classified_and_none_is_lost(frames: list[bytes], link: bool) -> None:
    body, lengths = pack(frames)
    groups = classify(decider(), 1, body, lengths, mac=MAC if link else b"")
    assert sum(len(sizes) for _, _, sizes in groups) == len(frames)
    assert all(sum(sizes) == len(part) for _, part, sizes in groups)
