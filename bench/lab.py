"""The whole manual-keys lab in one direction: two testers and two routers, all processes on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median

from bench.report import Report
from bench.stream import Carried, stream_of
from launch.client.lab_client import LabClient
from launch.scenario.boot import boot

LAB = Path("configs/manual-keys/lab.yaml")
FLOWS = ("circuit-forward", "circuit-reverse", "economical-forward", "economical-reverse")
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of(pids: dict[str, int]) -> dict[str, float]:
    """Return the CPU time (s) that each process has used."""
    used = {}
    for name, pid in pids.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        used[name] = (int(fields[11]) + int(fields[12])) / TICKS
    return used


def pids_of(lab: LabClient) -> dict[str, int]:
    rows = lab.ask("", "ps", {})["processes"]
    return {f"{row['node']} {row['card']}": row["pid"] for row in rows if row.get("pid")}


def highest(mode: str, size: int) -> list[Carried]:
    """Return runs at the highest offered load with less than `stream.LOSS` lost."""
    chosen = f"{mode}-forward"
    flows: dict[str, dict[str, str | int]] = {name: {"start": "manual", "trace": "0s"} for name in FLOWS}
    flows[chosen] |= {"size": size}
    booted = boot(LAB, flows=flows)
    try:
        booted.client.wait_until("tunnels up")
        return stream_of(booted.client).best({chosen: 1})
    finally:
        booted.close()


def run(report: Report) -> None:
    """Measure the highest offered load, for both kinds of tunnels."""
    for mode in ("economical", "circuit"):
        for size in (1400, 64):
            what = f"whole lab, {mode}, {size} bytes"
            with report.row(what):
                runs = highest(mode, size)
                lost = median(run.lost for run in runs)
                report.add(f"{what}, loss {lost:.3%}", [run.rate for run in runs], "packets/s")
                for name, used in runs[-1].cores.items():
                    if used >= 0.005:
                        report.add(f"  CPU of {name}", [used], "cores")
