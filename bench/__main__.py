"""`make bench`: run all benchmarks, or those named. Output: `build/bench.json`.

Exit with 1, after all have run and all figures are written, if a bound was missed or something could not be
measured, such as a lab that does not boot.
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
    "commits",
    "fuzz",
    "cli",
    "scale",
)


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"not a benchmark: {', '.join(unknown)}; benchmarks: {', '.join(BENCHMARKS)}")
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
