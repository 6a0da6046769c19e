"""What keeps a tunnel up: attempts and back-off, two that begin at once, restarts, changed configurations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from chassis.ase.ike.host import Session
from chassis.ase.ike.ike_sa_manager import IkeSaManager
from chassis.ase.ike_messages import Configure, IkePacket, PeerAlive
from chassis.bus.records import ContextRecord, PolicyRecord, Record, TunnelRecord
from chassis.model.acl import AclRule
from launch.lab import counter_names
from tests.support.ike.pair import CONTEXT, TUNNEL, A, B, Ends, EnginePair, agree, esp, other, proposal

VERSIONS = pytest.mark.parametrize("version", [1, 2])


def standing(ends: Ends, far: Ends | None = None, **settings: Any) -> EnginePair:
    two = EnginePair(ends, far or other(ends), **settings)
    assert two.until(lambda: two.a.up() and two.b.up(), 10), (two.a.texts(), two.b.texts())
    two.run(15)
    return two


def usable(two: EnginePair) -> bool:
    return two.packet(two.a) and two.packet(two.b)


@VERSIONS
def test_both_begin_and_one_stays(version: int) -> None:
    ends = Ends(version=version)
    slow: dict[int, float] = {}

    def trouble(sender: int, packet: IkePacket, now: float) -> Iterable[float]:
        # Long enough under way that the shy end begins, too.
        slow[sender] = now
        return (0.4,)

    two = EnginePair(ends, other(ends), trouble=trouble)
    assert two.until(lambda: usable(two), 20)
    two.run(30)
    agree(two)
    assert len(two.a.pairs) == 1
    assert len(two.ask(two.a, "sas").result["tunnels"][0]["ike"]) == 1
    assert len(two.ask(two.b, "sas").result["tunnels"][0]["ike"]) == 1


def test_a_first_message_that_looks_like_the_peers_does_not_stand_in_its_way() -> None:
    """In IKEv2 the whole message tells whose it is, not its SPI (RFC 7296 2.1)."""
    ends = Ends(connection="initiator-only")
    two = EnginePair(ends, replace(other(ends), connection="responder-only", wanted=False))
    two.run(0.1)
    (first, *_) = two.a.sent
    two.configure(two.b, replace(other(ends), connection="responder-only").records())
    real = IkePacket(first.context, B, 500, A, 500, first.data)
    forged = replace(real, data=first.data[:-1] + bytes((first.data[-1] ^ 1,)))
    two.trouble = lambda sender, packet, now: ()
    for packet in (forged, real, real, forged):
        two.give(two.b, packet)
    answers = [packet.data for packet in two.b.sent]
    assert len(answers) == 4
    assert answers[0] == answers[3] != answers[1] == answers[2], "what comes again is answered again"
    two.trouble = None
    assert two.until(lambda: two.a.up() and two.b.up(), 5)
    two.give(two.b, real)
    assert len(two.b.ike.connection_manager.by_tunnel[TUNNEL].sessions()) == 1, "the IKE SA stands"
    assert usable(two)


@VERSIONS
def test_an_initiator_keeps_trying_with_growing_pauses(version: int) -> None:
    ends = Ends(version=version, connection="initiator-only")

    def silence(sender: int, packet: IkePacket, now: float) -> Iterable[float]:
        return ()

    two = EnginePair(ends, replace(other(ends), connection="responder-only"), trouble=silence)
    two.run(600)
    starts = sorted({(packet.data[:8]) for packet in two.a.sent})
    assert 4 <= len(starts) <= 30
    assert not two.a.up()
    assert "10.0.0.2" in two.a.states[TUNNEL].reason
    two.trouble = None
    assert two.until(lambda: usable(two), 120)


@VERSIONS
def test_a_killed_end_comes_back_and_its_peer_forgets_what_was(version: int) -> None:
    ends = Ends(version=version)
    far = other(ends)
    for victim in ("a", "b"):
        two = standing(ends, far)
        dead = two.a if victim == "a" else two.b
        two.mute(dead)
        two.run(1)
        two.restart(dead, ends if victim == "a" else far)
        assert two.until(lambda two=two: usable(two), 2.0)
        two.run(10)
        agree(two)
        assert len(two.a.pairs) == 1


@VERSIONS
def test_a_pair_whose_lifetime_is_nearly_over_is_announced_when_its_successor_is_begun(version: int) -> None:
    suite = esp(seconds=300)
    two = standing(Ends(version=version, suites=(suite,)))
    assert two.until(lambda: bool(two.a.expiring or two.b.expiring), 300)
    for end in (two.a, two.b):
        for one in end.expiring:
            assert (one.tunnel, one.hard, one.reason) == (TUNNEL, False, "soft limit of seconds")
            assert one.serial in {serial for _, serial in end.pairs}
    two.run(10)
    assert usable(two)
    assert max(serial for _, serial in two.a.pairs) == 2
    two.run(1500)
    said = [one.serial for one in two.a.expiring]
    assert sorted(set(said)) == said, "each pair once, where the peer answers"
    assert len(said) + len(two.b.expiring) >= 5


@VERSIONS
def test_what_a_tunnel_did_is_counted_with_it_and_its_version_at_both_ends(version: int) -> None:
    ends = Ends(version=version, connection="initiator-only")
    two = standing(ends, replace(other(ends), connection="responder-only"))
    two.ask(two.b, "rekey", tunnel=TUNNEL)
    two.run(10)
    mine, theirs = (two.ask(end, "statistics").result for end in (two.a, two.b))
    for result in (mine, theirs):
        assert {name.split()[0] for name in result["total"]} == {f"v{version}"}
        own = {f"v{version} {name}": number for name, number in result["tunnels"][str(TUNNEL)].items()}
        assert own == result["total"], "there is but one tunnel"
        assert own[f"v{version} IKE SAs established"] == 1
    a, b = Counter(mine["tunnels"][str(TUNNEL)]), Counter(theirs["tunnels"][str(TUNNEL)])
    assert (a["negotiations initiated"], b["negotiations responded"]) == (1, 1)
    assert "negotiations responded" not in a
    assert "negotiations initiated" not in b
    assert (
        (a["CHILD SAs created"], a["CHILD SAs rekeyed"])
        == (b["CHILD SAs created"], b["CHILD SAs rekeyed"])
        == (1, 1)
    )
    for what in ("messages", "octets"):
        assert a[f"{what} sent"] == b[f"{what} received"] > 0
        assert b[f"{what} sent"] == a[f"{what} received"] > 0


@VERSIONS
def test_a_counter_means_one_thing_in_both_versions(version: int) -> None:
    """What both ends do is counted at both, what one of them does at that one, whatever the version."""
    ends = Ends(version=version, connection="initiator-only", keepalive=True)
    lost = [False]

    def trouble(sender: int, packet: IkePacket, now: float) -> Iterable[float]:
        if lost[0] and sender == B:
            lost[0] = False
            return ()
        return (0.005,)

    two = standing(ends, replace(other(ends), connection="responder-only", keepalive=False), trouble=trouble)
    two.ask(two.a, "rekey", tunnel=TUNNEL, what="ike")
    two.run(10)
    lost[0] = True
    two.ask(two.a, "rekey", tunnel=TUNNEL)
    two.run(30)
    assert not lost[0]
    two.mute(two.b)
    two.run(60)
    a, b = (Counter(end.ike.ike_sa_manager.statistics.tunnels[TUNNEL]) for end in (two.a, two.b))
    for counts in (a, b):
        assert counts["IKE SAs rekeyed"] == 1
        assert counts["CHILD SAs created"] == counts["CHILD SAs rekeyed"] == 1
    assert b["responses resent"] >= 1
    assert a["retransmissions"] >= 1
    assert a["DPD probes sent"] >= 1
    assert "DPD probes sent" not in b
    assert a["failed dead peer"] == 1
    for counts in (two.a.ike.ike_sa_manager.statistics.total, two.b.ike.ike_sa_manager.statistics.total):
        for name in counts:
            assert not counter_names.problem(f"ike {name}", "asp 1/1"), "a scenario may name it"


def test_what_is_nobodys_is_counted_with_its_version_alone() -> None:
    two = standing(Ends())
    before = dict(two.ask(two.b, "statistics").result["total"])
    tunnel = dict(two.ask(two.b, "statistics").result["tunnels"][str(TUNNEL)])
    stranger = bytes(range(1, 9)) + bytes(8)
    for version in (1, 2):
        message = stranger + bytes((1, version << 4, 34, 8)) + bytes(4) + (28).to_bytes(4, "big")
        two.give(two.b, IkePacket(CONTEXT, B, 500, 0x0A000099, 500, message))
    result = two.ask(two.b, "statistics").result
    assert result["total"]["v1 messages received"] == 1
    assert result["total"]["v2 messages received"] == before["v2 messages received"] + 1
    assert result["total"]["v2 octets received"] == before["v2 octets received"] + 28
    assert result["tunnels"][str(TUNNEL)] == tunnel


def test_a_negotiation_that_nobody_proved_leaves_no_count_behind() -> None:
    ends = Ends()
    two = EnginePair(replace(ends, wanted=False), replace(other(ends), connection="responder-only"))
    attacker = EnginePair(replace(ends, connection="initiator-only"), other(ends), seed=3)
    attacker.run(0.001)
    two.give(two.b, IkePacket(CONTEXT, B, 500, A, 500, attacker.a.sent[0].data))
    assert two.b.ike.ike_sa_manager.statistics.unassigned_count == 1
    two.run(60)
    assert two.b.ike.ike_sa_manager.statistics.unassigned_count == 0
    assert two.ask(two.b, "statistics").result["tunnels"] == {str(TUNNEL): {}}
    assert two.ask(two.b, "statistics").result["total"]["v2 negotiations responded"] == 1


MODES = pytest.mark.parametrize(("version", "mode"), [(2, "main"), (1, "main"), (1, "aggressive")])


@pytest.fixture
def contacts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(engine, tunnel) of each INITIAL-CONTACT that an engine heard."""
    heard: list[tuple[str, int]] = []
    contacted = IkeSaManager.on_initial_contact

    def hears(ike: IkeSaManager, session: Session, now: float) -> None:
        assert session.connection is not None
        heard.append((ike.asp, session.connection.tunnel))
        contacted(ike, session, now)

    monkeypatch.setattr(IkeSaManager, "on_initial_contact", hears)
    return heard


