"""The way between an ASP's two processes: typed messages over a socket pair, framed by their length.

Neither end ever waits for the other: what the kernel does not take is kept here, and datagrams of IKE, which their
sender repeats anyhow, are dropped first.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from chassis.ase.link import IkePacket
from chassis.bus.codec import MAX_MESSAGE
from chassis.net.errors import DecodeError

PACKETS_UP_TO: Final = 1 << 20
"""Octets that may wait before datagrams are dropped."""

CHUNK: Final = 1 << 18

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

    def send(self, message: Any) -> None:
        """Give a message to the other process; raises PipeClosed."""
        if self._waiting > PACKETS_UP_TO and isinstance(message, IkePacket):
            self.dropped += 1
            return
        data = self._encode(message)
        frame = memoryview(_LENGTH.pack(len(data)) + data)
        self._out.append(frame)
        self._waiting += len(frame)
        self.flush()

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
        """The messages that came since; raises PipeClosed."""
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
            try:
                messages.append(self._decode(bytes(buffer[start:at])))
            except DecodeError as error:
                raise PipeClosed(str(error)) from None
        del buffer[:at]
        return messages

    def close(self) -> None:
        self.socket.close()
