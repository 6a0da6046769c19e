"""Echo requests of the router itself, for an operator's `ping` (RFC 792)."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any

from chassis.bus.engine import Output, ToController
from chassis.bus.messages import Attributes, Reply, Request, Value
from chassis.fwd.forwarder import Forwarder
from chassis.fwd.tables import ForwardingTables
from chassis.net import icmp
from chassis.net.address import format_address
from chassis.net.icmp import Icmp
from chassis.net.ipv4 import PROTOCOL_ICMP, Ipv4

_FINAL = frozenset((icmp.UNREACHABLE, icmp.TIME_EXCEEDED, icmp.PARAMETER_PROBLEM))
"""ICMP errors after which no reply comes."""

_SLOT_SHIFT = 12
_NUMBER_MASK = (1 << _SLOT_SHIFT) - 1


def card_of(identifier: int) -> str:
    """Return the line card that sent echo requests with this identifier."""
    return f"lc {identifier >> _SLOT_SHIFT}"


@dataclass(slots=True)
class Ping:
    """One run. `sent_at` holds the times of requests that are not answered."""

    request: int
    identifier: int
    context: int
    source: int
    destination: int
    count: int
    interval: float
    timeout: float
    size: int
    ttl: int
    trace: int
    sent: int = 0
    due: float = 0.0
    last: float = 0.0
    sent_at: dict[int, float] = field(default_factory=dict)
    replies: list[dict[str, Value]] = field(default_factory=list)
    errors: list[Value] = field(default_factory=list)
    refusals: list[dict[str, Value]] = field(default_factory=list)
    """Those of them that end a request, with the time that it took (ms)."""


class PingSessions:
    """All runs under way; each is answered with one `Reply` at its end."""

    def __init__(self, card: str, forwarder: Forwarder, tables: ForwardingTables) -> None:
        self._slot = int(card.split()[-1]) if card.split()[-1].isdigit() else 0
        self._forwarder = forwarder
        self._tables = tables
        self._runs: dict[int, Ping] = {}
        self._number = 0
        self._identification = 0

    def start(self, request: Request, context: int, now: float) -> list[Output]:
        """Begin a run with the arguments of the table (`chassis.bus.requests`).

        Raises:
            ValueError: the context has no address to send from.
        """
        asked: dict[str, Any] = dict(request.arguments)
        destination = asked["address"]
        source = asked["source"] or self._source(context, destination)
        if not source:
            raise ValueError("the context has no address to ping from")
        self._number = (self._number + 1) & _NUMBER_MASK
        run = Ping(
            request=request.number,
            identifier=self._slot << _SLOT_SHIFT | self._number,
            context=context,
            source=source,
            destination=destination,
            count=asked["count"],
            interval=asked["interval"],
            timeout=asked["timeout"],
            size=asked["size"],
            ttl=asked["ttl"],
            trace=asked["trace"],
            due=now,
        )
        self._runs[run.identifier] = run
        return self._send(run, now)

    def on_reply(self, packet: Ipv4, message: Icmp, now: float) -> list[Output]:
        """Act on an echo reply with an identifier of this card."""
        run = self._runs.get(message.identifier)
        if run is None or packet.source != run.destination:
            return []
        at = run.sent_at.pop(message.sequence, None)
        if at is None:
            return []
        milliseconds = round((now - at) * 1000, 3)
        run.replies.append({"sequence": message.sequence, "ms": milliseconds, "ttl": packet.ttl})
        return self._finish_if_answered(run)

    def on_error(self, packet: Ipv4, message: Icmp, quoted: Icmp, now: float) -> list[Output]:
        """Act on an ICMP error about one of our requests."""
        run = self._runs.get(quoted.identifier)
        if run is None or quoted.sequence not in run.sent_at:
            return []
        source = format_address(packet.source)
        if len(run.errors) < run.count:
            run.errors.append(f"{source}: type {message.type} code {message.code} (sequence {quoted.sequence})")
        if message.type not in _FINAL:
            return []
        at = run.sent_at.pop(quoted.sequence)
        run.refusals.append(
            {
                "sequence": quoted.sequence,
                "ms": round((now - at) * 1000, 3),
                "address": source,
                "type": message.type,
                "code": message.code,
            }
        )
        return self._finish_if_answered(run)

    def on_timer(self, now: float) -> list[Output]:
        out: list[Output] = []
        for run in [run for run in self._runs.values() if run.due <= now]:
            out += self._send(run, now) if run.sent < run.count else self._finish(run)
        return out

    def next_timer(self) -> float:
        """Return the time of the next call of `on_timer`, or infinity."""
        return min([run.due for run in self._runs.values()]) if self._runs else inf

    def _source(self, context: int, destination: int) -> int:
        return self._tables.egress_address(context, self._tables.decider.decide_destination(context, destination))

    def _send(self, run: Ping, now: float) -> list[Output]:
        run.sent += 1
        sequence = run.sent & 0xFFFF
        run.sent_at[sequence] = now
        run.last = now
        run.due = now + (run.interval if run.sent < run.count else run.timeout)
        self._identification = (self._identification + 1) & 0xFFFF
        data = bytes(n & 0xFF for n in range(run.size))
        packet = Ipv4(
            source=run.source,
            destination=run.destination,
            protocol=PROTOCOL_ICMP,
            payload=icmp.echo_request(run.identifier, sequence, data).emit(),
            ttl=run.ttl,
            identification=self._identification,
        )
        marks = ((0, run.trace),) if run.trace and run.sent == 1 else ()
        return self._forwarder.originate(run.context, packet.emit(), now, marks=marks)

    def _finish_if_answered(self, run: Ping) -> list[Output]:
        return self._finish(run) if run.sent == run.count and not run.sent_at else []

    def _finish(self, run: Ping) -> list[Output]:
        del self._runs[run.identifier]
        result: Attributes = {
            "source": format_address(run.source),
            "address": format_address(run.destination),
            "sent": run.sent,
            "received": len(run.replies),
            "replies": run.replies,
            "errors": run.errors,
            "refusals": run.refusals,
        }
        return [ToController(Reply(run.request, result))]
