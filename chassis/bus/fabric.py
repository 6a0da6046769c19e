"""One card's part of the fabric: its own data socket, and one connection to each other card.

Sends never block. A connection leads to one boot of a card (the boot is in the endpoint's name) and exists only
while that process runs (ZeroMQ option IMMEDIATE), so that no packets wait for a dead process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
from zmq.backend import Socket as BackendSocket
from zmq.utils.monitor import parse_monitor_message

from chassis.bus import batch as batches
from chassis.bus import endpoints
from chassis.bus.backlog import Backlog
from chassis.bus.batch import MAX_PACKETS, Batch
from chassis.bus.coalesce import coalesced
from chassis.bus.counters import Counters
from chassis.bus.hops import ReceivedBatches, SentBatches
from chassis.bus.loop import Loop
from chassis.net.errors import DecodeError

MAX_QUEUED_BATCHES = 64
"""High-water mark (batches) of a fabric connection at each end."""

MAX_BACKLOG_PACKETS = 2048
"""Most packets (count) that wait at a sender for a connection whose queue is full. They are joined into larger
batches, so that a receiver that was busy catches up. If there are more, packets are dropped by class; classes are
not computed before."""

RECONNECT_INTERVAL_MS = 20

MAX_ONE_FRAME_OCTETS = 16 * 1024
"""Octets of a body that is copied behind its header. A second frame costs more than the copy of a smaller one."""

_send, _receive, _events = BackendSocket.send, BackendSocket.recv, BackendSocket.get
"""Of `zmq.Socket`, without the layer above, whose options for other kinds of sockets cost time at each message."""
_DONTWAIT, _SNDMORE = int(zmq.DONTWAIT), int(zmq.SNDMORE)
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)

EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


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


def receive(socket: zmq.Socket[bytes]) -> Batch | None:
    """Return the next batch of a socket's queue, in a writable buffer; None if the queue is empty.

    Raises:
        DecodeError: the next message is not a batch. It is removed from the queue.
    """
    if not int(_events(socket, _EVENTS)) & _POLLIN:
        # Cheaper than the exception of a receive without a message.
        return None
    frame = _receive(socket, _DONTWAIT, False)
    if not frame.more:
        return batches.decode(frame.buffer)
    frames = [frame]
    while frames[-1].more:
        frames.append(_receive(socket, _DONTWAIT, False))
    if len(frames) != 2:
        raise DecodeError("batch", f"{len(frames)} frames")
    return batches.decode(frame.buffer, frames[1].buffer)


def receive_waiting(
    socket: zmq.Socket[bytes], undecodable: Callable[[], None], hop: ReceivedBatches
) -> tuple[int, list[Batch]]:
    """Receive up to one large batch. Return the number of messages, and their batches, small ones coalesced.

    `undecodable` is called for each message that is not a batch. 0 messages: the queue is empty. `hop` counts.
    """
    batches: list[Batch] = []
    messages = packets = 0
    while packets < MAX_PACKETS:
        try:
            batch = receive(socket)
        except DecodeError:
            undecodable()
            packets += 1
        else:
            if batch is None:
                break
            batches.append(batch)
            packets += len(batch.lengths)
            if batch.stamp:
                hop.waited(batch.stamp, batch.card)
        messages += 1
    if not batches:
        return messages, batches
    received = len(batches)
    if received > 1:
        batches = coalesced(batches)
    # What was no batch counted as a packet.
    hop.count(received, len(batches), packets - (messages - received))
    return messages, batches


def send(socket: zmq.Socket[bytes], batch: Batch, hop: SentBatches) -> bool:
    """Send a batch, counted by `hop`; return False if the queue is full or there is no peer."""
    header, body = batches.encode_header(batch, hop.stamp()), batch.body
    try:
        if len(body) <= MAX_ONE_FRAME_OCTETS:
            _send(socket, b"".join((header, body)), _DONTWAIT)
        else:
            _send(socket, header, _DONTWAIT | _SNDMORE)
            _send(socket, body, _DONTWAIT)
    except zmq.Again:
        return False
    hop.count(len(batch.lengths))
    return True


def connection_events(monitor: zmq.Socket[bytes]) -> list[bool]:
    """Return the events of a monitor since the last call: True for a new connection, False for a lost one."""
    seen: list[bool] = []
    while True:
        try:
            event = parse_monitor_message(monitor.recv_multipart(zmq.DONTWAIT))
        except zmq.Again:
            return seen
        if event["event"] in (zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_DISCONNECTED):
            seen.append(event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED)


@dataclass(slots=True)
class _Peer:
    boot: int
    socket: zmq.Socket[bytes]
    monitor: zmq.Socket[bytes]
    full: int
    hop: SentBatches
    lost: bool = False
    """Whether the connection was open and has closed: its process has ended."""
    backlog: Backlog = field(default_factory=lambda: Backlog(MAX_BACKLOG_PACKETS))


class Fabric:
    """One card's sockets of the fabric.

    `on_batch(batch, now)` is called for each batch that arrives, `on_peer(card, boot, up, now)` when a
    connection opens or closes. `tap`, where set, sees every batch that passes.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        loop: Loop,
        run: Path,
        node: str,
        card: str,
        boot: int,
        counters: Counters,
        on_batch: Callable[[Batch, float], None],
        on_peer: Callable[[str, int, bool, float], None],
    ) -> None:
        self._context, self._loop, self._run, self._node = context, loop, run, node
        self._counters = counters
        self._on_batch, self._on_peer = on_batch, on_peer
        self._peers: dict[str, _Peer] = {}
        self.tap: Callable[[str, str, Batch], None] | None = None
        self._pull = receiver(context, endpoints.fabric(run, node, card, boot), MAX_QUEUED_BATCHES)
        self._sent = counters.slot("fabric sent")
        self._received = counters.slot("fabric received")
        self._hop = ReceivedBatches(counters, "fabric")
        loop.add(self._pull, self._on_readable)

    def connect(self, card: str, boot: int) -> None:
        """Connect to this boot of a card; close a connection to another boot of it."""
        self.disconnect(card)
        socket, monitor = connect(
            self._context, zmq.PUSH, endpoints.fabric(self._run, self._node, card, boot), MAX_QUEUED_BATCHES
        )
        self._peers[card] = _Peer(
            boot,
            socket,
            monitor,
            self._counters.slot(f"drop fabric full to {card}"),
            SentBatches(self._counters, f"fabric to {card}"),
        )
        self._loop.add(monitor, lambda now: self._on_connection_event(card, boot, now))

    def disconnect(self, card: str) -> None:
        peer = self._peers.pop(card, None)
        if peer is not None:
            self._loop.remove(peer.monitor)
            self._drop_backlog(card, peer)
            peer.socket.disable_monitor()
            peer.monitor.close(0)
            peer.socket.close(0)

    def send(self, card: str, batch: Batch) -> None:
        """Send without blocking. Batches for a full queue or an absent card are dropped and counted."""
        peer = self._peers.get(card)
        if peer is None or peer.lost:
            self._counters.add(f"drop no connection to {card}", len(batch.lengths))
        elif not peer.backlog and send(peer.socket, batch, peer.hop):
            self._counters.values[self._sent] += len(batch.lengths)
            if self.tap:
                self.tap("to", card, batch)
        else:
            self._enqueue(card, peer, batch)

    def drain(self) -> None:
        """Receive all waiting batches. Call it after a stall, before anything else is handled.

        It stops at the capacity of all queues, because more batches may arrive meanwhile.
        """
        left = 2 * MAX_QUEUED_BATCHES * (len(self._peers) + 1)
        while left > 0 and (taken := self._read_batches()):
            left -= taken

    def close(self) -> None:
        for card in list(self._peers):
            self.disconnect(card)
        self._loop.remove(self._pull)
        self._pull.close(0)

    def _enqueue(self, card: str, peer: _Peer, batch: Batch) -> None:
        if not peer.backlog:
            self._loop.add(peer.socket, lambda now: self._send_backlog(card, peer), zmq.POLLOUT)
        for number, packets in enumerate(peer.backlog.enqueue(batch)):
            if packets:
                self._counters.values[peer.full] += packets
                self._counters.add(f"fabric full class {number}", packets)

    def _send_backlog(self, card: str, peer: _Peer) -> None:
        while peer.backlog:
            batch = peer.backlog.first
            if not send(peer.socket, batch, peer.hop):
                return
            peer.backlog.dequeue()
            self._counters.values[self._sent] += len(batch.lengths)
            if self.tap:
                self.tap("to", card, batch)
        self._loop.remove(peer.socket)

    def _drop_backlog(self, card: str, peer: _Peer) -> None:
        """Drop what waits for a process that has ended, and count it."""
        if peer.backlog:
            self._loop.remove(peer.socket)
            self._counters.add(f"drop no connection to {card}", peer.backlog.packets)
            peer.backlog = Backlog(MAX_BACKLOG_PACKETS)

    def _read_batches(self) -> int:
        messages, batches = receive_waiting(
            self._pull, lambda: self._counters.add("drop undecodable batch"), self._hop
        )
        for batch in batches:
            self._counters.values[self._received] += len(batch.lengths)
            if self.tap:
                self.tap("from", batch.card, batch)
            # Use the time of this batch, not of the poll: a stamp must not be older than the previous card's.
            self._on_batch(batch, time.monotonic())
        return messages

    def _on_readable(self, now: float) -> None:
        self._hop.woken()
        while self._read_batches() and self._loop.may_continue():
            pass

    def _on_connection_event(self, card: str, boot: int, now: float) -> None:
        peer = self._peers.get(card)
        if peer is None or peer.boot != boot:
            return
        for up in connection_events(peer.monitor):
            peer.lost = not up
            if peer.lost:
                # There may never be a next start of the card, which would close this connection.
                self._drop_backlog(card, peer)
            self._on_peer(card, boot, up, now)
