"""The exchanges under an ISAKMP SA (RFC 2409 5.5, 5.7), and the message IDs that they have used up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable
from math import inf
from typing import Final

from chassis.ase.ike.errors import FailureReason

MAX_MESSAGE_IDS: Final = 384
"""Used message IDs of informational exchanges that are remembered (count). An older message may be replayed: dead
peer detection has numbers of its own, and what a Delete names is gone."""
MAX_QUICK_MODE_IDS: Final = 128
"""The same of quick modes, which are far fewer, and of which each one costs an answer."""
MAX_EXCHANGES: Final = 256
"""Exchanges that are remembered, finished ones included (count)."""


class Exchange(ABC):
    """An exchange under an ISAKMP SA that waits for messages of the peer, with its own message ID (RFC 2409 5)."""

    __slots__ = ()

    message_id: int
    remove_at: float
    """When a finished exchange is forgotten; infinity before."""

    @property
    @abstractmethod
    def pending(self) -> bool:
        """Whether it waits for a message of the peer."""

    @property
    @abstractmethod
    def due(self) -> float:
        """When its next timer expires."""

    @abstractmethod
    def abort(self, failure: FailureReason | None, now: float) -> None:
        """End it without a result, and report `failure`; None reports nothing."""


class UsedMessageIds:
    """Message IDs that must not be used again, in four octets each: those of quick modes, and all others."""

    __slots__ = ("evicted", "others", "quick", "quick_evicted")

    def __init__(self) -> None:
        self.quick, self.others = array("I"), array("I")
        """Oldest first."""
        self.evicted = self.quick_evicted = False
        """There were more: not every used one, or not each of a quick mode, is remembered."""

    @property
    def values(self) -> tuple[bytes, bytes, bool, bool]:
        """All of it, for `restore`."""
        return self.quick.tobytes(), self.others.tobytes(), self.evicted, self.quick_evicted

    def restore(self, values: tuple[bytes, bytes, bool, bool]) -> None:
        """Take what another one gave."""
        quick, others, self.evicted, self.quick_evicted = values
        self.quick, self.others = array("I", quick), array("I", others)

    def __contains__(self, message_id: int) -> bool:
        return message_id in self.others or message_id in self.quick

    def new(self, random: Callable[[int], bytes], *, quick: bool = False) -> int:
        """Return a random message ID that was not used before, and remember it."""
        while True:
            found = int.from_bytes(random(4), "big")
            if found and found not in self:
                self.add(found, quick=quick)
                return found

    def add(self, message_id: int, *, quick: bool) -> None:
        """Remember one; the oldest of many is evicted. `quick`: it is that of a quick mode."""
        if message_id in self:
            return
        ids, most = (self.quick, MAX_QUICK_MODE_IDS) if quick else (self.others, MAX_MESSAGE_IDS)
        ids.append(message_id)
        if len(ids) > most:
            self.evicted = True
            self.quick_evicted = self.quick_evicted or quick
            del ids[0]


class Exchanges:
    """The exchanges of one ISAKMP SA, by message ID: pending ones, and finished ones until they are forgotten."""

    __slots__ = ("_all", "_live", "_remove_at")

    def __init__(self) -> None:
        self._all: dict[int, Exchange] = {}
        self._live: list[Exchange] = []
        """Pending ones, and some that have just finished; finished ones are many more."""
        self._remove_at = inf
        """When the first of the finished ones is forgotten."""

    def __len__(self) -> int:
        return len(self._all)

    @property
    def pending(self) -> list[Exchange]:
        """Those that wait for the peer, oldest first."""
        live = [one for one in self._live if one.pending]
        if len(live) < len(self._live):
            self._remove_at = min(self._remove_at, *[one.remove_at for one in self._live if not one.pending])
            self._live = live
        return list(live)

    def get(self, message_id: int) -> Exchange | None:
        """Return the exchange with this message ID, also a finished one."""
        return self._all.get(message_id)

    def add(self, one: Exchange) -> None:
        """Keep an exchange; above MAX_EXCHANGES the oldest finished one is forgotten."""
        self._all[one.message_id] = one
        self._live.append(one)
        if len(self._all) > MAX_EXCHANGES:
            done = next((key for key, old in self._all.items() if not old.pending), None)
            if done is not None:
                del self._all[done]

    @property
    def finished(self) -> list[Exchange]:
        """Those that are kept to answer messages that come again."""
        return [one for one in self._all.values() if not one.pending]

    def add_finished(self, one: Exchange) -> None:
        """Keep an exchange that is finished."""
        self._all[one.message_id] = one
        self._remove_at = min(self._remove_at, one.remove_at)

    def abort_all(self, now: float) -> None:
        """Abort the pending ones without a report, and forget all."""
        for one in self.pending:
            one.abort(None, now)
        self._all.clear()
        self._live.clear()
        self._remove_at = inf

    def next_timer(self) -> float:
        """Return when an exchange retransmits, or is forgotten."""
        live = min([one.due for one in self.pending], default=inf)
        return min(live, self._remove_at)

    def remove_finished(self, now: float) -> None:
        """Forget the finished ones whose time is over."""
        if self._remove_at <= now:
            ended = [one for one in self._all.values() if not one.pending]
            for one in ended:
                if one.remove_at <= now:
                    del self._all[one.message_id]
            self._remove_at = min([one.remove_at for one in ended if one.remove_at > now], default=inf)
