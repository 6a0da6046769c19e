"""IKEv1 over time: lost, repeated and reordered messages, successors, deletes, dead peers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pytest

from chassis.ase.ike import retransmit
from chassis.ase.ike.connection import Line
from chassis.ase.ike.host import IkeSettings
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import ExchangeType, Protocol
from chassis.ase.ike.payloads.v1 import DeleteV1
from chassis.ase.ike.v1 import isakmp_sa
from chassis.ase.link import SaInstall
from chassis.model.ike import IkeProposal
from tests.support.ike.v1_pair import FakeHost, V1Pair, connection, other_end, suite

SHORT = Line(10, "ipsec", (suite(seconds=300),), (), 64)


def always(pair: V1Pair) -> None:
    """From now on there is never a moment in which an end has no pair that the other would open."""

    def watch() -> None:
        assert pair.both_ways(), (pair.now, pair.a.senders, pair.b.senders)

    pair.watch = watch


@pytest.mark.parametrize("mode", ["main", "aggressive"])
@pytest.mark.parametrize("trouble", ["lost", "twice", "late"])
@pytest.mark.parametrize("which", range(9))
def test_each_message_in_turn(mode: str, trouble: str, which: int) -> None:
    pair = V1Pair(connection(mode=mode))
    number = [-1]

    def wire(sender: FakeHost, data: bytes) -> Iterable[tuple[float, bytes]]:
        number[0] += 1
        if number[0] != which:
            return [(0.01, data)]
        return {"lost": [], "twice": [(0.01, data), (0.02, data)], "late": [(1.2, data)]}[trouble]

    pair.wire = wire
    pair.establish(12.0)
    assert pair.both_ways()
    assert len(pair.a.standing) == len(pair.b.standing) == 1
    assert len(pair.a.installed_pairs) == len(pair.b.installed_pairs) == 1
    pair.settled()
    assert not pair.a.causes()
    assert not pair.b.causes()
    pair.run(120)
    pair.settled()


def test_a_retransmission_that_is_late_puts_the_next_one_off() -> None:
    pair = V1Pair(connection())
    pair.wire = lambda sender, data: []
    session = pair.a.begin()
    settings = session.host.settings
    late = pair.now + 5 * settings.retransmit
    session.on_timer(late)
    assert session.next_timer() == late + 2 * settings.retransmit


def test_message_3_of_aggressive_mode_that_is_lost_twice_is_asked_for_by_quick_mode() -> None:
    pair = V1Pair(connection(mode="aggressive"))
    sent: list[bytes] = []

    def wire(sender: FakeHost, data: bytes) -> Iterable[tuple[float, bytes]]:
        proof = sender is pair.a and data[18] == ExchangeType.AGGRESSIVE_MODE and data[8:16] != bytes(8)
        sent.extend([data] if proof else [])
        return [] if proof and len(sent) < 3 else [(0.01, data)]

    pair.wire = wire
    pair.establish(12.0)
    assert pair.both_ways()
    assert len(sent) == 3
    assert len(set(sent)) == 1


@pytest.mark.parametrize("seed", range(12))
def test_a_bad_wire(seed: int) -> None:
    """A tenth is lost, a tenth comes twice, everything in any order: pairs are succeeded many times over."""
    dice = Random(seed)

    def wire(sender: FakeHost, data: bytes) -> Iterable[tuple[float, bytes]]:
        copies = [] if dice.random() < 0.1 else [(dice.uniform(0.01, 0.4), data)]
        return copies + ([(dice.uniform(0.01, 2.0), data)] if dice.random() < 0.1 else [])

    pair = V1Pair(connection(lines=[SHORT], proposals=[IkeProposal("p", dh_group=2, lifetime=900)]), seed=seed)
    pair.wire = wire
    pair.establish(60)
    assert pair.both_ways()
    always(pair)
    pair.run(4000)
    assert len([one for one in pair.a.emitted if isinstance(one, SaInstall)]) >= 12
    pair.watch = None
    pair.wire = lambda sender, data: [(0.01, data)]
    pair.run(100)
    assert pair.both_ways()


@pytest.mark.behaviour("B-047")
def test_pairs_are_succeeded_before_they_end() -> None:
    pair = V1Pair(connection(lines=[SHORT]))
    pair.establish()
    always(pair)
    pair.run(3000)
    installs = [one for one in pair.b.emitted if isinstance(one, SaInstall)]
    assert 10 <= len(installs) <= 13
    assert [one.replaces for one in installs] == [0, *[one.serial for one in installs[:-1]]]
    assert all(not one.send for one in installs), "who answers receives first and sends when message 3 has come"
    assert len(pair.a.standing) == 1
    pair.settled()


@pytest.mark.behaviour("B-047")
def test_phase_1_is_made_anew_and_the_pairs_stay() -> None:
    pair = V1Pair(connection(proposals=[IkeProposal("p", dh_group=2, lifetime=300)]))
    pair.establish()
    first = pair.a.session
    (install,) = pair.a.installed_pairs.values()
    always(pair)
    pair.run(320)
    assert pair.a.session is not first
    assert first.closed
    assert len(pair.a.standing) == len(pair.b.standing) == 1
    assert list(pair.a.installed_pairs.values()) == [install]
    assert pair.a.owners[install.serial] is pair.a.session
    pair.run(5000)
    assert len([event for event in pair.b.events if event[0] == "up"]) >= 15
    pair.settled()


def test_the_older_sa_has_the_pairs_again_when_the_newer_one_goes() -> None:
    pair = V1Pair(connection())
    pair.establish()
    older = pair.a.session
    always(pair)
    pair.a.session.rekey(pair.now)
    pair.run(1.0)
    assert len(pair.a.standing) == 2
    newer = next(one for one in pair.a.standing if one is not older)
    newer.close("for the test", pair.now)
    pair.run(1.0)
    assert pair.a.standing == [older]
    assert older.state is isakmp_sa.Phase1State.ESTABLISHED
    pair.run(50)
    assert len(pair.a.standing) == len(pair.b.standing) == 1
    pair.settled()


@pytest.mark.parametrize("confirmation", ["message 3", "a packet"])
def test_a_quick_mode_that_ends_under_the_older_sa(confirmation: str) -> None:
    """The new phase 1 stands while a quick mode of the older one waits for message 3."""
    pair = V1Pair(connection())
    pair.establish()
    (old,) = pair.a.installed_pairs
    held = [0]

    def wire(sender: FakeHost, data: bytes) -> Iterable[tuple[float, bytes]]:
        if sender is pair.a and Header.parse(data).exchange == 32:
            held[0] += 1
            return [(0.01 if held[0] == 1 else 2.0, data)] if held[0] == 1 or confirmation == "message 3" else []
        return [(0.01, data)]

    pair.wire = wire
    always(pair)
    pair.a.session.negotiate(pair.a.connections[0].lines[0], old, pair.now)
    pair.run(0.1)
    pair.a.session.rekey(pair.now)
    pair.run(0.3)
    assert len(pair.b.standing) == 2
    new = max(pair.b.installed_pairs)
    assert pair.b.senders[10] != new
    if confirmation == "a packet":
        owner = pair.b.owners[new]
        owner.seen(new, pair.now)
        assert pair.b.senders[10] == new
    pair.run(90)
    assert list(pair.b.installed_pairs) == [new]
    pair.settled()


def test_either_end_makes_the_next_one() -> None:
    pair = V1Pair(connection(lines=[SHORT]))
    pair.establish()
    always(pair)
    line, session = pair.b.connections[0].lines[0], pair.b.session
    (old,) = pair.b.installed_pairs
    session.negotiate(line, old, pair.now)
    pair.run(1.0)
    assert len(pair.a.installed_pairs) == 2
    pair.b.session.rekey(pair.now)
    pair.run(20.0)
    assert len(pair.a.installed_pairs) == 1
    assert pair.b.installed_pairs[pair.b.senders[10]].initiator
    assert pair.b.session.initiator
    pair.settled()


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_both_ends_begin_at_once(seed: int, loss: float) -> None:
    """One of the two is given up at both ends; nothing is lost and nothing leaks."""
    pair = V1Pair(connection(), seed=seed)
    pair.establish()
    always(pair)
    dice = Random(seed)
    pair.wire = lambda sender, data: [] if dice.random() < loss else [(dice.uniform(0.01, 0.1), data)]
    for host in (pair.a, pair.b):
        (old,) = host.installed_pairs
        host.session.negotiate(host.connections[0].lines[0], old, pair.now)
    pair.run(100.0)
    pair.settled()
    assert len(pair.a.installed_pairs) == 1
    assert list(pair.a.installed_pairs) != [1]


@pytest.mark.parametrize("seed", range(8))
def test_both_ends_begin_phase_1_at_once(seed: int) -> None:
    pair = V1Pair(connection(), seed=seed)
    pair.a.begin()
    pair.b.begin()
    pair.run(5.0)
    assert pair.both_ways()
    always(pair)
    pair.run(200.0)
    assert len(pair.a.standing) == len(pair.b.standing) == 1
    pair.settled()
    assert len(pair.a.installed_pairs) == 1


def test_traffic_confirms_when_message_3_is_lost() -> None:
    pair = V1Pair(connection())
    quick = [0]

    def wire(sender: FakeHost, data: bytes) -> Iterable[tuple[float, bytes]]:
        if Header.parse(data).exchange == 32 and sender is pair.a:
            quick[0] += 1
            if quick[0] > 1:
                return []
        return [(0.01, data)]

    pair.wire = wire
    pair.establish(1.0)
    assert not pair.carries(pair.b)
    (serial,) = pair.b.installed_pairs
    pair.b.session.seen(serial, pair.now)
    assert pair.both_ways()
    pair.run(60.0)
    assert pair.both_ways()


def test_a_pair_that_nobody_confirms_goes() -> None:
    pair = V1Pair(connection())
    pair.wire = lambda sender, data: (
        [] if Header.parse(data).exchange == 32 and sender is pair.b else [(0.01, data)]
    )
    pair.establish(100.0)
    assert not pair.a.installed_pairs
    assert not pair.b.installed_pairs
    assert ("failed", "timeout", 10) in pair.a.events
    assert not pair.a.spis_out
    assert not pair.b.spis_out


def test_delete_of_a_pair_and_of_the_sa() -> None:
    line = Line(10, "i", (suite(ah="hmac-sha1-96"),), (), 64)
    pair = V1Pair(connection(lines=[line]))
    pair.establish()
    (serial,) = pair.a.installed_pairs
    spi = pair.a.installed_pairs[serial].inbound.esp_spi
    pair.a.session.drop(serial, "cleared", pair.now)
    pair.run(1.0)
    assert not pair.b.installed_pairs
    assert pair.b.values("ikev1-delete-received-esp") == {"protocol": "ESP", "spi": spi}
    assert "ikev1-delete-received-ah" in pair.b.ids
    assert ("removed", 1, "deleted by the peer") in pair.b.events
    assert pair.b.standing
    pair.settled()
    pair.b.session.negotiate(pair.b.connections[0].lines[0], 0, pair.now)
    pair.run(1.0)
    assert pair.both_ways()
    pair.b.session.close("cleared", pair.now)
    pair.run(1.0)
    assert not pair.a.sessions
    assert not pair.a.installed_pairs
    assert pair.a.events[-1] == ("down", "deleted by the peer")
    assert not pair.a.spis_out


@pytest.mark.parametrize("mode", ["main", "aggressive"])
@pytest.mark.parametrize("by", ["initiator", "responder"])
def test_delete_of_the_isakmp_sa_leaves_the_pairs(mode: str, by: str) -> None:
    """They are SAs of their own (RFC 2408 3.15, RFC 2409 5.5); the next ISAKMP SA has them."""
    pair = V1Pair(connection(mode=mode))
    pair.establish()
    deleting, other = (pair.a, pair.b) if by == "initiator" else (pair.b, pair.a)
    (install,) = other.installed_pairs.values()
    session = other.session
    deleting.session.send_informational((deleting.session.isakmp_sa_delete(),), pair.now)
    pair.run(0.1)
    assert ("down", "deleted by the peer") in other.events
    assert not other.standing
    assert other.installed_pairs == {install.serial: install}
    assert any("IPsec SAs stay" in said for said in other.said)
    pair.run(6)
    assert session.secrets() == [], "the keys are gone"
    sent = len(pair.sent)
    session.receive(pair.sent[-1][1], Header.parse(pair.sent[-1][1]), session.path, pair.now)
    pair.run(30)
    assert not [1 for who, _ in pair.sent[sent:] if who == other.name], "nothing is said under keys that are gone"
    deleting.session.close("enough", pair.now, tell=False, keep=True)
    pair.a.begin()
    pair.run(3)
    assert session.closed
    assert other.owners[install.serial] is other.session
    assert pair.both_ways()
    assert list(other.installed_pairs.values()) == [install]
    pair.settled()
    pair.a.session.negotiate(pair.a.connections[0].lines[0], install.serial, pair.now)
    pair.run(10)
    assert list(other.installed_pairs.values()) != [install]
    pair.settled()


@pytest.mark.parametrize("how", ["one message", "the other way round"])
def test_pairs_that_the_peer_deletes_too_go_whatever_comes_first(how: str) -> None:
    """The ISAKMP SA is deleted first in the message, or by a message that overtook the other one."""
    pair = V1Pair(connection())
    pair.establish()
    (install,) = pair.a.installed_pairs.values()
    session = pair.b.session
    both = (
        session.isakmp_sa_delete(),
        DeleteV1(Protocol.ESP, (install.outbound.esp_spi.to_bytes(4, "big"),)),
    )
    if how == "one message":
        session.send_informational(both, pair.now)
    else:
        delays = [0.03, 0.01]
        pair.wire = lambda sender, data: [(delays.pop(0) if delays else 0.01, data)]
        session.send_informational(both[1:], pair.now)
        session.send_informational(both[:1], pair.now)
    pair.run(0.1)
    assert not pair.a.installed_pairs
    assert not pair.a.sessions
    assert "ikev1-delete-received-esp" in pair.a.ids
    assert not pair.a.spis_out


def test_a_peer_that_forgot_what_was_ends_pairs_that_have_no_isakmp_sa() -> None:
    pair = V1Pair(connection())
    pair.establish()
    pair.a.session.send_informational((pair.a.session.isakmp_sa_delete(),), pair.now)
    pair.run(0.1)
    assert not pair.b.standing
    (old,) = pair.b.installed_pairs
    pair.a.sessions.clear()
    for forgotten in (pair.a.contacts, pair.a.installed_pairs, pair.a.owners, pair.a.senders, pair.a.spis_out):
        forgotten.clear()
    pair.establish()
    assert ("removed", old, "the peer began anew") in pair.b.events
    assert pair.both_ways()
    pair.settled()


def test_pairs_outlive_the_lifetime_of_the_isakmp_sa() -> None:
    line = Line(10, "i", (suite(seconds=900),), (), 64)
    proposal = IkeProposal("p", dh_group=2, lifetime=300)
    pair = V1Pair(connection(lines=[line], proposals=[proposal], kind="initiator-only"))
    pair.b.connections = [other_end(pair.a.connections[0], policy=connection(kind="responder-only").policy)]
    pair.establish()
    (install,) = pair.b.installed_pairs.values()
    pair.wire = lambda sender, data: []
    pair.run(350)
    assert not pair.b.standing
    assert list(pair.b.installed_pairs.values()) == [install]
    pair.run(600)
    assert not pair.b.installed_pairs
    assert not pair.b.sessions
    assert not pair.b.spis_out


@pytest.mark.behaviour("B-074", "B-077")
def test_dead_peers_are_noticed_only_where_it_is_asked_for() -> None:
    settings = IkeSettings(dpd_interval=10, dpd_tries=3)
    one = connection(keepalive=True)
    pair = V1Pair(one, other_end(one, keepalive=False), settings=settings)
    pair.establish()
    pair.run(200)
    assert pair.a.counts["DPD probes sent"] >= 15
    assert "probes" not in pair.b.counts
    assert pair.both_ways()
    pair.a.session.alive(pair.now)
    probes = pair.a.counts["DPD probes sent"]
    pair.run(9.9)
    assert pair.a.counts["DPD probes sent"] == probes
    pair.wire = lambda sender, data: []
    begun = pair.now
    while pair.a.standing:
        pair.run(0.5)
        assert pair.now < begun + 41
    assert pair.now > begun + 25
    assert not pair.a.installed_pairs
    assert pair.a.events[-1] == ("down", "10.0.0.2 does not answer")
    pair.run(1000)
    assert pair.b.standing, "without keepalive SAs stay"


def test_what_was_recorded_long_ago_is_no_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isakmp_sa, "MAX_MESSAGE_IDS", 8)
    pair = V1Pair(connection(keepalive=True), settings=IkeSettings(dpd_interval=10, dpd_tries=3))
    pair.establish()
    pair.run(400)
    recorded = [data for who, data in pair.sent if who == "b"][:-12]
    assert len(recorded) > 30, "questions and answers of the peer, and quick mode"
    assert pair.a.session.ids_evicted
    pair.wire = lambda sender, data: []
    begun = pair.now
    while pair.a.standing:
        for data in recorded:
            pair.a.arrive(pair.a.session.path, data)
        pair.run(0.5)
        assert pair.now < begun + 41


def test_an_answer_to_no_question_is_no_sign_of_life() -> None:
    detector = retransmit.DpdState(10, 3, 0xFFFFFFFE)
    detector.reset(0.0)
    assert not detector.matches_pending(0xFFFFFFFD)
    assert not detector.matches_pending(0xFFFFFFFE), "not asked yet"
    asked = [detector.next_probe(10.0), detector.next_probe(20.0), detector.next_probe(30.0)]
    assert asked == [0xFFFFFFFE, 0xFFFFFFFF, 0]
    assert all(detector.matches_pending(number) for number in asked if number is not None)
    assert not detector.matches_pending(1)
    assert not detector.matches_pending(0xFFFFFFFD)
    detector.reset(31.0)
    assert not detector.matches_pending(0)
    assert retransmit.is_newer_sequence(0, 0xFFFFFFFF)
    assert not retransmit.is_newer_sequence(5, 5)
    assert not retransmit.is_newer_sequence(4, 5)


def test_a_peer_that_begins_anew() -> None:
    pair = V1Pair(connection())
    pair.establish()
    old = list(pair.b.installed_pairs)
    # The peer's ASP was started again: it knows nothing of what it had, nor that it had contact.
    pair.a.sessions.clear()
    pair.a.installed_pairs.clear()
    pair.a.senders.clear()
    pair.a.owners.clear()
    pair.a.spis_out.clear()
    pair.a.contacts.clear()
    pair.run(1.0)
    pair.establish()
    assert ("contacted",) in pair.b.events
    assert len(pair.b.standing) == 1
    assert not set(old) & set(pair.b.installed_pairs)
    assert pair.both_ways()
    pair.settled()
    # The next phase 1 does not say it again.
    said = pair.b.events.count(("contacted",))
    pair.a.session.rekey(pair.now)
    pair.run(20)
    assert pair.b.events.count(("contacted",)) == said
    assert pair.both_ways()


def test_the_data_engine_says_that_a_pair_is_used_up() -> None:
    pair = V1Pair(connection())
    pair.establish()
    (old,) = pair.b.installed_pairs
    always(pair)
    pair.b.session.expiring(old, False, "kilobytes", pair.now)
    pair.run(20)
    (new,) = pair.b.installed_pairs
    assert new != old
    pair.watch = None
    pair.b.session.expiring(new, True, "kilobytes", pair.now)
    pair.run(20)
    assert pair.both_ways()
    assert new not in pair.b.installed_pairs
    pair.settled()


@pytest.mark.behaviour("B-193")
def test_configured_anew() -> None:
    pair = V1Pair(connection(lines=[SHORT]))
    pair.establish()
    for host in (pair.a, pair.b):
        changed = replace(
            host.connections[0], lines=(replace(SHORT, suites=(suite(cipher="3des-cbc", seconds=300),)),)
        )
        host.connections = [changed]
        host.session.configured(changed, pair.now)
    always(pair)
    assert next(iter(pair.a.installed_pairs.values())).inbound.esp_cipher == "aes-128-cbc"
    pair.run(300)
    assert pair.a.installed_pairs[pair.a.senders[10]].inbound.esp_cipher == "3des-cbc"


def test_replayed_messages_change_nothing() -> None:
    pair = V1Pair(connection())
    seen: list[tuple[str, bytes]] = []
    pair.establish()
    pair.a.session.rekey(pair.now)
    pair.run(10)
    seen = list(pair.sent)
    before = (dict(pair.a.installed_pairs), dict(pair.b.installed_pairs))
    sessions = (pair.a.standing, pair.b.standing)
    for who, data in seen:
        host = pair.b if who == "a" else pair.a
        path = host.session.path
        for _ in range(20):
            host.arrive(path, data)
    pair.run(100)
    assert (pair.a.installed_pairs, pair.b.installed_pairs) == before
    assert (pair.a.standing, pair.b.standing) == sessions
    pair.settled()


def test_every_state_can_close() -> None:
    event, closed = isakmp_sa.Phase1Event.CLOSE, isakmp_sa.Phase1State.CLOSED
    for state in set(isakmp_sa.Phase1State) - {closed}:
        assert isakmp_sa.PHASE_1.transition(state, event)[0] is closed
