"""Time from a start or a failure until traffic flows: boot, an ASP killed or hung, a line card, a controller.

Each row has a bound of the product: the median of ten rounds must meet it, the worst round three times the bound.
The tests run the same rounds and check causes of loss instead of times.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.report import Report
from launch.client.lab_client import LabClient
from launch.scenario.boot import boot
from tests.support import failures, lab_files

MANUAL_KEYS = Path("configs/manual-keys/lab.yaml")
TAKEOVER = Path("configs/high-availability-manual/lab.yaml")
NEGOTIATED = Path("configs/high-availability/lab.yaml")
LINE_CARDS = Path("configs/line-cards/lab.yaml")
FLOWS = {"forward": {"rate": 2000}, "reverse": {"rate": 2000}}
"""At these rates (packets/s) a loss measures time to half a millisecond."""
FIRST = "circuit-forward"
"""The flow whose first packet ends a boot."""
ROUNDS = 10
TUNNELS = 1000
RESTART = 1.0
"""Delay (s) until the launcher restarts a dead card (S-112)."""

BOOT = 2000.0
KILLED = 50.0
HUNG = 800.0
BACK = 2000.0
CIRCUIT = 500.0
"""Bounds (ms)."""
ON_THE_WAY_BACK = 5
"""Largest number of packets lost in any round on the way back to the preferred tunnel. For packets overtaken
because the second ASP got no processor at the switch it bounds the median; none of them is lost."""
DPD_INTERVAL = 0.2
DPD_TRIES = 3
NEGOTIATION = 0.6
"""Longest time (s) from the start of a process until its INITIAL-CONTACT arrives."""
UNKNOWN = 1e3 * min(DPD_INTERVAL * (1 + DPD_TRIES), RESTART + NEGOTIATION) + 300
"""Time (ms) until a peer detects the failure: by DPD, or by the restarted ASP's INITIAL-CONTACT."""


@contextmanager
def _lab(file: Path, flows: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[LabClient]:
    booted = boot(file, flows=flows)
    try:
        yield booted.client
    finally:
        booted.close()


def first_packet() -> float:
    """Return the time (ms) from the command until a packet has passed a tunnel of two routers."""
    began = time.monotonic()
    booted = boot(MANUAL_KEYS, ready=False)
    try:
        booted.client.wait_until(f"flow {FIRST} received >= 1", within=10)
        return (time.monotonic() - began) * 1e3
    finally:
        booted.close()


def _judge_accounting(report: Report, name: str, lab: LabClient) -> None:
    ledger = failures.at_rest(lab)
    report.judge([(f"{name}: every lost packet has a cause with a name", failures.has_names(ledger))])


def run(report: Report) -> None:
    """Run all rows. A lab that does not boot is a failed row; the other rows still run."""
    name = "two routers, from the command to the first packet through a tunnel"
    with report.row(name):
        report.within(name, [first_packet() for _ in range(ROUNDS)], BOOT)

    name = "the preferred ASP is killed, manual keys"
    with report.row(name), _lab(TAKEOVER, FLOWS) as lab:
        failures.flowing(lab)
        found = failures.asp_killed(lab, ROUNDS, RESTART)
        report.within(f"{name}: forward loss", found.moved, KILLED)
        report.within(f"{name}: overtaken on the way back", list(map(float, found.overtaken)), 5, "packets")
        lost = max(found.lost)
        report.add("  lost on the way back", list(map(float, found.lost)), "packets")
        report.judge(
            [
                (f"{lost} lost on the way back, bar {ON_THE_WAY_BACK}", lost <= ON_THE_WAY_BACK),
                ("reverse loss ends when traffic is back", max(found.reverse) <= 0),
            ]
        )
        _judge_accounting(report, name, lab)

    name = "the preferred ASP hangs"
    with report.row(name), _lab(TAKEOVER, FLOWS) as lab:
        failures.flowing(lab)
        report.within(f"{name}: forward loss", failures.asp_hung(lab, ROUNDS), HUNG)
        _judge_accounting(report, name, lab)

    name = "the preferred ASP is killed, IKE"
    with report.row(name), _lab(NEGOTIATED, FLOWS) as lab:
        failures.flowing(lab)
        found = failures.negotiated_asp_killed(lab, ROUNDS, RESTART)
        report.within(f"{name}: forward loss", found.moved, KILLED)
        report.within(f"{name}: in use again after its start", found.back, BACK)
        report.within(f"{name}: reverse loss until the gateway knows", found.reverse, UNKNOWN)
        _judge_accounting(report, name, lab)

    name = "a line card is killed"
    with report.row(name), _lab(LINE_CARDS) as lab:
        cost = failures.line_card_killed(lab, ROUNDS)
        report.within(f"{name}: forward loss of an economical tunnel", cost.economical, KILLED)
        report.within(f"{name}: a circuit on another line card", cost.circuit, CIRCUIT)
        report.judge([(f"{name}: the flow beside it lost {sum(cost.other)}, bar none", not any(cost.other))])
        _judge_accounting(report, name, lab)

    name = f"a controller of {TUNNELS:,} tunnels is killed"
    used = [0, 1, TUNNELS // 2, TUNNELS - 1]
    with (
        report.row(name),
        TemporaryDirectory() as folder,
        _lab(lab_files.written(Path(folder), TUNNELS, used)) as lab,
    ):
        lab.wait_until("tunnels up")
        lab.start()
        times = failures.controller_killed(lab, "a", ROUNDS)
        report.add(f"{name}: the next one knows everything again", times, "s")
        _judge_accounting(report, name, lab)
