"""Every packet that comes in is somewhere: out, consumed, waiting, or dropped for a cause that has a name; what
SAs and tunnels say adds up to what their ASP says.

Random batches of whole, damaged, late, repeated, oversize, unmatched and senseless packets, both ways, by tunnels
of both modes, while SAs are replaced, tunnels go down and come back, and packets wait in queues.
"""

from __future__ import annotations

import struct
from collections import Counter as Tally
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from chassis.ase.counters import DECAPSULATED, ENCAPSULATED, AspCounters
from chassis.ase.ike_messages import IkeTunnelState, SaDelete
from chassis.bus.batch import Step
from chassis.bus.counters import FILE_SIZE, Counters
from chassis.bus.messages import Reply, Request
from chassis.bus.records import PolicyRecord, TunnelRecord
from chassis.model.acl import Acl, AclRule
from chassis.model.ipsec import TunnelEntry
from chassis.net.ipv4 import PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP, Ipv4
from chassis.net.udp import Udp
from tests.support.asp import (
    CIRCUIT,
    ECONOMICAL,
    INNER,
    OUTER,
    Controller,
    altered,
    batch_of,
    ip,
    manual_sa,
    packets_of,
    udp_packet,
)
from tests.support.asp import records as manual_records
from tests.support.asp_negotiated import Side, install, static

TUNNELS = (CIRCUIT, ECONOMICAL)
A, B = ip("40.0.0.1"), ip("40.0.0.2")

AT_SAS = {
    "outside replay window", "replayed", "ah integrity", "esp integrity", "not tunnel mode",
    "decompression failed", "dummy packet", "ecn ce on not-ect", "selector mismatch", "no lease",
    "sequence exhausted",
}  # fmt: skip
"""Causes of drops that only an SA has: all SAs together have as many as the ASP."""

AT_TUNNELS = AT_SAS | {
    "no policy", "no outbound sa", "tunnel without sa", "tunnel down", "no circuit", "queue full", "queue 0 full",
    "queue 1 full", "queue 2 full", "queue 3 full", "ttl exceeded", "fragmentation needed", "no route",
    "no usable next hop",
}  # fmt: skip
"""Causes that only a tunnel or one of its SAs has here."""


@dataclass
class Ends:
    """Two routers; what each has put on the wire for the other so far, and what was given to their tunnels."""

    a: Controller
    b: Controller
    wire: dict[str, list[bytes]] = field(default_factory=lambda: {"a": [], "b": []})
    given: Tally[tuple[str, int]] = field(default_factory=Tally)
    serial: int = 1
    filters: str = ""

    def end(self, name: str) -> Controller:
        return self.a if name == "a" else self.b


def acl(there: bool) -> PolicyRecord:
    """The ends do not agree: UDP and ICMP at `a`, TCP and UDP at `b`; manual keys go by the first alone."""
    rules = (
        AclRule(10, protocol=PROTOCOL_TCP if there else PROTOCOL_UDP),
        AclRule(20, protocol=PROTOCOL_UDP if there else PROTOCOL_ICMP),
    )
    return PolicyRecord(INNER, Acl("some", rules=rules))


def manual(kind: str, filters: str, **tunnel: object) -> Ends:
    """`filters` names the ends that have an access list."""
    made = []
    for there in (False, True):
        found = manual_records(there=there, kind=kind, **tunnel)
        if "ab"[there] in filters:
            found = [
                altered(record, entries=(replace(record.config.entries[0], acl="some"),))
                if isinstance(record, TunnelRecord)
                else record
                for record in found
            ]
        made.append(Controller([*found, acl(there)]))
    return Ends(*made)


def negotiated(kind: str, filters: str, **tunnel: object) -> Ends:
    sides = []
    for there in (False, True):
        lines = (TunnelEntry(10, policy="p", acl="some" if "ab"[there] in filters else ""),)
        sides.append(Side([*static(there=there, entries=lines, **tunnel), acl(there)]))
    ends = Ends(*sides, filters=filters)
    for number in TUNNELS:
        pair_up(ends, number, kind)
    return ends


def pair_up(ends: Ends, number: int, kind: str) -> None:
    ends.serial += 1
    for there, side in enumerate((ends.a, ends.b)):
        assert isinstance(side, Side)
        rules = acl(bool(there)).value.rules if "ab"[there] in ends.filters else ()
        side.ike(
            install(number, ends.serial, there=bool(there), kind=kind, rules=rules),
            IkeTunnelState(number, True, ""),
        )


