"""ARP: the neighbours of a line card's ports, and the packets that wait for them (RFC 826, RFC 1122 2.3.2).

In: packets for a neighbour that is not resolved, ARP packets of a port, time. Out: ARP packets, packets that
waited, and messages to the controller. Packets for a resolved neighbour only ask for its link header
(`ArpTable.link`).

Any host can make a router ask for each address of a port's network, and any host there can answer for each of
them. So the neighbours that are asked for, those that are resolved, and the packets that wait are bounded for each
port. Of the first the one goes that was asked for first: a host that is there answers soon. Of the second the one
goes that packets were sent to the longest ago, so that neighbours which carry traffic stay.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Sequence
from enum import Enum
from math import inf
from typing import NamedTuple

from chassis.bus.batch import Batch, Step
from chassis.bus.counters import Counters
from chassis.bus.engine import Output, ToController, ToWire
from chassis.bus.messages import NeighbourEvent
from chassis.fwd.drop_causes import DropCause
from chassis.linecard.counters import PacketCounters
from chassis.linecard.ports import LineCardPort
from chassis.net.address import BROADCAST_MAC, ZERO_MAC
from chassis.net.arp import REPLY, REQUEST, Arp
from chassis.net.errors import DecodeError
from chassis.net.ethernet import ETHERTYPE_ARP, header
from chassis.net.rate import TokenBucket
from chassis.net.types import Buffer
from chassis.state_machine import StateMachine

ARP_RETRY_INTERVAL = 1.0
"""Time (s) between requests for one neighbour (RFC 1122 2.3.2.1: one a second at most)."""

MAX_ARP_REQUESTS = 3
"""Requests (count) after which a neighbour is unreachable."""

ARP_REFRESH_INTERVAL = 3600.0
"""Time (s) after which a resolved neighbour is asked for again."""

MAX_WAITING_PACKETS = 64
"""Packets (count) that wait for one neighbour, at most."""

MAX_PORT_WAITING_PACKETS = 1024
"""Packets (count) that wait for all neighbours of a port, at most."""

MAX_INCOMPLETE_NEIGHBOURS = 512
"""Neighbours (count) of a port that are asked for and have not answered, at most."""

MAX_RESOLVED_NEIGHBOURS = 2048
"""Neighbours (count) of a port whose hardware address is known, at most."""

NEIGHBOUR_EVENT_RATE, NEIGHBOUR_EVENT_BURST = 100.0, 500.0
"""Neighbours of which a card tells the controller (1/s), and at once (count): any host can claim to be one."""

MAX_STALE_TIMERS = 1024
"""Timers (count) of neighbours that are gone, beyond twice the others, after which the heap is made anew."""

EVICTED_INCOMPLETE = "neighbours shed unresolved"
EVICTED_RESOLVED = "neighbours shed known"
EVENTS_RATE_LIMITED = "neighbour events held back"
"""Counters of what the bounds cost."""


class NeighbourState(Enum):
    NONE = "none"
    INCOMPLETE = "incomplete"
    REACHABLE = "reachable"
    PROBE = "probe"
    """Its age is up: it is asked for again, and packets are sent to it until it fails to answer."""


class ArpEvent(Enum):
    PACKET = "packet to send"
    ADDRESS_HEARD = "its address heard"
    TIMEOUT = "time is up"
    RETRIES_EXHAUSTED = "time is up after the last request"
    PORT_DOWN = "port down"
    EVICTED = "others need the room"
    CLEARED = "an operator clears it"


class ArpAction(Enum):
    ENQUEUE = "queue the packet"
    SEND_REQUEST = "send a request"
    STORE_ADDRESS = "store its address"
    SEND_QUEUED = "send what waits"
    DROP_UNRESOLVED = "drop what waits, unreachable"
    DROP_PORT_DOWN = "drop what waits, port down"
    DROP_EVICTED = "drop what waits, too many neighbours"
    REMOVE = "remove it"


_S, _E, _A = NeighbourState, ArpEvent, ArpAction

NEIGHBOUR = StateMachine(
    "A neighbour of a line card (ARP)",
    NeighbourState,
    ArpEvent,
    {
        _S.NONE: {
            _E.PACKET: (_S.INCOMPLETE, (_A.ENQUEUE, _A.SEND_REQUEST)),
            _E.ADDRESS_HEARD: (_S.REACHABLE, (_A.STORE_ADDRESS,)),
            _E.TIMEOUT: (_S.NONE, ()),
            _E.RETRIES_EXHAUSTED: (_S.NONE, ()),
            _E.PORT_DOWN: (_S.NONE, ()),
            _E.EVICTED: (_S.NONE, ()),
            _E.CLEARED: (_S.NONE, ()),
        },
        _S.INCOMPLETE: {
            _E.PACKET: (_S.INCOMPLETE, (_A.ENQUEUE,)),
            _E.ADDRESS_HEARD: (_S.REACHABLE, (_A.STORE_ADDRESS, _A.SEND_QUEUED)),
            _E.TIMEOUT: (_S.INCOMPLETE, (_A.SEND_REQUEST,)),
            _E.RETRIES_EXHAUSTED: (_S.NONE, (_A.REMOVE, _A.DROP_UNRESOLVED)),
            _E.PORT_DOWN: (_S.NONE, (_A.REMOVE, _A.DROP_PORT_DOWN)),
            _E.EVICTED: (_S.NONE, (_A.REMOVE, _A.DROP_EVICTED)),
            _E.CLEARED: (_S.INCOMPLETE, ()),
        },
        _S.REACHABLE: {
            _E.PACKET: (_S.REACHABLE, (_A.ENQUEUE, _A.SEND_QUEUED)),
            _E.ADDRESS_HEARD: (_S.REACHABLE, (_A.STORE_ADDRESS,)),
            _E.TIMEOUT: (_S.PROBE, (_A.SEND_REQUEST,)),
            _E.RETRIES_EXHAUSTED: (_S.PROBE, (_A.SEND_REQUEST,)),
            _E.PORT_DOWN: (_S.NONE, (_A.REMOVE,)),
            _E.EVICTED: (_S.NONE, (_A.REMOVE,)),
            _E.CLEARED: (_S.NONE, (_A.REMOVE,)),
        },
        _S.PROBE: {
            _E.PACKET: (_S.PROBE, (_A.ENQUEUE, _A.SEND_QUEUED)),
            _E.ADDRESS_HEARD: (_S.REACHABLE, (_A.STORE_ADDRESS,)),
            _E.TIMEOUT: (_S.PROBE, (_A.SEND_REQUEST,)),
            _E.RETRIES_EXHAUSTED: (_S.NONE, (_A.REMOVE,)),
            _E.PORT_DOWN: (_S.NONE, (_A.REMOVE,)),
            _E.EVICTED: (_S.NONE, (_A.REMOVE,)),
            _E.CLEARED: (_S.NONE, (_A.REMOVE,)),
        },
    },
    theory="""An address on the network of a port, resolved by ARP (RFC 826). The states are those of RFC 4861.