@MODES
def test_initial_contact_is_said_once_after_a_boot(
    version: int, mode: str, contacts: list[tuple[str, int]]
) -> None:
    ends = Ends(version=version, mode=mode, connection="initiator-only")
    far = replace(other(ends), connection="responder-only")
    two = standing(ends, far)
    a, b = two.a.ike.asp, two.b.ike.asp
    assert sorted(contacts) == [(a, TUNNEL), (b, TUNNEL)], "each end says it in the first IKE SA"
    contacts.clear()
    assert two.ask(two.a, "clear").result == {"cleared": 1}
    assert two.until(lambda: usable(two), 5)
    assert two.ask(two.b, "rekey", tunnel=TUNNEL, what="ike").result == {"begun": 1}
    two.run(10)
    assert contacts == [], "and in no later one"
    two.mute(two.b)
    two.restart(two.b, far)
    two.ask(two.a, "clear")
    assert two.until(lambda: two.b.up() and usable(two), 60)
    assert contacts == [(a, TUNNEL)], "until it is started anew"
    agree(two)


@MODES
def test_initial_contact_is_said_to_the_same_names_in_another_context(
    version: int, mode: str, contacts: list[tuple[str, int]]
) -> None:
    ends = Ends(version=version, mode=mode, identity_local="a.example", identity_remote="b.example")
    two = standing(ends)
    contacts.clear()
    for end, mine in ((two.a, ends), (two.b, other(ends))):
        records = replace(mine, tunnel=6).records()
        elsewhere: list[Record] = []
        for record in records:
            if isinstance(record, ContextRecord):
                record = replace(record, number=8)
            elif isinstance(record, PolicyRecord) and record.context:
                record = replace(record, context=8)
            elif isinstance(record, TunnelRecord):
                record = replace(record, outer_context=8)
            elsewhere.append(record)
        two.configure(end, tuple(elsewhere))
    assert two.until(lambda: two.a.up(6) and two.b.up(6), 10)
    two.run(1)
    assert sorted(contacts) == [(two.a.ike.asp, 6), (two.b.ike.asp, 6)]
    assert two.a.up()


