"""A tunnel of IKEv1: each rule of its access list has SAs of its own, and a packet goes by those of the first rule
that it matches, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from chassis.ase.ike_messages import Acquire, IkeTunnelState, SaDelete, SaInstall
from chassis.bus.messages import Reply, Request
from chassis.bus.records import PolicyRecord, Record
from chassis.model.acl import Acl, AclRule
from chassis.model.ike import IkePolicy, ProposalRef
from chassis.model.ipsec import TunnelEntry
from tests.support.asp import CIRCUIT, INNER, ip, packets_of, udp_packet
from tests.support.asp_negotiated import OUTER, Side, install, static
from tests.support.asp_queues import RATE, pace, seen

LINE = 10
NARROW = AclRule(20, destination=(ip("60.1.0.0"), 16))
WIDE = AclRule(10_000, destination=(ip("60.0.0.0"), 8))
PORT = AclRule(15, 17, destination=(ip("60.1.0.0"), 16), destination_port=53)


def policy(version: int = 1) -> PolicyRecord:
    return PolicyRecord(OUTER, IkePolicy("ike", version, proposals=(ProposalRef(10, "p"),)))


def side(*rules: AclRule, there: bool = False, version: int = 1) -> Side:
    if there:
        rules = tuple(mirrored(rule) for rule in rules)
    made: list[Record] = [
        policy(version),
        *static(there=there, entries=(TunnelEntry(LINE, policy="p", acl="list"), TunnelEntry(20, policy="p"))),
        PolicyRecord(INNER, Acl("list", rules=rules)),
    ]
    return Side(made)


def mirrored(rule: AclRule) -> AclRule:
    return AclRule(
        rule.seq, rule.protocol, source=rule.destination, source_port=rule.destination_port,
        destination=rule.source, destination_port=rule.source_port,
    )  # fmt: skip


def number(rule: AclRule) -> int:
    return rule.seq << 16 | LINE


def pair(serial: int, rule: AclRule, *, there: bool = False) -> SaInstall:
    rules = (mirrored(rule) if there else rule,)
    return install(CIRCUIT, serial, there=there, entry=number(rule), rules=rules)


def joined(*rules: AclRule) -> tuple[Side, Side]:
    """Two ends with a pair for each rule, whose serial is the rule's place."""
    left, right = side(*rules), side(*rules, there=True)
    for end, there in ((left, False), (right, True)):
        for serial, rule in enumerate(rules, 1):
            end.ike(pair(serial, rule, there=there))
        end.ike(IkeTunnelState(CIRCUIT, True, ""))
    return left, right


def carried(end: Side, *serials: int) -> list[int]:
    return [end.asp.sadb.outbound[CIRCUIT, serial].packets for serial in serials]


def through(left: Side, right: Side, packets: list[bytes]) -> list[bytes]:
    got: list[bytes] = []
    for _, batch in left.protect(CIRCUIT, packets):
        got += [packet for _, out in right.open(batch) for packet in packets_of(out)]
    return sorted(got, key=packets.index)


SOME = [
    udp_packet(destination="60.1.0.1", number=1),
    udp_packet(destination="60.2.0.1", number=2),
    udp_packet(destination="60.1.0.2", number=3),
]


def test_a_packet_goes_by_the_pair_of_the_first_rule_that_it_matches() -> None:
    left, right = joined(NARROW, WIDE)
    assert through(left, right, SOME) == SOME
    assert carried(left, 1, 2) == [2, 1]
    back = [udp_packet("60.1.0.1", "50.0.0.1"), udp_packet("60.2.0.1", "50.0.0.1")]
    assert through(right, left, back) == back
    assert carried(right, 1, 2) == [1, 1]


def test_a_rule_without_pair_is_dropped_and_named_and_the_others_go_on() -> None:
    """Neither the pair of a later rule nor that of a later line takes its packets."""
    left, right = joined(NARROW, WIDE)
    for end in (left, right):
        end.ike(SaDelete(CIRCUIT, 1, "deleted by the peer"))
    left.ike(install(CIRCUIT, 3, entry=20))
    assert through(left, right, SOME) == [SOME[1]]
    assert left.drops() == {"no outbound sa": 2}
    assert left.told(Acquire) == [Acquire(CIRCUIT, number(NARROW))]
    assert left.asp.tunnels.local[CIRCUIT].up
    left.ike(pair(4, NARROW))
    right.ike(pair(4, NARROW, there=True))
    assert through(left, right, SOME) == SOME
    assert carried(left, 4, 2) == [2, 2]


