"""Views of tunnels and of what their ASPs count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chassis.cli.views.layout import Data, Scope, View, ViewError, columns, duration, line_of, pairs

ON_DEMAND: Final = "on-demand"


def _select(data: Data, scope: Scope) -> Data:
    """One part of the list. What was asked for by its remote end is there, or an error."""
    remote = scope.values.get("remote")
    if remote and not data["tunnels"]:
        raise ViewError(f"no tunnel to {remote}")
    return data


def _state(row: Mapping[str, Any]) -> str:
    return "Up" if row["up"] else "Down"


def _state_and_reason(row: Mapping[str, Any]) -> str:
    """Whether a tunnel is up, and if not, why; of an on-demand one how many peers are."""
    if "instances" in row and row["up"]:
        return f"Up ({row['instances_up']} of {row['instances']} peers)"
    return "Up" if row["up"] else f"Down ({row['reason']})" if row.get("reason") else "Down"


def _asp(row: Mapping[str, Any]) -> str:
    return str(row.get("asp", "")).removeprefix("asp ") or "-"


WIDTHS: Final = (16, 9, 13, 13, 4, 7, 5)
"""Least widths of the columns, so that those of all parts of a long list stand below each other."""


def _tunnels(data: Data, scope: Scope) -> list[str]:
    found = data["tunnels"]
    if scope.values.get("form") == "detail":
        return [line for row in found for line in _detail(row, scope)]
    rows = [
        (
            row["name"],
            row["kind"],
            row.get("local") or "-",
            row.get("remote") or "-",
            _asp(row),
            row.get("circuit") or "-",
            _state_and_reason(row),
        )
        for row in found
    ]
    lines = columns(("Tunnel", "Type", "Local", "Remote", "ASP", "Circuit", "State"), rows, least=WIDTHS)
    if not data.get("first", True):
        del lines[0]
    if data.get("next"):
        return lines
    total, up = data["total"], data["up"]
    return [*lines, "", f"Tunnels: {total}, up: {up}, down: {total - up}"]


def _detail(row: Mapping[str, Any], scope: Scope) -> list[str]:
    values: dict[str, object] = {"Type": row["kind"], "State": _state(row)}
    if not row["up"]:
        values["Reason"] = row.get("reason", "")
    if "since" in row:
        values["Time in this state"] = duration(scope.now - row["since"])
    for title, name in (
        ("Mode", "mode"),
        ("Local end point", "local"),
        ("Remote end point", "remote"),
        ("Context of end points", "outer_context"),
        ("Interface", "interface"),
        ("Context of interface", "context"),
        ("ASP", "asp"),
        ("Circuit", "circuit"),
        ("Line card", "home"),
        ("IKE policy", "ike_policy"),
        ("IKE version", "ike_version"),
        ("Peer identity", "identity"),
        ("IPsec profile", "profile"),
        ("Address of the peer", "assigned"),
        ("Address pool", "pool"),
        ("Accounting session", "session"),
        ("Most peers of a profile", "max_tunnels"),
    ):
        if row.get(name):
            values[title] = _asp(row) if name == "asp" else row[name]
    if "instances" in row:
        values["Peers"] = f"{row['instances']}, up: {row['instances_up']}"
    lines = [f"Tunnel {row['name']}", *pairs(values, "  ")]
    lines += [f"  Waits for a clear: {line}" for line in row.get("waiting", ())]
    lines += [f"  Network {network}" for network in row.get("networks", ())]
    lines += [
        f"  SA {sa['direction']:<3} {sa['protocol']} spi {sa['spi']:#010x} {sa['algorithms']}"
        for sa in row.get("sas", ())
    ]
    return [*lines, ""]


tunnels = View(_tunnels, _select)


def _replies(data: Data, scope: Scope) -> Data:
    """What ASPs counted of one tunnel; the first error of one that did not answer."""
    for card, error in data["errors"].items():
        raise ViewError(f"{card}: {error}")
    rows = [
        {"asp": card.removeprefix("asp "), **row}
        for card, reply in data["cards"].items()
        for row in reply.get("tunnels", ())
    ]
    name = scope.values.get("name")
    if not rows:
        raise ViewError(f"no ASP counts for tunnel {name!r}")
    if scope.values.get("form") == ON_DEMAND and any(row["kind"] != ON_DEMAND for row in rows):
        raise ViewError(f"tunnel {name!r} is not on-demand")
    return rows


def _statistics(data: Data, scope: Scope) -> list[str]:
    lines = []
    for row in data:
        peer = f" of {row['identity']}" if row.get("identity") else ""
        lines.append(f"Tunnel {row['name']}{peer} on ASP {row['asp']}")
        rows = [
            (title, f"{row[name]['packets']}", f"{row[name]['octets']}", sum(row["drops"][way].values()))
            for title, name, way in (("out", "encapsulated", "out"), ("in", "decapsulated", "in"))
        ]
        lines += columns(("Way", "Packets", "Octets", "Drops"), rows, right=("Packets", "Octets", "Drops"))
        if scope.values.get("detail"):
            lines += _drops(row["drops"]) + _sas(row["sas"])
        lines.append("")
    return lines


def _drops(drops: Mapping[str, Mapping[str, int]]) -> list[str]:
    return [
        f"  dropped {way}: {count} {cause}"
        for way, causes in drops.items()
        for cause, count in causes.items()
        if count
    ]


def _sas(sas: list[Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            sa["direction"],
            line_of(sa),
            sa["protocol"],
            f"{sa['spi']:#010x}",
            sa["peer"],
            sa["packets"],
            sa["octets"],
            sum(sa["drops"].values()),
        )
        for sa in sas
    ]
    titles = ("SA", "Line", "Protocol", "SPI", "Peer", "Packets", "Octets", "Drops")
    return columns(titles, rows, right=("Packets", "Octets", "Drops")) if rows else []


statistics = View(_statistics, _replies)


def _counted(data: Data, scope: Scope) -> Data:
    """IKE's counters of one tunnel, added up over its ASPs."""
    for card, error in data["errors"].items():
        raise ViewError(f"{card}: {error}")
    total: dict[str, int] = {}
    for reply in data["cards"].values():
        for counts in reply.get("tunnels", {}).values():
            for name, count in counts.items():
                total[name] = total.get(name, 0) + count
    return {"tunnel": scope.values["name"], "statistics": total}


def _ike_statistics(data: Data, scope: Scope) -> list[str]:
    counts = dict(sorted(data["statistics"].items()))
    if not scope.values.get("detail"):
        counts = {name: count for name, count in counts.items() if count}
    return [f"IKE statistics of tunnel {data['tunnel']}", *(pairs(counts, "  ") or ["  nothing counted yet"])]


ike_statistics = View(_ike_statistics, _counted)


def _cleared(data: Data, scope: Scope) -> Data:
    for card, error in data["errors"].items():
        raise ViewError(f"{card}: {error}")
    return data


cleared = View(lambda data, scope: [], _cleared)
"""`clear` says nothing where it was done."""
