"""Putting fragments together again (RFC 791 3.2, RFC 1122 3.3.2), within bounds of time and room."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf

from chassis.net.ethernet import MAX_BATCHED_IPV4_LENGTH
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, MAX_IPV4_LENGTH, Ipv4

REASSEMBLY_TIMEOUT = 60.0
"""Seconds after its first fragment in which a packet must be whole."""

MAX_REASSEMBLIES = 64
"""Most packets that wait for fragments; the oldest gives way to a new one."""

MAX_FRAGMENTS_PER_PACKET = 256
"""Most fragments of one packet: a largest packet over the smallest MTU that occurs needs fewer."""

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
    """Fragments of all contexts. `waiting` counts those held, `lost` those given up."""

    def __init__(self, timeout: float = REASSEMBLY_TIMEOUT, most_packets: int = MAX_REASSEMBLIES) -> None:
        self._timeout, self._most_packets = timeout, most_packets
        self.waiting = 0
        self.lost = 0
        self._partial: dict[Key, _Partial] = {}

    def add(self, context: int, fragment: Ipv4, now: float) -> tuple[Ipv4, int] | None:
        """The whole packet and the number of its fragments, when this one completes it; else None.

        Fragments that contradict each other (an overlap, two ends) spoil their packet: it is given up as soon as
        it would be complete, they are more than a packet can hold, or its time is over. Congestion that one of
        them met is told of the whole; a packet that says it is not for such marks, and has one, is spoilt too
        (RFC 3168 5.3).
        """
        self.on_timer(now)
        key = (context, fragment.source, fragment.destination, fragment.protocol, fragment.identification)
        partial = self._partial.get(key)
        if partial is None:
            if len(self._partial) >= self._most_packets:
                self._give_up(next(iter(self._partial)))
            partial = self._partial[key] = _Partial(now)
        self._hold(partial, fragment)
        if partial.held > MAX_FRAGMENTS_PER_PACKET or partial.octets > MAX_IPV4_LENGTH:
            self._give_up(key)
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
            self._give_up(key)
            return None
        if len(payload) < partial.end:
            return None
        del self._partial[key]
        self.waiting -= partial.held
        return replace(first, payload=bytes(payload), more_fragments=False), partial.held

    def on_timer(self, now: float) -> None:
        """Give up what waited too long. Packets wait in the order in which they began."""
        partial = self._partial
        while partial:
            oldest = next(iter(partial))
            if partial[oldest].since + self._timeout > now:
                return
            self._give_up(oldest)

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

    def _give_up(self, key: Key) -> None:
        held = self._partial.pop(key).held
        self.waiting -= held
        self.lost += held
