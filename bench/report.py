"""A benchmark's figures: printed for people, kept in `build/bench.json` for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: `peer` and `ratio` say what it was measured beside in the same run, where it was."""

    name: str
    value: float | None
    """None where it could not be measured: `failed` says why."""
    unit: str
    peer: str = ""
    ratio: float | None = None
    bar: float | None = None
    """What the product sets itself, in the figure's unit, or as a ratio to the peer where `of` is `ratio`; the
    most that the median may be where `of` is `most`."""
    of: str = ""
    reached: bool | None = None
    failed: str = ""


WORST = 3
"""Times its bound that the worst of several measurements of a time or a loss may be; the median is held to it."""


class Report:
    """Collects figures in the order in which they are measured, and prints each at once.

    `missed` says what bars were missed, and whatever else is wrong.
    """

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self.missed: list[str] = []

    def add(
        self, name: str, values: list[float], unit: str, peer: str = "", against: float | None = None
    ) -> float:
        """The median of repeated measurements, with their range; `against` is what the peer reached."""
        value = median(values)
        ratio = None if not against else value / against
        self.figures.append(Figure(name, round(value, 3), unit, peer, None if ratio is None else round(ratio, 3)))
        spread = f"  ({min(values):,.2f} to {max(values):,.2f})" if len(values) > 1 else ""
        beside = f"  {ratio:.2f} x {peer}" if ratio is not None else ""
        print(f"{name:<62} {value:>14,.2f} {unit:<12}{beside}{spread}", flush=True)
        return value

    def bar(self, least: float, of: str = "value") -> None:
        """What the last figure must reach, or its `ratio`: where there is no peer to measure beside, no bar is."""
        figure = self.figures[-1]
        found = figure.ratio if of == "ratio" else figure.value
        if found is None:
            return
        reached = found >= least
        self.figures[-1] = replace(figure, bar=least, of=of, reached=reached)
        unit = f"x {figure.peer}" if of == "ratio" else figure.unit
        text = f"bar {least:,g} {unit}: {'reached' if reached else 'MISSED'}"
        print(f"  {text}", flush=True)
        if not reached:
            self.missed.append(f"{figure.name}: {found:,.2f}, {text}")

    def within(self, name: str, values: list[float], most: float, unit: str = "ms") -> None:
        """A figure that has an upper bound: the median may be at most that, the worst `WORST` times as much."""
        value = self.add(name, values, unit)
        reached = value <= most and max(values) <= WORST * most
        self.figures[-1] = replace(self.figures[-1], bar=most, of="most", reached=reached)
        text = f"bar {most:,g} {unit} at most, {WORST * most:,g} in the worst case"
        print(f"  {text}: {'reached' if reached else 'MISSED'}", flush=True)
        if not reached:
            self.missed.append(f"{name}: {value:,.2f}, worst {max(values):,.2f}, {text}: MISSED")

    @contextmanager
    def row(self, name: str) -> Iterator[None]:
        """What is measured inside may fail, as where a lab does not boot: that is a row with its reason, and what
        comes after it is measured all the same."""
        try:
            yield
        except Exception as error:
            self.fail(name, error)

    def fail(self, name: str, error: Exception) -> None:
        """A row without a figure. A failed bar is an AssertionError; of anything else the kind is told too."""
        said = str(error) or type(error).__name__
        reason = said if isinstance(error, AssertionError) else f"{type(error).__name__}: {said}"
        self.figures.append(Figure(name, None, "", failed=reason))
        first, *rest = reason.splitlines()
        print(f"{name:<62} FAILED: {first}", flush=True)
        for line in rest:
            print(f"  {line}", flush=True)
        self.missed.append(f"{name}: {first}")

    def judge(self, verdicts: Iterable[tuple[str, bool]]) -> None:
        """Bars that are told in words, each with whether it is reached."""
        for text, reached in verdicts:
            print(f"  {text}: {'reached' if reached else 'MISSED'}", flush=True)
            if not reached:
                self.missed.append(text)

    def keep(self, name: str, values: dict[str, float], unit: str) -> None:
        """Figures that were printed in a line of their own."""
        self.figures += [Figure(f"{name} {key}", round(value, 3), unit) for key, value in values.items()]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(figure) for figure in self.figures], indent=1) + "\n")
