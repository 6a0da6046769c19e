"""The way between an ASP's two processes: typed messages over a socket pair, framed by their length.

Neither end ever waits for the other: what the kernel does not take is kept here, and datagrams of IKE, which their
sender repeats anyhow, are dropped first.

A message that cannot be carried is left out and said (`LeftOut`) where both ends still agree without it: an answer
to an operator is not worth an ASP. Without one of the others, a pair of SAs or a record, they would go on with
different states for good. Both are one program, forked, so such a message is no matter of versions that could be
bridged: the process ends, says why, and both begin anew.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgpack

from chassis.ase.link import IkeAlive, IkeLog, IkePacket, IkeReply, IkeRequest, LeftOut, NoSa, PeerSeen
from chassis.bus.codec import MAX_MESSAGE
from chassis.net.errors import DecodeError

PACKETS_UP_TO: Final = 1 << 20
"""Octets that may wait before datagrams are dropped."""

CHUNK: Final = 1 << 18

SPARED: Final = {kind.__name__ for kind in (IkeAlive, IkeLog, IkePacket, IkeReply, IkeRequest, NoSa, PeerSeen)}
"""Messages that may be missing: said again, asked again, or for people."""

COMMANDS: Final = {IkeRequest.__name__, IkeReply.__name__}
"""Messages that begin with the number of a command that somebody waits for."""

SAID: Final = 200
"""Most characters of what is said of a message."""

_LENGTH = struct.Struct("!I")


class PipeClosed(Exception):
    """The other process is gone, or what it sends makes no sense any more."""


class Pipe:
    """One end. `pending` says that octets wait for the socket to take them."""

    def __init__(self, end: socket.socket, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]) -> None:
        end.setblocking(False)
        self.socket = end
        self.dropped = 0
        self._encode, self._decode = encode, decode
        self._out: deque[memoryview] = deque()
        self._waiting = 0
        self._in = bytearray()

    @property
    def pending(self) -> bool:
        return bool(self._out)

    def send(self, message: Any) -> LeftOut | None:
        """Give a message to the other process; raises PipeClosed."""
        if self._waiting > PACKETS_UP_TO and isinstance(message, IkePacket):
            self.dropped += 1
            return None
        try:
            data = self._encode(message)
        except (TypeError, ValueError, OverflowError) as error:
            return _left_out(type(message).__name__, getattr(message, "number", 0), str(error))
        if len(data) > MAX_MESSAGE:
            return _left_out(type(message).__name__, getattr(message, "number", 0), f"{len(data)} bytes")
        frame = memoryview(_LENGTH.pack(len(data)) + data)
        self._out.append(frame)
        self._waiting += len(frame)
        self.flush()
        return None

    def flush(self) -> None:
        """Hand on what waits, as far as the socket takes it; raises PipeClosed."""
        out = self._out
        while out:
            try:
                taken = self.socket.send(out[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                raise PipeClosed(str(error)) from None
            self._waiting -= taken
            if taken == len(out[0]):
                out.popleft()
            else:
                out[0] = out[0][taken:]

    def receive(self) -> list[Any]:
        """The messages that came since, each as it is or `LeftOut`; raises PipeClosed."""
        try:
            data = self.socket.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise PipeClosed(str(error)) from None
        if not data:
            raise PipeClosed("the other process has ended")
        buffer = self._in
        buffer += data
        messages = []
        at = 0
        while len(buffer) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, at)
            if length > MAX_MESSAGE:
                raise PipeClosed(f"a message of {length} bytes")
            if len(buffer) - at - _LENGTH.size < length:
                break
            start = at + _LENGTH.size
            at = start + length
            frame = bytes(buffer[start:at])
            try:
                messages.append(self._decode(frame))
            except DecodeError as error:
                messages.append(_left_out(*_heading(frame), str(error)))
        del buffer[:at]
        return messages

    def close(self) -> None:
        self.socket.close()


def _left_out(kind: str, number: int, what: str) -> LeftOut:
    """Go on without a message, or not; raises PipeClosed."""
    text = ascii(f"{kind}: {what}"[:SAID])[1:-1]
    if kind not in SPARED:
        raise PipeClosed(text)
    return LeftOut(text, number if kind in COMMANDS else 0)


def _heading(frame: bytes) -> tuple[str, int]:
    """(type, number) of a message that cannot be read: as far as they can be."""
    name: Any = ""
    number: Any = 0
    reader = msgpack.Unpacker(strict_map_key=False)
    reader.feed(frame)
    try:
        reader.read_array_header()
        name = reader.unpack()
        reader.read_array_header()
        number = reader.unpack()
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException):
        pass
    return name if type(name) is str else "", number if type(number) is int else 0
