"""SAs that IKE makes: packets through two ASPs, and what IKE and the controller hear."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from chassis.ase.ike_messages import (
    Acquire,
    IkeTunnelState,
    NatMappingChanged,
    PeerAlive,
    PeerUsesSa,
    SaActivateOutbound,
    SaDelete,
    SaExpire,
    SaUpdateAddress,
    UdpEncapsulation,
    UnknownSpi,
)
from chassis.bus.batch import Batch, Step
from chassis.bus.messages import Reply, Request, SaEvent, TunnelEvent
from chassis.bus.records import PolicyRecord
from chassis.model.acl import Acl, AclRule
from chassis.model.ipsec import TunnelEntry
from tests.support.asp import (
    CIRCUIT,
    ECONOMICAL,
    INNER,
    LC3,
    altered,
    batch_of,
    ip,
    packets_of,
    records,
    udp_packet,
)
from tests.support.asp_negotiated import OUTER, A, B, Side, encapsulated, install, join, sides, static

PACKETS = [udp_packet(number=number, size=100 + number) for number in range(6)]
ECO = [udp_packet("52.0.0.1", "62.0.0.1", number=number) for number in range(6)]


def through(left: Side, right: Side, tunnel: int = CIRCUIT, packets: list[bytes] | None = None) -> list[bytes]:
    """Packets into the tunnel at one end; what comes out of it at the other."""
    chosen = PACKETS if packets is None else packets
    sent = left.protect(tunnel, chosen)
    got: list[bytes] = []
    for _, batch in sent:
        got += [packet for _, out in right.open(batch) for packet in packets_of(out)]
    return got


def sealed(side: Side, tunnel: int = CIRCUIT, packets: list[bytes] | None = None) -> Batch:
    ((_, batch),) = side.protect(tunnel, PACKETS if packets is None else packets)
    return batch


def numbers(batch: Batch) -> list[int]:
    return [struct.unpack_from("!I", packet, 24)[0] for packet in packets_of(batch)]


@pytest.mark.parametrize("esn", [False, True])
@pytest.mark.parametrize("cpi", [0, 2, 0x4711])
@pytest.mark.parametrize("kind", ["esp", "ah", "bundle", "gcm", "sha2"])
def test_packets_go_both_ways(kind: str, cpi: int, esn: bool) -> None:
    left, right = sides()
    join(left, right, CIRCUIT, kind=kind, esn=esn, cpi_out=cpi, cpi_in=cpi)
    assert through(left, right) == PACKETS
    back = [udp_packet("60.0.0.1", "50.0.0.1", number=number) for number in range(3)]
    assert through(right, left, packets=back) == back
    replayed = sealed(left)
    assert len(right.open(replayed)) == 1
    assert right.open(replayed) == []
    assert right.drops() == {"replayed": 6}


@pytest.mark.parametrize("kind", ["esp", "gcm", "sha2"])
def test_through_a_nat(kind: str) -> None:
    left, right = sides()
    nat = ip("40.0.9.9")
    left.ike(install(CIRCUIT, 1, kind=kind, encapsulation=encapsulated(B)))
    right.ike(install(CIRCUIT, 1, kind=kind, there=True, encapsulation=encapsulated(nat, 1025)))
    batch = sealed(left)
    body = bytearray(batch.body)
    at = 0
    for length in batch.lengths:
        assert body[at + 14 + 9] == 17
        body[at + 26 : at + 30] = nat.to_bytes(4, "big")
        body[at + 34 : at + 36] = (1025).to_bytes(2, "big")
        at += length
    ((_, out),) = right.open(replace(batch, body=body))
    assert packets_of(out) == PACKETS
    assert right.told(NatMappingChanged) == []
    back = packets_of(sealed(right))
    assert {struct.unpack_from("!I", packet, 16)[0] for packet in back} == {nat}
    assert {struct.unpack_from("!HH", packet, 20) for packet in back} == {(4500, 1025)}
    # The mapping changes: said once, and followed when IKE says so.
    again = sealed(left)
    moved = bytearray(again.body)
    at = 0
    for length in again.lengths:
        moved[at + 34 : at + 36] = (2000).to_bytes(2, "big")
        at += length
    right.open(replace(again, body=moved))
    assert right.told(NatMappingChanged) == [NatMappingChanged(CIRCUIT, 1, A, 2000)]
    before = [int.from_bytes(packet[32:36], "big") for packet in back]
    right.ike(SaUpdateAddress(CIRCUIT, 1, UdpEncapsulation(4500, A, 2000)))
    after = packets_of(sealed(right))
    assert {struct.unpack_from("!HH", packet, 20) for packet in after} == {(4500, 2000)}
    assert [int.from_bytes(packet[32:36], "big") for packet in after] == [number + 6 for number in before]


def test_encapsulation_takes_eight_octets_of_the_tunnel() -> None:
    left, _ = sides(df_bit="set")
    left.ike(install(ECONOMICAL, 1, encapsulation=encapsulated(B)))
    sizes = [1500 - size for size in range(40, 130)]
    limit = 0
    for size in sizes:
        if packets := left.protect(ECONOMICAL, [udp_packet("52.0.0.1", "62.0.0.1", size=size)]):
            limit = max(limit, size) if len(packets[0][1].lengths) == 1 else limit
    plain, _ = sides(df_bit="set")
    plain.ike(install(ECONOMICAL, 1))
    assert left.asp.tunnels.local[ECONOMICAL].overhead == plain.asp.tunnels.local[ECONOMICAL].overhead + 8
    assert limit <= 1500 - left.asp.tunnels.local[ECONOMICAL].overhead


def test_an_economical_tunnel_follows_its_peer() -> None:
    left, _ = sides()
    left.ike(install(ECONOMICAL, 1, encapsulation=encapsulated(B)))
    ((card, batch),) = left.protect(ECONOMICAL, ECO)
    assert (card, batch.step, batch.address) == (LC3, Step.EGRESS, B)
    left.ike(SaUpdateAddress(ECONOMICAL, 1, UdpEncapsulation(4500, ip("99.0.0.1"), 7)))
    assert left.protect(ECONOMICAL, ECO) == []
    assert left.drops() == {"no route": 6}


def test_one_sends_and_all_receive() -> None:
    left, right = sides()
    join(left, right, CIRCUIT)
    first = sealed(left)
    left.ike(install(CIRCUIT, 2, send=False, replaces=1, kind="gcm"))
    right.ike(install(CIRCUIT, 2, there=True, send=False, replaces=1, kind="gcm"))
    assert numbers(sealed(left)) == [7, 8, 9, 10, 11, 12]
    left.ike(SaActivateOutbound(CIRCUIT, 2))
    second = sealed(left)
    assert numbers(second) == [1, 2, 3, 4, 5, 6]
    right.told(PeerUsesSa)
    assert [packets_of(out) for _, out in right.open(second)] == [PACKETS]
    assert right.told(PeerUsesSa) == [PeerUsesSa(CIRCUIT, 2)]
    assert [packets_of(out) for _, out in right.open(first)] == [PACKETS]
    right.open(sealed(left))
    assert right.told(PeerUsesSa) == []
    right.ike(SaActivateOutbound(CIRCUIT, 2), SaDelete(CIRCUIT, 1, "rekeyed"))
    left.ike(SaDelete(CIRCUIT, 1, "rekeyed"))
    assert through(right, left, packets=PACKETS) == PACKETS
    events = [(event.event, event.sa.serial, event.sa.direction) for event in right.heard(SaEvent)]
    assert events == [
        ("installed", 1, "out"),
        ("installed", 1, "in"),
        ("rekeyed", 1, "out"),
        ("rekeyed", 1, "in"),
        ("installed", 2, "out"),
        ("installed", 2, "in"),
        ("deleted", 1, "out"),
        ("deleted", 1, "in"),
    ]
    right.open(first)
    assert right.drops()["no inbound sa"] == 6


def test_a_line_without_sa_is_named_once_a_second() -> None:
    acls = [
        PolicyRecord(INNER, Acl(name, rules=(AclRule(10, destination=(ip(prefix), 16)),)))
        for name, prefix in (("one", "60.1.0.0"), ("two", "60.2.0.0"))
    ]
    entries = (TunnelEntry(10, policy="p", acl="one"), TunnelEntry(20, policy="p", acl="two"))
    side = Side([*static(entries=entries), *acls])
    one = [udp_packet(destination="60.1.0.1")]
    two = [udp_packet(destination="60.2.0.1")]
    none = [udp_packet(destination="60.3.0.1")]
    for packets in (one, two, none, one):
        assert side.protect(CIRCUIT, packets) == []
    assert side.told(Acquire) == [Acquire(CIRCUIT, 10), Acquire(CIRCUIT, 20)]
    assert side.drops() == {"no outbound sa": 3, "no policy": 1}
    side.ike(install(CIRCUIT, 1))
    assert len(side.protect(CIRCUIT, one)) == 1
    assert side.protect(CIRCUIT, two) == []
    side.pass_time(1.1)
    assert side.protect(CIRCUIT, two) == []
    assert side.told(Acquire) == [Acquire(CIRCUIT, 20)]
    # A changed list decides from then on.
    side.put(PolicyRecord(INNER, Acl("one", rules=(AclRule(10, destination=(ip("60.2.0.0"), 16)),))))
    assert len(side.protect(CIRCUIT, two)) == 1
    assert side.protect(CIRCUIT, one) == []


def test_inbound_packets_match_what_was_negotiated() -> None:
    left, right = sides()
    left.ike(install(CIRCUIT, 1))
    narrow = (AclRule(10, protocol=17, source=(ip("60.0.0.1"), 32)),)
    right.ike(install(CIRCUIT, 1, there=True, rules=narrow))
    good, bad = udp_packet(destination="60.0.0.1"), udp_packet(destination="60.0.0.2")
    assert through(left, right, packets=[good, bad]) == [good]
    assert right.drops() == {"selector mismatch": 1}


def to(*last: int) -> tuple[AclRule, ...]:
    """Rules for packets to 60.0.0.x."""
    return tuple(
        AclRule(10 * number, destination=(ip(f"60.0.0.{host}"), 32)) for number, host in enumerate(last, 1)
    )


def test_outbound_packets_match_what_was_negotiated() -> None:
    left, right = sides()
    left.ike(install(CIRCUIT, 1, rules=to(1)))
    right.ike(install(CIRCUIT, 1, there=True))
    good, bad = udp_packet(destination="60.0.0.1"), udp_packet(destination="60.0.0.2")
    assert through(left, right, packets=[good, bad, bad]) == [good]
    assert left.drops() == {"no outbound sa": 2}
    left.check_counts()


@pytest.mark.behaviour("B-148")
def test_a_peer_that_wants_a_pair_for_each_network_gets_each_networks_packets_by_its_pair() -> None:
    left, right = sides()
    for serial in (1, 2):
        left.ike(install(CIRCUIT, serial, rules=to(serial)))
        right.ike(install(CIRCUIT, serial, there=True))
    clear = [udp_packet(destination=f"60.0.0.{host}", number=host) for host in (1, 2, 1, 3)]
    assert through(left, right, packets=clear) == [clear[1], clear[0], clear[2]]
    assert left.drops() == {"no outbound sa": 1}
    carried = {serial: left.asp.sadb.outbound[CIRCUIT, serial].packets for serial in (1, 2)}
    assert carried == {1: 2, 2: 1}
    # A successor for the same network takes its packets over, and what is gone leaves the rest as it was.
    left.ike(install(CIRCUIT, 3, rules=to(1), replaces=1))
    right.ike(install(CIRCUIT, 3, there=True))
    left.ike(SaDelete(CIRCUIT, 1, "replaced"))
    assert through(left, right, packets=clear) == [clear[0], clear[2], clear[1]]
    left.ike(SaDelete(CIRCUIT, 3, "asked for"))
    assert through(left, right, packets=clear) == [clear[1]]
    left.ike(SaDelete(CIRCUIT, 2, "asked for"))
    assert left.protect(CIRCUIT, clear) == []
    assert left.told(Acquire) == [Acquire(CIRCUIT, 10)]


def test_a_wider_list_waits_for_a_pair_that_was_agreed_for_it() -> None:
    left, right = sides()
    left.put(PolicyRecord(INNER, Acl("one", rules=to(1))))
    record = left.tunnel(CIRCUIT)
    left.put(altered(record, entries=(replace(record.config.entries[0], acl="one"),)))
    left.ike(install(CIRCUIT, 1, rules=to(1)))
    right.ike(install(CIRCUIT, 1, there=True))
    clear = [udp_packet(destination=f"60.0.0.{host}") for host in (1, 2)]
    assert through(left, right, packets=clear) == [clear[0]]
    assert left.drops() == {"no policy": 1}
    left.put(PolicyRecord(INNER, Acl("one", rules=to(1, 2))))
    assert through(left, right, packets=clear) == [clear[0]]
    assert left.drops() == {"no policy": 1, "no outbound sa": 1}
    left.ike(install(CIRCUIT, 2, rules=to(1, 2), replaces=1))
    right.ike(install(CIRCUIT, 2, there=True))
    assert through(left, right, packets=clear) == clear


TO_60_8 = AclRule(10, destination=(ip("60.0.0.0"), 8))
"""What the sender's end calls its traffic; the receiver's end writes its list the other way round."""


def from_60_8(protocol: int | None = None) -> AclRule:
    return AclRule(10, protocol, source=(ip("60.0.0.0"), 8))


@pytest.mark.behaviour("B-194")
@pytest.mark.parametrize("kind", ["esp", "ah", "gcm"])
def test_a_changed_list_acts_at_once_on_what_old_sas_receive(kind: str) -> None:
    entries = (TunnelEntry(10, policy="p", acl="one"),)
    left, right = sides(entries=entries)
    left.put(PolicyRecord(INNER, Acl("one", rules=(TO_60_8,))))
    right.put(PolicyRecord(INNER, Acl("one", rules=(from_60_8(),))))
    left.ike(install(CIRCUIT, 1, kind=kind, rules=(TO_60_8,)))
    right.ike(install(CIRCUIT, 1, kind=kind, there=True, rules=(from_60_8(),)))
    tcp = [udp_packet(number=7, protocol=6)]
    assert through(left, right, packets=PACKETS + tcp) == PACKETS + tcp
    # Narrower: from the next batch on, and from what is on its way too. Nothing of this is a matter of the peer.
    under_way = sealed(left)
    right.put(PolicyRecord(INNER, Acl("one", rules=(from_60_8(6),))))
    assert right.open(under_way) == []
    assert through(left, right, packets=PACKETS + tcp) == tcp
    assert right.drops() == {"selector mismatch": 2 * len(PACKETS)}
    # Wider again; wider than what was agreed changes nothing for the SA that there is.
    right.put(PolicyRecord(INNER, Acl("one", rules=(from_60_8(),))))
    assert through(left, right, packets=PACKETS + tcp) == PACKETS + tcp
    right.put(PolicyRecord(INNER, Acl("one", rules=(AclRule(10),))))
    assert through(left, right, packets=PACKETS + tcp) == PACKETS + tcp
    # A list without rules is for nothing.
    right.put(PolicyRecord(INNER, Acl("one", rules=())))
    assert through(left, right) == []
    right.put(PolicyRecord(INNER, Acl("one", rules=(from_60_8(),))))
    assert through(left, right) == PACKETS
    assert right.drops() == {"selector mismatch": 3 * len(PACKETS)}
    right.check_counts()


@pytest.mark.behaviour("B-193")
def test_a_removed_line_goes_with_its_sas() -> None:
    """Its SAs carry both ways until they end (guide 11); from then on what the other lines select is all."""
    left, right = sides(entries=(TunnelEntry(10, policy="p", acl="one"), TunnelEntry(20, policy="p", acl="two")))
    for side, rule in ((left, TO_60_8), (right, from_60_8())):
        other = replace(rule, protocol=6)
        side.put(PolicyRecord(INNER, Acl("one", rules=(rule,))), PolicyRecord(INNER, Acl("two", rules=(other,))))
    join(left, right, CIRCUIT, 1)
    join(left, right, CIRCUIT, 2, entry=20)
    left.put(altered(left.tunnel(CIRCUIT), entries=(TunnelEntry(20, policy="p", acl="two"),)))
    right.put(altered(right.tunnel(CIRCUIT), entries=(TunnelEntry(20, policy="p", acl="two"),)))
    tcp = [udp_packet(number=7, protocol=6)]
    assert through(left, right, packets=PACKETS + tcp) == PACKETS + tcp
    assert not left.drops() | right.drops()
    left.ike(SaDelete(CIRCUIT, 1, "its lifetime ended"))
    right.ike(SaDelete(CIRCUIT, 1, "its lifetime ended"))
    assert through(left, right, packets=PACKETS + tcp) == tcp
    assert left.drops() == {"no policy": len(PACKETS)}
    left.check_counts()


def test_an_sa_that_ike_made_before_it_heard_of_a_changed_list_obeys_the_list() -> None:
    left, right = sides(entries=(TunnelEntry(10, policy="p", acl="one"),))
    for side in (left, right):
        side.put(PolicyRecord(INNER, Acl("one", rules=(AclRule(10),))))
    right.put(PolicyRecord(INNER, Acl("one", rules=(from_60_8(6),))))
    join(left, right, CIRCUIT)
    tcp = udp_packet(number=7, protocol=6)
    assert through(left, right, packets=[*PACKETS, tcp]) == [tcp]
    assert right.drops() == {"selector mismatch": len(PACKETS)}


def test_what_was_agreed_still_counts_where_the_list_is_another() -> None:
    left, right = sides(entries=(TunnelEntry(10, policy="p", acl="one"),))
    left.put(PolicyRecord(INNER, Acl("one", rules=(AclRule(10),))))
    right.put(PolicyRecord(INNER, Acl("one", rules=(from_60_8(17),))))
    left.ike(install(CIRCUIT, 1))
    agreed = (AclRule(10, source=(ip("60.0.0.1"), 32)),)
    right.ike(install(CIRCUIT, 1, there=True, rules=agreed))
    both = udp_packet()
    neither = udp_packet(destination="60.0.0.2", protocol=6)
    clear = [both, udp_packet(destination="60.0.0.2"), udp_packet(protocol=6), neither]
    assert through(left, right, packets=clear) == [both]
    assert right.drops() == {"selector mismatch": 3}


def test_a_pair_that_ike_replaces_by_its_age_is_said_to_expire_once() -> None:
    left, right = sides()
    join(left, right, CIRCUIT, kbytes=4, soft_kbytes=2)
    for _ in range(2):
        left.ike(SaExpire(CIRCUIT, 1, False, "soft limit of seconds"), SaExpire(CIRCUIT, 9, False, "unknown"))
    said = [(event.event, event.reason, event.sa.serial) for event in left.heard(SaEvent)]
    assert said[2:] == [("expiring", "soft limit of seconds", 1)] * 2, "one for each direction"
    for _ in range(6):
        through(left, right, packets=[udp_packet(size=500)])
    assert not left.heard(SaEvent), "its successor is on its way already"
    assert not left.told(SaExpire)


@pytest.mark.behaviour("B-111")
def test_limits_of_traffic() -> None:
    left, right = sides()
    join(left, right, CIRCUIT, kbytes=4, soft_kbytes=2)
    got = []
    for _ in range(12):
        got += through(left, right, packets=[udp_packet(size=500)])
    for side in (left, right):
        expiring = side.told(SaExpire)
        assert [(message.tunnel, message.serial, message.hard) for message in expiring] == [
            (CIRCUIT, 1, False),
            (CIRCUIT, 1, True),
        ]
        assert [event.event for event in side.heard(SaEvent)] == ["installed"] * 2 + ["expiring"] * 2 + [
            "deleted"
        ] * 2
    assert len(got) == 8
    assert left.drops() == {"no outbound sa": 4}
    left.pass_time(0.2)
    assert left.heard(TunnelEvent)[-1].reason == "tunnel without sa"
    left.ike(SaDelete(CIRCUIT, 1, "hard"))


@pytest.mark.parametrize(("kbytes", "soft_kbytes", "soft_after"), [(1, 0, 1), (1, 1, 1), (3, 3, 11), (3, 1, 6)])
def test_a_successor_is_asked_for_before_a_pair_ends(kbytes: int, soft_kbytes: int, soft_after: int) -> None:
    left, right = sides()
    # Outer packets are 196 octets.
    join(left, right, CIRCUIT, kbytes=kbytes, soft_kbytes=soft_kbytes)
    for number in range(1, soft_after + 2):
        assert through(left, right, packets=[udp_packet(size=136)]) == [udp_packet(size=136)]
        for side in (left, right):
            hard = [message.hard for message in side.told(SaExpire)]
            assert hard == ([False] if number == soft_after else []), number


def test_numbers_used_up() -> None:
    left, _ = sides()
    left.ike(install(CIRCUIT, 1))
    encapsulator = left.asp.sadb.outbound[CIRCUIT, 1]
    encapsulator.next_number = (1 << 32) // 8 * 7
    left.protect(CIRCUIT, PACKETS)
    assert [message.hard for message in left.told(SaExpire)] == [False]
    encapsulator.next_number = (1 << 32) - 3
    ((_, out),) = left.protect(CIRCUIT, PACKETS)
    assert len(out.lengths) == 3
    assert [message.hard for message in left.told(SaExpire)] == [True]
    assert left.drops() == {"sequence exhausted": 3}


def test_ike_hears_of_peers_once_a_second() -> None:
    left, right = sides()
    for tunnel in (CIRCUIT, ECONOMICAL):
        join(left, right, tunnel)
    for _ in range(5):
        through(left, right)
        through(left, right, ECONOMICAL, ECO)
        right.pass_time(0.1)
    assert [set(message.tunnels) for message in right.told(PeerAlive)] == [{CIRCUIT, ECONOMICAL}]
    right.pass_time(1)
    assert len(right.told(PeerAlive)) == 1
    right.pass_time(3)
    assert right.told(PeerAlive) == []


def test_a_tunnel_is_up_when_ike_says_so_and_it_has_sas() -> None:
    side = Side(static())
    assert {(event.tunnel, event.up, event.reason) for event in side.heard(TunnelEvent)} == {
        (CIRCUIT, False, "not negotiated yet"),
        (ECONOMICAL, False, "not negotiated yet"),
    }
    side.ike(install(CIRCUIT, 1))
    side.pass_time(0.1)
    (event,) = side.heard(TunnelEvent)
    assert (event.up, [sa.spi for sa in event.sas]) == (False, [10_020, 10_030])
    side.ike(IkeTunnelState(CIRCUIT, True, "", "b.example", (ip("60.0.0.0"), 8)))
    (event,) = side.heard(TunnelEvent)
    assert (event.up, event.identity, event.selectors) == (True, "b.example", (ip("60.0.0.0"), 8))
    side.ike(IkeTunnelState(CIRCUIT, False, "peer does not answer"))
    (event,) = side.heard(TunnelEvent)
    assert (event.up, event.reason) == (False, "peer does not answer")
    side.ike(SaDelete(CIRCUIT, 1, "dpd"), IkeTunnelState(CIRCUIT, True, ""))
    side.pass_time(0.1)
    assert side.heard(TunnelEvent)[-1].reason == "tunnel without sa"


def test_nothing_goes_out_while_the_controller_says_down() -> None:
    left, right = sides(up=False)
    join(left, right, CIRCUIT)
    assert left.protect(CIRCUIT, PACKETS) == []
    assert left.drops() == {"tunnel down": 6}
    left.put(replace(left.tunnel(CIRCUIT), up=True))
    assert through(left, right) == PACKETS


def test_a_new_process_has_no_negotiated_sas_and_a_new_controller_hears_of_those_held() -> None:
    left, right = sides()
    join(left, right, CIRCUIT)
    left.pass_time(0.1)
    left.heard(TunnelEvent)
    left.take(left.asp.on_disconnected(left.now))
    left.take(left.asp.on_connected(left.now))
    assert {(sa.spi, sa.direction) for sa in left.hello().sas} == {(10_020, "out"), (10_030, "in")}
    left.admit()
    known = {event.tunnel: event for event in left.heard(TunnelEvent)}
    assert known[CIRCUIT].up
    assert known[CIRCUIT].identity == "b.example"
    assert not known[ECONOMICAL].up
    assert through(left, right) == PACKETS
    left.start()
    assert left.hello().sas == ()
    assert left.protect(CIRCUIT, PACKETS) == []


def test_changed_ends_void_the_sas_and_a_changed_df_bit_does_not() -> None:
    left, right = sides()
    join(left, right, CIRCUIT)
    through(left, right)
    left.put(altered(left.tunnel(CIRCUIT), df_bit="set"))
    batch = sealed(left)
    assert numbers(batch)[0] == 7
    assert {packet[6] for packet in packets_of(batch)} == {0x40}
    left.put(replace(left.tunnel(CIRCUIT), remote=ip("40.0.0.7")))
    assert left.protect(CIRCUIT, PACKETS) == []
    left.ike(install(CIRCUIT, 2), SaActivateOutbound(CIRCUIT, 1), SaDelete(CIRCUIT, 1, "changed"))
    assert left.asp.sadb.outbound == {}
    left.put(delete=[("tunnel", CIRCUIT)])
    left.ike(
        install(CIRCUIT, 3),
        IkeTunnelState(CIRCUIT, True, ""),
        SaUpdateAddress(CIRCUIT, 1, UdpEncapsulation(4500, B, 1)),
    )
    assert left.asp.sadb.inbound == {}


def test_what_cannot_be_installed_goes_back_to_ike() -> None:
    left, _ = sides()
    left.ike(install(CIRCUIT, 1))
    clash = install(CIRCUIT, 1)
    left.ike(replace(clash, tunnel=ECONOMICAL, serial=9))
    (message,) = left.told(SaExpire)
    assert (message.tunnel, message.serial, message.hard) == (ECONOMICAL, 9, True)
    assert "in use" in message.reason
    assert set(left.asp.sadb.outbound) == set(left.asp.sadb.inbound) == {(CIRCUIT, 1)}


@pytest.mark.behaviour("B-197")
def test_manual_sas_are_made_anew_by_the_asp_itself() -> None:
    left = Side(records())
    right = Side(records(there=True))
    assert through(left, right) == PACKETS
    before = left.asp.sadb.outbound[CIRCUIT, 10]
    for number, name in enumerate(("clear", "rekey"), 1):
        left.take(left.asp.receive(Request(number, name, {"tunnel": CIRCUIT}), left.now))
        right.take(right.asp.receive(Request(number, name, {}), right.now))
    assert left.heard(Reply) == [Reply(1, {"manual": 1}), Reply(2, {"manual": 1})]
    assert right.heard(Reply) == [Reply(1, {"manual": 2}), Reply(2, {"manual": 2})]
    assert left.asp.sadb.outbound[CIRCUIT, 10] is not before
    batch = sealed(left)
    assert numbers(batch)[0] == 7
    assert len(right.open(batch)) == 1
    assert right.open(batch) == []


def test_a_tunnel_that_gets_manual_keys_leaves_ike() -> None:
    left, right = sides()
    join(left, right, CIRCUIT)
    left.put(altered(left.tunnel(CIRCUIT), kind="manual", entries=(TunnelEntry(10, sa="sa1"),)))
    assert {sa.negotiated for sa in (left.asp.sadb.outbound[CIRCUIT, 10].sa,)} == {False}
    assert len(left.protect(CIRCUIT, PACKETS)) == 1
    left.put(altered(left.tunnel(CIRCUIT), kind="static", entries=(TunnelEntry(10, policy="p"),)))
    assert left.asp.sadb.outbound == {}
    left.ike(install(CIRCUIT, 5))
    assert len(left.protect(CIRCUIT, PACKETS)) == 1


def test_batches_are_opened_together_whatever_carries_them() -> None:
    left, right = sides()
    left.ike(install(CIRCUIT, 1), install(ECONOMICAL, 1, encapsulation=encapsulated(B)))
    right.ike(install(CIRCUIT, 1, there=True), install(ECONOMICAL, 1, there=True, encapsulation=encapsulated(A)))
    both = [*packets_of(sealed(left)), *packets_of(left.protect(ECONOMICAL, ECO)[0][1])]
    out = right.open(batch_of(both, Step.DECAPSULATE))
    assert sum(len(batch.lengths) for _, batch in out) == 12
    assert right.drops() == {}


@pytest.mark.parametrize(
    ("kind", "port", "protocol"), [("esp", 0, 3), ("ah", 0, 2), ("bundle", 0, 2), ("esp", 1025, 3)]
)
def test_ike_hears_of_packets_for_sas_that_are_not_here(kind: str, port: int, protocol: int) -> None:
    left, right = sides()
    left.ike(install(CIRCUIT, 1, kind=kind, encapsulation=encapsulated(B) if port else ()))
    batch = sealed(left)
    body, at = bytearray(batch.body), 0
    for length in batch.lengths if port else ():
        body[at + 34 : at + 36] = port.to_bytes(2, "big")
        at += length
    assert right.open(replace(batch, body=body)) == []
    outbound = install(CIRCUIT, 1, kind=kind).outbound
    spi = outbound.ah_spi if protocol == 2 else outbound.esp_spi
    assert spi
    (told,) = right.told(UnknownSpi)
    assert told == UnknownSpi(OUTER, B, 4500 if port else 500, A, port or 500, protocol, spi)
    # Of a flood it hears little.
    for _ in range(200):
        right.open(replace(batch, body=bytearray(body)))
    assert len(right.told(UnknownSpi)) == 19
    # A router without negotiated peers says nothing.
    manual = Side(records(there=True))
    manual.open(replace(batch, body=bytearray(body)))
    assert manual.told(UnknownSpi) == []
