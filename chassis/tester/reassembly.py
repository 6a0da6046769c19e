"""Putting the fragments of a flow's packets together again (RFC 791 3.2), within bounds of time and room."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from chassis.net.errors import DecodeError
from chassis.net.ipv4 import MAXIMUM_LENGTH, Ipv4

TIMEOUT = 2.0
"""Seconds after its first fragment in which a packet must be whole; identifications come round quickly here."""

MAX_PACKETS = 1024
"""Most packets that wait for fragments; the oldest gives way."""


@dataclass(slots=True)
class _Partial:
    since: float
    first: Ipv4 | None = None
    end: int = -1
    pieces: dict[int, bytes] = field(default_factory=dict)


class Reassembler:
    """Fragments of one port."""

    def __init__(self) -> None:
        self._partial: dict[tuple[int, int, int, int], _Partial] = {}
        self.incomplete = 0
        """Packets given up because a fragment never came."""
        self.malformed = 0
        """Fragments whose own header was wrong."""

    def add(self, fragment: bytes, now: float) -> bytes | None:
        """The whole packet when this fragment completes it, else None."""
        try:
            packet = Ipv4.parse(fragment)
        except DecodeError:
            self.malformed += 1
            return None
        self.expire(now)
        key = (packet.source, packet.destination, packet.protocol, packet.identification)
        partial = self._partial.setdefault(key, _Partial(now))
        partial.pieces[packet.offset] = packet.payload
        if packet.offset == 0:
            partial.first = packet
        if not packet.more_fragments:
            partial.end = packet.offset + len(packet.payload)
        if partial.end < 0 or partial.first is None:
            return None
        payload = bytearray()
        for offset in sorted(partial.pieces):
            if offset != len(payload):
                return None
            payload += partial.pieces[offset]
        header = 20 + len(partial.first.options)
        if len(payload) != partial.end or header + len(payload) > MAXIMUM_LENGTH:
            return None
        del self._partial[key]
        return replace(partial.first, payload=bytes(payload), more_fragments=False).emit()

    def expire(self, now: float) -> None:
        """Give up what waited too long."""
        partial = self._partial
        while partial:
            oldest = next(iter(partial))
            if now - partial[oldest].since < TIMEOUT and len(partial) < MAX_PACKETS:
                return
            del partial[oldest]
            self.incomplete += 1
