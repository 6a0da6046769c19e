"""What cards report: carrier of ports, tunnels whose SAs are installed, SAs, log records and trace stamps.

Reports about tunnels are gathered for `TUNNEL_REPORT_DELAY`, because thousands of tunnels may come up together.
Before the first plan is made they are kept, with what the ASPs' hellos report.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Final

from chassis.bus.engine import Output
from chassis.bus.messages import (
    Hello,
    LogRecord,
    NeighbourEvent,
    PeerNetworks,
    PortEvent,
    SaEvent,
    TraceStamps,
    TunnelEvent,
    Value,
)
from chassis.bus.records import TunnelRecord
from chassis.net.rate import TokenBucket
from chassis.xcrp.cards import CardEntry
from chassis.xcrp.id_allocator import LEASE_SIZE
from chassis.xcrp.inventory import ASP, LINE_CARD
from chassis.xcrp.state import ControllerState

TUNNEL_REPORT_DELAY: Final = 0.002
BUSY_DELAY: Final = 0.05
MAX_BURST: Final = 20
"""Times (s) for which reports about tunnels are gathered: thousands that come up together are one change. Each one
costs every card something: where more than this burst (count) follow each other, the longer time is taken."""

Receiver = Callable[[CardEntry, Any, float], list[Output]]


@dataclass(slots=True)
class _BeforePlan:
    """What an ASP reported before the first plan: the tunnels of which it holds SAs, the networks behind their
    peers, its last report about each tunnel, and the instances of on-demand tunnels that it holds."""

    tunnels: set[int] = field(default_factory=set)
    networks: tuple[PeerNetworks, ...] = ()
    reports: dict[int, TunnelEvent] = field(default_factory=dict)
    instances: Sequence[TunnelRecord] = ()


class Reports:
    """Acts on the reports of cards. Each receiver gets the card, the message and the time, and returns
    outputs."""

    def __init__(self, state: ControllerState) -> None:
        self._state = state
        self._node = state.node
        self._before_plan: dict[str, _BeforePlan] = {}
        """By ASP."""
        self._gathered: dict[int, TunnelEvent] = {}
        """The last report about each tunnel that is not acted on yet."""
        self._flush_at = inf
        self._budget = TokenBucket(1 / BUSY_DELAY, MAX_BURST)
        self.receivers: dict[type, Receiver] = {
            PortEvent: self._on_port,
            NeighbourEvent: lambda entry, message, now: [],
            TunnelEvent: self._on_tunnel,
            SaEvent: self._on_sa,
            LogRecord: self._on_log_record,
            TraceStamps: self._on_trace_stamps,
        }

    def next_timer(self) -> float:
        return self._flush_at

    def on_timer(self, now: float) -> list[Output]:
        if now < self._flush_at:
            return []
        lines = self.process_gathered(now)
        return self._state.publish() + self._state.events(lines, now)

    def publish(self, urgent: Collection[str], now: float) -> list[Output]:
        """Publish what changed: at once to `urgent` cards, and to the others too unless many changes follow each
        other, of which they are told together."""
        if self._budget.consume(now):
            return self._state.publish()
        self._flush_at = min(self._flush_at, now + BUSY_DELAY)
        return self._state.publish(urgent)

    def process_gathered(self, now: float) -> list[str]:
        """Act on the gathered reports; return history lines. Call it before a commit: they belong to the old
        plan."""
        gathered, self._gathered = self._gathered, {}
        self._flush_at = inf
        lines = self._node.on_tunnel_reports(gathered, now)
        self.log_notes(now)
        return lines

    def log_notes(self, now: float) -> None:
        """Log which networks of peers have no route."""
        notes, self._node.selectors.notes = self._node.selectors.notes, []
        for tunnel, text in notes:
            self._state.log("warning", "ipsec", text, now, tunnel=tunnel)

    def process_before_plan(self, now: float) -> None:
        """Act on what ASPs reported before the first plan, which was made just now."""
        before, self._before_plan = self._before_plan, {}
        for asp, held in before.items():
            self._node.on_held_tunnels(asp, held.tunnels, now, held.networks)
        asp_of = {number: tunnel.asp for number, tunnel in self._node.plan.tunnels.items()}
        reports = {
            number: report
            for asp, held in before.items()
            for number, report in held.reports.items()
            if asp_of.get(number) == asp
        }
        self._node.on_tunnel_reports(reports, now)
        self.log_notes(now)

    def held_instances(self) -> list[TunnelRecord]:
        """Return the instances that ASPs reported before the first plan."""
        return [record for held in self._before_plan.values() for record in held.instances]

    def adopt(self, entry: CardEntry, hello: Hello, held: Sequence[TunnelRecord], now: float) -> list[str]:
        """Adopt the operational state that a hello reports, with the instances `held`; return history lines."""
        if entry.kind != ASP:
            slot = entry.card.removeprefix("lc ") + "/"
            carrier = {port for port in self._node.carrier if not port.startswith(slot)}
            self._node.carrier = carrier | {port for port in hello.ports if port.startswith(slot)}
            return []
        tunnels = {sa.tunnel for sa in hello.sas}
        if self._state.reconciled:
            self.remove(entry.card)
            lines = self._node.on_held_instances(entry.card, held, now)
            lines += self._node.on_held_tunnels(entry.card, tunnels, now, hello.networks)
            self.log_notes(now)
            return lines
        before = self._before_plan.setdefault(entry.card, _BeforePlan())
        before.tunnels, before.networks, before.instances = tunnels, hello.networks, held
        return []

    def remove(self, asp: str) -> None:
        """Remove the reports of an ASP that are not acted on yet."""
        self._before_plan.pop(asp, None)
        for number in self._node.plan.tunnels_by_asp.get(asp, ()):
            self._gathered.pop(number, None)

    def _on_port(self, entry: CardEntry, message: PortEvent, now: float) -> list[Output]:
        node, state = self._node, self._state
        slot = entry.card.removeprefix("lc ") + "/"
        if entry.kind != LINE_CARD or not message.port.startswith(slot):
            state.count_ignored("event of a port of another card")
            return []
        if message.up == (message.port in node.carrier):
            return []
        (node.carrier.add if message.up else node.carrier.discard)(message.port)
        if not state.reconciled:
            return []
        lines = node.update_ports([message.port], now)
        word = "up" if message.up else f"down ({message.reason})" if message.reason else "down"
        return state.publish() + state.events([f"port {message.port} {word}", *lines], now)

    def _on_tunnel(self, entry: CardEntry, message: TunnelEvent, now: float) -> list[Output]:
        if not self._state.reconciled:
            before = self._before_plan.setdefault(entry.card, _BeforePlan())
            (before.tunnels.add if message.up else before.tunnels.discard)(message.tunnel)
            before.reports[message.tunnel] = message
            return []
        planned = self._node.plan.tunnels.get(message.tunnel)
        if planned is None or planned.asp != entry.card or not entry.expects_heartbeats:
            self._state.count_ignored("report about a tunnel of another ASP")
            return []
        self._gathered[message.tunnel] = message
        if self._flush_at == inf:
            self._flush_at = now + (TUNNEL_REPORT_DELAY if self._budget.consume(now) else BUSY_DELAY)
        return []

    def _on_sa(self, entry: CardEntry, message: SaEvent, now: float) -> list[Output]:
        node, state = self._node, self._state
        planned = node.plan.tunnels.get(message.sa.tunnel)
        if planned is None or planned.asp != entry.card or not state.reconciled:
            state.count_ignored("report about an SA of another ASP")
            return []
        if message.event != "lease":
            node.sas.update(message, now)
            sa, reason = message.sa, f": {message.reason}" if message.reason else ""
            text = (
                f"tunnel {planned.config.name}: {sa.protocol} SA {sa.spi} {sa.direction} {message.event}{reason}"
            )
            about: dict[str, Value] = {"card": entry.card, "tunnel": planned.config.name}
            state.record(LogRecord(now, "informational", "ipsec", f"sa-{message.event}", text, about))
            if message.event == "rekeyed" and planned.number in node.waiting:
                # New SAs were negotiated: what waited for that counts from now on.
                lines = self.process_gathered(now) + node.let_go([planned.number], now)
                return state.publish() + state.events(lines, now)
            return state.event(text, now) if message.event == "exhausted" else []
        lease = node.numbers.leases.get((planned.number, message.sa.serial))
        # An ASP that has more than half of the lease left sent this before it saw the last extension.
        if lease is None or 0 < message.next_sequence < lease.end - LEASE_SIZE // 2:
            return []
        node.numbers.extend_lease(planned.number, message.sa.serial, message.next_sequence)
        node.publish_tunnel(planned.number)
        return state.publish()

    def _on_log_record(self, entry: CardEntry, message: LogRecord, now: float) -> list[Output]:
        values = {"card": entry.card, **message.values}
        self._state.record(replace(message, values=values))
        return []

    def _on_trace_stamps(self, entry: CardEntry, message: TraceStamps, now: float) -> list[Output]:
        self._state.history.stamps(message.stamps)
        return []
