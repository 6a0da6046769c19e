"""Highest load of a booted lab in one direction: lower the offered load until the loss is small enough."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from launch.client.lab_client import LabClient
from launch.scenario.boot import boot

LOSS = 0.001
"""Largest share of packets lost, 0 to 1."""
WARM_UP = 0.7
TRIAL = 1.5
SECONDS = 2.0
RUNS = 5
STEP = 0.95
"""Factor from one offered load to the next."""
TICKS = os.sysconf("SC_CLK_TCK")

IMIX = {64: 7, 576: 4, 1400: 1}
"""Shares of packets by size (octets): the simple IMIX, with its longest packets limited to a tunnel's MTU."""


@dataclass(frozen=True, slots=True)
class Carried:
    """Rate (packets/s) that arrived, share of sent packets that did not, CPU use of every process (cores)."""

    rate: float
    lost: float
    cores: dict[str, float]


def flow(name: str, size: int) -> str:
    return f"{name}-{size}"


def flows(name: str, values: dict[str, Any], sizes: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Return a flow for each size for a lab file; none starts automatically."""
    return {flow(name, size): {**values, "size": size, "rate": 1000, "start": "manual"} for size in sizes}


class Stream:
    """A booted lab, and flows of it between two testers."""

    def __init__(self, lab: LabClient) -> None:
        self.lab = lab

    def _cores(self) -> dict[str, float]:
        """Return the CPU time (s) of each process: of cards, and of programs in Linux nodes."""
        used = {"charon": sum(map(_cpu, _named("charon")))}
        for row in self.lab.ask("", "ps", {})["processes"]:
            if row.get("pid"):
                name = f"{row['node']} {row['card']}"
                used |= {
                    name if at == 0 else f"{name} IKE": _cpu(pid) for at, pid in enumerate(_family(row["pid"]))
                }
        return used

    def offer(self, name: str, shares: dict[int, float], rate: float, seconds: float) -> Carried:
        """Offer `rate` (packets/s), split by size into `shares`, and measure for `seconds`."""
        lab, whole = self.lab, sum(shares.values())
        names = [flow(name, size) for size in shares]
        sent, received = self._account(names)
        for one, share in zip(names, shares.values(), strict=True):
            lab.start(one, rate=rate * share / whole)
        lab.wait(WARM_UP)
        begin, before, arrived = lab.clock(), self._cores(), self._account(names)[1]
        lab.wait(seconds)
        end, after, arrived = lab.clock(), self._cores(), self._account(names)[1] - arrived
        lab.stop(*names)
        lab.drain(*names)
        sent, received = (now - then for now, then in zip(self._account(names), (sent, received), strict=True))
        cores = {key: (after[key] - before[key]) / (end - begin) for key in after if key in before}
        # A source that cannot keep up with its rate has offered less: compute the loss from what it sent.
        return Carried(arrived / (end - begin), 1 - received / max(sent, 1), cores)

    def _account(self, names: Sequence[str]) -> tuple[int, int]:
        """Return packets sent and received so far."""
        reports = [self.lab.report(name) for name in names]
        return sum(report["sent"] for report in reports), sum(report["received"] for report in reports)

    def highest(self, name: str, shares: dict[int, float], top: float, loss: float = LOSS) -> list[Carried]:
        """Return runs at the highest load that is really offered and of which less than `loss` is lost in most
        runs."""
        rate = top
        while True:
            trial = self.offer(name, shares, rate, TRIAL)
            if trial.lost < loss and trial.rate > 0.97 * rate:
                runs = [self.offer(name, shares, rate, SECONDS) for _ in range(RUNS)]
                if median(run.lost for run in runs) < loss:
                    return runs
            # Far above the capacity, continue near the rate that arrived.
            rate = max(min(rate * STEP, trial.rate * 1.05), rate / 2)


def _family(pid: int) -> list[int]:
    """Return a process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *map(int, children)]


def _named(name: str) -> list[int]:
    """Return every process of that name: the launcher does not list programs in Linux nodes."""
    found = []
    for file in Path("/proc").glob("[0-9]*/comm"):
        try:
            if file.read_text().strip() == name:
                found.append(int(file.parent.name))
        except OSError:
            continue
    return found


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def booted(file: Path) -> Iterator[Stream]:
    """Boot the lab of a file and wait until its tunnels are up."""
    lab = boot(file)
    try:
        if lab.client.file.routers():
            lab.client.wait_until("tunnels up", 60)
        yield Stream(lab.client)
    finally:
        lab.close()
