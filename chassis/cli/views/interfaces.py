"""Views of contexts, interfaces, routes, ports, circuits and ARP entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from chassis.bus.log_lines import circuit_id
from chassis.cli.views.layout import DATE, Data, Scope, View, ViewError, columns, moment, pairs
from chassis.model.qos import class_of

Row = Mapping[str, Any]

RULER: Final = 66
"""Dashes between a context's head and its ARP entries."""


def _up(up: object) -> str:
    return "Up" if up else "Down"


STATES: Final = {"up": "Up", "down": "Down", "unbound": "UnBound"}


def _answered(data: Data) -> None:
    """Raise for the first card that did not answer."""
    for card, error in data.get("errors", {}).items():
        raise ViewError(f"{card}: {error}")


def _own_context(data: Data, scope: Scope) -> Data:
    """The session's context, or all where they were asked for."""
    every = scope.values.get("scope")
    return [row for row in data["contexts"] if every or row["context"] == scope.context]


def _contexts(data: Data, scope: Scope) -> list[str]:
    rows = [
        (row["context"], f"{row['id']:#010x}", row["vpn_rd"] or "-", row["interfaces"], row["asp_group"] or "-")
        for row in data
    ]
    return columns(
        ("Context Name", "Context ID", "VPN-RD", "Interfaces", "ASP group"), rows, right=("Interfaces",)
    )


contexts = View(_contexts, _own_context)


def _binding(row: Row) -> str:
    if row["kind"] == "loopback":
        return "(Loopback)"
    return ", ".join(row["bindings"])


def _interface_table(data: Data, scope: Scope) -> list[str]:
    at = moment(scope.now, scope)
    rows = [
        (row["interface"], row["address"] or "-", row["mtu"], STATES[row["state"]], _binding(row)) for row in data
    ]
    date = [] if at is None else [f"{at:{DATE}}"]
    return [*date, *columns(("Name", "Address", "MTU", "State", "Bindings"), rows, right=("MTU",))]


def _interfaces(data: Data, scope: Scope) -> list[str]:
    if scope.values.get("form") == "brief":
        return _interface_table(data, scope)
    lines = []
    for row in data:
        values: dict[str, object] = {
            "Context": row["context"],
            "Description": row["description"],
            "Type": row["kind"],
            "IP address": row["address"] or (f"that of {row['unnumbered']}" if row["unnumbered"] else "none"),
        }
        if row["secondary"]:
            values["Secondary"] = ", ".join(row["secondary"])
        values |= {"MTU": row["mtu"], "Bindings": _binding(row) or "none"}
        shown = {name: value for name, value in values.items() if value != ""}
        lines += [f"Interface {row['interface']} is {STATES[row['state']]}", *pairs(shown, "  "), ""]
    return lines[:-1]


interfaces = View(_interfaces, lambda data, scope: data["interfaces"])


def _local_interfaces(data: Data, scope: Scope) -> list[str]:
    rows = [
        (f"  {row['interface']}", address, STATES[row["state"]], _binding(row))
        for row in data
        for address in (row["address"], *row["secondary"])
    ]
    return columns(("  Interface", "Address", "State", "Bindings"), rows)


local_interfaces = View(
    _local_interfaces, lambda data, scope: [row for row in data["interfaces"] if row["address"]]
)


def _chosen_ports(data: Data, scope: Scope) -> Data:
    """The ports. What a line card did not tell is left out of their details."""
    if scope.values.get("form") == "counters":
        _answered(data)
    return data["ports"]


def _bound(row: Row) -> str:
    return f"{row['interface']}@{row['context']}" if row["interface"] else ""


def _ports(data: Data, scope: Scope) -> list[str]:
    form = scope.values.get("form")
    if form == "detail":
        return [line for row in data for line in _port_detail(row)][:-1]
    if form == "counters":
        counted = [(f"  {row['port']}", *_counts(row), row["counters"]["drops"]) for row in data if _counted(row)]
        titles = ("  Slot/Port", "Packets In", "Packets Out", "Drops")
        return columns(titles, counted, right=titles[1:])
    rows = [(f"  {row['port']}", _up(row["admin"]), _up(row["up"]), row["type"], _bound(row)) for row in data]
    return columns(("  Slot/Port", "Admin", "State", "Type", "Bound to"), rows)


def _counted(row: Row) -> bool:
    return "counters" in row


def _counts(row: Row) -> tuple[int, int]:
    return row["counters"]["packets_in"], row["counters"]["packets_out"]


def _port_detail(row: Row) -> list[str]:
    values: dict[str, object] = {
        "Description": row["description"],
        "Line state": _up(row["up"]),
        "Admin state": _up(row["admin"]),
        "Reason": row["reason"],
        "Encapsulation": "ethernet",
        "MTU size": f"{row['mtu']} Bytes",
        "Speed": f"{row['speed']} Mb/s",
        "MAC address": row["mac"] or "none",
        "Bound to": _bound(row) or "none",
        "Line card": row["card"] or "none",
        "QoS policy": row["qos_policy"],
        "Mark": "" if row["mark"] is None else f"{row['mark']}, queue {class_of(row['mark'])}",
    }
    if _counted(row):
        packets_in, packets_out = _counts(row)
        values |= {"Packets in": packets_in, "Packets out": packets_out, "Drops": row["counters"]["drops"]}
    shown = {name: value for name, value in values.items() if value != ""}
    return [f"ethernet {row['port']} state is {_up(row['up'])}", *pairs(shown), ""]


