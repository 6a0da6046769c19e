"""Work of the controller's shell that takes long, such as making a key pair: in a thread, one job after another.

The event loop goes on meanwhile. Output: the result of each job, in order, in the loop.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from threading import Thread
from typing import Generic, TypeVar

from chassis.bus.loop import Loop

Result = TypeVar("Result")


class Background(Generic[Result]):
    """A thread that exists while there is work, and an event descriptor that wakes the loop."""

    def __init__(self, loop: Loop, on_done: Callable[[int, Result], None]) -> None:
        """`on_done(number, result)` is called in the loop."""
        self._loop, self._on_done = loop, on_done
        self._waiting: deque[tuple[int, Callable[[], Result]]] = deque()
        self._done: deque[tuple[int, Result]] = deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread: Thread | None = None
        loop.add(self._event, self._collect)

    def do(self, number: int, job: Callable[[], Result]) -> None:
        """Do a job after those before it. It must not raise, nor touch what the loop uses."""
        self._waiting.append((number, job))
        self._start()

    def _start(self) -> None:
        if self._thread is None and self._waiting:
            number, job = self._waiting.popleft()
            self._thread = Thread(target=self._run, args=(number, job), daemon=True)
            self._thread.start()

    def _run(self, number: int, job: Callable[[], Result]) -> None:
        self._done.append((number, job()))
        os.eventfd_write(self._event, 1)

    def _collect(self, now: float) -> None:
        os.eventfd_read(self._event)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._start()
        while self._done:
            self._on_done(*self._done.popleft())
