"""The operator's seat at 8,000 tunnels: a commit of one tunnel more, a listing, a completion, while packets flow.

The lab is `configs/manual-keys`. Its router a gets the tunnels live, in commits of a few hundred; their peers do
not exist and they wait for them (responder-only), so that what is measured is the router's own work.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.lab import cpu_of, pids_of
from bench.report import Report
from bench.tunnels_config import BASE, tunnel
from chassis.bus.operator import OperatorError
from chassis.cli.pager import MORE
from launch.client.lab_client import LabClient
from launch.scenario.boot import boot
from tests.support import failures
from tests.support.cli import CliRig

LAB = Path("configs/manual-keys/lab.yaml")
NODE = "a"
TUNNELS = 8000
"""Tunnels of the router at the end: as many as its card holds."""
STEP = 200
"""Tunnels of one commit while the router grows."""
ROUNDS = 10
OWN = 2
"""Tunnels of the router in the lab."""
ADDED = TUNNELS - ROUNDS - OWN
"""Tunnels that are added before a commit of one is measured."""

COMMIT = 500.0
FIRST_PAGE = 200.0
COMPLETION = 50.0
"""Bounds (ms)."""


class Seat:
    """A session of the router's CLI with its requests at a running lab."""

    def __init__(self, lab: LabClient, node: str = NODE) -> None:
        self._lab, self._node = lab, node
        self.rig = CliRig(self._ask)
        self.rig.start()

    def _ask(self, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return self._lab.ask(self._node, command, arguments)
        except OperatorError as error:
            raise LookupError(str(error)) from None

    def timed(self, keys: str) -> tuple[float, str]:
        """Type keys; return the time (ms) until all that they show is there, and the text."""
        began = time.monotonic()
        text = self.rig.type(keys)
        return (time.monotonic() - began) * 1e3, text


def commit(lab: LabClient, lines: str) -> tuple[float, Mapping[str, Any]]:
    """Commit lines; return the time (ms) from the request to its answer, and the answer."""
    began = time.monotonic()
    answer = lab.ask(NODE, "commit", {"lines": lines, "base": -1, "user": "bench"})
    took = (time.monotonic() - began) * 1e3
    assert answer["applied"], answer["diagnostics"]
    return took, answer


def grow(lab: LabClient, report: Report) -> None:
    """Give the router its tunnels."""
    commit(lab, BASE)
    spent = [
        commit(lab, "".join(line for number in range(at, min(at + STEP, ADDED)) for line in tunnel(number)))[0]
        for at in range(0, ADDED, STEP)
    ]
    report.add(f"commit of {STEP} tunnels, the first ones", spent[:5], "ms")
    # The very last one has fewer.
    report.add(f"commit of {STEP} tunnels, the last ones", spent[-6:-1], "ms")


def listed(lab: LabClient) -> list[Mapping[str, Any]]:
    """Return all tunnels, slice by slice."""
    rows: list[Mapping[str, Any]] = []
    key = ""
    while True:
        part = lab.ask(NODE, "tunnels", {"after": key, "limit": 1000})
        rows += part["tunnels"]
        key = part["next"]
        if not key:
            return rows


def run(report: Report) -> None:
    """Measure all of it in one lab, with the four flows of the example running."""
    name = f"{TUNNELS:,} tunnels"
    with report.row(name):
        booted = boot(LAB)
        try:
            lab = booted.client
            lab.wait_until("tunnels up")
            lab.start()
            grow(lab, report)
            _measure(lab, report, name)
        finally:
            booted.close()


def _measure(lab: LabClient, report: Report, name: str) -> None:
    controller = {key: pid for key, pid in pids_of(lab).items() if key == f"{NODE} xcrp"}
    before = cpu_of(controller)
    single = [commit(lab, "".join(tunnel(ADDED + number))) for number in range(ROUNDS)]
    spent = sum(cpu_of(controller).values()) - sum(before.values())
    report.within(f"{name}: a commit that adds one", [took for took, _ in single], COMMIT)
    report.add("  CPU of the controller for each", [spent / ROUNDS * 1e3], "ms")
    seat = Seat(lab)
    pages, completions = [], []
    for _ in range(ROUNDS):
        took, text = seat.timed("show tunnel ipsec\r")
        assert text.endswith(MORE)
        assert "circuit" in text
        pages.append(took)
        seat.rig.type("q")
        took, text = seat.timed(f"show tunnel ipsec name site-{ADDED - 1}"[:-2] + "\t")
        completions.append(took)
        seat.rig.type("\x15")
    report.within(f"{name}: the first page of show tunnel ipsec", pages, FIRST_PAGE)
    report.within(f"{name}: completion of a name", completions, COMPLETION)
    began = time.monotonic()
    rows = listed(lab)
    report.add(f"{name}: the whole listing", [(time.monotonic() - began) * 1e3], "ms")
    ledger = failures.at_rest(lab)
    lost = sum(lab.report(flow, final=True)["lost"] for flow in lab.file.flows)
    report.judge(
        [
            (f"{name}: {len(rows):,} of {TUNNELS:,} listed", len(rows) == TUNNELS),
            (f"{name}: {lost} packets lost {ledger.dropped or ''}, bar none", lost == 0),
            (f"{name}: every packet has its place in balance", failures.has_names(ledger)),
        ]
    )
