"""`make flake`: the tests with real processes, over and over on a crowded machine, for so many minutes.

What depends on time shows where time is short: more tests run at once than there are cores, beside a process for
each core that only computes, and every round has another order. What failed is told by name, with how often it ran
and failed, and ends this with 1. Depth is the simulator's: `chassis-launch simulate LAB --seeds 1000`.

The same file is the plugin of pytest that does it: it stops when the time is over and keeps every outcome.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import ROOT

CORES = len(os.sched_getaffinity(0))
SETTINGS = "FLAKE_SETTINGS"
"""Variable with what the plugin is told: `until` in monotonic seconds, `seed`, `kept`."""


# the plugin


def _told() -> dict[str, float | str]:
    found: dict[str, float | str] = json.loads(os.environ[SETTINGS])
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    random.Random(_told()["seed"]).shuffle(items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.monotonic() > float(_told()["until"]):
        pytest.skip("the time is over")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # With several workers their reports come together in the process that started them.
    if "PYTEST_XDIST_WORKER" not in os.environ and (report.when == "call" or report.failed):
        with open(str(_told()["kept"]), "a") as kept:
            kept.write(json.dumps([report.nodeid, report.outcome]) + "\n")


# the program


@contextmanager
def crowd(processes: int) -> Iterator[None]:
    """So many processes that compute all the time."""
    burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


def outcomes(kept: Path) -> tuple[Counter[str], Counter[str]]:
    """How often each test ran, and how often it failed."""
    ran, failed = Counter[str](), Counter[str]()
    for line in kept.read_text().splitlines() if kept.exists() else ():
        name, outcome = json.loads(line)
        ran[name] += outcome != "skipped"
        failed[name] += outcome == "failed"
    return +ran, +failed


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make flake", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=0, help="end after so many of them")
    parser.add_argument("--workers", type=int, default=2 * CORES)
    parser.add_argument("--crowd", type=int, default=CORES)
    parser.add_argument("--build", type=Path, default=Path("build"))
    options, given = parser.parse_known_args(arguments)
    build: Path = options.build.absolute()
    build.mkdir(exist_ok=True)
    kept, log = build / "flake.jsonl", build / "flake.log"
    kept.unlink(missing_ok=True)
    # A test of a parallel run may start this: what pytest told that worker of itself is not for the runs here.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    until = time.monotonic() + options.minutes * 60
    rounds, broken = 0, False
    with log.open("w") as said, crowd(options.crowd):
        while time.monotonic() < until and not broken and (not options.rounds or rounds < options.rounds):
            rounds += 1
            told = {"until": until, "seed": rounds, "kept": str(kept)}
            path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
            command = [sys.executable, "-m", "pytest", "-p", "tests.support.flake", "-q", *given]
            command += ["-n", str(options.workers)] if options.workers else []
            said.write(f"== round {rounds}\n")
            said.flush()
            done = subprocess.run(
                command,
                env={**outside, SETTINGS: json.dumps(told), "PYTHONPATH": path},
                stdout=said,
                stderr=subprocess.STDOUT,
                check=False,
            )
            # Anything but passed and failed tests: nothing was collected, or pytest itself was wrong.
            broken = done.returncode not in (0, 1)
    ran, failed = outcomes(kept)
    for name, times in failed.most_common():
        print(f"{times} of {ran[name]} failed: {name}")
    print(f"{ran.total()} runs of {len(ran)} tests in {rounds} rounds, {failed.total()} failed; see {log}")
    return 1 if failed or broken or not ran else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
