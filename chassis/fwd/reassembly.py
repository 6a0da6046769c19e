"""Reassembly of fragments (RFC 791 3.2, RFC 1122 3.3.2), limited in time and memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf

from chassis.net.ethernet import MAX_BATCHED_IPV4_LENGTH
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, MAX_IPV4_LENGTH, Ipv4

REASSEMBLY_TIMEOUT = 60.0
"""Time (s) after its first fragment in which a packet must be complete (RFC 1122 3.3.2)."""

MAX_REASSEMBLIES = 64
"""Packets (count) that wait for fragments, at most; the oldest is dropped for a new one."""

MAX_FRAGMENTS_PER_PACKET = 256
"""Fragments (count) of one packet, at most: the largest packet over the smallest MTU that occurs has fewer."""

_ECN = 3
_CE = 3

Key = tuple[int, int, int, int, int]


@dataclass(slots=True)
class _Partial:
    since: float
    first: Ipv4 | None = None
    end: int = -1
    held: int = 0
    octets: int = 0
    marks: int = 0
    spoilt: bool = False
    pieces: dict[int, bytes] = field(default_factory=dict)


class Reassembler:
    """Fragments of all contexts. `waiting` counts those that are held, `lost` those that were dropped."""

    def __init__(self, timeout: float = REASSEMBLY_TIMEOUT, most_packets: int = MAX_REASSEMBLIES) -> None:
        self._timeout, self._most_packets = timeout, most_packets
        self.waiting = 0
        self.lost = 0
        self._partial: dict[Key, _Partial] = {}

    def add(self, context: int, fragment: Ipv4, now: float) -> tuple[Ipv4, int] | None:
        """Add a fragment; return the packet and the number of its fragments if it is complete now, else None.

        Fragments that contradict each other (an overlap, two ends) spoil their packet: it is dropped as soon as it
        would be complete, its fragments are more than a packet can hold, or its time is over. The packet is marked
        CE if one of its fragments is; CE beside a fragment that is not ECN-capable spoils it (RFC 3168 5.3).
        """
        self.on_timer(now)
        key = (context, fragment.source, fragment.destination, fragment.protocol, fragment.identification)
        partial = self._partial.get(key)
        if partial is None:
            if len(self._partial) >= self._most_packets:
                self._drop(next(iter(self._partial)))
            partial = self._partial[key] = _Partial(now)
        self._hold(partial, fragment)
        if partial.held > MAX_FRAGMENTS_PER_PACKET or partial.octets > MAX_IPV4_LENGTH:
            self._drop(key)
            return None
        if partial.first is None or partial.end < 0:
            return None
        payload = bytearray()
        for offset in sorted(partial.pieces):
            if offset > len(payload):
                return None
            if offset < len(payload):
                partial.spoilt = True
                break
            payload += partial.pieces[offset]
        whole = IPV4_HEADER_LENGTH + len(partial.first.options) + len(payload)
        first, marks = partial.first, partial.marks
        if marks & 1 << _CE:
            partial.spoilt |= marks & 1 != 0
            first = replace(first, tos=first.tos | _CE)
        if partial.spoilt or len(payload) > partial.end or whole > MAX_BATCHED_IPV4_LENGTH:
            self._drop(key)
            return None
        if len(payload) < partial.end:
            return None
        del self._partial[key]
        self.waiting -= partial.held
        return replace(first, payload=bytes(payload), more_fragments=False), partial.held

    def on_timer(self, now: float) -> None:
        """Drop what waited too long. Packets wait in the order of their first fragments."""
        partial = self._partial
        while partial:
            oldest = next(iter(partial))
            if partial[oldest].since + self._timeout > now:
                return
            self._drop(oldest)

    def next_timer(self) -> float:
        for partial in self._partial.values():
            return partial.since + self._timeout
        return inf

    def _hold(self, partial: _Partial, fragment: Ipv4) -> None:
        partial.held += 1
        partial.marks |= 1 << (fragment.tos & _ECN)
        self.waiting += 1
        known = partial.pieces.get(fragment.offset)
        if known is not None and known != fragment.payload:
            partial.spoilt = True
        partial.octets += len(fragment.payload) - len(known or b"")
        partial.pieces[fragment.offset] = fragment.payload
        if fragment.offset == 0:
            partial.first = fragment
        if not fragment.more_fragments:
            end = fragment.offset + len(fragment.payload)
            partial.spoilt |= partial.end >= 0 and partial.end != end
            partial.end = end

    def _drop(self, key: Key) -> None:
        held = self._partial.pop(key).held
        self.waiting -= held
        self.lost += held
