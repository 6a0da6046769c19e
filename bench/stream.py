"""Highest load of a booted lab in one direction, in this process or by a driver of another source tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.driver import offer
from bench.search import LEAST, STEP, STRIDE, best_load
from launch.client.lab_client import LabClient
from launch.scenario.boot import boot

LOSS = 0.001
"""Largest share of packets lost, 0 to 1."""
ON_TIME = 0.97
"""Least share of the offered load that must arrive while it is offered."""
WARM_UP = 0.4
TRIAL = 1.0
SECONDS = 1.2
RUNS = 3
GUESS = 25_000.0
"""First offered load (packets/s)."""

IMIX = {64: 7, 576: 4, 1400: 1}
"""Shares of packets by size (octets): the simple IMIX, with its longest packets limited to a tunnel's MTU."""

Offer = Callable[..., dict[str, Any]]
"""`bench.driver.offer` without its lab."""


def sized(name: str, size: str) -> dict[str, float]:
    """Return the flows of one size (octets), or of `IMIX`, with their shares."""
    return {flow(name, one): share for one, share in (IMIX if size == "IMIX" else {int(size): 1}).items()}


@dataclass(frozen=True, slots=True)
class Carried:
    """Rate (packets/s) that arrived, share of sent packets that did not, CPU use of every process (cores), latency
    by flow (ms, as a tester reports it), packets in a batch by process."""

    rate: float
    lost: float
    cores: Mapping[str, float]
    latency: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    batches: Mapping[str, float] = field(default_factory=dict)

    def testers(self) -> float:
        """Return the testers' share (0 to 1) of the CPU."""
        used = sum(cores for name, cores in self.cores.items() if name.endswith(" tester"))
        return used / max(sum(self.cores.values()), 1e-9)


def flow(name: str, size: int) -> str:
    return f"{name}-{size}"


def flows(name: str, values: dict[str, Any], sizes: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Return a flow for each size for a lab file; none starts automatically."""
    return {flow(name, size): {**values, "size": size, "rate": 1000, "start": "manual"} for size in sizes}


class Stream:
    """Flows of a booted lab between two testers."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer

    def offer(
        self,
        shares: Mapping[str, float],
        rate: float | str,
        seconds: float = TRIAL,
        *,
        latency: bool = False,
        batches: bool = False,
    ) -> Carried:
        """Offer `rate` (packets/s, or `max`), split by flow into `shares`, and measure for `seconds`; if asked,
        also latencies and the packets in a batch."""
        whole = sum(shares.values())
        rates = {name: rate if isinstance(rate, str) else rate * share / whole for name, share in shares.items()}
        return Carried(
            **self._offer(rates=rates, warm_up=WARM_UP, seconds=seconds, latency=latency, batches=batches)
        )

    def best(
        self,
        shares: Mapping[str, float],
        *,
        loss: float = LOSS,
        guess: float = GUESS,
        stride: int = STRIDE,
    ) -> list[Carried]:
        """Return runs at the highest load that is really offered and of which less than `loss` is lost in most
        runs."""

        def carries(load: float) -> bool:
            trial = self.offer(shares, load)
            return trial.lost < loss and trial.rate > ON_TIME * load

        load = best_load(carries, guess, stride)
        steps = 1
        while True:
            runs = [self.offer(shares, load, SECONDS) for _ in range(RUNS)]
            if median(run.lost for run in runs) < loss:
                return runs
            # On a machine that others use too, the trials may have been lucky.
            assert load > LEAST, f"not even {LEAST:,.0f} packets/s are carried in most runs"
            load = max(load / STEP**steps, LEAST)
            steps *= 2


@contextmanager
def booted(file: Path) -> Iterator[Stream]:
    """Boot the lab of a file and wait until its tunnels are up."""
    lab = boot(file)
    try:
        if lab.client.file.routers():
            lab.client.wait_until("tunnels up", 60)
        yield stream_of(lab.client)
    finally:
        lab.close()


def stream_of(lab: LabClient) -> Stream:
    """Return the flows of a lab that this process has booted."""
    return Stream(lambda **arguments: offer(lab, **arguments))
