"""Which names a value can be: of what kind of objects, and in which context they are looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chassis.config.drafts import Frame
from chassis.config.grammar import MODES, Command
from chassis.config.matcher import Value
from chassis.model.router import LOCAL

PORT: Final = "port"
"""Kind of ports, and type of the values that name one."""

ALL: Final = ""
"""Stands for all contexts."""


@dataclass(frozen=True, slots=True)
class NameQuery:
    """Names of objects of a kind (a word of paths, as in a difference) in a context, or in `ALL`."""

    kind: str
    context: str


_BY_FIELD: Final[Mapping[str, str]] = {
    "acl": "ipsec-access-list",
    "asp_group": "asp-group",
    "context": "context",
    "ike_policy": "ike-policy",
    "interface": "interface",
    "interface_context": "context",
    "policy": "ipsec-policy",
    "pools": "asp-pool",
    "policing_policy": "policing-policy",
    "qos_policy": "qos-policy",
    "sa": "security-association",
    "unnumbered": "interface",
}
"""Kind of the objects that a value of this name names."""

_BY_COMMAND: Final[Mapping[str, str]] = {
    "ike-policy.seq-proposal": "ike-proposal",
    "ipsec-policy.seq-proposal": "ipsec-proposal",
    "clear-ike-sa": "tunnel",
    "clear-counters": "tunnel",
    "clear-ipsec-sa": "tunnel",
    "show-asp-group": "asp-group",
    "show-asp-pool": "asp-pool",
    "show-ike-policy": "ike-policy",
    "show-ike-proposal": "ike-proposal",
    "show-ip-interface": "interface",
    "show-ipsec-access-list": "ipsec-access-list",
    "show-ipsec-queues": "tunnel",
    "show-ipsec-policy": "ipsec-policy",
    "show-ipsec-profile": "ipsec-profile",
    "show-ipsec-proposal": "ipsec-proposal",
    "show-ipsec-sa": "security-association",
    "show-tunnel-ike-statistics": "tunnel",
    "show-tunnel-ipsec": "tunnel",
    "show-tunnel-statistics": "tunnel",
}
"""Kind of the objects of a command's `name`."""


def query(command: Command, value: Value, frames: Sequence[Frame], context: str) -> NameQuery | None:
    """Return whose names a value of a command is; None for other values. `frames` are the open modes, none in exec
    mode, where names are those of the session's context."""
    field = value.field
    if value.type.name == PORT:
        kind = PORT
    elif field == "name":
        kind = MODES[command.enters].path if command.does == "enter" else _BY_COMMAND.get(command.id, "")
    else:
        kind = _BY_FIELD.get(field, "")
    if not kind:
        return None
    if not frames:
        return NameQuery(kind, context)
    return NameQuery(kind, _context(frames, field))


def _context(frames: Sequence[Frame], field: str) -> str:
    inner = frames[-1]
    if inner.mode == "tunnel":
        where = {"ike_policy": "context", "acl": "interface_context"}.get(field)
        return str(inner.fields[where] or LOCAL) if where is not None else ALL
    return next((str(frame.key) for frame in reversed(frames) if frame.mode == "context"), ALL)
