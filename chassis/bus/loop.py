"""A poll loop over ZeroMQ sockets and file descriptors, the same for every process.

A plain poll: asyncio's flavour of ZeroMQ was measured four to eight times slower. The loop watches itself: when
an iteration comes much later than asked for, whoever runs in it is told before anything else happens, because
a process that stood still may have been replaced meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import ceil, inf
from typing import Any

import zmq

LATENESS = 0.05
"""Seconds behind schedule from which on the loop counts as having stood still."""

LONGEST_WAIT = 0.1
"""Longest wait of one poll, in seconds, so that standing still is noticed whatever the timers say."""

Callback = Callable[[float], None]


class Loop:
    """Runs callbacks of readable sockets and one timer."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._callbacks: dict[Any, Callback] = {}
        self._stopped = False
        self.on_late: Callable[[float, float], None] = lambda seconds, now: None

    def add(self, source: Any, callback: Callback, flags: int = zmq.POLLIN) -> None:
        """Call back with the time whenever this socket or descriptor is ready."""
        self._poller.register(source, flags)
        self._callbacks[source] = callback

    def remove(self, source: Any) -> None:
        if self._callbacks.pop(source, None) is not None:
            self._poller.unregister(source)

    def stop(self) -> None:
        self._stopped = True

    def run(self, wake: Callable[[], float], on_timer: Callback) -> None:
        """Until `stop`: callbacks as sockets get ready, `on_timer` once `wake()` has come."""
        poll, callbacks, monotonic = self._poller.poll, self._callbacks, time.monotonic
        now = monotonic()
        turn = 0
        while not self._stopped:
            wait = min(max(wake() - now, 0.0), LONGEST_WAIT)
            before = now
            ready = poll(ceil(wait * 1000))
            now = monotonic()
            if now - before - wait > LATENESS:
                self.on_late(now - before, now)
            # Sources of packets share what time there is from `now` on: each is first in its turn.
            turn = (turn + 1) % (len(ready) or 1)
            for source, _ in ready[turn:] + ready[:turn]:
                callback = callbacks.get(source)
                if callback is not None:
                    callback(now)
            if wake() <= now or wake() == -inf:
                on_timer(now)
