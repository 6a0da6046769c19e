"""Views of routes and neighbours."""

from __future__ import annotations

from typing import Any

from chassis.cli.views.layout import Data, Scope, View, ViewError, columns

LEGEND = ("Codes: C - connected, S - static or by a traffic selector", "       > - Active Route", "")


def _next_hops(route: dict[str, Any]) -> list[tuple[str, str, str, str, int, str]]:
    rows = []
    for place, hop in enumerate(route["next_hops"]):
        way = hop["tunnel"] or hop["port"] or hop["kind"]
        code = "C" if hop["cost"] == 0 else "S"
        prefix = route["prefix"] if place == 0 else ""
        rows.append((">" if place == 0 else "", code, prefix, hop["address"], hop["cost"], way))
    return rows


def _routes(data: Data, scope: Scope) -> list[str]:
    rows = [row for route in data["routes"] for row in _next_hops(route)]
    titles = ("", "Type", "Network", "Next Hop", "Cost", "Interface")
    lines = [*LEGEND, *columns(titles, rows, right=("Cost",))]
    lines += [f"{route['prefix']} by {route['next_hop']} is down: {route['reason']}" for route in data["down"]]
    return lines


routes = View(_routes)


def _answered(data: Data, scope: Scope) -> Data:
    """The neighbours that line cards know; the first error of one that did not answer."""
    for card, error in data["errors"].items():
        raise ViewError(f"{card}: {error}")
    return [row for reply in data["cards"].values() for row in reply["neighbours"]]


def _arp(data: Data, scope: Scope) -> list[str]:
    resolved = sum(bool(row["mac"]) and row["state"] != "incomplete" for row in data)
    rows = [(row["address"], row["mac"] or "-", "-", "ARPA", row["port"]) for row in data]
    return [
        f"Total number of arp entries in cache: {len(data)}",
        f"  Resolved entry   : {resolved}",
        f"  Incomplete entry : {len(data) - resolved}",
        "",
        *columns(("Host", "Hardware address", "Ttl", "Type", "Circuit"), rows),
    ]


arp = View(_arp, _answered)
