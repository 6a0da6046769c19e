"""What a packet costs each process, by load: `make bench BENCH_ARGS=--loads`, with `BASE=COMMIT` also there.

The lab `configs/site-to-site` with economical tunnels and 1,400 bytes, in one direction. Each side boots its own;
two sides take turns. The output is a table with a row for each side and load.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.report import Report
from bench.side import Side, here, side_of
from bench.site import BAR_AT, MAX, NAME, site
from bench.stream import Carried, sized

SUITE, SIZE = BAR_AT
LOADS: tuple[float | str, ...] = (15_000.0, 25_000.0, 35_000.0, "max")
"""Offered loads (packets/s, or as many as the wire takes)."""
LEAST = 5_000.0
"""Load (packets/s) before the first one, which is not measured."""
SECONDS = 4.0
"""Time (s) for which each load is measured: CPU time is counted in ticks of 10 ms."""
HEADINGS = (
    "side", "offered", "arrived", "lost", "packets in a batch", "CPU a packet, whole chain",
    "ASP protect / decapsulate", "line card each", "tester each",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU (us) for each packet that arrived, of all processes and of some. Pairs are of routers a and b, which
    encapsulates and decapsulates.

    `batches` has the packets in a batch at their ASPs; None if the side does not count them.
    """

    chain: float
    asps: tuple[float, float]
    line_card: float
    tester: float
    batches: tuple[float, float] | None


def costs(carried: Carried) -> Costs:
    """Return what a packet cost; the ASP of the tunnel is that which used most."""
    cores = carried.cores
    asps = [
        max(
            (used, name) for name, used in cores.items() if name.startswith(f"{node} asp ") and name[-1].isdigit()
        )[1]
        for node in "ab"
    ]
    batches = tuple(carried.batches[asp] for asp in asps if asp in carried.batches)

    def each(names: Iterable[str]) -> float:
        used = [cores[name] for name in names]
        return 1e6 * sum(used) / max(len(used), 1) / max(carried.rate, 1e-9)

    return Costs(
        1e6 * sum(cores.values()) / max(carried.rate, 1e-9),
        (each(asps[:1]), each(asps[1:])),
        each(name for name in cores if " lc " in name),
        each(name for name in cores if name.endswith(" tester")),
        (batches[0], batches[1]) if len(batches) == 2 else None,
    )


def run(report: Report, base: str = "", *, worktree: bool = True, rounds: int = 1) -> None:
    """Measure this tree; with `base` that commit too, and of this tree its last commit, or without `worktree` all
    as it is. Print a table of the medians of all rounds."""
    with ExitStack() as stack:
        sides = [stack.enter_context(side_of(base))] if base else []
        sides.append(stack.enter_context(side_of("HEAD")) if base and worktree else here())
        found: dict[tuple[str, float | str], list[Carried]] = {}
        for number in range(rounds):
            for side in sides if number % 2 == 0 else sides[::-1]:
                with report.row(f"{side.name}, round {number + 1}"):
                    _measure(side, found)
    rows = [
        [side.name, *_row(load, runs)]
        for side in sides
        for load in LOADS
        if (runs := found.get((side.name, load)))
    ]
    print("\n".join(table([HEADINGS, *rows])), flush=True)
    for (name, load), runs in found.items():
        report.keep(f"{name}, {_offered(load)} offered:", _figures(runs), "us/packet")


def _measure(side: Side, found: dict[tuple[str, float | str], list[Carried]]) -> None:
    with TemporaryDirectory() as name:
        file = site(Path(name), SUITE, economical=True, veth=False, root=side.root)
        with side.booted(file) as stream:
            # A lab that has carried nothing has other costs.
            stream.offer(sized(NAME, SIZE), LEAST)
            for load in LOADS:
                flows = sized(MAX if load == "max" else NAME, SIZE)
                carried = stream.offer(flows, load, SECONDS, batches=True)
                found.setdefault((side.name, load), []).append(carried)
                print(
                    f"  {side.name}, {_offered(load)} offered: {carried.rate:,.0f} packets/s arrived", flush=True
                )


def _offered(load: float | str) -> str:
    return load if isinstance(load, str) else f"{load:,.0f}/s"


def _figures(runs: Sequence[Carried]) -> dict[str, float]:
    """Return the medians of the costs (us) by name."""
    every = [costs(run) for run in runs]
    return {
        "whole chain": median(one.chain for one in every),
        "ASP protect": median(one.asps[0] for one in every),
        "ASP decapsulate": median(one.asps[1] for one in every),
        "line card each": median(one.line_card for one in every),
        "tester each": median(one.tester for one in every),
    }


def _row(load: float | str, runs: Sequence[Carried]) -> list[str]:
    figures = _figures(runs)
    batches = [pair for run in runs if (pair := costs(run).batches) is not None]
    protect, decapsulate, card, tester = list(figures.values())[1:]
    return [
        _offered(load),
        f"{median(run.rate for run in runs):,.0f}/s",
        f"{median(run.lost for run in runs):.1%}",
        " / ".join(f"{median(pair[at] for pair in batches):.0f}" for at in (0, 1)) if batches else "not counted",
        f"{figures['whole chain']:.1f} us",
        f"{protect:.1f} / {decapsulate:.1f}",
        f"{card:.1f}",
        f"{tester:.1f}",
    ]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown; the first row has the headings."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in rows
    ]
    return [lines[0], f"| {' | '.join('-' * width for width in widths)} |", *lines[1:]]
