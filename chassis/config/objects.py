"""The object of each configuration mode: its class, the fields that its opening line sets, its key and path."""

from __future__ import annotations

from typing import Any

from chassis.config.commands import CONFIG_COMMANDS
from chassis.config.drafts import Frame, Path
from chassis.config.grammar import MODES, Command
from chassis.model.acl import Acl
from chassis.model.ike import IkePolicy, IkeProposal
from chassis.model.ipsec import IpsecPolicy, IpsecProposal, ManualSa, Profile, QosPolicy, Spi
from chassis.model.qos import PolicingPolicy
from chassis.model.router import Administrator, AspGroup, AspPool, Card, Context, Interface, Port, Tunnel

CLASSES: dict[str, type] = {
    "asp-pool": AspPool,
    "asp-group": AspGroup,
    "context": Context,
    "interface": Interface,
    "administrator": Administrator,
    "ike-policy": IkePolicy,
    "ipsec-acl": Acl,
    "ipsec-profile": Profile,
    "tunnel": Tunnel,
    "ike-proposal": IkeProposal,
    "ike2-proposal": IkeProposal,
    "ipsec-proposal": IpsecProposal,
    "ipsec-policy": IpsecPolicy,
    "ipsec-sa": ManualSa,
    "ipsec-sa-spi": Spi,
    "ipsec-policy-pq": QosPolicy,
    "policing": PolicingPolicy,
    "card": Card,
    "port": Port,
}
"""The class of the object that each mode configures."""

FIXED: dict[str, dict[str, Any]] = {
    "interface": {"kind": "numbered"},
    "interface-loopback": {"kind": "loopback"},
    "interface-ipsec": {"kind": "ipsec"},
    "interface-ipsec-multibind": {"kind": "multibind"},
    "ike-policy": {"version": 1},
    "ike2-policy": {"version": 2},
    "ike-proposal": {"version": 1},
    "ike2-proposal": {"version": 2},
    "tunnel-static": {"kind": "static", "economical": False},
    "tunnel-static-economical": {"kind": "static", "economical": True},
    "tunnel-on-demand": {"kind": "on-demand", "economical": False},
    "tunnel-on-demand-economical": {"kind": "on-demand", "economical": True},
    "tunnel-manual": {"kind": "manual", "economical": False},
    "tunnel-manual-economical": {"kind": "manual", "economical": True},
}
"""Fields that the opening line sets."""

HOLDERS: dict[tuple[str, str], tuple[str, str]] = {
    (MODES[mode].path, MODES[command.enters].path): (command.target, command.enters)
    for command in CONFIG_COMMANDS
    if command.does == "enter" and "name" in command.fields + ("name",) * (command.enters == "card")
    for mode in command.modes
}
"""Field that holds the objects of a kind, and their mode; by the words for the object around and for them."""


def variant_of(mode: str, content: dict[str, Any]) -> str:
    """Return the grammar's variant of an object: ikev1 or ikev2 for policies, the kind for tunnels."""
    if mode == "ike-policy":
        return f"ikev{content['version']}"
    return str(content["kind"]) if mode == "tunnel" else ""


def key_of(command: Command, values: dict[str, object]) -> str | int | None:
    """Return the key of the object that an opening line names; None for the directions of a manual SA."""
    if command.enters == "card":
        return int(str(values["slot"]))
    name = values.get("name")
    return None if name is None else str(name)


def path_of(command: Command, parent: Frame, key: str | int | None) -> Path:
    """Return the path of the object that an opening line opens."""
    if command.enters == "ipsec-sa-spi":
        return (*parent.path, command.target)
    return (*parent.path, MODES[command.enters].path, key if key is not None else "")
