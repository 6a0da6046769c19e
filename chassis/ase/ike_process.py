"""The IKE process of an ASP: forked by the ASP, fed by it through a socket pair, and ended with it.

Messages are typed and framed by their length. Neither end waits for the other: octets that the kernel does not
take stay here, and IKE datagrams, which their sender repeats, are dropped first.

A message that cannot be carried is dropped and reported (`MessageDropped`) if both ends still agree without it,
such as an answer to an operator. Without another one, an SA or a record, their states would differ from then on:
the process ends with an error, and both start again. Both are one program, so no versions need bridging.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

import msgpack
import zmq
from setproctitle import setproctitle

from chassis.ase.ike.engine import IkeEngine
from chassis.ase.ike_messages import (
    Acquire,
    FromIke,
    IkeHeartbeat,
    IkeLog,
    IkePacket,
    IkeReply,
    IkeRequest,
    MessageDropped,
    PeerAlive,
    ToIke,
    UnknownSpi,
)
from chassis.bus.codec import MAX_MESSAGE, carrier
from chassis.bus.engine import MAX_IDLE_TIMEOUT
from chassis.bus.environment import Environment
from chassis.bus.loop import Loop
from chassis.bus.parent_death import die_with_parent
from chassis.bus.scheduling import ask_for_slice
from chassis.net.errors import DecodeError

MAX_PENDING_OCTETS: Final = 1 << 20
"""Largest backlog (octets); beyond it IKE datagrams are dropped."""

READ_SIZE: Final = 1 << 18
"""Octets read at once."""

DROPPABLE: Final = {
    kind.__name__
    for kind in (IkeHeartbeat, IkeLog, IkePacket, IkeReply, IkeRequest, Acquire, PeerAlive, UnknownSpi)
}
"""Messages that may be dropped: they are repeated, or only operators need them."""

COMMANDS: Final = {IkeRequest.__name__, IkeReply.__name__}
"""Messages that begin with the number of a command whose sender waits for a reply."""

MAX_FRAMES: Final = 64
"""Most messages of one system call (count)."""

MAX_LOGGED_CHARS: Final = 200
"""Length limit of the text about a dropped message (characters)."""

_LENGTH = struct.Struct("!I")


class PipeClosed(Exception):
    """The other process has ended, or the stream from it cannot be decoded."""


class Pipe:
    """One end of the socket pair. `lossy`: messages that are dropped while too many octets wait."""

    def __init__(
        self,
        end: socket.socket,
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
        lossy: type = IkePacket,
    ) -> None:
        end.setblocking(False)
        self.socket = end
        self.dropped = 0
        self._encode, self._decode, self._lossy = encode, decode, lossy
        self._out: deque[memoryview] = deque()
        self._waiting = 0
        self._in = bytearray()

    @property
    def pending(self) -> bool:
        """Whether octets wait until the socket is writable."""
        return bool(self._out)

    def send(self, message: Any) -> MessageDropped | None:
        """Send a message to the other process; return `MessageDropped` if it cannot be encoded.

        Raises:
            PipeClosed: the other process has ended, or the states would differ without this message.
        """
        left = self.enqueue(message)
        self.flush()
        return left

    def enqueue(self, message: Any) -> MessageDropped | None:
        """Send a message with the next `flush`, so that several wake the other process once. As `send` otherwise.

        Raises:
            PipeClosed: the states of both processes would differ without this message.
        """
        if self._waiting > MAX_PENDING_OCTETS and isinstance(message, self._lossy):
            self.dropped += 1
            return None
        try:
            data = self._encode(message)
        except (TypeError, ValueError, OverflowError) as error:
            return _dropped(type(message).__name__, getattr(message, "number", 0), str(error))
        if len(data) > MAX_MESSAGE:
            return _dropped(
                type(message).__name__,
                getattr(message, "number", 0),
                f"{len(data)} octets; at most {MAX_MESSAGE} are sent",
            )
        frame = memoryview(_LENGTH.pack(len(data)) + data)
        self._out.append(frame)
        self._waiting += len(frame)
        return None

    def flush(self) -> None:
        """Write pending octets until the socket takes no more.

        Raises:
            PipeClosed: the other process has ended.
        """
        out = self._out
        while out:
            try:
                taken = self.socket.sendmsg(list(islice(out, MAX_FRAMES)))
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                raise PipeClosed(str(error)) from None
            self._waiting -= taken
            while taken:
                if taken < len(out[0]):
                    out[0] = out[0][taken:]
                    break
                taken -= len(out.popleft())

    def receive(self) -> list[Any]:
        """Return the messages received since the last call; `MessageDropped` for one that does not decode.

        Raises:
            PipeClosed: the other process has ended, or the states would differ without a message.
        """
        try:
            data = self.socket.recv(READ_SIZE)
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
                raise PipeClosed(f"a message of {length} octets; at most {MAX_MESSAGE} are accepted")
            if len(buffer) - at - _LENGTH.size < length:
                break
            start = at + _LENGTH.size
            at = start + length
            frame = bytes(buffer[start:at])
            try:
                messages.append(self._decode(frame))
            except DecodeError as error:
                messages.append(_dropped(*_heading(frame), str(error)))
        del buffer[:at]
        return messages

    def close(self) -> None:
        self.socket.close()


def _dropped(kind: str, number: int, what: str) -> MessageDropped:
    """Return the report about a message that cannot be carried.

    Raises:
        PipeClosed: the states of both processes would differ without it.
    """
    text = ascii(f"{kind}: {what}"[:MAX_LOGGED_CHARS])[1:-1]
    if kind not in DROPPABLE:
        raise PipeClosed(text)
    return MessageDropped(text, number if kind in COMMANDS else 0)


def _heading(frame: bytes) -> tuple[str, int]:
    """Return (type, number) of a message that does not decode; "" and 0 where they do not decode either."""
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


YIELD_INTERVAL = 0.001
"""CPU time (s) after which the data engine may have the core: each yield costs a turn of all others.

