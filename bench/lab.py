"""The whole manual-keys lab in one direction: two testers and two routers, all processes on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from bench.report import Report
from launch.client.lab_client import LabClient
from launch.scenario.boot import boot

LAB = Path("configs/manual-keys/lab.yaml")
RATES = (110, 100, 95, 90, 85, 80, 75, 70, 65, 60, 55, 50, 45, 40, 35, 30, 20, 10)
"""Offered loads (1000 packets/s) to try, from the highest."""
LOSS = 0.001
WARM_UP = 1.0
SECONDS = 4.0
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


def _carried(flow: str, size: int, rate: int) -> tuple[float, float, dict[str, float]]:
    """Return the rate (packets/s) that arrived, the share that was lost, and every process's CPU use (cores)."""
    others = ("circuit-forward", "circuit-reverse", "economical-forward", "economical-reverse")
    flows: dict[str, dict[str, str | int]] = {name: {"start": "manual", "trace": "0s"} for name in others}
    flows[flow] |= {"rate": rate, "size": size}
    booted = boot(LAB, flows=flows)
    try:
        lab = booted.client
        lab.wait_until("tunnels up")
        lab.start(flow)
        lab.wait_until(f"flow {flow} received >= 1000")
        lab.wait(WARM_UP)
        begin, before, received = lab.clock(), cpu_of(pids_of(lab)), lab.report(flow)["received"]
        lab.wait(SECONDS)
        end, after = lab.clock(), cpu_of(pids_of(lab))
        arrived = lab.report(flow)["received"] - received
        lab.stop(flow)
        lab.drain(flow)
        report = lab.report(flow, since=begin, until=end, final=True)
        spent = end - begin
        # A source that cannot keep up with its rate has offered less: use what it sent.
        offered = arrived + report["window_lost"]
        cores = {name: (after[name] - before[name]) / spent for name in after if name in before}
        return arrived / spent, report["window_lost"] / max(offered, 1), cores
    finally:
        booted.close()


def highest(mode: str, size: int) -> tuple[float, float, dict[str, float]]:
    """Return `_carried` for the highest offered load with a loss below `LOSS`."""
    for thousands in RATES:
        carried, lost, cores = _carried(f"{mode}-forward", size, thousands * 1000)
        if lost < LOSS and carried > 0.98 * thousands * 1000:
            break
    return carried, lost, cores


def run(report: Report) -> None:
    """Measure the highest offered load with a loss below `LOSS`, for both kinds of tunnels."""
    for mode in ("economical", "circuit"):
        for size in (1400, 64):
            what = f"whole lab, {mode}, {size} bytes"
            with report.row(what):
                carried, lost, cores = highest(mode, size)
                report.add(f"{what}, loss {lost:.3%}", [carried], "packets/s")
                for name, used in cores.items():
                    if used >= 0.005:
                        report.add(f"  CPU of {name}", [used], "cores")
