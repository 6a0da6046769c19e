"""The checks of a commit: references to names, and settings that exclude each other.

In: a parsed configuration. Out: the same configuration without the lines in error, and diagnostics. An undefined
name is a warning, with the searched context and the nearest defined name; the objects that need it stay down. A
violation of the router's rules is an error, and its line is removed (docs/decisions.md has the S-numbers).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from operator import is_
from typing import Any, TypeVar

from chassis.config.affected import affected_by, route_key
from chassis.config.diagnostics import Diagnostic, in_order
from chassis.config.drafts import Path, SourcePosition
from chassis.config.validate_tunnels import TunnelChecks
from chassis.config.values import address_number
from chassis.model.ike import IkePolicy, ProposalRef
from chassis.model.ipsec import IpsecProposal, ManualSa, Spi
from chassis.model.router import NULL0, AspPool, Config, Context, Interface, StaticRoute

_QUOTES = (b'"', b"'")

_V = TypeVar("_V")

AUTHENTICATING = ("aes-128-gcm", "aes-192-gcm", "aes-256-gcm")
"""Ciphers that include integrity protection (RFC 4106)."""

CONTROLLER_SLOTS = (7, 8)
"""Slots of the controllers. Port 7/1 is the management port."""


@dataclass(frozen=True, slots=True)
class CheckedChange:
    """A configuration without the lines in error, what was found, and the paths of the objects that were checked
    or are no longer there."""

    config: Config
    found: tuple[Diagnostic, ...]
    owners: frozenset[Path]


def check(
    config: Config,
    positions: Mapping[Path, SourcePosition] | None = None,
    broken: Collection[Path] = (),
    file: str = "",
) -> tuple[Config, tuple[Diagnostic, ...]]:
    """Return the configuration without the lines in error, and all diagnostics of a commit.

    `positions` has the positions of words, from the parser; without it all diagnostics are at line 0, column 1.
    `broken` has the paths of objects with a wrong line: warnings that only follow from that line are left out.
    """
    checks = _WholeChecks(config, positions or {}, broken, file)
    checked = checks.run()
    return checked, in_order(checks.found)


def check_change(
    before: Config,
    config: Config,
    positions: Mapping[Path, SourcePosition] | None = None,
    broken: Collection[Path] = (),
    file: str = "",
) -> CheckedChange:
    """Check what a commit on top of a checked configuration affects; what it leaves alone is not checked again."""
    checks = _WholeChecks(config, positions or {}, broken, file, affected_by(before, config))
    return CheckedChange(checks.run(), in_order(checks.found), frozenset(checks.owners))


class _WholeChecks(TunnelChecks):
    def run(self) -> Config:
        config, only = self.config, self.affected
        pools = self._pools()
        for group in config.groups.values():
            if only is not None and not only.group(group):
                continue
            self.own("asp-group", group.name)
            for name in group.pools:
                self.refer(name, config.pools, ("asp-group", group.name, "pools", name), "ASP pool")
        contexts = {name: self._context(context) for name, context in config.contexts.items()}
        proposals = self._proposals()
        for sa in config.manual_sas.values():
            if only is None or sa.name in only.manual_sas.touched:
                self._manual_sa(sa)
        tunnels = self.tunnels()
        self._ports()
        parts: dict[str, Any] = {
            "pools": pools,
            "contexts": contexts,
            "tunnels": tunnels,
            "ipsec_proposals": proposals,
        }
        changed = {name: made for name, made in parts.items() if not _same(made, getattr(config, name))}
        return replace(config, **changed) if changed else config

    # --- chassis ---

    def _pools(self) -> dict[str, AspPool]:
        pools: dict[str, AspPool] = {}
        for pool in self.config.pools.values():
            if self.affected is not None and not self.affected.pool(pool):
                pools[pool.name] = pool
                continue
            self.own("asp-pool", pool.name)
            kept = []
            for asp in pool.asps:
                slot = int(asp.split("/")[0])
                card = self.config.cards.get(slot)
                holder = f"slot {slot} has card {card.type}" if card else ""
                if slot in CONTROLLER_SLOTS:
                    holder = f"slot {slot} belongs to a controller"
                elif card is not None and card.is_ase:
                    holder = ""
                if holder:
                    place = self.position("asp-pool", pool.name, "asps", asp)
                    self.report("error", "S-102", place, asp, f"no ASP {asp}: {holder}")
                else:
                    kept.append(asp)
            pools[pool.name] = pool if len(kept) == len(pool.asps) else replace(pool, asps=tuple(kept))
        return pools

    def _ports(self) -> None:
        config, only = self.config, self.affected
        for port in config.ports.values():
            if only is not None and not only.port(port):
                continue
            path: Path = ("port", port.name)
            self.own(*path)
            here = self.position(*path, "name")
            card = config.cards.get(port.slot)
            if port.slot not in CONTROLLER_SLOTS:
                if card is None:
                    self.report("warning", "S-103", here, port.name, f"no card in slot {port.slot}: port is down")
                elif port.number > card.ports:
                    self._missing_port(port.name, port.number, here)
            if (policy := port.policing_policy) is not None:
                self.refer(policy, config.policing_policies, (*path, "policing_policy"), "QoS policy")
            if port.interface is None or port.context is None:
                continue
            context = self.refer(port.context, config.contexts, (*path, "context"), "context", code="S-047")
            if context is not None:
                where = f" in context {context.name}"
                self.refer(port.interface, context.interfaces, (*path, "interface"), "interface", where)
        for card in config.cards.values():
            if only is not None and card.slot not in only.cards.touched:
                continue
            self.own("card", card.slot)
            if not card.is_ase and not card.is_line_card and card.slot not in CONTROLLER_SLOTS:
                place = self.position("card", card.slot, "type")
                self.report("note", "S-101", place, card.type, f"card {card.type} has no process here")

    def _missing_port(self, name: str, number: int, here: SourcePosition) -> None:
        card = self.config.cards[int(name.split("/")[0])]
        sizes = [size for size in (12, 20, 40, 60) if size >= number] or [number]
        hint = f"card ether-{sizes[0]}-port {card.slot}" if card.is_line_card else ""
        message = f"card {card.type} in slot {card.slot} has {card.ports or 'no'} ports"
        self.add("warning", "S-082", here, name, message, hint)

    # --- contexts ---

    def _context(self, context: Context) -> Context:
        only = self.affected
        touched = None if only is None else only.contexts.get(context.name)
        path: Path = ("context", context.name)
        if only is None or touched is not None or only.service(context):
            self.own(*path)
            if context.asp_group is not None:
                self._service(context)
            self.aaa(context, path)
        if only is None or touched is not None:
            interfaces = None if touched is None else touched.interfaces
            for interface in context.interfaces.values():
                if (interface.unnumbered is not None or interface.kind == "multibind") and (
                    interfaces is None
                    or interface.name in interfaces.touched
                    or interfaces.affect(interface.unnumbered)
                ):
                    self._unnumbered(interface, context, path)
        policies = context.ike_policies
        chosen = None if only is None else only.ike_policies.get(context.name, ())
        if chosen is None or chosen:
            policies = {
                name: self._ike_policy(policy, path) if chosen is None or name in chosen else policy
                for name, policy in policies.items()
            }
        for profile in context.profiles.values():
            if only is not None and not only.profile(context.name, profile):
                continue
            self.own(*path, "ipsec-profile", profile.name)
            for entry in profile.entries:
                at = (*path, "ipsec-profile", profile.name, "seq", entry.seq)
                self.entry(entry, at, context)
        routes = context.routes
        if only is None or touched is not None:
            affected = None if touched is None else touched.routes()
            if affected is None or affected:
                routes = tuple(
                    route
                    for route in routes
                    if (affected is not None and route_key(route) not in affected) or self._route(route, context)
                )
        if len(routes) == len(context.routes) and _same(policies, context.ike_policies):
            return context
        return replace(context, routes=routes, ike_policies=policies)

    def _unnumbered(self, interface: Interface, context: Context, path: Path) -> None:
        self.own(*path, "interface", interface.name)
        lending = interface.unnumbered
        if lending is None:
            place = self.position(*path, "interface", interface.name, "name")
            message = f"multibind interface {interface.name} borrows an address: `ip unnumbered` is missing"
            self.report("warning", "multibind", place, interface.name, message)
            return
        at = (*path, "interface", interface.name, "unnumbered")
        where = f" in context {context.name}"
        lender = self.refer(lending, context.interfaces, at, "interface", where)
        if lender is not None and lender.address is None:
            message = f"interface {lender.name} has no address to borrow"
            self.report("warning", "unnumbered", self.position(*at), lender.name, message)

    def _service(self, context: Context) -> None:
        config = self.config
        assert context.asp_group is not None
        at: Path = ("context", context.name, "asp_group")
        group = self.refer(context.asp_group, config.groups, at, "ASP group", code="S-106")
        if group is None:
            return
        asps = [asp for name in group.pools for asp in getattr(config.pools.get(name), "asps", ())]
        if not asps:
            message = f"ASP group {group.name} has no ASP: context {context.name} has no Security service"
            self.report("warning", "S-106", self.position(*at), group.name, message)

    def _route(self, route: StaticRoute, context: Context) -> bool:
        """Return whether the route is kept."""
        self.own("context", context.name, "route", *route_key(route))
        path: Path = ("context", context.name, "route", route.prefix, route.next_hop or route.interface or "")
        if route.context not in (None, context.name) or (route.next_hop or route.interface) is None:
            message = f"the route stays down: no packet leaves for context {route.context} here"
            self.report("warning", "S-104", self.position(*path, "context"), route.context or "", message)
            return True
        if route.next_hop is not None:
            number = address_number(route.next_hop) or 0
            if not any(number >> (32 - length) in held for length, held in self.networks(context).items()):
                message = f"next hop {route.next_hop} is in no network of an interface of context {context.name}"
                self.report("warning", "S-060", self.position(*path, "next_hop"), route.next_hop, message)
            return True
        assert route.interface is not None
        if route.interface == NULL0:
            return True
        where = f" in context {context.name}"
        interface = self.refer(route.interface, context.interfaces, (*path, "interface"), "interface", where)
        if interface is not None and interface.kind == "multibind":
            message = f"no static route leads to multibind interface {interface.name}"
            self.report("error", "S-090", self.position(*path, "interface"), interface.name, message)
            return False
        return True

    # --- proposals and policies ---

    def _proposals(self) -> dict[str, IpsecProposal]:
        """Return the IPsec proposals without the lines that leave one without protection."""
        only = self.affected
        kept = {
            name: self._ipsec_proposal(proposal)
            if only is None or name in only.ipsec_proposals.touched
            else proposal
            for name, proposal in self.config.ipsec_proposals.items()
        }
        for offered in self.config.ike_proposals.values():
            if only is not None and offered.name not in only.ike_proposals.touched:
                continue
            self.own("ike-proposal", offered.name)
            if not offered.exists:
                place = self.position("ike-proposal", offered.name, "encryption_algorithm")
                message = f"IKEv1 has no {offered.encryption_algorithm}: proposal {offered.name} is not used"
                self.report("warning", "aead", place, offered.encryption_algorithm, message)
        for policy in self.config.ipsec_policies.values():
            if only is not None and policy.name not in only.referring:
                continue
            self.own("ipsec-policy", policy.name)
            for item in policy.proposals:
                at = ("ipsec-policy", policy.name, "seq", item.seq, "name")
                self.refer(item.name, self.config.ipsec_proposals, at, "IPsec proposal")
        return kept

    def _ipsec_proposal(self, proposal: IpsecProposal) -> IpsecProposal:
        """Warn about a cipher without integrity. Cipher null without integrity is an error, because ESP must have
        one of the two services (RFC 4303 1): remove the line, so that the proposal has the default pair again."""
        self.own("ipsec-proposal", proposal.name)
        cipher = proposal.esp_encryption
        if cipher is None or cipher in AUTHENTICATING or proposal.esp_authentication or proposal.ah:
            return proposal
        path: Path = ("ipsec-proposal", proposal.name)
        place = self.position(*path, "esp_encryption")
        if cipher == "null":
            message = "ESP with neither cipher nor integrity protects nothing: `esp authentication` is missing"
            self.report("error", "S-033", place, cipher, message, "aes-128-cbc")
            return replace(proposal, esp_encryption=None)
        if path not in self.broken:
            message = "ESP encryption without authentication: nothing shows a changed packet"
            self.report("warning", "S-033", place, cipher, message)
        return proposal

    def _ike_policy(self, policy: IkePolicy, base: Path) -> IkePolicy:
        """Return the policy without proposals of the other IKE version."""
        path = (*base, "ike-policy", policy.name)
        self.own(*path)
        kept = tuple(
            item for item in policy.proposals if self._ike_proposal(policy, item, (*path, "seq", item.seq, "name"))
        )
        if path not in self.broken:
            self._ike_settings(policy, path)
        return policy if len(kept) == len(policy.proposals) else replace(policy, proposals=kept)

    def _ike_settings(self, policy: IkePolicy, path: Path) -> None:
        key = policy.pre_shared_key
        if key is not None and key.form == "ascii":
            self._quoted(key.value, "pre-shared-key", self.position(*path, "pre_shared_key"))
        if policy.address_allocation and policy.connection_type != "responder-only":
            place = self.position(*path, "address_allocation")
            message = "address allocation is for connection type responder-only"
            self.report("warning", "S-029", place, "address-allocation", message)
        # In an IKEv2 policy the option always has an effect: a peer may use a certificate even if we do not.
        if policy.validate_certificate_identity and policy.version == 1 and not self._uses_certificates(policy):
            place = self.position(*path, "validate_certificate_identity")
            message = "no certificate is used: no IKE proposal of the policy says rsa-signature"
            self.report("warning", "S-091", place, "validate-certificate-identity", message)

    def _quoted(self, key: bytes, command: str, place: SourcePosition) -> None:
        """Warn about a key in quotes: they are a part of the key (S-022), but other software removes them."""
        if key[:1] in _QUOTES or key[-1:] in _QUOTES:
            message = "the quotes are part of the key; if they are not meant, write the key without them"
            self.report("warning", "S-022", place, command, message)

    def _ike_proposal(self, policy: IkePolicy, item: ProposalRef, at: Path) -> bool:
        """Return whether the line is kept."""
        proposal = self.refer(item.name, self.config.ike_proposals, at, "IKE proposal")
        if proposal is None or proposal.version == policy.version:
            return True
        message = f"IKEv{policy.version} policy {policy.name} cannot use IKEv{proposal.version} proposal"
        self.report("error", "S-030", self.position(*at), item.name, f"{message} {item.name}")
        return False

    def _uses_certificates(self, policy: IkePolicy) -> bool:
        """Check an IKEv1 policy, whose proposals name the authentication methods."""
        known = [self.config.ike_proposals.get(item.name) for item in policy.proposals]
        if None in known or not known:
            # The method of an undefined proposal is not known.
            return bool(known)
        return any(item is not None and item.authentication == "rsa-signature" for item in known)

    def _manual_sa(self, sa: ManualSa) -> None:
        path: Path = ("security-association", sa.name)
        self.own(*path)
        spis = {"both": sa.both, "inbound": sa.inbound, "outbound": sa.outbound}
        if path in self.broken or any((*path, name) in self.broken for name in spis):
            return
        directions = [(name, spi) for name, spi in spis.items() if spi is not None]
        if not directions:
            place = self.position(*path, "name")
            self.report("warning", "S-109", place, sa.name, "no direction is configured: both, or in and out")
        for name, spi in directions:
            self._spi(spi, (*path, name))
        if len(directions) == 1 and sa.both is None:
            place = self.position(*path, directions[0][0])
            other = "out" if sa.inbound is not None else "in"
            self.report("warning", "S-109", place, place.word, f"half a pair: `{other}` is missing")
        elif sa.inbound is not None and sa.outbound is not None:
            one, two = sa.inbound, sa.outbound
            if (one.has_esp, one.has_ah) != (two.has_esp, two.has_ah):
                place = self.position(*path, "outbound")
                message = "in and out need the same security protocols"
                self.report("warning", "S-109", place, place.word, message)

    def _spi(self, spi: Spi, path: Path) -> None:
        opening = self.position(*path)
        for field, keyed in (("esp_auth", spi.esp_auth), ("esp_encryption", spi.esp_encryption), ("ah", spi.ah)):
            if keyed is not None and not keyed.key.hexadecimal:
                place = self.positions.get((*path, field), opening)
                self._quoted(keyed.key.value, place.word, place)
        if not spi.has_esp and not spi.has_ah:
            self.report("warning", "S-109", opening, opening.word, "neither ESP nor AH is configured")
        ciphered = spi.esp_encryption is not None and spi.esp_encryption.algorithm != "null"
        if spi.has_esp:
            if spi.esp_spi is None:
                field = "esp_auth" if spi.esp_auth is not None else "esp_encryption"
                place = self.positions.get((*path, field), opening)
                self.report("warning", "S-109", place, place.word, "ESP has a line but no SPI: `esp spi`")
            elif spi.esp_auth is None and not ciphered:
                place = self.position(*path, "esp_spi")
                self.report("warning", "S-109", place, place.word, "ESP has an SPI but no key")
        if spi.has_ah and spi.ah_spi is None:
            place = self.positions.get((*path, "ah"), opening)
            self.report("warning", "S-109", place, place.word, "AH has a key but no SPI: `ah spi`")
        elif spi.has_ah and spi.ah is None:
            place = self.position(*path, "ah_spi")
            self.report("warning", "S-109", place, place.word, "AH has an SPI but no key")


def _same(made: Mapping[str, _V], held: Mapping[str, _V]) -> bool:
    """Return whether nothing was removed: both hold the same objects."""
    return made is held or all(map(is_, made.values(), held.values()))