The process asks for slices of this length: Linux 6.18 counts a whole slice as used when a process yields, so that
with longer ones it would get a small part of its share beside other processes.
"""

NICE = 5
"""Niceness of the process: key exchanges yield to packets and heartbeats on the same core."""

_encode_to, _decode_to = carrier(ToIke)
_encode_from, _decode_from = carrier(FromIke)


def start(env: Environment) -> Pipe:
    """Fork the IKE process and return the data engine's end of the pipe."""
    ours, its = socket.socketpair()
    parent = os.getpid()
    if os.fork() == 0:
        status = 1
        try:
            die_with_parent(parent)
            ours.close()
            status = _run(env, Pipe(its, _encode_from, _decode_to))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    its.close()
    return Pipe(ours, _encode_to, _decode_from)


def _run(env: Environment, pipe: Pipe) -> int:
    setproctitle(f"chassis {env.node} {env.card} ike")
    os.nice(NICE)
    ask_for_slice(YIELD_INTERVAL)
    # The process ends when the data engine closes its end of the pipe.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    engine = IkeEngine(env.card, random=os.urandom)
    loop = Loop(longest_wait=MAX_IDLE_TIMEOUT)
    writing = False

    def watch() -> None:
        nonlocal writing
        if pipe.pending == writing:
            return
        writing = pipe.pending
        loop.remove(pipe.socket.fileno())
        loop.add(pipe.socket.fileno(), ready, zmq.POLLIN | zmq.POLLOUT if writing else zmq.POLLIN)

    def send(messages: list[FromIke]) -> None:
        for message in messages:
            left = pipe.enqueue(message)
            if left is not None:
                send(engine.on_message_dropped(left.text, left.number, time.monotonic()))
        pipe.flush()
        watch()

    def ready(now: float) -> None:
        pipe.flush()
        used = time.thread_time()
        for message in pipe.receive():
            now = time.monotonic()
            if isinstance(message, MessageDropped):
                send(engine.on_message_dropped(message.text, message.number, now))
            else:
                send(engine.receive(message, now, time.time()))
            now = time.monotonic()
            if engine.next_timer() <= now:
                # A hundred messages may take seconds on a crowded machine; the data engine waits for heartbeats.
                send(engine.on_timer(now))
            if time.thread_time() - used >= YIELD_INTERVAL:
                # Without this the data engine would wait for a whole scheduler tick, whatever `NICE` is.
                os.sched_yield()
                used = time.thread_time()
        watch()

    try:
        loop.add(pipe.socket.fileno(), ready)
        send(engine.start(time.monotonic()))
        loop.run(engine.next_timer, lambda now: send(engine.on_timer(now)))
    except PipeClosed:
        return 0
    return 0