def test_a_pair_opens_what_its_own_rule_says_and_no_more() -> None:
    left, right = joined(NARROW, replace(NARROW, seq=30, destination=(ip("60.2.0.0"), 16)))
    # The peer is one that sends all it has by one SA.
    left.put(PolicyRecord(INNER, Acl("list", rules=(replace(NARROW, destination=(ip("60.1.0.0"), 8)),))))
    left.ike(install(CIRCUIT, 5, entry=number(NARROW)), SaDelete(CIRCUIT, 1, "replaced"))
    right.ike(SaDelete(CIRCUIT, 1, "replaced"), replace(pair(5, NARROW, there=True)))
    assert through(left, right, SOME) == [SOME[0], SOME[2]]
    assert right.drops() == {"selector mismatch": 1}


def test_a_rule_that_names_a_port_has_a_pair_too() -> None:
    left, right = joined(PORT, NARROW)
    question = udp_packet(destination="60.1.0.1", number=1)
    at = 20 + 2
    question = question[:at] + (53).to_bytes(2, "big") + question[at + 2 :]
    assert through(left, right, [question, SOME[0]]) == [question, SOME[0]]
    assert carried(left, 1, 2) == [1, 1]


def test_a_rule_with_another_selection_keeps_its_old_pair_until_the_new_one_is_there() -> None:
    left, right = joined(NARROW, WIDE)
    changed = replace(NARROW, destination=(ip("60.1.0.0"), 24))
    left.put(PolicyRecord(INNER, Acl("list", rules=(changed, WIDE))))
    right.put(PolicyRecord(INNER, Acl("list", rules=(mirrored(changed), mirrored(WIDE)))))
    assert through(left, right, SOME) == SOME
    assert carried(left, 1, 2) == [2, 1]
    # One that is gone has no say any more, here or there.
    left.put(PolicyRecord(INNER, Acl("list", rules=(WIDE,))))
    right.put(PolicyRecord(INNER, Acl("list", rules=(mirrored(WIDE),))))
    assert through(left, right, SOME) == SOME
    assert carried(left, 1, 2) == [2, 4]


def test_show_names_line_and_rule() -> None:
    left, _ = joined(NARROW, WIDE)
    left.protect(CIRCUIT, SOME)
    left.take(left.asp.receive(Request(1, "sas", {"tunnel": CIRCUIT}), left.now))
    (reply,) = left.heard(Reply)
    (row,) = cast(list[dict[str, Any]], reply.result["tunnels"])
    assert [(sa["entry"], sa["rule"], sa["packets"]) for sa in row["sas"] if sa["direction"] == "out"] == [
        (LINE, 20, 2),
        (LINE, 10_000, 1),
    ]


def test_queues_of_rules_that_are_gone_are_forgotten() -> None:
    end, _ = joined(NARROW, WIDE)
    pace(end, f"{RATE}pps")
    end.put(replace(end.tunnel(CIRCUIT), queues=4))
    end.protect(CIRCUIT, SOME)
    assert [(row["entry"], row["rule"]) for row in seen(end)["sas"]] == [(LINE, 20), (LINE, 10_000)]
    end.put(PolicyRecord(INNER, Acl("list", rules=(NARROW,))))
    pace(end, f"{RATE}pps")
    assert [(row["entry"], row["rule"]) for row in seen(end)["sas"]] == [(LINE, 20)]


def test_the_version_of_the_policy_decides() -> None:
    end = side(NARROW, WIDE, version=2)
    assert end.protect(CIRCUIT, SOME) == []
    assert end.told(Acquire) == [Acquire(CIRCUIT, LINE)]
    end.put(policy(1))
    end.pass_time(2)
    assert end.protect(CIRCUIT, SOME) == []
    assert end.told(Acquire) == [Acquire(CIRCUIT, number(NARROW)), Acquire(CIRCUIT, number(WIDE))]
