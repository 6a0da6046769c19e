"""What packets and batches cost the processes of a running lab, between two samples.

Input: the mapped counters of the cards (`chassis.bus.hops`) and the times of their processes, twice. Output: a
`Performance` with a row for each process and each of its hops. docs/performance.md explains each figure.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chassis.bus import counters, endpoints
from chassis.bus.hops import PREFIX, WAKEUPS
from launch.client.process_times import IO, MAIN, ProcessTimes, Times, children, process_times

_HOP = re.compile(
    re.escape(PREFIX)
    + r"(?P<hop>.+?) (?P<what>batches sent|packets sent|wake-ups|batches received|batches handled"
    r"|packets received|wait us|waits below \d+ us)"
)
_ARRIVED = re.compile(r"flow .+ received")
_FROM = " from "

Counts = Mapping[str, int]
ProcessName = tuple[str, str]
"""Node and card; the IKE process of `asp 1/1` is called `asp 1/1 ike`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters of the cards and times of the processes, each with the time (monotonic, s) at which it was read.

    One is read after the other: on a busy machine, up to a second later.
    """

    at: Mapping[ProcessName, float]
    counts: Mapping[ProcessName, Counts]
    times: Mapping[ProcessName, ProcessTimes]


def take_sample(run: Path, rows: Iterable[Mapping[str, Any]]) -> Sample:
    """Sample the processes that the launcher lists (`rows` of its `ps`); `run` is the lab's run folder."""
    counts: dict[ProcessName, Counts] = {}
    times: dict[ProcessName, ProcessTimes] = {}
    at: dict[ProcessName, float] = {}
    for row in rows:
        if not row.get("pid") or not row["card"]:
            continue
        node, card = row["node"], row["card"]
        at[node, card] = time.monotonic()
        try:
            counts[node, card] = counters.read(run / f"{node}.{endpoints.compact(card)}.counters")
        except OSError:
            counts[node, card] = {}
        times[node, card] = process_times(row["pid"])
        if card.startswith("asp "):
            for child in children(row["pid"]):
                at[node, f"{card} ike"] = time.monotonic()
                times[node, f"{card} ike"] = process_times(child)
    return Sample(at, counts, times)


@dataclass(frozen=True, slots=True)
class Waits:
    """Queueing times of sampled batches (us). `p99` and `most` are upper bounds: powers of 2."""

    samples: int
    mean: float
    p99: int
    most: int


@dataclass(frozen=True, slots=True)
class Hop:
    """One connection of a process. `way` is `in` or `out`; rates are per second.

    `handled` is the rate of batches after those that waited together were joined. `waits` has the queueing times
    by sender, "" where there is one sender only.
    """

    name: str
    way: str
    batches: float
    packets: float
    handled: float = 0.0
    wakeups: float = 0.0
    waits: Mapping[str, Waits] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProcessCosts:
    """One process: rates per second, `cpu` and the like in cores (0 to 1 for each thread)."""

    node: str
    card: str
    main: float
    io: float
    other: float
    user: float
    system: float
    waited: float
    voluntary: float
    involuntary: float
    wakeups: float
    hops: tuple[Hop, ...]

    @property
    def cpu(self) -> float:
        return self.main + self.io + self.other

    def passes(self) -> tuple[float, float]:
        """Return the rates of packets and batches: what came in, or of a mere source what left."""
        received = [hop for hop in self.hops if hop.way == "in"]
        sent = [hop for hop in self.hops if hop.way == "out"]
        pairs = [(sum(hop.packets for hop in part), sum(hop.batches for hop in part)) for part in (received, sent)]
        # A tester that only sends receives an ARP packet now and then.
        return max(pairs) if self.card in ("tester", "peers") else pairs[0]


