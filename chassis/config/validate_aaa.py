"""The checks of AAA at commit: the interface of NAS-IP-Address, pools, and who has the keys of peers."""

from __future__ import annotations

from chassis.config.affected import asks_aaa
from chassis.config.checking import CommitChecks
from chassis.config.drafts import Path, SourcePosition
from chassis.model.router import LOCAL, Context, Tunnel
from chassis.net.address import contains, parse_prefix


class AaaChecks(CommitChecks):
    """Checks of what a context says of RADIUS servers and pools."""

    def aaa(self, context: Context, path: Path) -> None:
        if (name := context.radius_nas_interface) is not None:
            at = (*path, "radius_nas_interface")
            where = f" in context {context.name}"
            lender = self.refer(name, context.interfaces, at, "interface", where)
            if lender is not None and lender.address is None:
                message = f"interface {name} has no address for NAS-IP-Address"
                self.report("warning", "radius", self.position(*at), name, message)
        self._pools_apart(context, path)

    def _pools_apart(self, context: Context, path: Path) -> None:
        """Warn where two pools of a context share addresses: each of these is leased by one of them at a time."""
        pools = [(pool.name, parse_prefix(pool.prefix)) for pool in context.ip_pools]
        for number, (name, prefix) in enumerate(pools):
            for other, before in pools[:number]:
                if contains(before, prefix[0]) or contains(prefix, before[0]):
                    place = self.position(*path, "ip_pools", name, "prefix")
                    self.report(
                        "warning", "ip-pool", place, name, f"ip pool {other} has addresses of this one too"
                    )
                    break

    def servers(self, tunnel: Tunnel, place: SourcePosition) -> None:
        """Warn if there is no RADIUS server that can have the keys of the peers (guide 9.3)."""
        contexts = self.config.contexts
        context = contexts.get(tunnel.interface_context)
        if tunnel.interface is None or context is None or not asks_aaa(self.config, tunnel):
            return
        asked = (context, contexts[LOCAL]) if context.aaa_fallback else (context,)
        if not any(one.radius_servers for one in asked):
            names = " and ".join(dict.fromkeys(one.name for one in asked))
            message = f"no peer gets its key: there is no RADIUS server in context {names}"
            self.report("warning", "use-aaa", place, tunnel.ike_policy or "", message)
