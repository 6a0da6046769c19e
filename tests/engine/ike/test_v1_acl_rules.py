"""IKEv1 and access lists of several rules: a quick mode and a pair of SAs for each rule, compared rule by rule
(settled S-080), and what becomes of one concerns no other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from chassis.ase.ike.payloads.numbers import ExchangeType
from chassis.ase.ike_messages import Acquire, IkePacket, SaInstall
from chassis.model.acl import AclRule
from tests.support.ike.pair import TUNNEL, Ends, EnginePair, agree, other

FIRST = AclRule(10, source=(0x0A000000, 24), destination=(0x0B000000, 24))
SECOND = AclRule(20, source=(0x0A000300, 24), destination=(0x0B000000, 24))
WEB = AclRule(30, 6, source=(0x0A000400, 24), destination=(0x0B000000, 24), destination_port=80)
RULES = (FIRST, SECOND, WEB)
COVERING = AclRule(10, source=(0x0A000000, 22), destination=(0x0B000000, 24))


def ends_with(*lists: tuple[AclRule, ...], **changes: Any) -> Ends:
    """The end that begins."""
    return replace(Ends(version=1, connection="initiator-only", rules=lists), **changes)


def answering(ends: Ends, *lists: tuple[AclRule, ...]) -> Ends:
    """The far end, which only answers; with lists of its own, as the initiator's end would write them."""
    return replace(other(replace(ends, rules=lists or ends.rules)), connection="responder-only")


def standing(ends: Ends, far: Ends | None = None, pairs: int = 0, **settings: Any) -> EnginePair:
    two = EnginePair(ends, far or answering(ends), **settings)
    count = pairs or sum(len(rules) or 1 for rules in ends.rules)
    assert two.until(lambda: len(two.a.pairs) >= count and two.a.up() and two.b.up()), (
        two.a.texts(),
        two.b.texts(),
    )
    two.run(1)
    return two


def by_rule(two: EnginePair) -> dict[int, SaInstall]:
    """The newest pair of the end that begins, by the sequence number of its one rule."""
    for pair in two.a.pairs.values():
        assert len(pair.rules) == 1
    return {pair.rules[0].seq: pair for pair in two.a.pairs.values()}


def carries(two: EnginePair, *rules: int, entry: int = 10) -> bool:
    """Packets of each rule get through both ways just now."""
    through = [two.packet(end, entry, TUNNEL, rule) for end in (two.a, two.b) for rule in rules]
    return all(through)


@pytest.mark.behaviour("B-038")
def test_each_rule_has_a_pair_of_its_own_and_both_ends_may_order_them_as_they_like() -> None:
    ends = ends_with(RULES)
    # The far end has the same rules under other numbers.
    shuffled = tuple(replace(rule, seq=seq) for seq, rule in ((5, WEB), (6, FIRST), (7, SECOND)))
    two = standing(ends, answering(ends, shuffled))
    agree(two)
    assert sorted(by_rule(two)) == [10, 20, 30]
    assert {pair.rules for pair in two.a.pairs.values()} == {(rule,) for rule in RULES}
    for rule, far in ((10, 6), (20, 7), (30, 5)):
        assert two.packet(two.a, rule=rule)
        assert two.packet(two.b, rule=far)
    said = [record.text for record in two.b.logs if record.id.startswith("ikev1-p2-selectors-received")]
    assert any("port:80" in text.replace(" ", "") or "80" in text for text in said)
    assert not [row for row in two.a.rows() + two.b.rows() if row == "ikev1-p2-selectors-no-match"]


@pytest.mark.parametrize("ours", [(COVERING,), (replace(FIRST, seq=1), replace(SECOND, seq=2), COVERING)])
def test_two_networks_are_not_the_one_that_covers_them(ours: tuple[AclRule, ...]) -> None:
    ends = ends_with((FIRST, SECOND))
    two = EnginePair(ends, answering(ends, ours))
    two.run(3)
    assert len(two.b.pairs) == (2 if len(ours) == 3 else 0)
    agree(two)
    assert ("ikev1-p2-selectors-no-match" in two.b.rows()) == (len(ours) == 1)
    assert two.a.up() == (len(ours) == 3)