@VERSIONS
def test_clear_and_rekey(version: int) -> None:
    two = standing(Ends(version=version))
    before = two.a.sender()
    assert two.ask(two.a, "rekey", tunnel=TUNNEL).result == {"begun": 1}
    two.run(10)
    assert two.a.sender() is not before
    assert usable(two)
    agree(two)
    assert two.ask(two.b, "rekey", tunnel=TUNNEL, what="ike").result == {"begun": 1}
    two.run(10)
    assert usable(two)
    agree(two)
    assert two.ask(two.a, "rekey", tunnel=99).error


KINDS_OF_ENDS = pytest.mark.parametrize("connection", ["both", "initiator-only", "responder-only"])


def kind_of_ends(version: int, connection: str) -> tuple[Ends, Ends]:
    """End a with this connection type, and one that fits it."""
    ends = Ends(version=version, connection=connection)
    fits = {"both": "both", "initiator-only": "responder-only", "responder-only": "initiator-only"}
    return ends, replace(other(ends), connection=fits[connection])


@pytest.mark.behaviour("B-195", "B-196")
@VERSIONS
@KINDS_OF_ENDS
@pytest.mark.parametrize("what", ["ipsec", "ike", "all"])
def test_what_is_cleared_is_made_anew_and_no_more(version: int, connection: str, what: str) -> None:
    """In version 1 IPsec SAs outlive their IKE SA; in version 2 they end with it, and are made anew."""
    two = standing(*kind_of_ends(version, connection))
    keeper = two.a.ike.connection_manager.by_tunnel[TUNNEL]
    session, sender = keeper.session, two.a.sender()
    assert two.ask(two.a, "clear", tunnel=TUNNEL, what=what).result == {"cleared": 1}
    for _ in range(500):
        two.flow(two.a)
        two.flow(two.b)
        two.run(0.02)
    assert usable(two)
    assert keeper.session is not None
    assert (keeper.session is session) == (what == "ipsec")
    assert (two.a.sender() is sender) == (what == "ike" and version == 1)
    assert len(two.a.pairs) == len(keeper.sessions()) == 1
    agree(two)
    if what == "ipsec" or (what == "ike" and version == 1):
        assert (two.lost, two.unsent) == ([], 0)
    assert two.ask(two.a, "rekey", tunnel=TUNNEL).result == {"begun": 1}
    two.run(10)
    agree(two)


