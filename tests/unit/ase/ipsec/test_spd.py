"""Rules of access lists, policy lines in order, and the flow cache."""

from __future__ import annotations

import random

import pytest

from chassis.ase.ipsec import spd
from chassis.ase.ipsec.causes import IpsecDropCause
from chassis.ase.ipsec.sa import OutboundSa
from chassis.ase.ipsec.spd import NO_ENTRY, Classifier, Rule, Spd, SpdEntry
from tests.support.ipsec import (
    INSIDE,
    LEFT,
    OUTSIDE,
    RIGHT,
    batch,
    database,
    esp,
    inner,
    packets_of,
    random_octets,
)

NET_1 = (0x01010100, 24)
NET_2 = (0x02020200, 24)


def matches(rule: Rule, packet: bytes) -> bool:
    return Classifier([(rule, 1)], 0).value(memoryview(packet), 0, len(packet)) == 1


IN_1, IN_2 = 0x01010105, 0x02020209


@pytest.mark.behaviour("B-126")
def test_the_rules_of_the_guides_example() -> None:
    """Example 8: tcp from a network and port; network to network; anything."""
    seq_10 = Rule(protocol=6, source=NET_1, source_port=20000)
    seq_20 = Rule(source=NET_1, destination=NET_2)
    seq_30 = Rule()
    tcp = inner(60, source=IN_1, destination=99, protocol=6, ports=(20000, 80))
    assert matches(seq_10, tcp)
    assert not matches(seq_10, inner(60, source=IN_1, protocol=6, ports=(20001, 80)))
    assert not matches(seq_10, inner(60, source=IN_1, protocol=17, ports=(20000, 80)))
    assert not matches(seq_10, inner(60, source=IN_2, protocol=6, ports=(20000, 80)))
    assert matches(seq_20, inner(60, source=IN_1, destination=IN_2, protocol=1))
    assert not matches(seq_20, tcp)
    assert matches(seq_30, tcp)


@pytest.mark.behaviour("B-126")
def test_a_destination_port() -> None:
    rule = Rule(protocol=17, destination=NET_2, destination_port=53)
    assert matches(rule, inner(60, destination=IN_2, ports=(9, 53)))
    assert not matches(rule, inner(60, destination=IN_2, ports=(53, 9)))


def test_bits_beyond_the_prefix_do_not_count() -> None:
    assert matches(Rule(source=(IN_1, 24)), inner(60, source=0x010101FE))
    assert not matches(Rule(source=(IN_1, 32)), inner(60, source=0x010101FE))
    assert matches(Rule(source=(IN_1, 0)), inner(60, source=7))


def test_packets_without_ports_never_match_a_port() -> None:
    rule = Rule(protocol=17, source_port=1000)
    assert matches(rule, inner(60))
    assert not matches(rule, inner(60, flags=0x2000 | 5)), "not the first fragment"
    assert matches(rule, inner(60, flags=0x2000)), "the first fragment"
    assert not matches(rule, inner(20)), "no payload"
    assert not matches(rule, inner(23))


def test_ports_behind_options() -> None:
    rule = Rule(protocol=17, source_port=1000)
    packet = inner(60)
    longer = b"\x46" + packet[1:20] + bytes([1, 1, 1, 0]) + packet[20:]
    assert matches(rule, longer)
    assert not matches(Rule(protocol=17, source_port=1001), longer)


def test_ports_need_tcp_or_udp() -> None:
    for protocol in (None, 1, 50):
        with pytest.raises(ValueError, match="tcp or udp"):
            Rule(protocol=protocol, source_port=5)
    with pytest.raises(ValueError, match="prefix"):
        Rule(source=(0, 33))


def test_mirroring_twice_is_nothing() -> None:
    rule = Rule(6, NET_1, 5, NET_2, 7)
    assert rule.mirrored() == Rule(6, NET_2, 7, NET_1, 5)
    assert rule.mirrored().mirrored() == rule


@pytest.mark.behaviour("B-144")
def test_the_first_line_that_matches_protects() -> None:
    policies = Spd()
    policies.set_entries(1, [SpdEntry(30), SpdEntry(10, (Rule(6),)), SpdEntry(20, (Rule(17), Rule(1)))])
    lines = policies.classifier(1)
    assert lines is not None
    for protocol, entry in ((6, 10), (17, 20), (1, 20), (47, 30)):
        packet = memoryview(inner(60, protocol=protocol))
        assert [lines.value(packet, 0, 60) for _ in range(2)] == [entry, entry]


def test_a_changed_policy_is_in_force_at_once() -> None:
    policies = Spd()
    packet = memoryview(inner(60))
    policies.set_entries(1, [SpdEntry(10, (Rule(17),))])
    lines = policies.classifier(1)
    assert lines is not None
    assert lines.value(packet, 0, 60) == 10
    policies.set_entries(1, [SpdEntry(10, (Rule(6),))])
    lines = policies.classifier(1)
    assert lines is not None
    assert lines.value(packet, 0, 60) == NO_ENTRY
    policies.remove(1)
    assert policies.classifier(1) is None


def test_the_cache_agrees_with_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random packets against random rules, with a cache that overflows all the time."""
    monkeypatch.setattr(spd, "MAX_FLOWS_PER_CLASSIFIER", 5)
    chance = random.Random(9)

    def prefix() -> tuple[int, int]:
        return chance.choice([IN_1, IN_2, INSIDE]), chance.choice([0, 8, 24, 32])

    def port() -> int | None:
        return chance.choice([None, 1000, 2000])

    for _ in range(30):
        rules = []
        for number in range(4):
            protocol = chance.choice([None, 1, 6, 17])
            ported = protocol in (6, 17)
            rules.append(
                (Rule(protocol, prefix(), port() if ported else None, prefix(), port() if ported else None),
                    number),
            )  # fmt: skip
        classifier = Classifier(rules, NO_ENTRY)
        for _ in range(40):
            fields = (
                chance.choice([1, 6, 17]),
                chance.choice([IN_1, IN_2, INSIDE]),
                chance.choice([IN_1, IN_2, OUTSIDE]),
                (chance.choice([1000, 2000]), chance.choice([1000, 2000])),
            )
            packet = inner(60, protocol=fields[0], source=fields[1], destination=fields[2], ports=fields[3])
            expected = next((number for rule, number in rules if rule.matches(*fields)), NO_ENTRY)
            assert classifier.value(memoryview(packet), 0, 60) == expected


def test_several_sas_of_a_tunnel_share_a_batch() -> None:
    left = database()
    left.install_outbound(OutboundSa(1, 1, LEFT, RIGHT, entry=10, esp=esp(spi=0x1001)))
    left.install_outbound(OutboundSa(1, 2, LEFT, RIGHT, entry=20, esp=esp(spi=0x1002)))
    left.spd.set_entries(1, [SpdEntry(10, (Rule(17),)), SpdEntry(20, (Rule(6),)), SpdEntry(30, (Rule(1),))])
    kinds = [17, 6, 6, 47, 17, 1, 17]
    result = left.encapsulate_tunnel(1, *batch([inner(40, protocol=kind) for kind in kinds]), random_octets())
    assert list(result.origins) == [0, 4, 6, 1, 2]
    wire = packets_of(result.body, result.lengths)
    assert [packet[20:28].hex() for packet in wire] == [
        "0000100100000001", "0000100100000002", "0000100100000003", "0000100200000001", "0000100200000002",
    ]  # fmt: skip
    assert result.drops.counts == {IpsecDropCause.NO_POLICY: 1, IpsecDropCause.NO_OUTBOUND_SA: 1}
