"""Drives one lab of a source tree, with the launcher and the client of that tree (`bench.side`).

A program of its own, which imports nothing of this tree: it also runs in worktrees of older commits. Requests are
lines of JSON on its standard input, each is answered by a line on its standard output. It ends with its input, and
the lab ends with it. `offer` is also what the other benchmarks of this tree use.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

TUNNELS_UP = 60.0
"""Time (s) in which the tunnels of a booted lab must be up."""
TICKS = os.sysconf("SC_CLK_TCK")
BOOT = ("launch.scenario.boot", "launch.scenario_boot")
"""Modules that may have the function `boot`; the second is its name in older commits."""


def offer(
    lab: Any,
    rates: Mapping[str, float | str],
    warm_up: float,
    seconds: float,
    latency: bool = False,
    batches: bool = False,
) -> dict[str, Any]:
    """Offer flows of a lab, each at a rate (packets/s, or `max`), and measure for `seconds`.

    `lab` is a client of the lab's own tree.

    Return `rate`, packets/s that arrived in that time; `lost`, the share of all sent packets that did not arrive;
    `cores`, the CPU use of each process (cores); with `latency` that of all packets of each flow so far (ms); and
    with `batches` the packets in a batch that came in at each process, if the lab's tree counts them.
    """
    names = list(rates)
    sent, received = _account(lab, names)
    for name, rate in rates.items():
        lab.start(name, rate=rate)
    lab.wait(warm_up)
    processes = _processes(lab)
    # Each count beside its time: with many flows and processes, reading takes a part of the window.
    sampled = _sample(lab) if batches else None
    before = _used(processes)
    begin, first = lab.clock(), _account(lab, names)[1]
    lab.wait(seconds)
    end, last = lab.clock(), _account(lab, names)[1]
    after = _used(processes)
    found = _packets_a_batch(lab, sampled)
    lab.stop(*names)
    lab.drain(*names)
    sent, received = (now - then for now, then in zip(_account(lab, names), (sent, received), strict=True))
    return {
        "rate": (last - first) / (end - begin),
        # A source that cannot keep up with its rate has offered less: compute the loss from what it sent.
        "lost": 1 - received / max(sent, 1),
        "cores": {name: (after[name] - before[name]) / (end - begin) for name in after},
        "latency": {name: lab.report(name)["latency"] for name in names} if latency else {},
        "batches": found,
    }


def _sample(lab: Any) -> Any:
    """Return the counters of all processes; None if the tree of the lab has no such counters."""
    try:
        perf = import_module("launch.client.perf")
    except ModuleNotFoundError:
        return None
    return perf.take_sample(lab.run, lab.ask("", "ps", {})["processes"])


def _packets_a_batch(lab: Any, before: Any) -> dict[str, float]:
    """Return the packets in a batch at each process since `before`."""
    if before is None:
        return {}
    measured = import_module("launch.client.perf").performance(before, _sample(lab))
    passes = {f"{one.node} {one.card}": one.passes() for one in measured.processes}
    return {name: packets / batches for name, (packets, batches) in passes.items() if batches}


def _account(lab: Any, names: Sequence[str]) -> tuple[int, int]:
    """Return packets sent and received so far, from the testers' counters: a busy tester answers late."""
    flows = [lab.file.flows[name] for name in names]
    nodes = {node for flow in flows for node in (flow.origin.node, flow.target.node)}
    counters = {node: lab.counters(node) for node in nodes}
    return (
        sum(counters[flow.origin.node].get(f"flow {flow.name} sent", 0) for flow in flows),
        sum(counters[flow.target.node].get(f"flow {flow.name} received", 0) for flow in flows),
    )


def _processes(lab: Any) -> dict[str, list[int]]:
    """Return the processes of each card, and of strongSwan, which the launcher does not list."""
    found: dict[str, list[int]] = {"charon": _named("charon")}
    for row in lab.ask("", "ps", {})["processes"]:
        if row.get("pid"):
            own, *others = _family(row["pid"])
            found[f"{row['node']} {row['card']}"] = [own]
            found[f"{row['node']} {row['card']} ike"] = others
    return {name: pids for name, pids in found.items() if pids}


def _used(processes: Mapping[str, Sequence[int]]) -> dict[str, float]:
    return {name: sum(map(_cpu, pids)) for name, pids in processes.items()}


def _family(pid: int) -> list[int]:
    """Return a process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *map(int, children)]


def _named(name: str) -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/comm"):
        try:
            if file.read_text().strip() == name:
                found.append(int(file.parent.name))
        except OSError:
            continue
    return found


def _cpu(pid: int) -> float:
    """Return the CPU time (s) that a process has used; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def _boot(file: Path) -> Any:
    """Boot a lab with this tree's launcher; return what its `boot` returns."""
    for name in BOOT:
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
            continue
        booted = module.boot(file)
        try:
            if any(node.kind == "smartedge" for node in booted.client.file.nodes.values()):
                booted.client.wait_until("tunnels up", TUNNELS_UP)
        except BaseException:
            booted.close()
            raise
        return booted
    raise RuntimeError(f"this tree has none of {', '.join(BOOT)}")


def main() -> int:
    # Answers have a descriptor of their own: whatever prints must not come between them.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    booted: Any = None
    try:
        for line in sys.stdin:
            request = json.loads(line)
            try:
                if "boot" in request:
                    booted = _boot(Path(request["boot"]))
                    answer: dict[str, Any] = {}
                else:
                    answer = offer(booted.client, **request)
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers)
    finally:
        if booted is not None:
            booted.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
