"""Whatever happens in whatever order: nothing raises, every packet is accounted for, none leaves in clear."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.bus.batch import Batch, Step, pack
from chassis.bus.messages import Datagram, Datagrams, Welcome
from chassis.bus.records import CardStateRecord, NextHop, PortRecord, UdpPortRecord
from chassis.net import icmp, ipv4
from chassis.net.address import parse_address as ip
from chassis.net.arp import Arp
from chassis.net.ethernet import ETHERTYPE_ARP, HEADROOM, header
from chassis.net.udp import Udp
from tests.support.linecard import (
    CIRCUIT,
    CIRCUITED,
    ECONOMICAL,
    GATEWAY,
    HOST,
    INNER,
    MAC,
    OUTER,
    RECORDS,
    Rig,
    packet,
    route,
    tunnel,
)

DESTINATIONS = [
    "30.0.0.1", "31.0.0.1", "10.0.0.1", "10.0.0.5", "10.0.0.66", "10.9.0.1", "10.4.0.7", "200.0.0.1", "5.5.5.1",
    "6.6.6.1", "172.16.0.1", "224.0.0.5", "10.0.0.255",
]  # fmt: skip

addresses = st.sampled_from(DESTINATIONS)
payloads = st.one_of(
    st.binary(max_size=40),
    st.just(bytes(1500)),
    st.builds(Udp, st.just(1812), st.sampled_from([1812, 1813]), st.binary(max_size=9)).map(Udp.emit),
    st.builds(icmp.echo_request, st.integers(0, 0xFFFF), st.integers(0, 9), st.binary(max_size=9)).map(
        icmp.Icmp.emit
    ),
)
packets = st.builds(
    packet,
    addresses,
    addresses,
    payloads,
    protocol=st.sampled_from([ipv4.PROTOCOL_ICMP, ipv4.PROTOCOL_UDP, ipv4.PROTOCOL_ESP]),
    ttl=st.sampled_from([0, 1, 2, 64]),
    dont_fragment=st.booleans(),
    more_fragments=st.sampled_from([False, False, False, True]),
    options=st.sampled_from([b"", b"", b"\1\1\1\1"]),
)
arps = st.builds(
    Arp,
    st.integers(1, 2),
    st.sampled_from([HOST, GATEWAY, MAC["3/1"]]),
    addresses.map(ip),
    st.just(bytes(6)),
    addresses.map(ip),
)
macs = st.sampled_from([MAC["3/1"], MAC["3/11"], b"\xff" * 6, HOST])
frames = st.one_of(
    st.builds(lambda to, p: header(to, HOST) + p.emit(), macs, packets),
    st.builds(lambda to, p: header(to, HOST) + p.emit() + bytes(6), macs, packets),
    st.builds(lambda to, a: header(to, a.sender_mac, ETHERTYPE_ARP) + a.emit(), macs, arps),
    st.binary(min_size=14, max_size=80),
)
marks = st.sampled_from([(), (), ((0, 3),)])
ports = st.sampled_from(["3/1", "3/11", "3/9"])
(PORT,) = [r for r in RECORDS if isinstance(r, PortRecord) and r.port == "3/1"]

events = st.one_of(
    st.tuples(st.just("frames"), ports, st.lists(frames, min_size=1, max_size=6), marks),
    st.tuples(st.just("batch"), st.sampled_from(Step), st.lists(packets, min_size=1, max_size=4), ports, marks),
    st.tuples(st.just("junk"), st.sampled_from(Step), st.lists(st.binary(max_size=60), min_size=1, max_size=4)),
    st.tuples(st.just("carrier"), ports, st.booleans()),
    st.tuples(st.just("peer"), st.sampled_from(["asp 1/1", "asp 1/2", "lc 4"]), st.booleans()),
    st.tuples(st.just("usable"), st.sampled_from(["asp 1/1", "asp 1/2", "lc 4"]), st.booleans()),
    st.tuples(st.just("tunnel"), st.booleans(), st.sampled_from(["lc 3", "lc 4", ""])),
    st.tuples(st.just("port"), st.booleans()),
    st.tuples(st.just("time"), st.sampled_from([0.01, 1.0, 5.0, 4000.0])),
    st.tuples(st.just("late")),
    st.tuples(st.just("welcome")),
    st.tuples(st.just("udp port"), st.booleans()),
    st.tuples(st.just("datagrams"), addresses, st.sampled_from([INNER, OUTER, 9]), st.sampled_from([0, 9, 3000])),
    st.tuples(st.just("ping"), addresses),
)


def act(rig: Rig, event: tuple[Any, ...]) -> None:
    what, *rest = event
    if what == "frames":
        rig.frames(rest[0], *rest[1], marks=rest[2])
    elif what == "batch":
        rig.batch(
            rest[0],
            *rest[1],
            circuit=CIRCUIT,
            context=OUTER if rest[0] in (Step.CIRCUIT_OUT, Step.EGRESS) else INNER,
            port="3/11" if rest[2] == "3/1" else rest[2],
            address=ip("20.0.0.9"),
            marks=rest[3],
        )
    elif what == "junk":
        body, lengths = pack(rest[1], HEADROOM)
        batch = Batch(
            rest[0], body, lengths, card="lc 4", epoch=5, context=INNER, circuit=CIRCUIT, port="3/11", address=9
        )
        rig.do(rig.card.receive_batch(batch, rig.now))
    elif what == "carrier":
        rig.do(rig.card.on_carrier(rest[0], rest[1], rig.now))
    elif what == "peer":
        rig.do(rig.card.on_fabric_peer(rest[0], 2 if rest[0] == "lc 4" else 3, rest[1], rig.now))
    elif what == "usable":
        kind = "linecard" if rest[0] == "lc 4" else "asp"
        rig.delta(CardStateRecord(rest[0], kind, 2 if kind == "linecard" else 3, 5, rest[1]))
    elif what == "tunnel":
        rig.delta(tunnel(CIRCUITED, "asp 1/1", economical=False, home=rest[1], up=rest[0]))
    elif what == "port":
        rig.delta(replace(PORT, enabled=rest[0]))
    elif what == "time":
        rig.after(rest[0])
    elif what == "late":
        rig.do(rig.card.on_stall(1.0, rig.now))
    elif what == "welcome":
        rig.do(rig.card.receive(Welcome(4, rig.version, 0.1, 5, {}), rig.now))
    elif what == "udp port":
        record = UdpPortRecord(1812)
        rig.delta(*(record,) if rest[0] else (), delete=() if rest[0] else (record.key,))
    elif what == "datagrams":
        datagram = Datagram(rest[1], 0, ip(rest[0]), 1812, 1812, bytes(rest[2]))
        rig.do(rig.card.receive(Datagrams((datagram,) * 3), rig.now))
    else:
        rig.request("ping", context="vpn", address=rest[0], timeout=1)


@settings(max_examples=60, deadline=None)
@given(st.lists(events, min_size=1, max_size=25))
def test_any_order_of_events(history: list[tuple[Any, ...]]) -> None:
    rig = Rig()
    # A port behind the tunnels, cheaper by far, and a default route: both must stay unused for tunnels' packets.
    rig.delta(
        route(INNER, "30.0.0.0/8", NextHop("tunnel", 5, "asp 1/1", tunnel=ECONOMICAL),
            NextHop("port", 6, "lc 3", "3/1", ip("10.0.0.5"))),
    )  # fmt: skip
    rig.knows("3/1", "10.0.0.5", HOST)
    for event in history:
        act(rig, event)  # the rig checks the balance after each
        for _, _, sent in rig.sent("3/1"):
            assert sent.destination >> 24 not in (30, 31), sent
        if rig.card.fenced:
            assert not rig.wire()
            assert not rig.fabric()


def test_the_history_can_fail() -> None:
    """The check above sees a packet that leaves in clear."""
    rig = Rig().knows("3/1", "10.0.0.5", HOST)
    rig.delta(route(INNER, "30.0.0.0/8", NextHop("port", 6, "lc 3", "3/1", ip("10.0.0.5"))))
    act(rig, ("frames", "3/1", [header(MAC["3/1"], HOST) + packet().emit()], ()))
    assert [p.destination >> 24 for _, _, p in rig.sent()] == [30]
