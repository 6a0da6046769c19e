"""Instances of on-demand tunnels while their peers are there, move, come again and go (guide 9.3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.ase.ike_messages import NatMappingChanged, PeerAlive, UdpEncapsulation
from tests.support.ike.on_demand import DialIn, Gateway, Offer, Script, peer
from tests.support.ike.pair import A, B, End, Ends, Version, esp
from tests.support.reachable import contained

VERSIONS = pytest.mark.parametrize("version", [1, 2])
WEST, EAST = "west.branch.example", "east.branch.example"
NAT = 0x0C000001
ELSEWHERE = 0x0A000031


def connected(*peers: Ends, script: Script | None = None, **offer: object) -> DialIn:
    """Peers that are all up."""
    version = peers[0].version
    rig = DialIn(peers, Gateway((Offer(version=version, **offer),)), script)  # type: ignore[arg-type]
    wait(rig, *peers)
    return rig


def wait(rig: DialIn, *peers: Ends, within: float = 10.0) -> None:
    ends = [rig.a, *rig.others]
    assert rig.until(lambda: all(rig.connected(end, one) for end, one in zip(ends, peers, strict=True)), within), (
        rig.b.texts(),
        rig.b.questions,
    )


def nothing_left(rig: DialIn) -> None:
    manager = rig.b.ike.ike_sa_manager
    assert not rig.b.sessions
    assert not rig.b.pairs
    assert not rig.instances
    assert manager.spis_held == len(manager.questions) == manager.statistics.unassigned_count == 0
    assert not rig.b.ike.connection_manager.by_tunnel


def no_longer(rig: DialIn, end: End, ends: Ends) -> None:
    """A peer's tunnel is shut down: it says so."""
    rig.configure(end, replace(ends, wanted=False, ready=False).records())


# --- the end ---


@VERSIONS
def test_a_peer_that_deletes_its_sas_is_gone(version: Version) -> None:
    ends = peer(identity=WEST, version=version)
    rig = connected(ends)
    no_longer(rig, rig.a, ends)
    rig.run(0.5)
    (dropped,) = rig.dropped()
    assert (dropped.question, dropped.tunnel) == (0, 1000)
    nothing_left(rig)


@VERSIONS
def test_a_dead_peer_is_gone(version: Version) -> None:
    ends = peer(identity=WEST, version=version, keepalive=True)
    rig = connected(ends, keepalive=True)
    rig.mute(rig.a)
    rig.run(60)
    assert [one.tunnel for one in rig.dropped()] == [1000]
    nothing_left(rig)


@VERSIONS
def test_the_end_of_the_lifetimes_is_the_end(version: Version) -> None:
    """The gateway does not initiate: nothing follows when the peer is silent."""
    ends = peer(identity=WEST, version=version, suites=(esp(seconds=200),), lifetime=400)
    rig = connected(ends, suites=(esp(seconds=200),), lifetime=400, connection="responder-only")
    rig.mute(rig.a)
    sent = len(rig.b.sent)
    rig.run(90_000)
    assert [one.tunnel for one in rig.dropped()] == [1000]
    assert len(rig.b.sent) < sent + 40
    nothing_left(rig)


@VERSIONS
@pytest.mark.parametrize("what", ["", "ipsec", "ike"])
def test_clear_names_an_instance_by_its_number(version: Version, what: str) -> None:
    west, east = peer(A, WEST, version=version), peer(A + 16, EAST, version=version)
    rig = connected(west, east)
    arguments = {"what": what} if what else {}
    assert rig.ask(rig.b, "clear", tunnel=1000, **arguments).error == ""
    rig.run(0.5)
    gone = what == "" or (what == "ike" and version == 2)
    assert [one.tunnel for one in rig.dropped()] == ([1000] if gone else [])
    assert rig.connected(rig.others[0], east), "the other peer of the tunnel is not concerned"
    wait(rig, west, east)


@VERSIONS
def test_the_controller_takes_an_instance_down(version: Version) -> None:
    ends = peer(identity=WEST, version=version)
    rig = connected(ends)
    rig.take_down(1000)
    assert rig.until(lambda: not rig.a.pairs, 1), "the peer gets Deletes"
    rig.run(5)
    assert rig.peers == {WEST: 1001}, "the peer comes again"
    assert rig.connected(rig.a, ends)
    assert not rig.dropped()


