"""What encrypts and authenticates the packets of ESP, a batch at a time: one interface for every library.

A sealer serves one outbound SA, an opener one inbound SA. Both are called once for the packets of their SA in a
batch. An engine may gather the work of several SAs: what a sealer returns is complete, and a result of an opener
may be asked for, only after `flush`. All engines make the same octets of the same initialization vectors.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chassis.ase.ipsec.algorithms import Octets
from chassis.ase.ipsec.received import Item, PacketColumns
from chassis.ase.ipsec.sa import Esp
from chassis.net.columns import Bytes, Columns, Numbers
from chassis.net.ipv4 import PROTOCOL_IPIP

Opened: TypeAlias = tuple[Sequence[int] | None, Octets]
"""Which of the packets are authentic (None: all), and their decrypted payloads and trailers, end to end. Before
each are `lead` octets without meaning."""

Pending: TypeAlias = object
"""Packets that are being opened, known to their opener only."""

_PADDING: Final = bytes(range(1, 256))
TRAILERS: Final = [_PADDING[:octets] + bytes((octets, PROTOCOL_IPIP)) for octets in range(256)]
"""ESP trailers after an IPv4 packet, by the octets of padding (RFC 4303 2.4)."""


class EspSealer(Protocol):
    """Outbound ESP of one SA."""

    iv_in_head: bool
    """Whether the IVs of `ivs` go on the wire as they are, in the heads. Otherwise `seal` makes IVs of them."""

    words: array[int]
    """What the engine's jobs for the SA have in common; empty in an engine without jobs."""

    random_octets: int
    """Octets of `random` that the IV of a packet is made of; 0 if it is made of the sequence number."""

    def ivs(self, first: int, count: int, random: Callable[[int], bytes]) -> Sequence[bytes]:
        """Return what the IVs of packets from sequence number `first` on are made of; `random` is called at most
        once."""

    def suffix(self, first: int) -> bytes:
        """Return the octets after the trailer that `seal` wants in each tail."""

    def seal(
        self,
        view: memoryview,
        spans: Sequence[tuple[int, int]],
        heads: Sequence[bytes],
        tails: Sequence[bytes],
        sizes: Sequence[int],
        ivs: Sequence[bytes],
        first: int,
    ) -> bytearray:
        """Return the packets, end to end: head, ciphertext, ICV.

        A packet's clear text is at its span of `view`, and its trailer begins its tail; `sizes` are the octets of
        both. A head ends with the ESP header, and with the IV where `iv_in_head`. The numbers from `first` on have
        the same high half.
        """

    def seal_one(
        self, head: bytes, clear: memoryview, tail: bytes, size: int, iv: bytes, number: int
    ) -> bytes | bytearray:
        """Return one packet, as `seal` does."""

    def seal_all(self, packets: Unsealed) -> None:
        """Seal packets in place, each with the sealer of its run: all are of one kind, with IVs and ICVs of one
        length."""


class SealedRuns:
    """The packets of a table in runs, each of one outbound SA: the sealer of each run, and `words` of it, how many
    packets it has (None: there is one run, of all), and its first sequence number. The numbers of a run follow
    each other, and have the same high half."""

    __slots__ = ("firsts", "packets", "sealers", "words")

    def __init__(
        self,
        sealers: Sequence[EspSealer],
        packets: Numbers | None,
        firsts: Sequence[int] | Numbers,
        words: NDArray[np.uint64],
    ) -> None:
        self.sealers, self.packets, self.firsts, self.words = sealers, packets, firsts, words

    def each(self, count: int) -> Iterator[tuple[EspSealer, int, int]]:
        """Return the sealer of each run, its packets and its first sequence number. `count` are all packets."""
        packets = [count] if self.packets is None else self.packets.tolist()
        firsts = self.firsts.tolist() if isinstance(self.firsts, np.ndarray) else self.firsts
        return zip(self.sealers, packets, firsts, strict=True)


