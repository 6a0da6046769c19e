"""What a commit affects: the objects that differ between two configurations, and those that refer to them.

A commit changes a few objects of a configuration that may have tens of thousands. The configuration that the
parser makes of its lines shares all others with the one before, so they are told apart by identity, without a
comparison. Checks and plan are then made again for what is affected, and kept for the rest. An object that was
opened and left as it was counts as touched: making it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from chassis.config.drafts import Path
from chassis.config.values import address_number
from chassis.model.ike import IkePolicy
from chassis.model.ipsec import Profile, TunnelEntry
from chassis.model.remote_identity import RemoteIdentity
from chassis.model.router import LOCAL, AspGroup, AspPool, Config, Context, Port, StaticRoute, Tunnel

RouteKey = tuple[str, str, str]
"""Prefix, next hop or interface, and the other context of a static route (each empty where there is none)."""

Claim = tuple[str | int, ...]
"""What only one tunnel may have, such as ("interface", "L1", "vpn1")."""


class TouchedNames:
    """The names of the objects of one kind that are new, removed or other objects than before."""

    __slots__ = ("_missing", "new", "touched")

    def __init__(self, old: Mapping[Any, Any], new: Mapping[Any, Any]) -> None:
        self.new = new
        self.touched: set[Any] = set()
        if old is not new:
            self.touched = {name for name, value in new.items() if old.get(name) is not value}
            self.touched |= old.keys() - new.keys()
        self._missing = any((name in old) != (name in new) for name in self.touched)
        """Whether the hint of an undefined name may differ: it is the nearest of all names."""

    def __bool__(self) -> bool:
        return bool(self.touched)

    def affect(self, name: object) -> bool:
        """Return whether what refers to this name is affected; None refers to nothing."""
        return name in self.touched or (self._missing and name is not None and name not in self.new)


class TouchedContext:
    """The parts of a context that are touched. `old` or `new` is None if the context is added or removed."""

    def __init__(self, old: Context | None, new: Context | None) -> None:
        self.old, self.new = old, new
        before, after = old or Context(""), new or Context("")
        self.exists_anew = old is None or new is None
        self.served_anew = self.exists_anew or before.asp_group != after.asp_group
        self.asked_anew = self.exists_anew or _asked(before) != _asked(after)
        """Whether other RADIUS servers may be asked about peers, or none any more."""
        self.interfaces = TouchedNames(before.interfaces, after.interfaces)
        self.ike_policies = TouchedNames(before.ike_policies, after.ike_policies)
        self.acls = TouchedNames(before.acls, after.acls)
        self.profiles = TouchedNames(before.profiles, after.profiles)
        self.networks: set[tuple[str, int]] = set()
        """(address, prefix length) of each touched interface, as it was and as it is."""
        for name in self.interfaces.touched:
            for context in (before, after):
                interface = context.interfaces.get(name)
                self.networks.update(interface.addresses if interface is not None else ())
        self.addresses = {address for address, _ in self.networks}

    def removed_routes(self) -> set[RouteKey]:
        """Return the keys of the static routes that are no longer there."""
        left = {route_key(route) for route in (self.new.routes if self.new is not None else ())}
        return {route_key(route) for route in (self.old.routes if self.old is not None else ())} - left

    def routes(self) -> set[RouteKey]:
        """Return the keys of the static routes that are touched, or that lead to a touched interface."""
        before = {route_key(route): route for route in (self.old.routes if self.old is not None else ())}
        routes = self.new.routes if self.new is not None else ()
        after = {route_key(route): route for route in routes}
        found = {key for key, route in after.items() if before.get(key) is not route}
        found |= before.keys() - after.keys()
        if not self.interfaces:
            return found
        leading = self._leads_to_touched()
        return found | {key for key, route in after.items() if leading(route)}

    def _leads_to_touched(self) -> Callable[[StaticRoute], bool]:
        masked: dict[int, set[int]] = {}
        for address, length in self.networks:
            masked.setdefault(32 - length, set()).add((address_number(address) or 0) >> (32 - length))

        def leads(route: StaticRoute) -> bool:
            if route.next_hop is None:
                return self.interfaces.affect(route.interface)
            if not masked:
                return False
            number = address_number(route.next_hop) or 0
            return any(number >> shift in held for shift, held in masked.items())

        return leads


def _asked(context: Context) -> tuple[bool, str | None]:
    """Return what decides whether a server can be asked about peers."""
    return bool(context.radius_servers), context.aaa_fallback


class Affected:
    """The difference of two configurations as names of objects, by kind."""

    def __init__(self, old: Config, new: Config) -> None:
        self.old, self.new = old, new
        self.pools = TouchedNames(old.pools, new.pools)
        self.groups = TouchedNames(old.groups, new.groups)
        self.ike_proposals = TouchedNames(old.ike_proposals, new.ike_proposals)
        self.ipsec_proposals = TouchedNames(old.ipsec_proposals, new.ipsec_proposals)
        self.ipsec_policies = TouchedNames(old.ipsec_policies, new.ipsec_policies)
        self.manual_sas = TouchedNames(old.manual_sas, new.manual_sas)
        self.qos_policies = TouchedNames(old.qos_policies, new.qos_policies)
        self.policing_policies = TouchedNames(old.policing_policies, new.policing_policies)
        self.cards = TouchedNames(old.cards, new.cards)
        self.ports = TouchedNames(old.ports, new.ports)
        self.all_tunnels = TouchedNames(old.tunnels, new.tunnels)
        self.all_contexts = TouchedNames(old.contexts, new.contexts)
        self.contexts = {
            name: TouchedContext(old.contexts.get(name), new.contexts.get(name))
            for name in self.all_contexts.touched
        }
        self.ike_policies = self._ike_policies()
        """The IKE policies of each context that are touched, or that refer to touched proposals."""
        self.referring = self._referring()
        """The IPsec policies that are touched, or that refer to touched proposals."""
        self.tunnels = self._tunnels()
        """The tunnels of the new configuration that are touched, or that refer to something touched, or that claim
        what a touched tunnel claims or claimed."""

    def removed(self) -> set[Path]:
        """Return the paths of the objects that are no longer there, and of interfaces that may have ceased to
        borrow an address."""
        found: set[Path] = set()
        _add_removed(found, ("asp-pool",), self.pools)
        _add_removed(found, ("asp-group",), self.groups)
        _add_removed(found, ("ike-proposal",), self.ike_proposals)
        _add_removed(found, ("ipsec-proposal",), self.ipsec_proposals)
        _add_removed(found, ("ipsec-policy",), self.ipsec_policies)
        _add_removed(found, ("security-association",), self.manual_sas)
        _add_removed(found, ("card",), self.cards)
        _add_removed(found, ("port",), self.ports)
        _add_removed(found, ("tunnel",), self.all_tunnels)
        _add_removed(found, ("context",), self.all_contexts)
        for name, context in self.contexts.items():
            path: Path = ("context", name)
            found.update((*path, "interface", one) for one in context.interfaces.touched)
            _add_removed(found, (*path, "ike-policy"), context.ike_policies)
            _add_removed(found, (*path, "ipsec-profile"), context.profiles)
            found.update((*path, "route", *key) for key in context.removed_routes())
        return found

    def pool(self, pool: AspPool) -> bool:
        """Return whether a pool is affected."""
        slots = (int(asp.split("/")[0]) for asp in pool.asps) if self.cards else ()
        return pool.name in self.pools.touched or any(map(self.cards.affect, slots))

    def group(self, group: AspGroup) -> bool:
        """Return whether a group of pools is affected."""
        return group.name in self.groups.touched or any(map(self.pools.affect, group.pools))

    def service(self, context: Context) -> bool:
        """Return whether the Security service of a context is affected."""
        if context.asp_group is None or not (self.groups or self.pools):
            return False
        group = self.new.groups.get(context.asp_group)
        return self.groups.affect(context.asp_group) or (group is not None and self.group(group))

    def port(self, port: Port) -> bool:
        """Return whether a port is affected."""
        if port.name in self.ports.touched or self.cards.affect(port.slot):
            return True
        if self.policing_policies.affect(port.policing_policy):
            return True
        if port.context is None or port.interface is None:
            return False
        context = self.contexts.get(port.context)
        if context is None:
            return self.all_contexts.affect(port.context)
        return context.exists_anew or context.interfaces.affect(port.interface)

    def profile(self, context: str, profile: Profile) -> bool:
        """Return whether an IPsec profile of a context is affected."""
        touched = self.contexts.get(context)
        if touched is not None and profile.name in touched.profiles.touched:
            return True
        return self._entries(profile.entries, touched)

    def _ike_policies(self) -> dict[str, set[str]]:
        found = {name: set(context.ike_policies.touched) for name, context in self.contexts.items()}
        if self.ike_proposals:
            for name, context in self.new.contexts.items():
                mine = found.setdefault(name, set())
                mine.update(policy.name for policy in context.ike_policies.values() if self._proposes(policy))
        return found

    def _proposes(self, policy: IkePolicy) -> bool:
        return any(self.ike_proposals.affect(item.name) for item in policy.proposals)

    def _referring(self) -> set[str]:
        found = set(self.ipsec_policies.touched)
        if self.ipsec_proposals:
            for policy in self.new.ipsec_policies.values():
                if any(self.ipsec_proposals.affect(item.name) for item in policy.proposals):
                    found.add(policy.name)
        return found

    def _tunnels(self) -> set[str]:
        new, touched = self.new.tunnels, self.all_tunnels.touched
        found = {name for name in touched if name in new}
        if self.contexts or self.ike_policies or self.referring or self.manual_sas or self.qos_policies:
            found.update(name for name, tunnel in new.items() if self._outside(tunnel) or self._inside(tunnel))
        return found | sharing(self.old, self.new, found | touched)

    def _outside(self, tunnel: Tunnel) -> bool:
        """Return whether a tunnel refers to something touched in the context of its end points."""
        context = self.contexts.get(tunnel.context)
        if context is None:
            # The hint for a context that does not exist may name another one now.
            undefined = self.all_contexts.affect(tunnel.context)
            return undefined or tunnel.ike_policy in self.ike_policies.get(tunnel.context, ())
        return (
            context.served_anew
            or tunnel.local in context.addresses
            or context.ike_policies.affect(tunnel.ike_policy)
            or tunnel.ike_policy in self.ike_policies[tunnel.context]
        )

    def _inside(self, tunnel: Tunnel) -> bool:
        """Return whether a tunnel refers to something touched in the context of its interface, or in the whole
        router."""
        context = self.contexts.get(tunnel.interface_context)
        if context is not None:
            if context.exists_anew or context.interfaces.affect(tunnel.interface):
                return True
        elif self.contexts and tunnel.interface_context not in self.new.contexts:
            # What is said of the missing context names other contexts with such an interface.
            return True
        if self.qos_policies.affect(tunnel.qos_policy):
            return True
        return self._entries(tunnel.entries, context) or (tunnel.kind == "on-demand" and self._profiles(tunnel))

    def _profiles(self, tunnel: Tunnel) -> bool:
        """Return whether a profile is affected that the peers of an on-demand tunnel may have: that of the
        tunnel's name, and each of the context where AAA names them (S-044)."""
        name = tunnel.interface_context
        touched, context = self.contexts.get(name), self.new.contexts.get(name)
        profiles = context.profiles if context is not None else {}
        if asks_aaa(self.new, tunnel):
            if (touched and touched.profiles) or self._servers(name):
                return True
            return any(self.profile(name, one) for one in profiles.values())
        if touched is not None and touched.profiles.affect(tunnel.name):
            return True
        return tunnel.name in profiles and self.profile(name, profiles[tunnel.name])

    def _servers(self, name: str) -> bool:
        """Return whether other RADIUS servers may be asked about peers of a context, or none any more."""
        context = self.new.contexts.get(name)
        names = (name, LOCAL) if context is not None and context.aaa_fallback else (name,)
        return any(one in self.contexts and self.contexts[one].asked_anew for one in names)

    def _entries(self, entries: Iterable[TunnelEntry], context: TouchedContext | None) -> bool:
        """Return whether `seq` lines, with access lists in this context, refer to something touched."""
        for entry in entries:
            if entry.policy in self.referring or self.ipsec_policies.affect(entry.policy):
                return True
            if self.manual_sas.affect(entry.sa) or (context is not None and context.acls.affect(entry.acl)):
                return True
        return False


