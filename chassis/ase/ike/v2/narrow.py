"""Traffic selectors of access lists, and their narrowing (RFC 7296 2.9; guide chapter 6: offer everything, accept
a part).

An access list is a list of pairs; selectors on the wire are two lists whose every combination is meant. What goes
into a pair of SAs is therefore each end's own rules as far as the accepted selectors let them: `AclRule`s again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from chassis.ase.ike.payloads.v2_payloads import IPV4_RANGE, TrafficSelector
from chassis.bus.records import AclRuleRecord

MAX_RULES = 64
"""Rules that one pair of SAs may get; more than that are not accepted, which narrowing allows."""

EVERYTHING = AclRuleRecord(seq=0)
_ADDRESSES = 1 << 32


def selectors(rules: Sequence[AclRuleRecord]) -> tuple[tuple[TrafficSelector, ...], tuple[TrafficSelector, ...]]:
    """(our side, the peer's side) of the rules, each selector once; no rules mean everything."""
    ours: dict[TrafficSelector, None] = {}
    theirs: dict[TrafficSelector, None] = {}
    for rule in rules or (EVERYTHING,):
        ours[_selector(rule.protocol, rule.source, rule.source_length, rule.source_port)] = None
        theirs[_selector(rule.protocol, rule.destination, rule.destination_length, rule.destination_port)] = None
    return tuple(ours)[:255], tuple(theirs)[:255]


def _selector(protocol: int, address: int, length: int, port: int) -> TrafficSelector:
    size = 1 << (32 - length)
    first = address & ~(size - 1)
    ports = (0, 65535) if port < 0 else (port, port)
    return TrafficSelector(first, first + size - 1, max(protocol, 0), *ports)


@dataclass(frozen=True, slots=True)
class _Side:
    """Prefixes and one port (-1: any) in which a rule and a selector agree."""

    prefixes: tuple[tuple[int, int], ...]
    port: int


def _agree(own: TrafficSelector, other: TrafficSelector) -> tuple[int, _Side] | None:
    """(protocol, the part of `own`, a prefix with one or all ports, that `other` has too)."""
    if other.kind != IPV4_RANGE or (own.protocol and other.protocol and own.protocol != other.protocol):
        return None
    first, last = max(own.first, other.first), min(own.last, other.last)
    first_port, last_port = max(own.first_port, other.first_port), min(own.last_port, other.last_port)
    if first > last or first_port > last_port:
        return None
    if (first_port, last_port) == (0, 65535):
        port = -1
    elif first_port == last_port:
        port = first_port
    else:
        return None  # a range of ports: no rule can say it, and narrowing may leave it out
    return own.protocol or other.protocol, _Side(tuple(prefixes(first, last)), port)


def _parts(own: TrafficSelector, others: Sequence[TrafficSelector]) -> dict[int, dict[_Side, None]]:
    """What agrees with `own`, each part once, by protocol: a peer that says much makes little work."""
    found: dict[int, dict[_Side, None]] = {}
    for other in others:
        agreed = _agree(own, other)
        if agreed is not None:
            found.setdefault(agreed[0], {})[agreed[1]] = None
    return found


def prefixes(first: int, last: int) -> Iterable[tuple[int, int]]:
    """(address, length) of the prefixes that make up the addresses `first` to `last`."""
    while first <= last:
        size = first & -first or _ADDRESSES
        while size > last - first + 1:
            size >>= 1
        yield first, 33 - size.bit_length()
        first += size


def narrow(
    rules: Sequence[AclRuleRecord], ours: Sequence[TrafficSelector], theirs: Sequence[TrafficSelector]
) -> tuple[AclRuleRecord, ...] | None:
    """Our rules as far as the selectors of both sides let them; empty for everything, None for nothing at all."""
    found: dict[AclRuleRecord, None] = {}
    for rule in rules or (EVERYTHING,):
        own_source = _selector(rule.protocol, rule.source, rule.source_length, rule.source_port)
        own_destination = _selector(
            rule.protocol, rule.destination, rule.destination_length, rule.destination_port
        )
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
    found: dict[AclRuleRecord, None], protocol: int, sources: Iterable[_Side], destinations: Iterable[_Side]
) -> None:
    """Add the rules of every source with every destination, until there are enough."""
    for source in sources:
        for destination in destinations:
            for address, length in source.prefixes:
                for remote, remote_length in destination.prefixes:
                    if len(found) >= MAX_RULES:
                        return
                    said = protocol or -1
                    rule = AclRuleRecord(
                        0, said, address, length, source.port, remote, remote_length, destination.port
                    )
                    found[rule] = None


def _without_covered(rules: tuple[AclRuleRecord, ...]) -> tuple[AclRuleRecord, ...]:
    """Rules that no other rule contains."""
    return tuple(rule for rule in rules if not any(other != rule and _contains(other, rule) for other in rules))


def _contains(outer: AclRuleRecord, inner: AclRuleRecord) -> bool:
    return (
        outer.protocol in (-1, inner.protocol)
        and outer.source_port in (-1, inner.source_port)
        and outer.destination_port in (-1, inner.destination_port)
        and outer.source_length <= inner.source_length
        and outer.destination_length <= inner.destination_length
        and not (outer.source ^ inner.source) >> (32 - outer.source_length)
        and not (outer.destination ^ inner.destination) >> (32 - outer.destination_length)
    )


def same(rules: Sequence[AclRuleRecord], others: Sequence[AclRuleRecord]) -> bool:
    """Whether two lists select the same pairs, whatever their numbers."""
    return {replace(rule, seq=0) for rule in rules or (EVERYTHING,)} == {
        replace(rule, seq=0) for rule in others or (EVERYTHING,)
    }
