"""Every form of a rule of an IPsec access list, as an operator writes it, and what it matches."""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import product

import pytest

from chassis.bus.records import PolicyRecord
from chassis.config.parser import parse
from chassis.model.source import as_carried
from chassis.net.ipv4 import PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP, Ipv4
from tests.support.asp import CIRCUIT, INNER, Controller, altered, ip, packets_of, pair
from tests.support.asp_negotiated import install, sides

PROTOCOLS = {"": None, "tcp": PROTOCOL_TCP, "udp": PROTOCOL_UDP, "icmp": PROTOCOL_ICMP, "47": 47}
NETWORKS = ("any", "50.1.0.0/16", "50.1.2.3/32")
FAR_NETWORKS = ("", "any", "60.1.0.0/16", "60.1.2.3/32")


def forms() -> list[str]:
    """Rules without their number; a port stands behind its network and needs a protocol that has ports."""
    found = [name for name in PROTOCOLS if name]
    for protocol, source, destination in product(PROTOCOLS, NETWORKS, FAR_NETWORKS):
        with_ports = protocol in ("tcp", "udp")
        for source_port, port in product(("", "eq 1000"), ("", "eq 2000")):
            if (with_ports or not (source_port or port)) and (destination or not port):
                found.append(" ".join(filter(None, (protocol, source, source_port, destination, port))))
    return found


def matches(form: str, packet: Ipv4) -> bool:
    """What a rule means, read off its words one after the other (guide 8.4.1)."""
    words = form.split()
    if words[0] in PROTOCOLS and PROTOCOLS[words.pop(0)] != packet.protocol:
        return False
    ports = struct.unpack_from("!HH", packet.payload)
    for address, port in zip((packet.source, packet.destination), ports, strict=True):
        if not words:
            break
        network = words.pop(0)
        if network != "any":
            text, length = network.split("/")
            if address >> (32 - int(length)) != ip(text) >> (32 - int(length)):
                return False
        if words and words[0] == "eq":
            if int(words[1]) != port:
                return False
            del words[:2]
    return True


def packets() -> list[Ipv4]:
    """One for each way to match a part of a rule or not."""
    return [
        Ipv4(ip(source), ip(destination), protocol, struct.pack("!HHI", *ports, number) + bytes(20), ttl=63)
        for number, (source, destination, protocol, ports) in enumerate(
            product(
                ("50.1.2.3", "50.1.9.9", "50.9.2.3"),
                ("60.1.2.3", "60.1.9.9", "60.9.2.3"),
                (PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_ICMP, 47),
                ((1000, 2000), (1000, 9), (9, 2000), (2000, 1000)),
            )
        )
    ]


PACKETS = packets()


def written(*rules: str) -> PolicyRecord:
    lines = "".join(f"    seq {10 * number} {rule}\n" for number, rule in enumerate(rules, 1))
    parsed = parse(f"context c\n  ipsec access-list filter\n{lines}")
    assert [diagnostic for diagnostic in parsed.diagnostics if diagnostic.severity == "error"] == []
    return PolicyRecord(INNER, as_carried(parsed.config.contexts["c"].acls["filter"]))


def use(end: Controller, acl: PolicyRecord) -> None:
    record = end.tunnel(CIRCUIT)
    end.put(acl, altered(record, entries=(replace(record.config.entries[0], acl="filter"),)))


def through(left: Controller, right: Controller) -> list[Ipv4]:
    """Which of the packets come out at the other end, in their order."""
    sent = left.protect(CIRCUIT, [packet.emit() for packet in PACKETS])
    return [Ipv4.parse(packet) for _, out in sent for _, got in right.open(out) for packet in packets_of(got)]


@pytest.mark.behaviour("B-126")
@pytest.mark.parametrize("form", forms())
def test_with_manual_keys(form: str) -> None:
    expected = [packet for packet in PACKETS if matches(form, packet)]
    a, b = pair()
    use(a, written(form))
    assert through(a, b) == expected
    assert a.drops().get("no policy", 0) == len(PACKETS) - len(expected)
    # The same list at the end that sends back: what comes in must match it the other way round.
    a, b = pair()
    use(a, written(form))
    back = [replace(packet, source=packet.destination, destination=packet.source) for packet in PACKETS]
    back = [
        replace(packet, payload=packet.payload[2:4] + packet.payload[:2] + packet.payload[4:]) for packet in back
    ]
    [(_, out)] = b.protect(CIRCUIT, [packet.emit() for packet in back])
    got = [Ipv4.parse(packet) for _, batch in a.open(out) for packet in packets_of(batch)]
    assert got == [mirror for packet, mirror in zip(PACKETS, back, strict=True) if matches(form, packet)]
    assert a.drops().get("selector mismatch", 0) == len(PACKETS) - len(expected)


@pytest.mark.behaviour("B-129")
def test_a_line_without_a_list_takes_everything() -> None:
    assert through(*pair()) == PACKETS
    left, right = sides()
    left.ike(install(CIRCUIT, 1))
    right.ike(install(CIRCUIT, 1, there=True))
    assert through(left, right) == PACKETS


@pytest.mark.behaviour("B-126", "B-128")
@pytest.mark.parametrize("form", forms())
def test_negotiated(form: str) -> None:
    left, right = sides()
    acl = written("icmp 50.9.2.3/32 60.9.2.3/32", form)
    use(left, acl)
    left.ike(install(CIRCUIT, 1, rules=acl.value.rules))
    right.ike(install(CIRCUIT, 1, there=True))
    both = ("icmp 50.9.2.3/32 60.9.2.3/32", form)
    expected = [packet for packet in PACKETS if any(matches(each, packet) for each in both)]
    assert through(left, right) == expected
    assert left.drops().get("no policy", 0) == len(PACKETS) - len(expected)


@pytest.mark.behaviour("B-144")
def test_eight_lines_are_tried_in_their_order() -> None:
    """A line's number decides, not where it stands, and a packet goes by the first line that has a rule for it."""
    left, right = sides()
    hosts = [f"50.1.0.{number}" for number in range(1, 9)]
    record = left.tunnel(CIRCUIT)
    entries = []
    for number in range(1, 9):
        # Every line has its own host and, wider, those of all lines before it.
        rules = [f"{each}/32" for each in hosts[:number]] + ["any 61.0.0.0/8"] * (number == 8)
        left.put(PolicyRecord(INNER, replace(written(*rules).value, name=f"acl{number}")))
        entries.append(replace(record.config.entries[0], seq=10 * number, acl=f"acl{number}"))
    left.put(altered(record, entries=tuple(reversed(entries))))
    for number in range(1, 9):
        left.ike(install(CIRCUIT, number, entry=10 * number))
        right.ike(install(CIRCUIT, number, entry=10 * number, there=True))
    clear = [Ipv4(ip(host), ip("60.0.0.1"), PROTOCOL_UDP, bytes(20)).emit() for host in hosts]
    clear += [Ipv4(ip("50.1.0.3"), ip("61.0.0.1"), PROTOCOL_UDP, bytes(20)).emit()]
    clear += [Ipv4(ip("50.1.0.99"), ip("61.0.0.1"), PROTOCOL_UDP, bytes(20)).emit()]
    assert (
        len(left.protect(CIRCUIT, [*clear, Ipv4(ip("50.1.0.99"), ip("60.0.0.1"), PROTOCOL_UDP, bytes(20)).emit()]))
        == 1
    )
    carried = [left.asp.sadb.outbound[CIRCUIT, number].packets for number in range(1, 9)]
    assert carried == [1, 1, 2, 1, 1, 1, 1, 2]
    assert left.drops() == {"no policy": 1}
