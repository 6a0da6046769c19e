"""The rings of a raw packet socket: frames in memory shared with the kernel (packet(7), version 2).

Frames are read and written without a system call; one call sends a batch. Version 3 gives frames to the reader by
a timer, which would hold them back. The launcher makes the receive ring and keeps the socket, so what comes while
a line card is dead waits for its next start. The transmit ring is made anew by each start: nothing of a process
that has ended is sent.
"""

from __future__ import annotations

import mmap
import socket
import struct
import time
from array import array
from collections.abc import Iterable
from contextlib import suppress
from errno import EBUSY
from typing import Final

RECEIVE_FRAMES: Final = 2048
TRANSMIT_FRAMES: Final = 1024
"""Frames (count) of each ring."""
FRAME_OCTETS: Final = 2048
BLOCK_OCTETS: Final = 65536
MAX_PENDING: Final = 0.2
"""Time (s) for which frames of an earlier process may be on their way out."""
MAX_BATCH_FRAMES: Final = 256
"""Frames (count) that are read at a time, at most."""

_SOL_PACKET: Final = 263
_RX_RING, _STATISTICS, _COPY_THRESH, _VERSION, _TX_RING, _LOSS = 5, 6, 7, 10, 13, 14
_VERSION_2: Final = 1

_HEADER: Final = struct.Struct("=IIIHHII")
"""struct tpacket2_hdr: status, length, captured length, offset of the frame, offset of its packet, seconds,
nanoseconds."""
_STATUS, _LENGTH, _CAPTURED = 0, 1, 2
"""Indexes of 32-bit words in a header."""
_WORDS: Final = FRAME_OCTETS // 4
_TRANSMIT_AT: Final = 32
"""Offset (octets) of a frame that is to be sent: the header's size, aligned to 16."""
MAX_TRANSMIT_OCTETS: Final = FRAME_OCTETS - _TRANSMIT_AT

_FREE: Final = 0
_RECEIVED, _COPIED, _LOSING = 1, 2, 4
"""Bits of the status of a frame that was received: the process may read it; the frame is longer than its place,
and whole in the socket's queue; frames were lost before it."""
_SEND_REQUEST: Final = 1