A packet for an unknown address makes the neighbour `incomplete`: the packet waits, and up to three requests are
broadcast, one a second (RFC 1122 2.3.2.1). The neighbour is `reachable` as soon as its hardware address is heard,
in an answer or in any ARP packet of its own. After an hour it is asked for again: in state `probe` its old address
is used until it has failed to answer three requests. A port that goes down, and the bounds for each port, remove
neighbours in any state.""",
    ignore=(),
)


class WaitingPacket(NamedTuple):
    """A packet that waits: its octets with headroom, its trace number or 0, the context it is forwarded in."""

    packet: bytes
    mark: int
    context: int


class Neighbour:
    """One address on a port's network. `link` is the header for packets to it, empty while unresolved.

    `used` is the time of the last packets sent to it. `due` is the time of its next event; its timer in the heap
    runs out at `timer`, which may be earlier.
    """

    __slots__ = ("address", "due", "link", "mac", "port", "state", "timer", "tries", "used", "waiting")

    def __init__(self, port: LineCardPort, address: int) -> None:
        self.port = port
        self.address = address
        self.state = NeighbourState.NONE
        self.mac = b""
        self.link = b""
        self.tries = 0
        self.due = self.timer = inf
        self.used = -inf
        self.waiting: list[WaitingPacket] = []

    def transition(self, event: ArpEvent) -> tuple[ArpAction, ...]:
        self.state, actions = NEIGHBOUR.transition(self.state, event)
        return actions


class PortNeighbours:
    """The neighbours of one port, within bounds. What adds returns what is too much then, to be removed."""

    __slots__ = ("_incomplete", "_last_sent", "_number", "_queues", "_resolved", "by_address", "waiting")

    def __init__(self) -> None:
        self.by_address: dict[int, Neighbour] = {}
        self.waiting = 0
        """Packets in all queues."""
        self._incomplete: dict[Neighbour, None] = {}
        self._queues: dict[Neighbour, None] = {}
        """Neighbours for which packets wait, in the order of their first packets."""
        self._resolved = 0
        self._last_sent: list[tuple[float, int, Neighbour]] = []
        """Resolved neighbours by a time of packets sent to them, which may not be the last one: a heap."""
        self._number = 0

    def add_incomplete(self, neighbour: Neighbour) -> Neighbour | None:
        self._incomplete[neighbour] = None
        return next(iter(self._incomplete)) if len(self._incomplete) > MAX_INCOMPLETE_NEIGHBOURS else None

    def remove_incomplete(self, neighbour: Neighbour) -> None:
        self._incomplete.pop(neighbour, None)

    def add_resolved(self, neighbour: Neighbour) -> Neighbour | None:
        self._resolved += 1
        self._push(neighbour)
        return self._least_recently_used() if self._resolved > MAX_RESOLVED_NEIGHBOURS else None

    def remove_resolved(self) -> None:
        self._resolved -= 1
        if not self._resolved:
            self._last_sent.clear()

    def enqueued(self, neighbour: Neighbour) -> Neighbour | None:
        """Count a packet that waits for a neighbour; return the neighbour whose first packet is too much."""
        self._queues[neighbour] = None
        self.waiting += 1
        return next(iter(self._queues)) if self.waiting > MAX_PORT_WAITING_PACKETS else None

    def dequeued(self, neighbour: Neighbour, packets: int) -> None:
        """Count packets that no longer wait; the caller has taken them out of the neighbour's queue."""
        self.waiting -= packets
        if not neighbour.waiting:
            self._queues.pop(neighbour, None)

    # inside

    def _push(self, neighbour: Neighbour) -> None:
        if len(self._last_sent) > 2 * MAX_RESOLVED_NEIGHBOURS:
            self._last_sent = [entry for entry in self._last_sent if entry[2].mac]
            heapq.heapify(self._last_sent)
        self._number += 1
        heapq.heappush(self._last_sent, (neighbour.used, self._number, neighbour))

    def _least_recently_used(self) -> Neighbour:
        while True:
            used, _, neighbour = heapq.heappop(self._last_sent)
            if not neighbour.mac:
                continue
            if neighbour.used == used:
                return neighbour
            self._push(neighbour)


