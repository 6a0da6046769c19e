"""Waits until ZeroMQ sockets or descriptors are ready, with one system call whatever their number.

A ZeroMQ socket has a descriptor that is readable when other threads have something for the socket. That does not
mean that the socket is ready: what it is ready for it says itself (`ZMQ_EVENTS`). The first call of the socket, of
whatever kind, takes notice of what the threads have, and the descriptor is no longer readable, even if a message
waits (`ZMQ_FD` in zmq_getsockopt(3)). So a socket is asked when its descriptor is readable, and before a wait if
it may have been used since it last said that it has nothing. `zmq.Poller` asks every socket before and after every
wait.
"""

from __future__ import annotations

import select
from typing import Any

import zmq
from zmq.backend import Socket as BackendSocket

_get_option = BackendSocket.get
"""Of `zmq.Socket`, without the layer above."""
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)

_RECEIVE_ONLY = frozenset({int(zmq.PULL), int(zmq.SUB), int(zmq.PAIR)})
"""Kinds of sockets that are used only when they are ready; a pair is the receiving end of a monitor. Others may be
sent on at any time."""


class Poller:
    """ZeroMQ sockets and descriptors, with the events that are waited for.

    Call `ask_all` after a socket that only receives was read without being ready.
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self._sources: dict[int, tuple[Any, int]] = {}
        """Sources by descriptor, with the events to ask a socket for: 0 for a descriptor."""
        self._descriptors: dict[Any, int] = {}
        """Descriptor of each source."""
        self._unsure: dict[Any, int] = {}
        """Sockets to ask before the next wait, with the events."""
        self._sent_on: dict[Any, int] = {}
        """Sockets to ask before every wait, with the events."""

    def register(self, source: Any, flags: int = _POLLIN) -> None:
        """Look for these events (`zmq.POLLIN`, `zmq.POLLOUT`) of a socket or descriptor from now on."""
        if isinstance(source, int):
            fd = source
            self._sources[fd] = source, 0
            wanted = select.POLLIN if flags & zmq.POLLIN else 0
            self._poll.register(fd, wanted | select.POLLOUT if flags & zmq.POLLOUT else wanted)
        else:
            fd, flags = int(_get_option(source, zmq.FD)), int(flags)
            self._sources[fd] = source, flags
            one_way = int(_get_option(source, zmq.TYPE)) in _RECEIVE_ONLY
            (self._unsure if one_way else self._sent_on)[source] = flags
            self._poll.register(fd, select.POLLIN)
        self._descriptors[source] = fd

    def unregister(self, source: Any) -> None:
        """Look at a source no more.

        Raises:
            KeyError: it is not registered.
        """
        fd = self._descriptors.pop(source)
        self._unsure.pop(source, None)
        self._sent_on.pop(source, None)
        del self._sources[fd]
        self._poll.unregister(fd)

    def ask_all(self) -> None:
        """Ask all sockets before the next wait: they may have been used."""
        self._unsure.update(
            {source: flags for source, flags in self._sources.values() if flags and source not in self._sent_on}
        )

    def poll(self, timeout: int) -> list[Any]:
        """Return the sources that are ready; wait for the first one, for `timeout` ms at most."""
        unsure, sent_on = self._unsure, self._sent_on
        ready = [source for source, flags in sent_on.items() if int(_get_option(source, _EVENTS)) & flags]
        if unsure:
            for source, flags in list(unsure.items()):
                if int(_get_option(source, _EVENTS)) & flags:
                    ready.append(source)
                else:
                    del unsure[source]
        asked = ready[:]
        for fd, _ in self._poll.poll(0 if ready else timeout):
            source, flags = self._sources[fd]
            if not flags:
                ready.append(source)
            elif source not in asked and int(_get_option(source, _EVENTS)) & flags:
                ready.append(source)
                if source not in sent_on:
                    unsure[source] = flags
        return ready
