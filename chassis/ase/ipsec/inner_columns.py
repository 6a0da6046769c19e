"""The inner packets of many decrypted ESP payloads, by columns (RFC 4303 2.4, 3.4.4.2, RFC 4301 5.2).

In: the decrypted octets of one SA's packets, end to end. Out: the body of a batch of their inner packets. What is
not ordinary is left to the caller, one by one: wrong padding, another payload than IPv4, IPv4 options, an outer
ECN field that changes the inner one, and packets that the selectors do not match.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chassis.ase.ipsec.algorithms import Octets
from chassis.ase.ipsec.cipher_engine import TRAILERS
from chassis.ase.ipsec.sa import ESP_TRAILER_LENGTH
from chassis.net.columns import Numbers, cell
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH

Allows: TypeAlias = Callable[[Octets, int, int], int]
"""`allows(octets, start, end)` is not 0 for an inner packet that the selectors match."""

_NONE: Final = np.zeros(0, np.int64)

MAX_ODD: Final = 4
"""One packet in so many at most may be odd: with more a loop over all is faster."""

_NO_OPTIONS: Final = 0x45
_ECT_1: Final = 1
_UNMARKED: Final = bytes(range(0, 256, 2))
"""Outer types of service that leave the inner one as it is: those with Not-ECT and ECT(0) (RFC 6040 4.2)."""

_COMMON_PADDING: Final = 15
"""Octets of padding, at most, that is checked by columns. Blocks of 16 octets need no more."""
_TAIL: Final = 24
"""Octets at the end of a payload that are compared with a trailer. A payload with an IPv4 packet has them: padding
makes 20 octets and a trailer a multiple of 4."""


def _trailer_words() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the last `_TAIL` octets of a payload by its octets of padding, and which bits of them are meant."""
    trailers = TRAILERS[: _COMMON_PADDING + 1]
    octets = b"".join([trailer.rjust(_TAIL, b"\0") for trailer in trailers])
    mask = b"".join([(b"\xff" * len(trailer)).rjust(_TAIL, b"\0") for trailer in trailers])
    both = [np.frombuffer(one, np.uint64).reshape(len(trailers), _TAIL // 8) for one in (octets, mask)]
    return both[0], both[1]


_TRAILER_WORDS, _TRAILER_MASK = _trailer_words()

_FIRST_MASK: Final = np.frombuffer(b"\xff\0\xff\xff", np.uint32)
"""Of the first word of an inner packet: version, length of the header, length of the packet."""

_FLOW: Final = 24
"""Octets of an inner packet without options that selectors look at: they end with the ports."""
_FLOW_MASK: Final = np.frombuffer(
    bytes(6) + b"\x1f\xff" + b"\0\xff" + bytes(2) + b"\xff" * 12, np.uint64
)  # fragment offset, protocol, addresses, ports


class InnerColumns(NamedTuple):
    """Inner packets of one length, or of the lengths in `sizes`, in a batch's body with headroom: complete, if
    `odd` is empty.

    Otherwise `pieces` are the packets as views of the decrypted octets, without headroom; those at `odd` have no
    meaning. Their payloads begin at `starts` and their trailers end at `afters`.
    """

    body: bytearray
    sizes: array[int]
    odd: list[int]
    pieces: list[memoryview]
    starts: list[int]
    afters: list[int]


class InnerPlaces(NamedTuple):
    """Where inner packets are in decrypted octets, which `body` makes a batch of.

    Packet i has `totals[i]` octets from `starts[i]` on. `total` is that of all packets if they have the same one;
    then one begins `stride` octets after the one before. Else it is 0.
    """

    clear: Octets
    starts: Numbers
    totals: Numbers
    total: int
    stride: int

    def body(self, rows: Numbers | None) -> tuple[bytearray, array[int]]:
        """Return body and lengths of a batch of these packets; None: of all."""
        count = len(self.starts) if rows is None else len(rows)
        if self.total:
            length = HEADROOM + self.total
            body = bytearray(length * count)
            kind = cell(self.total)
            out = np.ndarray((count,), kind, body, HEADROOM, (length,))
            packets = np.ndarray((len(self.starts),), kind, self.clear, int(self.starts[0]), (self.stride,))
            out[:] = packets if rows is None else packets[rows]
            return body, array("H", (length,)) * count
        starts, totals = self.starts, self.totals
        if rows is not None:
            starts, totals = starts[rows], totals[rows]
        view = memoryview(self.clear)
        ends = (starts + totals).tolist()
        pieces = [view[start:end] for start, end in zip(starts.tolist(), ends, strict=True)]
        sizes = array("H", (totals + HEADROOM).astype(np.uint16).tobytes())
        return bytearray(HEADROOM).join([b"", *pieces]), sizes


def find_inner(
    clear: Octets, services: bytes, strides: int | Numbers, lead: int
) -> tuple[InnerPlaces, Numbers] | None:
    """Return where the inner packets are in decrypted octets, and the indices of those that are odd; None if there
    are packets too short to look at.

    The arguments are those of `read_inner`. Selectors are left to the caller.
    """
    count = len(services)
    if isinstance(strides, int):
        total = _common_total(clear, services, strides, lead)
        if total:
            starts = np.arange(lead, lead + count * strides, strides)
            return InnerPlaces(clear, starts, np.full(count, total), total, strides), _NONE
        strides = np.full(count, strides)
    if int(np.minimum.reduce(strides)) < lead + _TAIL:
        return None
    starts, _, totals, odd = _places(clear, services, strides, lead, IPV4_HEADER_LENGTH)
    return InnerPlaces(clear, starts, totals, 0, 0), _NONE if odd is None else np.flatnonzero(odd)


def read_inner(
    clear: Octets, services: bytes, strides: int | Numbers, lead: int, allows: Allows | None
) -> InnerColumns | None:
    """Return the inner packets in decrypted octets; None if too many are odd.

    Each packet has its stride of octets: `lead` octets without meaning, the payload and the trailer. `services`
    are the outer types of service. `allows` is None if the selectors match everything.
    """
    if isinstance(strides, int):
        found = _one_length(clear, services, strides, lead, allows)
        if found is not None:
            return found
        strides = np.full(len(services), strides)
    if int(np.minimum.reduce(strides)) < lead + _TAIL:
        return None
    return _lengths(clear, services, strides, lead, allows)


def _common_total(clear: Octets, services: bytes, stride: int, lead: int) -> int:
    """Return the octets of each inner packet if all have the first one's; 0 if they do not, or some are odd."""
    count = len(services)
    padding = clear[stride - ESP_TRAILER_LENGTH]
    trailer = TRAILERS[padding]
    most = stride - lead - len(trailer)
    if most < IPV4_HEADER_LENGTH:
        return 0
    total = clear[lead + 2] << 8 | clear[lead + 3]
    if clear[lead] != _NO_OPTIONS or not IPV4_HEADER_LENGTH <= total <= most:
        return 0
    tails = np.ndarray((count, len(trailer)), np.uint8, clear, stride - len(trailer), (stride, 1))
    if tails.tobytes() != trailer * count:
        return 0
    firsts = np.ndarray((count,), np.uint32, clear, lead, (stride,)) & _FIRST_MASK
    if firsts.tobytes() != firsts[:1].tobytes() * count:
        return 0
    if services.translate(None, _UNMARKED):
        return 0
    return total


def _one_length(
    clear: Octets, services: bytes, stride: int, lead: int, allows: Allows | None
) -> InnerColumns | None:
    """Return inner packets that all have the length of the first; None if they do not, or some are odd."""
    count = len(services)
    total = _common_total(clear, services, stride, lead)
    if not total:
        return None
    if allows is not None:
        if total < _FLOW:
            return None
        flows = np.ndarray((count, _FLOW // 8), np.uint64, clear, lead, (stride, 8)) & _FLOW_MASK
        if flows.tobytes() == flows[:1].tobytes() * count:
            if not allows(clear, lead, lead + total):
                return None
        else:
            starts = np.arange(lead, lead + count * stride, stride)
            if _refused(clear, flows, starts, starts + total, allows):
                return None
    length = HEADROOM + total
    body = bytearray(length * count)
    out = np.ndarray((count, total), np.uint8, body, HEADROOM, (length, 1))
    out[:] = np.ndarray((count, total), np.uint8, clear, lead, (stride, 1))
    return InnerColumns(body, array("H", (length,)) * count, [], [], [], [])


def _places(
    clear: Octets, services: bytes, strides: Numbers, lead: int, least: int
) -> tuple[Numbers, Numbers, Numbers, NDArray[np.bool_] | None]:
    """Return where each inner packet begins, where its trailer ends, its octets, and whether it is odd; None: no
    packet is. An odd one has a padding too long, another form, or fewer than `least` octets."""
    count = len(services)
    size = len(clear)
    afters = np.add.accumulate(strides)
    starts = afters - strides + lead
    tails = np.ndarray((size - _TAIL + 1,), cell(_TAIL), clear, 0, (1,))[afters - _TAIL]
    octets = tails.view(np.uint8).reshape(count, _TAIL)
    padding = octets[:, _TAIL - ESP_TRAILER_LENGTH].astype(np.int64)
    common = np.minimum(padding, _COMMON_PADDING)
    wrong = (octets.view(np.uint64) ^ _TRAILER_WORDS[common]) & _TRAILER_MASK[common]
    most = strides - padding - (lead + ESP_TRAILER_LENGTH)
    firsts = np.ndarray((size - 3,), cell(4), clear, 0, (1,))[starts].view(">u4").astype(np.int64)
    odd: NDArray[np.bool_] | None = None
    if (
        services.translate(None, _UNMARKED)
        or wrong.any()
        or (firsts & 0xFF00FFFF).tobytes() != (most | _NO_OPTIONS << 24).tobytes()
        or int(np.minimum.reduce(most)) < least
    ):
        odd = wrong.any(axis=1)
        odd |= firsts >> 24 != _NO_OPTIONS
        odd |= np.frombuffer(services, np.uint8) & _ECT_1 != 0
        totals = firsts & 0xFFFF
        odd |= (totals < least) | (totals > most)
    else:
        totals = most
    return starts, afters, totals, odd


def _lengths(
    clear: Octets, services: bytes, strides: Numbers, lead: int, allows: Allows | None
) -> InnerColumns | None:
    """Return inner packets of any length."""
    count, size = len(services), len(clear)
    least = IPV4_HEADER_LENGTH if allows is None else _FLOW
    starts, afters, totals, odd = _places(clear, services, strides, lead, least)
    ends = starts + totals
    rows = np.flatnonzero(odd) if odd is not None else np.zeros(0, np.int64)
    if len(rows) * MAX_ODD > count:
        return None
    if allows is not None:
        if odd is None:
            odd = np.zeros(count, bool)
        flows = np.ndarray((size - _FLOW + 1,), cell(_FLOW), clear, 0, (1,))[starts]
        masked = flows.view(np.uint64).reshape(count, _FLOW // 8) & _FLOW_MASK
        right = np.flatnonzero(~odd)
        refused = _refused(clear, masked[right], starts[right], ends[right], allows)
        if refused:
            odd[right[refused]] = True
            rows = np.flatnonzero(odd)
            if len(rows) * MAX_ODD > count:
                return None
    view = memoryview(clear)
    first = starts.tolist()
    pieces = [view[start:end] for start, end in zip(first, ends.tolist(), strict=True)]
    sizes = array("H", (totals + HEADROOM).astype(np.uint16).tobytes())
    if len(rows):
        return InnerColumns(bytearray(), sizes, rows.tolist(), pieces, first, afters.tolist())
    body = bytearray(HEADROOM).join([b"", *pieces])
    return InnerColumns(body, sizes, [], [], [], [])


def _refused(
    clear: Octets, flows: NDArray[np.uint64], starts: Numbers, ends: Numbers, allows: Allows
) -> list[int]:
    """Return which packets the selectors do not match. Packets of one flow are looked up once."""
    octets, width = flows.tobytes(), 8 * flows.shape[1]
    keys = [octets[at : at + width] for at in range(0, len(octets), width)]
    first: dict[bytes, int] = {}
    for index, key in enumerate(keys):
        first.setdefault(key, index)
    values = {key: allows(clear, int(starts[index]), int(ends[index])) for key, index in first.items()}
    if all(values.values()):
        return []
    return [index for index, key in enumerate(keys) if not values[key]]