@pytest.mark.parametrize("connection", ["both", "initiator-only"])
def test_the_new_ike_sa_stands_before_the_cleared_one_of_version_1_goes(connection: str) -> None:
    """Some peers drop their IPsec SAs with the IKE SA. One that is not answered keeps what it has."""
    two = standing(*kind_of_ends(1, connection))
    keeper = two.a.ike.connection_manager.by_tunnel[TUNNEL]
    old, sender = keeper.session, two.a.sender()
    assert old is not None
    two.trouble = lambda sender, packet, now: ()
    two.ask(two.a, "clear", tunnel=TUNNEL, what="ike")
    two.run(20)
    assert keeper.session is old
    two.trouble = None
    assert two.until(lambda: keeper.session is not old, 60)
    assert old.established
    assert two.until(lambda: old.closed, 10)
    assert two.a.sender() is sender
    assert usable(two)
    agree(two)


@pytest.mark.parametrize("comes_back", [True, False])
def test_pairs_outlive_an_ike_sa_of_version_1_that_has_no_successor(comes_back: bool) -> None:
    """They pass to the next one that comes to stand, or end by their own lifetime: what is down says so."""
    short = Ends().suites[0]
    ends, far = [
        replace(one, suites=(replace(short, lifetime_seconds=600),)) for one in kind_of_ends(1, "responder-only")
    ]
    two = standing(ends, far)
    keeper = two.a.ike.connection_manager.by_tunnel[TUNNEL]
    sender = two.a.sender()
    assert sender is not None
    passing = [0.005]
    """The delete comes through, then nothing."""
    two.trouble = lambda sender, packet, now: [passing.pop()] if passing else ()
    two.ask(two.a, "clear", tunnel=TUNNEL, what="ike")
    assert keeper.session is None
    two.run(300)
    assert two.a.up()
    assert two.a.sender() is sender
    (row,) = two.ask(two.a, "sas").result["tunnels"]
    assert [one["serial"] for sa in row["ike"] for one in sa["children"]] == [sender.serial]
    assert not two.ask(two.a, "keys").result["keys"]
    if comes_back:
        two.trouble = None
        assert two.until(lambda: keeper.session is not None, 90)
        assert two.a.sender() is sender
        assert usable(two)
        two.run(600)
        assert two.a.sender() is not sender, "its successor came in time"
        assert usable(two)
        agree(two)
        return
    two.run(300)
    assert not two.a.pairs
    assert not two.a.up()
    assert two.a.states[TUNNEL].reason
    assert not keeper.sessions()
    assert not two.a.ike.ike_sa_manager.spis_held


