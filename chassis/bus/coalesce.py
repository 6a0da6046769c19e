"""Coalescing of batches with the same destination, so that the cost of a packet falls under load.

No batch waits for another one: only batches that are there already are coalesced. An idle chassis forwards every
packet at once, and a busy one works with large batches. Between cards, packets of several tunnels, circuits or
next hops go in one batch, in runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from operator import attrgetter
from typing import Any, Final, TypeVar

from chassis.bus.batch import MAX_PACKETS, Batch, HopRun, Run, Step
from chassis.bus.runs import MIN_ROWS, joined_hop_table, joined_run_table

COALESCE_KEYS = ("step", "card", "epoch", "ingress", "context", "tunnel", "circuit", "port", "address")
"""Fields that two batches must have in common to be coalesced."""

RUN_KEYS: Final = {
    Step.ENCAPSULATE: ("tunnel", "circuit"),
    Step.CIRCUIT_OUT: ("tunnel", "circuit"),
    Step.CIRCUIT_IN: ("tunnel", "circuit"),
    Step.EGRESS: ("port", "address"),
}
"""Fields in which batches of a step may differ that are coalesced: what their runs are by."""

MAX_COALESCED_OCTETS = 384 * 1024
"""Octets of a coalesced batch, at most."""

_way: Callable[[Batch], tuple[Any, ...]] = attrgetter(*COALESCE_KEYS)
_run_ways: dict[Step, Callable[[Batch], tuple[Any, ...]]] = {
    step: attrgetter(*[key for key in COALESCE_KEYS if key not in keys]) for step, keys in RUN_KEYS.items()
}

AnyRun = TypeVar("AnyRun", Run, HopRun)


def coalesce(first: Batch, second: Batch) -> bool:
    """Add the second batch to the end of the first, if both go the same way and it does not get too large."""
    count = len(first.lengths) + len(second.lengths)
    if count > MAX_PACKETS or first.marks or second.marks or bool(first.descriptors) != bool(second.descriptors):
        return False
    if not _is_one_way(first, second):
        return False
    if not isinstance(first.body, bytearray):
        first.body = bytearray(first.body)
    try:
        first.body += second.body
    except BufferError:
        # A memoryview of the body is still in use.
        first.body = bytearray().join((first.body, second.body))
    first.lengths = first.lengths + second.lengths
    first.descriptors += second.descriptors
    return True


def coalesced(batches: Iterable[Batch]) -> list[Batch]:
    """Return the same packets in fewer batches. Packets with the same destination keep their order.

    A batch keeps the place of its first packet. A traced packet is in a batch of its own, as everywhere.
    """
    groups: list[list[Batch]] = []
    open_groups: dict[tuple[Any, ...], tuple[list[Batch], int, int]] = {}
    for batch in batches:
        count, octets = len(batch.lengths), len(batch.body)
        key = (*_run_ways.get(batch.step, _way)(batch), bool(batch.descriptors))
        group, packets, size = open_groups.get(key, (None, 0, 0))
        if (
            group is not None
            and not batch.marks
            and packets + count <= MAX_PACKETS
            and size + octets <= MAX_COALESCED_OCTETS
        ):
            group.append(batch)
            open_groups[key] = group, packets + count, size + octets
            continue
        group = [batch]
        groups.append(group)
        if batch.marks:
            # A later batch must not overtake it.
            open_groups.pop(key, None)
        else:
            open_groups[key] = group, count, octets
    return [group[0] if len(group) == 1 else _whole(group) for group in groups]


def joined_runs(runs: Iterable[AnyRun]) -> tuple[AnyRun, ...]:
    """Return the runs with those in a row that are alike as one."""
    joined: list[AnyRun] = []
    for run in runs:
        packets, first, second = run
        if joined and joined[-1][1] == first and joined[-1][2] == second:
            packets += joined.pop()[0]
        joined.append((packets, first, second))
    return tuple(joined)


def _is_one_way(first: Batch, second: Batch) -> bool:
    if first.runs or second.runs or first.hops or second.hops:
        return False
    return _way(first) == _way(second)


def _whole(group: list[Batch]) -> Batch:
    first, *others = group
    if not all(_is_one_way(first, batch) for batch in others):
        if first.step is Step.EGRESS:
            hops = [batch.hops or ((len(batch.lengths), batch.port, batch.address),) for batch in group]
            if sum(map(len, hops)) < MIN_ROWS:
                first.hops = joined_runs(chain.from_iterable(hops))
            else:
                first.hops = joined_hop_table(hops)
            first.port, first.address = "", 0
        else:
            runs = [batch.runs or ((len(batch.lengths), batch.tunnel, batch.circuit),) for batch in group]
            if sum(map(len, runs)) < MIN_ROWS:
                first.runs = joined_runs(chain.from_iterable(runs))
            else:
                first.runs = joined_run_table(runs)
            first.tunnel, first.circuit = 0, 0
    first.body = bytearray().join([batch.body for batch in group])
    first.descriptors = b"".join([batch.descriptors for batch in group])
    lengths = first.lengths[:]
    for batch in others:
        lengths += batch.lengths
    first.lengths = lengths
    return first
