"""When an instance of an on-demand tunnel is over (guide 9.3): its last IKE SA and its last CHILD SA are gone.

The controller made the instance, and deletes it when it hears that. An instance never initiates, so one without a
CHILD SA has IDLE_TIMEOUTS times the half-open timeout for the peer to make one; then its IKE SAs are deleted.
"""

from __future__ import annotations

from math import inf
from typing import Final

from chassis.ase.ike.ike_sa_manager import IkeSaManager
from chassis.bus.messages import PeerDropped

IDLE_TIMEOUTS: Final = 2
"""Half-open timeouts (count) for which an instance may be without a CHILD SA."""


class InstanceWatch:
    """Which instances have no CHILD SA, and since when; which ones the controller was told of."""

    def __init__(self, manager: IkeSaManager) -> None:
        self._manager = manager
        self._idle: dict[int, float] = {}
        """When each instance without a CHILD SA is over (s), by tunnel, in order: all have the same time."""
        self._silent: set[int] = set()
        """Instances of which nothing is to be told: it was told, they are being deleted, or a peer was just
        admitted, whose IKE SA is not established yet."""

    def on_admitted(self, tunnel: int) -> None:
        """The controller gave an instance to a peer, whose IKE SA will be established next."""
        self._silent.add(tunnel)

    def on_established(self, tunnel: int, now: float, *, busy: bool) -> None:
        """An instance has an IKE SA; `busy`: and CHILD SAs of an earlier one."""
        self._silent.discard(tunnel)
        if not busy:
            self.on_idle(tunnel, now)

    def on_idle(self, tunnel: int, now: float) -> None:
        """Call it when an instance has no CHILD SA; the time runs from the first call."""
        self._idle.setdefault(tunnel, now + IDLE_TIMEOUTS * self._manager.settings.half_open_timeout)

    def on_busy(self, tunnel: int) -> None:
        """An instance has a CHILD SA."""
        self._idle.pop(tunnel, None)

    def on_gone(self, tunnel: int, reason: str, now: float) -> None:
        """Tell the controller, once, that an instance has neither an IKE SA nor a CHILD SA."""
        if tunnel in self._silent:
            return
        self._silent.add(tunnel)
        self._idle.pop(tunnel, None)
        self.on_idle(tunnel, now)
        self._manager.output(PeerDropped(0, tunnel, reason))

    def on_deleting(self, tunnel: int) -> None:
        """The controller deletes an instance, which it need not be told."""
        self._silent.add(tunnel)

    def on_deleted(self, tunnel: int) -> None:
        """Forget an instance."""
        self._silent.discard(tunnel)
        self._idle.pop(tunnel, None)

    def pop_due(self, now: float) -> int | None:
        """Return an instance that was without a CHILD SA for too long; None if there is none. One that the
        controller was told of is told again: it may have been away."""
        due = next(iter(self._idle), None)
        if due is None or self._idle[due] > now:
            return None
        del self._idle[due]
        self._silent.discard(due)
        return due

    def next_timer(self) -> float:
        return next(iter(self._idle.values()), inf)
