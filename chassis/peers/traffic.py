"""A data engine for a sample of the peers of a node: echo requests through their tunnels, and the account of them.

The sample is the first peers of the node. Their SAs are installed in a security association database of an ASP,
and their packets are encapsulated and decapsulated as an ASP does it. Each answer is matched to its request; a
request without an answer in `ANSWER_TIME` is lost, on one of both ways. The peers answer echo requests, too.
"""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from math import inf
from typing import Any, Final, cast

from chassis.ase.ike_messages import (
    FromIke,
    IkeTunnelState,
    SaMessage,
    ToIke,
)
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.state import SaStateFile, octets_for
from chassis.ase.negotiated_sas import NegotiatedSas
from chassis.ase.tunnels import AspTunnel, TunnelTable
from chassis.bus import engine
from chassis.bus.engine import Output
from chassis.bus.messages import Attributes
from chassis.bus.records import Record
from chassis.bus.replication import RecordChange
from chassis.net import icmp
from chassis.net.errors import DecodeError
from chassis.net.ethernet import HEADROOM
from chassis.net.icmp import ICMP_HEADER_LENGTH, Icmp
from chassis.net.ipv4 import IPV4_HEADER_LENGTH, PROTOCOL_ICMP, Ipv4
from chassis.peers.spec import OUTER, PeersSpec, TrafficSpec
from chassis.tester.latency import LatencyHistogram

ANSWER_TIME: Final = 2.0
"""Time (s) that an answer may take. One that takes longer is late, and its request stays lost."""

TICK: Final = 0.005
"""Least time (s) between two times at which peers send: those that are due then send together."""

MAX_BEHIND: Final = 1.0
"""Time (s) that a sender may be behind its rate; after a longer stall the rest is not sent."""


@dataclass(slots=True)
class _Stream:
    """Requests of one peer: the next sequence number, and when each without an answer was sent."""

    number: int
    sequence: int = 0
    waiting: OrderedDict[int, float] = field(default_factory=OrderedDict)


