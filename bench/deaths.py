"""From a start or a death to traffic again: boot, an ASP killed and hung, a line card, a controller.

Each row has a bound that the product sets itself: the median of ten rounds is held to it, the worst to three times
as much. The rounds are those of the tests, which judge what they lose by its causes and not by the clock.
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
"""So many packets a second tell a loss to half a millisecond."""
FIRST = "circuit-forward"
"""The flow whose first packet ends a boot."""
ROUNDS = 10
TUNNELS = 1000
RESTART = 1.0
"""Seconds after which the launcher starts a dead card again (S-112)."""

BOOT = 2000.0
KILLED = 50.0
HUNG = 800.0
BACK = 2000.0
CIRCUIT = 500.0
"""Bounds in milliseconds."""
ON_THE_WAY_BACK = 5
"""Most packets lost on the way back to the preferred tunnel, in any round; of those that are overtaken because the
second ASP got no processor just as the first one took over again, it is the median, and none of them is lost."""
DPD_INTERVAL = 0.2
DPD_TRIES = 3
NEGOTIATION = 0.6
"""Seconds that a process and its negotiation may take before its INITIAL-CONTACT is known."""
UNKNOWN = 1e3 * min(DPD_INTERVAL * (1 + DPD_TRIES), RESTART + NEGOTIATION) + 300
"""Milliseconds until a peer knows: by its own questions, or by the restarted ASP's INITIAL-CONTACT."""


@contextmanager
def _lab(file: Path, flows: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[LabClient]:
    booted = boot(file, flows=flows)
    try:
        yield booted.client
    finally:
        booted.close()


def first_packet() -> float:
    """Milliseconds from the command until a packet has come through a tunnel of two routers."""
    began = time.monotonic()
    booted = boot(MANUAL_KEYS, ready=False)
    try:
        booted.client.wait_until(f"flow {FIRST} received >= 1", within=10)
        return (time.monotonic() - began) * 1e3
    finally:
        booted.close()


def _books(report: Report, name: str, lab: LabClient) -> None:
    ledger = failures.at_rest(lab)
    report.judge([(f"{name}: every lost packet has a cause with a name", failures.has_names(ledger))])


def run(report: Report) -> None:
    """A lab that does not boot is a row that failed: the others are measured."""
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
        _books(report, name, lab)

    name = "the preferred ASP hangs"
    with report.row(name), _lab(TAKEOVER, FLOWS) as lab:
        failures.flowing(lab)
        report.within(f"{name}: forward loss", failures.asp_hung(lab, ROUNDS), HUNG)
        _books(report, name, lab)

    name = "the preferred ASP is killed, IKE"
    with report.row(name), _lab(NEGOTIATED, FLOWS) as lab:
        failures.flowing(lab)
        found = failures.negotiated_asp_killed(lab, ROUNDS, RESTART)
        report.within(f"{name}: forward loss", found.moved, KILLED)
        report.within(f"{name}: in use again after its start", found.back, BACK)
        report.within(f"{name}: reverse loss until the gateway knows", found.reverse, UNKNOWN)
        _books(report, name, lab)

    name = "a line card is killed"
    with report.row(name), _lab(LINE_CARDS) as lab:
        cost = failures.line_card_killed(lab, ROUNDS)
        report.within(f"{name}: forward loss of an economical tunnel", cost.economical, KILLED)
        report.within(f"{name}: a circuit on another line card", cost.circuit, CIRCUIT)
        report.judge([(f"{name}: the flow beside it lost {sum(cost.other)}, bar none", not any(cost.other))])
        _books(report, name, lab)

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
        _books(report, name, lab)
