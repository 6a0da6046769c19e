"""The addresses and prefixes of a plan, with their candidates: those that a commit affects are found again.

A prefix is affected by the interfaces of its network, by static routes to it, and by the networks that hold the
next hops of these. Its candidates are then collected from all of them in the order of the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Generic, TypeVar

from chassis.config.affected import Affected
from chassis.model.router import NULL0, Context, Interface, StaticRoute
from chassis.net.address import MASKS, network_of, parse_address, parse_prefix
from chassis.net.types import Prefix
from chassis.xcrp.placement import Place
from chassis.xcrp.plan import Plan
from chassis.xcrp.routes import Candidate, PrefixKey, order

_K = TypeVar("_K")
_V = TypeVar("_V")

_MEMORY: Final = 1 << 16
"""Texts of addresses and prefixes that are kept with their values (count)."""

_address = lru_cache(_MEMORY)(parse_address)


@lru_cache(_MEMORY)
def _prefix(text: str) -> Prefix:
    return parse_prefix(text, host_bits=True)


@dataclass(frozen=True, slots=True)
class ChangedPrefixes:
    """The keys of prefixes whose candidates are new, gone or others, and the addresses of the router, as (context,
    address), that are new, gone or at another ASP."""

    prefixes: frozenset[PrefixKey]
    local: frozenset[tuple[int, int]]


def update(
    plan: Plan,
    before: Plan,
    affected: Affected,
    interfaces: Mapping[str, set[str]],
    moved: set[Place],
    placement: Mapping[Place, str],
) -> ChangedPrefixes:
    """Set the addresses and prefixes of a plan from those of the plan before.

    `interfaces` are those that are touched, or bound to something else, by context; `moved` are the addresses that
    got or lost their ASP in `placement`.
    """
    plan.local, plan.prefixes = dict(before.local), dict(before.prefixes)
    plan.port_tables = dict(before.port_tables)
    plan.prefixes_by_port, plan.prefixes_by_tunnel = dict(before.prefixes_by_port), dict(before.prefixes_by_tunnel)
    names = {*interfaces, *affected.contexts, *(context for context, _ in moved)}
    local: set[tuple[int, int]] = set()
    found: dict[PrefixKey, tuple[Candidate, ...]] = {}
    for name in names:
        old, new = before.config.contexts.get(name), plan.config.contexts.get(name)
        number = plan.contexts.get(name) or before.contexts.get(name, 0)
        part = _ContextPrefixes(plan, name, number, old, new, interfaces.get(name, set()))
        ends = part.addresses | {address for context, address in moved if context == name}
        local |= part.update_local(ends, placement)
        found |= part.candidates({(number, address, 32) for context, address in local if context == number})
    changed = {key for key, ways in found.items() if plan.prefixes.get(key, ()) != ways}
    _store(plan, {key: found[key] for key in changed})
    return ChangedPrefixes(frozenset(changed), frozenset(local))


class _ContextPrefixes:
    """One context: what is affected of it, and the candidates of its prefixes."""

    def __init__(
        self, plan: Plan, name: str, number: int, old: Context | None, new: Context | None, touched: set[str]
    ) -> None:
        self.plan, self.name, self.number = plan, name, number
        self.old, self.new = old or Context(name), new or Context(name)
        self.touched = touched
        self.addresses: set[str] = set()
        """Addresses that touched interfaces have or had."""
        self.networks: set[Prefix] = set()
        """Their networks, without those of loopbacks."""
        for context in (self.old, self.new):
            for interface in map(context.interfaces.get, touched):
                for address, length in interface.addresses if interface is not None else ():
                    self.addresses.add(address)
                    if interface is not None and interface.kind != "loopback":
                        self.networks.add(network_of(_address(address), length))
        self._connected: dict[Prefix, list[Interface]] | None = None

    def update_local(self, addresses: set[str], placement: Mapping[Place, str]) -> set[tuple[int, int]]:
        """Set which of these addresses the router has, and their ASPs. Return those that changed."""
        plan = self.plan
        there: set[str] = set()
        for interface in self.new.interfaces.values() if addresses else ():
            if interface.address in addresses or interface.secondary:
                at = (self.name, interface.name)
                if interface.kind == "loopback" or at in plan.bound_ports or at in plan.bound_tunnels:
                    there.update(address for address, _ in interface.addresses)
        changed = set()
        for address in addresses:
            key = (self.number, _address(address))
            owner = placement.get((self.name, address), "") if address in there else None
            if plan.local.get(key) != owner:
                changed.add(key)
                if owner is None:
                    del plan.local[key]
                else:
                    plan.local[key] = owner
        return changed

    def candidates(self, more: set[PrefixKey]) -> dict[PrefixKey, tuple[Candidate, ...]]:
        """Return the candidates of each affected prefix and of `more`, in order; none of one that is gone."""
        plan, number = self.plan, self.number
        found: dict[PrefixKey, list[Candidate]] = {
            key: [Candidate(0, "local")] if key[2] == 32 and key[:2] in plan.local else []
            for key in (*more, *((number, *network) for network in self.networks), *self._routed())
        }
        if not found:
            return {}
        for interface in self.new.interfaces.values():
            if interface.kind == "loopback":
                continue
            for address, prefix_length in interface.addresses:
                ways = found.get((number, *network_of(_address(address), prefix_length)))
                if ways is not None:
                    ways.extend(_candidates(plan, self.name, interface, 0, 0, prefix_length))
        for route in self.new.routes:
            ways = found.get((number, *_prefix(route.prefix)))
            if ways is not None:
                ways.extend(self._static(route))
        return {key: order(ways) for key, ways in found.items()}

    def _routed(self) -> Iterator[PrefixKey]:
        """Return the prefixes of static routes that are touched, or that lead to touched interfaces."""
        before, after = set(map(id, self.old.routes)), set(map(id, self.new.routes))
        masks: dict[int, set[int]] = {}
        for prefix, length in self.networks:
            masks.setdefault(length, set()).add(prefix)
        for route in self.old.routes:
            if id(route) not in after:
                yield (self.number, *_prefix(route.prefix))
        for route in self.new.routes:
            leads = route.interface in self.touched
            if masks and route.next_hop is not None:
                next_hop = _address(route.next_hop)
                leads = any(next_hop & MASKS[length] in held for length, held in masks.items())
            if leads or id(route) not in before:
                yield (self.number, *_prefix(route.prefix))

    def _static(self, route: StaticRoute) -> Iterator[Candidate]:
        """Return the candidates of a static route: of its interface, or of every connected network with its next
        hop.

        Longer networks come first. Shorter ones are used while the port of the longer one is down.
        """
        plan, name = self.plan, self.name
        if route.context not in (None, name) or (route.next_hop or route.interface) is None:
            return
        if route.interface == NULL0:
            yield Candidate(route.cost, "discard", distance=route.distance)
            return
        if route.interface is not None:
            interface = self.new.interfaces.get(route.interface)
            if interface is not None and interface.kind != "multibind":
                yield from _candidates(plan, name, interface, 0, route.cost, interface.prefix_len, route.distance)
            return
        connected = self._networks()
        next_hop = _address(route.next_hop or "0.0.0.0")
        for length in range(32, -1, -1):
            for interface in connected.get((next_hop & MASKS[length], length), ()):
                yield from _candidates(plan, name, interface, next_hop, route.cost, length, route.distance)

    def _networks(self) -> dict[Prefix, list[Interface]]:
        """Return the interfaces of each network of the context, without loopbacks."""
        if self._connected is None:
            self._connected = {}
            for interface in self.new.interfaces.values():
                for address, length in interface.addresses if interface.kind != "loopback" else ():
                    self._connected.setdefault(network_of(_address(address), length), []).append(interface)
        return self._connected


def _candidates(
    plan: Plan, context: str, interface: Interface, address: int, cost: int, length: int, distance: int = 0
) -> Iterator[Candidate]:
    """Return the candidates of an interface, for its network of this length: its ports or its tunnels."""
    at = (context, interface.name)
    for port in plan.bound_ports.get(at, ()):
        yield Candidate(cost, "port", interface.name, port, address, length=length, distance=distance)
    for tunnel in plan.bound_tunnels.get(at, ()):
        yield Candidate(cost, "tunnel", interface.name, tunnel=tunnel, length=length, distance=distance)


def _store(plan: Plan, changed: Mapping[PrefixKey, tuple[Candidate, ...]]) -> None:
    """Set the candidates of prefixes, and what is found by them."""
    ports, tunnels = _Sets(plan.prefixes_by_port), _Sets(plan.prefixes_by_tunnel)
    tables: dict[int, _Sets[int, int]] = {}
    for key, ways in changed.items():
        context, prefix, length = key
        old = plan.prefixes.get(key, ())
        ports.change({way.port for way in old if way.port}, {way.port for way in ways if way.port}, key)
        tunnels.change({way.tunnel for way in old if way.tunnel}, {way.tunnel for way in ways if way.tunnel}, key)
        if ways:
            plan.prefixes[key] = ways
        else:
            plan.prefixes.pop(key, None)
        leaves = any(way.kind == "discard" or (way.port and not plan.ports[way.port].management) for way in ways)
        listed = prefix in plan.port_tables.get(context, {}).get(length, ())
        if leaves != listed:
            if context not in tables:
                plan.port_tables[context] = dict(plan.port_tables.get(context, {}))
                tables[context] = _Sets(plan.port_tables[context])
            tables[context].change(set() if leaves else {length}, {length} if leaves else set(), prefix)
            if not plan.port_tables[context]:
                del plan.port_tables[context], tables[context]


class _Sets(Generic[_K, _V]):
    """Sets by key that another plan has too: each is copied before its first change. An empty one is removed."""

    def __init__(self, sets: dict[_K, set[_V]]) -> None:
        self._sets = sets
        self._own: set[_K] = set()

    def change(self, old: set[_K], new: set[_K], value: _V) -> None:
        """Take a value from the sets of keys that only `old` has, and add it to those that only `new` has."""
        for key in old ^ new:
            if key not in self._own:
                self._own.add(key)
                self._sets[key] = set(self._sets.get(key, ()))
            held = self._sets[key]
            if key in new:
                held.add(value)
            else:
                held.discard(value)
                if not held:
                    self._own.discard(key)
                    del self._sets[key]
