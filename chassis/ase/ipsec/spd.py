"""Security policy database: selectors and the entries of each tunnel (RFC 4301 4.4.1, guide 8.4, 9.2.1, 9.4.1).

In: the rules of IPsec access lists, one list for each policy entry of a tunnel. Out: the number of the entry that
a packet matches, or `NO_ENTRY`. A rule names protocol, addresses and ports; what it leaves out matches anything. A
fragment other than the first has no ports, so it does not match a rule that names one (RFC 4301 section 7.2). A
tunnel has up to eight entries in the order of their sequence numbers. The first entry with a matching rule selects
the SA. A packet that no entry matches is dropped, never sent in clear.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from chassis.ase.entry_numbers import entry_and_rule
from chassis.ase.ipsec.algorithms import Octets
from chassis.net.address import ANY
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, PROTOCOL_TCP, PROTOCOL_UDP
from chassis.net.types import Prefix

_FLOW_WITH_PORTS: Final = struct.Struct("!BxxQI").unpack_from
_FLOW: Final = struct.Struct("!BxxQ").unpack_from
_ADDRESSES: Final = struct.Struct("!BxxII").unpack_from
_PORTS: Final = struct.Struct("!HH").unpack_from

_WITH_PORTS: Final = frozenset((PROTOCOL_TCP, PROTOCOL_UDP))

MAX_FLOWS_PER_CLASSIFIER: Final = 4096
"""Flows in one cache. A full cache is emptied, so a scan of addresses cannot make it grow."""

MAX_FLOWS: Final = 1 << 17
"""Flows in all caches of an ASP: thousands of tunnels have several caches each."""

Cache = dict[tuple[int, ...], int]
"""Header fields of a flow, and the value of the flow."""


def _mask(prefix: Prefix) -> int:
    return (0xFFFFFFFF << (32 - prefix[1])) & 0xFFFFFFFF


def ports_of(view: Octets, start: int, end: int) -> tuple[int, int] | None:
    """Return (source, destination) port of the IPv4 packet at start:end, 20 octets or more; None if it has no
    ports."""
    at = start + (view[start] & 15) * 4
    if view[start + 9] not in _WITH_PORTS or view[start + 6] & 0x1F or view[start + 7] or end - at < 4:
        return None
    first, second = _PORTS(view, at)
    return first, second


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; None matches anything. Ports need protocol TCP or UDP. Address bits beyond the prefix are ignored.

    Raises:
        ValueError: a prefix or a port is not valid.
    """

    protocol: int | None = None
    source: Prefix = ANY
    source_port: int | None = None
    destination: Prefix = ANY
    destination_port: int | None = None

    def __post_init__(self) -> None:
        for address, length in (self.source, self.destination):
            if not 0 <= length <= 32 or not 0 <= address < 1 << 32:
                raise ValueError(f"{address:#x}/{length} is not an IPv4 prefix")
        if self.names_port and self.protocol not in _WITH_PORTS:
            raise ValueError("a rule with a port needs protocol tcp or udp")

    @property
    def names_port(self) -> bool:
        """Whether the rule has a port."""
        return self.source_port is not None or self.destination_port is not None

    @property
    def matches_all(self) -> bool:
        """Whether the rule matches any packet."""
        return self.protocol is None and not self.source[1] and not self.destination[1]

    def mirrored(self) -> Rule:
        """Return the rule for packets of the other direction."""
        return Rule(self.protocol, self.destination, self.destination_port, self.source, self.source_port)

    def matches(self, protocol: int, source: int, destination: int, ports: tuple[int, int] | None) -> bool:
        """Whether a packet matches. `ports` is None if the packet has none."""
        if self.protocol is not None and protocol != self.protocol:
            return False
        if (source ^ self.source[0]) & _mask(self.source):
            return False
        if (destination ^ self.destination[0]) & _mask(self.destination):
            return False
        if not self.names_port:
            return True
        if ports is None:
            return False
        return (self.source_port is None or ports[0] == self.source_port) and (
            self.destination_port is None or ports[1] == self.destination_port
        )


class FlowCaches:
    """Bounds for the flow caches of all classifiers of an ASP: for each cache and for all together.

    A cache that must make room is emptied as a whole. Its active flows are then looked up in the rules again.
    """

    __slots__ = ("_caches", "_flows", "_on_evict")

    def __init__(self, on_evict: Callable[[int], None] | None = None) -> None:
        """`on_evict(n)` is called with the number of flows that were removed to make room."""
        self._caches: dict[int, Cache] = {}
        """Those that are not empty, whether their classifiers are still in use or not."""
        self._flows = 0
        self._on_evict = on_evict

    def remember(self, cache: Cache, key: tuple[int, ...], value: int) -> None:
        """Add a flow that was not in the cache."""
        if len(cache) >= MAX_FLOWS_PER_CLASSIFIER:
            self._count_evicted(len(cache))
            cache.clear()
        elif self._flows >= MAX_FLOWS:
            for other in self._caches.values():
                other.clear()
            self._caches.clear()
            self._count_evicted(self._flows)
        if not cache:
            self._caches[id(cache)] = cache
        self._flows += 1
        cache[key] = value

    def _count_evicted(self, flows: int) -> None:
        self._flows -= flows
        if self._on_evict is not None:
            self._on_evict(flows)


