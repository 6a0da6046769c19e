"""A benchmark's figures: printed for people, kept in `build/bench.json` for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: `peer` and `ratio` say what it was measured beside in the same run, where it was."""

    name: str
    value: float
    unit: str
    peer: str = ""
    ratio: float | None = None
    bar: float | None = None
    """What the product sets itself, in the figure's unit, or as a ratio to the peer where `of` is `ratio`."""
    of: str = ""
    reached: bool | None = None


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
