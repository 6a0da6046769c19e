"""What an idle lab costs: two routers with a tunnel between them, and testers without flows."""

from __future__ import annotations

import time
from pathlib import Path

from bench.report import Report
from launch.client.process_times import ProcessTimes, children, process_times
from launch.scenario.boot import boot

LAB = Path("configs/site-to-site/lab.yaml")
SETTLE = 5.0
"""Time (s) after the tunnels are up in which what a start leaves is done."""
SECONDS = 20.0
RUNS = 3
BAR = 2.0
"""Most CPU (% of a core) of all threads of all processes of the lab."""


def _with_descendants(pid: int) -> list[int]:
    return [pid, *(one for child in children(pid) for one in _with_descendants(child))]


def run(report: Report) -> None:
    """Measure the CPU and the wake-ups of all processes of the lab, the launcher with them."""
    booted = boot(LAB)
    try:
        booted.client.wait_until("tunnels up", 60)
        booted.client.wait(SETTLE)
        pids = _with_descendants(booted.ask("", "ps", {})["launcher"])
        used, woken = [], []
        for _ in range(RUNS):
            before, begin = _times(pids), time.monotonic()
            booted.client.wait(SECONDS)
            after, seconds = _times(pids), time.monotonic() - begin
            spent = [now.whole() - then.whole() for now, then in zip(after, before, strict=True)]
            used.append(100 * sum(one.cpu for one in spent) / seconds)
            woken.append(sum(one.voluntary for one in spent) / seconds)
    finally:
        booted.close()
    report.within("idle lab, CPU of all processes", used, BAR, "% of a core")
    report.add("idle lab, wake-ups of all threads", woken, "a second")


def _times(pids: list[int]) -> list[ProcessTimes]:
    return [process_times(pid) for pid in pids]