# what happens


def clear_packets(draw: st.DrawFn, name: str) -> list[bytes]:
    source, destination = ("52.0.0.1", "62.0.0.1") if name == "a" else ("62.0.0.1", "52.0.0.1")
    packets = []
    if draw(st.integers(0, 3)) == 0:
        return [udp_packet(source, destination, number=number) for number in range(90)]
    for number in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["plain", "plain", "plain", "large", "icmp", "tcp", "far", "dying", "noise"]))
        protocol = {"icmp": PROTOCOL_ICMP, "tcp": PROTOCOL_TCP}.get(kind, PROTOCOL_UDP)
        size = draw(st.sampled_from([600, 1400, 1480, 3000, 9000])) if kind == "large" else 60 + number
        packet = udp_packet(
            source,
            "99.0.0.1" if kind == "far" else destination,
            size,
            ttl=1 if kind == "dying" else 63,
            df=draw(st.booleans()),
            number=number,
            protocol=protocol,
        )
        if kind == "noise":
            packet = packet[: draw(st.integers(0, 30))] if draw(st.booleans()) else b"\x60" + packet[1:]
        packets.append(packet)
    return packets


def wire_packets(draw: st.DrawFn, ends: Ends, name: str) -> list[bytes]:
    """For this end: what the other has sent, at random, and as it is, changed, or something else altogether."""
    sent = ends.wire["b" if name == "a" else "a"]
    mine, far = (A, B) if name == "a" else (B, A)
    packets = []
    for _ in range(draw(st.integers(1, 8))):
        kinds = ["ike", "keepalive", "tcp", "piece", "unknown", "noise"]
        kind = draw(
            st.sampled_from(
                ["fresh"] * 6 + ["again", "damaged", "damaged", "cut", "fragment", *kinds] if sent else kinds
            )
        )
        if kind in ("fresh", "again", "damaged", "cut", "fragment"):
            at = draw(st.integers(0, len(sent) - 1))
            packet = bytearray(sent[at] if kind != "fresh" else sent[-1 - at % min(len(sent), 80)])
            if kind == "damaged":
                packet[draw(st.integers(0, len(packet) - 1))] ^= draw(st.integers(1, 255))
            elif kind == "cut":
                del packet[draw(st.integers(0, len(packet) - 1)) :]
            elif kind == "fragment":
                packet[6] |= 0x20
            packets.append(bytes(packet))
        elif kind == "unknown":
            packets.append(
                Ipv4(far, mine, 50, struct.pack("!II", draw(st.integers(0, 1 << 31)), 1) + bytes(64)).emit()
            )
        elif kind == "noise":
            packets.append(draw(st.binary(max_size=60)))
        elif kind == "tcp":
            packets.append(Ipv4(far, mine, PROTOCOL_TCP, bytes(30)).emit())
        else:
            port, data = (4500, b"\xff") if kind == "keepalive" else (500, b"i" * 40)
            datagram = Udp(port, port, data).emit((far, mine))
            packet = Ipv4(far, mine, PROTOCOL_UDP, datagram, identification=draw(st.integers(0, 3)))
            if kind == "piece":
                first = draw(st.booleans())
                part = datagram[:24] if first else datagram[24:]
                packet = replace(packet, payload=part, more_fragments=first, offset=0 if first else 24)
            packets.append(packet.emit())
    return packets


def send(draw: st.DrawFn, ends: Ends, kind: str) -> None:
    name = draw(st.sampled_from("ab"))
    number = draw(st.sampled_from([*TUNNELS, *TUNNELS, 77]))
    packets = clear_packets(draw, name)
    ends.given[name, number] += len(packets)
    collect(ends, name, ends.end(name).protect(number, packets))


def arrive(draw: st.DrawFn, ends: Ends, kind: str) -> None:
    name = draw(st.sampled_from("ab"))
    packets = wire_packets(draw, ends, name)
    collect(ends, name, ends.end(name).give(batch_of(packets, Step.DECAPSULATE, ingress="3/11", context=OUTER)))