@VERSIONS
def test_a_peer_without_a_child_sa_does_not_stay(version: Version) -> None:
    ends = peer(identity=WEST, version=version, suites=(esp(cipher="aes-256-cbc"),))
    rig = DialIn([ends], Gateway((Offer(version=version),)))
    assert rig.until(lambda: bool(rig.b.standing), 1)
    rig.trouble = lambda sender, packet, now: ()
    rig.run(59)
    assert not rig.dropped()
    rig.run(35)
    assert [one.tunnel for one in rig.dropped()] == [1000]
    nothing_left(rig)


def test_an_instance_that_no_peer_comes_for_is_given_back() -> None:
    """So an IKE process that is new finds instances of the one before it."""
    ends = peer(identity=WEST)
    rig = connected(ends)
    record = rig.instances[1000]
    new = rig.restart(rig.b, rig.gateway)  # type: ignore[arg-type]
    rig.mute(rig.a)
    rig.configure(new, (record,))
    rig.run(59)
    assert not rig.dropped()
    rig.run(2)
    assert [one.tunnel for one in rig.dropped()] == [1000]
    nothing_left(rig)


# --- the same peer again ---


@VERSIONS
@pytest.mark.behaviour("B-159")
def test_a_peer_that_comes_from_elsewhere_replaces_itself(version: Version) -> None:
    ends = peer(identity=WEST, version=version)
    rig = connected(ends)
    moved = replace(ends, local=ELSEWHERE)
    end = rig.join(moved)
    assert rig.until(lambda: rig.peers.get(WEST) == 1001 and rig.connected(end, moved), 5)
    assert {one.tunnel for one in rig.b.installs} == {1001}
    assert rig.until(lambda: not rig.a.pairs, 1), "what it was before gets Deletes"
    assert not rig.dropped(), "the controller took it down itself"


@VERSIONS
def test_a_restarted_peer_gets_its_instance_again(version: Version) -> None:
    ends = peer(identity=WEST, version=version)
    rig = connected(ends)
    rig.mute(rig.a)
    rig.run(5)
    rig.restart(rig.a, ends)
    assert rig.until(lambda: rig.connected(rig.a, ends), 5)
    rig.run(5)
    assert rig.peers == {WEST: 1000}
    assert len(rig.b.pairs) == len(rig.b.standing) == 1, "its INITIAL-CONTACT ends what it lost"
    assert not rig.dropped()


def test_a_new_phase_1_keeps_the_child_sas() -> None:
    ends = peer(identity=WEST, version=1)
    rig = connected(ends)
    (pair,) = rig.b.installs
    before = rig.b.session
    rig.ask(rig.a, "rekey", what="ike")
    rig.run(60)
    assert rig.b.installs == [pair]
    assert rig.b.session is not before
    assert [one.step for one in rig.asked()] == ["admit", "admit"]
    assert rig.connected(rig.a, ends)
    assert not rig.dropped()


# --- rekeying ---


@VERSIONS
@pytest.mark.parametrize("aaa", [False, True])
def test_the_gateway_rekeys_like_any_end(version: Version, aaa: bool) -> None:
    key = b"of west" if aaa else b"secret of two"
    ends = replace(peer(identity=WEST, version=version, psk=key), connection="both")
    rig = connected(ends, script=Script({WEST: key}), aaa=aaa)
    for what in ("child", "ike", "child", "ike"):
        before = rig.b.session, rig.b.installs
        assert rig.ask(rig.b, "rekey", tunnel=1000, what=what).result == {"begun": 1}
        rig.run(60)
        assert rig.connected(rig.a, ends)
        assert len(rig.b.pairs) == len(rig.b.standing) == 1
        assert (rig.b.session is not before[0]) == (what == "ike")
        assert (rig.b.installs != before[1]) == (what == "child")
    assert rig.peers == {WEST: 1000}
    assert not rig.dropped()


@VERSIONS
def test_days_of_short_lifetimes(version: Version) -> None:
    suite = esp(seconds=600)
    ends = peer(identity=WEST, version=version, suites=(suite,), lifetime=1800)
    rig = connected(ends, suites=(suite,), lifetime=1800)
    for _ in range(48):
        rig.run(1800)
        assert rig.connected(rig.a, ends)
        assert len(rig.b.pairs) <= 2
    assert rig.peers == {WEST: 1000}
    assert not rig.dropped()


