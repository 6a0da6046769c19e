"""What a booted lab carries one way: offered loads from the top, until so little is lost that one is carried."""

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
"""Part of the packets that may be lost."""
WARM_UP = 0.7
TRIAL = 1.5
SECONDS = 2.0
RUNS = 5
STEP = 0.95
"""Each load that is offered is this part of the one before."""
TICKS = os.sysconf("SC_CLK_TCK")

IMIX = {64: 7, 576: 4, 1400: 1}
"""Parts of packets by size: the common mix, its longest packets as long as a tunnel's may be."""


@dataclass(frozen=True, slots=True)
class Carried:
    """Packets a second that arrived, the part of those sent that did not, CPU of every process in cores."""

    rate: float
    lost: float
    cores: dict[str, float]


def flow(name: str, size: int) -> str:
    return f"{name}-{size}"


def flows(name: str, values: dict[str, Any], sizes: Sequence[int]) -> dict[str, dict[str, Any]]:
    """A flow of a lab file for each size, none of which starts by itself."""
    return {flow(name, size): {**values, "size": size, "rate": 1000, "start": "manual"} for size in sizes}


class Stream:
    """A lab that stands, and flows of it between two testers."""

    def __init__(self, lab: LabClient) -> None:
        self.lab = lab

    def _cores(self) -> dict[str, float]:
        """Seconds of processor time that each process has used: of cards, and of what Linux nodes run."""
        used = {"charon": sum(map(_cpu, _named("charon")))}
        for row in self.lab.ask("", "ps", {})["processes"]:
            if row.get("pid"):
                name = f"{row['node']} {row['card']}"
                used |= {
                    name if at == 0 else f"{name} IKE": _cpu(pid) for at, pid in enumerate(_family(row["pid"]))
                }
        return used

    def offer(self, name: str, shares: dict[int, float], rate: float, seconds: float) -> Carried:
        """Offer `rate` packets a second, of each size its share, and look at `seconds` of it."""
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
        # A source that cannot keep up with its rate has offered less: lost is what it sent and did not arrive.
        return Carried(arrived / (end - begin), 1 - received / max(sent, 1), cores)

    def _account(self, names: Sequence[str]) -> tuple[int, int]:
        """Packets sent and received so far."""
        reports = [self.lab.report(name) for name in names]
        return sum(report["sent"] for report in reports), sum(report["received"] for report in reports)

    def highest(self, name: str, shares: dict[int, float], top: float, loss: float = LOSS) -> list[Carried]:
        """Runs at the highest offered load of which less than `loss` is lost in most of them, and that is offered
        in fact."""
        rate = top
        while True:
            trial = self.offer(name, shares, rate, TRIAL)
            if trial.lost < loss and trial.rate > 0.97 * rate:
                runs = [self.offer(name, shares, rate, SECONDS) for _ in range(RUNS)]
                if median(run.lost for run in runs) < loss:
                    return runs
            # Far above what is carried the next load is what came through this time.
            rate = max(min(rate * STEP, trial.rate * 1.05), rate / 2)


def _family(pid: int) -> list[int]:
    """A process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *map(int, children)]


def _named(name: str) -> list[int]:
    """Every process of that name: those of Linux nodes are no children of ours that a lab could tell of."""
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
    """The lab of a file, its tunnels up."""
    lab = boot(file)
    try:
        if lab.client.file.routers():
            lab.client.wait_until("tunnels up", 60)
        yield Stream(lab.client)
    finally:
        lab.close()
