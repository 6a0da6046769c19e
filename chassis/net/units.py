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
    """Return the seconds of `2s`, `100ms`, `50us`, `5m`, `1h` or a bare number of seconds.

    Raises:
        ValueError: the text is not a duration.
    """
    match = None if isinstance(text, bool) else _NUMBER.match(str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a duration; expected 2s, 100ms or 5m")
    if match[2] not in _UNITS:
        raise ValueError(f"{text!r} is not a duration; expected a unit of us, ms, s, m, h, d")
    return float(match[1]) * _UNITS[match[2]]


def parse_probability(value: Any) -> float:
    """Return the probability (0 to 1) of `1%`, `0.01` or 0.01.

    Raises:
        ValueError: the value is not a probability.
    """
    text = str(value).strip()
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise ValueError(f"{value!r} is not a probability; expected 1% or 0.01") from None
    if not 0 <= number <= 1:
        raise ValueError(f"{value!r} is out of range; expected a probability from 0% to 100%")
    return number


def parse_seconds(value: Any) -> float:
    """Return the seconds of `20ms`, `1.5s`, `300us` or a bare number of seconds, 0 or more.

    Raises:
        ValueError: the value is not a time.
    """
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
        raise ValueError(f"{value!r} is not a time; expected 20ms or 1.5s") from None
    if not isfinite(number) or number < 0:
        raise ValueError(f"{value!r} is not a time; expected seconds from 0 up")
    return number


def parse_rate(value: Any) -> float:
    """Return the rate (bits/s) of `100M`, `1.5Gbit`, `64k` or a bare number; 0 means no limit.

    Raises:
        ValueError: the value is not a rate.
    """
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
        raise ValueError(f"{value!r} is not a rate; expected 100M, 64k or bits a second") from None
    if not isfinite(number) or number < 0:
        raise ValueError(f"{value!r} is not a rate; expected bits a second from 0 up")
    return number


def parse_rate_limit(text: str | int | float) -> float:
    """Return the rate limit (bits/s) of a wire: `100M`, `64k`; 0.0 for `none`, no limit.

    Raises:
        ValueError: the text is neither, or a rate of 0, which could mean that nothing passes or that all does.
    """
    if text == "none":
        return 0.0
    rate = parse_rate(text)
    if not rate:
        raise ValueError(f"{text!r} is not a rate limit; expected 100M, none for no limit, or down for no packets")
    return rate


def format_duration(seconds: float) -> str:
    """Return a duration (s) as text in a suitable unit: `1.5 s`, `12.3 ms`, `850 us`."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:.0f} {unit}" if seconds >= 100 * scale else f"{seconds / scale:.3g} {unit}"
    return f"{ceil(seconds * 1e6)} us"
