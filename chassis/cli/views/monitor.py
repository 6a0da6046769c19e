"""The view of `monitor tunnel`."""

from __future__ import annotations

from typing import Any

from chassis.cli.views.layout import View, columns


def lines(data: dict[str, Any]) -> list[str]:
    """A row for each tunnel; packets, and packets a second where there were two looks, of a tunnel alone."""
    rows = [
        (
            row["name"],
            row["kind"],
            row.get("remote") or "-",
            "Up" if row["up"] else f"Down ({row.get('reason', '')})",
        )
        for row in data["tunnels"]
    ]
    shown = columns(("Tunnel", "Type", "Remote", "State"), rows)
    if data["traffic"]:
        rates = data["rates"]
        ways = [(way, count, f"{rates[way]:.0f}" if rates else "-") for way, count in data["traffic"].items()]
        shown += ["", *columns(("Way", "Packets", "Packets/s"), ways, right=("Packets", "Packets/s"))]
    return shown


tunnel = View(lambda data, scope: lines(data))