def test_ports_and_protocols_count() -> None:
    ends = ends_with((FIRST, WEB))
    two = standing(ends, answering(ends, (FIRST, replace(WEB, destination_port=81))), pairs=1)
    assert list(by_rule(two)) == [10]
    assert "ikev1-p2-selectors-no-match" in two.b.rows()
    assert carries(two, 10)


@pytest.mark.behaviour("B-038")
def test_a_rule_that_the_peer_does_not_have_is_refused_and_the_others_serve() -> None:
    ends = ends_with(RULES)
    two = standing(ends, answering(ends, (FIRST, SECOND)), pairs=2)
    assert carries(two, 10, 20)
    first = len([row for row in two.b.rows() if row == "ikev1-p2-selectors-no-match"])
    assert first == 1
    assert "ikev1-received-notify" in two.a.rows()
    (row,) = two.ask(two.a, "sas").result["tunnels"]
    assert row["up"]
    (missing,) = row["missing"]
    assert (missing["entry"], missing["rule"]) == (10, 30)
    assert "INVALID_ID_INFORMATION" in missing["reason"]
    # It is tried again, less and less often.
    two.run(600)
    tries = len([row for row in two.b.rows() if row == "ikev1-p2-selectors-no-match"])
    assert 8 <= tries <= 20
    assert carries(two, 10, 20)
    # The far end gets the rule, and the next try succeeds.
    two.configure(two.b, answering(ends).records())
    assert two.until(lambda: len(two.a.pairs) == 3, 90)
    assert carries(two, 10, 20, 30)


def test_the_peer_ends_one_and_the_others_stay() -> None:
    """And a rule that is refused does not put off the one that is to be made anew."""
    ends = ends_with(RULES)
    two = standing(ends, answering(ends, (FIRST, SECOND)), pairs=2)
    two.run(300)
    before = by_rule(two)
    (session,) = (one for one in two.b.ike.ike_sa_manager.table.by_spi.values() if one.established)
    serial = next(serial for (_, serial), pair in two.b.pairs.items() if pair.rules[0].seq == 20)
    states = len(two.a.rows())
    two.b.ike.ike_sa_manager.run(session, session.delete_child, serial, "the operator ends it", two.now)
    two._took(two.b, two.b.ike.ike_sa_manager.flush())
    assert two.until(lambda: 20 not in by_rule(two), 1)
    assert two.a.up(), "the tunnel stays up for the others"
    assert two.b.up()
    assert two.packet(two.a, rule=10)
    assert "ikev1-delete-received-esp" in two.a.rows()[states:]
    assert two.until(lambda: 20 in by_rule(two), 2)
    two.run(1)
    after = by_rule(two)
    assert after[10] == before[10]
    assert after[20].serial != before[20].serial
    assert carries(two, 10, 20)
    agree(two)


def test_a_packet_has_the_end_that_answers_make_the_rule_that_it_needs() -> None:
    ends = ends_with((FIRST, SECOND), connection="both")
    far = replace(other(ends), connection="both")
    two = standing(ends, far)
    (session,) = (one for one in two.a.ike.ike_sa_manager.table.by_spi.values() if one.established)
    begun = session.initiator
    starter, answerer = (two.a, two.b) if begun else (two.b, two.a)
    name = next(name for name, pair in starter.pairs.items() if pair.rules[0].seq == 20)
    lost = answerer.number(rule=20)
    (session,) = (one for one in starter.ike.ike_sa_manager.table.by_spi.values() if one.established)
    starter.ike.ike_sa_manager.run(session, session.delete_child, name[1], "the operator ends it", two.now)
    two._took(starter, starter.ike.ike_sa_manager.flush())
    assert two.until(lambda: len(answerer.pairs) == 1, 0.05)
    two.give(answerer, Acquire(TUNNEL, lost))
    assert two.until(lambda: len(answerer.pairs) == 2, 0.05), "before the other end would begin"
    two.run(2)
    assert {pair.rules[0].seq for pair in answerer.pairs.values()} == {10, 20}
    agree(two)