_last: list[Affected] = []


def affected_by(old: Config, new: Config) -> Affected:
    """Return what differs between two configurations. The last result is kept: a commit is checked and planned."""
    if not (_last and _last[0].old is old and _last[0].new is new):
        _last[:] = [Affected(old, new)]
    return _last[0]


def _add_removed(found: set[Path], kind: Path, names: TouchedNames) -> None:
    found.update((*kind, name) for name in names.touched if name not in names.new)


def asks_aaa(config: Config, tunnel: Tunnel) -> bool:
    """Return whether the IKE policy of a tunnel says `use-aaa`."""
    context = config.contexts.get(tunnel.context)
    policy = context.ike_policies.get(tunnel.ike_policy or "") if context is not None else None
    return policy is not None and policy.pre_shared_key is not None and policy.pre_shared_key.form == "aaa"


def expected_identity(config: Config, tunnel: Tunnel) -> str:
    """Return the identity that a tunnel expects of its peer, in one spelling; empty for any (S-006)."""
    context = config.contexts.get(tunnel.context)
    policy = context.ike_policies.get(tunnel.ike_policy or "") if context is not None else None
    identity = policy.identity_remote if policy is not None else None
    text = tunnel.remote_id or (identity.value if identity is not None else "")
    return canonical_identity(text)


