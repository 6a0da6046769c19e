"""Durations in and out."""

from __future__ import annotations

import pytest

from chassis.net.units import format_duration, parse_duration, parse_rate_limit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2s", 2), ("100ms", 0.1), ("50 us", 5e-5), ("5m", 300), ("1h", 3600), ("1.5", 1.5), (0, 0), (".5s", 0.5)],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1 parsec", "1s2", True, "1e3s", "inf"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 us"), (85e-5, "850 us"), (0.0123, "12.3 ms"), (0.25, "250 ms"), (1.5, "1.5 s"), (120, "120 s")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_limits_of_wires() -> None:
    assert (parse_rate_limit("100M"), parse_rate_limit("64k"), parse_rate_limit("none")) == (1e8, 64e3, 0.0)


@pytest.mark.parametrize("text", ["0", 0, "0M", "fast", "-1", ""])
def test_what_is_no_limit(text: str | int) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        parse_rate_limit(text)