class Unsealed:
    """Outer packets of one or many SAs in a table that wait for encryption.

    A packet of `columns` has at `at`, behind the ESP header: room for the IV, clear text and trailer, room for the
    ICV. `sizes` are the octets of clear text and trailer, of each packet or of all; `groups` are the packets of
    each size. `drawn` has `random_octets` for each packet, in order.
    """

    __slots__ = ("at", "columns", "drawn", "groups", "iv_octets", "runs", "sizes")

    def __init__(
        self,
        columns: Columns,
        at: int,
        iv_octets: int,
        sizes: Numbers | int,
        groups: Sequence[tuple[int, Numbers]],
        runs: SealedRuns,
        drawn: bytes,
    ) -> None:
        self.columns, self.at, self.iv_octets, self.sizes = columns, at, iv_octets, sizes
        self.groups, self.runs, self.drawn = groups, runs, drawn

    def table(self) -> Bytes | None:
        """Return the packets as rows if all have one length; the memory is theirs."""
        columns = self.columns
        return columns.octets.reshape(columns.count, columns.stride) if columns.stride else None

    def clear(self) -> tuple[memoryview, Numbers | int]:
        """Return the octets drawn, clear text and trailer of each packet, end to end, and the octets of each."""
        iv_octets, columns, at = self.iv_octets, self.columns, self.at
        table = self.table()
        ivs = np.frombuffer(self.drawn, np.uint8).reshape(columns.count, iv_octets)
        widths = self.sizes + iv_octets
        if table is not None:
            rows = np.empty((columns.count, int(widths)), np.uint8)
            rows[:, :iv_octets] = ivs
            rows[:, iv_octets:] = table[:, at + iv_octets : at + int(widths)]
            return rows.reshape(-1).data, widths
        lengths = array("H", widths.astype(np.uint16).tobytes())  # type: ignore[union-attr]
        octets = np.empty(int(np.sum(widths)), np.uint8)
        clear = Columns(octets.data, lengths)
        clear.write(0, ivs)
        for size, packets in self.groups:
            found = columns.take(columns.starts[packets] + (at + iv_octets), size)
            clear.put(clear.starts[packets] + iv_octets, found)
        return octets.data, widths

    def write(self, sealed: bytes) -> None:
        """Write IV and ciphertext of each packet, end to end in `sealed`."""
        iv_octets, columns, at = self.iv_octets, self.columns, self.at
        table = self.table()
        widths = self.sizes + iv_octets
        if table is not None:
            width = int(widths)
            table[:, at : at + width] = np.frombuffer(sealed, np.uint8).reshape(columns.count, width)
            return
        lengths = array("H", widths.astype(np.uint16).tobytes())  # type: ignore[union-attr]
        octets = Columns(sealed, lengths)
        for size, packets in self.groups:
            found = octets.take(octets.starts[packets], size + iv_octets)
            columns.put(columns.starts[packets] + at, found)

    def write_icvs(self, icvs: bytes) -> None:
        """Write the ICVs of the packets, end to end in `icvs`."""
        columns = self.columns
        rows = np.frombuffer(icvs, np.uint8).reshape(columns.count, -1)
        table = self.table()
        if table is not None:
            table[:, -rows.shape[1] :] = rows
        else:
            columns.put(columns.starts + columns.lengths - rows.shape[1], rows)


class EspOpener(Protocol):
    """Inbound ESP of one SA."""

    lead: int
    """Octets before each payload in what is opened."""

    def begin(self, view: memoryview, items: Sequence[Item], numbers: Sequence[int]) -> Pending:
        """Begin to authenticate and decrypt packets, one or more, of whole blocks; `numbers` are extended ones."""

    def begin_one(self, view: memoryview, item: Item, number: int) -> Pending:
        """Begin to authenticate and decrypt one packet, as `begin` does."""

    def begin_columns(self, packets: PacketColumns, numbers: Numbers) -> Pending:
        """Begin with many packets, as `begin` does. Their extended numbers have the same high half."""

    def begin_all(
        self, packets: PacketColumns, numbers: Numbers, openers: Sequence[EspOpener], counts: Sequence[int]
    ) -> Pending:
        """Begin with packets of many SAs: so many in a row for each opener. All are of one kind, with IVs and ICVs
        of one length. `numbers` are extended ones."""

    def finish(self, pending: Pending) -> Opened:
        """Return the result."""

    def finish_all(self, pending: Pending) -> Opened:
        """Return the result of `begin_all`. The octets of all packets are there. If one of a run is not authentic,
        those of the run have no meaning."""


class CipherEngine(Protocol):
    """The cryptography of an ASP."""

    name: str
    job_words: int
    """Length of the `words` of sealers that have some (64-bit words)."""

    def sealer(self, esp: Esp, esn: bool) -> EspSealer:
        """Return a sealer with the keys of an SA. `esn`: its numbers have 64 bits."""

    def opener(self, esp: Esp, esn: bool) -> EspOpener:
        """Return an opener with the keys of an SA."""

    def flush(self) -> None:
        """Complete what sealers and openers were given."""