# --- behind NATs ---


@VERSIONS
def test_two_peers_behind_one_nat(version: Version) -> None:
    west, east = peer(A, WEST, version=version), peer(A + 16, EAST, version=version)
    rig = DialIn([replace(west, ready=False), replace(east, ready=False)], Gateway((Offer(version=version),)))
    rig.nats = {A: (NAT, 10_000), A + 16: (NAT, 20_000)}
    rig.configure(rig.a, west.records())
    rig.configure(rig.others[0], east.records())
    wait(rig, west, east)
    assert {one.remote for one in rig.instances.values()} == {NAT}
    assert {one.encapsulation for one in rig.b.installs} == {
        (UdpEncapsulation(4500, NAT, 14_500),),
        (UdpEncapsulation(4500, NAT, 24_500),),
    }
    for number in rig.peers.values():
        rig.ask(rig.b, "rekey", tunnel=number)
    rig.run(30)
    wait(rig, west, east)
    no_longer(rig, rig.a, west)
    rig.run(1)
    assert rig.connected(rig.others[0], east)


@VERSIONS
@pytest.mark.parametrize("seen", ["packet", "message"])
def test_a_nat_with_a_new_address_keeps_the_instance(version: Version, seen: str) -> None:
    """RFC 7296 2.23, RFC 3948: outer packets go to the new address, and so do those of later CHILD SAs."""
    ends = peer(identity=WEST, version=version)
    rig = DialIn([replace(ends, ready=False)], Gateway((Offer(version=version),)))
    rig.nats = {A: (NAT, 10_000)}
    rig.configure(rig.a, ends.records())
    wait(rig, ends)
    rig.nats = {A: (NAT + 1, 12_000)}
    if seen == "packet":
        (pair,) = rig.b.installs
        rig.give(rig.b, NatMappingChanged(1000, pair.serial, NAT + 1, 16_500))
        rig.ask(rig.b, "rekey", tunnel=1000)
    else:
        rig.ask(rig.a, "rekey", what="child")
    rig.run(30)
    new = (UdpEncapsulation(4500, NAT + 1, 16_500),)
    assert rig.b.moves[0].encapsulation == new[0]
    (pair,) = rig.b.installs
    assert pair.encapsulation == new
    assert (pair.local, pair.remote) == (B, NAT), "as the record of the tunnel, which the data engine compares"
    assert rig.connected(rig.a, ends)
    assert rig.peers == {WEST: 1000}
    assert not rig.dropped()


# --- many ---


@VERSIONS
def test_many_come_and_go_and_nothing_grows(version: Version) -> None:
    rig = DialIn([peer(0x0A7F0001, "nobody", version=version)], Gateway((Offer(version=version),)))
    rig.mute(rig.a)

    def wave(first: int, number: int, *, taken_down: bool = False) -> None:
        peers = [
            peer(0x0A010000 + at, f"p{at}.branch.example", version=version) for at in range(first, first + number)
        ]
        ends = [rig.join(one) for one in peers]
        assert rig.until(lambda: all(one.up(each.tunnel) for one, each in zip(ends, peers, strict=True)), 20)
        rig.give(rig.b, PeerAlive(tuple(rig.peers.values())))
        rig.script.refuses = "no more" if taken_down else ""
        for number in list(rig.instances) if taken_down else ():
            rig.take_down(number)
        for end, one in zip(ends, peers, strict=True):
            no_longer(rig, end, one)
        rig.run(1.5)
        rig.script.refuses = ""
        for end in ends:
            rig.leave(end)
        nothing_left(rig)
        for kept in (
            rig.b.logs,
            rig.b.sent,
            rig.b.questions,
            rig.b.gone,
            rig.b.deleted,
            rig.b.states,
            rig.b.sending,
        ):
            kept.clear()  # type: ignore[attr-defined]
        rig.run(200)

    wave(0, 10)
    wave(10, 10, taken_down=True)
    before = contained(rig.b.ike)
    for turn in range(2, 12):
        wave(10 * turn, 10, taken_down=turn % 2 == 0)
    after = contained(rig.b.ike)
    assert after <= before
