"""Traces: mark packets as they enter the node.

A request arms a trace. The next packets that match it are marked in their batch, with the numbers from `number`
on, and every process on their path stamps them. Packets may come marked by a wire as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chassis.bus.batch import Batch, TraceMark
from chassis.bus.messages import Attributes
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH

MAX_TRACED_PACKETS = 1000
"""Traces (count) that wait for packets, at most: each of them compares every packet."""


@dataclass(slots=True)
class ArmedTrace:
    """A trace that still has packets to mark; 0, -1 and empty match anything."""

    number: int
    left: int
    port: str
    source: int
    destination: int
    protocol: int

    def matches(self, packet: memoryview) -> bool:
        """Return whether an IPv4 packet (without headroom) is one to trace."""
        if len(packet) < IPV4_HEADER_LENGTH or packet[0] >> 4 != 4:
            return False
        if self.protocol >= 0 and packet[9] != self.protocol:
            return False
        if self.source and int.from_bytes(packet[12:16], "big") != self.source:
            return False
        return not self.destination or int.from_bytes(packet[16:20], "big") == self.destination


class Tracer:
    """The armed traces of a card."""

    def __init__(self) -> None:
        self.armed: list[ArmedTrace] = []

    def arm(self, arguments: Attributes) -> None:
        """Arm a trace with the arguments of the table (`chassis.bus.requests`).

        Raises:
            ValueError: MAX_TRACED_PACKETS traces wait for packets already.
        """
        if len(self.armed) >= MAX_TRACED_PACKETS:
            raise ValueError(f"{MAX_TRACED_PACKETS} traces wait for packets already")
        asked: dict[str, Any] = dict(arguments)
        names = ("number", "count", "port", "source", "destination", "protocol")
        self.armed.append(ArmedTrace(*[asked[name] for name in names]))

    def mark_packets(self, port: str, batch: Batch) -> None:
        """Mark the packets of a batch that an armed trace waits for; the marks of the batch stay."""
        marks: list[TraceMark] = list(batch.marks)
        taken = {index for index, _ in marks}
        for index, packet in enumerate(batch.packets()):
            if index in taken:
                continue
            for trace in self.armed:
                if (not trace.port or trace.port == port) and trace.matches(packet[HEADROOM:]):
                    marks.append((index, trace.number))
                    trace.number += 1
                    trace.left -= 1
                    break
            self.armed = [trace for trace in self.armed if trace.left]
            if not self.armed:
                break
        batch.marks = tuple(sorted(marks))
