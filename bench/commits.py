"""Five hundred random commits at a simulated router with three hundred tunnels: what each may not touch, and how
long the controller takes for one.

`tests/support/random_commits.py` draws the commits. It checks after each that untouched tunnels noticed nothing,
and after every part that plan, records and SAs are those of a chassis that began with this text. A violation
is an AssertionError; the seed repeats it.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.report import Report
from tests.support.random_commits import RandomCommits

TUNNELS = 300
COMMITS = 500
PART = 100
"""Commits of one seed."""

BOUND = 100.0
"""Bound (ms) of the controller's time for one commit of lines, with its checks, plan and journal."""


class Stopwatch:
    """Times the calls of a controller's engine that begin and end a commit."""

    def __init__(self, router: RandomCommits) -> None:
        self.times: list[float] = []
        """Milliseconds of each commit."""
        self._spent = 0.0
        engine = router.engine
        for name in ("on_operator_command", "on_stored"):
            setattr(engine, name, self._timed(getattr(engine, name), name))

    def _timed(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            outputs = call(*arguments)
            taken = 1e3 * (time.perf_counter() - began)
            if name == "on_operator_command":
                self._spent = taken if arguments[1] == "commit" else 0.0
            elif self._spent:
                self.times.append(self._spent + taken)
                self._spent = 0.0
            return outputs

        return timed


def run(report: Report) -> None:
    """Make the commits; AssertionError if one touched what it must not."""
    times: list[float] = []
    kinds: Counter[str] = Counter()
    for seed in range(1, COMMITS // PART + 1):
        with tempfile.TemporaryDirectory() as folder:
            router = RandomCommits(Path(folder), TUNNELS, seed)
            watch = Stopwatch(router)
            router.steps(PART)
            router.same_as(router.fresh())
            times += watch.times
            kinds.update(router.counts)
    report.add(f"random commits at {TUNNELS} tunnels", [float(sum(kinds.values()))], "steps")
    report.within("the controller's time for one commit", times, BOUND)
