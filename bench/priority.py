"""Priority under twice what an ASP can do: the whole lab, one flow for each of an SA's four queues.

The ASP has a rate that a lab sets, so that what is offered is twice that on any machine. Losses and latencies are
those that the testers see, from one end of the lab to the other; beside them those of the queues themselves.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

from bench.report import Report
from launch.client.lab_client import LabClient
from launch.scenario.boot import boot

LAB = Path("configs/priority/lab.yaml")
RATE = 5000
"""Packets a second of the ASP."""
PARTS = {"control": 0.2, "voice": 0.2, "data": 0.2, "rest": 1.4}
"""What each flow offers, as a part of the rate, in the order of the queues 0 to 3: twice the rate in all."""
SIZE = 1400
WARM_UP = 1.0
SECONDS = 5.0
RUNS = 5
MISSES = 100
"""Heartbeats after which a card counts as dead: what a starved machine does to cards is no matter here."""
BAR = 0.1
"""Of the 99th percentile of queue 3, what that of queue 0 must stay below."""


def _once(lab: LabClient) -> list[tuple[int, float, float, float]]:
    """Of each flow: packets lost, the part that arrived, the 99th percentiles of latency through the lab and in
    the queue, in milliseconds."""
    lab.wait_until("tunnels up")
    lab.start()
    lab.wait(WARM_UP + SECONDS)
    lab.stop()
    # A flow has stopped at its source; what it left in a queue comes out at the rate.
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
    """Loss and latency by queue; AssertionError where the highest does not have its way."""
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
