"""An operator socket in a poll loop: registers the descriptors of the server's clients in the loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zmq

from chassis.bus.loop import Callback, Loop
from chassis.bus.operator import Handler, OperatorServer


class OperatorSocket:
    """Serves `handler` on `path`. Its requests may be answered later."""

    def __init__(self, loop: Loop, path: Path, handler: Handler) -> None:
        self._loop = loop
        self._server = OperatorServer(path, handler)
        self._watched: dict[int, int] = {}
        self._watch()

    def answer(self, number: int, result: Mapping[str, Any], error: str = "", last: bool = True) -> bool:
        """Answer a request. Return False if its client has disconnected."""
        there = self._server.answer(number, result, error, last)
        self._watch()
        return there

    def close(self) -> None:
        for fd in self._watched:
            self._loop.remove(fd)
        self._server.close()

    def _ready(self, fd: int) -> None:
        self._server.ready(fd)
        self._watch()

    def _watch(self) -> None:
        wanted = dict.fromkeys(self._server.filenos(), zmq.POLLIN)
        for fd in self._server.blocked():
            wanted[fd] = zmq.POLLIN | zmq.POLLOUT
        for fd in [fd for fd, flags in self._watched.items() if flags != wanted.get(fd)]:
            self._loop.remove(fd)
            del self._watched[fd]
        for fd, flags in wanted.items():
            if fd not in self._watched:
                self._watched[fd] = flags
                self._loop.add(fd, self._reader(fd), flags)

    def _reader(self, fd: int) -> Callback:
        return lambda now: self._ready(fd)