@pytest.mark.parametrize("mode", ["main", "aggressive"])
@pytest.mark.parametrize("seed", range(6))
def test_both_ends_begin_every_rule_at_once_over_a_bad_wire(seed: int, mode: str) -> None:
    rng = Random(seed)

    def trouble(sender: int, packet: IkePacket, now: float) -> Iterable[float]:
        copies = rng.choice((0, 1, 1, 1, 1, 1, 1, 2))
        return [rng.uniform(0.001, 0.4) for _ in range(copies)]

    ends = ends_with(RULES, connection="both", mode=mode)
    two = EnginePair(ends, other(ends), seed=seed, trouble=trouble)
    assert two.until(lambda: two.a.up() and two.b.up() and carries(two, 10, 20, 30), 60)
    # Both make all pairs anew at once.
    for end in (two.a, two.b):
        two.ask(end, "rekey", tunnel=TUNNEL)
    two.run(60)
    two.trouble = None
    two.run(200)
    assert sorted(by_rule(two)) == [10, 20, 30]
    assert len(two.a.pairs) == 3
    assert carries(two, 10, 20, 30)
    agree(two)


def test_networks_of_a_rule_that_waits_lead_into_the_tunnel_all_the_same() -> None:
    """Else its packets would take another way, in clear perhaps."""
    elsewhere = replace(SECOND, destination=(0x0C000000, 24))
    ends = ends_with((FIRST, elsewhere))
    two = standing(ends, answering(ends, (FIRST,)), pairs=1)
    assert two.a.states[TUNNEL].selectors == (0x0B000000, 24, 0x0C000000, 24)


def test_each_rule_is_succeeded_by_itself() -> None:
    ends = ends_with(RULES, (replace(FIRST, source=(0x0A100000, 24)),))
    two = standing(ends)
    before = dict(two.a.pairs)
    assert two.ask(two.a, "rekey", tunnel=TUNNEL).result == {"begun": 4}
    two.run(30)
    after = dict(two.a.pairs)
    assert len(after) == 4
    assert not before.keys() & after.keys()
    for (_, _), pair in after.items():
        elder = before[TUNNEL, pair.replaces]
        assert (elder.entry, elder.rules) == (pair.entry, pair.rules)
    assert carries(two, 10, 20, 30)
    assert carries(two, 10, entry=20)
    agree(two)


def test_a_lifetime_that_ends_is_that_of_one_rule() -> None:
    """Over hours of short lifetimes each rule always has a pair that sends."""
    ends = ends_with(RULES, lifetime=700)
    ends = replace(ends, suites=(replace(ends.suites[0], lifetime_seconds=300),))
    two = standing(ends)
    for _ in range(720):
        two.run(10)
        assert carries(two, 10, 20, 30)
    assert len(two.a.expiring) > 60
    agree(two)


@pytest.mark.parametrize("what", ["all", "ike", "ipsec"])
def test_what_is_cleared_comes_back_rule_by_rule(what: str) -> None:
    two = standing(ends_with(RULES))
    before = set(two.a.pairs)
    two.ask(two.a, "clear", tunnel=TUNNEL, what=what)
    two.run(30)
    assert sorted(by_rule(two)) == [10, 20, 30]
    assert carries(two, 10, 20, 30)
    if what != "ike":
        assert not before & set(two.a.pairs)
    agree(two)


@pytest.mark.parametrize("end", ["initiator", "responder"])
def test_an_end_that_was_killed_has_all_rules_again(end: str) -> None:
    ends = replace(ends_with(RULES), keepalive=True)
    far = answering(ends)
    two = standing(ends, far)
    if end == "initiator":
        two.restart(two.a, ends)
    else:
        two.restart(two.b, far)
    assert two.until(lambda: len(two.a.pairs) == 3 and len(two.b.pairs) == 3, 120)
    two.run(5)
    assert carries(two, 10, 20, 30)
    agree(two)


def test_a_dead_peer_takes_all_rules_with_it() -> None:
    ends = replace(ends_with(RULES), keepalive=True)
    two = standing(ends)
    two.mute(two.b)
    assert two.until(lambda: not two.a.pairs, 60)
    assert not two.a.up()


@pytest.mark.behaviour("B-194")
def test_a_list_that_changes_concerns_the_rules_that_changed() -> None:
    """S-064: a rule with another selection is made anew while the old pair goes on, a new one comes, one that is
    gone goes, and the rest is left alone."""
    ends = ends_with(RULES)
    two = standing(ends)
    before = by_rule(two)
    moved = replace(SECOND, source=(0x0A000500, 24))
    added = replace(FIRST, seq=40, source=(0x0A000600, 24))
    changed = replace(ends, rules=((FIRST, moved, added),))
    two.configure(two.b, answering(changed).records())
    two.configure(two.a, changed.records())
    assert 30 not in by_rule(two)
    assert any(one.serial == before[30].serial and one.reason == "the rule was removed" for one in two.a.deleted)
    two.run(30)
    after = by_rule(two)
    assert sorted(after) == [10, 20, 40]
    assert after[10] == before[10]
    assert (after[20].rules, after[20].replaces) == ((moved,), before[20].serial)
    assert after[40].rules == (added,)
    assert carries(two, 10, 20, 40)
    agree(two)


