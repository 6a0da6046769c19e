"""Bounds on time: the median of a few runs within the bound, the worst within three times."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def within(what: str, values: Sequence[float], bound: float, unit: str = "ms") -> None:
    """Print the distribution, and fail where it is out of bounds."""
    ordered = sorted(values)
    print(
        f"\n{what}: median {median(ordered):.1f} {unit}, worst {ordered[-1]:.1f} {unit}, bound {bound:g} {unit}; "
        f"all: {', '.join(f'{value:.1f}' for value in ordered)}"
    )
    assert median(ordered) <= bound, f"{what}: the median of {ordered} is above {bound} {unit}"
    assert ordered[-1] <= 3 * bound, f"{what}: the worst of {ordered} is above three times {bound} {unit}"
