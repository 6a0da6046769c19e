"""What a quick mode is for: a rule of an access list as ID payloads and back (RFC 2407 4.6.2, settled S-080).

IKEv1 has one ID payload a side, and both ends must say the same thing: a quick mode is for one rule, and each rule
of a line has one of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chassis.ase.ike.connection import Line
from chassis.ase.ike.payloads.numbers import IdType
from chassis.ase.ike.payloads.v1 import IdV1
from chassis.bus.records import AclRuleRecord
from chassis.net.address import format_address

_ALL = 0xFFFFFFFF
_WORDS = {
    IdType.IPV4_ADDR: "IPADDR",
    IdType.IPV4_ADDR_SUBNET: "IPADDR_SUBNET",
    IdType.IPV4_ADDR_RANGE: "IPADDR_RANGE",
}


def _mask(length: int) -> int:
    return _ALL << (32 - length) & _ALL


def _side(address: int, length: int, protocol: int, port: int) -> IdV1:
    protocol, port = max(protocol, 0), max(port, 0)
    if length == 32:
        return IdV1.address(address, protocol, port)
    return IdV1.subnet(address & _mask(length), _mask(length), protocol, port)


def identities(line: Line) -> tuple[IdV1, IdV1]:
    """(our side, the peer's side) of the rule of ours that a quick mode is for; no rule means everything."""
    rule = line.rules[0] if line.rules else AclRuleRecord(0)
    ours = _side(rule.source, rule.source_length, rule.protocol, rule.source_port)
    peers = _side(rule.destination, rule.destination_length, rule.protocol, rule.destination_port)
    return ours, peers


def same(one: IdV1, other: IdV1) -> bool:
    """Whether two ID payloads select the same, whichever way they say it."""
    return (
        one.bounds is not None
        and one.bounds == other.bounds
        and (one.protocol, one.port) == (other.protocol, other.port)
    )


def matching(lines: Iterable[Line], ours: IdV1, peers: IdV1) -> tuple[Line, ...]:
    """Lines whose mirrored rule equals what the peer asks for, in order."""
    found = []
    for line in lines:
        own, other = identities(line)
        if same(own, ours) and same(other, peers):
            found.append(line)
    return tuple(found)


def words(payload: IdV1) -> dict[str, Any]:
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
