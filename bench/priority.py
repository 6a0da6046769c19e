"""Priority at twice the rate of an ASP: the whole lab, one flow for each of an SA's four queues.

A setting of the lab limits the ASP's rate, so that the load is twice that rate on any machine. Loss and latency
are measured by the testers end to end, and by the queues.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

from bench.report import Report
from launch.client.lab_client import LabClient
from launch.scenario.boot import boot

LAB = Path("configs/priority/lab.yaml")
RATE = 5000
"""Rate (packets/s) of the ASP."""
PARTS = {"control": 0.2, "voice": 0.2, "data": 0.2, "rest": 1.4}
"""Load of each flow as a share of the rate, in order of the queues 0 to 3: twice the rate in total."""
SIZE = 1400
WARM_UP = 1.0
SECONDS = 5.0
RUNS = 5
MISSES = 100
"""Heartbeat misses (count) until a card counts as dead: high, so that a busy machine does not matter here."""
BAR = 0.1
"""Largest 99th percentile of queue 0, as a share of that of queue 3."""


def _once(lab: LabClient) -> list[tuple[int, float, float, float]]:
    """Return for each flow: packets lost, share arrived, 99th percentiles of latency (ms) end to end and in the
    queue."""
    lab.wait_until("tunnels up")
    lab.start()
    lab.wait(WARM_UP + SECONDS)
    lab.stop()
    # The flows have stopped, but the queues still empty at the ASP's rate.
    lab.wait_until(lambda: not lab.ask("a", "queues", {})["cards"]["asp 1/1"]["depth"])
    lab.drain()
    (sa,) = lab.ask("a", "queues", {})["cards"]["asp 1/1"]["sas"]
    found = []
    for number, name in enumerate(PARTS):
        report = lab.report(name, final=True)
        used = sa["queues"].get(str(number))
        queue = used["latency"]["p99_ms"] if used else 0.0
        arrived = report["received"] / max(report["sent"] - report["lost_before_first"], 1)
        found.append((report["lost"], arrived, report["latency"]["p99_ms"], queue))
    return found


def run(report: Report) -> None:
    """Report loss and latency by queue; AssertionError if queue 0 is not preferred."""
    flows = {
        name: {"rate": RATE * part, "size": SIZE, "start": "manual", "trace": "0s"} for name, part in PARTS.items()
    }
    runs = []
    for number in range(RUNS):
        with report.row(f"2 x oversubscribed, run {number + 1} of {RUNS}"):
            booted = boot(LAB, settings={"asp-rate": f"{RATE}pps", "heartbeat-misses": MISSES}, flows=flows)
            try:
                runs.append(_once(booted.client))
            finally:
                booted.close()
    if not runs:
        return
    for number, name in enumerate(PARTS):
        mine = [one[number] for one in runs]
        lowest = [one[-1] for one in runs]
        text = f"2 x oversubscribed, queue {number} ({name})"
        report.add(f"{text}: lost", [float(lost) for lost, *_ in mine], "packets")
        report.add(f"{text}: arrived", [100 * arrived for _, arrived, _, _ in mine], "%")
        for place, where in ((2, "end to end"), (3, "in the queue")):
            against = median([one[place] for one in lowest])
            report.add(f"{text}: 99 % {where}", [one[place] for one in mine], "ms", "queue 3", against)
    lost = [one[0][0] for one in runs]
    ratio = median([one[0][2] / one[-1][2] for one in runs])
    assert not any(lost), f"queue 0 lost {lost} packets"
    assert ratio < BAR, f"the 99th percentile of queue 0 is {ratio:.3f} of that of queue 3"
