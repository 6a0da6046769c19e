"""An ASP with a rate: packets of any class for it, the passing of time, and what leaves."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from chassis.ase import queues
from chassis.bus.batch import Batch
from chassis.bus.messages import Attributes, Reply, Request, Welcome
from chassis.bus.records import ContextRecord, Record
from chassis.net.ipv4 import PROTOCOL_UDP, Ipv4
from tests.support.asp import CIRCUIT, ip, packets_of, records
from tests.support.asp_negotiated import Side

RATE = 1000
"""Packets a second: a packet a millisecond, and ten at once after a pause."""

AT_ONCE = int(RATE * queues.RATE_BURST_INTERVAL)

Sent = list[tuple[str, Batch]]


def clear(
    dscp: int = 0, number: int = 0, destination: str = "60.0.0.1", size: int = 100, df: bool = False
) -> bytes:
    """A packet whose payload is its own."""
    payload = struct.pack("!HHHHI", 1000, 2000, size - 20, 0, number).ljust(size - 20, b"x")
    return Ipv4(ip("50.0.0.1"), ip(destination), PROTOCOL_UDP, payload, tos=dscp << 2, dont_fragment=df).emit()


def table(dscp: int) -> int:
    """Table 3 as the guide prints it, its gaps filled by the same rule: two class selectors a queue."""
    return {0: 3, 1: 3, 2: 2, 3: 2, 4: 1, 5: 1, 6: 0, 7: 0}[dscp >> 3]


def side(rate: str | None = f"{RATE}pps", made: Sequence[Record] | None = None, **tunnel: object) -> Side:
    """A router whose ASP has a rate, and four queues for each SA."""
    tunnel = {"queues": 4, **tunnel}
    one = Side(records(**tunnel) if made is None else made)  # type: ignore[arg-type]
    pace(one, rate)
    return one


def pace(one: Side, rate: str | None) -> None:
    given: Attributes = {} if rate is None else {"asp-rate": rate}
    one.take(one.asp.receive(Welcome(one.epoch, one.publisher.version, 0.1, 5, given), one.now))
    one.put(ContextRecord(100 + len(one.said), "changed"))


def busy(one: Side, tunnel: int = CIRCUIT) -> None:
    """Use up what the ASP may do at once."""
    sent = one.protect(tunnel, [clear(number=1_000_000 + number) for number in range(AT_ONCE)])
    assert sum(len(batch) for _, batch in sent) == AT_ONCE


def run(one: Side, seconds: float) -> Sent:
    """Timers at their times; what leaves."""
    sent: Sent = []
    end = one.now + seconds
    while one.asp.next_timer() <= end:
        one.now = max(one.now, one.asp.next_timer())
        sent += one.take(one.asp.on_timer(one.now))
        one.check_counts()
    one.now = end
    return sent


def numbers(sent: Sent) -> list[int]:
    """Sequence numbers of ESP, in the order of the wire."""
    return [int.from_bytes(packet[24:28], "big") for _, batch in sent for packet in packets_of(batch)]


def opened(there: Side, sent: Sent) -> list[bytes]:
    """What comes out at the other router, in order."""
    return [packet for _, batch in sent for _, out in there.open(batch) for packet in packets_of(out)]


def seen(one: Side, tunnel: int | None = None) -> dict[str, Any]:
    arguments: Attributes = {} if tunnel is None else {"tunnel": tunnel}
    one.take(one.asp.receive(Request(1, "queues", arguments), one.now))
    (reply,) = one.heard(Reply)
    assert not reply.error
    return dict(reply.result)
