"""What became of the peers of one process: how many are up, how fast they came up, and why others did not.

`counts` are sums, so that those of several processes can be added (`chassis.peers.report`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from chassis.tester.latency import LatencyHistogram

MAX_CAUSES = 32
"""Causes of failures that are told apart (count); further ones are counted as OTHER."""
OTHER = "other"
NEGOTIATING = "negotiating with "
"""Begin of what IKE reports of a tunnel that did not fail."""
UNDER_WAY = "negotiating"
"""The cause of being down of a peer that did not fail."""


@dataclass(slots=True)
class PeerProgress:
    """One peer. `began` is when its first message was sent (s, of the engine's clock), 0 before that.

    `on_the_way`: it was told to come up, and has neither done so nor failed since. `cause`: why it is down.
    """

    wanted: bool = False
    up: bool = False
    on_the_way: bool = False
    began: float = 0.0
    cause: str = UNDER_WAY


class SetupMeasurements:
    """Set-ups and failures of all peers since `reset`."""

    def __init__(self, count: int) -> None:
        self.peers = [PeerProgress() for _ in range(count)]
        self.up = 0
        self.wanted = 0
        """Peers that are up or are to come up (count)."""
        self.on_the_way = 0
        """Peers that are on their way up (count)."""
        self._down: Counter[str] = Counter()
        """Peers that are to be up and are not, by cause."""
        self.reset()

    def reset(self) -> None:
        """Forget what was measured; the peers stay as they are."""
        self.setups = 0
        """Times that a peer came up."""
        self.left = 0
        """Times that a peer went because it was to go."""
        self.lost = 0
        """Times that a peer went down that was to stay up."""
        self.failures: Counter[str] = Counter()
        """Reports of failed attempts by cause; one that repeats at a peer counts once."""
        self.latency = LatencyHistogram()
        """Times from a peer's first message until it was up."""
        self._first = self._last = 0.0

    def on_sent(self, number: int, now: float) -> None:
        """A peer sent a message."""
        peer = self.peers[number - 1]
        if peer.wanted and not peer.up and not peer.began:
            peer.began = now
            self._first = self._first or now

    def on_state(self, number: int, up: bool, reason: str, now: float) -> None:
        """IKE reported the state of a peer's tunnel."""
        peer = self.peers[number - 1]
        if not peer.wanted:
            return
        self._count_down(peer, -1)
        peer.cause = self._cause(reason)
        if up and not peer.up:
            peer.up = True
            self._arrived(peer)
            self.latency.add(round((now - (peer.began or now)) * 1e9), 1)
            peer.began = 0.0
            self.up += 1
            self.setups += 1
            self._last = now
        elif not up:
            if peer.up:
                peer.up = False
                self.up -= 1
                self.lost += 1
            if reason and not reason.startswith(NEGOTIATING):
                self._arrived(peer)
                self.failures[peer.cause] += 1
        self._count_down(peer, 1)

    def on_wanted(self, number: int, wanted: bool) -> None:
        """A peer is to come up, or to go."""
        peer = self.peers[number - 1]
        self._count_down(peer, -1)
        self.up -= peer.up and not wanted
        self.left += peer.up and not wanted
        self.wanted += wanted - peer.wanted
        peer.up = peer.up and wanted
        peer.wanted, peer.began, peer.cause = wanted, 0.0, UNDER_WAY
        self.on_the_way += wanted - peer.on_the_way
        peer.on_the_way = wanted
        self._count_down(peer, 1)

    def _count_down(self, peer: PeerProgress, step: int) -> None:
        if peer.wanted and not peer.up:
            self._down[peer.cause] += step
            if not self._down[peer.cause]:
                del self._down[peer.cause]

    def _arrived(self, peer: PeerProgress) -> None:
        self.on_the_way -= peer.on_the_way
        peer.on_the_way = False

    def counts(self) -> dict[str, Any]:
        """Return the measurements as plain values. `first` and `last` are of the first message and the last
        set-up, 0 without one."""
        return {
            "peers": len(self.peers),
            "wanted": self.wanted,
            "up": self.up,
            "setups": self.setups,
            "left": self.left,
            "lost": self.lost,
            "first": self._first,
            "last": self._last,
            "latency": self.latency.plain(),
            "down": dict(self._down),
            "failures": dict(self.failures),
        }

    def _cause(self, reason: str) -> str:
        if reason.startswith(NEGOTIATING) or not reason:
            return UNDER_WAY
        return reason if reason in self.failures or len(self.failures) < MAX_CAUSES else OTHER
