"""Commands of `chassisctl` for packets: traces, pings, injected captures, flows, counters, accounting."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import click

from chassis.bus import counters as counter_files
from chassis.bus import endpoints
from chassis.bus.hops import PREFIX
from chassis.bus.operator import OperatorError
from chassis.cli.views import probes
from chassis.cli.views.layout import Scope
from launch.client.accounting import for_lab
from launch.client.running_lab import RunningLab
from launch.client.status_view import table
from launch.client.traces import Stamps
from launch.ctl.base import DURATION, PACKETS, CheckedParam, lab_command, option, print_answer

TRACE_SETTLE_DELAY = 1.0
"""Time (s) without a new stamp after which a packet that is not at its end counts as stopped there."""


@lab_command()
@click.argument("node")
@option("controller", "trace", "count")
@option("controller", "trace", "context")
@option("controller", "trace", "source", metavar="ADDRESS")
@option("controller", "trace", "destination", metavar="ADDRESS")
@option("controller", "trace", "protocol")
@option("controller", "trace", "port")
@click.option("--wait", default="5s", show_default=True, type=DURATION, help="Longest wait for packets.")
def trace(lab: RunningLab, node: str, as_json: bool, wait: float, count: int, **filters: Any) -> None:
    """Mark the next packets that enter NODE, and print their paths with times.

    Every process on the path stamps a marked packet, in all routers of the lab. A packet is complete when it
    reached its end and every process has reported its stamps; a process that does not answer is named.
    """
    filters = {name: value for name, value in filters.items() if value is not None}
    mine = zlib.crc32(node.encode())
    before = {number for number in _stamps(lab, node).numbers() if number >> 31 == mine}
    refused = lab.node(node, "trace", count=count, **filters).get("errors")
    if refused:
        raise OperatorError("; ".join(f"{card}: {why}" for card, why in refused.items()))
    deadline = time.monotonic() + wait
    seen: list[Traced] = []
    changed = time.monotonic()
    while time.monotonic() < deadline:
        told = _stamps(lab, *lab.nodes)
        numbers = [number for number in told.numbers() if number >> 31 == mine and number not in before][:count]
        ended = {number for number in numbers if any(ends(lab, step) for _, step in told.times(number))}
        if ended:
            # Query the nodes again, after the end of each packet, so that the answers have all earlier stamps.
            told = _stamps(lab, *lab.nodes)
        found = [_traced(told, number, number in ended) for number in numbers]
        if [one.stamps for one in found] != [one.stamps for one in seen]:
            seen, changed = found, time.monotonic()
        if len(found) >= count and (
            all(one.complete for one in found) or time.monotonic() - changed > TRACE_SETTLE_DELAY
        ):
            break
        time.sleep(0.02)
    if not seen:
        raise OperatorError(f"no matching packet in {wait:g} s")
    lines = []
    for one in seen:
        began = one.stamps[0][0]
        lines.append(f"packet {one.number}")
        lines += [f"  {(at - began) * 1e3:9.3f} ms  {step}" for at, step in one.stamps]
        if not one.complete:
            lines.append("  not complete: no process has stamped it since")
        lines += [f"  stamps of {who} may be missing: {why}" for who, why in one.given_up.items()]
    print_answer(as_json, [one.to_json() for one in seen], "\n".join(lines))


@dataclass(frozen=True, slots=True)
class Traced:
    """A traced packet: (time, step) of its stamps. `complete`: it reached its end, and every process of the lab
    has reported its stamps, except those in `given_up`."""

    number: int
    stamps: list[tuple[float, str]]
    complete: bool
    given_up: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "complete": self.complete,
            "given_up": self.given_up,
            "stamps": [{"step": step, "time": at} for at, step in self.stamps],
        }


def _traced(told: Stamps, number: int, complete: bool) -> Traced:
    stamps = told.times(number)
    return Traced(number, stamps, complete, told.given_up(stamps[0][0]))


def ends(lab: RunningLab, step: str) -> bool:
    """Return whether a packet ends with this step: at a tester, at a router's address, or at a port whose far end
    is not a tester's or router's."""
    words = step.split()
    if words[0] not in lab.routers():
        return words[-1] == "in"
    if words[-1] == "local":
        return True
    if words[-1] != "out":
        return False
    try:
        far = lab.far_end(f"{words[0]}:{words[1]}")
    except OperatorError:
        return True
    return str(lab.nodes[far.partition(":")[0]]["kind"]) == "linux"


def _stamps(lab: RunningLab, *nodes: str) -> Stamps:
    """Collect the stamps of these nodes from every process."""
    told = Stamps()
    for name in sorted(nodes, key=lambda name: name in lab.routers()):
        kind = lab.nodes.get(name, {}).get("kind")
        if kind == "linux":
            continue
        try:
            if kind == "tester":
                told.tester(name, lab.node(name, "traces"))
            else:
                told.router(name, lab.node(name, "traces", settled=True))
        except OperatorError as error:
            told.silent(name, str(error))
    return told


@lab_command()
@click.argument("node")
@click.argument("address")
@option("controller", "ping", "context")
@option("controller", "ping", "count")
@option("controller", "ping", "size", default=64)
@option("controller", "ping", "source", metavar="ADDRESS")
@option("controller", "ping", "timeout", default="1s", type=DURATION)
@option("controller", "ping", "interval", default="200ms", type=DURATION)
def ping(lab: RunningLab, node: str, address: str, as_json: bool, source: str | None, **options: Any) -> None:
    """Send echo requests from a router, through a tunnel if the route leads there.

    It prints what the router's own `ping` does; --json has time and ttl of each reply.
    """
    if source is not None:
        options["source"] = source
    answer = lab.node(node, "ping", address=address, **options)
    shown = {**answer, "size": options["size"], "timeout": options["timeout"]}
    lines = probes.ping.lines(shown, Scope(node=node, context=options["context"]))
    print_answer(as_json, answer, "\n".join(lines))
    raise SystemExit(0 if answer["received"] else 1)


@lab_command()
@click.argument("end")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--last", type=DURATION, help="Only packets of the last part of the file, such as 5s.")
def inject(lab: RunningLab, end: str, file: Path, last: float | None, as_json: bool) -> None:
    """Inject at a port, as in `inject a:3/11 FILE`, the packets that it received according to a capture."""
    node, port = lab.split(end)
    answer = lab.node(node, "inject", port=port, file=str(file.absolute()), seconds=last or 0)
    print_answer(as_json, answer, f"{answer['injected']} packets given to {end} again")


def _rate(text: str) -> float | str:
    if text == "max":
        return text
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < inf:
        raise ValueError(f"{text!r} is not a rate; expected packets per second, such as 1000, or max")
    return rate


@lab_command()
@click.argument("what", type=click.Choice(["start", "stop"]))
@click.argument("names", nargs=-1)
@click.option("--rate", type=CheckedParam("rate", _rate, convert=True), help="Packets per second, or max (start).")
@click.option("--count", type=PACKETS, help="End after so many packets (start).")
def flow(
    lab: RunningLab, what: str, names: tuple[str, ...], rate: float | str | None, count: int | None, as_json: bool
) -> None:
    """Start or stop flows; all of them if none is named."""
    known = lab.launcher("status")["flows"]
    options: dict[str, Any] = {}
    if what == "start":
        if rate is not None:
            options["rate"] = rate
        if count is not None:
            options["count"] = count
    done = []
    for name in names or known:
        if name not in known:
            raise OperatorError(f"{name!r} is not a flow; flows: {', '.join(known) or 'none'}")
        lab.node(known[name]["from"].partition(":")[0], what, flow=name, **options)
        done.append(name)
    print_answer(
        as_json, {what: done}, f"{'started' if what == 'start' else 'stopped'} {', '.join(done) or 'none'}"
    )


@lab_command()
@click.argument("node")
@click.argument("card", nargs=-1)
def counters(lab: RunningLab, node: str, card: tuple[str, ...], as_json: bool) -> None:
    """Print the counters of a card, or of all cards of a node, dead ones included.

    What is counted for each hop is in `chassisctl perf`.
    """
    pattern = f"{node}.{endpoints.compact(' '.join(card))}.counters" if card else f"{node}.*.counters"
    found: dict[str, dict[str, int]] = {}
    for path in sorted(lab.run.glob(pattern)):
        every = sorted(counter_files.read(path).items())
        found[path.name.split(".")[1]] = {
            counter: value for counter, value in every if not counter.startswith(PREFIX)
        }
    if not found:
        raise OperatorError(f"{node} has no counters of {' '.join(card) or 'any card'}")
    grid = table("card", "counter", "value", right=("value",))
    for name, values in found.items():
        for counter, value in values.items():
            grid.add_row(name, counter, f"{value:,}")
            name = ""
    print_answer(as_json, found, grid)


@lab_command()
def accounting(lab: RunningLab, as_json: bool) -> None:
    """Account for every packet of the lab: losses of flows by place and cause, and packets lost with a process.

    Use it when no packets are under way: those under way show as unexplained.
    """
    kinds = {name: str(facts["kind"]) for name, facts in lab.nodes.items()}
    ledger = for_lab(lab.run, kinds, lab.links, lab.launcher("ps")["processes"])
    grid = table("where", "what became of packets", "packets", right=("packets",))
    grid.add_row("testers", "sent, not received", f"{ledger.lost:,} of {ledger.sent:,}")
    for place, causes in ledger.dropped.items():
        for cause, packets in causes.items():
            grid.add_row(place, f"dropped: {cause}", f"{packets:,}")
            place = ""
    for place, packets in ledger.lost_in_crash.items():
        grid.add_row(place, "gone with a process that died", f"{packets:,}")
    for place, packets in ledger.unexplained.items():
        grid.add_row(place, "unexplained", f"{packets:,}")
    for place, count in ledger.overflowed.items():
        grid.add_row(place, "counted without a name: the table of counters is full", f"{count:,}")
    grid.add_row("everywhere", "made by cards and testers, not yet consumed", f"{ledger.non_flow:,}")
    print_answer(as_json, ledger.to_json(), grid)
