"""`make bench`: run all benchmarks, or those named; with `--base COMMIT` compare with that commit and strongSwan.
With `--loads`: the costs of a packet at several loads alone, of this tree or of both.

Output: `build/bench.json`.

Exit with 1, after all have run and all figures are written, if a bound was missed or something could not be
measured, such as a lab that does not boot.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path

from bench import compare, loads
from bench.compare import ROUNDS
from bench.report import Report

BENCHMARKS = (
    "bus_hop",
    "line_card",
    "asp",
    "ciphers",
    "asp_work",
    "deaths",
    "asp_deaths",
    "idle",
    "lab",
    "site",
    "spread",
    "priority",
    "overload",
    "soak",
    "ike",
    "ike_load",
    "schedules",
    "commits",
    "fuzz",
    "cli",
    "scale",
)


def main(arguments: list[str]) -> int:
    parser = ArgumentParser(prog="python -m bench")
    parser.add_argument("names", nargs="*", metavar="BENCHMARK", help=", ".join(BENCHMARKS))
    parser.add_argument("--base", default="", metavar="COMMIT", help="compare with it (bench/compare.py)")
    parser.add_argument("--here", action="store_true", help="compare this tree as it is, not its last commit")
    parser.add_argument("--loads", action="store_true", help="costs of a packet by load (bench/loads.py)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each side of a comparison")
    given = parser.parse_args(arguments)
    names = given.names
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"not a benchmark: {', '.join(unknown)}; benchmarks: {', '.join(BENCHMARKS)}")
        return 2
    report = Report()
    if given.loads:
        with report.row("costs of a packet by load"):
            loads.run(report, given.base, worktree=not given.here, rounds=given.rounds)
        report.write(Path("build/bench.json"))
    elif given.base:
        with report.row(f"comparison with {given.base}"):
            compare.run(report, given.base, worktree=not given.here, rounds=given.rounds)
        report.write(Path("build/bench.json"))
    for name in names or (() if given.base or given.loads else BENCHMARKS):
        with report.row(name):
            import_module(f"bench.{name}").run(report)
        report.write(Path("build/bench.json"))
    for text in report.missed:
        print(f"MISSED: {text}")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
