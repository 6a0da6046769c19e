"""The checks of tunnels at commit: ends, interfaces, profiles, IKE policies, identities and SPIs (guide 9)."""

from __future__ import annotations

from dataclasses import replace

from chassis.config.affected import asks_aaa, canonical_identity, expected_identity, sharing
from chassis.config.checking import nearest
from chassis.config.drafts import Path
from chassis.config.validate_aaa import AaaChecks
from chassis.model.acl import MAX_IKEV1_RULES
from chassis.model.ipsec import TunnelEntry
from chassis.model.remote_identity import Precision, RemoteIdentity
from chassis.model.router import Context, Interface, Tunnel


class TunnelChecks(AaaChecks):
    """Checks of tunnels, and of the `seq` lines that they and profiles have."""

    def entry(self, entry: TunnelEntry, at: Path, acl_context: Context | None) -> None:
        config = self.config
        if entry.sa is not None:
            self.refer(entry.sa, config.manual_sas, (*at, "sa"), "manual SA")
        elif entry.policy is not None:
            self.refer(entry.policy, config.ipsec_policies, (*at, "policy"), "IPsec policy")
        if entry.acl is not None and acl_context is not None:
            where = f" in context {acl_context.name}"
            self.refer(entry.acl, acl_context.acls, (*at, "acl"), "IPsec ACL", where)

    def tunnels(self) -> dict[str, Tunnel]:
        tunnels: dict[str, Tunnel] = {}
        static_ids: dict[tuple[str, str], str] = {}
        demand_ids: dict[tuple[str, str], str] = {}
        policies: dict[tuple[str, str, str], tuple[str, str]] = {}
        bound: dict[tuple[str, str], str] = {}
        inbound: dict[tuple[str, str, str, int], str] = {}
        only = self.affected
        # What another tunnel claims before is known only if that one is checked too.
        others = sharing(only.old, only.new, only.tunnels) - only.tunnels if only is not None else ()
        for tunnel in self.config.tunnels.values():
            path: Path = ("tunnel", tunnel.name)
            if only is not None and tunnel.name not in only.tunnels:
                if tunnel.name not in others:
                    tunnels[tunnel.name] = tunnel
                    continue
                self.silent = True
            else:
                self.silent = False
                self.own(*path)
            self._ends(tunnel, path)
            self._binding(tunnel, path, bound)
            self._ike(tunnel, path, policies)
            if tunnel.qos_policy is not None:
                self.refer(tunnel.qos_policy, self.config.qos_policies, (*path, "qos_policy"), "QoS policy")
            if tunnel.remote_id is not None:
                tunnel = self._remote_id(tunnel, path, static_ids, demand_ids)
            if tunnel.kind == "manual":
                tunnel = self._manual_entries(tunnel, path, inbound)
            tunnels[tunnel.name] = tunnel
        self.silent = False
        return tunnels

    def _ends(self, tunnel: Tunnel, path: Path) -> None:
        if tunnel.local is None:
            return
        at = self.position(*path, "local")
        context = self.config.contexts.get(tunnel.context)
        if context is None:
            self.refer(tunnel.context, self.config.contexts, (*path, "context"), "context", code="S-047")
            return
        if context.asp_group is None:
            place = self.position(*path, "context") if tunnel.context_written else at
            name = tunnel.context if tunnel.context_written else tunnel.local
            self.report("warning", "S-106", place, name, f"context {context.name} has no Security service")
        holders = self.holders(context, tunnel.local)
        if not holders:
            message = f"no interface of context {context.name} has address {tunnel.local}"
            self.report("warning", "S-105", at, tunnel.local, message)
        elif all(item.kind != "loopback" for item in holders):
            message = f"{tunnel.local} is not the address of a loopback: the tunnel goes down with interface"
            self.report("warning", "S-105", at, tunnel.local, f"{message} {holders[0].name}")

    def _binding(self, tunnel: Tunnel, path: Path, bound: dict[tuple[str, str], str]) -> None:
        config, name = self.config, tunnel.interface
        context = config.contexts.get(tunnel.interface_context)
        if name is not None and context is None:
            at = self.position(*path, "interface_context")
            missing = tunnel.interface_context
            holders = [other.name for other in config.contexts.values() if name in other.interfaces]
            near = nearest(missing, holders) or (holders[0] if holders else nearest(missing, config.contexts))
            also = f"; interface {name} is in {', '.join(holders)}" if holders else ""
            self.report("warning", "S-047", at, missing, f"no context {missing}{also}", near)
        elif name is not None and context is not None:
            where = f" in context {context.name}"
            interface = self.refer(name, context.interfaces, (*path, "interface"), "interface", where)
            if interface is not None:
                self._bound(tunnel, interface, context, path, bound)
        if tunnel.kind == "on-demand" and (name is None or context is not None):
            profiles = config.contexts[tunnel.interface_context].profiles if name is not None else {}
            if name is not None and tunnel.name not in profiles:
                at = self.position(*path, "name")
                only = next(iter(profiles)) if len(profiles) == 1 else nearest(tunnel.name, profiles)
                message = f"no IPsec profile {tunnel.name} in context {tunnel.interface_context}"
                if asks_aaa(config, tunnel):
                    message += ": each peer needs one that AAA names"
                self.report("warning", "S-045", at, tunnel.name, message, only)
        for entry in tunnel.entries:
            # A missing context is reported once, at the binding.
            self.entry(entry, (*path, "seq", entry.seq), context)

    def _bound(
        self,
        tunnel: Tunnel,
        interface: Interface,
        context: Context,
        path: Path,
        bound: dict[tuple[str, str], str],
    ) -> None:
        at = self.position(*path, "interface")
        if (interface.kind == "multibind") != (tunnel.kind == "on-demand"):
            wanted = "a multibind" if tunnel.kind == "on-demand" else "an ordinary tunnel"
            message = f"a tunnel that is {tunnel.kind} binds to {wanted} interface, {interface.name} is none"
            self.report("warning", "binding", at, interface.name, message)
        elif interface.kind != "multibind":
            other = bound.setdefault((context.name, interface.name), tunnel.name)
            if other != tunnel.name:
                message = f"interface {interface.name} carries tunnel {other} already, and takes only one"
                self.report("warning", "binding", at, interface.name, message)

    def _ike(self, tunnel: Tunnel, path: Path, policies: dict[tuple[str, str, str], tuple[str, str]]) -> None:
        context = self.config.contexts.get(tunnel.context)
        if tunnel.ike_policy is None or context is None:
            return
        at = (*path, "ike_policy")
        where = f" in context {context.name}"
        policy = self.refer(tunnel.ike_policy, context.ike_policies, at, "IKE policy", where, "S-048")
        if policy is None:
            return
        place = self.position(*at)
        if tunnel.kind == "on-demand":
            if policy.version == 1 and policy.mode != "aggressive":
                message = "an on-demand tunnel with IKEv1 needs `mode aggressive` in its policy"
                self.report("warning", "S-093", place, policy.name, message)
            if policy.connection_type == "initiator-only":
                message = "an on-demand tunnel only answers, and its policy says `connection-type initiator-only`"
                self.report("warning", "on-demand", place, policy.name, message)
            self.servers(tunnel, place)
        elif policy.pre_shared_key is not None and policy.pre_shared_key.form == "aaa":
            message = "use-aaa is for on-demand tunnels only"
            self.report("warning", "use-aaa", place, policy.name, message)
        if policy.version == 1:
            self._many_rules(tunnel, path)
        identity = policy.identity_remote
        remote = expected_identity(self.config, tunnel)
        given = tunnel.remote_id
        if identity is not None and given is not None and remote != canonical_identity(identity.value):
            message = f"remote-id decides; identity remote {identity.value} of policy {policy.name} differs"
            self.report("warning", "S-006", self.position(*path, "remote_id"), given, message)
        if remote and tunnel.local is not None:
            other = policies.setdefault((context.name, tunnel.local, remote), (policy.name, tunnel.name))
            if other[0] != policy.name:
                message = f"{given or remote} at {tunnel.local} is also in policy {other[0]} of tunnel {other[1]}"
                self.report("warning", "S-036", place, policy.name, message)

    def _many_rules(self, tunnel: Tunnel, path: Path) -> None:
        """Warn if an access list has more rules than IKEv1 negotiates; each rule has SAs of its own."""
        context = self.config.contexts.get(tunnel.interface_context)
        for entry in tunnel.entries:
            acl = context.acls.get(entry.acl) if context is not None and entry.acl is not None else None
            if acl is not None and len(acl.rules) > MAX_IKEV1_RULES:
                message = (
                    f"IKEv1 negotiates each rule by itself, and the first {MAX_IKEV1_RULES} of a line: "
                    f"what only the others of the {len(acl.rules)} rules select is dropped"
                )
                self.report("warning", "S-080", self.position(*path, "seq", entry.seq, "acl"), acl.name, message)

    def _remote_id(
        self,
        tunnel: Tunnel,
        path: Path,
        static_ids: dict[tuple[str, str], str],
        demand_ids: dict[tuple[str, str], str],
    ) -> Tunnel:
        assert tunnel.remote_id is not None
        at = self.position(*path, "remote_id")
        if tunnel.kind == "manual":
            # Point at the command word, which is one blank before its value in every form of the line.
            word = at._replace(column=max(1, at.column - at.offset), word="remote-id", offset=0)
            self.report("warning", "S-021", word, "remote-id", "a manual tunnel has no IKE identity to check")
            return tunnel
        expected = RemoteIdentity.of(tunnel.remote_id)
        if tunnel.kind == "static" and expected.precision is not Precision.EXACT:
            message = "a static tunnel has one peer: no identity of a peer is equal to this one"
            self.report("warning", "S-021", at, tunnel.remote_id, message)
        key = (tunnel.context, expected.canonical)
        mine, others = (demand_ids, static_ids) if tunnel.kind == "on-demand" else (static_ids, demand_ids)
        other = others.get(key)
        if other is not None:
            message = f"context {tunnel.context} and this identity are those of tunnel {other} of another kind"
            self.report("error", "S-094", at, tunnel.remote_id, message)
            return replace(tunnel, remote_id=None)
        mine.setdefault(key, tunnel.name)
        return tunnel

    def _manual_entries(self, tunnel: Tunnel, path: Path, inbound: dict[tuple[str, str, str, int], str]) -> Tunnel:
        """Return the tunnel without SAs whose inbound (destination, protocol, SPI) another tunnel has already."""
        kept: list[TunnelEntry] = []
        for entry in tunnel.entries:
            sa = self.config.manual_sas.get(entry.sa or "")
            receive = sa.receive if sa is not None else None
            if receive is None or tunnel.local is None:
                kept.append(entry)
                continue
            keys = [
                (tunnel.context, tunnel.local, protocol, spi)
                for protocol, spi in (("ESP", receive.esp_spi), ("AH", receive.ah_spi))
                if spi is not None
            ]
            clash = next((key for key in keys if inbound.get(key, tunnel.name) != tunnel.name), None)
            if clash is None:
                inbound.update(dict.fromkeys(keys, tunnel.name))
                kept.append(entry)
                continue
            place = self.position(*path, "seq", entry.seq, "sa")
            message = f"{clash[2]} SPI {clash[3]} to {tunnel.local} belongs to tunnel {inbound[clash]} already"
            self.report("error", "S-109", place, entry.sa or "", message)
        return tunnel if len(kept) == len(tunnel.entries) else replace(tunnel, entries=tuple(kept))
