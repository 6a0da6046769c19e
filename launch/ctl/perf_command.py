"""`chassisctl perf`: what packets and batches cost each process of a running lab."""

from __future__ import annotations

import time

import click
from rich.console import Group
from rich.table import Table

from chassis.bus.operator import OperatorError
from launch.client.perf import Hop, Performance, ProcessCosts, performance, take_sample
from launch.client.running_lab import RunningLab
from launch.client.status_view import table
from launch.ctl.base import lab_command, print_answer

ALL = "all"
LONGEST = 3600.0


@lab_command()
@click.argument("node")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, LONGEST),
    default=5.0,
    show_default=True,
    help="How long to measure.",
)
def perf(lab: RunningLab, node: str, seconds: float, as_json: bool) -> None:
    """Measure what packets and batches cost each process of a node, or with `all` of the lab.

    docs/performance.md explains each column.
    """
    chosen = "" if node == ALL and ALL not in lab.nodes else node
    if chosen and chosen not in lab.nodes:
        raise OperatorError(f"lab {lab.name} has no node {node!r}; nodes: {', '.join([*lab.nodes, ALL])}")
    before = take_sample(lab.run, lab.launcher("ps")["processes"])
    time.sleep(seconds)
    after = take_sample(lab.run, lab.launcher("ps")["processes"])
    found = performance(before, after, chosen)
    print_answer(as_json, found.to_json(), view(found))


def view(found: Performance) -> Group:
    """Return the figures as tables for people."""
    end = [f"{found.arrived:,.0f} packets/s of flows arrived; all processes shown: {found.cpu():.2f} cores"]
    if found.arrived:
        end.append(f"{1e6 * found.cpu() / found.arrived:.1f} us of CPU for each packet that arrived")
    if found.ended:
        end.append(f"not measured, because they began or ended meanwhile: {', '.join(found.ended)}")
    return Group(_processes(found), _hops(found), "\n".join(end))


def _processes(found: Performance) -> Table:
    columns = (
        "node", "card", "main %", "I/O %", "user %", "system %", "no core %", "wake-ups/s", "vol/s", "inv/s",
        "packets/s", "a batch", "us/packet", "us/batch", "us/arrived",
    )  # fmt: skip
    grid = table(*columns, right=columns[2:])
    for process in found.processes:
        grid.add_row(*_process_row(process, found.arrived))
    return grid


def _process_row(process: ProcessCosts, arrived: float) -> list[str]:
    packets, batches = process.passes()
    shares = (process.main, process.io, process.user, process.system, process.waited)
    rates = (process.wakeups, process.voluntary, process.involuntary, packets)
    costs = (packets, batches, arrived)
    return [
        process.node,
        process.card,
        *(f"{100 * share:.1f}" for share in shares),
        *(f"{rate:,.0f}" for rate in rates),
        f"{packets / batches:.1f}" if batches else "",
        *(f"{1e6 * process.cpu / rate:.1f}" if rate else "" for rate in costs),
    ]


def _hops(found: Performance) -> Table:
    columns = (
        "node", "card", "hop", "batches/s", "packets/s", "a batch", "handled/s", "wake-ups/s",
        "queued: from", "mean us", "99 % below", "all below", "samples",
    )  # fmt: skip
    grid = table(*columns, right=tuple(set(columns[3:]) - {"queued: from"}))
    for process in found.processes:
        names = (process.node, process.card)
        for hop in process.hops:
            for row in _hop_rows(hop):
                grid.add_row(*names, *row)
                names = ("", "")
    return grid


def _hop_rows(hop: Hop) -> list[list[str]]:
    name = hop.name if hop.way == "out" and " to " in hop.name else f"{hop.name} {hop.way}"
    first = [name, f"{hop.batches:,.0f}", f"{hop.packets:,.0f}", f"{hop.packets / hop.batches:.1f}"]
    first += [f"{hop.handled:,.0f}", f"{hop.wakeups:,.0f}"] if hop.way == "in" else ["", ""]
    rows = []
    for sender, waits in hop.waits.items():
        told = [sender, f"{waits.mean:,.0f}", f"{waits.p99:,}", f"{waits.most:,}", str(waits.samples)]
        rows.append([*first, *told])
        first = [""] * len(first)
    return rows or [first]
