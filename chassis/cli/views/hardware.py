"""Views of slots, cards, ASPs, processes and alarms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from chassis.bus.log_lines import date
from chassis.cli.views.layout import Data, Scope, View, ViewError, columns, pairs

Row = Mapping[str, Any]

NO_PLACE: Final = "N/A"
"""Slot of a part that is in none."""

_WIDE: Final = 24


def _titled(text: str) -> str:
    """A state as it is printed: `up` as `Up`."""
    return text[:1].upper() + text[1:]


def _flags(row: Row) -> str:
    """The flags of `show chassis`: P1 and P2 are ASPs, R is a port card, U all of a card, A the controller."""
    usable = [process["name"] for process in row["processes"] if process["usable"]]
    names = sorted(f"P{name[-1]}" if name.startswith("asp ") else "R" for name in usable)
    whole = row["processes"] and len(usable) == len(row["processes"])
    return "".join(names) + ("U" if whole else "") + ("A" if row["active"] else "")


def _chassis(data: Data, scope: Scope) -> list[str]:
    lines = [
        "",
        f"Current platform is {data['platform']}",
        "(Flags: A-Active Crossconnect  P1-ASP1 Ready  P2-ASP2 Ready  R-Traffic Card Ready  U-Card PPAs/ASP UP)",
        "",
        f"{'Slot: Configured-type':<28}{'Slot: Installed-type':<28}{'Initialized':<14}Flags",
        "-" * 75,
    ]
    for row in data["slots"]:
        configured, installed = (
            f"{row['slot']:<4}: {row[name] or 'none':<22}" for name in ("configured", "installed")
        )
        ready = "Yes" if row["initialized"] else "No"
        lines.append(f"{configured}{installed}{ready:<14}{_flags(row)}".rstrip())
    return lines


chassis = View(_chassis)


def _hardware_head(data: Data) -> list[str]:
    values = {
        "Fan Tray Status": "Present",
        "Fan(s) Status": "Normal",
        "Power Supply A Status": "Normal",
        "Power Supply B Status": "Normal",
        "Active Alarms": data["alarms"] or "NONE",
    }
    return [f"{name:<{_WIDE}}{value}" for name, value in values.items()]


def _parts(data: Data) -> list[tuple[str, str, Row]]:
    """Slot, type and values of each part, those that are in no slot first."""
    rows = [(NO_PLACE, row["part"], row) for row in data["parts"]]
    return rows + [(str(row["slot"]), row["installed"], row) for row in data["slots"] if row["installed"]]


def _hardware(data: Data, scope: Scope) -> list[str]:
    if scope.values.get("detail"):
        return _hardware_detail(data)
    titles = ("Slot", "Type", "Serial No", "Rev", "Ver", "Mfg Date", "Voltage", "Temp")
    rows = [
        (slot, kind, row["serial"], row["revision"], row["version"], row["manufactured"], "OK", "NORMAL")
        for slot, kind, row in _parts(data)
    ]
    return [*_hardware_head(data), "", *columns(titles, rows)]


def _hardware_detail(data: Data) -> list[str]:
    lines = _hardware_head(data)
    for slot, kind, row in _parts(data):
        values = {
            "Slot": slot,
            "Type": kind,
            "Serial No": row["serial"],
            "Hardware Rev": row["revision"],
            "Hardware Ver": row["version"],
            "Mfg Date": row["manufactured"],
        }
        lines += ["", *pairs(values), "Voltage: OK", "Temperature: NORMAL"]
    return lines


hardware = View(_hardware)


def _chosen_slots(data: Data, scope: Scope) -> Data:
    """The slots with their cards, or the one that was named."""
    slot = scope.values.get("slot")
    rows = [row for row in data["slots"] if slot is None or row["slot"] == int(slot)]
    if not rows:
        raise ViewError(f"no card in slot {slot}")
    return rows


def _card_state(row: Row) -> str:
    if row["initialized"]:
        return "up"
    return "down" if row["installed"] else "not installed"


def _slot_table(data: Data, scope: Scope) -> list[str]:
    rows = [(row["slot"], row["installed"] or row["configured"], _titled(_card_state(row))) for row in data]
    return columns(("Slot", "Type", "State"), rows)


slot_table = View(_slot_table, _chosen_slots)


def _cards(data: Data, scope: Scope) -> list[str]:
    lines = []
    for row in data:
        values: dict[str, object] = {
            "Configured type": row["configured"] or "none",
            "Installed type": row["installed"] or "none",
            "State": _titled(_card_state(row)),
        }
        values |= {
            name.upper().replace("LC", "Line card"): _titled(state)
            for name, state in ((process["name"], process["state"]) for process in row["processes"])
        }
        lines += [f"Slot {row['slot']}", *pairs(values, "  "), ""]
    return lines[:-1]


card = View(_cards, _chosen_slots)


def _named(what: str) -> Callable[[Data, Scope], Data]:
    """Select all rows of a part of the answer, or that of the name that was typed."""

    def select(data: Data, scope: Scope) -> Data:
        name = scope.values.get("name", "")
        rows = [row for row in data[f"{what}s"] if name in ("", row[what])]
        if name and not rows:
            raise ViewError(f"no {what} {name!r}")
        return rows

    return select


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "-"


def _asps(data: Data, scope: Scope) -> list[str]:
    if scope.values.get("detail"):
        return _details(data, "ASP", "asp")
    titles = ("ASP", "State", "Service", "Pool", "Group", "Role", "Rate", "Tunnels", "Up")
    rows = [
        (
            row["asp"],
            _titled(row["state"]),
            row["service"] or "-",
            _list(row["pools"]),
            _list(row["groups"]),
            _titled(row["role"]) or "-",
            row["rate"] or "-",
            row["tunnels"],
            row["up"],
        )
        for row in data
    ]
    lines = columns(titles, rows, right=("Tunnels", "Up"))
    return lines + [f"{row['asp']} is down: {row['reason']}" for row in data if row["reason"]]


def _details(data: Data, title: str, key: str) -> list[str]:
    """Every value of each row, by its name."""
    lines = []
    for row in data:
        values = {_titled(name.replace("_", " ")): _text(value) for name, value in row.items() if name != key}
        lines += [f"{title} {row[key]}", *pairs(values, "  "), ""]
    return lines[:-1]


def _text(value: object) -> object:
    return _list(value) if isinstance(value, list) else value if value != "" else "-"


asps = View(_asps, _named("asp"))


def _pools(data: Data, scope: Scope) -> list[str]:
    if scope.values.get("detail"):
        return _details(data, "ASP pool", "pool")
    rows = [
        (row["pool"], row["service"], _list(row["asps"]), row["up"], row["spare"], row["rate"] or "-")
        for row in data
    ]
    return columns(("Pool", "Service", "ASPs", "Up", "Spare", "Rate"), rows, right=("Up", "Spare"))


pools = View(_pools, _named("pool"))


def _groups(data: Data, scope: Scope) -> list[str]:
    if scope.values.get("detail"):
        return _details(data, "ASP group", "group")
    rows = [
        (row["group"], _list(row["pools"]), row["asp_count"], _list(row["active"]), _list(row["contexts"]))
        for row in data
    ]
    return columns(("Group", "Pool", "ASP-count", "Active", "Contexts"), rows, right=("ASP-count",))


groups = View(_groups, _named("group"))


def _with_controller(data: Data, scope: Scope) -> Data:
    """One row for each process: the controller's, which answered, and those of the cards."""
    controller = {"card": "xcrp", "pid": 0, "boot": data["boot"], "state": "usable", "loop_lag": 0.0}
    return [controller, *data["cards"]]


