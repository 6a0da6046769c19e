"""Views of the router itself: version, chassis, processes, log, clock, configuration."""

from __future__ import annotations

from typing import Any, Final

from chassis.cli.views.layout import Data, Scope, View, ViewError, columns, moment

RELEASE: Final = "SEOS-12.1.1.11-Release"
"""The release whose behaviour is shown; programs that log in read it from the first line of `show version`."""

PLATFORM: Final = "SE1200"
"""The chassis with 14 slots."""


def _version(data: Data, scope: Scope) -> list[str]:
    return [
        "",
        f"Redback Networks SmartEdge OS Version {RELEASE}",
        "Emulated by chassis, which is none of the vendor's software",
    ]


def _chosen_version(data: Data, scope: Scope) -> Data:
    return {"node": scope.node, "release": RELEASE}


version = View(_version, _chosen_version)


def _slots(data: Data, scope: Scope) -> Data:
    """One row for each slot that holds a card: its type, and whether all of its processes are usable."""
    slots: dict[int, dict[str, Any]] = {}
    for card in data["cards"]:
        slot, _, asp = card["card"].rpartition(" ")[2].partition("/")
        row = slots.setdefault(int(slot), {"slot": int(slot), "type": card["type"], "usable": [], "down": []})
        name = f"P{asp}" if asp else "R"
        row["usable" if card["usable"] else "down"].append(name)
    return [slots[slot] for slot in sorted(slots)]


def _chassis(data: Data, scope: Scope) -> list[str]:
    head = f"{'Slot: Configured-type':<28}{'Slot: Installed-type':<28}{'Initialized':<14}Flags"
    lines = [
        "",
        f"Current platform is {PLATFORM}",
        "(Flags: P1-ASP1 Ready  P2-ASP2 Ready  R-Traffic Card Ready  U-Card PPAs/ASP UP)",
        "",
        head,
        "-" * 75,
    ]
    for row in data:
        card = f"{row['slot']:<4}: {row['type']}"
        flags = "".join(sorted(row["usable"])) + ("" if row["down"] else "U")
        lines.append(f"{card:<28}{card:<28}{'No' if row['down'] else 'Yes':<14}{flags}".rstrip())
    return lines


chassis = View(_chassis, _slots)


def _processes(data: Data, scope: Scope) -> list[str]:
    rows = [
        (row["card"], row["pid"] or "-", row["boot"], row["state"], f"{row['loop_lag'] * 1000:.1f}")
        for row in data
    ]
    return columns(("NAME", "PID", "SPAWN", "STATE", "LAG(ms)"), rows, right=("PID", "SPAWN", "LAG(ms)"))


process = View(_processes, lambda data, scope: data["cards"])


def _log(data: Data, scope: Scope) -> list[str]:
    return [_log_line(record, scope) for record in data]


SEVERITIES: Final = {"error": 3, "warning": 4, "notice": 5, "note": 5, "info": 6, "debug": 7}
"""The syslog digit (RFC 5424 6.2.1) of a severity of the log."""


def _log_line(record: Data, scope: Scope) -> str:
    at = moment(record["time"], scope)
    when = f"{at:%b %d %H:%M:%S}" if at is not None else f"{record['time']:.3f}"
    name = record["severity"].upper()
    severity = SEVERITIES.get(record["severity"], 6)
    return f"{when}: %{record['facility'].upper()}-{severity}-{name}: {record['text']}"


log = View(_log, lambda data, scope: data["records"])


def _clock(data: Data, scope: Scope) -> list[str]:
    at = moment(scope.now, scope)
    if at is None:
        raise ViewError("this session has no clock")
    return [f"{at:%a %b %d %H:%M:%S %Y} UTC"]


def _time(data: Data, scope: Scope) -> Data:
    at = moment(scope.now, scope)
    return {"time": at.isoformat() if at is not None else None}


clock = View(_clock, _time)


def _configuration(data: Data, scope: Scope) -> list[str]:
    """The lines before the first are those that the box prints; programs that take backups count on them."""
    return ["Building configuration...", "", "Current configuration:", *data["text"].splitlines()]


configuration = View(_configuration)
"""The whole configuration, keys hidden."""

part_of_configuration = View(lambda data, scope: data["text"].splitlines())
"""Commands of one part of it, or one object, keys hidden."""

silent = View(lambda data, scope: [])
"""What is done without a word."""
