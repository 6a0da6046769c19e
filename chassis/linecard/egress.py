"""Out of a port: MTU, link header, and waiting for the neighbour's address."""

from __future__ import annotations

from array import array
from typing import Protocol

from chassis.bus.batch import Batch, Mark, Step, pack
from chassis.bus.card import CardBase
from chassis.bus.engine import Output, ToWire
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.mtu import MtuLimits, fit_to_mtu
from chassis.fwd.rewrite import write_link_headers
from chassis.linecard.counters import Balance
from chassis.linecard.neighbours import Neighbour, Neighbours, Waiting
from chassis.linecard.ports import LineCardPort
from chassis.net.ethernet import HEADROOM_FILL
from chassis.net.types import Buffer, Writable


class Dropped(Protocol):
    """Counts packets as dropped and tells their senders (`Forwarding.dropped`)."""

    def __call__(
        self,
        cause: DropCause,
        body: Buffer,
        lengths: array[int],
        context: int,
        now: float,
        out: list[Output],
        mtu: int = 0,
    ) -> None: ...


class Egress:
    """The last stretch: from a port and a next hop to frames on the wire."""

    def __init__(self, card: CardBase, neighbours: Neighbours, dropped: Dropped, balance: Balance) -> None:
        self._card = card
        self._neighbours = neighbours
        self._dropped = dropped
        self._balance = balance

    def send(
        self,
        port: LineCardPort,
        address: int,
        body: Writable,
        lengths: array[int],
        marks: tuple[Mark, ...],
        context: int,
        now: float,
        out: list[Output],
    ) -> None:
        """Packets that share a next hop. Those above the port's MTU are cut up, or dropped where their
        sender forbids it; `context` is the one to tell senders in."""
        if not port.up:
            self._dropped(DropCause.PORT_DOWN, body, lengths, context, now, out)
            return
        if max(lengths) > port.limit:
            body, lengths, marks = self._fit(port, body, lengths, marks, context, now, out)
            if not lengths:
                return
        neighbour = port.neighbours.get(address)
        if neighbour is not None and neighbour.link:
            neighbour.used = now
            self._to_wire(port, neighbour.link, body, lengths, marks, now, out)
            return
        numbers = dict(marks)
        waiting = []
        view = memoryview(body)
        at = 0
        for index, length in enumerate(lengths):
            waiting.append(Waiting(bytes(view[at : at + length]), numbers.get(index, 0), context))
            at += length
        self._neighbours.offer(port, address, waiting, now, out)

    def flush(self, neighbour: Neighbour, waiting: list[Waiting], now: float, out: list[Output]) -> None:
        """Packets that waited, to the neighbour that is resolved now."""
        neighbour.used = now
        body, lengths = pack([packet for packet, _, _ in waiting])
        marks = tuple((index, mark) for index, (_, mark, _) in enumerate(waiting) if mark)
        self._to_wire(neighbour.port, neighbour.link, body, lengths, marks, now, out)

    def _to_wire(
        self,
        port: LineCardPort,
        link: bytes,
        body: Writable,
        lengths: array[int],
        marks: tuple[Mark, ...],
        now: float,
        out: list[Output],
    ) -> None:
        write_link_headers(body, lengths, link)
        name = port.record.port
        batch = Batch(Step.OUT, body, lengths, port=name, marks=marks)
        if marks:
            self._card.stamp(batch, f"{name} out", now)
        out.append(ToWire(name, batch))

    def _fit(
        self,
        port: LineCardPort,
        body: Writable,
        lengths: array[int],
        marks: tuple[Mark, ...],
        context: int,
        now: float,
        out: list[Output],
    ) -> tuple[bytearray, array[int], tuple[Mark, ...]]:
        mtu = port.record.mtu
        fitted = fit_to_mtu(body, lengths, MtuLimits(mtu, mtu), marks)
        if fitted.malformed:
            self._card.drop(DropCause.HEADER, fitted.malformed)
        for packet in fitted.too_long:
            # The headroom before the packet.
            alone = HEADROOM_FILL + packet
            self._dropped(DropCause.TOO_LONG, alone, array("H", (len(alone),)), context, now, out, mtu)
        self._balance.values[self._balance.made] += fitted.fragments
        return fitted.body, fitted.lengths, fitted.marks