def _processes(data: Data, scope: Scope) -> list[str]:
    rows = [
        (row["card"], row["pid"] or "-", row["boot"], row["state"], f"{row['loop_lag'] * 1000:.1f}")
        for row in data
    ]
    return columns(("NAME", "PID", "SPAWN", "STATE", "LAG(ms)"), rows, right=("PID", "SPAWN", "LAG(ms)"))


process = View(_processes, _with_controller)


def _alarms(data: Data, scope: Scope) -> list[str]:
    titles = ("Severity", "Raised", "Object", "Alarm", "Description")
    rows = [
        (_titled(row["severity"]), date(row["raised"]), row["object"], row["alarm"], _description(row))
        for row in data["alarms"]
    ]
    lines = columns(titles, rows, least=(8, 15, 20, 23)) if rows else []
    if not data.get("first", True):
        del lines[:1]
    if data.get("next"):
        return lines
    counts = ", ".join(f"{severity}: {count}" for severity, count in data["total"].items())
    total = sum(data["total"].values())
    return [*lines, *([""] if lines else []), f"Alarms: {total}{f', {counts}' if counts else ''}"]


def _description(row: Row) -> str:
    """What an alarm says, and what is down with it."""
    text, count = str(row["text"]), row["tunnels"]
    return text + (f"; {count} tunnel{'s' * (count > 1)} down with it" if count else "")


alarms = View(_alarms)