class SampleTraffic:
    """The packets of the sample. Calls return the outer packets to send, and messages for IKE."""

    def __init__(self, spec: PeersSpec, traffic: TrafficSpec, card: str, random: Callable[[int], bytes]) -> None:
        """`card` is the name that the records of the peers have for where their tunnels end."""
        self._spec, self._traffic, self._random = spec, traffic, random
        state = SaStateFile(memoryview(bytearray(octets_for(1))), 0, tuple)
        self._sadb = Sadb(state)
        self._tunnels = TunnelTable(card, self._sadb)
        self._sas = NegotiatedSas(self._sadb, self._tunnels)
        self._streams = {number: _Stream(number) for number in range(1, traffic.peers + 1)}
        self._due: list[tuple[float, int]] = []
        """When each sending peer sends next; a heap."""
        self._ticked = -inf
        self._scheduled: set[int] = set()
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        self.sent = self.received = self.lost = self.late = self.answered = 0
        self.drops: Counter[str] = Counter()
        """Outer packets that came and were dropped, and inner ones that could not be sent, by cause."""
        self._round_trips = LatencyHistogram()
        for stream in self._streams.values():
            stream.waiting.clear()

    def has(self, number: int) -> bool:
        """Return whether a peer is of the sample."""
        return number in self._streams

    # from the engine

    def apply_settings(self, settings: Attributes) -> None:
        self._sas.apply_settings(settings)

    def begin(self, number: int) -> None:
        """A peer of the sample begins: its tunnel exists from now on."""
        if self.has(number):
            self._apply(self._spec.records(number), ())

    def end(self, number: int) -> None:
        """A peer of the sample goes: what it waits for does not count."""
        if self.has(number):
            stream = self._streams[number]
            self.sent -= len(stream.waiting)
            stream.waiting.clear()
            self._apply((), self._spec.records(number))

    def _apply(self, put: tuple[Record, ...], deleted: tuple[Record, ...]) -> None:
        change = RecordChange(put, deleted)
        self._tunnels.apply(change)
        self._sas.apply_records(change)
        while self._tunnels.pending:
            self._tunnels.install_pending()

    def from_ike(self, message: FromIke, now: float) -> list[ToIke]:
        """Handle what IKE says of the SAs of a peer; return the answers."""
        if not isinstance(message, SaMessage):
            return []
        outputs = self._sas.receive(message)
        if isinstance(message, IkeTunnelState) and message.up and self.has(message.tunnel):
            self._schedule(message.tunnel, now)
        return _to_ike(outputs)

    def receive(self, body: bytes, lengths: array[int], now: float) -> tuple[list[bytes], list[ToIke]]:
        """Decapsulate packets, count the answers in them; return outer packets to send, and messages for IKE."""
        result = self._sadb.decapsulate_batch(body, lengths, OUTER)
        for cause, count in result.drops.counts.items():
            self.drops[str(cause)] += count
        packets: list[bytes] = []
        outputs = self._sas.on_inbound_traffic(result.negotiated, result.peers) if result.negotiated else []
        for group in result.groups:
            offset = HEADROOM
            for length in group.lengths:
                answer = self._on_inner(group.tunnel, bytes(group.body[offset : offset + length - HEADROOM]), now)
                offset += length
                if answer is not None:
                    self.answered += 1
                    sent, more = self._send(group.tunnel, [answer])
                    packets += sent
                    outputs += more
        return packets, _to_ike(outputs)

    def on_timer(self, now: float) -> tuple[list[bytes], list[ToIke]]:
        """Send the requests that are due; return outer packets, and messages for IKE."""
        outputs = self._sas.on_timer(now) if self._sas.next_timer() <= now else []
        packets: list[bytes] = []
        if now < self._ticked + TICK:
            return packets, _to_ike(outputs)
        self._ticked = now
        while self._due and self._due[0][0] <= now:
            at, number = self._due[0]
            stream = self._streams[number]
            self._expire(stream, now)
            if not self._is_up(number):
                # It is scheduled again when IKE reports it up.
                heappop(self._due)
                self._scheduled.discard(number)
                continue
            count = 0
            at = max(at, now - MAX_BEHIND)
            while at <= now:
                count += 1
                at += 1.0 / self._traffic.rate
            heapreplace(self._due, (at, number))
            sent, more = self._send(number, [self._request(stream, now) for _ in range(count)])
            packets += sent
            outputs += more
        return packets, _to_ike(outputs)

    def next_timer(self) -> float:
        due = max(self._due[0][0], self._ticked + TICK) if self._due else inf
        return min(due, self._sas.next_timer())

    def counts(self, now: float) -> dict[str, Any]:
        """Return what was sent and received: `sent` and `lost` without those that wait for an answer."""
        for stream in self._streams.values():
            self._expire(stream, now)
        waiting = sum(len(stream.waiting) for stream in self._streams.values())
        return {
            "peers": len(self._streams),
            "sending": len(self._due),
            "sent": self.sent - waiting,
            "received": self.received,
            "lost": self.lost,
            "late": self.late,
            "answered": self.answered,
            "waiting": waiting,
            "drops": dict(self.drops),
            "round_trip": self._round_trips.plain(),
        }

    # inside

    def _schedule(self, number: int, now: float) -> None:
        if number not in self._scheduled:
            self._scheduled.add(number)
            # Spread the peers over one interval.
            share = number / len(self._streams)
            heappush(self._due, (now + share / self._traffic.rate, number))

    def _is_up(self, number: int) -> bool:
        state: AspTunnel | None = self._tunnels.local.get(number)
        return state is not None and bool(state.pairs) and state.ike is not None and state.ike.up

    def _expire(self, stream: _Stream, now: float) -> None:
        waiting = stream.waiting
        while waiting:
            sequence, at = next(iter(waiting.items()))
            if now - at < ANSWER_TIME:
                return
            del waiting[sequence]
            self.lost += 1

    def _request(self, stream: _Stream, now: float) -> bytes:
        stream.sequence += 1
        stream.waiting[stream.sequence] = now
        self.sent += 1
        room = self._traffic.size - IPV4_HEADER_LENGTH - ICMP_HEADER_LENGTH
        payload = stream.sequence.to_bytes(8, "big").ljust(room, b"\xa5")
        request = Icmp(icmp.ECHO_REQUEST, 0, (stream.number & 0xFFFF) << 16 | stream.sequence & 0xFFFF, payload)
        source = self._spec.inner_address(stream.number)
        return Ipv4(source, self._traffic.to, PROTOCOL_ICMP, request.emit()).emit()

    def _send(self, number: int, inner: Iterable[bytes]) -> tuple[list[bytes], list[Output]]:
        body, lengths = bytearray(), array("H")
        for packet in inner:
            body += bytes(HEADROOM) + packet
            lengths.append(HEADROOM + len(packet))
        result = self._sadb.encapsulate_tunnel(number, body, lengths, self._random)
        for cause, count in result.drops.counts.items():
            self.drops[str(cause)] += count
        outputs = [output for notice in result.notices for output in self._sas.on_sa_notice(notice)]
        packets, offset = [], 0
        for length in result.lengths:
            packets.append(bytes(result.body[offset + HEADROOM : offset + length]))
            offset += length
        return packets, outputs

    def _on_inner(self, number: int, packet: bytes, now: float) -> bytes | None:
        """Count an answer; return the answer to a request."""
        try:
            found = Ipv4.parse(packet)
            message = Icmp.parse(found.payload) if found.protocol == PROTOCOL_ICMP else None
        except DecodeError:
            message = None
        stream = self._streams.get(number)
        if message is None or stream is None or found.destination != self._spec.inner_address(number):
            self.drops["unexpected inner packet"] += 1
            return None
        if message.type == icmp.ECHO_REQUEST:
            reply = icmp.echo_reply(message).emit()
            return Ipv4(found.destination, found.source, PROTOCOL_ICMP, reply, tos=found.tos).emit()
        sequence = int.from_bytes(message.payload[:8], "big")
        if message.type != icmp.ECHO_REPLY or found.source != self._traffic.to or sequence > stream.sequence:
            self.drops["unexpected inner packet"] += 1
            return None
        at = stream.waiting.get(sequence)
        if at is None:
            self.late += 1
            return None
        if now - at >= ANSWER_TIME:
            self._expire(stream, now)
            self.late += 1
            return None
        del stream.waiting[sequence]
        self.received += 1
        self._round_trips.add(round((now - at) * 1e9), 1)
        return None


def _to_ike(outputs: Iterable[Output]) -> list[ToIke]:
    return [cast("ToIke", output.message) for output in outputs if isinstance(output, engine.ToIke)]
