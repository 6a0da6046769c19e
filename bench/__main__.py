"""`make bench`: every benchmark, or those whose names are given. Writes `build/bench.json`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from bench.report import Report

BENCHMARKS = ("bus_hop", "line_card", "asp", "lab", "site", "priority", "soak", "ike", "ike_load", "fuzz")


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
        return 2
    report = Report()
    for name in names or BENCHMARKS:
        import_module(f"bench.{name}").run(report)
        report.write(Path("build/bench.json"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
