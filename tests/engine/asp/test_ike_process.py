"""Between the data engine and its IKE process: datagrams, records, commands, and whether it still turns."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from chassis.ase.engine import AspEngine
from chassis.ase.ike_client import IKE_SILENCE_TIMEOUT, MAX_RECORDS_PER_MESSAGE, PIPE_DROP_LOG_INTERVAL
from chassis.ase.ike_messages import (
    Configure,
    IkeHeartbeat,
    IkeLog,
    IkePacket,
    IkeReply,
    IkeRequest,
    IkeTunnelState,
    MessageDropped,
    NatMappingChanged,
)
from chassis.ase.ipsec.state import octets_for
from chassis.bus.batch import Step
from chassis.bus.messages import LogRecord, Reply, Request, TunnelEvent, Welcome
from chassis.bus.records import CertificateRecord, PolicyRecord, PortRecord, TunnelRecord
from chassis.fwd.reassembly import REASSEMBLY_TIMEOUT
from chassis.model.acl import Acl, AclRule
from chassis.model.ike import IkePolicy, PreSharedKey, ProposalRef
from chassis.model.ipsec import IpsecPolicy, TunnelEntry
from chassis.net.fragments import fragment
from chassis.net.ipv4 import PROTOCOL_UDP, Ipv4
from chassis.net.udp import Udp
from tests.support.asp import (
    ASP,
    CIRCUIT,
    ECONOMICAL,
    INNER,
    LC3,
    LC4,
    OUTER,
    SPARE,
    altered,
    batch_of,
    ip,
    packets_of,
    port_hop,
    records,
    route,
    tunnel_hop,
    udp_packet,
)
from tests.support.asp_negotiated import A, B, Side, encapsulated, install, sides, static

MESSAGE = bytes(range(256))


def ike_policy(lifetime: int = 0) -> PolicyRecord:
    key = PreSharedKey("ascii", b"secret")
    one = ProposalRef(10, "one")
    return PolicyRecord(OUTER, IkePolicy("ike", 2, proposals=(one,), pre_shared_key=key, lifetime=lifetime))


POLICY = ike_policy()
IPSEC = PolicyRecord(0, IpsecPolicy("p", proposals=(ProposalRef(10, "one"),)))


def datagram(port: int, data: bytes, *, source: int = B, source_port: int = 500, check: bool = True) -> Ipv4:
    udp = Udp(source_port, port, data).emit((source, A) if check else None)
    return Ipv4(source, A, PROTOCOL_UDP, udp, identification=7)


def arrive(side: Side, *packets: bytes) -> list[IkePacket]:
    side.give(batch_of(packets, Step.DECAPSULATE, context=OUTER, ingress="3/11"))
    return side.told(IkePacket)


@pytest.mark.parametrize("check", [False, True])
def test_datagrams_of_both_ports_reach_ike(check: bool) -> None:
    side, _ = sides()
    got = arrive(
        side,
        datagram(500, MESSAGE, check=check).emit(),
        datagram(4500, bytes(4) + MESSAGE, source_port=1025, check=check).emit(),
    )
    assert got == [IkePacket(OUTER, A, 500, B, 500, MESSAGE), IkePacket(OUTER, A, 4500, B, 1025, MESSAGE)]
    assert (side.count("ike datagrams received"), side.count("packets delivered")) == (2, 2)


def test_keepalives_are_swallowed() -> None:
    side, _ = sides()
    assert arrive(side, *[datagram(4500, b"\xff", source_port=1025, check=False).emit()] * 3) == []
    assert side.count("nat keepalives received") == 3
    assert side.drops() == {}


def test_a_datagram_in_pieces() -> None:
    side, _ = sides()
    long = bytes(4) + MESSAGE * 20
    pieces = [piece.emit() for piece in fragment(datagram(4500, long), 600)]
    assert len(pieces) > 5
    assert arrive(side, *pieces[3:], *pieces[:2]) == []
    assert side.count("packets queued") == len(pieces) - 1
    assert arrive(side, pieces[2]) == [IkePacket(OUTER, A, 4500, B, 500, MESSAGE * 20)]
    assert side.count("packets queued") == 0
    assert arrive(side, pieces[0]) == []
    side.pass_time(REASSEMBLY_TIMEOUT + 1)
    side.check_counts()
    assert side.drops() == {"fragment": 1}


def test_a_datagram_in_pieces_for_another_service_goes_to_the_local_stack() -> None:
    side, _ = sides()
    whole = datagram(1812, MESSAGE * 4)
    pieces = [piece.emit() for piece in fragment(whole, 600)]
    ((card, batch),) = side.give(batch_of(pieces, Step.DECAPSULATE, context=OUTER, ingress="3/11"))
    assert (card, batch.step, batch.context) == (LC3, Step.LOCAL, OUTER)
    assert packets_of(batch) == [whole.emit()]
    assert side.drops() == {}
    side.check_counts()


def test_encapsulated_esp_in_pieces_is_opened() -> None:
    left, right = sides()
    left.ike(install(CIRCUIT, 1, encapsulation=encapsulated(B)))
    right.ike(install(CIRCUIT, 1, there=True, encapsulation=encapsulated(A)))
    clear = Ipv4(ip("50.0.0.1"), ip("60.0.0.1"), PROTOCOL_UDP, bytes(900), ttl=63).emit()
    ((_, batch),) = left.protect(CIRCUIT, [clear])
    pieces = [piece.emit() for piece in fragment(Ipv4.parse(packets_of(batch)[0]), 400)]
    ((card, out),) = right.give(batch_of(pieces, Step.DECAPSULATE, context=OUTER, ingress="3/11"))
    assert (card, packets_of(out)) == (LC3, [clear])
    assert right.told(NatMappingChanged) == []


def test_what_is_no_message_is_dropped_by_its_cause() -> None:
    side, _ = sides()
    spoilt = bytearray(datagram(500, MESSAGE).emit())
    spoilt[-1] ^= 1
    short = bytearray(datagram(500, MESSAGE).emit())
    struct.pack_into("!H", short, 24, 100)
    assert arrive(side, bytes(spoilt), bytes(short)) == []
    assert (
        arrive(side, datagram(500, b"").emit(), datagram(4500, bytes(4)).emit(), datagram(4500, b"x").emit()) == []
    )
    assert arrive(side, datagram(53, MESSAGE).emit()) == []
    assert side.drops() == {"malformed": 5, "not ipsec": 1}
    assert side.count("ike datagrams received") == 0


def test_datagrams_of_ike_have_identifications_of_their_own_beside_esp_in_udp() -> None:
    side, _ = sides()
    side.ike(install(CIRCUIT, 1, encapsulation=encapsulated(B)))
    seen = []
    for _ in range(3):
        sent = side.protect(CIRCUIT, [udp_packet()] * 4) + side.ike(IkePacket(OUTER, A, 4500, B, 4500, MESSAGE))
        seen += [Ipv4.parse(packet) for _, batch in sent for packet in packets_of(batch)]
    assert {(packet.source, packet.destination, packet.protocol) for packet in seen} == {(A, B, PROTOCOL_UDP)}
    first = seen[0].identification
    assert [packet.identification for packet in seen] == [first + number for number in range(15)]


def test_without_ike_its_datagrams_are_dropped() -> None:
    side = Side(static(), connected=False)
    assert arrive(side, datagram(500, MESSAGE).emit()) == []
    assert side.drops() == {"ike unavailable": 1}
    assert side.count("ike datagrams dropped") == 1


def test_messages_of_ike_go_out_by_the_routes() -> None:
    side, _ = sides()
    sent = side.ike(
        IkePacket(OUTER, A, 500, B, 500, MESSAGE),
        IkePacket(OUTER, A, 4500, B, 1025, MESSAGE),
        IkePacket(OUTER, A, 4500, B, 1025, b""),
    )
    assert [(card, batch.step, batch.port, batch.address) for card, batch in sent] == [
        (LC3, Step.EGRESS, "3/11", B)
    ] * 3
    packets = [Ipv4.parse(packet) for _, batch in sent for packet in packets_of(batch)]
    payloads = [Udp.parse(packet.payload, (A, B)) for packet in packets]
    assert [(udp.source_port, udp.destination_port, udp.payload) for udp in payloads] == [
        (500, 500, MESSAGE),
        (4500, 1025, bytes(4) + MESSAGE),
        (4500, 1025, b"\xff"),
    ]
    assert len({packet.identification for packet in packets}) == 3
    assert {(packet.dont_fragment, packet.tos) for packet in packets} == {(False, 0xC0)}
    assert side.count("ike datagrams sent") == 3
    # A usable way of higher cost is taken when the card of the first is gone.
    side.take(side.asp.on_fabric_peer(LC3, 1, False, side.now))
    ((card, _),) = side.ike(IkePacket(OUTER, A, 500, B, 500, MESSAGE))
    assert card == LC4


def test_a_long_message_is_cut_to_the_port() -> None:
    side, _ = sides()
    port = side.record("port", "3/11")
    assert isinstance(port, PortRecord)
    side.put(replace(port, mtu=600))
    sent = side.ike(IkePacket(OUTER, A, 500, B, 500, MESSAGE * 10))
    pieces = [packet for _, batch in sent for packet in packets_of(batch)]
    assert len(pieces) > 4
    assert max(map(len, pieces)) <= 600
    there = Side(static(there=True))
    assert arrive(there, *pieces) == [IkePacket(OUTER, B, 500, A, 500, MESSAGE * 10)]


def test_messages_that_cannot_go() -> None:
    side, _ = sides()
    assert side.ike(IkePacket(OUTER, A, 500, ip("9.9.9.9"), 500, MESSAGE)) == []
    assert side.ike(IkePacket(OUTER, A, 500, B, 500, bytes(65_600))) == []
    side.put(route(OUTER, "40.0.0.2/32", tunnel_hop(ECONOMICAL)))
    assert side.ike(IkePacket(OUTER, A, 500, B, 500, MESSAGE)) == []
    assert side.drops() == {"no route": 1, "routing loop": 1}
    side.take(side.asp.on_stall(10.0, side.now))
    assert side.ike(IkePacket(OUTER, A, 500, ip("41.0.0.9"), 500, MESSAGE)) == []
    assert side.count("ike datagrams dropped") == 3


# records


def configured(side: Side) -> tuple[dict[object, object], list[Configure]]:
    """What IKE holds after all messages so far, and the messages."""
    messages = side.told(Configure)
    held: dict[object, object] = {}
    for message in messages:
        if message.full:
            held.clear()
        held.update({record.key: record for record in message.put})
        for key in message.delete:
            del held[key]
    return held, messages


def acl(name: str) -> PolicyRecord:
    return PolicyRecord(INNER, Acl(name, rules=(AclRule(10),)))


@pytest.mark.behaviour("B-182")
def test_ike_gets_what_it_needs_and_then_what_changes() -> None:
    certificate = CertificateRecord(OUTER, "ca", "trusted", b"pem")
    entries = (TunnelEntry(10, policy="p", acl="used"),)
    side = Side([*static(entries=entries), POLICY, IPSEC, certificate, acl("used"), acl("other")])
    held, messages = configured(side)
    assert [message.full for message in messages] == [True]
    assert {key[0] for key in held} == {  # type: ignore[index]
        "context",
        "tunnel",
        "acl",
        "ike-policy",
        "ipsec-policy",
        "certificate",
    }
    assert ("acl", INNER, "other") not in held
    tunnels = [record for record in messages[0].put if record.key[0] == "tunnel"]
    assert list(messages[0].put[-2:]) == tunnels

    side.put(route(OUTER, "77.0.0.0/8", port_hop(LC3, "3/11")))
    assert side.told(Configure) == []
    changed = ike_policy(lifetime=77)
    side.put(changed)
    assert side.told(Configure) == [Configure((changed,))]
    tunnel = altered(side.tunnel(CIRCUIT), entries=(TunnelEntry(10, policy="p", acl="other"),))
    side.put(tunnel)
    assert side.told(Configure) == [Configure((acl("other"), tunnel))]
    other = replace(side.tunnel(ECONOMICAL), asp=SPARE)
    side.put(other)
    assert side.told(Configure) == [Configure((), (("tunnel", ECONOMICAL), ("acl", INNER, "used")))]
    side.put(replace(other, up=False), delete=[("acl", INNER, "used")])
    assert side.told(Configure) == []
    manual = altered(tunnel, kind="manual", entries=(TunnelEntry(10, sa="sa1"),))
    side.put(manual)
    assert side.told(Configure) == [Configure((), (("tunnel", CIRCUIT), ("acl", INNER, "other")))]


def test_ike_gets_nothing_before_the_first_snapshot() -> None:
    side = Side([*static(), POLICY], connected=False)
    side.put(ike_policy(lifetime=3))
    assert side.told(Configure) == []
    side.take(side.asp.ike_connected(side.now))
    (message,) = side.told(Configure)
    assert message.full
    asp = AspEngine(ASP, pid=1, boot=1, state=memoryview(bytearray(octets_for(8))), fresh=True, random=bytes)
    assert asp.ike_connected(1.0) == []


def test_other_settings_begin_anew() -> None:
    side = Side([*static(), POLICY])
    side.told(Configure)
    epoch, version = side.epoch, side.publisher.version
    side.take(side.asp.receive(Welcome(epoch, version, 0.1, 5, {"extensions": "modern"}), side.now))
    side.put(ike_policy(lifetime=9))
    (message,) = side.told(Configure)
    assert (message.full, message.settings) == (True, {"extensions": "modern"})


def test_many_tunnels_come_in_parts() -> None:
    made = static()
    tunnel = next(record for record in made if isinstance(record, TunnelRecord))
    more = [
        altered(tunnel, number=number, name=f"n{number}") for number in range(100, 100 + MAX_RECORDS_PER_MESSAGE)
    ]
    side = Side([*made, *more, POLICY])
    held, messages = configured(side)
    assert [message.full for message in messages] == [True, False]
    assert len([key for key in held if key[0] == "tunnel"]) == MAX_RECORDS_PER_MESSAGE + 2  # type: ignore[index]


# commands, log, life


def test_commands_go_to_ike_and_answers_to_the_controller() -> None:
    side, _ = sides()
    side.take(side.asp.receive(Request(5, "rekey", {"tunnel": CIRCUIT}), side.now))
    side.take(side.asp.receive(Request(6, "ike", {"what": "sas"}), side.now))
    assert side.told(IkeRequest) == [
        IkeRequest(5, "rekey", {"tunnel": CIRCUIT}),
        IkeRequest(6, "sas", {"what": "sas"}),
    ]
    side.ike(IkeReply(6, {"tunnels": []}), IkeReply(5, {}, "no such tunnel"), IkeReply(5, {}), IkeReply(99, {}))
    assert side.heard(Reply) == [Reply(6, {"tunnels": []}), Reply(5, {}, "no such tunnel")]
    side.take(side.asp.receive(Request(7, "ike", {"what": "secrets"}), side.now))
    assert side.heard(Reply)[0].error.startswith("ike: argument 'what' is 'secrets', not one of")
    alone = Side(static(), connected=False)
    alone.take(alone.asp.receive(Request(1, "clear", {}), alone.now))
    assert alone.heard(Reply)[0].error == f"IKE is not running on {ASP}"


@pytest.mark.parametrize(
    ("what", "renewed"), [({}, 1), ({"what": "all"}, 1), ({"what": "ipsec"}, 1), ({"what": "ike"}, 0)]
)
def test_a_command_for_all_tunnels_is_shared_and_manual_keys_have_no_ike_sa(
    what: dict[str, str], renewed: int
) -> None:
    manual = {record.key: record for record in records()}
    made = [manual[record.key] if record.key == ("tunnel", ECONOMICAL) else record for record in static()]
    side = Side(made)
    side.take(side.asp.receive(Request(5, "clear", what), side.now))
    assert side.told(IkeRequest) == [IkeRequest(5, "clear", what)]
    side.ike(IkeReply(5, {"cleared": 1}))
    assert side.heard(Reply) == [Reply(5, {"cleared": 1, **({"manual": renewed} if renewed else {})})]


def test_who_asked_is_told_that_no_answer_can_be_carried() -> None:
    side, _ = sides()
    side.take(side.asp.receive(Request(5, "rekey", {}), side.now))
    for _ in range(3):
        side.take(side.asp.ike.on_message_dropped(MessageDropped("IkeReply: too deep", 5), side.now))
    (reply,) = side.heard(Reply)
    assert (reply.number, reply.result) == (5, {})
    assert reply.error.endswith("dropped: IkeReply: too deep")
    assert [record.text for record in side.heard(LogRecord)] == [reply.error]
    assert side.count("ike pipe messages dropped") == 3
    side.take(side.asp.ike.on_message_dropped(MessageDropped("IkeLog: odd"), side.now + PIPE_DROP_LOG_INTERVAL))
    assert len(side.heard(LogRecord)) == 1
    assert not side.heard(Reply)


def test_log_lines_are_passed_on() -> None:
    side, _ = sides()
    record = LogRecord(1.0, "warning", "ike", "x", "text", {"tunnel": "t1"})
    side.ike(IkeLog(record))
    assert side.heard(LogRecord) == [record]


def test_counts_of_ike_go_on_over_its_processes() -> None:
    side, _ = sides()
    side.ike(IkeHeartbeat(0.0, {"negotiations initiated": 3}), IkeHeartbeat(0.0, {"negotiations initiated": 5}))
    assert side.count("ike negotiations initiated") == 5
    counters = side.asp.counters
    side.start()
    side.asp.ike._counters = counters
    side.take(side.asp.ike_connected(side.now))
    side.ike(IkeHeartbeat(0.0, {"negotiations initiated": 0}), IkeHeartbeat(0.0, {"negotiations initiated": 2}))
    assert counters.get("ike negotiations initiated") == 7


def test_ike_that_hangs_ends_the_asp() -> None:
    side, _ = sides()
    for _ in range(4):
        side.pass_time(IKE_SILENCE_TIMEOUT - 0.5)
        side.ike(IkeHeartbeat(0.0, {}))
    assert side.stopped == []
    # What this process did not read while it stood still is not held against IKE.
    side.take(side.asp.on_stall(4.0, side.now))
    side.admit()
    side.pass_time(IKE_SILENCE_TIMEOUT + 2)
    assert side.stopped == []
    side.now += 4
    side.take(side.asp.on_timer(side.now))
    assert side.stopped == ["IKE hangs"]


def test_an_asp_without_ike_does_not_wait_for_it() -> None:
    side = Side(static(), connected=False)
    side.pass_time(IKE_SILENCE_TIMEOUT * 3)
    assert side.stopped == []
    assert not side.heard(TunnelEvent)[-1].up
    assert isinstance(side.asp.from_ike(IkeTunnelState(CIRCUIT, False, "x"), side.now), list)
