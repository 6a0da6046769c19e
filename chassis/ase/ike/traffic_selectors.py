"""Traffic selectors of both versions: rules of an access list as ID payloads or TS payloads, and back.

IKEv1 has one ID payload a side, and both ends must say the same: a quick mode is for one rule, and each rule of an
entry has one of its own (RFC 2407 4.6.2, settled S-080). IKEv2 narrows (RFC 7296 2.9; guide chapter 6: offer
everything, accept a part). Its selectors are two lists, and every combination is meant; an access list is a list
of pairs. So a pair of SAs gets this end's own rules, cut to the accepted selectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chassis.ase.ike.connections import PolicyEntry
from chassis.ase.ike.payloads.numbers import IdType
from chassis.ase.ike.payloads.v1 import IdV1
from chassis.ase.ike.payloads.v2_payloads import IPV4_RANGE, TrafficSelector
from chassis.model.acl import AclRule
from chassis.net.address import MASKS, format_address
from chassis.net.types import Prefix

_PREFIX_NAMES = {
    IdType.IPV4_ADDR: "IPADDR",
    IdType.IPV4_ADDR_SUBNET: "IPADDR_SUBNET",
    IdType.IPV4_ADDR_RANGE: "IPADDR_RANGE",
}


def _id_payload(prefix: Prefix, protocol: int | None, port: int | None) -> IdV1:
    address, length = prefix
    if length == 32:
        return IdV1.address(address, protocol or 0, port or 0)
    return IdV1.subnet(address & MASKS[length], MASKS[length], protocol or 0, port or 0)


def id_payloads_v1(entry: PolicyEntry) -> tuple[IdV1, IdV1]:
    """Return (our side, the peer's side) of the rule that a quick mode is for; no rule means everything."""
    rule = entry.rules[0] if entry.rules else AclRule(0)
    ours = _id_payload(rule.source, rule.protocol, rule.source_port)
    peers = _id_payload(rule.destination, rule.protocol, rule.destination_port)
    return ours, peers


def equivalent_ids(one: IdV1, other: IdV1) -> bool:
    """Whether two ID payloads select the same addresses, protocol and port, whatever their types."""
    return (
        one.bounds is not None
        and one.bounds == other.bounds
        and (one.protocol, one.port) == (other.protocol, other.port)
    )


def matching_entries(entries: Iterable[PolicyEntry], ours: IdV1, peers: IdV1) -> tuple[PolicyEntry, ...]:
    """Return the entries, in order, whose mirrored rule equals what the peer asks for."""
    found = []
    for entry in entries:
        own, other = id_payloads_v1(entry)
        if equivalent_ids(own, ours) and equivalent_ids(other, peers):
            found.append(entry)
    return tuple(found)


def log_values(payload: IdV1) -> dict[str, Any]:
    """Return the values for the guide's log lines about selectors."""
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
        "id_type": _PREFIX_NAMES.get(IdType(payload.id_type), f"ID_{payload.id_type}"),
        "address": address,
        "proto": payload.protocol,
        "port": payload.port,
    }


MAX_RULES = 64
"""Rules of one pair of SAs (count). Narrowing leaves out what is beyond."""

EVERYTHING = AclRule(seq=0)
_ADDRESSES = 1 << 32


def to_selectors(
    rules: Sequence[AclRule],
) -> tuple[tuple[TrafficSelector, ...], tuple[TrafficSelector, ...]]:
    """Return (our side, the peer's side) of the rules, each selector once; no rules mean everything."""
    ours: dict[TrafficSelector, None] = {}
    theirs: dict[TrafficSelector, None] = {}
    for rule in rules or (EVERYTHING,):
        ours[_selector(rule.protocol, rule.source, rule.source_port)] = None
        theirs[_selector(rule.protocol, rule.destination, rule.destination_port)] = None
    return tuple(ours)[:255], tuple(theirs)[:255]


def _selector(protocol: int | None, prefix: Prefix, port: int | None) -> TrafficSelector:
    size = 1 << (32 - prefix[1])
    first = prefix[0] & ~(size - 1)
    ports = (0, 65535) if port is None else (port, port)
    return TrafficSelector(first, first + size - 1, protocol or 0, *ports)


