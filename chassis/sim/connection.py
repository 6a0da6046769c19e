"""One-way connections between simulated processes: in order each, late, bounded, and gone with either end.

What a bus does to messages is all here. Each takes its own time, so that messages of two senders overtake each
other, but never those of one connection. What has not arrived when its receiver dies is gone. When the sender
dies, what had already left it still arrives and the rest does not: the cut lies somewhere in what is under way.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from chassis.bus.batch import Batch
from chassis.sim.world import FASTEST, SLOWEST, USUAL, Simulation

if TYPE_CHECKING:
    from chassis.sim.process import Process


class SimConnection:
    """From one process to one start of another. `handle` is called at the far end with each item.

    `rank` says what a process that stood still takes first when it goes on (lower ones first); `depth` is how
    many items may wait before `send` refuses.
    """

    __slots__ = ("_cut", "_depth", "_handle", "_last", "_rank", "_waiting", "_world", "name", "open", "to")

    def __init__(
        self,
        world: Simulation,
        name: str,
        to: Process,
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
        """Take an item to the far end some time later; False when the queue is full or nobody is there."""
        if not self.open or self._waiting >= self._depth:
            return False
        world = self._world
        drawn = world.chance()
        when = world.now + (FASTEST + USUAL * drawn if drawn < 0.98 else FASTEST + SLOWEST * 50 * (drawn - 0.98))
        if when < self._last:
            when = self._last
        self._last = when
        self._waiting += 1
        world.at(when, self._arrive, item)
        return True

    def cut(self) -> float:
        """The sender died: what arrives after a moment drawn here is lost. Returns that moment."""
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
            self._world.note(f"{self.name}: {brief(item)}")
        self._handle(item)

    def _finish(self, item: Any) -> None:
        self._waiting -= 1
        if self._world.trace is not None:
            self._world.note(f"{self.name}: {brief(item)} (waited)")
        self._handle(item)


def brief(item: Any) -> str:
    """One short line about a message or a batch, the same in every run of it."""
    if isinstance(item, Batch):
        return f"{item.step.name} batch of {len(item)} from {item.card or 'the wire'}, epoch {item.epoch}"
    if isinstance(item, tuple) and item and callable(item[0]):
        text = f"{item[0].__name__} {item[1]}"
    else:
        text = repr(item)
    return text if len(text) <= 200 else f"{text[:197]}..."
