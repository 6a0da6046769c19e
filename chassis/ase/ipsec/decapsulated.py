"""Inner packets that came out of a batch, by tunnel."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from chassis.ase.ipsec.algorithms import Octets
from chassis.ase.ipsec.causes import Drops
from chassis.ase.ipsec.decapsulator import Decapsulator
from chassis.ase.ipsec.inner_columns import InnerPlaces
from chassis.net.columns import Numbers
from chassis.net.ethernet import HEADROOM


class DecapsulatedGroup:
    """Inner packets of one tunnel. `origins[i]` is the index of packet i in the batch given.

    `pieces` are the packets, each after its headroom, end to end; `sizes` the octets of each with headroom.
    """

    __slots__ = ("origins", "pieces", "sizes", "tunnel")

    def __init__(
        self, tunnel: int, pieces: Sequence[Octets], sizes: Sequence[int], origins: Sequence[int]
    ) -> None:
        self.tunnel = tunnel
        self.pieces = pieces
        self.sizes = sizes
        self.origins = origins

    @property
    def body(self) -> bytearray:
        """The packets as the body of a batch."""
        if len(self.pieces) == 1 and isinstance(self.pieces[0], bytearray):
            return self.pieces[0]
        return bytearray().join(self.pieces)

    @property
    def lengths(self) -> array[int]:
        """The lengths of the packets of a batch."""
        return self.sizes if isinstance(self.sizes, array) else array("H", self.sizes)


def joined_groups(groups: Iterable[DecapsulatedGroup]) -> tuple[bytearray, array[int]]:
    """Return body and lengths of a batch of the packets of these groups."""
    pieces: list[Octets] = []
    sizes = array("H")
    for group in groups:
        pieces += group.pieces
        sizes.extend(group.sizes)
    return bytearray().join(pieces), sizes


class DecapsulatedRuns:
    """Inner packets of several tunnels: a run of each, ordered by the first packet of each run.

    Of each run: `tunnels`, `places` (the SA's row of the table), `counts` of packets and `octets` of them, without
    headroom, and whether something may follow from them for a negotiated SA (`noisy`). `origins[i]` is the index
    of packet i in the batch given, and `inner` says where it is.
    """

    __slots__ = ("counts", "inner", "noisy", "octets", "origins", "places", "tunnels")

    def __init__(
        self,
        tunnels: Numbers,
        places: Numbers,
        counts: Numbers,
        octets: Numbers,
        inner: InnerPlaces,
        origins: Numbers,
        noisy: NDArray[np.bool_],
    ) -> None:
        self.tunnels = tunnels
        self.places = places
        self.counts = counts
        self.octets = octets
        self.inner = inner
        self.origins = origins
        self.noisy = noisy

    def batch(self, runs: NDArray[np.bool_] | None) -> tuple[bytearray, array[int]]:
        """Return body and lengths of a batch of the packets of the runs where `runs` is true; None: of all."""
        return self.inner.body(None if runs is None else np.flatnonzero(np.repeat(runs, self.counts)))

    def groups(self) -> tuple[DecapsulatedGroup, ...]:
        """Return the runs as groups."""
        body, lengths = self.inner.body(None)
        view, origins = memoryview(body), self.origins.tolist()
        groups: list[DecapsulatedGroup] = []
        begin = start = 0
        columns = self.tunnels.tolist(), self.counts.tolist(), self.octets.tolist()
        for tunnel, count, octets in zip(*columns, strict=True):
            end, stop = begin + count, start + octets + HEADROOM * count
            groups.append(DecapsulatedGroup(tunnel, (view[start:stop],), lengths[begin:end], origins[begin:end]))
            begin, start = end, stop
        return tuple(groups)


@dataclass(slots=True, eq=False)
class DecapsulationResult:
    """Inner packets, those of a tunnel in a group of `apart` or in a run of `together`, and the drops.

    The groups, and the runs, are ordered by their first packets. `negotiated`: the SAs of IKE that received
    authentic packets, but for those of which `peers` has the tunnel: nothing else follows from their packets.
    `punted`: IPv4 packets for other handlers: UDP to an IKE port, ICMP "fragmentation needed", and fragments that
    nobody took: they must be reassembled first (RFC 4303 3.4.1).
    """

    apart: tuple[DecapsulatedGroup, ...]
    drops: Drops
    negotiated: tuple[Decapsulator, ...] = ()
    punted: tuple[memoryview, ...] = ()
    together: tuple[DecapsulatedRuns, ...] = ()
    peers: Sequence[int] = ()

    @property
    def groups(self) -> tuple[DecapsulatedGroup, ...]:
        """The inner packets, a group for each tunnel."""
        if not self.together:
            return self.apart
        groups = [*self.apart, *chain.from_iterable([runs.groups() for runs in self.together])]
        return tuple(sorted(groups, key=lambda group: group.origins[0]))
