"""A poll loop over ZeroMQ sockets and file descriptors, the same for every process.

It is a plain poll, because ZeroMQ with asyncio was measured four to eight times slower. If an iteration begins
much later than its timer, the loop calls `on_stall` before anything else, because a stalled process may have been
replaced meanwhile.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import ceil
from typing import Any

import zmq

from chassis.bus.counters import Counters
from chassis.bus.engine import MAX_POLL_TIMEOUT, STALL_TIMEOUT
from chassis.bus.hops import WAKEUPS
from chassis.bus.poller import Poller
from chassis.bus.scheduling import Contention

MAX_BURST_INTERVAL = 0.01
"""CPU time (s) for which all sources of packets together are read before the loop looks at its timer and at
control messages. It is CPU time so that a process on a crowded machine reads no less, and answers in time."""

RETRY_INTERVAL = 0.001
"""Longest time (s) between two calls of what is to be called again."""

Callback = Callable[[float], None]


class Loop:
    """Runs callbacks of readable sockets and one timer. Turns in which something was ready are counted."""

    def __init__(
        self,
        counters: Counters | None = None,
        contention: Contention | None = None,
        longest_wait: float = MAX_POLL_TIMEOUT,
    ) -> None:
        """`contention` is given by a process that carries packets.

        `longest_wait` (s) is that of one poll. One that is told of stalls must not wait long, because it learns of
        them only when it wakes.
        """
        self._contention = contention
        self._longest_wait = longest_wait
        self._resting: dict[Any, tuple[float, int]] = {}
        """Sources that are not looked at until a time, and the events to look for then."""
        self._values = memoryview(bytearray(8)).cast("Q") if counters is None else counters.values
        self._wakeups = 0 if counters is None else counters.slot(WAKEUPS)
        self._poller = Poller()
        self._callbacks: dict[Any, Callback] = {}
        self._again: list[Callable[[float], bool]] = []
        self._stopped = False
        self._until = 0.0
        self.on_stall: Callable[[float, float], None] = lambda seconds, now: None

    def add(self, source: Any, callback: Callback, flags: int = zmq.POLLIN) -> None:
        """Call `callback` with the time when this socket or descriptor is ready."""
        self._poller.register(source, flags)
        self._callbacks[source] = callback

    def remove(self, source: Any) -> None:
        if self._callbacks.pop(source, None) is not None and self._resting.pop(source, None) is None:
            self._poller.unregister(source)

    @property
    def crowded(self) -> bool:
        """Return whether the process had to wait for a core lately."""
        return self._contention is not None and self._contention.crowded

    def rest(self, source: Any, until: float, flags: int = zmq.POLLIN) -> None:
        """Do not look at a source until a time: what comes meanwhile is read together then."""
        if source in self._callbacks and source not in self._resting:
            self._poller.unregister(source)
            self._resting[source] = until, flags

    def call_again(self, callback: Callable[[float], bool]) -> None:
        """Call `callback` with the time at the end of each turn, and `RETRY_INTERVAL` later at the latest, as long
        as it returns True."""
        self._again.append(callback)

    def stop(self) -> None:
        self._stopped = True

    def may_continue(self) -> bool:
        """Return whether a source may read more in this turn."""
        return time.thread_time() < self._until

    def run(self, next_timer: Callable[[], float], on_timer: Callback) -> None:
        """Run until `stop`: call callbacks of ready sockets, and `on_timer` when `next_timer()` has come.

        A signal ends a wait, so that what its handler stopped stops at once.
        """
        with self._woken_by_signals():
            self._run(next_timer, on_timer)

    @contextmanager
    def _woken_by_signals(self) -> Iterator[None]:
        """Read what Python writes for each signal, if this thread gets them and nobody else does."""
        try:
            if threading.current_thread() is not threading.main_thread():
                raise OSError("signals are for the main thread")
            reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            # No descriptor is left: look often enough.
            self._longest_wait = min(self._longest_wait, MAX_POLL_TIMEOUT)
            yield
            return
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        if before == -1:
            self.add(reading, lambda now: _read_all(reading))
        else:
            signal.set_wakeup_fd(before)
        try:
            yield
        finally:
            if before == -1:
                signal.set_wakeup_fd(-1)
                self.remove(reading)
            os.close(reading)
            os.close(writing)

    def _run(self, next_timer: Callable[[], float], on_timer: Callback) -> None:
        poll, callbacks, monotonic = self._poller.poll, self._callbacks, time.monotonic
        resting, contention = self._resting, self._contention
        # Start of this turn, or time of its last `on_stall`: lateness is counted from there.
        since = monotonic()
        turn = 0
        due = next_timer()
        while not self._stopped:
            wait = min(max(due - since, 0.0), self._longest_wait)
            if self._again:
                wait = min(wait, RETRY_INTERVAL)
            if resting:
                wait = min(wait, max(min(resting.values())[0] - since, 0.0))
            ready = poll(ceil(max(since + wait - monotonic(), 0.0) * 1000))
            now = monotonic()
            stalled = now - since - wait > STALL_TIMEOUT
            if stalled:
                self._tell_of_stall(now - since, now)
            called = stalled or bool(ready or resting or self._again)
            if ready or resting:
                # Sources share a turn's time: each of them is first in its turn.
                self._until = time.thread_time() + MAX_BURST_INTERVAL
            if ready:
                self._values[self._wakeups] += 1
                turn = (turn + 1) % len(ready)
                for source in ready[turn:] + ready[:turn]:
                    callback = callbacks.get(source)
                    if callback is not None:
                        callback(now)
            if resting:
                self._wake_rested(now)
            if self._again:
                again, self._again = self._again, []
                self._again += [callback for callback in again if callback(now)]
            if contention is not None and contention.due <= now and (ready or contention.crowded):
                contention.look(now)
            since, now = now, monotonic()
            if now - since > STALL_TIMEOUT:
                self._tell_of_stall(now - since, now)
                called, since = True, now
            # Run timers that became due while sources were read now, not after another turn: on an overloaded
            # machine a turn may take 100 ms.
            if called or due > now:
                due = next_timer()
            if due <= now:
                on_timer(now)
                due = next_timer()

    def _tell_of_stall(self, seconds: float, now: float) -> None:
        self.on_stall(seconds, now)
        # It may have read what waited.
        self._poller.ask_all()

    def _wake_rested(self, now: float) -> None:
        """Look again at the sources that rested long enough; they most likely have something."""
        for source in [source for source, (until, _) in self._resting.items() if until <= now]:
            rested = self._resting.pop(source, None)
            # The callback of another one may have removed it.
            if rested is not None:
                self._poller.register(source, rested[1])
                self._callbacks[source](now)


def _read_all(fd: int) -> None:
    """Read what waits in a pipe."""
    with suppress(BlockingIOError):
        while os.read(fd, 4096):
            pass
