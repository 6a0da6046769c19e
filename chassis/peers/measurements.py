"""What became of the peers of one node: how many are up, how fast they came up, and why others did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MAX_CAUSES = 32
"""Causes of failures that are told apart (count); further ones are counted as OTHER."""
OTHER = "other"
NEGOTIATING = "negotiating with "
"""Begin of what IKE reports of a tunnel that did not fail."""


@dataclass(slots=True)
class PeerProgress:
    """One peer. Times are of the engine's clock (s); `began` is when its first message was sent, 0 before that.

    `latency` (s) is the time from there until it was up, the last time that it came up; `reason` why it is down.
    """

    wanted: bool = False
    up: bool = False
    on_the_way: bool = False
    """Whether it began, has not come up yet and has not failed."""
    began: float = 0.0
    latency: float = -1.0
    reason: str = ""


class SetupMeasurements:
    """Set-ups and failures of all peers since `reset`."""

    def __init__(self, count: int) -> None:
        self.peers = [PeerProgress() for _ in range(count)]
        self.up = 0
        self.on_the_way = 0
        """Peers that are on their way up (count)."""
        self.reset()

    def reset(self) -> None:
        """Forget what was measured; the peers stay as they are."""
        self.setups = 0
        """Times that a peer came up."""
        self.lost = 0
        """Times that a peer went down that was to stay up."""
        self.failures: Counter[str] = Counter()
        """Reports of failed attempts by cause; one that repeats at a peer counts once."""
        self._first = self._last = 0.0
        for peer in self.peers:
            peer.latency = -1.0

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
        peer.reason = reason
        if up and not peer.up:
            peer.up = True
            self._arrived(peer)
            peer.latency = now - (peer.began or now)
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
                self.failures[self._cause(reason)] += 1

    def on_wanted(self, number: int, wanted: bool) -> None:
        """A peer is to come up, or to go."""
        peer = self.peers[number - 1]
        self.up -= peer.up and not wanted
        peer.up = peer.up and wanted
        peer.wanted, peer.began, peer.reason = wanted, 0.0, ""
        self.on_the_way += wanted - peer.on_the_way
        peer.on_the_way = wanted

    def _arrived(self, peer: PeerProgress) -> None:
        self.on_the_way -= peer.on_the_way
        peer.on_the_way = False

    def report(self) -> dict[str, Any]:
        """Return the measurements as plain values."""
        down = Counter(self._cause(peer.reason) for peer in self.peers if peer.wanted and not peer.up)
        span = self._last - self._first
        return {
            "peers": len(self.peers),
            "wanted": sum(peer.wanted for peer in self.peers),
            "up": self.up,
            "setups": self.setups,
            "lost": self.lost,
            "seconds": round(max(span, 0.0), 6),
            "setups_per_second": round(self.setups / span, 1) if span > 0 else 0.0,
            "latency": latencies([peer.latency for peer in self.peers if peer.latency >= 0]),
            "down": dict(down),
            "failures": dict(self.failures),
        }

    def _cause(self, reason: str) -> str:
        if reason.startswith(NEGOTIATING) or not reason:
            return "negotiating"
        return reason if reason in self.failures or len(self.failures) < MAX_CAUSES else OTHER


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """Return percentiles of latencies (ms); empty without any."""
    found = sorted(seconds)
    if not found:
        return {}
    last = len(found) - 1
    made = {f"p{part}_ms": found[-(-part * len(found) // 100) - 1] for part in (50, 90, 99)}
    return {name: round(value * 1e3, 3) for name, value in {**made, "max_ms": found[last]}.items()}
