"""Connections of the fabric and of wires: sockets, their events, and batches in and out of them.

Sends never block. A connection leads to one process and exists only while that process runs (ZeroMQ option
IMMEDIATE), so that no packets wait for a dead one.
"""

from __future__ import annotations

import socket as kernel
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import zmq
from zmq.backend import Socket as BackendSocket
from zmq.utils.monitor import parse_monitor_message

from chassis.bus.batch import MAX_PACKETS, Batch, decode, decode_frames, encode_header
from chassis.bus.coalesce import coalesced
from chassis.bus.hops import ReceivedBatches, SentBatches
from chassis.net.errors import DecodeError

RECONNECT_INTERVAL_MS = 20

MAX_ONE_FRAME_OCTETS = 32 * 1024
"""Octets of a body that is copied behind its header. A second frame costs more than the copy of a smaller one, as
that of 256 packets of 64 octets is."""

_send, _receive, _events = BackendSocket.send, BackendSocket.recv, BackendSocket.get
"""Of `zmq.Socket`, without the layer above, whose options for other kinds of sockets cost time at each message."""
_DONTWAIT, _SNDMORE = int(zmq.DONTWAIT), int(zmq.SNDMORE)
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)

EVENTS = zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED

SEND_BUFFER_OCTETS = 512 * 1024
"""Room in the kernel for what a connection sends: a message of 256 packets of 1,400 octets fits. One that does not
waits until the other end has read, and takes two turns of both I/O threads. The system's own size is 208 KiB; it
may allow less than this (net.core.wmem_max)."""


def connect(
    context: zmq.Context[Any], kind: int, endpoint: str, queue: int
) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    """A sending socket that holds nothing for an absent peer, and the socket of its monitor."""
    sender: zmq.Socket[bytes] = context.socket(kind)
    sender.setsockopt(zmq.IMMEDIATE, 1)
    sender.setsockopt(zmq.LINGER, 0)
    sender.setsockopt(zmq.SNDHWM, queue)
    sender.setsockopt(zmq.RECONNECT_IVL, RECONNECT_INTERVAL_MS)
    monitor = sender.get_monitor_socket(EVENTS)
    sender.connect(endpoint)
    return sender, monitor


def receiver(context: zmq.Context[Any], endpoint: str, queue: int) -> zmq.Socket[bytes]:
    """Return a bound socket that receives the batches of all connected cards."""
    pull: zmq.Socket[bytes] = context.socket(zmq.PULL)
    pull.setsockopt(zmq.LINGER, 0)
    pull.setsockopt(zmq.RCVHWM, queue)
    pull.bind(endpoint)
    return pull


def receive(socket: zmq.Socket[bytes], ready: bool = False) -> list[Batch]:
    """Return the batches of the next message of a socket's queue, in writable buffers; none if it is empty.

    `ready`: the socket was polled, so that a message most likely waits.

    Raises:
        DecodeError: the next message is no batches. It is removed from the queue.
    """
    if not ready and not int(_events(socket, _EVENTS)) & _POLLIN:
        # Cheaper than the exception of a receive without a message.
        return []
    try:
        frame = _receive(socket, _DONTWAIT, False)
    except zmq.Again:
        return []
    if not frame.more:
        return [decode(frame.buffer)]
    frames = [frame]
    while frames[-1].more:
        frames.append(_receive(socket, _DONTWAIT, False))
    return decode_frames([frame.buffer for frame in frames])


def receive_frames(socket: zmq.Socket[bytes]) -> list[Any]:
    """Return the frames (`zmq.Frame`) of the next message of a socket's queue; none if the queue is empty."""
    if not int(_events(socket, _EVENTS)) & _POLLIN:
        # Cheaper than the exception of a receive without a message.
        return []
    frames = [_receive(socket, _DONTWAIT, False)]
    while frames[-1].more:
        frames.append(_receive(socket, _DONTWAIT, False))
    return frames


def receive_waiting(
    socket: zmq.Socket[bytes],
    undecodable: Callable[[], None],
    hop: ReceivedBatches,
    taken: Callable[[str, int], None] | None = None,
    ready: bool = False,
) -> tuple[int, list[Batch]]:
    """Receive up to one large batch. Return the number of messages, and their batches, small ones coalesced.

    `undecodable` is called for each message that is not a batch. 0 messages: the queue is empty. `hop` counts.
    `taken(card, packets)` is called for each batch. `ready`: the socket was polled.
    """
    batches: list[Batch] = []
    messages = packets = wrong = 0
    while packets + wrong < MAX_PACKETS:
        try:
            found = receive(socket, ready)
        except DecodeError:
            undecodable()
            wrong += 1
        else:
            if not found:
                break
            batches += found
            for batch in found:
                packets += len(batch.lengths)
                if taken is not None:
                    taken(batch.card, len(batch.lengths))
                if batch.stamp:
                    hop.waited(batch.stamp, batch.card)
        messages += 1
        ready = False
    if not batches:
        return messages, batches
    received = len(batches)
    if received > 1:
        batches = coalesced(batches)
    hop.count(received, len(batches), packets)
    return messages, batches


def send_batches(socket: zmq.Socket[bytes], batches: Sequence[Batch], hop: SentBatches) -> bool:
    """Send batches as one message, counted by `hop`; return False if the queue is full or there is no peer."""
    last = len(batches) - 1
    try:
        for number, batch in enumerate(batches):
            header, body = encode_header(batch, hop.stamp()), batch.body
            flags = _DONTWAIT if number == last else _DONTWAIT | _SNDMORE
            if len(body) <= MAX_ONE_FRAME_OCTETS:
                _send(socket, b"".join((header, body)), flags)
            else:
                _send(socket, header, _DONTWAIT | _SNDMORE)
                _send(socket, body, flags)
    except zmq.Again:
        return False
    for batch in batches:
        hop.count(len(batch.lengths))
    return True


def send_frames(socket: zmq.Socket[bytes], frames: Sequence[bytes]) -> bool:
    """Send a message of one frame or more; return False if the queue is full or there is no peer."""
    last = len(frames) - 1
    try:
        for number, frame in enumerate(frames):
            _send(socket, frame, _DONTWAIT if number == last else _DONTWAIT | _SNDMORE)
    except zmq.Again:
        return False
    return True


def _enlarge_buffer(fd: int, endpoint: str) -> None:
    """Set the send buffer of a connection that libzmq has made: it does so for TCP alone.

    The connection may be gone, and its descriptor another file's: so the peer is looked at.
    """
    with suppress(OSError):
        made = kernel.socket(fileno=fd)
        try:
            if made.family == kernel.AF_UNIX and made.getpeername() == endpoint.removeprefix("ipc://"):
                made.setsockopt(kernel.SOL_SOCKET, kernel.SO_SNDBUF, SEND_BUFFER_OCTETS)
        finally:
            # It stays libzmq's.
            made.detach()


def connection_events(monitor: zmq.Socket[bytes]) -> list[bool]:
    """Return the events of a monitor since the last call: True for a new connection, False for a lost one. Give
    each new connection its room in the kernel."""
    seen: list[bool] = []
    while True:
        try:
            event = parse_monitor_message(monitor.recv_multipart(zmq.DONTWAIT))
        except zmq.Again:
            return seen
        if event["event"] == zmq.EVENT_CONNECTED:
            _enlarge_buffer(event["value"], event["endpoint"].decode())
        if event["event"] in (zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_DISCONNECTED):
            seen.append(event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED)