@pytest.mark.parametrize("talks", [False, True])
@pytest.mark.parametrize("keepalive", [False, True])
def test_a_dead_peer_is_noticed_by_pairs_without_an_ike_sa_with_keepalive_only(
    keepalive: bool, talks: bool
) -> None:
    """There is no IKE SA to probe by: a peer that answers no first message either, and sends nothing, is dead."""
    ends, far = (replace(one, keepalive=keepalive) for one in kind_of_ends(1, "initiator-only"))
    two = standing(ends, far)
    two.ask(two.b, "clear", tunnel=TUNNEL, what="ike")
    two.run(0.01)
    two.mute(two.b)
    assert two.a.up()
    for _ in range(20):
        two.run(5)
        if talks:
            two.give(two.a, PeerAlive((TUNNEL,)))
    assert two.a.up() is (talks or not keepalive)
    if not two.a.up():
        assert two.a.states[TUNNEL].reason == "10.0.0.2 does not answer"
        assert not two.a.ike.ike_sa_manager.spis_held


def test_a_tunnel_that_is_no_longer_configured_keeps_no_pairs_without_an_ike_sa() -> None:
    two = standing(*kind_of_ends(1, "responder-only"))
    two.trouble = lambda sender, packet, now: ()
    two.ask(two.a, "clear", tunnel=TUNNEL, what="ike")
    assert two.a.pairs
    ends = kind_of_ends(1, "responder-only")[0]
    two.configure(two.a, replace(ends, wanted=False).records(), whole=True)
    assert not two.a.pairs
    assert not two.a.ike.ike_sa_manager.spis_held


@pytest.mark.behaviour("B-074", "B-076", "B-077")
@VERSIONS
def test_a_peer_that_is_gone_is_noticed_with_keepalive_only(version: int) -> None:
    for keepalive in (False, True):
        ends = Ends(version=version, keepalive=keepalive)
        two = standing(ends, **{"dpd-interval": 2.0, "dpd-retries": 3})
        two.mute(two.b)
        two.run(60)
        assert two.a.up() is not keepalive
        if keepalive:
            assert not two.a.pairs
            assert two.a.states[TUNNEL].reason


@VERSIONS
def test_a_peer_is_dead_after_a_silence_and_as_many_questions(version: int) -> None:
    two = standing(Ends(version=version, keepalive=True), **{"dpd-interval": 2.0, "dpd-retries": 3})
    two.run(30)
    two.mute(two.b)
    muted = two.now
    assert two.until(lambda: not two.a.up(), 30)
    # The last word came up to an interval before; then each question is given an interval.
    assert 2.0 * 3 <= two.now - muted <= 2.0 * 4 + 0.1


@VERSIONS
def test_a_last_packet_after_the_first_question_costs_no_second_round(version: int) -> None:
    two = standing(Ends(version=version, keepalive=True), **{"dpd-interval": 2.0, "dpd-retries": 3})
    asked = two.a.count("DPD probes sent")
    two.mute(two.b)
    assert two.until(lambda: two.a.count("DPD probes sent") > asked, 5)
    two.run(0.1)
    two.give(two.a, PeerAlive((TUNNEL,)))
    alive = two.now
    assert two.until(lambda: not two.a.up(), 30)
    assert 2.0 * 3 <= two.now - alive <= 2.0 * 4 + 0.1


@VERSIONS
def test_a_tunnel_that_is_shut_down_says_good_bye(version: int) -> None:
    ends = Ends(version=version, connection="initiator-only")
    two = standing(ends, replace(other(ends), connection="responder-only"))
    two.configure(two.a, replace(ends, wanted=False).records())
    two.run(1)
    assert not two.a.pairs
    assert not two.b.pairs
    assert not two.a.up()
    assert not two.b.up()
    two.configure(two.a, ends.records())
    assert two.until(lambda: usable(two), 3)


@VERSIONS
def test_a_whole_account_that_comes_in_parts_ends_nothing_that_it_names(version: int) -> None:
    ends = Ends(version=version)
    two = standing(ends)
    pairs = dict(two.a.pairs)
    *first, tunnel = ends.records()
    two.give(two.a, Configure(tuple(first), (), True, dict(two.settings), more=True))
    two.run(1)
    two.give(two.a, Configure((tunnel,)))
    two.run(10)
    assert two.a.pairs.keys() == pairs.keys()
    assert usable(two)
    # What it does not name is void.
    two.configure(two.a, tuple(first), whole=True)
    two.run(1)
    assert not two.a.pairs


