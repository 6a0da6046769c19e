"""Durations as people write them: `100ms`, `2s`, `5m`. Shares and rates are read by `chassis.fwd.impair`."""

from __future__ import annotations

import re
from math import ceil

_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-zµ]*)\s*\Z")

_SECONDS = {"": 1.0, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str | int | float) -> float:
    """Seconds of `2s`, `100ms`, `50us`, `5m`, `1h` or a bare number, which means seconds.

    Raises:
        ValueError: it is none of these; the text says how to write one.
    """
    match = None if isinstance(text, bool) else _NUMBER.match(str(text))
    if match is None:
        raise ValueError(f"{text!r} is no duration: write it like 2s, 100ms or 5m")
    if match[2] not in _SECONDS:
        raise ValueError(f"{text!r} is no duration: its unit is one of us, ms, s, m, h, d")
    return float(match[1]) * _SECONDS[match[2]]


def written(seconds: float) -> str:
    """A duration for people, in the unit that suits it: `1.5 s`, `12.3 ms`, `850 us`."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:.0f} {unit}" if seconds >= 100 * scale else f"{seconds / scale:.3g} {unit}"
    return f"{ceil(seconds * 1e6)} us"