def deliver(draw: st.DrawFn, ends: Ends, kind: str) -> None:
    """All that was sent last, as it is."""
    name = draw(st.sampled_from("ab"))
    packets = ends.wire["b" if name == "a" else "a"][-draw(st.integers(1, 40)) :]
    if packets:
        collect(
            ends, name, ends.end(name).give(batch_of(packets, Step.DECAPSULATE, ingress="3/11", context=OUTER))
        )


def pass_time(draw: st.DrawFn, ends: Ends, kind: str) -> None:
    seconds = draw(st.sampled_from([0.01, 0.5, 40.0]))
    for name in "ab":
        end = ends.end(name)
        end.now += seconds
        collect(ends, name, end.take(end.asp.on_timer(end.now)))
        end.check_counts()


def turn(draw: st.DrawFn, ends: Ends, kind: str) -> None:
    """The controller calls a tunnel down, or up again."""
    end, number = ends.end(draw(st.sampled_from("ab"))), draw(st.sampled_from(TUNNELS))
    end.put(replace(end.tunnel(number), up=not end.tunnel(number).up))


def replace_sas(draw: st.DrawFn, ends: Ends, kind: str) -> None:
    """Other keys for a tunnel, at both ends: those before are gone, or older ones where they were negotiated."""
    number = draw(st.sampled_from(TUNNELS))
    if isinstance(ends.a, Side):
        old = ends.serial
        pair_up(ends, number, kind)
        for side in (ends.a, ends.b):
            assert isinstance(side, Side)
            side.ike(SaDelete(number, draw(st.integers(max(old - 1, 1), old)), "replaced"))
        return
    spi = 1000 * number + draw(st.integers(0, 3)) * 100
    for there, end in enumerate((ends.a, ends.b)):
        end.put(manual_sa(f"sa{number}", spi, kind, there=bool(there)))


ACTIONS: list[Callable[[st.DrawFn, Ends, str], None]] = [
    send, send, send, arrive, arrive, deliver, deliver, pass_time,
]  # fmt: skip
RARE = [turn, replace_sas]


def collect(ends: Ends, name: str, sent: list[tuple[str, Any]]) -> None:
    """Keep what leaves by the wire."""
    for _, batch in sent:
        if batch.step is Step.CIRCUIT_OUT or (batch.step is Step.EGRESS and batch.port.endswith("/11")):
            ends.wire[name] += packets_of(batch)


# what must be so


def report(end: Controller) -> dict[str, Any]:
    end.said.clear()
    end.take(end.asp.receive(Request(1, "sas", {}), end.now))
    [reply] = [message for message in end.said if isinstance(message, Reply)]
    assert reply.error == ""
    return reply.result


def agree(end: Controller) -> dict[str, Any]:
    """SAs make up tunnels, tunnels make up the ASP."""
    said = report(end)
    assert said["drops"] == end.drops()
    at_sas: Tally[str] = Tally()
    at_tunnels: Tally[str] = Tally()
    for row in said["tunnels"]:
        number = row["tunnel"]
        for way, key in (("encapsulated", "packets"), ("decapsulated", "decapsulated")):
            direction = "out" if way == "encapsulated" else "in"
            sas = [sa for sa in row["sas"] if sa["direction"] == direction]
            whole = row["previous"][way] + row["retired"][way] + sum(sa[key] for sa in sas)
            assert row[way]["packets"] == whole == end.count(f"tunnel {number} {way} packets")
            drops = Tally(row["drops"][direction])
            at_tunnels += drops
            for sa in sas:
                assert all(count > 0 for count in sa["drops"].values())
                at_sas += Tally(sa["drops"])
                assert Tally(sa["drops"]) <= drops
                if direction == "in":
                    assert sa["decapsulated"] <= sa["packets"] <= sa["decapsulated"] + sum(sa["drops"].values())
    drops = Tally(said["drops"])
    assert {cause: drops[cause] for cause in AT_TUNNELS} == {cause: at_tunnels[cause] for cause in AT_TUNNELS}
    assert at_sas <= at_tunnels <= drops
    return said


def whole_way(ends: Ends, name: str) -> None:
    """What was given to a circuit-based tunnel, into which no other packets are routed."""
    end = ends.end(name)
    [row] = [row for row in report(end)["tunnels"] if row["tunnel"] == CIRCUIT]
    waiting = sum(sa.waiting for key, sa in end.asp.datapath.queues._by_entry_key.items() if key[0] == CIRCUIT)
    lost = sum(row["drops"]["out"].values())
    went_on = row["encapsulated"]["packets"] - row["post_ipsec_drops"]["encapsulated"]
    assert ends.given[name, CIRCUIT] + row["fragments"] == went_on + lost + waiting


