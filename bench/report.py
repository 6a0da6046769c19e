"""Figures of benchmarks: print them for people and write them to `build/bench.json` for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: `peer` and `ratio` name the reference of the same run, if any."""

    name: str
    value: float | None
    """None if it could not be measured: `failed` has the reason."""
    unit: str
    peer: str = ""
    ratio: float | None = None
    bar: float | None = None
    """The product's own bound, in the figure's unit, or as a ratio to the peer if `of` is `ratio`; an upper bound
    of the median if `of` is `most`."""
    of: str = ""
    reached: bool | None = None
    failed: str = ""


WORST = 3
"""Factor of the bound that the worst of several times or losses must meet; the median must meet the bound."""


def paired(ours: Mapping[int, float], peers: Mapping[int, float]) -> float | None:
    """Return the median of the ratios of the rounds that both have; None if there are none.

    The machine may be several times slower in one round than in another.
    """
    ratios = [value / peers[number] for number, value in ours.items() if peers.get(number)]
    return median(ratios) if ratios else None


class Report:
    """Collect figures in the order of measurement, and print each at once.

    `missed` lists missed bounds and other errors.
    """

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self.missed: list[str] = []

    def add(
        self,
        name: str,
        values: list[float],
        unit: str,
        peer: str = "",
        against: float | None = None,
        ratio: float | None = None,
    ) -> float:
        """Add repeated measurements. Return their median; `against` is the peer's figure.

        `ratio` to the peer, if given, is that of measurements in turns (`paired`).
        """
        value = median(values)
        if ratio is None and against:
            ratio = value / against
        self.figures.append(Figure(name, round(value, 3), unit, peer, None if ratio is None else round(ratio, 3)))
        spread = f"  ({min(values):,.2f} to {max(values):,.2f})" if len(values) > 1 else ""
        beside = f"  {ratio:.2f} x {peer}" if ratio is not None else ""
        print(f"{name:<62} {value:>14,.2f} {unit:<12}{beside}{spread}", flush=True)
        return value

    def bar(self, least: float, of: str = "value") -> None:
        """Set the lower bound of the last figure, or of its `ratio`; without a peer a ratio has no bound."""
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
        """Add a figure with an upper bound: of the median `most`, of the worst `WORST` times as much."""
        value = self.add(name, values, unit)
        reached = value <= most and max(values) <= WORST * most
        self.figures[-1] = replace(self.figures[-1], bar=most, of="most", reached=reached)
        text = f"bar {most:,g} {unit} at most, {WORST * most:,g} in the worst case"
        print(f"  {text}: {'reached' if reached else 'MISSED'}", flush=True)
        if not reached:
            self.missed.append(f"{name}: {value:,.2f}, worst {max(values):,.2f}, {text}: MISSED")

    @contextmanager
    def row(self, name: str) -> Iterator[None]:
        """Catch an error of the measurement inside, such as a lab that does not boot: add a failed row with the
        reason, and continue."""
        try:
            yield
        except Exception as error:
            self.fail(name, error)

    def fail(self, name: str, error: Exception) -> None:
        """Add a failed row. Name the type of an error that is not a missed bar (AssertionError)."""
        said = str(error) or type(error).__name__
        reason = said if isinstance(error, AssertionError) else f"{type(error).__name__}: {said}"
        self.figures.append(Figure(name, None, "", failed=reason))
        first, *rest = reason.splitlines()
        print(f"{name:<62} FAILED: {first}", flush=True)
        for line in rest:
            print(f"  {line}", flush=True)
        self.missed.append(f"{name}: {first}")

    def judge(self, verdicts: Iterable[tuple[str, bool]]) -> None:
        """Print bars in words, each with whether it is reached."""
        for text, reached in verdicts:
            print(f"  {text}: {'reached' if reached else 'MISSED'}", flush=True)
            if not reached:
                self.missed.append(text)

    def keep(self, name: str, values: dict[str, float], unit: str) -> None:
        """Keep figures that were printed on their own line."""
        self.figures += [Figure(f"{name} {key}", round(value, 3), unit) for key, value in values.items()]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(figure) for figure in self.figures], indent=1) + "\n")