def canonical_identity(text: str) -> str:
    """Return the one spelling of an identity; one that is in no right form as it is."""
    try:
        return RemoteIdentity.of(text).canonical
    except ValueError:
        return text


def route_key(route: StaticRoute) -> RouteKey:
    """Return the key of a static route in its context."""
    return route.prefix, route.next_hop or route.interface or "", route.context or ""


def claims(config: Config, tunnel: Tunnel) -> Iterator[Claim]:
    """Return what only one tunnel may have: its interface, its peer's identity, its inbound SPIs. On-demand
    tunnels share their multibind interface."""
    if tunnel.interface is not None and tunnel.kind != "on-demand":
        yield "interface", tunnel.interface_context, tunnel.interface
    if tunnel.kind == "manual":
        if tunnel.local is not None:
            yield from _spis(config, tunnel)
        return
    if tunnel.remote_id is not None:
        yield "remote-id", tunnel.context, canonical_identity(tunnel.remote_id)
    context = config.contexts.get(tunnel.context) if tunnel.ike_policy is not None else None
    policy = context.ike_policies.get(tunnel.ike_policy or "") if context is not None else None
    if policy is not None and tunnel.local is not None:
        yield "identity", tunnel.context, tunnel.local, expected_identity(config, tunnel)


def _spis(config: Config, tunnel: Tunnel) -> Iterator[Claim]:
    for entry in tunnel.entries:
        sa = config.manual_sas.get(entry.sa or "")
        receive = sa.receive if sa is not None else None
        if receive is not None and tunnel.local is not None:
            for protocol, spi in (("ESP", receive.esp_spi), ("AH", receive.ah_spi)):
                if spi is not None:
                    yield tunnel.context, tunnel.local, protocol, spi


def sharing(old: Config, new: Config, names: Collection[str]) -> set[str]:
    """Return the tunnels of the new configuration that claim what one of these claims, or claimed in the old
    one."""
    wanted: set[Claim] = set()
    interfaces, ends, identities = set(), set(), set()
    for name in names:
        for config in (old, new):
            tunnel = config.tunnels.get(name)
            if tunnel is None:
                continue
            wanted.update(claims(config, tunnel))
            interfaces.add(tunnel.interface)
            ends.add(tunnel.local)
            identities.add(tunnel.remote_id and canonical_identity(tunnel.remote_id))
    for unset in (interfaces, ends, identities):
        unset.discard(None)
    return {
        name
        for name, tunnel in new.tunnels.items()
        if (
            tunnel.interface in interfaces
            or tunnel.local in ends
            or (tunnel.remote_id is not None and canonical_identity(tunnel.remote_id) in identities)
        )
        and not wanted.isdisjoint(claims(new, tunnel))
    }