@dataclass(frozen=True, slots=True)
class _SelectorSide:
    """Prefixes and one port (None: any) that a rule and a selector share."""

    prefixes: tuple[Prefix, ...]
    port: int | None


def _intersect(own: TrafficSelector, other: TrafficSelector) -> tuple[int, _SelectorSide] | None:
    """Return (protocol, the part of `own` that `other` has too); None if no rule can express it."""
    if other.kind != IPV4_RANGE or (own.protocol and other.protocol and own.protocol != other.protocol):
        return None
    first, last = max(own.first, other.first), min(own.last, other.last)
    first_port, last_port = max(own.first_port, other.first_port), min(own.last_port, other.last_port)
    if first > last or first_port > last_port:
        return None
    if (first_port, last_port) == (0, 65535):
        port = None
    elif first_port == last_port:
        port = first_port
    else:
        return None  # A rule has no range of ports, and narrowing may leave it out.
    return own.protocol or other.protocol, _SelectorSide(tuple(prefixes(first, last)), port)


def _parts(own: TrafficSelector, others: Sequence[TrafficSelector]) -> dict[int, dict[_SelectorSide, None]]:
    """Return what `others` share with `own`, by protocol, each part once: repeated selectors cost nothing."""
    found: dict[int, dict[_SelectorSide, None]] = {}
    for other in others:
        agreed = _intersect(own, other)
        if agreed is not None:
            found.setdefault(agreed[0], {})[agreed[1]] = None
    return found


def prefixes(first: int, last: int) -> Iterable[Prefix]:
    """Yield (address, length) of the prefixes that make up the addresses `first` to `last`."""
    while first <= last:
        size = first & -first or _ADDRESSES
        while size > last - first + 1:
            size >>= 1
        yield first, 33 - size.bit_length()
        first += size


def narrow(
    rules: Sequence[AclRule], ours: Sequence[TrafficSelector], theirs: Sequence[TrafficSelector]
) -> tuple[AclRule, ...] | None:
    """Return our rules cut to the selectors of both sides: `()` is everything, None is nothing."""
    found: dict[AclRule, None] = {}
    for rule in rules or (EVERYTHING,):
        own_source = _selector(rule.protocol, rule.source, rule.source_port)
        own_destination = _selector(rule.protocol, rule.destination, rule.destination_port)
        destinations = _parts(own_destination, theirs)
        for protocol, sources in _parts(own_source, ours).items():
            for other, there in destinations.items():
                if not protocol or not other or protocol == other:
                    _combine(found, protocol or other, sources, there)
    if not found:
        return None
    kept = _without_covered(tuple(found))
    if kept == (EVERYTHING,):
        return ()
    return tuple(replace(rule, seq=10 * place) for place, rule in enumerate(kept, 1))


def _combine(
    found: dict[AclRule, None],
    protocol: int,
    sources: Iterable[_SelectorSide],
    destinations: Iterable[_SelectorSide],
) -> None:
    """Add the rules of every source with every destination, up to MAX_RULES."""
    for source in sources:
        for destination in destinations:
            for near in source.prefixes:
                for far in destination.prefixes:
                    if len(found) >= MAX_RULES:
                        return
                    found[AclRule(0, protocol or None, near, source.port, far, destination.port)] = None


def _without_covered(rules: tuple[AclRule, ...]) -> tuple[AclRule, ...]:
    """Return the rules that no other rule contains."""
    return tuple(rule for rule in rules if not any(other != rule and _contains(other, rule) for other in rules))


def _contains(outer: AclRule, inner: AclRule) -> bool:
    return (
        outer.protocol in (None, inner.protocol)
        and outer.source_port in (None, inner.source_port)
        and outer.destination_port in (None, inner.destination_port)
        and _within(outer.source, inner.source)
        and _within(outer.destination, inner.destination)
    )


def _within(outer: Prefix, inner: Prefix) -> bool:
    """Whether all addresses of `inner` are in `outer`."""
    return outer[1] <= inner[1] and not (outer[0] ^ inner[0]) >> (32 - outer[1])


def equivalent_rules(rules: Sequence[AclRule], others: Sequence[AclRule]) -> bool:
    """Whether two lists select the same packets, whatever their numbers."""
    return {replace(rule, seq=0) for rule in rules or (EVERYTHING,)} == {
        replace(rule, seq=0) for rule in others or (EVERYTHING,)
    }