@pytest.mark.parametrize("make", [manual, negotiated])
@settings(max_examples=100)
@given(data=st.data())
def test_every_packet_is_somewhere(make: Callable[..., Ends], data: st.DataObject) -> None:
    draw: st.DrawFn = data.draw
    kind = draw(st.sampled_from(["esp", "ah", "bundle"]))
    tunnel = {
        "mtu": draw(st.sampled_from([0, 0, 576, 1400])),
        "df_bit": draw(st.sampled_from(["propagate", "set", "clear"])),
        "queues": draw(st.sampled_from([1, 4])),
    }
    ends = make(kind, draw(st.sampled_from(["", "", "ab", "a", "b"])), **tunnel)
    rate = draw(st.sampled_from([None, None, "200pps", "20k"]))
    for end in (ends.a, ends.b):
        end.asp.datapath.queues.set_rate(rate)
    for _ in range(draw(st.integers(1, 25))):
        act = draw(st.sampled_from([*ACTIONS, *ACTIONS, *RARE]))
        act(draw, ends, kind)
    for name in "ab":
        end = ends.end(name)
        end.check_counts()
        for cause in agree(end)["drops"]:
            event(cause)
        whole_way(ends, name)


def test_sas_that_are_gone_are_not_forgotten_and_tunnels_that_are_gone_are() -> None:
    ends = manual("esp", "")
    a, b = ends.a, ends.b
    [(_, out)] = a.protect(CIRCUIT, [udp_packet(number=i) for i in range(3)])
    b.open(out)
    b.open(out)
    for there, end in enumerate((a, b)):
        end.put(manual_sa("sa1", 3000, there=bool(there)))
    [(_, out)] = a.protect(CIRCUIT, [udp_packet(number=i) for i in range(2)])
    b.open(out)
    [row, _] = agree(b)["tunnels"]
    assert (row["decapsulated"]["packets"], row["retired"]["decapsulated"], row["sas"][1]["decapsulated"]) == (
        5,
        3,
        2,
    )
    assert row["drops"] == {"out": {}, "in": {"replayed": 3}}
    assert row["sas"][1]["drops"] == {}
    [row, _] = agree(a)["tunnels"]
    assert (row["encapsulated"]["packets"], row["retired"]["encapsulated"], row["sas"][0]["packets"]) == (5, 3, 2)
    assert row["sas"][0]["spi"] == 3000
    gone = b.tunnel(CIRCUIT)
    b.put(delete=[("tunnel", CIRCUIT)])
    assert [row["tunnel"] for row in report(b)["tunnels"]] == [ECONOMICAL]
    b.put(gone)
    row, _ = report(b)["tunnels"]
    # The counters of a tunnel in the ASP's file stay; all else begins anew.
    assert (row["decapsulated"]["packets"], row["previous"]["decapsulated"], row["retired"]["decapsulated"]) == (
        5,
        5,
        0,
    )
    assert row["drops"] == {"out": {}, "in": {}}


def test_one_tunnel_alone() -> None:
    a = manual("esp", "").a
    a.take(a.asp.receive(Request(1, "sas", {"tunnel": ECONOMICAL}), a.now))
    a.take(a.asp.receive(Request(2, "sas", {"tunnel": 77}), a.now))
    replies = [message.result for message in a.said if isinstance(message, Reply)]
    assert [[row["name"] for row in reply["tunnels"]] for reply in replies] == [["t2"], []]


def test_a_new_process_goes_on_with_what_the_one_before_counted() -> None:
    file = memoryview(bytearray(FILE_SIZE))
    AspCounters(Counters(file)).count_tunnel(7, ENCAPSULATED, 3, 300)
    after = AspCounters(Counters(file))
    assert (after.previous_total(7, ENCAPSULATED), after.tunnel_total(7, ENCAPSULATED)) == (3, (3, 300))
    after.count_tunnel(7, ENCAPSULATED, 2, 200)
    assert (after.previous_total(7, ENCAPSULATED), after.tunnel_total(7, ENCAPSULATED)) == (3, (5, 500))
    assert (after.previous_total(7, DECAPSULATED), after.tunnel_total(7, DECAPSULATED)) == (0, (0, 0))
