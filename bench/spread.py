"""Many tunnels at once: what the lab carries over two hundred tunnels, beside what it carries over one of them.

The tunnels have manual keys; every second one is economical. The packets of the tester's flow go through them in
turn, to hosts behind one router of the site, for which the tester stands, or to as many neighbours of a port.
"""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.report import Report
from bench.stream import booted
from tests.support import lab_files

TUNNELS = 200
SIZE = 1400
ONE = 1
"""Number of the single tunnel: an economical one."""
ALL = "forward0"
BAR = 0.6
"""Share of one tunnel's load that all of them together must carry."""


def run(report: Report) -> None:
    """Measure a flow through one tunnel, then one through all of them, in a lab of each kind."""
    for neighbours in (False, True):
        _measure(report, neighbours=neighbours)


def _measure(report: Report, *, neighbours: bool) -> None:
    what = f"{SIZE} bytes over"
    there = f"to {TUNNELS} neighbours" if neighbours else "to hosts behind one"
    with TemporaryDirectory() as name:
        file = lab_files.written(Path(name), TUNNELS, [0, ONE])
        # No flow starts by itself, and all have the same size. The flow that begins at the first tunnel takes all.
        more = f"rate: 500, size: {SIZE}, start: manual}}"
        text = file.read_text().replace("rate: 500}", more)
        for end, net in () if neighbours else (("a", 11), ("b", 12)):
            lines = (file.parent / f"{end}.cfg").read_text()
            lines = lines.replace(f"{net}.255.255.254/8", f"{net}.255.255.254/16")
            route = f" ip route {net}.0.0.0/9 {net}.255.0.1\n"
            lines = lines.replace("context wan\n", f"{route}context wan\n", 1)
            (file.parent / f"{end}.cfg").write_text(lines)
        text = re.sub(rf"(  {ALL}: .*)}}", rf"\1, destinations: {TUNNELS}}}", text)
        file.write_text(text)
        with booted(file) as stream:
            one = stream.best({f"forward{ONE}": 1})
            report.add(f"{what} one tunnel, {there}", [run.rate for run in one], "packets/s")
            rate = median(run.rate for run in one)
            every = stream.best({ALL: 1}, guess=rate / 2)
            rates = [run.rate for run in every]
            report.add(f"{what} {TUNNELS} tunnels, {there}", rates, "packets/s", "one tunnel", rate)
            report.bar(BAR, "ratio")
            busy = every[-1].cores
            print("  CPU: " + ", ".join(f"{name} {used:.2f}" for name, used in busy.items() if used >= 0.005))
            print(f"  the testers' share of the CPU: {median(run.testers() for run in every):.0%}")
