"""IKE's settings from those of the node: what a lab wrote, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chassis.ase.ike.host import IkeSettings

_SECONDS = {
    "dpd-interval": "dpd_interval",
    "ike-retransmit": "retransmit",
    "ike-give-up": "give_up",
    "nat-keepalive": "nat_keepalive",
}
_NUMBERS = {
    "dpd-tries": "dpd_tries",
    "ike-retries": "retries",
    "ike-fragment": "fragment",
    "half-open": "half_open",
    "half-open-most": "half_open_most",
    "half-open-peer": "half_open_peer",
}
_PARTS = {"rekey-margin": "margin", "rekey-jitter": "jitter"}
_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(value: Any) -> float:
    if isinstance(value, str):
        for unit, factor in _UNITS.items():
            if value.endswith(unit) and value[: -len(unit)].replace(".", "", 1).isdigit():
                return float(value[: -len(unit)]) * factor
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)
    raise ValueError(f"{value!r} is no duration such as 500ms or 10s")


def read_settings(given: Mapping[str, Any]) -> tuple[IkeSettings, list[str]]:
    """The settings, and what is wrong with them; a wrong value leaves the default."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, attribute in _SECONDS.items():
        if name in given:
            try:
                values[attribute] = _seconds(given[name])
            except ValueError as error:
                problems.append(f"setting {name}: {error}")
    for name, attribute in _NUMBERS.items():
        value = given.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            values[attribute] = value
        elif value is not None:
            problems.append(f"setting {name}: {value!r} is no number from 1 on")
    for name, attribute in _PARTS.items():
        value = given.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1:
            values[attribute] = float(value)
        elif value is not None:
            problems.append(f"setting {name}: {value!r} is no part from 0 to 1")
    if "ike-backoff" in given:
        try:
            first = _seconds(given["ike-backoff"])
            values["backoff"] = (first, max(first, IkeSettings().backoff[1]))
        except ValueError as error:
            problems.append(f"setting ike-backoff: {error}")
    strict = given.get("strict-lifetime")
    if isinstance(strict, bool):
        values["strict_lifetime"] = strict
    elif strict is not None:
        problems.append(f"setting strict-lifetime: {strict!r} is neither true nor false")
    return IkeSettings(**values), problems