@VERSIONS
def test_no_way_to_the_peer_keeps_what_stands(version: int) -> None:
    ends = Ends(version=version)
    two = standing(ends)
    two.configure(two.a, replace(ends, ready=False).records())
    two.run(5)
    assert two.a.up()
    two.configure(two.a, ends.records())
    two.run(5)
    assert usable(two)


@VERSIONS
def test_a_reason_is_named_of_a_tunnel_that_is_down_and_is_the_present_one(version: int) -> None:
    ends = Ends(version=version)

    def reasons() -> tuple[str, str]:
        (row,) = two.ask(two.a, "sas").result["tunnels"]
        return two.a.states[TUNNEL].reason, row["reason"]

    two = EnginePair(replace(ends, ready=False), replace(other(ends), connection="responder-only"))
    two.run(1)
    assert reasons() == ("no route to the peer", "no route to the peer")
    two.trouble = lambda sender, packet, now: ()
    two.configure(two.a, ends.records())
    two.run(1)
    assert reasons() == ("negotiating with 10.0.0.2", "negotiating with 10.0.0.2")
    two.trouble = None
    two.configure(two.a, replace(ends, ready=False).records())
    two.run(1)
    two.configure(two.a, ends.records())
    assert two.until(two.a.up, 90)
    assert reasons() == ("", "")
    two.configure(two.a, replace(ends, ready=False).records())
    two.run(1)
    assert reasons() == ("", "")


def rules(first: int) -> tuple[AclRule, ...]:
    return (AclRule(10, source=(first << 24, 8), destination=(0x0B000000, 8)),)


@pytest.mark.behaviour("B-148")
@VERSIONS
def test_several_lines_each_have_their_pair_and_a_changed_list_is_negotiated_anew(version: int) -> None:
    ends = Ends(version=version, rules=(rules(20), rules(21)), connection="initiator-only")
    far = replace(other(ends), connection="responder-only")
    two = standing(ends, far)
    assert len(two.a.pairs) == 2
    agree(two)
    assert two.packet(two.a, 10)
    assert two.packet(two.a, 20)
    changed = replace(ends, rules=(rules(20), rules(22)))
    two.configure(two.b, replace(other(changed), connection="responder-only").records())
    two.configure(two.a, changed.records())
    two.run(20)
    agree(two)
    pair = two.a.sender(20)
    assert pair is not None
    assert pair.rules[0].source == (22 << 24, 8)
    assert len(two.a.pairs) == 2


def without_the_second_line(version: int) -> tuple[EnginePair, int]:
    """Two ends that lost the second of two lines; the number of its entry at end a."""
    suites = (esp(seconds=300),)
    ends = Ends(version=version, rules=(rules(20), rules(21)), suites=suites, connection="initiator-only")
    two = standing(ends, replace(other(ends), connection="responder-only"))
    (entry,) = {pair.entry for pair in two.a.pairs.values() if pair.rules[0].source == (21 << 24, 8)}
    fewer = replace(ends, rules=ends.rules[:1])
    two.configure(two.b, replace(other(fewer), connection="responder-only").records())
    two.configure(two.a, fewer.records())
    two.run(20)
    return two, entry


@pytest.mark.behaviour("B-193")
@VERSIONS
def test_the_sas_of_a_removed_line_live_to_their_end(version: int) -> None:
    """They are not replaced; those of the other line are, and nothing else happens to them."""
    two, entry = without_the_second_line(version)
    (first,) = {pair.entry for pair in two.a.pairs.values()} - {entry}
    assert len(two.a.pairs) == 2
    assert not two.a.deleted
    assert two.packet(two.a, entry)
    two.run(330)
    assert {pair.entry for pair in two.a.pairs.values()} == {first}
    assert two.a.up()
    agree(two)
    assert two.packet(two.a, first)


@pytest.mark.behaviour("B-195")
@VERSIONS
def test_a_clear_ends_the_sas_of_a_removed_line(version: int) -> None:
    two, entry = without_the_second_line(version)
    assert two.ask(two.a, "clear", tunnel=TUNNEL, what="ipsec").result == {"cleared": 1}
    two.run(20)
    assert entry not in {pair.entry for pair in two.a.pairs.values()}
    assert two.a.up()
    agree(two)


