"""On-demand tunnels in an ASP: questions and answers that it passes on, records for IKE, instances as tunnels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.ase.ike_messages import Configure, IkeTunnelState, SaDelete
from chassis.ase.ipsec import spd
from chassis.bus.messages import PeerAnswer, PeerDropped, PeerQuestion, TunnelEvent
from chassis.bus.records import (
    ContextRecord,
    Instance,
    Key,
    OnDemandRecord,
    PolicyRecord,
    Record,
    RouteRecord,
    TunnelRecord,
)
from chassis.model.acl import Acl, AclRule
from chassis.model.ipsec import TunnelEntry
from chassis.model.router import Tunnel
from chassis.net.ipv4 import Ipv4
from tests.support.asp import (
    ASP,
    ECONOMICAL,
    INNER,
    LC3,
    OUTER,
    SPARE,
    altered,
    ip,
    packets_of,
    port_hop,
    route,
    tunnel_hop,
    udp_packet,
)
from tests.support.asp_negotiated import A, B, Side, encapsulated, install, static
from tests.support.reachable import contained

PROFILE = TunnelEntry(10, policy="p", acl="office")
OFFICE = AclRule(10, source=(ip("52.0.0.0"), 8), destination=(ip("62.0.0.0"), 8))
ACL = PolicyRecord(INNER, Acl("office", rules=(OFFICE,)))
PEERS = route(OUTER, "40.0.0.0/16", port_hop(LC3, "3/11"))
DIAL = OnDemandRecord(
    number=40, config=Tunnel("dial", kind="on-demand", economical=True, ike_policy="ike"), asp=ASP, context=INNER,
    outer_context=OUTER, local=A,
)  # fmt: skip
QUESTION = PeerQuestion(1, "key", 40, "west.branch.example", A, B, 500)


def instance(number: int = ECONOMICAL, remote: int = B, **fields: object) -> TunnelRecord:
    """The tunnel of one peer."""
    record = next(one for one in static() if isinstance(one, TunnelRecord) and one.number == ECONOMICAL)
    peer = Instance(on_demand=40, identity="west.branch.example", profile="dial")
    changes = {"name": "dial", "kind": "on-demand", "remote_id": peer.identity, "entries": (PROFILE,), **fields}
    return altered(replace(record, number=number, remote=remote, instance=peer), **changes)


def gateway(*more: Record) -> Side:
    """An ASP with an on-demand tunnel and no other one."""
    others = [record for record in static() if not isinstance(record, TunnelRecord)]
    return Side([*others, ACL, DIAL, *more])


def keys_of(side: Side) -> tuple[set[Key], set[Key]]:
    """Keys of the records that IKE got, and of those that were deleted there."""
    told = side.told(Configure)
    return {one.key for part in told for one in part.put}, {key for part in told for key in part.delete}


def test_ike_gets_the_on_demand_tunnels_and_their_instances() -> None:
    side = gateway(replace(DIAL, number=41, asp=SPARE))
    put, _ = keys_of(side)
    assert DIAL.key in put
    assert ("on-demand", 41) not in put, "it is another ASP's"
    assert ACL.key not in put, "no instance uses it yet"
    side.put(instance())
    assert keys_of(side) == ({("tunnel", ECONOMICAL), ACL.key}, set())
    side.put(delete=[("tunnel", ECONOMICAL)])
    assert keys_of(side) == (set(), {("tunnel", ECONOMICAL), ACL.key})
    side.put(delete=[DIAL.key])
    assert keys_of(side) == (set(), {DIAL.key})


def test_a_new_ike_process_gets_everything_in_order() -> None:
    side = gateway(instance())
    side.told(Configure)
    side.take(side.asp.ike_connected(side.now))
    (told,) = side.told(Configure)
    kinds = [record.key[0] for record in told.put]
    assert told.full
    assert kinds[-2:] == ["on-demand", "tunnel"]
    assert kinds[0] == ContextRecord.TYPE


def test_questions_and_answers_pass() -> None:
    side = gateway()
    side.ike(QUESTION)
    assert side.heard(PeerQuestion) == [QUESTION]
    answer = PeerAnswer(1, "", b"the key")
    side.take(side.asp.receive(answer, side.now))
    assert side.told(PeerAnswer) == [answer]
    side.ike(PeerDropped(0, 7, "deleted by the peer"))
    assert side.heard(PeerDropped) == [PeerDropped(0, 7, "deleted by the peer")]


def test_open_questions_are_repeated_to_a_controller_that_is_back() -> None:
    side = gateway()
    others = [replace(QUESTION, number=number) for number in (2, 3)]
    side.ike(QUESTION, *others)
    side.take(side.asp.receive(PeerAnswer(2), side.now))
    side.ike(PeerDropped(3, 0, "gone"))
    side.heard(PeerQuestion)
    side.take(side.asp.on_disconnected(side.now))
    side.take(side.asp.on_connected(side.now))
    side.admit()
    assert side.heard(PeerQuestion) == [QUESTION]


@pytest.mark.parametrize("df", ["propagate", "set", "clear"])
def test_an_instance_carries_packets_as_its_profile_says(df: str) -> None:
    side = gateway(instance(df_bit=df, mtu=700))
    side.ike(install(ECONOMICAL, 1), IkeTunnelState(ECONOMICAL, True, "", "west.branch.example"))
    side.pass_time(0.1)
    event = side.heard(TunnelEvent)[-1]
    assert (event.tunnel, event.up, event.identity) == (ECONOMICAL, True, "west.branch.example")
    packet = udp_packet("52.0.0.1", "62.0.0.1", 200)
    ((_, batch),) = side.protect(ECONOMICAL, [packet])
    assert [Ipv4.parse(one).dont_fragment for one in packets_of(batch)] == [df == "set"]
    wide = side.protect(ECONOMICAL, [udp_packet("52.0.0.1", "62.0.0.1", 1000)])
    sizes = [len(one) for _, part in wide for one in packets_of(part)]
    assert len(sizes) > 1
    assert max(sizes) <= 700 + 100
    # What the profile's access list does not have is no traffic of the tunnel.
    assert side.protect(ECONOMICAL, [udp_packet("52.0.0.1", "63.0.0.1", 200)]) == []


def test_an_instance_whose_peer_moved_gets_sas_that_name_its_first_address() -> None:
    """IKE names the record's address, and the new one by the UDP encapsulation."""
    side = gateway(instance(), PEERS)
    side.ike(install(ECONOMICAL, 1, encapsulation=encapsulated(ip("40.0.0.99"), 14_500)))
    ((_, batch),) = side.protect(ECONOMICAL, [udp_packet("52.0.0.1", "62.0.0.1", 200)])
    assert {Ipv4.parse(one).destination for one in packets_of(batch)} == {ip("40.0.0.99")}


