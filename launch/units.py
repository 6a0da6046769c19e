"""Durations as people write them: `100ms`, `2s`, `5m`. Shares and rates are read by `chassis.fwd.impair`."""

from __future__ import annotations

import re
from math import ceil

from chassis.fwd.impair import parse_rate

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


def limit(text: str | int | float) -> float:
    """The rate that a wire is limited to, in bits a second: `100M`, `64k`; 0.0 of `none`, which is no limit.

    Raises:
        ValueError: it is neither; a rate of 0 is none, for it could mean that nothing passes or that all does.
    """
    if text == "none":
        return 0.0
    rate = parse_rate(text)
    if not rate:
        raise ValueError(f"{text!r} is no rate: write none for no limit, and down for a wire that carries nothing")
    return rate


def written(seconds: float) -> str:
    """A duration for people, in the unit that suits it: `1.5 s`, `12.3 ms`, `850 us`."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:.0f} {unit}" if seconds >= 100 * scale else f"{seconds / scale:.3g} {unit}"
    return f"{ceil(seconds * 1e6)} us"
