"""Tunnels: what each one needs to be up (S-107), why it is not, and its states as a table.

Reasons are single phrases that status prints and tests compare; the first unmet condition is the one named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from chassis.model.router import Config, Interface, Tunnel
from chassis.xcrp import ike_config
from chassis.xcrp.flash import PkiStore

SHUTDOWN = "shutdown"
BINDING = "binding"
END_POINT = "end point"
SERVICE = "no Security service"
ASP = "ASP"
SA = "SA"
ACL = "access list"
QOS = "QoS policy"
IKE = "IKE"
ON_DEMAND = "on-demand tunnels: not emulated"
NO_LINE_CARD = "no line card"
LINE_CARD = "line card"
ROUTE = "no route to the peer"
INSTALLING = "SA not installed"
NEGOTIATING = "not negotiated yet"


class TunnelStatus(Enum):
    DOWN = "down"
    """A condition is unmet."""
    PREPARED = "prepared"
    """Its ASP holds its SAs, but a condition is unmet."""
    WAITING = "waiting"
    """Every condition is met; its ASP has not reported its SAs."""
    UP = "up"


class TunnelStatusEvent(Enum):
    MET = "conditions met"
    UNMET = "a condition is unmet"
    INSTALLED = "SAs installed"
    REMOVED = "SAs gone"


TABLE: dict[TunnelStatus, dict[TunnelStatusEvent, TunnelStatus]] = {
    TunnelStatus.DOWN: {
        TunnelStatusEvent.MET: TunnelStatus.WAITING,
        TunnelStatusEvent.UNMET: TunnelStatus.DOWN,
        TunnelStatusEvent.INSTALLED: TunnelStatus.PREPARED,
        TunnelStatusEvent.REMOVED: TunnelStatus.DOWN,
    },
    TunnelStatus.PREPARED: {
        TunnelStatusEvent.MET: TunnelStatus.UP,
        TunnelStatusEvent.UNMET: TunnelStatus.PREPARED,
        TunnelStatusEvent.INSTALLED: TunnelStatus.PREPARED,
        TunnelStatusEvent.REMOVED: TunnelStatus.DOWN,
    },
    TunnelStatus.WAITING: {
        TunnelStatusEvent.MET: TunnelStatus.WAITING,
        TunnelStatusEvent.UNMET: TunnelStatus.DOWN,
        TunnelStatusEvent.INSTALLED: TunnelStatus.UP,
        TunnelStatusEvent.REMOVED: TunnelStatus.WAITING,
    },
    TunnelStatus.UP: {
        TunnelStatusEvent.MET: TunnelStatus.UP,
        TunnelStatusEvent.UNMET: TunnelStatus.PREPARED,
        TunnelStatusEvent.INSTALLED: TunnelStatus.UP,
        TunnelStatusEvent.REMOVED: TunnelStatus.WAITING,
    },
}


@dataclass(slots=True)
class ControllerTunnel:
    """What changes about a tunnel. `unmet` is the condition that its record names, empty when all are met.

    A dead ASP is no part of `unmet`: cards know it by the ASP's own flag, and a record for each of its tunnels
    would be thousands of changes for one event. `said` is the ASP's own reason for having no SAs.
    """

    state: TunnelStatus = TunnelStatus.DOWN
    unmet_condition: str = ""
    circuit: int = 0
    home: str = ""
    asp_reason: str = ""
    since: float = 0.0
    negotiated: bool = False
    """Its SAs come from IKE, which says itself why there are none."""
    identity: str = ""
    """The peer's, as it proved it; of a negotiated tunnel that is or was up."""

    @property
    def up(self) -> bool:
        return self.state is TunnelStatus.UP

    def take(self, event: TunnelStatusEvent, now: float) -> bool:
        """Go where the table says; whether the tunnel came up or went down by it."""
        before = self.state
        self.state = TABLE[before][event]
        if (before is TunnelStatus.UP) == (self.state is TunnelStatus.UP):
            return False
        self.since = now
        return True

    def reason(self, asp: str, asp_usable: bool) -> str:
        """Why it is down; empty when it is up."""
        if self.state is TunnelStatus.UP:
            return ""
        if self.unmet_condition:
            return self.unmet_condition
        if not asp_usable:
            return f"{ASP}: {asp} is down"
        if self.negotiated:
            return f"{IKE}: {self.asp_reason.removeprefix(f'{IKE}: ') or NEGOTIATING}"
        return f"{INSTALLING}: {self.asp_reason}" if self.asp_reason else INSTALLING


def first_config_error(
    config: Config,
    tunnel: Tunnel,
    asp: str,
    holders: Sequence[Interface],
    follows: Sequence[str],
    line_cards: bool,
    flash: PkiStore,
) -> str:
    """The first condition that the configuration itself leaves unmet, or empty.

    `holders` are the interfaces of the outer context that have the local address, `follows` the ports bound to
    them; a loopback needs none. `flash` has the certificates that negotiated tunnels may need.
    """
    if tunnel.shutdown:
        return SHUTDOWN
    context = config.contexts.get(tunnel.interface_context)
    if not tunnel.interface or context is None or tunnel.interface not in context.interfaces:
        return BINDING
    if not tunnel.local or not tunnel.remote or tunnel.context not in config.contexts:
        return END_POINT
    if not any(interface.kind == "loopback" for interface in holders) and not follows:
        return END_POINT
    if not asp:
        return SERVICE
    if not tunnel.economical and not line_cards:
        return NO_LINE_CARD
    fault = (
        ike_config.config_error(config, tunnel, flash)
        if tunnel.kind == "static"
        else _manual_fault(config, tunnel)
    )
    if fault:
        return fault
    return _shared_fault(config, tunnel)


def _manual_fault(config: Config, tunnel: Tunnel) -> str:
    if not tunnel.entries:
        return SA
    acls = config.contexts[tunnel.interface_context].acls
    for entry in tunnel.entries:
        sa = config.manual_sas.get(entry.sa) if entry.sa else None
        if sa is None or not sa.complete:
            return f"{SA}: {entry.sa}" if entry.sa else SA
        if entry.acl and entry.acl not in acls:
            return f"{ACL}: {entry.acl}"
    return ""


def _shared_fault(config: Config, tunnel: Tunnel) -> str:
    """What tunnels of both kinds may name."""
    if tunnel.qos_policy and tunnel.qos_policy not in config.qos_policies:
        return f"{QOS}: {tunnel.qos_policy}"
    return ""
