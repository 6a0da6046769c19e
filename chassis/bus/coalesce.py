"""Coalescing of batches with the same destination, so that the cost of a packet falls under load.

No batch waits for another one: only batches that are there already are coalesced. An idle chassis forwards every
packet at once, and a busy one works with large batches. Between cards, packets of several tunnels or circuits go
in one batch, in runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

from chassis.bus.batch import MAX_PACKETS, Batch, Run, Step

COALESCE_KEYS = ("step", "card", "epoch", "ingress", "context", "tunnel", "circuit", "port", "address")
"""Fields that two batches must have in common to be coalesced."""

RUN_STEPS = frozenset({Step.ENCAPSULATE, Step.CIRCUIT_OUT, Step.CIRCUIT_IN})
"""Steps of which batches of different tunnels and circuits are coalesced."""

MAX_COALESCED_OCTETS = 384 * 1024
"""Octets of a coalesced batch, at most."""

MAX_RUNS = 128
"""Runs (count) of a batch, at most."""

_way: Callable[[Batch], tuple[Any, ...]] = attrgetter(*COALESCE_KEYS)
_run_way: Callable[[Batch], tuple[Any, ...]] = attrgetter(
    *[key for key in COALESCE_KEYS if key not in ("tunnel", "circuit")]
)


def coalesce(first: Batch, second: Batch) -> bool:
    """Add the second batch to the end of the first, if both go the same way and it does not get too large."""
    count = len(first.lengths) + len(second.lengths)
    if count > MAX_PACKETS or first.marks or second.marks or bool(first.descriptors) != bool(second.descriptors):
        return False
    if _way(first) != _way(second) or first.runs or second.runs:
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
    open_groups: dict[tuple[Any, ...], tuple[list[Batch], int, int, int]] = {}
    for batch in batches:
        count, octets, runs = len(batch.lengths), len(batch.body), len(batch.runs) or 1
        key = (*(_run_way(batch) if batch.step in RUN_STEPS else _way(batch)), bool(batch.descriptors))
        group, packets, size, before = open_groups.get(key, (None, 0, 0, 0))
        if (
            group is not None
            and not batch.marks
            and packets + count <= MAX_PACKETS
            and size + octets <= MAX_COALESCED_OCTETS
            and (before + runs <= MAX_RUNS or _one_way(group[0], batch))
        ):
            group.append(batch)
            open_groups[key] = group, packets + count, size + octets, before + runs
            continue
        group = [batch]
        groups.append(group)
        if batch.marks:
            # A later batch must not overtake it.
            open_groups.pop(key, None)
        else:
            open_groups[key] = group, count, octets, runs
    return [group[0] if len(group) == 1 else _whole(group) for group in groups]


def _one_way(first: Batch, second: Batch) -> bool:
    return not first.runs and not second.runs and _way(first) == _way(second)


def _whole(group: list[Batch]) -> Batch:
    first, *others = group
    if first.step in RUN_STEPS and not all(_one_way(first, batch) for batch in others):
        runs: list[Run] = []
        for batch in group:
            for packets, tunnel, circuit in batch.runs or ((len(batch.lengths), batch.tunnel, batch.circuit),):
                if runs and runs[-1][1:] == (tunnel, circuit):
                    packets += runs.pop()[0]
                runs.append((packets, tunnel, circuit))
        first.runs, first.tunnel, first.circuit = tuple(runs), 0, 0
    first.body = bytearray().join([batch.body for batch in group])
    first.descriptors = b"".join([batch.descriptors for batch in group])
    lengths = first.lengths[:]
    for batch in others:
        lengths += batch.lengths
    first.lengths = lengths
    return first
