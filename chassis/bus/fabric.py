"""One card's part of the fabric: its own data socket, and one connection to each other card.

A connection leads to one boot of a card: the boot is in the endpoint's name. Each card counts what it took of each
other one, so that a sender knows what is under way (`chassis.bus.credit`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from chassis.bus import endpoints
from chassis.bus.batch import Batch
from chassis.bus.connection import connect, connection_events, receive_waiting, receiver
from chassis.bus.counters import Counters
from chassis.bus.credit import Credit
from chassis.bus.hops import MAX_SENDERS, ReceivedBatches, SentBatches
from chassis.bus.loop import RETRY_INTERVAL, Loop
from chassis.bus.sender import Congestion, Sender

MAX_QUEUED_BATCHES = 64
"""High-water mark (batches) of a fabric connection at each end."""

TAKEN_FROM = "fabric taken from "
"""Beginning of the name of the counter of packets taken from a card's connection."""


@dataclass(slots=True)
class _Peer:
    boot: int
    socket: zmq.Socket[bytes]
    monitor: zmq.Socket[bytes]
    full: int
    sender: Sender
    lost: bool = False
    """Whether the connection was open and has closed: its process has ended."""


class Fabric:
    """One card's sockets of the fabric.

    `on_batch(batch, now)` is called for each batch that arrives, and `on_read()` after those that were read
    together; `on_peer(card, boot, up, now)` when a connection opens or closes. `tap`, where set, sees every batch
    that passes. `congestion` is the process's; with `held` it holds the fabric back as it does ports. A card with
    ports must not be held: others wait for it.
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
        congestion: Congestion | None = None,
        *,
        on_read: Callable[[], None] = lambda: None,
        held: bool = False,
    ) -> None:
        self._context, self._loop, self._run, self._node, self._card = context, loop, run, node, card
        self._counters = counters
        self._on_batch, self._on_peer, self._on_read = on_batch, on_peer, on_read
        self._congestion = Congestion() if congestion is None else congestion
        self._held = held
        self._peers: dict[str, _Peer] = {}
        self.tap: Callable[[str, str, Batch], None] | None = None
        self._taken = {
            name.removeprefix(TAKEN_FROM): counters.slot(name)
            for name, _ in list(counters.items())
            if name.startswith(TAKEN_FROM)
        }
        """Slots of the packets taken from each card, by this process and those before it."""
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
        file = self._run / f"{self._node}.{endpoints.compact(card)}.counters"
        sender = Sender(
            self._loop,
            socket,
            SentBatches(self._counters, f"fabric to {card}"),
            Credit((file,), TAKEN_FROM + self._card),
            self._congestion,
            lambda batch: self._on_sent(card, batch),
        )
        full = self._counters.slot(f"drop fabric full to {card}")
        self._taken_slot(card)
        self._peers[card] = _Peer(boot, socket, monitor, full, sender)
        self._loop.add(monitor, lambda now: self._on_connection_event(card, boot, now))

    def disconnect(self, card: str) -> None:
        peer = self._peers.pop(card, None)
        if peer is not None:
            self._loop.remove(peer.monitor)
            self._drop_waiting(card, peer)
            peer.sender.credit.close()
            peer.socket.disable_monitor()
            peer.monitor.close(0)
            peer.socket.close(0)

    def send(self, card: str, *batches: Batch) -> None:
        """Send without blocking, in one message if possible. Batches for a full queue or an absent card are
        dropped and counted."""
        peer = self._peers.get(card)
        if peer is None or peer.lost:
            packets = sum([len(batch.lengths) for batch in batches])
            self._counters.add(f"drop no connection to {card}", packets)
            return
        sender, now = peer.sender, time.monotonic()
        dropped = sender.send(*batches, now) if len(batches) == 1 else sender.send_together(batches, now)
        for number, packets in enumerate(dropped):
            if packets:
                self._counters.values[peer.full] += packets
                self._counters.add(f"fabric full class {number}", packets)

    def drain(self) -> None:
        """Receive all waiting batches. Call it after a stall, before anything else is handled.

        It stops at the capacity of all queues, because more batches may arrive meanwhile.
        """
        left = 2 * MAX_QUEUED_BATCHES * (len(self._peers) + 1)
        while left > 0 and (taken := self._read_batches(False)):
            left -= taken

    def close(self) -> None:
        for card in list(self._peers):
            self.disconnect(card)
        self._loop.remove(self._pull)
        self._pull.close(0)

    def _on_sent(self, card: str, batch: Batch) -> None:
        self._counters.values[self._sent] += len(batch.lengths)
        if self.tap:
            self.tap("to", card, batch)

    def _drop_waiting(self, card: str, peer: _Peer) -> None:
        """Drop what waits for a process that has ended, and count it."""
        if packets := peer.sender.drop():
            self._counters.add(f"drop no connection to {card}", packets)

    def _taken_slot(self, card: str) -> int:
        slot = self._taken.get(card)
        if slot is None:
            # A header can name any card: those beyond what a chassis holds share a slot.
            name = TAKEN_FROM + (card if len(self._taken) < MAX_SENDERS else "others")
            slot = self._counters.slot(name)
            if len(self._taken) < MAX_SENDERS:
                self._taken[card] = slot
        return slot

    def _on_taken(self, card: str, packets: int) -> None:
        self._counters.values[self._taken_slot(card)] += packets

    def _count_undecodable(self) -> None:
        self._counters.add("drop undecodable batch")

    def _read_batches(self, ready: bool) -> int:
        messages, batches = receive_waiting(
            self._pull, self._count_undecodable, self._hop, self._on_taken, ready=ready
        )
        for batch in batches:
            self._counters.values[self._received] += len(batch.lengths)
            if self.tap:
                self.tap("from", batch.card, batch)
            # Use the time of this batch, not of the poll: a stamp must not be older than the previous card's.
            self._on_batch(batch, time.monotonic())
        self._on_read()
        return messages

    def _on_readable(self, now: float) -> None:
        self._hop.woken()
        ready = True
        while not (self._held and self._congestion.holds(now)):
            if not self._read_batches(ready) or not self._loop.may_continue():
                return
            ready = False
        self._loop.rest(self._pull, now + RETRY_INTERVAL)

    def _on_connection_event(self, card: str, boot: int, now: float) -> None:
        peer = self._peers.get(card)
        if peer is None or peer.boot != boot:
            return
        for up in connection_events(peer.monitor):
            peer.lost = not up
            if up:
                peer.sender.credit.connected()
            else:
                # There may never be a next start of the card, which would close this connection.
                self._drop_waiting(card, peer)
            self._on_peer(card, boot, up, now)
