"""This commit beside another one: `make bench BASE=COMMIT`.

Each side has a worktree and an environment of its own and boots its own `configs/site-to-site`; they take turns.
Every figure has the ratio to the other side: the median of those of the rounds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.report import Report, paired
from bench.search import STRIDE
from bench.side import Side, here, side_of
from bench.site import BAR_AT, HALF, MAX, NAME, SLOW, arithmetic, beside, site
from bench.stream import GUESS, Carried, Stream, sized

SUITE = BAR_AT[0]
PATHS = ("economical", "circuit")
SIZES = ("1400", "64")
ROUNDS = 3
PEER_ROUNDS = 2
MORE_ROUNDS = 2
"""Rounds that also have goodput and latency."""
WINDOW = 1.5
"""Time (s) for which goodput and latency are measured."""
BARS: Mapping[str, float] = {"1400": 1.7, "64": 2.0}
"""Factor of the other commit's load, by size."""
GOODPUT_BAR = 0.9
"""Share of the best load that must arrive when more is offered."""
LATENCY_RATE = 1000.0
LATENCY_BAR = 1.1
"""Largest factor of the other commit's latency: no worse, with 10 % for the machine."""
HALF_BAR = 5.0
"""Largest 99th percentile (ms) of the latency at half the best load."""


@dataclass(slots=True)
class Found:
    """Figures of one side at one kind of tunnel and size, by round."""

    best: dict[int, list[Carried]] = field(default_factory=dict)
    goodput: dict[str, dict[int, float]] = field(default_factory=dict)
    """Rates (packets/s) that arrived, by what was offered: `twice the best`, `rate: max`."""
    latency: dict[str, dict[int, Mapping[str, float]]] = field(default_factory=dict)
    """By load: `1,000/s`, `half the best`."""

    def rates(self) -> dict[int, float]:
        """Return the best load (packets/s) of each round."""
        return {number: median(run.rate for run in runs) for number, runs in self.best.items()}

    def runs(self) -> list[Carried]:
        return [run for runs in self.best.values() for run in runs]

    def delays(self, load: str, key: str) -> dict[int, float]:
        """Return a latency (ms) of each round."""
        return {number: found[key] for number, found in self.latency.get(load, {}).items() if key in found}


def run(report: Report, base: str, *, worktree: bool = True, rounds: int = ROUNDS) -> None:
    """Compare this commit (or this tree as it is, without `worktree`) with `base`, then with strongSwan."""
    began = time.monotonic()
    with ExitStack() as stack:
        old = stack.enter_context(side_of(base))
        new = stack.enter_context(side_of("HEAD")) if worktree else here()
        print(f"{new.name} beside {old.name}: environments made in {time.monotonic() - began:.0f} s", flush=True)
        for path in PATHS:
            _path(report, path, (old, new), rounds)
            print(f"  after {time.monotonic() - began:.0f} s", flush=True)
        beside(report, SUITE, min(rounds, PEER_ROUNDS), boot=new.booted)
        print(f"  after {time.monotonic() - began:.0f} s", flush=True)


def _path(report: Report, path: str, sides: Sequence[Side], rounds: int) -> None:
    """Measure and report one kind of tunnel; a boot or a measurement that fails is a failed row of its own."""
    found = {(side.name, size): Found() for side in sides for size in SIZES}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            what = f"{side.name}, {path}, round {number + 1}"
            with report.row(what), TemporaryDirectory() as name:
                file = site(Path(name), SUITE, economical=path == "economical", veth=False, root=side.root)
                with side.booted(file) as stream:
                    for size in SIZES:
                        with report.row(f"{what}, {size}"):
                            _measure(stream, size, found[side.name, size], number)
                            rate = found[side.name, size].rates()[number]
                            print(f"  {what}, {size}: {rate:,.0f} packets/s", flush=True)
    for size in SIZES:
        old, new = (found[side.name, size] for side in sides)
        _report(report, f"site to site, {path}, {size}", size, old, new, sides[0].name)


def _measure(stream: Stream, size: str, found: Found, number: int) -> None:
    """Measure the best load of a booted lab; in the first rounds also goodput above it, and latency below."""
    guess, stride = (median(found.rates().values()), 2) if found.best else (GUESS, STRIDE)
    runs = found.best[number] = stream.best(sized(NAME, size), guess=guess, stride=stride)
    if number >= MORE_ROUNDS:
        return
    best = median(run.rate for run in runs)
    for what, name, rate in (("twice the best", NAME, 2 * best), ("rate: max", MAX, "max")):
        carried = stream.offer(sized(name, size), rate, WINDOW)
        found.goodput.setdefault(what, {})[number] = carried.rate
    for what, name, load in (("1,000/s", SLOW, LATENCY_RATE), ("half the best", HALF, best / 2)):
        (latency,) = stream.offer(sized(name, size), load, WINDOW, latency=True).latency.values()
        found.latency.setdefault(what, {})[number] = latency


def _report(report: Report, what: str, size: str, old: Found, new: Found, peer: str) -> None:
    sides = ((peer, old), ("this", new))
    known = arithmetic(SUITE, int(size))
    for name, found in sides:
        if not found.best:
            continue
        runs = found.runs()
        lost = median(run.lost for run in runs)
        ratio = paired(new.rates(), old.rates()) if found is new else None
        rates = [run.rate for run in runs]
        rate = report.add(f"{what}, {name}: best, loss {lost:.3%}", rates, "packets/s", peer, ratio=ratio)
        if found is new:
            report.bar(BARS[size], "ratio")
        parts = f"{rate / known:.0%} of openssl speed on one core, " if known else ""
        print(f"  {parts}the testers' share of the CPU {median(run.testers() for run in runs):.0%}")
    for load in new.goodput:
        for name, found in sides:
            goodput = found.goodput.get(load, {})
            if goodput:
                ratio = paired(goodput, found.rates())
                values = list(goodput.values())
                report.add(f"{what}, {name}: goodput at {load}", values, "packets/s", "its best", ratio=ratio)
                if found is new:
                    report.bar(GOODPUT_BAR, "ratio")
    for load in new.latency:
        for key, text in (("p50_ms", "median"), ("p99_ms", "99 %")):
            _report_latency(report, f"{what}, latency at {load}, {text}", load, key, old, new, peer)


def _report_latency(report: Report, what: str, load: str, key: str, old: Found, new: Found, peer: str) -> None:
    before, after = old.delays(load, key), new.delays(load, key)
    if before:
        report.add(f"{what}, {peer}", list(before.values()), "ms")
    if not after:
        return
    ratio = paired(after, before)
    value = report.add(f"{what}, this", list(after.values()), "ms", peer, ratio=ratio)
    if load == "1,000/s" and ratio is not None:
        text = f"{what}: {ratio:.2f} x {peer}, bar {LATENCY_BAR:g} at most"
        report.judge([(text, ratio <= LATENCY_BAR)])
    elif load != "1,000/s" and key == "p99_ms":
        report.judge([(f"{what}: {value:.2f} ms, bar {HALF_BAR:g} ms at most", value < HALF_BAR)])
