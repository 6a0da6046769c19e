"""Durations, probabilities and rates as labs and operators write them: `100ms`, `1%`, `50M`."""

from __future__ import annotations

import re
from math import ceil, isfinite
from typing import Any

_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-zµ]*)\s*\Z")

_UNITS = {"": 1.0, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_MULTIPLES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_SECONDS = (("ms", 1e-3), ("us", 1e-6), ("s", 1.0))


def parse_duration(text: str | int | float) -> float:
    """Seconds of `2s`, `100ms`, `50us`, `5m`, `1h` or a bare number, which means seconds.

    Raises:
        ValueError: it is none of these; the text says how to write one.
    """
    match = None if isinstance(text, bool) else _NUMBER.match(str(text))
    if match is None:
        raise ValueError(f"{text!r} is no duration: write it like 2s, 100ms or 5m")
    if match[2] not in _UNITS:
        raise ValueError(f"{text!r} is no duration: its unit is one of us, ms, s, m, h, d")
    return float(match[1]) * _UNITS[match[2]]


def parse_probability(value: Any) -> float:
    """A probability of `1%`, `0.01` or 0.01; ValueError where it is none from 0 to 1."""
    text = str(value).strip()
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise ValueError(f"{value!r} is no chance: write 1% or 0.01") from None
    if not 0 <= number <= 1:
        raise ValueError(f"{value!r} is no chance: from 0% to 100%")
    return number


def parse_seconds(value: Any) -> float:
    """Seconds of `20ms`, `1.5s`, `300us` or a bare number of seconds; ValueError where it is none."""
    text = str(value).strip().lower()
    scale = 1.0
    for suffix, factor in _SECONDS:
        if text.endswith(suffix):
            text, scale = text[: -len(suffix)].strip(), factor
            break
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(text) * scale
    except ValueError:
        raise ValueError(f"{value!r} is no time: write 20ms or 1.5s") from None
    if not isfinite(number) or number < 0:
        raise ValueError(f"{value!r} is no time: it is not a number of seconds from 0 up")
    return number


def parse_rate(value: Any) -> float:
    """Bits a second of `100M`, `1.5Gbit`, `64k` or a bare number; 0 means no limit."""
    text = str(value).strip().lower()
    for suffix in ("bit/s", "bits/s", "bps", "bit"):
        if text.endswith(suffix):
            text = text[: -len(suffix)].strip()
            break
    scale = _MULTIPLES.get(text[-1:] if text[-1:].isalpha() else "")
    try:
        if isinstance(value, bool) or scale is None:
            raise ValueError
        number = float(text[:-1] if text[-1:].isalpha() else text) * scale
    except ValueError:
        raise ValueError(f"{value!r} is no rate: write 100M, 64k or bits a second") from None
    if not isfinite(number) or number < 0:
        raise ValueError(f"{value!r} is no rate: it is not a number of bits a second from 0 up")
    return number


def parse_rate_limit(text: str | int | float) -> float:
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


def format_duration(seconds: float) -> str:
    """A duration for people, in the unit that suits it: `1.5 s`, `12.3 ms`, `850 us`."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:.0f} {unit}" if seconds >= 100 * scale else f"{seconds / scale:.3g} {unit}"
    return f"{ceil(seconds * 1e6)} us"