class Classifier:
    """Ordered rules with a value each. The value of a packet is that of the first rule that matches.

    The value of a flow is looked up once and then cached by the header fields that the rules can see. `default` is
    the value of a packet that no rule matches.
    """

    __slots__ = ("_cache", "_caches", "_ports_matter", "_rules", "constant", "default")

    def __init__(self, rules: Sequence[tuple[Rule, int]], default: int, caches: FlowCaches | None = None) -> None:
        """`caches` is shared by all classifiers of the ASP; None makes one of its own."""
        self._caches = FlowCaches() if caches is None else caches
        self._rules = tuple(rules)
        self._ports_matter = any(rule.names_port for rule, _ in rules)
        self._cache: Cache = {}
        self.default = default
        self.constant: int | None = rules[0][1] if rules and rules[0][0].matches_all else None
        """The value of every packet, where the first rule matches all; None otherwise."""

    def value(self, view: Octets, start: int, end: int) -> int:
        """Return the value of the IPv4 packet at start:end, 20 octets or more."""
        if self.constant is not None:
            return self.constant
        key: tuple[int, ...]
        if not self._ports_matter or view[start + 9] not in _WITH_PORTS:
            key = _FLOW(view, start + 9)
        elif (
            view[start] != 0x45
            or view[start + 6] & 0x1F
            or view[start + 7]
            or end - start < IPV4_HEADER_LENGTH + 4
        ):
            return self._search(view, start, ports_of(view, start, end))
        else:
            key = _FLOW_WITH_PORTS(view, start + 9)
        cache = self._cache
        found = cache.get(key)
        if found is None:
            found = self._remember(key, self._search(view, start, ports_of(view, start, end)))
        return found

    def value_of_fragments(self, view: Octets, start: int) -> int:
        """Return the value of the later fragments of the IPv4 packet at `start`: they have no ports."""
        if self.constant is not None:
            return self.constant
        # The key has the length of a key without ports, so it differs from the keys of flows with ports.
        key = _FLOW(view, start + 9)
        found = self._cache.get(key)
        return self._remember(key, self._search(view, start, None)) if found is None else found

    def _remember(self, key: tuple[int, ...], value: int) -> int:
        self._caches.remember(self._cache, key, value)
        return value

    def _search(self, view: Octets, start: int, ports: tuple[int, int] | None) -> int:
        protocol, source, destination = _ADDRESSES(view, start + 9)
        for rule, value in self._rules:
            if rule.matches(protocol, source, destination, ports):
                return value
        return self.default


NO_ENTRY: Final = -1
"""Value of a tunnel's classifier for a packet that no SPD entry matches."""


@dataclass(frozen=True, slots=True)
class SpdEntry:
    """One policy entry of a tunnel, or one rule with SAs of its own: its number (`chassis.ase.entry_numbers`) and
    rules.

    `()` means that the entry has no access list and matches everything. A manual tunnel passes only the first rule
    of its list, a negotiated tunnel all rules (guide 8.4).
    """

    number: int
    rules: tuple[Rule, ...] = ()


class Spd:
    """The SPD entries of every tunnel of an ASP (RFC 4301 4.4.1).

    Changed entries make a new classifier with an empty cache. So no decision survives the entries that it was made
    with, and the cached flows of other tunnels stay.
    """

    __slots__ = ("_caches", "_classifiers", "_rules", "version")

    def __init__(self, caches: FlowCaches | None = None) -> None:
        """`caches` is shared by all classifiers of the ASP; None makes one of its own."""
        self._caches = FlowCaches() if caches is None else caches
        self._classifiers: dict[int, Classifier] = {}
        self._rules: dict[int, dict[int, tuple[Rule, ...]]] = {}
        self.version = 0
        """Changes of entries, and of which SA serves them."""

    def set_entries(self, tunnel: int, entries: Iterable[SpdEntry]) -> None:
        """Replace the entries of a tunnel; `entries` can be in any order."""
        ordered = sorted(entries, key=lambda entry: entry_and_rule(entry.number))
        rules = [(rule, entry.number) for entry in ordered for rule in entry.rules or (Rule(),)]
        self.version += 1
        self._classifiers[tunnel] = Classifier(rules, NO_ENTRY, self._caches)
        self._rules[tunnel] = {entry.number: entry.rules for entry in ordered}

    def remove(self, tunnel: int) -> None:
        """Remove the entries of a tunnel. All packets that are routed into the tunnel are then dropped."""
        self.version += 1
        self._classifiers.pop(tunnel, None)
        self._rules.pop(tunnel, None)

    def rules(self, tunnel: int, entry: int) -> tuple[Rule, ...] | None:
        """Return the rules of an entry; None if the entry does not exist."""
        return self._rules.get(tunnel, {}).get(entry)

    def may_have_entry(self, tunnel: int, entry: int) -> bool:
        """Whether the entry exists, or the tunnel has no entries at present and may get it again."""
        entries = self._rules.get(tunnel)
        return entries is None or entry in entries

    def classifier(self, tunnel: int) -> Classifier | None:
        """Return the classifier of a tunnel, whose values are entry numbers; None if the tunnel has no entries."""
        return self._classifiers.get(tunnel)