_DROP_CAUSES = {
    ArpAction.DROP_UNRESOLVED: DropCause.NEIGHBOUR,
    ArpAction.DROP_PORT_DOWN: DropCause.PORT_DOWN,
    ArpAction.DROP_EVICTED: DropCause.NEIGHBOURS,
}

SendQueued = Callable[[Neighbour, list[WaitingPacket], float], list[Output]]
DropQueued = Callable[[DropCause, list[WaitingPacket], float], list[Output]]


class ArpTable:
    """ARP of all ports of a card.

    `send_queued(neighbour, packets, now)` sends packets to a resolved neighbour. `drop_queued(cause, packets,
    now)` drops packets, and tells their senders where that is owed.
    """

    def __init__(
        self, send_queued: SendQueued, drop_queued: DropQueued, counters: Counters, packets: PacketCounters
    ) -> None:
        self._send_queued, self._drop_queued = send_queued, drop_queued
        self._counters, self._packets = counters, packets
        self._events = TokenBucket(NEIGHBOUR_EVENT_RATE, NEIGHBOUR_EVENT_BURST)
        self._ports: dict[LineCardPort, PortNeighbours] = {}
        self._timers: list[tuple[float, int, Neighbour]] = []
        self._pushed = 0
        self._held = 0
        """Neighbours of all ports."""

    def neighbours(self, port: LineCardPort) -> dict[int, Neighbour]:
        """Return the neighbours of a port by address; not to be changed by the caller."""
        held = self._ports.get(port)
        return {} if held is None else held.by_address

    def link(self, port: LineCardPort, address: int, now: float) -> bytes:
        """Return the link header for packets to a neighbour, which are sent now; empty while it is unresolved."""
        held = self._ports.get(port)
        if held is None:
            return b""
        neighbour = held.by_address.get(address)
        if neighbour is None or not neighbour.link:
            return b""
        neighbour.used = now
        return neighbour.link

    def links(self, port: LineCardPort, addresses: Sequence[int], now: float) -> list[bytes] | None:
        """Return the link headers for packets to these neighbours, which are sent now; None, with nothing done, if
        one of them is unresolved."""
        held = self._ports.get(port)
        if held is None:
            return None
        neighbours = [neighbour for neighbour in map(held.by_address.get, addresses) if neighbour is not None]
        links = [neighbour.link for neighbour in neighbours]
        if len(links) < len(addresses) or b"" in links:
            return None
        for neighbour in neighbours:
            neighbour.used = now
        return links

    def enqueue(self, port: LineCardPort, address: int, packets: list[WaitingPacket], now: float) -> list[Output]:
        """Have packets wait for a neighbour that is not resolved, or send them if it is."""
        neighbour = self._find_or_add(port, address)
        out: list[Output] = []
        for packet in packets:
            out += self._transition(neighbour, ArpEvent.PACKET, now, packet=packet)
        return out

    def receive(self, port: LineCardPort, payload: Buffer, now: float) -> list[Output] | None:
        """Act on an ARP packet of a port; None if it is not to be believed.

        An address is stored where it was known or asked this router for something. A packet is refused that claims
        our own address, or a hardware address that is not one host's.
        """
        try:
            arp = Arp.parse(payload)
        except DecodeError:
            return None
        sender, mac = arp.sender_address, arp.sender_mac
        if mac[0] & 1 or mac == ZERO_MAC or mac == port.mac or sender in port.addresses:
            return None
        out: list[Output] = []
        for_us = arp.target_address in port.addresses
        if sender and (sender in self.neighbours(port) or (for_us and port.is_on_link(sender))):
            out += self._transition(self._find_or_add(port, sender), ArpEvent.ADDRESS_HEARD, now, mac=mac)
        if for_us and arp.operation == REQUEST:
            out.append(self._transmit(port, mac, Arp(REPLY, port.mac, arp.target_address, mac, sender)))
        return out

    def send_gratuitous(self, port: LineCardPort) -> list[Output]:
        """Return gratuitous ARP: hosts that stored another hardware address for ours learn the right one."""
        return [
            self._transmit(port, BROADCAST_MAC, Arp(REQUEST, port.mac, address, ZERO_MAC, address))
            for address, _ in port.record.networks
        ]

    def on_port_down(self, port: LineCardPort, now: float) -> list[Output]:
        """Remove all neighbours of a port that went down or has another identity now."""
        out: list[Output] = []
        for neighbour in list(self.neighbours(port).values()):
            out += self._transition(neighbour, ArpEvent.PORT_DOWN, now)
        self._ports.pop(port, None)
        return out

    def clear(self, port: LineCardPort, address: int | None, now: float) -> tuple[int, list[Output]]:
        """Forget the neighbours of a port, or one of them; return how many were known. The next packet asks again;
        one that is being asked for already stays."""
        held = self.neighbours(port)
        known = [held[address]] if address in held else list(held.values()) if address is None else []
        known = [neighbour for neighbour in known if neighbour.mac]
        return len(known), [
            output for neighbour in known for output in self._transition(neighbour, ArpEvent.CLEARED, now)
        ]

    def on_timer(self, now: float) -> list[Output]:
        timers = self._timers
        out: list[Output] = []
        while timers and timers[0][0] <= now:
            at, _, neighbour = heapq.heappop(timers)
            if neighbour.timer != at:
                continue
            neighbour.timer = inf
            if neighbour.due > at:
                self._set_timer(neighbour, neighbour.due)
                continue
            neighbour.due = inf
            last = neighbour.tries >= MAX_ARP_REQUESTS
            event = ArpEvent.RETRIES_EXHAUSTED if last else ArpEvent.TIMEOUT
            out += self._transition(neighbour, event, now)
        return out

    def next_timer(self) -> float:
        """Return the time of the next call of `on_timer`, or infinity."""
        timers = self._timers
        while timers and timers[0][2].timer != timers[0][0]:
            heapq.heappop(timers)
        return timers[0][0] if timers else inf

    # inside

    def _held_by(self, port: LineCardPort) -> PortNeighbours:
        held = self._ports.get(port)
        if held is None:
            held = self._ports[port] = PortNeighbours()
        return held

    def _find_or_add(self, port: LineCardPort, address: int) -> Neighbour:
        by_address = self._held_by(port).by_address
        neighbour = by_address.get(address)
        if neighbour is None:
            neighbour = by_address[address] = Neighbour(port, address)
            self._held += 1
        return neighbour

    def _transition(
        self,
        neighbour: Neighbour,
        event: ArpEvent,
        now: float,
        *,
        packet: WaitingPacket | None = None,
        mac: bytes = b"",
    ) -> list[Output]:
        before = neighbour.state
        out: list[Output] = []
        for action in neighbour.transition(event):
            if action is ArpAction.ENQUEUE:
                assert packet is not None
                out += self._enqueue(neighbour, packet, now)
            elif action is ArpAction.SEND_REQUEST:
                out.append(self._send_request(neighbour, now))
            elif action is ArpAction.STORE_ADDRESS:
                out += self._store_address(neighbour, mac, now)
            elif action is ArpAction.REMOVE:
                out += self._remove(neighbour, now)
            else:
                out += self._empty_queue(neighbour, action, now)
        if neighbour.state is not before:
            out += self._keep_bounds(neighbour, before, now)
        return out

    def _keep_bounds(self, neighbour: Neighbour, before: NeighbourState, now: float) -> list[Output]:
        """Count a neighbour that changed its state for its port, and evict one that is too much."""
        held, state = self._held_by(neighbour.port), neighbour.state
        evicted = None
        if before is NeighbourState.INCOMPLETE:
            held.remove_incomplete(neighbour)
        elif before is not NeighbourState.NONE and state is NeighbourState.NONE:
            held.remove_resolved()
        if state is NeighbourState.INCOMPLETE:
            evicted = held.add_incomplete(neighbour)
        elif state is NeighbourState.REACHABLE and before is not NeighbourState.PROBE:
            evicted = held.add_resolved(neighbour)
        if evicted is None:
            return []
        self._counters.add(EVICTED_INCOMPLETE if evicted.state is NeighbourState.INCOMPLETE else EVICTED_RESOLVED)
        return self._transition(evicted, ArpEvent.EVICTED, now)

    def _enqueue(self, neighbour: Neighbour, packet: WaitingPacket, now: float) -> list[Output]:
        if len(neighbour.waiting) >= MAX_WAITING_PACKETS:
            return self._drop_queued(DropCause.NEIGHBOUR_QUEUE, [packet], now)
        neighbour.waiting.append(packet)
        self._packets.add_waiting(1)
        held = self._held_by(neighbour.port)
        longest = held.enqueued(neighbour)
        if longest is None:
            return []
        first = longest.waiting.pop(0)
        held.dequeued(longest, 1)
        self._packets.add_waiting(-1)
        return self._drop_queued(DropCause.NEIGHBOUR_QUEUE, [first], now)

    def _empty_queue(self, neighbour: Neighbour, action: ArpAction, now: float) -> list[Output]:
        waiting, neighbour.waiting = neighbour.waiting, []
        if not waiting:
            return []
        self._packets.add_waiting(-len(waiting))
        self._held_by(neighbour.port).dequeued(neighbour, len(waiting))
        if action is ArpAction.SEND_QUEUED:
            return self._send_queued(neighbour, waiting, now)
        return self._drop_queued(_DROP_CAUSES[action], waiting, now)

    def _send_request(self, neighbour: Neighbour, now: float) -> Output:
        neighbour.tries += 1
        self._set_timer(neighbour, now + ARP_RETRY_INTERVAL)
        port = neighbour.port
        source = port.record.address_towards(neighbour.address)
        arp = Arp(REQUEST, port.mac, source, ZERO_MAC, neighbour.address)
        # A neighbour whose age is up is asked by unicast first (RFC 1122 2.3.2.1).
        to = neighbour.mac if neighbour.mac and neighbour.tries == 1 else BROADCAST_MAC
        return self._transmit(port, to, arp)

    def _store_address(self, neighbour: Neighbour, mac: bytes, now: float) -> list[Output]:
        neighbour.tries = 0
        self._set_timer(neighbour, now + ARP_REFRESH_INTERVAL)
        if neighbour.mac == mac:
            return []
        neighbour.mac = mac
        neighbour.link = header(mac, neighbour.port.mac)
        return self._report(neighbour, now)

    def _report(self, neighbour: Neighbour, now: float) -> list[Output]:
        if self._events.consume(now):
            return [ToController(NeighbourEvent(neighbour.port.name, neighbour.address, neighbour.mac))]
        self._counters.add(EVENTS_RATE_LIMITED)
        return []

    def _remove(self, neighbour: Neighbour, now: float) -> list[Output]:
        was_resolved = bool(neighbour.mac)
        neighbour.mac = neighbour.link = b""
        neighbour.tries = 0
        neighbour.due = neighbour.timer = inf
        if self._held_by(neighbour.port).by_address.pop(neighbour.address, None) is not None:
            self._held -= 1
        return self._report(neighbour, now) if was_resolved else []

    def _set_timer(self, neighbour: Neighbour, due: float) -> None:
        """Have the next event of a neighbour at `due`.

        A timer that is in the heap for an earlier time stays there and is put off when it runs out: a host that
        repeats its answer fills no heap.
        """
        neighbour.due = due
        if neighbour.timer <= due:
            return
        timers = self._timers
        if len(timers) > 2 * self._held + MAX_STALE_TIMERS:
            timers[:] = [timer for timer in timers if timer[2].timer == timer[0]]
            heapq.heapify(timers)
        neighbour.timer = due
        self._pushed += 1
        heapq.heappush(timers, (due, self._pushed, neighbour))

    def _transmit(self, port: LineCardPort, to: bytes, arp: Arp) -> Output:
        frame = bytearray(header(to, port.mac, ETHERTYPE_ARP) + arp.emit())
        self._packets.values[self._packets.originated] += 1
        return ToWire(port.name, Batch(Step.EGRESS, frame, array("H", (len(frame),)), port=port.name))
