"""Neighbours of a port: ARP as a state machine in one table (RFC 826, RFC 1122 2.3.2).

A packet whose neighbour is not resolved waits; a port whose neighbour is resolved never comes here, it finds
the 14 bytes of the link header ready in `Neighbour.link`.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from chassis.bus.batch import Batch, Step
from chassis.bus.counters import Counters
from chassis.bus.engine import Output, ToController, ToWire
from chassis.bus.messages import NeighbourEvent
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.rate import TokenBucket
from chassis.net.address import BROADCAST_MAC, ZERO_MAC
from chassis.net.arp import REPLY, REQUEST, Arp
from chassis.net.errors import DecodeError
from chassis.net.ethernet import ETHERTYPE_ARP, header
from chassis.net.types import Buffer

if TYPE_CHECKING:
    from chassis.linecard.ports import LineCardPort

RETRY = 1.0
"""Seconds between requests for one neighbour (RFC 1122 allows no more than one a second)."""

TRIES = 3
"""Requests after which a neighbour counts as unreachable."""

AGE = 3600.0
"""Seconds after which a resolved neighbour is asked for again."""

WAITING = 64
"""Most packets that wait for one neighbour."""

EVENTS_RATE, EVENTS_BURST = 100.0, 500.0
"""Neighbours of which a card tells the controller in a second, and at once: anyone can say that there is one."""

STALE_TIMERS = 1024
"""Timers of neighbours that are gone, beyond as many as there are others, after which the heap is made anew."""

SHED_UNRESOLVED = "neighbours shed unresolved"
SHED_KNOWN = "neighbours shed known"
EVENTS_HELD_BACK = "neighbour events held back"
"""Counters of what the bounds cost."""


class NeighbourState(Enum):
    UNKNOWN = "unknown"
    RESOLVING = "resolving"
    KNOWN = "known"
    REFRESHING = "refreshing"
    """Aged: asked for again, and used until it fails to answer."""


class ArpEvent(Enum):
    PACKET = "packet to send"
    ANSWER = "its address heard"
    TIMER = "time is up"
    EXHAUSTED = "time is up after the last try"
    LOST = "port down"
    CROWDED = "others need the room"


class ArpAction(Enum):
    QUEUE = "keep the packet"
    REQUEST = "broadcast a request"
    LEARN = "note its address"
    FLUSH = "send what waits"
    FAIL = "give up what waits"
    DISCARD = "drop what waits"
    SHED = "drop what waits, for want of room"
    FORGET = "forget its address"


_S, _E, _A = NeighbourState, ArpEvent, ArpAction

TABLE: dict[NeighbourState, dict[ArpEvent, tuple[NeighbourState, tuple[ArpAction, ...]]]] = {
    _S.UNKNOWN: {
        _E.PACKET: (_S.RESOLVING, (_A.QUEUE, _A.REQUEST)),
        _E.ANSWER: (_S.KNOWN, (_A.LEARN,)),
        _E.TIMER: (_S.UNKNOWN, ()),
        _E.EXHAUSTED: (_S.UNKNOWN, ()),
        _E.LOST: (_S.UNKNOWN, ()),
        _E.CROWDED: (_S.UNKNOWN, ()),
    },
    _S.RESOLVING: {
        _E.PACKET: (_S.RESOLVING, (_A.QUEUE,)),
        _E.ANSWER: (_S.KNOWN, (_A.LEARN, _A.FLUSH)),
        _E.TIMER: (_S.RESOLVING, (_A.REQUEST,)),
        _E.EXHAUSTED: (_S.UNKNOWN, (_A.FORGET, _A.FAIL)),
        _E.LOST: (_S.UNKNOWN, (_A.FORGET, _A.DISCARD)),
        _E.CROWDED: (_S.UNKNOWN, (_A.FORGET, _A.SHED)),
    },
    _S.KNOWN: {
        _E.PACKET: (_S.KNOWN, (_A.QUEUE, _A.FLUSH)),
        _E.ANSWER: (_S.KNOWN, (_A.LEARN,)),
        _E.TIMER: (_S.REFRESHING, (_A.REQUEST,)),
        _E.EXHAUSTED: (_S.REFRESHING, (_A.REQUEST,)),
        _E.LOST: (_S.UNKNOWN, (_A.FORGET,)),
        _E.CROWDED: (_S.UNKNOWN, (_A.FORGET,)),
    },
    _S.REFRESHING: {
        _E.PACKET: (_S.REFRESHING, (_A.QUEUE, _A.FLUSH)),
        _E.ANSWER: (_S.KNOWN, (_A.LEARN,)),
        _E.TIMER: (_S.REFRESHING, (_A.REQUEST,)),
        _E.EXHAUSTED: (_S.UNKNOWN, (_A.FORGET,)),
        _E.LOST: (_S.UNKNOWN, (_A.FORGET,)),
        _E.CROWDED: (_S.UNKNOWN, (_A.FORGET,)),
    },
}


class Waiting(NamedTuple):
    """A packet that waits: its bytes with headroom, its trace number or 0, the context it is forwarded in."""

    packet: bytes
    mark: int
    context: int


class Neighbour:
    """One address on a port's network. `link` is the header for packets to it, empty while unresolved.

    `used` is when packets were last sent to it; `timer` when its timer in the heap runs out, which may be before
    `due`.
    """

    __slots__ = ("address", "due", "link", "mac", "port", "state", "timer", "tries", "used", "waiting")

    def __init__(self, port: LineCardPort, address: int) -> None:
        self.port = port
        self.address = address
        self.state = NeighbourState.UNKNOWN
        self.mac = b""
        self.link = b""
        self.tries = 0
        self.due = self.timer = inf
        self.used = -inf
        self.waiting: list[Waiting] = []


_CAUSES = {
    ArpAction.FAIL: DropCause.NEIGHBOUR,
    ArpAction.DISCARD: DropCause.PORT_DOWN,
    ArpAction.SHED: DropCause.NEIGHBOURS,
}

Flush = Callable[[Neighbour, list[Waiting], float, list[Output]], None]
Give = Callable[[DropCause, list[Waiting], float, list[Output]], None]


class Neighbours:
    """All neighbours of a card's ports, and their timers.

    `flush(neighbour, packets, now, out)` sends packets to a resolved neighbour;
    `give_up(cause, packets, now, out)` drops packets, and tells their senders where that is owed.
    """

    def __init__(self, flush: Flush, give_up: Give, counters: Counters) -> None:
        self.made = 0
        """ARP packets originated, for the card's balance."""
        self.waiting = 0
        """Packets that wait in all queues."""
        self._flush, self._give_up, self._counters = flush, give_up, counters
        self._events = TokenBucket(EVENTS_RATE, EVENTS_BURST)
        self._timers: list[tuple[float, int, Neighbour]] = []
        self._pushed = 0
        self._held = 0
        """Neighbours of all ports."""

    def offer(
        self, port: LineCardPort, address: int, packets: list[Waiting], now: float, out: list[Output]
    ) -> None:
        """Send packets to an address that is not resolved, or will be tried again."""
        neighbour = self._of(port, address)
        for packet in packets:
            self._event(neighbour, ArpEvent.PACKET, now, out, packet=packet)

    def hear(self, port: LineCardPort, payload: Buffer, now: float, out: list[Output]) -> bool:
        """An ARP packet came in by a port; False if it is not to be believed.

        An address is learnt where it was known or asked us for something; a packet that claims our own
        address or no unicast hardware address is refused.
        """
        try:
            arp = Arp.parse(payload)
        except DecodeError:
            return False
        sender, mac = arp.sender_address, arp.sender_mac
        if mac[0] & 1 or mac == ZERO_MAC or mac == port.mac or sender in port.addresses:
            return False
        for_us = arp.target_address in port.addresses
        if sender and (sender in port.neighbours or (for_us and port.is_on_link(sender))):
            self._event(self._of(port, sender), ArpEvent.ANSWER, now, out, mac=mac)
        if for_us and arp.operation == REQUEST:
            self._send(port, mac, Arp(REPLY, port.mac, arp.target_address, mac, sender), out)
        return True

    def announce(self, port: LineCardPort, out: list[Output]) -> None:
        """Gratuitous ARP: whoever knew another hardware address for ours learns the right one."""
        for address, _ in port.record.networks:
            self._send(port, BROADCAST_MAC, Arp(REQUEST, port.mac, address, ZERO_MAC, address), out)

    def lose(self, port: LineCardPort, now: float, out: list[Output]) -> None:
        """The port went down, or is another one now."""
        for neighbour in list(port.neighbours.values()):
            self._event(neighbour, ArpEvent.LOST, now, out)

    def on_timer(self, now: float, out: list[Output]) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            at, _, neighbour = heapq.heappop(timers)
            if neighbour.timer != at:
                continue
            neighbour.timer = inf
            if neighbour.due > at:
                self._set(neighbour, neighbour.due)
                continue
            neighbour.due = inf
            event = ArpEvent.EXHAUSTED if neighbour.tries >= TRIES else ArpEvent.TIMER
            self._event(neighbour, event, now, out)

    def next_timer(self) -> float:
        timers = self._timers
        while timers and timers[0][2].timer != timers[0][0]:
            heapq.heappop(timers)
        return timers[0][0] if timers else inf

    # inside

    def _of(self, port: LineCardPort, address: int) -> Neighbour:
        neighbour = port.neighbours.get(address)
        if neighbour is None:
            neighbour = port.neighbours[address] = Neighbour(port, address)
            self._held += 1
        return neighbour

    def _event(
        self,
        neighbour: Neighbour,
        event: ArpEvent,
        now: float,
        out: list[Output],
        *,
        packet: Waiting | None = None,
        mac: bytes = b"",
    ) -> None:
        before = neighbour.state
        neighbour.state, actions = TABLE[before][event]
        for action in actions:
            if action is ArpAction.QUEUE:
                assert packet is not None
                self._queue(neighbour, packet, now, out)
            elif action is ArpAction.REQUEST:
                self._request(neighbour, now, out)
            elif action is ArpAction.LEARN:
                self._learn(neighbour, mac, now, out)
            elif action is ArpAction.FORGET:
                self._forget(neighbour, now, out)
            else:
                self._empty(neighbour, action, now, out)
        if neighbour.state is not before:
            self._moved(neighbour, before, now, out)

    def _moved(self, neighbour: Neighbour, before: NeighbourState, now: float, out: list[Output]) -> None:
        """Keep account of what a port keeps; what is too much goes."""
        room, state = neighbour.port.room, neighbour.state
        crowded = None
        if before is NeighbourState.RESOLVING:
            room.answered(neighbour)
        elif before is not NeighbourState.UNKNOWN and state is NeighbourState.UNKNOWN:
            room.forget()
        if state is NeighbourState.RESOLVING:
            crowded = room.ask(neighbour)
        elif state is NeighbourState.KNOWN and before is not NeighbourState.REFRESHING:
            crowded = room.know(neighbour)
        if crowded is not None:
            self._counters.add(SHED_UNRESOLVED if crowded.state is NeighbourState.RESOLVING else SHED_KNOWN)
            self._event(crowded, ArpEvent.CROWDED, now, out)

    def _queue(self, neighbour: Neighbour, packet: Waiting, now: float, out: list[Output]) -> None:
        if len(neighbour.waiting) >= WAITING:
            self._give_up(DropCause.NEIGHBOUR_QUEUE, [packet], now, out)
            return
        neighbour.waiting.append(packet)
        self.waiting += 1
        room = neighbour.port.room
        longest = room.queue(neighbour)
        if longest is not None:
            first = longest.waiting.pop(0)
            room.unqueue(longest, 1)
            self.waiting -= 1
            self._give_up(DropCause.NEIGHBOUR_QUEUE, [first], now, out)

    def _empty(self, neighbour: Neighbour, action: ArpAction, now: float, out: list[Output]) -> None:
        waiting, neighbour.waiting = neighbour.waiting, []
        self.waiting -= len(waiting)
        if not waiting:
            return
        neighbour.port.room.unqueue(neighbour, len(waiting))
        if action is ArpAction.FLUSH:
            self._flush(neighbour, waiting, now, out)
        else:
            self._give_up(_CAUSES[action], waiting, now, out)

    def _request(self, neighbour: Neighbour, now: float, out: list[Output]) -> None:
        neighbour.tries += 1
        self._set(neighbour, now + RETRY)
        port = neighbour.port
        source = port.record.address_towards(neighbour.address)
        arp = Arp(REQUEST, port.mac, source, ZERO_MAC, neighbour.address)
        # An aged neighbour is asked directly first: it need not reach everyone (RFC 1122 2.3.2.1).
        to = neighbour.mac if neighbour.mac and neighbour.tries == 1 else BROADCAST_MAC
        self._send(port, to, arp, out)

    def _learn(self, neighbour: Neighbour, mac: bytes, now: float, out: list[Output]) -> None:
        neighbour.tries = 0
        self._set(neighbour, now + AGE)
        if neighbour.mac != mac:
            neighbour.mac = mac
            neighbour.link = header(mac, neighbour.port.mac)
            self._tell(neighbour, now, out)

    def _tell(self, neighbour: Neighbour, now: float, out: list[Output]) -> None:
        if self._events.take(now):
            out.append(ToController(NeighbourEvent(neighbour.port.name, neighbour.address, neighbour.mac)))
        else:
            self._counters.add(EVENTS_HELD_BACK)

    def _forget(self, neighbour: Neighbour, now: float, out: list[Output]) -> None:
        was_known = bool(neighbour.mac)
        neighbour.mac = neighbour.link = b""
        neighbour.tries = 0
        neighbour.due = neighbour.timer = inf
        if neighbour.port.neighbours.pop(neighbour.address, None) is not None:
            self._held -= 1
        if was_known:
            self._tell(neighbour, now, out)

    def _set(self, neighbour: Neighbour, due: float) -> None:
        """Its timer runs out at `due`. One that is in the heap for an earlier time stays there and is put off
        then: whoever makes us learn the same thing again and again makes no heap of timers."""
        neighbour.due = due
        if neighbour.timer <= due:
            return
        timers = self._timers
        if len(timers) > 2 * self._held + STALE_TIMERS:
            timers[:] = [timer for timer in timers if timer[2].timer == timer[0]]
            heapq.heapify(timers)
        neighbour.timer = due
        self._pushed += 1
        heapq.heappush(timers, (due, self._pushed, neighbour))

    def _send(self, port: LineCardPort, to: bytes, arp: Arp, out: list[Output]) -> None:
        frame = bytearray(header(to, port.mac, ETHERTYPE_ARP) + arp.emit())
        self.made += 1
        out.append(ToWire(port.name, Batch(Step.OUT, frame, array("H", (len(frame),)), port=port.name)))
