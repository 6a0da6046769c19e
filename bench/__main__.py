"""`make bench`: every benchmark, or those whose names are given. Writes `build/bench.json`.

A bar that is missed ends it with 1, and so does what could not be measured, such as a lab that does not boot: when
all have run and all figures are written.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from bench.report import Report

BENCHMARKS = (
    "bus_hop",
    "line_card",
    "asp",
    "asp_work",
    "deaths",
    "lab",
    "site",
    "priority",
    "soak",
    "ike",
    "ike_load",
    "schedules",
    "fuzz",
)


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
        return 2
    report = Report()
    for name in names or BENCHMARKS:
        with report.row(name):
            import_module(f"bench.{name}").run(report)
        report.write(Path("build/bench.json"))
    for text in report.missed:
        print(f"MISSED: {text}")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
