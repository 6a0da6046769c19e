"""One-way connections between simulated processes: ordered, delayed and bounded.

A message takes a random time, so messages of two senders may overtake each other, but those of one connection do
not. Messages under way are lost if the receiver dies. If the sender dies, those that arrive before a random moment
still arrive and the others are lost.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Protocol

from chassis.bus.batch import Batch
from chassis.sim.world import MAX_MESSAGE_DELAY, MIN_MESSAGE_DELAY, TYPICAL_MESSAGE_DELAY, Simulation

Waiting = tuple[int, Callable[[Any], None], Any]
"""An item that waits for a stopped process: its rank, the function that handles it, the item."""


class Receiver(Protocol):
    """The interface of the receiving process that a connection uses."""

    @property
    def alive(self) -> bool: ...

    @property
    def stopped(self) -> bool:
        """Items for a stopped process go to its `inbox`."""

    @property
    def inbox(self) -> list[Waiting]: ...


class SimConnection:
    """A connection from one process to one boot of another, which calls `handle` with each item.

    `rank` orders the inbox of a stopped process: lower ranks are handled first. `depth` is the most items that may
    be under way (count); `send` refuses more.
    """

    __slots__ = ("_cut", "_depth", "_handle", "_last", "_rank", "_waiting", "_world", "name", "open", "to")

    def __init__(
        self,
        world: Simulation,
        name: str,
        to: Receiver,
        handle: Callable[[Any], None],
        rank: int,
        depth: int,
    ) -> None:
        self._world = world
        self.name = name
        self.to = to
        self._handle = handle
        self._rank = rank
        self._depth = depth
        self._last = 0.0
        self._cut = inf
        self._waiting = 0
        self.open = True

    def send(self, item: Any) -> bool:
        """Deliver an item after a random delay; False if the queue is full or the connection is cut."""
        if not self.open or self._waiting >= self._depth:
            return False
        world = self._world
        drawn = world.chance()
        when = world.now + (
            MIN_MESSAGE_DELAY + TYPICAL_MESSAGE_DELAY * drawn
            if drawn < 0.98
            else MIN_MESSAGE_DELAY + MAX_MESSAGE_DELAY * 50 * (drawn - 0.98)
        )
        if when < self._last:
            when = self._last
        self._last = when
        self._waiting += 1
        world.at(when, self._arrive, item)
        return True

    def cut(self) -> float:
        """Cut the connection because the sender died; return the time after which no item arrives."""
        world = self._world
        self.open = False
        span = max(self._last - world.now, 0.0)
        self._cut = world.now + span * world.chance()
        return self._cut

    def _arrive(self, item: Any) -> None:
        to = self.to
        if not to.alive or self._world.now > self._cut:
            self._waiting -= 1
            return
        if to.stopped:
            to.inbox.append((self._rank, self._finish, item))
            return
        self._waiting -= 1
        if self._world.trace is not None:
            self._world.log_event(f"{self.name}: {brief(item)}")
        self._handle(item)

    def _finish(self, item: Any) -> None:
        self._waiting -= 1
        if self._world.trace is not None:
            self._world.log_event(f"{self.name}: {brief(item)} (waited)")
        self._handle(item)


def brief(item: Any) -> str:
    """Return a short line about a message or a batch, equal in equal runs."""
    if isinstance(item, Batch):
        return f"{item.step.name} batch of {len(item)} from {item.card or 'the wire'}, epoch {item.epoch}"
    if isinstance(item, tuple) and item and callable(item[0]):
        text = f"{item[0].__name__} {item[1]}"
    else:
        text = repr(item)
    return text if len(text) <= 200 else f"{text[:197]}..."