ports = View(_ports, _chosen_ports)


def _circuit_name(row: Row) -> str:
    return str(row["name"]) if row["kind"] == "port" else f"ipsec {row['name']}"


def _internal(row: Row) -> str:
    """A circuit's internal id."""
    place, kind = (row["name"], 1) if row["kind"] == "port" else (f"{row['card'].rpartition(' ')[2] or 255}/0", 3)
    return circuit_id(place, kind, row["circuit"])


def _circuits(data: Data, scope: Scope) -> list[str]:
    if scope.values.get("form") == "counters":
        titles: tuple[str, ...] = ("Circuit", "Packets In", "Octets In", "Packets Out", "Octets Out")
        counted = [(_circuit_name(row), *_circuit_counts(row.get("counters", {}))) for row in data["circuits"]]
        lines = columns(titles, counted, right=titles[1:], least=(27,))
    else:
        titles = ("Circuit", "Internal Id", "Encap", "State", "Bound to")
        rows = [
            (_circuit_name(row), _internal(row), _encapsulation(row), _up(row["up"]), _bound(row))
            for row in data["circuits"]
        ]
        lines = columns(titles, rows, least=(27, 22, 8, 5))
    if not data.get("first", True):
        del lines[0]
    if data.get("next") or "form" in scope.values:
        return lines
    return [*lines, "", *_circuit_summary(data["total"])]


def _encapsulation(row: Row) -> str:
    return "ethernet" if row["kind"] == "port" else "ipsec"


def _circuit_counts(counters: Row) -> tuple[object, ...]:
    """What is not counted is `-`: octets at ports, all of a card that is away."""
    return tuple(counters.get(name, "-") for name in ("packets_in", "octets_in", "packets_out", "octets_out"))


def _circuit_summary(total: Row) -> list[str]:
    circuits, up, bound = total["circuits"], total["up"], total["bound"]
    return [
        "Summary:",
        f"  total: {circuits}",
        f"  up: {up}   down: {circuits - up}",
        f"  bound: {bound}   unbound: {circuits - bound}",
    ]


def _chosen_circuits(data: Data, scope: Scope) -> Data:
    _answered(data)
    return data


circuits = View(_circuits, _chosen_circuits)


EVERY_CONTEXT: Final = ("all", "all-context")
"""Forms that show all contexts."""


def _chosen_entries(data: Data, scope: Scope) -> Data:
    """The entries of each context that was asked for. Nothing interworks here, and no host is on the
    controller's own port."""
    _answered(data)
    form = scope.values.get("form")
    rows = [] if form in ("interworking", "xcrp") else data["entries"]
    return [
        {
            "context": name,
            "id": data["contexts"][name],
            "entries": [row for row in rows if row["context"] == name],
        }
        for name in (data["contexts"] if form in EVERY_CONTEXT else [scope.context])
        if name in data["contexts"]
    ]


def _arp_counts(entries: Sequence[Row]) -> list[str]:
    resolved = sum(bool(row["mac"]) for row in entries)
    return [
        f"Total number of arp entries in cache: {len(entries)}",
        f"  Resolved entry   : {resolved}",
        f"  Incomplete entry : {len(entries) - resolved}",
    ]


def _arp_row(host: str, mac: str, ttl: object, kind: str, circuit: str) -> str:
    return f"{host:<18}{mac:<20}{ttl!s:<7}{kind:<6}{circuit}"


def _arp_block(entries: Sequence[Row]) -> list[str]:
    lines = [*_arp_counts(entries), "", _arp_row("Host", "Hardware address", "Ttl", "Type", "Circuit")]
    for row in entries:
        ttl = "-" if row["ttl"] is None else row["ttl"]
        lines.append(_arp_row(row["address"], row["mac"] or "incomplete", ttl, "ARPA", row["circuit"]))
    return lines


def _arp(data: Data, scope: Scope) -> list[str]:
    form = scope.values.get("form")
    if form == "xcrp":
        return ["Showing ARP entries in RP OS kernel:", "Host              Hardware address    Flags  Type"]
    lines: list[str] = []
    for context in data:
        if form in EVERY_CONTEXT:
            name = f"{context['context']} "
            lines += [*([""] if lines else []), f"Context   :{name:<31}Context id  : {context['id']:#010x}"]
            lines.append("-" * RULER)
        lines += _arp_counts(context["entries"]) if form == "summary" else _arp_block(context["entries"])
    return lines


arp = View(_arp, _chosen_entries)


LEGEND: Final = ("Codes: C - connected, S - static or by a traffic selector", "       > - Active Route", "")


def _next_hops(route: Row) -> list[tuple[str, str, str, str, int, str]]:
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
