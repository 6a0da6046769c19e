"""The sending end of a connection: it never blocks, and keeps what the far end does not take yet.

What is kept is bounded, coalesced into larger batches, and dropped by class (`chassis.bus.backlog`). It is sent on
when the far end has taken enough of what is under way (`chassis.bus.credit`).

While something is kept, the process is congested: its ports read no more frames (`Congestion`), because what they
read would be dropped here after work was spent on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import zmq

from chassis.bus.backlog import Backlog, Classify
from chassis.bus.batch import MAX_PACKETS, Batch
from chassis.bus.connection import send_batches
from chassis.bus.credit import Credit
from chassis.bus.hops import SentBatches
from chassis.bus.loop import Loop
from chassis.bus.priority import classes_of_batch
from chassis.model.qos import CLASS_COUNT

MAX_BACKLOG_PACKETS = 2048
"""Most packets (count) that wait at a sender. They are joined into larger batches, so that a busy receiver catches
up. If there are more, packets are dropped by class; classes are not computed before."""

MAX_STANDSTILL = 0.05
"""Time (s) without any packet taken after which a connection no longer holds the ports of its process back. So a
far end that hangs, or two that wait for each other, stop nothing."""


class Congestion:
    """The connections of a process whose far ends take less than they are given."""

    __slots__ = ("_progress",)

    def __init__(self) -> None:
        self._progress: dict[object, float] = {}

    def progressed(self, sender: object, now: float) -> None:
        """Something waits at a sender, whose far end took packets at `now`."""
        self._progress[sender] = now

    def relieved(self, sender: object) -> None:
        """Nothing waits at a sender."""
        self._progress.pop(sender, None)

    def holds(self, now: float, port: object = None) -> bool:
        """Return whether a port is to read nothing now. What waits at `port`, its own sender, does not count: the
        far end may be held back by this one."""
        others = [at for sender, at in self._progress.items() if sender is not port]
        return bool(others) and now - max(others) < MAX_STANDSTILL


class Sender:
    """One connection's sending end.

    `on_sent(batch)` is called for each batch that is sent. `on_relief(now)` is called when nothing waits any more.
    `may_send` is called before what waited is sent; if it returns False, the owner drops what waits.
    """

    def __init__(
        self,
        loop: Loop,
        socket: zmq.Socket[bytes],
        hop: SentBatches,
        credit: Credit,
        congestion: Congestion,
        on_sent: Callable[[Batch], None],
        on_relief: Callable[[float], None] = lambda now: None,
        may_send: Callable[[float], bool] = lambda now: True,
        classify: Classify = classes_of_batch,
        most: int = MAX_BACKLOG_PACKETS,
    ) -> None:
        """`most` packets wait here at most."""
        self.credit, self._most = credit, most
        self._loop, self._socket, self._hop, self._congestion = loop, socket, hop, congestion
        self._on_sent, self._on_relief, self._may_send = on_sent, on_relief, may_send
        self._classify = classify
        self._backlog = Backlog(most, classify)
        self._under_way = 0
        """Packets under way when it was last looked."""

    @property
    def waiting(self) -> int:
        """Return the packets (count) that wait."""
        return self._backlog.packets

    def send(self, batch: Batch, now: float) -> Sequence[int]:
        """Send a batch, or keep it. Return what was dropped, of it or of what waited, by class; empty: nothing."""
        if not self._backlog:
            if self._send(batch):
                return ()
            self._under_way = self.credit.under_way
            self._congestion.progressed(self, now)
            self._loop.call_again(self._retry)
        return self._backlog.enqueue(batch)

    def send_together(self, batches: Sequence[Batch], now: float) -> Sequence[int]:
        """Send batches as `send` does, in one message if they are sent at once and are no more than a large
        batch."""
        if not self._backlog and self._send(*batches):
            return ()
        dropped = [0] * CLASS_COUNT
        for batch in batches:
            for number, packets in enumerate(self.send(batch, now)):
                dropped[number] += packets
        return dropped if any(dropped) else ()

    def drop(self) -> int:
        """Drop what waits; return the number of packets."""
        packets = self._backlog.packets
        if packets:
            self._backlog = Backlog(self._most, self._classify)
        self._congestion.relieved(self)
        return packets

    def _send(self, *batches: Batch) -> bool:
        packets = sum([len(batch.lengths) for batch in batches])
        if len(batches) > 1 and packets > MAX_PACKETS:
            return False
        if not self.credit.allows(packets) or not send_batches(self._socket, batches, self._hop):
            return False
        self.credit.count(packets)
        for batch in batches:
            self._on_sent(batch)
        return True

    def _retry(self, now: float) -> bool:
        """Send what waits, as far as the far end takes it; return whether something still waits."""
        if not self._backlog:
            # It was dropped.
            return False
        if not self._may_send(now):
            return False
        under_way = self.credit.under_way
        if under_way < self._under_way:
            self._congestion.progressed(self, now)
        while self._backlog:
            if not self._send(self._backlog.first):
                self._under_way = self.credit.under_way
                return True
            self._backlog.dequeue()
            self._congestion.progressed(self, now)
        self._congestion.relieved(self)
        self._on_relief(now)
        return False
