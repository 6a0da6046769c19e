"""Coalescing of small batches with the same destination, so that the cost of a packet falls under load.

No batch waits for another one: only batches that are queued already are coalesced. An idle chassis forwards every
packet at once, and a busy one works with large batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

from chassis.bus.batch import MAX_PACKETS, Batch

COALESCE_KEYS = ("step", "card", "epoch", "ingress", "context", "tunnel", "circuit", "port", "address")
"""Fields that two batches must have in common to be coalesced."""

COALESCE_MAX_PACKETS = 64
COALESCE_MAX_OCTETS = 16 * 1024
"""Size (packets, octets) from which a batch is not coalesced: copying it costs more than it saves."""

_way: Callable[[Batch], tuple[Any, ...]] = attrgetter(*COALESCE_KEYS)


def coalesce(first: Batch, second: Batch) -> bool:
    """Add the second batch to the end of the first, if both go the same way and it does not get too large."""
    count = len(first.lengths) + len(second.lengths)
    if count > MAX_PACKETS or first.marks or second.marks or bool(first.descriptors) != bool(second.descriptors):
        return False
    if _way(first) != _way(second):
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
    open_groups: dict[tuple[Any, ...], tuple[list[Batch], int]] = {}
    for batch in batches:
        count = len(batch.lengths)
        key = (*_way(batch), bool(batch.descriptors))
        group, packets = open_groups.get(key, (None, 0))
        alone = bool(batch.marks) or count >= COALESCE_MAX_PACKETS or len(batch.body) >= COALESCE_MAX_OCTETS
        if group is not None and not alone and packets + count <= MAX_PACKETS:
            group.append(batch)
            open_groups[key] = group, packets + count
            continue
        group = [batch]
        groups.append(group)
        if alone:
            # A later batch must not overtake it.
            open_groups.pop(key, None)
        else:
            open_groups[key] = group, count
    return [group[0] if len(group) == 1 else _whole(group) for group in groups]


def _whole(group: list[Batch]) -> Batch:
    first, *others = group
    first.body = bytearray().join([batch.body for batch in group])
    first.descriptors = b"".join([batch.descriptors for batch in group])
    lengths = first.lengths[:]
    for batch in others:
        lengths += batch.lengths
    first.lengths = lengths
    return first
