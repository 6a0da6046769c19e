"""Tunnels at the controller: the conditions for each to be up (S-107), and the reason why it is down.

The reason is a phrase that `status` prints. It names the first unmet condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from chassis.model.router import Config, Context, Interface, Tunnel
from chassis.xcrp import ike_config
from chassis.xcrp.flash import PkiStore
from chassis.xcrp.inventory import is_shut

SHUTDOWN = "shutdown"
BINDING = "no interface binding"
INTERFACE = "interface"
END_POINT = "end point not configured"
SERVICE = "no Security service"
ASP = "ASP"
SA = "manual SA not configured"
ACL = "access list"
QOS = "QoS policy"
IKE = "IKE"
NO_LINE_CARD = "no line card"
LINE_CARD = "line card down"
ROUTE = "no route to the peer"
INSTALLING = "SAs not installed"
NEGOTIATING = "not negotiated yet"
NO_PEER = "no peer"


def card_shut(card: str) -> str:
    """Return the condition that a card which is shut down leaves unmet."""
    return f"{SHUTDOWN}: {card}"


class TunnelStatus(Enum):
    DOWN = "down"
    """A condition is unmet, and its ASP holds no SAs."""
    PREPARED = "sas ready"
    """Its ASP holds its SAs, but a condition is unmet."""
    WAITING = "sas pending"
    """Every condition is met; its ASP has not reported its SAs."""
    UP = "up"


@dataclass(slots=True)
class ControllerTunnel:
    """The variable state of a tunnel. It is up when every condition is met and its ASP holds its SAs.

    `unmet_condition` is the condition that its record names, empty if all are met. A failed ASP is not one of
    them: cards know it from the ASP's record, and changing the record of each of its tunnels would be thousands of
    changes for one event. `asp_reason` is the reason of the ASP for not having SAs. `identity` is the
    authenticated identity of the peer of a negotiated tunnel that is or was up.
    """

    conditions_met: bool = False
    sas_installed: bool = False
    unmet_condition: str = ""
    circuit: int = 0
    home: str = ""
    asp_reason: str = ""
    since: float = 0.0
    negotiated: bool = False
    """True: IKE makes the SAs, and reports the reason if there are none."""
    identity: str = ""

    @property
    def up(self) -> bool:
        return self.conditions_met and self.sas_installed

    @property
    def status(self) -> TunnelStatus:
        if self.conditions_met:
            return TunnelStatus.UP if self.sas_installed else TunnelStatus.WAITING
        return TunnelStatus.PREPARED if self.sas_installed else TunnelStatus.DOWN

    def set_conditions(self, met: bool, now: float) -> bool:
        """Set whether every condition is met; return whether the tunnel came up or went down by it."""
        before, self.conditions_met = self.up, met
        return self._changed(before, now)

    def set_sas(self, installed: bool, now: float) -> bool:
        """Set whether its ASP holds its SAs; return whether the tunnel came up or went down by it."""
        before, self.sas_installed = self.up, installed
        return self._changed(before, now)

    def _changed(self, before: bool, now: float) -> bool:
        if before is self.up:
            return False
        self.since = now
        return True

    def reason(self, asp: str, asp_usable: bool) -> str:
        """Return why the tunnel is down; empty if it is up."""
        if self.up:
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
    other: str,
) -> str:
    """Return the first condition that the configuration leaves unmet, or empty.

    `holders` are the interfaces of the outer context with the local address, `follows` the ports bound to them; a
    loopback needs no port. `flash` has the certificates that negotiated tunnels may need. `other` is the tunnel
    that has the interface, if that is another one.
    """
    if tunnel.shutdown:
        return SHUTDOWN
    context = config.contexts.get(tunnel.interface_context)
    if not tunnel.interface or context is None or tunnel.interface not in context.interfaces:
        return BINDING
    if tunnel.kind == "on-demand":
        fault = _multibind_fault(context, context.interfaces[tunnel.interface])
        if fault:
            return fault
    elif other:
        return f"{INTERFACE}: {tunnel.interface} carries tunnel {other} already"
    ended = tunnel.local and (tunnel.remote or tunnel.kind == "on-demand")
    if not ended or tunnel.context not in config.contexts:
        return END_POINT
    if not any(interface.kind == "loopback" for interface in holders) and not follows:
        return END_POINT
    if not asp:
        return SERVICE
    if is_shut(config, asp):
        return card_shut(asp)
    if not tunnel.economical and not line_cards:
        return NO_LINE_CARD
    fault = (
        _manual_fault(config, tunnel)
        if tunnel.kind == "manual"
        else ike_config.config_error(config, tunnel, flash)
    )
    if fault:
        return fault
    return _shared_fault(config, tunnel)


def _multibind_fault(context: Context, interface: Interface) -> str:
    """Return why on-demand tunnels cannot be bound to an interface, or empty (B-174)."""
    if interface.kind != "multibind":
        return f"{INTERFACE}: {interface.name} is not multibind"
    if interface.addresses:
        return f"{INTERFACE}: {interface.name} is not unnumbered"
    lender = context.interfaces.get(interface.unnumbered or "")
    if lender is None or not lender.addresses:
        return f"{INTERFACE}: {interface.name} borrows no address"
    return ""


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
    """Return the first undefined name that tunnels of every kind may use, or empty."""
    if tunnel.qos_policy and tunnel.qos_policy not in config.qos_policies:
        return f"{QOS}: {tunnel.qos_policy}"
    return ""
