"""The packets that an SA received in a batch: as items, one by one, or as columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from chassis.net.columns import Bytes, Numbers, cell

Item: TypeAlias = tuple[int, int, int, int, int, int]
"""A received packet: index in the batch, offset of its outer IPv4 header, offset of the ESP or AH header, end,
outer type of service, sequence number. Offsets are octets in the body of the batch."""


class PacketColumns:
    """Packets of one SA, in the order of the batch.

    `view` are the octets of the batch; `origins` the indices of the packets in it; `heads` and `sizes` offset and
    octets of each packet from its ESP header to the end of its ICV; `before` the octets between the beginnings of
    the outer header and of the ESP header; `services` the outer type of service, `numbers` the sequence number as
    sent of each packet. `size` is the size of all packets if they have the same one, else 0. Where it is not 0,
    packet i lies in `octets` from `first + i * step` on too.
    """

    __slots__ = (
        "_heads",
        "_sizes",
        "before",
        "count",
        "first",
        "numbers",
        "octets",
        "origins",
        "services",
        "size",
        "step",
        "view",
    )

    def __init__(
        self, view: memoryview, origins: Sequence[int], before: int, services: bytes, numbers: Numbers
    ) -> None:
        """Call `lay_even` or `lay` next."""
        self.view = self.octets = view
        self.count = len(services)
        self.origins = origins
        self.before = before
        self.services = services
        self.numbers = numbers
        self.first = self.step = self.size = 0
        self._heads: Numbers | None = None
        self._sizes: Numbers | None = None

    def lay_even(self, first: int, step: int, size: int) -> None:
        """The packets have one size, and the same distance from each to the next."""
        self.first, self.step, self.size = first, step, size

    def lay(self, heads: Numbers, sizes: Numbers) -> None:
        """The packets are anywhere. Those of one size are copied, to lie evenly."""
        self._heads, self._sizes = heads, sizes
        size = int(sizes[0])
        if bool((sizes == size).all()):
            kind = cell(size)
            every = np.ndarray((len(self.view) - size + 1,), kind, self.view, 0, (1,))
            self.octets = every[heads].view(np.uint8).data
            self.step = self.size = size

    @property
    def heads(self) -> Numbers:
        if self._heads is None:
            self._heads = np.arange(self.first, self.first + self.count * self.step, self.step)
        return self._heads

    @property
    def sizes(self) -> Numbers:
        if self._sizes is None:
            self._sizes = np.full(self.count, self.size)
        return self._sizes

    @property
    def outer_octets(self) -> int:
        """Octets of all outer packets."""
        sizes = self.size * self.count if self.size else int(np.add.reduce(self.sizes))
        return sizes + self.before * self.count

    def items(self) -> list[Item]:
        """The packets one by one."""
        heads = self.heads
        columns = (heads - self.before).tolist(), heads.tolist(), (heads + self.sizes).tolist()
        return list(zip(self.origins, *columns, self.services, self.numbers.tolist(), strict=True))

    def item(self, index: int) -> Item:
        """One of the packets."""
        head = int(self.heads[index])
        end = head + (self.size or int(self.sizes[index]))
        number = int(self.numbers[index])
        return self.origins[index], head - self.before, head, end, self.services[index], number

    def spans(self, skip: int, rest: int) -> tuple[Sequence[int], Sequence[int]]:
        """Return where each packet without its first `skip` and last `rest` octets begins and ends in `octets`."""
        if self.size:
            first, step = self.first, self.step
            after = first + self.count * step
            return range(first + skip, after + skip, step), range(
                first + self.size - rest, after + self.size - rest, step
            )
        return (self.heads + skip).tolist(), (self.heads + self.sizes - rest).tolist()

    def parts(self, skip: int, rest: int) -> list[memoryview]:
        """Return each packet without its first `skip` and last `rest` octets."""
        view = self.octets
        if self.size:
            start = self.first + skip
            return list(map(view.__getitem__, _slices(start, self.step, self.size - skip - rest, self.count)))
        starts, ends = self.spans(skip, rest)
        return [view[start:end] for start, end in zip(starts, ends, strict=True)]

    def table(self, skip: int, octets: int) -> Bytes:
        """Return so many octets of each packet, after its first `skip`, as rows: a view. The packets have one
        size."""
        return np.ndarray((self.count, octets), np.uint8, self.octets, self.first + skip, (self.step, 1))

    def joined(self, skip: int, rest: int) -> bytes:
        """Return all packets without their first `skip` and last `rest` octets, end to end."""
        if self.size:
            return self.table(skip, self.size - skip - rest).tobytes()
        return b"".join(self.parts(skip, rest))

    def fields(self, skip: int, octets: int) -> bytes:
        """Return so many octets of each packet after its first `skip`, end to end."""
        return self.table(skip, octets).tobytes() if self.size else self._gathered(self.heads + skip, octets)

    def tails(self, octets: int) -> bytes:
        """Return the last octets of each packet, end to end."""
        if self.size:
            return self.table(self.size - octets, octets).tobytes()
        return self._gathered(self.heads + self.sizes - octets, octets)

    def _gathered(self, starts: Numbers, octets: int) -> bytes:
        every = np.ndarray((len(self.view) - octets + 1,), cell(octets), self.view, 0, (1,))
        return every[starts].tobytes()


@lru_cache(maxsize=64)
def _slices(start: int, step: int, octets: int, count: int) -> list[slice]:
    return [slice(at, at + octets) for at in range(start, start + count * step, step)]
