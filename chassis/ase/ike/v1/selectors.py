"""What a quick mode is for: access list rules as ID payloads and back (RFC 2407 4.6.2, settled S-080).

IKEv1 has one ID payload a side, and both ends must say the same thing. A list of one rule is said exactly. Of a
longer list the ID payloads say the smallest range that holds all its rules, and the protocol and port where all
agree: two ends with mirrored lists say the same, and what goes in is still judged by each rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from chassis.ase.ike.connection import Line
from chassis.ase.ike.payloads.numbers import IdType
from chassis.ase.ike.payloads.v1_identity import Id
from chassis.bus.records import AclRule
from chassis.net.address import format_address

_ALL = 0xFFFFFFFF
_WORDS = {
    IdType.IPV4_ADDR: "IPADDR",
    IdType.IPV4_ADDR_SUBNET: "IPADDR_SUBNET",
    IdType.IPV4_ADDR_RANGE: "IPADDR_RANGE",
}


def _mask(length: int) -> int:
    return _ALL << (32 - length) & _ALL


def _one(values: Iterable[int]) -> int:
    """The value that all agree on, 0 (any) when they don't or it is open."""
    found = set(values)
    return max(found.pop(), 0) if len(found) == 1 else 0


def _side(networks: Sequence[tuple[int, int]], protocol: int, port: int) -> Id:
    bounds = [(address & _mask(length), address | ~_mask(length) & _ALL) for address, length in networks]
    first, last = min(low for low, _ in bounds), max(high for _, high in bounds)
    if first == last:
        return Id.address(first, protocol, port)
    size = last - first + 1
    if size & (size - 1) == 0 and first % size == 0:
        return Id.subnet(first, _ALL ^ (size - 1), protocol, port)
    return Id.range(first, last, protocol, port)


def identities(rules: Sequence[AclRule]) -> tuple[Id, Id]:
    """(our side, the peer's side) of an access list of ours; no rule means everything."""
    listed = rules or (AclRule(0),)
    protocol = _one(rule.protocol for rule in listed)
    ours = _side(
        [(rule.source, rule.source_length) for rule in listed], protocol, _one(rule.source_port for rule in listed)
    )
    peers = _side(
        [(rule.destination, rule.destination_length) for rule in listed],
        protocol,
        _one(rule.destination_port for rule in listed),
    )
    return ours, peers


def same(one: Id, other: Id) -> bool:
    """Whether two ID payloads select the same, whichever way they say it."""
    return (
        one.bounds is not None
        and one.bounds == other.bounds
        and (one.protocol, one.port) == (other.protocol, other.port)
    )


def matching(lines: Iterable[Line], ours: Id, peers: Id) -> tuple[Line, ...]:
    """Lines whose mirrored rules equal what the peer asks for, in order."""
    found = []
    for line in lines:
        own, other = identities(line.rules)
        if same(own, ours) and same(other, peers):
            found.append(line)
    return tuple(found)


def networks(rules: Sequence[AclRule]) -> tuple[tuple[int, int], ...]:
    """The peer's networks of an access list: (address, prefix length), each once."""
    if not rules:
        return ((0, 0),)
    return tuple(dict.fromkeys((rule.destination, rule.destination_length) for rule in rules))


def words(payload: Id) -> dict[str, Any]:
    """Values for the guide's lines about selectors."""
    bounds = payload.bounds
    if bounds is None:
        address = payload.data.hex()
    elif payload.id_type == IdType.IPV4_ADDR_SUBNET:
        size = bounds[1] - bounds[0] + 1
        address = f"{format_address(bounds[0])}/{33 - size.bit_length()}"
    elif bounds[0] == bounds[1]:
        address = format_address(bounds[0])
    else:
        address = f"{format_address(bounds[0])}-{format_address(bounds[1])}"
    return {
        "id_type": _WORDS.get(IdType(payload.id_type), f"ID_{payload.id_type}"),
        "address": address,
        "proto": payload.protocol,
        "port": payload.port,
    }
