"""Lines that select by ports, and packets too large for their tunnel: matched whole, and never a piece without its
ports on its own (RFC 4301 section 7, S-110)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.bus.batch import Step
from chassis.bus.records import PolicyRecord, PortRecord
from chassis.model.acl import Acl, AclRule
from chassis.model.ipsec import TunnelEntry
from chassis.net.fragments import fragment
from chassis.net.ipv4 import PROTOCOL_ICMP, PROTOCOL_UDP, Ipv4
from tests.support.asp import (
    CIRCUIT,
    ECONOMICAL,
    INNER,
    OUTER,
    Controller,
    altered,
    batch_of,
    icmp_error,
    ip,
    manual_sa,
    packets_of,
    pair,
    udp_packet,
)
from tests.support.asp_negotiated import A, B, encapsulated, install, sides

PORT = 1500
MTU = 600
WAYS = {CIRCUIT: ("50.0.0.1", "60.0.0.1"), ECONOMICAL: ("52.0.0.1", "62.0.0.1")}

BY_PORTS = AclRule(10, protocol=PROTOCOL_UDP, source_port=1000, destination_port=2000)
ALL_UDP = AclRule(20, protocol=PROTOCOL_UDP)


def mirrored(rule: AclRule) -> AclRule:
    return replace(rule, source_port=rule.destination_port, destination_port=rule.source_port)


def manual(tunnel: int, second: bool, **fields: object) -> tuple[Controller, Controller]:
    """Both ends with a line that names ports and, if wanted, a second one for everything."""
    ends = pair(**fields)
    for there, end in enumerate(ends):
        lines = [TunnelEntry(10, sa=f"sa{tunnel}", acl="ports")]
        if second:
            lines.append(TunnelEntry(20, sa="sa9"))
        end.put(
            PolicyRecord(INNER, Acl("ports", rules=(mirrored(BY_PORTS) if there else BY_PORTS,))),
            manual_sa("sa9", 9000, str(fields.get("kind", "esp")), there=bool(there)),
            altered(end.tunnel(tunnel), entries=tuple(lines)),
        )
    return ends


def negotiated(tunnel: int, second: bool, *, nat: bool = False, **fields: object) -> tuple[Controller, Controller]:
    ends = sides(**fields)
    for there, end in enumerate(ends):
        rule = mirrored(BY_PORTS) if there else BY_PORTS
        lines = [TunnelEntry(10, policy="p", acl="ports"), TunnelEntry(20, policy="p")]
        end.put(
            PolicyRecord(INNER, Acl("ports", rules=(rule,))),
            altered(end.tunnel(tunnel), entries=tuple(lines[: 1 + second])),
        )
        outside = encapsulated(A if there else B) if nat else ()
        end.ike(install(tunnel, 1, there=bool(there), rules=(rule,), encapsulation=outside))
        if second:
            end.ike(install(tunnel, 2, there=bool(there), entry=20, encapsulation=outside))
    return ends


def ends_of(kind: str, tunnel: int, second: bool, **fields: object) -> tuple[Controller, Controller]:
    if kind == "manual":
        return manual(tunnel, second, **fields)
    return negotiated(tunnel, second, nat=kind == "nat", **fields)


def clear_packet(tunnel: int, size: int, *, df: bool = False, port: int = 1000, number: int = 0) -> bytes:
    packet = Ipv4.parse(udp_packet(*WAYS[tunnel], size, df=df, number=number))
    return replace(packet, payload=port.to_bytes(2, "big") + packet.payload[2:]).emit()


def sent(end: Controller, tunnel: int, clear: list[bytes]) -> tuple[list[bytes], list[int]]:
    """What leaves the egress port, as it leaves, and the sizes that senders were told to keep to."""
    outer, told = [], []
    for _, batch in end.protect(tunnel, clear):
        for packet in packets_of(batch):
            parsed = Ipv4.parse(packet)
            if parsed.protocol == PROTOCOL_ICMP:
                told.append(icmp_error(packet)[1].mtu)
            elif len(packet) > PORT and not parsed.dont_fragment:
                # The line card of the circuit looks it up, and cuts it to its port.
                outer += [piece.emit() for piece in fragment(parsed, PORT)]
            else:
                outer.append(packet)
    return outer, told


def came(end: Controller, outer: list[bytes]) -> list[bytes]:
    out = end.give(batch_of(outer, Step.DECAPSULATE, context=OUTER, ingress="3/11"))
    return [packet for _, batch in out for packet in packets_of(batch)]


def same(packet: bytes) -> bytes:
    """A packet whatever its TTL is by now."""
    return replace(Ipv4.parse(packet), ttl=9).emit()


@pytest.mark.parametrize("tunnel", [CIRCUIT, ECONOMICAL])
@pytest.mark.parametrize("kind", ["manual", "negotiated", "nat"])
@pytest.mark.parametrize("second", [False, True], ids=["alone", "before everything"])
@pytest.mark.parametrize("df_bit", ["propagate", "set", "clear"])
@pytest.mark.parametrize("df", [False, True])
@pytest.mark.parametrize("mtu", [0, MTU])
def test_a_packet_that_goes_by_its_ports_is_protected_whole(
    tunnel: int, kind: str, second: bool, df_bit: str, df: bool, mtu: int
) -> None:
    a, b = ends_of(kind, tunnel, second, df_bit=df_bit, mtu=mtu)
    clear = clear_packet(tunnel, 3000, df=df)
    outer, told = sent(a, tunnel, [clear])
    state = a.asp.tunnels.local[tunnel]
    assert state.egress is not None
    limit = mtu or PORT - state.overhead
    if df_bit == "set" or (df and (df_bit == "propagate" or mtu)):
        # Neither the packet nor what protects it may be cut.
        assert (outer, told, a.drops()) == ([], [limit], {"fragmentation needed": 1})
        return
    assert told == []
    assert len(outer) > 1
    assert max(map(len, outer)) <= limit + state.overhead
    port = b.record("port", "3/1")
    assert isinstance(port, PortRecord)
    b.put(replace(port, mtu=9000))
    assert [same(packet) for packet in came(b, outer)] == [same(clear)]
    assert (a.drops(), b.drops()) == ({}, {})
    assert a.asp.sadb.current_outbound(tunnel, 10).packets == 1  # type: ignore[union-attr]
    assert a.asp.sa_statistics.statistics(tunnel)["tunnels"][0]["fragments"] == 0
    assert a.count(f"tunnel {tunnel} encapsulated octets") == 3000


@pytest.mark.parametrize("tunnel", [CIRCUIT, ECONOMICAL])
@pytest.mark.parametrize("kind", ["manual", "negotiated"])
@pytest.mark.parametrize("df_bit", ["propagate", "set", "clear"])
def test_each_packet_of_a_batch_goes_by_the_line_that_its_whole_matched(
    tunnel: int, kind: str, df_bit: str
) -> None:
    a, b = ends_of(kind, tunnel, True, df_bit=df_bit, mtu=MTU)
    by_ports, others = 1000, 9
    clear = [
        clear_packet(tunnel, size, port=port, number=number)
        for number, (size, port) in enumerate([(100, by_ports), (1400, others), (1400, by_ports), (600, by_ports)])
    ]
    outer, told = sent(a, tunnel, clear)
    got = [Ipv4.parse(packet) for packet in came(b, outer)]
    whole = [packet.emit() for packet in got if not (packet.offset or packet.more_fragments)]
    expected = [clear[0], clear[2], clear[3]] if df_bit != "set" else [clear[0], clear[3]]
    # Pieces of outer packets come in behind those that came whole.
    assert sorted(map(same, whole)) == sorted(map(same, expected))
    pieces = sorted([packet for packet in got if packet.offset or packet.more_fragments], key=lambda p: p.offset)
    assert len(pieces) == 3
    assert b"".join(piece.payload for piece in pieces) == Ipv4.parse(clear[1]).payload
    assert told == ([MTU] if df_bit == "set" else [])
    assert b.drops() == {}
    carried = [a.asp.sadb.current_outbound(tunnel, line).packets for line in (10, 20)]  # type: ignore[union-attr]
    assert carried == [3 - (df_bit == "set"), 3]


@pytest.mark.behaviour("B-130")
@pytest.mark.parametrize("df", [False, True])
def test_what_no_line_wants_is_dropped_once_by_that_name_whatever_its_size(df: bool) -> None:
    a, _ = manual(CIRCUIT, False, mtu=MTU)
    assert a.protect(CIRCUIT, [clear_packet(CIRCUIT, 1400, df=df, port=9)]) == []
    assert a.drops() == {"no policy": 1}


def test_a_line_with_a_rule_for_the_rest_of_the_flow_is_cut_before_it_is_protected() -> None:
    left, right = sides(mtu=MTU)
    for there, end in enumerate((left, right)):
        rules = (mirrored(BY_PORTS) if there else BY_PORTS, ALL_UDP)
        end.put(
            PolicyRecord(INNER, Acl("udp", rules=rules)),
            altered(end.tunnel(CIRCUIT), entries=(TunnelEntry(10, policy="p", acl="udp"),)),
        )
        end.ike(install(CIRCUIT, 1, there=bool(there), rules=rules))
    outer, _ = sent(left, CIRCUIT, [clear_packet(CIRCUIT, 1400)])
    assert len(outer) == 3
    assert not any(Ipv4.parse(packet).more_fragments for packet in outer)
    assert [len(packet) <= MTU for packet in came(right, outer)] == [True] * 3
    assert right.drops() == {}


@pytest.mark.parametrize(("rules", "pieces"), [((BY_PORTS,), 1), ((ALL_UDP,), 3), ((AclRule(10, protocol=6),), 0)])
def test_what_the_peer_agreed_to_decides_where_it_is_less_than_the_line(
    rules: tuple[AclRule, ...], pieces: int
) -> None:
    left, right = sides(mtu=MTU)
    left.ike(install(CIRCUIT, 1, rules=rules))
    right.ike(install(CIRCUIT, 1, there=True, rules=tuple(map(mirrored, rules))))
    outer, _ = sent(left, CIRCUIT, [clear_packet(CIRCUIT, 1400)])
    assert (len(came(right, outer)) if outer else 0) == pieces
    assert left.drops() == ({} if pieces else {"no outbound sa": 1})
    assert right.drops() == {}


def test_a_piece_that_a_host_made_has_no_ports() -> None:
    """As before: it goes by a line that names none, here by none at all."""
    a, b = manual(CIRCUIT, False)
    pieces = [piece.emit() for piece in fragment(Ipv4.parse(clear_packet(CIRCUIT, 1400)), 800)]
    outer, _ = sent(a, CIRCUIT, pieces)
    assert came(b, outer) == pieces[:1]
    assert a.drops() == {"no policy": 1}


def test_pieces_of_outer_packets_leave_by_their_tunnels_way() -> None:
    a, _ = manual(ECONOMICAL, False, mtu=MTU)
    [(card, out)] = a.protect(ECONOMICAL, [clear_packet(ECONOMICAL, 1400)], marks=((0, 5),))
    assert (card, out.port, out.address, out.marks) == ("lc 3", "3/11", ip("40.0.0.2"), ((0, 5),))
    assert (len(out), a.count("fragments created")) == (3, 2)
