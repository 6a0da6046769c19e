"""An operator's commands for IKE: `clear`, `rekey`, `sas`, `statistics`, `keys`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from chassis.ase.entry_numbers import describe_entry
from chassis.bus.messages import Attributes

if TYPE_CHECKING:
    from chassis.ase.ike.connection_manager import ConnectionState
    from chassis.ase.ike.engine import Ike


class RequestError(Exception):
    """A command that cannot be carried out; the text goes to the operator."""


def answer(ike: Ike, name: str, arguments: Attributes, now: float) -> Attributes:
    """Carry out a command. `tunnel` in the arguments is a number; without it all tunnels are meant.

    Raises:
        RequestError: there is no such command or tunnel.
    """
    tunnels = _tunnels(ike, arguments)
    if name == "clear":
        clear = {"ike": ike.keeping.clear_ike, "ipsec": ike.keeping.clear_pairs}
        for tunnel in tunnels:
            clear.get(str(arguments.get("what")), ike.keeping.clear)(tunnel, now)
        return {"cleared": len(tunnels)}
    if name == "rekey":
        whole = arguments.get("what") == "ike"
        return {"begun": sum(ike.keeping.rekey(tunnel, whole, now) for tunnel in tunnels)}
    if name == "sas":
        rows = [_row(ike, ike.keeping.by_tunnel[tunnel]) for tunnel in tunnels]
        return cast("Attributes", {"tunnels": rows})
    if name == "statistics":
        counts = {str(tunnel): ike.statistics.tunnels.get(tunnel, {}) for tunnel in tunnels}
        return cast("Attributes", {"total": dict(ike.statistics.total), "tunnels": counts})
    if name == "keys":
        secrets = [
            row
            for tunnel in tunnels
            for session in ike.keeping.by_tunnel[tunnel].sessions()
            for row in session.secrets()
        ]
        return cast("Attributes", {"keys": secrets})
    raise RequestError(f"IKE does not know {name!r}")


def _tunnels(ike: Ike, arguments: Attributes) -> list[int]:
    wanted = arguments.get("tunnel")
    if wanted is None:
        return sorted(ike.keeping.by_tunnel)
    if not isinstance(wanted, int) or wanted not in ike.keeping.by_tunnel:
        raise RequestError(f"no negotiated tunnel {wanted!r} is on {ike.asp}")
    return [wanted]


def _row(ike: Ike, keeper: ConnectionState) -> dict[str, Any]:
    return {
        "tunnel": keeper.connection.tunnel,
        "name": keeper.connection.name,
        "up": keeper.all_entries_up,
        "reason": ike.keeping.reason(keeper),
        "failures": keeper.failures,
        "missing": [
            {**describe_entry(line.number), "reason": keeper.failures_of(line).reason}
            for line in keeper.missing_entries
        ],
        "ike": [session.describe() for session in keeper.sessions()],
    }
