"""The one message of the fabric and of the wire: a batch of packets.

A batch holds packets of one (step, circuit or tunnel) only. On the bus it is two frames: a header, and the
packets laid end to end. Each packet is preceded by `HEADROOM` bytes, counted in its length: on a wire they are
its Ethernet header; on the fabric they are room for the next one, so that a packet that changes cards without
changing size is never copied: the buffer that came in is the buffer that goes out.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

import msgpack

from chassis.net.errors import DecodeError
from chassis.net.ethernet import HEADROOM

MAX_PACKETS = 256
"""Most packets of one batch (count). A batch of this many full-sized frames has less than 400 kB."""

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
    """Packets of one step, context, tunnel and circuit.

    `card` and `epoch` name the sender; its engine fills them in, not its shell. `ingress` is the port by which the
    packets entered the node. `context` is the number of the context in whose FIB the packets are looked up as they
    are. `port` and `address` are the next hop, if it is known. `descriptors` are six-bit priority
    descriptors (PD) that the ingress line card gave the packets, one octet each; they override the packets' DSCP.
    Empty: the DSCP decides. `body` is writable. `stamp` is the monotonic time (us) at which the
    sender sent a sampled batch, 0 for others.
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

    def __len__(self) -> int:
        return len(self.lengths)

    def packets(self) -> Iterator[memoryview]:
        """Return each packet with its headroom, as a view into the body."""
        view = memoryview(self.body)
        at = 0
        for length in self.lengths:
            yield view[at : at + length]
            at += length

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


_pack_header = msgpack.Packer(autoreset=True).pack


def encode_header(batch: Batch, stamp: int = 0) -> bytes:
    """Return the header frame; the body frame is `batch.body` itself.

    `stamp` is the monotonic time (us) of a sampled batch. `batch.stamp` is the hop's before, and is not sent.
    """
    header: bytes = _pack_header(
        (
            batch.card,
            batch.epoch,
            int(batch.step),
            batch.ingress,
            batch.context,
            batch.tunnel,
            batch.circuit,
            batch.port,
            batch.address,
            batch.descriptors,
            batch.marks,
            _swapped(batch.lengths).tobytes(),
            stamp,
        )
    )
    return header


_TEXT = (0, 3, 7)
_NUMBERS = (1, 2, 4, 5, 6, 8, 12)


def decode(header: bytes | memoryview, body: bytearray | memoryview) -> Batch:
    """Return the batch of a header and a body frame.

    Raises:
        DecodeError: the header is not a batch header, or its lengths do not fill the body.
    """
    try:
        fields = msgpack.unpackb(header, use_list=False, strict_map_key=True)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise DecodeError("batch header", str(error)) from None
    if not isinstance(fields, tuple) or len(fields) != 13:
        raise DecodeError("batch header", "not 13 fields")
    if not all(type(fields[i]) is str for i in _TEXT) or not all(
        type(fields[i]) is int and fields[i] >= 0 for i in _NUMBERS
    ):
        raise DecodeError("batch header", "a field has the wrong type")
    descriptors, marks, packed = fields[9], fields[10], fields[11]
    if type(packed) is not bytes or len(packed) % 2:
        raise DecodeError("batch header", "lengths are not packed 16-bit numbers")
    lengths = array("H")
    lengths.frombytes(packed)
    lengths = _swapped(lengths)
    if not lengths or sum(lengths) != len(body) or min(lengths) < HEADROOM:
        raise DecodeError("batch header", f"{len(lengths)} packets do not fill a body of {len(body)} bytes")
    if type(descriptors) is not bytes or len(descriptors) not in (0, len(lengths)):
        raise DecodeError("batch header", "priority descriptors are not an octet for each packet")
    if type(marks) is not tuple or not all(
        type(mark) is tuple
        and len(mark) == 2
        and type(mark[0]) is int
        and type(mark[1]) is int
        and 0 <= mark[0] < len(lengths)
        for mark in marks
    ):
        raise DecodeError("batch header", "trace marks are not (index, number)")
    try:
        step = Step(fields[2])
    except ValueError:
        raise DecodeError("batch header", f"{fields[2]} is not a step") from None
    return Batch(
        step=step,
        body=body,
        lengths=lengths,
        card=fields[0],
        epoch=fields[1],
        ingress=fields[3],
        context=fields[4],
        tunnel=fields[5],
        circuit=fields[6],
        port=fields[7],
        address=fields[8],
        descriptors=descriptors,
        marks=marks,
        stamp=fields[12],
    )