def _ring(frames: int) -> bytes:
    return struct.pack("=IIII", BLOCK_OCTETS, frames * FRAME_OCTETS // BLOCK_OCTETS, FRAME_OCTETS, frames)


def make_receive_ring(fd: int) -> bool:
    """Give a raw packet socket, which no process has mapped, a receive ring; return whether it has one now."""
    with socket.socket(fileno=fd) as raw:
        try:
            raw.setsockopt(_SOL_PACKET, _VERSION, _VERSION_2)
            raw.setsockopt(_SOL_PACKET, _COPY_THRESH, 1)
            # Skip a frame that the device refuses, in place of stopping at it.
            raw.setsockopt(_SOL_PACKET, _LOSS, 1)
            raw.setsockopt(_SOL_PACKET, _RX_RING, _ring(RECEIVE_FRAMES))
        except OSError:
            return False
        finally:
            raw.detach()
    return True


def rings_of(raw: socket.socket) -> PacketRing | None:
    """Return the rings of a socket that has a receive ring.

    None: the kernel has no memory for a transmit ring. The socket then has no rings at all, and is read by calls.
    """
    end = time.monotonic() + MAX_PENDING
    while True:
        try:
            return PacketRing(raw)
        except OSError as error:
            # Frames of the process before this one may still be on their way out of its transmit ring.
            if error.errno != EBUSY or time.monotonic() > end:
                break
            time.sleep(0.001)
    for ring in (_TX_RING, _RX_RING):
        with suppress(OSError):
            raw.setsockopt(_SOL_PACKET, ring, bytes(16))
    return None


class PacketRing:
    """Both rings of one socket.

    Raises:
        OSError: the socket has no receive ring, or the kernel gives it no transmit ring.
    """

    def __init__(self, raw: socket.socket) -> None:
        self._socket = raw
        raw.setsockopt(_SOL_PACKET, _TX_RING, bytes(16))
        raw.setsockopt(_SOL_PACKET, _TX_RING, _ring(TRANSMIT_FRAMES))
        self._map = mmap.mmap(raw.fileno(), (RECEIVE_FRAMES + TRANSMIT_FRAMES) * FRAME_OCTETS)
        self._whole = memoryview(self._map)
        size = RECEIVE_FRAMES * FRAME_OCTETS
        self._received, self._sent = self._whole[:size], self._whole[size:]
        self._received_words, self._sent_words = self._received.cast("I"), self._sent.cast("I")
        self._next_received = -1
        """Index of the frame that the kernel fills next; -1: not known."""
        self._next_sent = 0
        self.lost = 0
        """Frames (count) that the receive ring had no room for."""

    def close(self) -> None:
        """Unmap the rings; the kernel keeps them with the socket."""
        for view in (self._received_words, self._sent_words, self._received, self._sent, self._whole):
            view.release()
        self._map.close()

    def receive(self) -> tuple[bytearray, array[int]]:
        """Return the frames that have come, laid end to end, and their lengths: `MAX_BATCH_FRAMES` at most."""
        words, lengths = self._received_words, array("H")
        first = self._next_received
        if first < 0:
            first = self._find_first()
            if first < 0:
                return bytearray(), lengths
        end = min(first + MAX_BATCH_FRAMES, RECEIVE_FRAMES)
        begin, view = first * _WORDS, self._received
        states = words[begin : end * _WORDS : _WORDS].tolist()
        if _FREE in states:
            del states[states.index(_FREE) :]
        count = len(states)
        if not count:
            return bytearray(), lengths
        stop = begin + count * _WORDS
        sizes = words[begin + _CAPTURED : stop : _WORDS].tolist()
        at = first * FRAME_OCTETS
        offset = _HEADER.unpack_from(view, at)[3]
        starts = range(at + offset, (first + count) * FRAME_OCTETS, FRAME_OCTETS)
        frames: list[bytes | memoryview] = [
            view[start : start + size] for start, size in zip(starts, sizes, strict=True)
        ]
        special = _COPIED | _LOSING
        if max(states) > _RECEIVED and any(state & special for state in states):
            self._fetch_long(states, frames)
        body = bytearray().join(frames)
        lengths.extend(map(len, frames))
        words[begin:stop:_WORDS] = memoryview(array("I", bytes(4 * count)))
        self._next_received = (first + count) % RECEIVE_FRAMES
        return body, lengths

    def send(self, frames: Iterable[memoryview]) -> int:
        """Send frames, each of `MAX_TRANSMIT_OCTETS` at most; return how many the device took, the first ones."""
        view, words = self._sent, self._sent_words
        first = at = self._next_sent
        count = 0
        for frame in frames:
            word = at * _WORDS
            if words[word] != _FREE or count == TRANSMIT_FRAMES:
                break
            start, size = at * FRAME_OCTETS + _TRANSMIT_AT, len(frame)
            view[start : start + size] = frame
            words[word + _LENGTH] = size
            words[word] = _SEND_REQUEST
            at = (at + 1) % TRANSMIT_FRAMES
            count += 1
        if not count:
            return 0
        # A device that is down, or out of memory, takes none or not all of them. Those are not sent later.
        with suppress(OSError):
            self._socket.send(b"", socket.MSG_DONTWAIT)
        sent = count
        while sent and words[(first + sent - 1) % TRANSMIT_FRAMES * _WORDS] == _SEND_REQUEST:
            sent -= 1
            words[(first + sent) % TRANSMIT_FRAMES * _WORDS] = _FREE
        self._next_sent = (first + sent) % TRANSMIT_FRAMES
        return sent

    def _find_first(self) -> int:
        """Return the index of the oldest frame that waits; -1 if none does."""
        states = self._received_words[::_WORDS].tolist()
        waiting = [index for index, state in enumerate(states) if state != _FREE]
        if not waiting:
            return -1
        return min(waiting, key=lambda index: _HEADER.unpack_from(self._received, index * FRAME_OCTETS)[5:7])

    def _fetch_long(self, states: list[int], frames: list[bytes | memoryview]) -> None:
        """Take frames longer than their place from the socket's queue, and count what was lost."""
        for index, state in enumerate(states):
            if state & _COPIED:
                try:
                    frames[index] = self._socket.recv(0xFFFF)
                except OSError:
                    continue
        if any(state & _LOSING for state in states):
            # Reading the statistics sets them to 0.
            self.lost += struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))[1]
