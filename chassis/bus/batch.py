"""What the messages of the fabric and of wires are: batches of packets.

A batch holds packets of one step, and of one tunnel, circuit or next hop, or runs of packets of several. On the
bus it is a header, and the packets laid end to end: one frame, or two where the packets are too large to be
copied. A message has one batch or more. Each packet is preceded by `HEADROOM` bytes, counted in its length: on a
wire they are its Ethernet header; on the fabric they are room for the next one, so that a packet that changes
cards without changing size is never copied: the buffer that came in is the buffer that goes out.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import chain

import msgpack
import numpy as np

from chassis.bus.runs import MIN_ROWS, ROW, Hops, Runs
from chassis.bus.runs import HopRun as HopRun
from chassis.bus.runs import Run as Run
from chassis.net.columns import common_length
from chassis.net.errors import DecodeError
from chassis.net.ethernet import HEADROOM

MAX_PACKETS = 256
"""Most packets of one batch (count). A batch of this many full-sized frames has less than 400 kB."""

MIN_COLUMN = 64
"""Packets (count) from which on numpy adds different lengths faster than a loop: 3 us, not 12, for 256."""

TraceMark = tuple[int, int]
"""(index of the packet in its batch, trace number)"""


class Step(IntEnum):
    """What the receiver of a batch does with it."""

    INGRESS = 1
    ENCAPSULATE = 2
    DECAPSULATE = 3
    CIRCUIT_OUT = 4
    CIRCUIT_IN = 5
    EGRESS = 6
    LOCAL = 7


@dataclass(slots=True, eq=False)
class Batch:
    """Packets of one step and context, and of one tunnel, circuit and next hop or runs of several.

    `card` and `epoch` name the sender; its engine fills them in, not its shell. `ingress` is the port by which the
    packets entered the node. `context` is the number of the context in whose FIB the packets are looked up as they
    are. `port` and `address` are the next hop, if it is known. `descriptors` are six-bit priority
    descriptors (PD) that the ingress line card gave the packets, one octet each; they override the packets' DSCP.
    Empty: the DSCP decides. `runs`, if not empty, are the packets by tunnel and circuit; `tunnel` and `circuit`
    are 0 then, and no packet is traced. `hops` are the same for next hops, of `EGRESS` alone; `port` and
    `address` are empty and 0 then. Both may be tables (`chassis.bus.runs`). `body` is writable. `stamp` is the
    monotonic time (us) at which the sender sent a sampled batch, 0 for others.
    """

    step: Step
    body: bytearray | memoryview
    lengths: array[int]
    card: str = ""
    epoch: int = 0
    ingress: str = ""
    context: int = 0
    tunnel: int = 0
    circuit: int = 0
    port: str = ""
    address: int = 0
    descriptors: bytes = b""
    marks: tuple[TraceMark, ...] = field(default=())
    stamp: int = 0
    runs: Sequence[Run] = ()
    hops: Sequence[HopRun] = ()

    def __len__(self) -> int:
        return len(self.lengths)

    def packets(self) -> Iterator[memoryview]:
        """Return each packet with its headroom, as a view into the body."""
        view = memoryview(self.body)
        at = 0
        for length in self.lengths:
            yield view[at : at + length]
            at += length

    def split_runs(self) -> list[Batch]:
        """Return the same packets in the same order, a batch for each run.

        A receiver splits a batch with runs first, so that the code behind it handles one tunnel, circuit or next
        hop.
        """
        if self.hops:
            ways = [(packets, 0, 0, port, address) for packets, port, address in self.hops]
        elif self.runs:
            ways = [(packets, tunnel, circuit, self.port, self.address) for packets, tunnel, circuit in self.runs]
        else:
            return [self]
        view, lengths, descriptors = memoryview(self.body), self.lengths, self.descriptors
        parts: list[Batch] = []
        first = at = 0
        for packets, tunnel, circuit, port, address in ways:
            own = lengths[first : first + packets]
            end = at + sum(own)
            parts.append(
                Batch(
                    self.step,
                    view[at:end],
                    own,
                    self.card,
                    self.epoch,
                    self.ingress,
                    self.context,
                    tunnel,
                    circuit,
                    port,
                    address,
                    descriptors[first : first + packets],
                )
            )
            first, at = first + packets, end
        return parts

    def split_marked(self) -> list[Batch]:
        """Return the same packets in the same order, each traced packet alone in its batch.

        A receiver splits a batch with trace marks first, so that the code behind it handles whole batches only.
        """
        if not self.marks or len(self.lengths) == 1:
            return [self]
        view = memoryview(self.body)
        parts: list[Batch] = []
        begin = at = 0
        first = 0
        marked = dict(self.marks)

        def add(start: int, stop: int, packets: slice, marks: tuple[TraceMark, ...]) -> None:
            lengths = self.lengths[packets]
            if lengths:
                descriptors = self.descriptors[packets]
                parts.append(
                    replace(self, body=view[start:stop], lengths=lengths, marks=marks, descriptors=descriptors)
                )

        for index, length in enumerate(self.lengths):
            if index in marked:
                add(begin, at, slice(first, index), ())
                add(at, at + length, slice(index, index + 1), ((0, marked[index]),))
                begin, first = at + length, index + 1
            at += length
        add(begin, at, slice(first, None), ())
        return parts


def pack(packets: Sequence[bytes | bytearray | memoryview], headroom: int = 0) -> tuple[bytearray, array[int]]:
    """Return body and lengths of a batch of these packets, each after `headroom` zero bytes."""
    body = bytearray()
    lengths = array("H")
    room = bytes(headroom)
    for packet in packets:
        if headroom:
            body += room
        body += packet
        lengths.append(len(packet) + headroom)
    return body, lengths


def _swapped(lengths: array[int]) -> array[int]:
    if sys.byteorder == "big":
        lengths = array("H", lengths)
        lengths.byteswap()
    return lengths


_FIXED = struct.Struct("<HHHHHQ")
"""Octets of the way, packets, trace marks, octets of descriptors, runs, stamp (us)."""
_MARK = struct.Struct("<HQ")
_RUN = "HII"
_ONE_RUN = struct.Struct("<" + _RUN)
_pack_way = msgpack.Packer(autoreset=True).pack

_Way = tuple[str, int, Step, str, int, int, int, str | tuple[str, ...], int]
"""What all packets of a batch share: card, epoch, step, ingress, context, tunnel, circuit, port, address. A batch
with runs of next hops has the names of their ports."""

MAX_KNOWN_WAYS = 1 << 14
"""Ways (count) that a process has decoded and remembers, so that it checks each of them once."""
_known_ways: dict[bytes, _Way] = {}


def encode_header(batch: Batch, stamp: int = 0) -> bytes:
    """Return the header of a batch; `batch.body` itself follows it.

    `stamp` is the monotonic time (us) of a sampled batch. `batch.stamp` is the hop's before, and is not sent.

    The header is: five 16-bit numbers and the stamp (`_FIXED`), the way as MessagePack, the 16-bit lengths of the
    packets, the descriptors, the trace marks (`_MARK`: index and number) and the runs (`_RUN`: packets, tunnel,
    circuit; or packets, place of the port among those of the way, address); all little-endian.
    """
    lengths, marks, descriptors, runs = batch.lengths, batch.marks, batch.descriptors, batch.runs
    port: str | tuple[str, ...] = batch.port
    if type(batch.hops) is Hops:
        runs, port = Runs(batch.hops.rows), batch.hops.ports
    elif batch.hops:
        places: dict[str, int] = {}
        runs = [(packets, places.setdefault(name, len(places)), hop) for packets, name, hop in batch.hops]
        port = tuple(places)
    way = _pack_way(
        (
            batch.card,
            batch.epoch,
            int(batch.step),
            batch.ingress,
            batch.context,
            batch.tunnel,
            batch.circuit,
            port,
            batch.address,
        )
    )
    fixed = _FIXED.pack(len(way), len(lengths), len(marks), len(descriptors), len(runs), stamp)
    header: bytes = b"".join((fixed, way, _swapped(lengths).tobytes(), descriptors))
    if type(runs) is Runs:
        header += runs.rows.tobytes()
    elif runs:
        header += struct.pack("<" + _RUN * len(runs), *chain.from_iterable(runs))
    elif marks:
        header += b"".join([_MARK.pack(*mark) for mark in marks])
    return header


def decode(header: bytes | memoryview, body: bytearray | memoryview | None = None) -> Batch:
    """Return the batch of a header and a body; without `body` it is what follows the header in its buffer.

    Raises:
        DecodeError: the header is not a batch header, or its lengths do not fill the body.
    """
    size = len(header)
    if size < _FIXED.size:
        raise DecodeError("batch header", f"{size} octets")
    way_size, count, marked, described, run_count, stamp = _FIXED.unpack_from(header)
    lengths_at = _FIXED.size + way_size
    descriptors_at = lengths_at + 2 * count
    marks_at = descriptors_at + described
    runs_at = marks_at + _MARK.size * marked
    end = runs_at + ROW.itemsize * run_count
    if not count or end > size or (body is not None and end != size):
        raise DecodeError("batch header", f"{size} octets hold no {count} lengths and {marked} trace marks")
    if body is None:
        body = memoryview(header)[end:]
    packed = bytes(header[_FIXED.size : descriptors_at])
    way = _known_ways.get(packed[:way_size]) or _decode_way(packed[:way_size])
    lengths = array("H")
    lengths.frombytes(packed[way_size:])
    lengths = _swapped(lengths)
    # One length for all is the most common batch.
    if shortest := common_length(lengths):
        total = shortest * count
    elif count < MIN_COLUMN:
        shortest, total = min(lengths), sum(lengths)
    else:
        sizes = np.frombuffer(lengths, np.uint16)
        shortest, total = int(np.minimum.reduce(sizes)), int(np.add.reduce(sizes, dtype=np.int64))
    if total != len(body) or shortest < HEADROOM:
        raise DecodeError("batch header", f"{count} packets do not fill a body of {len(body)} bytes")
    if described not in (0, count):
        raise DecodeError("batch header", "priority descriptors are not an octet for each packet")
    marks: tuple[TraceMark, ...] = ()
    if marked:
        marks = tuple([_MARK.unpack_from(header, marks_at + _MARK.size * at) for at in range(marked)])
        if max(marks)[0] >= count:
            raise DecodeError("batch header", f"a trace mark of a packet beyond the {count} there are")
    card, epoch, step, ingress, context, tunnel, circuit, port, address = way
    runs: Sequence[Run] = ()
    hops: Sequence[HopRun] = ()
    if run_count:
        runs = _decode_runs(header[runs_at:end], run_count, 0 if marked else count)
    if not isinstance(port, str):
        hops, runs, port = _decode_hops(runs, port), (), ""
    return Batch(
        step,
        body,
        lengths,
        card,
        epoch,
        ingress,
        context,
        tunnel,
        circuit,
        port,
        address,
        bytes(header[descriptors_at:marks_at]) if described else b"",
        marks,
        stamp,
        runs,
        hops,
    )


def decode_frames(frames: Sequence[memoryview]) -> list[Batch]:
    """Return the batches of a message: each is a frame with header and body, or one with either.

    Raises:
        DecodeError: one of them is none.
    """
    batches: list[Batch] = []
    left = list(frames)[::-1]
    while left:
        frame = left.pop()
        alone = _is_header(frame)
        if alone and not left:
            raise DecodeError("batch", "a header without a body")
        batches.append(decode(frame, left.pop() if alone else None))
    return batches


def _is_header(frame: bytes | memoryview) -> bool:
    """Return whether a frame has a header, and nothing else."""
    if len(frame) < _FIXED.size:
        return False
    way, packets, marks, descriptors, runs, _ = _FIXED.unpack_from(frame)
    octets: int = way + 2 * packets + descriptors + _MARK.size * marks + ROW.itemsize * runs
    return len(frame) == _FIXED.size + octets


def _decode_runs(octets: bytes | memoryview, number: int, wanted: int) -> Sequence[Run]:
    """Return so many runs, of `wanted` packets in all.

    Raises:
        DecodeError: a run has no packets, or all of them another number.
    """
    runs: Sequence[Run]
    if number < MIN_ROWS:
        runs = tuple(_ONE_RUN.iter_unpack(octets))
        packets = [run[0] for run in runs]
    else:
        runs = table = Runs(np.frombuffer(octets, ROW))
        # Of a few hundred small numbers Python's own sum is the faster one, where caches are cold.
        packets = table.packets.tolist()
    if 0 in packets or sum(packets) != wanted:
        raise DecodeError("batch header", f"runs of {sum(packets)} packets, and there are {wanted}")
    return runs


def _decode_hops(runs: Sequence[Run], ports: tuple[str, ...]) -> Sequence[HopRun]:
    """Return the next hops that runs mean.

    Raises:
        DecodeError: a run is of no port of these.
    """
    places = runs.tunnels.tolist() if type(runs) is Runs else [run[1] for run in runs]
    if not places or max(places) >= len(ports):
        raise DecodeError("batch header", f"no runs of next hops by {len(ports)} ports")
    if type(runs) is Runs:
        return Hops(runs.rows, ports)
    return tuple([(packets, ports[place], hop) for packets, place, hop in runs])


_TEXT = (0, 3)
_NUMBERS = (1, 2, 4, 5, 6, 8)


def _decode_way(packed: bytes) -> _Way:
    """Return the way in a header, and remember it.

    Raises:
        DecodeError: these octets are not a way.
    """
    try:
        fields = msgpack.unpackb(packed, use_list=False, strict_map_key=True)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise DecodeError("batch header", str(error)) from None
    if not isinstance(fields, tuple) or len(fields) != 9:
        raise DecodeError("batch header", "not 9 fields")
    if not all(type(fields[i]) is str for i in _TEXT) or not all(
        type(fields[i]) is int and fields[i] >= 0 for i in _NUMBERS
    ):
        raise DecodeError("batch header", "a field has the wrong type")
    port = fields[7]
    if type(port) is not str and not (
        type(port) is tuple and fields[2] == Step.EGRESS and port and all(type(name) is str for name in port)
    ):
        raise DecodeError("batch header", "no port, or ports of another step")
    try:
        step = Step(fields[2])
    except ValueError:
        raise DecodeError("batch header", f"{fields[2]} is not a step") from None
    if len(_known_ways) >= MAX_KNOWN_WAYS:
        _known_ways.clear()
    way: _Way = (fields[0], fields[1], step, *fields[3:])
    _known_ways[packed] = way
    return way