def test_thousands_of_instances_in_turn_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spd, "MAX_FLOWS", 100)
    side = gateway(PEERS)

    def wave(first: int, number: int) -> None:
        tunnels = range(first, first + number)
        remotes = {tunnel: ip("40.0.1.0") + tunnel % 250 for tunnel in tunnels}
        routes = [RouteRecord(INNER, ip("62.0.0.0") + tunnel, 32, (tunnel_hop(tunnel),)) for tunnel in tunnels]
        side.put(*[instance(tunnel, remotes[tunnel]) for tunnel in tunnels], *routes)
        side.ike(*[install(tunnel, 1, remote=remotes[tunnel]) for tunnel in tunnels])
        side.ike(*[IkeTunnelState(tunnel, True, "", "west") for tunnel in tunnels])
        for tunnel in tunnels:
            assert side.protect(tunnel, [udp_packet("52.0.0.1", "62.0.0.1", 200)])
        side.ike(*[SaDelete(tunnel, 1, "gone") for tunnel in tunnels])
        side.put(delete=[*[("tunnel", tunnel) for tunnel in tunnels], *[way.key for way in routes]])
        side.pass_time(5)
        side.said.clear()
        side.to_ike.clear()

    wave(1000, 100)
    before = contained(side.asp)
    for at in range(30):
        wave(2000 + 100 * at, 100)
    assert contained(side.asp) <= before + 100, "caches of a fixed size, and nothing for each instance"