@dataclass(frozen=True, slots=True)
class Performance:
    """Figures of `seconds`. `arrived` is the rate (packets/s) of flows at all testers of the lab.

    `ended` are processes that ended or began within that time, and are not measured.
    """

    seconds: float
    arrived: float
    processes: tuple[ProcessCosts, ...]
    ended: tuple[str, ...] = ()

    def cpu(self) -> float:
        """Return the cores that all processes together used."""
        return sum(process.cpu for process in self.processes)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a JSON object."""
        return {
            "seconds": round(self.seconds, 3),
            "arrived": round(self.arrived, 1),
            "cpu": round(self.cpu(), 4),
            "cpu_us_arrived": _each(self.cpu(), self.arrived),
            "ended": list(self.ended),
            "processes": [_process_json(process, self.arrived) for process in self.processes],
        }


def _each(cores: float, rate: float) -> float | None:
    """Return CPU (us) for each of `rate` things a second; None if there are none."""
    return round(1e6 * cores / rate, 2) if rate else None


def _process_json(process: ProcessCosts, arrived: float) -> dict[str, Any]:
    packets, batches = process.passes()
    names = (
        "main", "io", "other", "user", "system", "waited", "voluntary", "involuntary", "wakeups",
    )  # fmt: skip
    return {
        "node": process.node,
        "card": process.card,
        "cpu": round(process.cpu, 4),
        **{name: round(getattr(process, name), 4) for name in names},
        "packets": round(packets, 1),
        "batches": round(batches, 1),
        "packets_a_batch": round(packets / batches, 2) if batches else None,
        "cpu_us_packet": _each(process.cpu, packets),
        "cpu_us_batch": _each(process.cpu, batches),
        "cpu_us_arrived": _each(process.cpu, arrived),
        "hops": [
            {
                "hop": hop.name,
                "way": hop.way,
                "batches": round(hop.batches, 1),
                "packets": round(hop.packets, 1),
                "packets_a_batch": round(hop.packets / hop.batches, 2) if hop.batches else None,
                "handled": round(hop.handled, 1),
                "wakeups": round(hop.wakeups, 1),
                "queueing_us": {
                    sender: {
                        "samples": waits.samples,
                        "mean": round(waits.mean, 1),
                        "p99": waits.p99,
                        "max": waits.most,
                    }
                    for sender, waits in hop.waits.items()
                },
            }
            for hop in process.hops
        ],
    }


def performance(before: Sample, after: Sample, node: str = "") -> Performance:
    """Return the figures between two samples, of one node's processes, or of all."""
    processes, ended, spans = [], [], [0.0]
    arrived = 0.0
    for name, times in after.times.items():
        counts = _difference(before.counts.get(name, {}), after.counts.get(name, {}))
        seconds = max(after.at[name] - before.at.get(name, 0.0), 1e-6)
        if name[1] == "tester":
            arrived += sum(count for key, count in counts.items() if _ARRIVED.fullmatch(key)) / seconds
        if node and name[0] != node:
            continue
        was = before.times.get(name)
        if was is None or was.pid != times.pid or not times.threads:
            ended.append(" ".join(name))
        else:
            spans.append(seconds)
            processes.append(_process(name, was, times, counts, seconds))
    ended += [" ".join(name) for name in before.times if name not in after.times and (not node or name[0] == node)]
    return Performance(max(spans), arrived, tuple(processes), tuple(ended))


def _difference(before: Counts, after: Counts) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in after.items()}


def _process(
    name: ProcessName, was: ProcessTimes, times: ProcessTimes, counts: Counts, seconds: float
) -> ProcessCosts:
    whole = times.whole() - was.whole()
    by_kind = {
        kind: (times.threads.get(kind, Times()) - was.threads.get(kind, Times())).cpu for kind in (MAIN, IO)
    }
    main, io = by_kind[MAIN] / seconds, by_kind[IO] / seconds
    return ProcessCosts(
        *name,
        main=main,
        io=io,
        other=max(whole.cpu / seconds - main - io, 0.0),
        user=whole.user / seconds,
        system=whole.system / seconds,
        waited=whole.waited / seconds,
        voluntary=whole.voluntary / seconds,
        involuntary=whole.involuntary / seconds,
        wakeups=counts.get(WAKEUPS, 0) / seconds,
        hops=tuple(_hops(counts, seconds)),
    )


def _hops(counts: Counts, seconds: float) -> list[Hop]:
    """Return the hops of a card that carried anything."""
    found: dict[str, dict[str, int]] = {}
    for name, count in counts.items():
        match = _HOP.fullmatch(name)
        if match:
            found.setdefault(match["hop"], {})[match["what"]] = count
    hops = []
    for hop, values in found.items():
        rates = {what: count / seconds for what, count in values.items()}
        if rates.get("batches received"):
            hops.append(
                Hop(
                    hop,
                    "in",
                    rates["batches received"],
                    rates["packets received"],
                    rates["batches handled"],
                    rates["wake-ups"],
                    _all_waits(hop, found),
                )
            )
        if rates.get("batches sent"):
            hops.append(Hop(hop, "out", rates["batches sent"], rates["packets sent"]))
    return hops


def _all_waits(hop: str, found: Mapping[str, Mapping[str, int]]) -> dict[str, Waits]:
    """Return the queueing times of a hop by sender."""
    senders = {name: name.removeprefix(hop).removeprefix(_FROM) for name in found if name.startswith(hop + _FROM)}
    waits = {sender: _waits(found[name]) for name, sender in {hop: "", **senders}.items()}
    return {sender: times for sender, times in waits.items() if times is not None}


def _waits(values: Mapping[str, int]) -> Waits | None:
    orders = sorted((int(what.split()[2]), count) for what, count in values.items() if what.startswith("waits"))
    samples = sum(count for _, count in orders)
    if not samples:
        return None
    below, p99 = 0, 0
    for bound, count in orders:
        below += count
        if below >= 0.99 * samples:
            p99 = bound
            break
    most = max(bound for bound, count in orders if count)
    return Waits(samples, values.get("wait us", 0) / samples, p99, most)
