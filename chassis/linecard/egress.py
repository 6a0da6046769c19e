"""Out of a port: MTU, link header, and waiting for the neighbour's address.

In: batches with a next hop on a port of this card. Out: frames (`ToWire`), ARP requests, and ICMP errors about
what can't leave (RFC 1812 5.2.7.1).
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from chassis.bus.batch import Batch, Step, TraceMark, pack
from chassis.bus.card import CardBase
from chassis.bus.engine import Output, ToWire
from chassis.bus.runs import Hops
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.forwarder import Forwarder, Origin
from chassis.fwd.mtu import MtuLimits, fit_to_mtu
from chassis.fwd.rewrite import write_link_headers, write_link_headers_of_runs
from chassis.linecard.arp import ArpTable, Neighbour, WaitingPacket
from chassis.linecard.counters import PacketCounters
from chassis.linecard.ports import LineCardPort
from chassis.net.columns import Columns, longest
from chassis.net.ethernet import HEADROOM
from chassis.net.types import Writable

UNKNOWN_ORIGIN = Origin(transit=True)
"""Of packets whose sender another card knows, or which waited: if it is this router, it gets no error anyway."""

_EGRESS = Step.EGRESS

_Ready: TypeAlias = tuple[bytes, memoryview, "array[int]"]
"""A run that leaves at once: link header, packets, their lengths."""


class Egress:
    """The last step: from a port and a next hop to frames on the wire."""

    def __init__(self, card: CardBase, forwarder: Forwarder, packets: PacketCounters) -> None:
        self.arp = ArpTable(self._send_queued, self._drop_queued, card.counters, packets)
        self._card = card
        self._forwarder = forwarder
        self._packets = packets

    def transmit_runs(
        self, ports: Mapping[str, LineCardPort], batch: Batch, origin: Origin, now: float
    ) -> list[Output]:
        """Send packets to the neighbours of `batch.hops`; those that leave at once are a batch for each port."""
        if type(batch.hops) is Hops:
            links = self._links(ports, batch.hops, longest(batch.lengths), now)
            if links is not None:
                return self._frames_by_port(batch, batch.hops, links)
        out: list[Output] = []
        ready: dict[str, list[_Ready]] = {}
        view, lengths = memoryview(batch.body), batch.lengths
        most = longest(lengths)
        first = at = 0
        for packets, name, address in batch.hops:
            own = lengths[first : first + packets]
            end = at + sum(own)
            port = ports.get(name)
            fits = port is None or most <= port.limit or max(own) <= port.limit
            link = self.arp.link(port, address, now) if port is not None and port.up and fits else b""
            if link:
                ready.setdefault(name, []).append((link, view[at:end], own))
            else:
                if not fits:
                    # Fragments of them do not leave before the packets before them.
                    out += self._frames_of_runs(ready)
                    ready = {}
                part = Batch(Step.EGRESS, view[at:end], own, context=batch.context, port=name, address=address)
                out += self.transmit(port, part, origin, now)
            first, at = first + packets, end
        if len(ready) == 1 and not out:
            ((name, runs),) = ready.items()
            if len(runs) == len(batch.hops):
                _write_links(batch.body, lengths, runs)
                return [ToWire(name, Batch(Step.EGRESS, batch.body, lengths, port=name))]
        return out + self._frames_of_runs(ready)

    def _links(self, ports: Mapping[str, LineCardPort], hops: Hops, most: int, now: float) -> list[bytes] | None:
        """Return the link header of each run; None if not all packets, whose longest has `most` octets, leave at
        once as they are."""
        addresses = hops.addresses.tolist()
        links = [b""] * len(addresses)
        for place, name in enumerate(hops.ports):
            port = ports.get(name)
            if port is None or not port.up or most > port.limit:
                return None
            if len(hops.ports) == 1:
                return self.arp.links(port, addresses, now)
            runs = (hops.places == place).nonzero()[0].tolist()
            found = self.arp.links(port, [addresses[run] for run in runs], now)
            if found is None:
                return None
            for run, link in zip(runs, found, strict=True):
                links[run] = link
        return links

    def _frames_by_port(self, batch: Batch, hops: Hops, links: list[bytes]) -> list[Output]:
        """Return the frames of each port; the packets of a batch have the link headers of their runs."""
        body, lengths, packets = batch.body, batch.lengths, hops.packets
        write_link_headers_of_runs(body, lengths, packets, links)
        if len(hops.ports) == 1:
            name = hops.ports[0]
            return [ToWire(name, Batch(Step.EGRESS, body, lengths, port=name))]
        places = np.repeat(hops.places, packets)
        out: list[Output] = []
        columns = Columns(body, lengths)
        for place in dict.fromkeys(hops.places.tolist()):
            own = columns.copied((places == place).nonzero()[0])
            name = hops.ports[place]
            out.append(ToWire(name, Batch(Step.EGRESS, *own, port=name)))
        return out

    def _frames_of_runs(self, ready: dict[str, list[_Ready]]) -> list[Output]:
        """Return the frames of each port, of runs (link header, packets, their lengths)."""
        out: list[Output] = []
        for name, runs in ready.items():
            body, lengths = bytearray().join([packets for _, packets, _ in runs]), array("H")
            for _, _, own in runs:
                lengths += own
            _write_links(body, lengths, runs)
            out.append(ToWire(name, Batch(Step.EGRESS, body, lengths, port=name)))
        return out

    def transmit(self, port: LineCardPort | None, batch: Batch, origin: Origin, now: float) -> list[Output]:
        """Send packets to the neighbour `batch.address` of a port; None: the card has no such port.

        Those above the port's MTU are fragmented, or dropped where their sender forbids it.
        """
        if port is None or not batch.address:
            cause = DropCause.NO_PORT if port is None else DropCause.NO_NEXT_HOP
            return self._forwarder.drop(cause, batch, origin, now)
        if not port.up:
            return self._forwarder.drop(DropCause.PORT_DOWN, batch, origin, now)
        out: list[Output] = []
        body, lengths, marks = batch.body, batch.lengths, batch.marks
        if longest(lengths) > port.limit:
            mtu = port.record.mtu
            fitted = fit_to_mtu(body, lengths, MtuLimits(mtu, mtu), marks)
            if fitted.malformed:
                self._card.drop(DropCause.HEADER, fitted.malformed)
            if fitted.too_long:
                self._card.drop(DropCause.TOO_LONG, len(fitted.too_long))
                out += self._forwarder.send_icmp_errors(
                    DropCause.TOO_LONG, fitted.too_long, batch.context, origin, now, mtu
                )
            self._packets.values[self._packets.originated] += fitted.fragments
            body, lengths, marks = fitted.body, fitted.lengths, fitted.marks
            if not lengths:
                return out
        link = self.arp.link(port, batch.address, now)
        if link:
            out.append(self._frames(port, link, body, lengths, marks, now))
            return out
        numbers = dict(marks)
        waiting = []
        view = memoryview(body)
        at = 0
        for index, length in enumerate(lengths):
            packet = bytes(view[at : at + length])
            waiting.append(WaitingPacket(packet, numbers.get(index, 0), batch.context))
            at += length
        return out + self.arp.enqueue(port, batch.address, waiting, now)

    def _send_queued(self, neighbour: Neighbour, waiting: list[WaitingPacket], now: float) -> list[Output]:
        neighbour.used = now
        body, lengths = pack([packet for packet, _, _ in waiting])
        marks = tuple((index, mark) for index, (_, mark, _) in enumerate(waiting) if mark)
        return [self._frames(neighbour.port, neighbour.link, body, lengths, marks, now)]

    def _drop_queued(self, cause: DropCause, waiting: list[WaitingPacket], now: float) -> list[Output]:
        out: list[Output] = []
        self._card.drop(cause, len(waiting))
        for packet, _, context in waiting:
            out += self._forwarder.send_icmp_errors(
                cause, [memoryview(packet)[HEADROOM:]], context, UNKNOWN_ORIGIN, now
            )
        return out

    def _frames(
        self,
        port: LineCardPort,
        link: bytes,
        body: Writable,
        lengths: array[int],
        marks: tuple[TraceMark, ...],
        now: float,
    ) -> Output:
        write_link_headers(body, lengths, link)
        name = port.record.port
        batch = Batch(_EGRESS, body, lengths, port=name)
        if marks:
            batch.marks = marks
            self._card.add_stamp(batch, f"{name} out", now)
        return ToWire(name, batch)


def _write_links(body: Writable, lengths: array[int], runs: Sequence[_Ready]) -> None:
    """Write the link headers of all runs of a batch."""
    write_link_headers_of_runs(body, lengths, [len(own) for _, _, own in runs], [link for link, _, _ in runs])