def test_a_list_that_changes_while_its_rules_are_negotiated_decides() -> None:
    """What was offered for the old list is given up, and what the old list alone had is asked for no more."""
    ends = ends_with(RULES)
    moved = replace(FIRST, source=(0x0A000700, 24))
    # The peer has what it was and what it is to be.
    two = EnginePair(ends, answering(ends, (*RULES, replace(moved, seq=50))))
    assert two.until(lambda: any(exchange(one) == ExchangeType.QUICK_MODE for one in two.a.sent))
    assert not two.a.pairs
    two.configure(two.a, replace(ends, rules=((moved, SECOND),)).records())
    assert two.until(lambda: len(two.a.pairs) == 2 and two.b.up(), 5)
    assert {pair.rules for pair in two.a.pairs.values()} == {(moved,), (SECOND,)}
    two.run(100)
    assert {pair.rules for pair in two.a.pairs.values()} == {(moved,), (SECOND,)}
    agree(two)
    assert all(two.packet(two.a, rule=rule) for rule in (10, 20))
    assert all(two.packet(two.b, rule=rule) for rule in (50, 20))


def test_what_selects_the_same_again_has_no_pair_of_its_own() -> None:
    again = replace(FIRST, seq=15, source=(FIRST.source[0] | 7, 24))
    two = standing(ends_with((FIRST, again, SECOND)), pairs=2)
    two.run(5)
    assert sorted(by_rule(two)) == [10, 20]
    agree(two)


def many(count: int) -> tuple[AclRule, ...]:
    return tuple(
        replace(FIRST, seq=number + 1, source=(0x0A000000 + (number << 8), 24)) for number in range(count)
    )


def test_a_line_has_pairs_for_its_first_64_rules() -> None:
    ends = ends_with(many(70))
    two = standing(ends, pairs=64)
    two.run(60)
    assert sorted(by_rule(two)) == list(range(1, 65))
    agree(two)
    # A packet for one beyond makes nobody negotiate.
    sent = len(two.a.sent)
    two.give(two.a, Acquire(TUNNEL, 65 << 16 | 10))
    assert not [one for one in two.a.sent[sent:] if exchange(one) == ExchangeType.QUICK_MODE]
    # All of them can be made anew at once.
    two.ask(two.a, "rekey", tunnel=TUNNEL)
    two.run(60)
    assert len(two.a.pairs) == 64
    agree(two)


def test_a_peer_with_many_rules_makes_us_keep_no_more_than_we_have() -> None:
    """It is authenticated, and may try what it likes."""
    lists = tuple(
        tuple(replace(rule, destination=(rule.destination[0] + (line << 8), 24)) for rule in many(64))
        for line in range(2)
    )
    ends = ends_with(*lists)
    two = EnginePair(ends, answering(ends, (lists[0][0], replace(lists[1][5], seq=9))))
    most = 0
    for _ in range(40):
        two.run(1)
        # One IKE SA all the time: who is refused often is not taken for dead.
        (session,) = two.b.ike.ike_sa_manager.table.by_spi.values()
        most = max(most, len(session.exchanges))  # type: ignore[attr-defined]
    offered = [row for row in two.b.rows() if row == "ikev1-p2-selectors-received-initiator"]
    assert len(offered) > 300
    assert len(two.b.pairs) == 2
    assert most <= 257
    assert two.b.ike.ike_sa_manager.spis_held == 2
    assert carries(two, 1)


def exchange(packet: IkePacket) -> int:
    return packet.data[18] if len(packet.data) > 18 else 0


def test_version_2_has_one_child_for_all_rules() -> None:
    two = standing(ends_with(RULES, version=2), pairs=1)
    (pair,) = two.a.pairs.values()
    assert pair.rules == RULES
    assert pair.entry == 10
