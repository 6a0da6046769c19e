"""Views of the router itself: version, log, clock, configuration."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from chassis.bus.log_lines import line
from chassis.cli.views.layout import DATE, Data, Scope, View, ViewError, columns, duration, moment
from chassis.cli.views.log_actions import recommended

RELEASES: Final[Mapping[str, tuple[str, str]]] = {
    "seos": ("Redback Networks SmartEdge OS", "SEOS-12.1.1.11-Release"),
    "ipos": ("Ericsson IPOS", "IPOS-v20.3.1.803.142-Release"),
}
"""Name and release by operating system; programs that log in read them from the first line of `show version`."""

MAKER: Final = "Built by chassis, an emulator, which is none of the vendor's software"


def _up_time(seconds: float) -> str:
    """A time as `10 hours 48 minutes 41 seconds`, with the days before it from one day on."""
    days, rest = divmod(max(int(seconds), 0), 86_400)
    text = f"{rest // 3600} hours {rest // 60 % 60} minutes {rest % 60} seconds"
    return f"{days} days {text}" if days else text


def _version(data: Data, scope: Scope) -> list[str]:
    return [
        "",
        f"{data['name']} Version {data['release']}",
        MAKER,
        f"Router Up Time -  {_up_time(data['uptime'])}",
    ]


def _with_release(data: Data, scope: Scope) -> Data:
    name, release = RELEASES[data["os"]]
    return {**data, "name": name, "release": release}


version = View(_version, _with_release)


def _release(data: Data, scope: Scope) -> list[str]:
    return [
        "Installed releases:",
        "p01: active (will be booted after next reload)",
        "-" * 46,
        f"Version {data['release']}",
        MAKER,
    ]


release = View(_release, _with_release)


def _log(data: Data, scope: Scope) -> list[str]:
    lines = []
    for record in data:
        lines.append(line(record))
        if record.get("action"):
            lines.append(f"    {record['action']}")
    return lines


def _chosen_records(data: Data, scope: Scope) -> Data:
    """The records; where they are to be explained, each with the `action` that is recommended, or none."""
    if "explain" not in scope.values:
        return data["records"]
    return [{**record, "action": recommended(record["id"], record["values"])} for record in data["records"]]


log = View(_log, _chosen_records)


def _clock(data: Data, scope: Scope) -> list[str]:
    at = moment(scope.now, scope)
    if at is None:
        raise ViewError("this session has no clock")
    return [f"{at:{DATE}} UTC"]


def _time(data: Data, scope: Scope) -> Data:
    at = moment(scope.now, scope)
    return {"time": at.isoformat() if at is not None else None}


clock = View(_clock, _time)


NO_USER: Final = "<NO USER>"
"""Stands for the user of a configuration that was read from a file."""


def _configuration(data: Data, scope: Scope) -> list[str]:
    """The lines before the first are those that the box prints; programs that take backups count on them."""
    changed = data.get("changed")
    lines = ["Building configuration...", "", "Current configuration:"]
    if changed:
        at = datetime.fromtimestamp(changed["time"], UTC)
        user = changed["user"] or NO_USER
        lines += ["!", f"!  Configuration last changed by user '{user}' at {at:{DATE}}", "!"]
    return [*lines, *data["text"].splitlines()]


configuration = View(_configuration)
"""The whole configuration, keys in their encrypted form."""

part_of_configuration = View(lambda data, scope: data["text"].splitlines())
"""Commands of one part of it, or one object, keys in their encrypted form."""

privilege = View(
    lambda data, scope: [f"Current privilege level is {data['privilege']}"],
    lambda data, scope: {"user": scope.user, "privilege": scope.privilege},
)

silent = View(lambda data, scope: [])
"""What is done without a word."""


def _administrators(data: Data, scope: Scope) -> list[str]:
    sessions = []
    for one in data["sessions"]:
        since = moment(one["since"], scope)
        began = f"{since:{DATE}}" if since is not None else ""
        idle = duration(scope.now - one["active"])
        sessions.append((one["user"], one["context"], one["source"], began, idle))
    known = [
        (one["name"], one["context"], one["privilege_start"], one["privilege_max"], _idle(one["idle_timeout"]))
        for one in data["administrators"]
    ]
    return [
        *columns(("Logged in", "Context", "From", "Since", "Idle"), sessions),
        "",
        *columns(("Administrator", "Context", "Privilege", "Highest", "Ends when idle"), known),
    ]


def _idle(minutes: int | None) -> str:
    return f"after {minutes} minutes" if minutes else "never"


administrators = View(_administrators)