@VERSIONS
def test_a_peer_that_refuses_many_lines_at_once_is_not_taken_for_dead(version: int) -> None:
    ends = Ends(version=version, rules=tuple(rules(20 + line) for line in range(40)), connection="initiator-only")
    far = replace(other(replace(ends, rules=ends.rules[:1])), connection="responder-only")
    two = EnginePair(ends, far)
    assert two.until(lambda: len(two.a.pairs) == 1)
    sessions, pairs = set(two.a.ike.ike_sa_manager.table.by_spi), set(two.a.pairs)
    two.run(100)
    assert set(two.a.ike.ike_sa_manager.table.by_spi) == sessions
    assert set(two.a.pairs) == pairs
    assert two.packet(two.a, 10)


def test_strangers_are_asked_for_cookies_and_bounded() -> None:
    ends = Ends()
    two = EnginePair(
        replace(ends, wanted=False),
        other(ends),
        **{"cookie-threshold": 5, "half-open-limit": 20, "half-open-limit-per-peer": 10},
    )
    two.run(1)
    attacker = EnginePair(replace(ends, connection="initiator-only"), other(ends), seed=3)
    first = attacker.a.sent[0] if attacker.a.sent else None
    if first is None:
        attacker.run(0.001)
        first = attacker.a.sent[0]
    sent = len(two.b.sent)
    for number in range(1, 60):
        spi = number.to_bytes(8, "big")
        two.give(two.b, IkePacket(7, ends.remote, 500, A, 500, spi + first.data[8:]))
    counts = two.ask(two.b, "statistics").result["total"]
    assert counts["cookies requested"] >= 40
    answers = two.b.sent[sent:]
    assert sum(len(one.data) for one in answers) <= 60 * len(first.data)


@VERSIONS
def test_a_proposal_with_neither_cipher_nor_integrity_is_never_negotiated(version: int) -> None:
    bare = esp("", "null", "")
    ends = Ends(version=version, suites=(bare,))
    two = EnginePair(ends, other(ends))
    two.run(30)
    assert not two.a.sent
    assert two.a.states[TUNNEL].reason == "IPsec proposal child has neither cipher nor integrity"
    assert not two.a.pairs


@pytest.mark.behaviour("B-195")
@pytest.mark.parametrize("clears", ["a", "b"])
@pytest.mark.parametrize("there", [{"psk": b"another"}, {"proposals": (proposal(1, cipher="3des-cbc"),)}])
def test_what_is_cleared_of_version_1_and_refused_is_gone(there: dict[str, Any], clears: str) -> None:
    """The key or the proposal of end b has changed; whichever end clears, the next negotiation counts."""
    ends, far = kind_of_ends(1, "both")
    two = standing(ends, far)
    two.configure(two.b, replace(far, **there).records(), whole=True)
    two.run(20)
    assert usable(two), "nothing acts before it is cleared"
    end = getattr(two, clears)
    two.ask(end, "clear", tunnel=TUNNEL, what="ike")
    assert two.until(lambda: not two.a.up() and not two.b.up(), 20)
    assert not two.a.pairs
    assert not two.b.pairs
    assert "refuses" in end.states[TUNNEL].reason
    two.configure(two.b, far.records(), whole=True)
    assert two.until(lambda: two.a.up() and two.b.up(), 120)
    agree(two)


@pytest.mark.behaviour("B-195")
@VERSIONS
def test_ipsec_sas_that_are_cleared_and_refused_are_gone(version: int) -> None:
    ends, far = kind_of_ends(version, "both")
    two = standing(ends, far)
    sender = two.a.sender()
    two.configure(two.b, replace(far, suites=(esp("", "3des-cbc", "hmac-md5-96"),)).records(), whole=True)
    two.run(20)
    assert two.a.sender() is sender
    session = two.a.session
    two.ask(two.a, "clear", tunnel=TUNNEL, what="ipsec")
    assert two.until(lambda: not two.a.up() and not two.b.up(), 20)
    assert not two.a.pairs
    assert not two.b.pairs
    assert two.a.session is session
    assert "NO_PROPOSAL_CHOSEN" in two.a.states[TUNNEL].reason
    two.configure(two.b, far.records(), whole=True)
    assert two.until(lambda: two.a.up() and two.b.up(), 120)
    agree(two)
