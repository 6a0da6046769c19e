"""Security associations that IKE makes: from its messages into the database, and what IKE and the controller hear
of them.

IKE decides which pair of a line sends; several may receive side by side. What only the data path can know, that a
pair was used for the first time, has carried its kilobytes or its numbers, or that its peer is elsewhere, is found
once a batch, never once a packet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf

from chassis.ase.ike.settings import read_settings
from chassis.ase.ipsec.causes import Notice, NoticeKind
from chassis.ase.ipsec.decapsulate import Decapsulator
from chassis.ase.ipsec.sa import SaError, UdpPorts
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.link import (
    Encapsulation,
    IkeState,
    NoSa,
    PeerMoved,
    PeerSeen,
    SaDelete,
    SaExpiring,
    SaInstall,
    SaMove,
    SaSeen,
    SaSwitch,
)
from chassis.ase.sa_builder import Incomplete, SaPair, negotiated_pair, sa_reports
from chassis.ase.tunnels import AspTunnel, TunnelTable
from chassis.bus.engine import Output, ToController, ToIke
from chassis.bus.messages import Attributes, SaEvent
from chassis.bus.records import TunnelRecord
from chassis.bus.replication import RecordChange

PEER_ALIVE_INTERVALS = (0.02, 1.0)
"""Least and most seconds between two messages about tunnels whose peers were heard: a tenth of the time after
which a silent peer is asked whether it lives, so that a late word does not put off the question by much."""

ACQUIRE_INTERVAL = 1.0
"""Seconds between two messages about one policy line without SA."""

SA_REPORT_DELAY = 0.05
"""Seconds in which changes of a tunnel's SAs become one report of the tunnel."""

MAX_REPORTS = 500
"""Tunnels that are reported in one go."""


@dataclass(slots=True)
class _SaUsage:
    """What is known of a pair beyond what it is: whether it ever sent, what was said of it, where its peer is."""

    sent: bool
    seen: bool = False
    soft: bool = False
    origin: tuple[int, int] | None = None


class NegotiatedSas:
    """The pairs of all negotiated tunnels of an ASP. Its calls return outputs."""

    def __init__(self, sadb: Sadb, tunnels: TunnelTable) -> None:
        self._sadb = sadb
        self._tunnels = tunnels
        self._usages: dict[int, dict[int, _SaUsage]] = {}
        """By tunnel and serial."""
        self._peers: set[int] = set()
        self._peer_interval = PEER_ALIVE_INTERVALS[1]
        self._peers_report_at = -inf
        """When the next word about peers may be said."""
        self._acquire_at: dict[int, dict[int, float]] = {}
        """When a policy line without SA may be named again, by tunnel and line."""
        self._to_report: dict[int, None] = {}
        self._reports_at = inf

    # what IKE says

    def install(self, message: SaInstall) -> list[Output]:
        """Put a pair to work: it receives at once, before anything is sent that the peer could answer."""
        state = self._tunnel(message.tunnel)
        if state is None or (state.record.local, state.record.remote) != (message.local, message.remote):
            # IKE has not heard yet that the tunnel is another one, or gone; it deletes what it made.
            return []
        name = (message.tunnel, message.serial)
        try:
            pair = negotiated_pair(state.record, message)
            self._sadb.install_inbound(pair.inbound)
            try:
                self._sadb.install_outbound(pair.outbound, pair.lease, message.send)
            except SaError:
                self._sadb.remove_inbound(*name)
                raise
        except (SaError, Incomplete) as error:
            return [ToIke(SaExpiring(*name, True, f"not installed: {error}"))]
        origin = None
        if message.encapsulation:
            way = message.encapsulation[0]
            origin = (way.remote, way.remote_port)
        # The lines may have changed since IKE negotiated.
        self._sadb.restrict_selectors(*name)
        self._usages.setdefault(message.tunnel, {})[message.serial] = _SaUsage(message.send, origin=origin)
        outputs: list[Output] = []
        if message.replaces:
            spi = pair.outbound.protocols[0][1]
            for old in state.pairs:
                if old.outbound.serial == message.replaces:
                    outputs += _sa_events(old, "rekeyed", f"by SPI {spi}")
        state.pairs = (*state.pairs, pair)
        self._acquire_at.get(message.tunnel, {}).pop(message.entry, None)
        outputs += _sa_events(pair, "installed", "initiator" if message.initiator else "responder")
        return outputs + self._evaluate(state)

    def activate_outbound(self, message: SaSwitch) -> list[Output]:
        """Send by this pair from now on."""
        usage = self._usage(message.tunnel, message.serial)
        if usage is not None and self._tunnel(message.tunnel) is not None:
            try:
                self._sadb.activate_outbound(message.tunnel, message.serial)
            except SaError:
                return []
            usage.sent = True
        return []

    def delete(self, message: SaDelete) -> list[Output]:
        """Take a pair away."""
        return self._remove(message.tunnel, message.serial, "deleted", message.reason)

    def update_address(self, message: SaMove) -> list[Output]:
        """Send a pair's packets to another place."""
        state = self._tunnel(message.tunnel)
        pair = None if state is None else _find_pair(state, message.serial)
        if state is None or pair is None:
            return []
        way: Encapsulation = message.encapsulation
        try:
            outbound = replace(
                pair.outbound, destination=way.remote, udp=UdpPorts(way.local_port, way.remote_port)
            )
            self._sadb.update_outbound(outbound)
        except SaError:
            # AH has no way through a NAT: IKE never asks for that.
            return []
        moved = replace(pair, outbound=outbound)
        state.pairs = tuple([moved if other is pair else other for other in state.pairs])
        self._usages[message.tunnel][message.serial].origin = (way.remote, way.remote_port)
        return self._evaluate(state)

    def on_expiring(self, message: SaExpiring) -> list[Output]:
        """A pair is to be replaced because of its age: IKE is at it, and the controller hears of it once."""
        return self._report_expiring(message.tunnel, message.serial, message.reason)

    def on_tunnel_state(self, message: IkeState) -> list[Output]:
        """IKE's word on a tunnel: told on at once where it decides whether the tunnel is up."""
        state = self._tunnel(message.tunnel)
        if state is None:
            return []
        state.ike = message
        return self._evaluate(state)

    # what the data path says

    def on_inbound_traffic(self, decapsulators: Iterable[Decapsulator]) -> list[Output]:
        """Authentic packets came by these SAs."""
        outputs: list[Output] = []
        for decapsulator in decapsulators:
            sa = decapsulator.sa
            self._peers.add(sa.tunnel)
            usage = self._usage(sa.tunnel, sa.serial)
            if usage is None:
                continue
            if not usage.seen:
                usage.seen = True
                if not usage.sent:
                    outputs.append(ToIke(SaSeen(sa.tunnel, sa.serial)))
            if decapsulator.udp_source is not None and decapsulator.udp_source != usage.origin:
                usage.origin = decapsulator.udp_source
                outputs.append(ToIke(PeerMoved(sa.tunnel, sa.serial, *decapsulator.udp_source)))
            limits = sa.lifetime
            if limits.hard and decapsulator.octets >= limits.hard:
                outputs += self._hard_expire(sa.tunnel, sa.serial, NoticeKind.HARD_OCTETS)
            elif limits.soft and decapsulator.octets >= limits.soft:
                outputs += self._soft_expire(sa.tunnel, sa.serial, NoticeKind.SOFT_OCTETS)
        return outputs

    def on_sa_notice(self, notice: Notice) -> list[Output]:
        """An outbound SA has something to say."""
        if notice.kind in (NoticeKind.SEQUENCE_EXHAUSTED, NoticeKind.HARD_OCTETS):
            return self._hard_expire(notice.tunnel, notice.serial, notice.kind)
        return self._soft_expire(notice.tunnel, notice.serial, notice.kind)

    def on_acquire(self, tunnel: int, entries: Iterable[int], now: float) -> list[Output]:
        """Packets matched lines of a tunnel that have no SA."""
        outputs: list[Output] = []
        if self._tunnel(tunnel) is None:
            return outputs
        again = self._acquire_at.setdefault(tunnel, {})
        for entry in entries:
            if now >= again.get(entry, -inf):
                again[entry] = now + ACQUIRE_INTERVAL
                outputs.append(ToIke(NoSa(tunnel, entry)))
        return outputs

    # what the records say

    def apply_settings(self, settings: Attributes) -> None:
        """The node's settings, as IKE reads them."""
        least, most = PEER_ALIVE_INTERVALS
        self._peer_interval = min(max(read_settings(settings)[0].dpd_interval / 10, least), most)

    def apply_records(self, change: RecordChange) -> None:
        """Records changed: forget what is known of pairs and lines that are no more."""
        for record in (*change.put, *change.deleted):
            if isinstance(record, TunnelRecord):
                number = record.number
                self._acquire_at.pop(number, None)
                usages = self._usages.pop(number, {})
                kept = {serial: usage for serial, usage in usages.items() if self._is_installed(number, serial)}
                if kept:
                    self._usages[number] = kept

    # time

    def on_timer(self, now: float) -> list[Output]:
        """What was gathered and is due. Reports of tunnels are those of the caller (`due`)."""
        if not self._peers or now < self._peers_report_at:
            return []
        peers = tuple(sorted(self._peers & self._tunnels.states.keys()))
        self._peers.clear()
        self._peers_report_at = now + self._peer_interval
        return [ToIke(PeerSeen(peers))] if peers else []

    def pop_reports(self, now: float) -> list[AspTunnel]:
        """Tunnels with news to report: the caller does it."""
        if self._to_report and self._reports_at == inf:
            self._reports_at = now + SA_REPORT_DELAY
        if now < self._reports_at:
            return []
        states = []
        for number in list(self._to_report)[:MAX_REPORTS]:
            del self._to_report[number]
            state = self._tunnels.states.get(number)
            if state is not None and state.last_report != state.pending_report:
                states.append(state)
        self._reports_at = now if self._to_report else inf
        return states

    def next_timer(self) -> float:
        peers_at = self._peers_report_at if self._peers else inf
        reports_at = -inf if self._to_report and self._reports_at == inf else self._reports_at
        return min(peers_at, reports_at)

    # inside

    def _tunnel(self, tunnel: int) -> AspTunnel | None:
        state = self._tunnels.states.get(tunnel)
        return state if state is not None and state.negotiated else None

    def _usage(self, tunnel: int, serial: int) -> _SaUsage | None:
        return self._usages.get(tunnel, {}).get(serial)

    def _is_installed(self, tunnel: int, serial: int) -> bool:
        return (tunnel, serial) in self._sadb.inbound

    def _evaluate(self, state: AspTunnel) -> list[Output]:
        state.evaluate()
        self._to_report[state.record.number] = None
        return []

    def _soft_expire(self, tunnel: int, serial: int, kind: NoticeKind) -> list[Output]:
        """A pair is to be replaced: said once, whichever of its SAs found out first."""
        events = self._report_expiring(tunnel, serial, str(kind))
        return [ToIke(SaExpiring(tunnel, serial, False, str(kind))), *events] if events else []

    def _report_expiring(self, tunnel: int, serial: int, reason: str) -> list[Output]:
        """What the controller is told of a pair that is to be replaced; nothing when it was told before."""
        usage = self._usage(tunnel, serial)
        state = self._tunnel(tunnel)
        pair = None if state is None else _find_pair(state, serial)
        if usage is None or usage.soft or pair is None:
            return []
        usage.soft = True
        return _sa_events(pair, "expiring", reason)

    def _hard_expire(self, tunnel: int, serial: int, kind: NoticeKind) -> list[Output]:
        """A pair has carried all it may: it is gone, both ways (RFC 4301 4.4.2.1)."""
        if not self._is_installed(tunnel, serial):
            return []
        return [
            ToIke(SaExpiring(tunnel, serial, True, str(kind))),
            *self._remove(tunnel, serial, "deleted", str(kind)),
        ]

    def _remove(self, tunnel: int, serial: int, event: str, reason: str) -> list[Output]:
        state = self._tunnel(tunnel)
        pair = None if state is None else _find_pair(state, serial)
        self._usages.get(tunnel, {}).pop(serial, None)
        if state is None or pair is None:
            return []
        self._sadb.remove_outbound(tunnel, serial)
        self._sadb.remove_inbound(tunnel, serial)
        state.pairs = tuple([other for other in state.pairs if other is not pair])
        return [*_sa_events(pair, event, reason), *self._evaluate(state)]


def _find_pair(state: AspTunnel, serial: int) -> SaPair | None:
    return next((pair for pair in state.pairs if pair.outbound.serial == serial), None)


def _sa_events(pair: SaPair, event: str, reason: str) -> list[Output]:
    return [ToController(SaEvent(sa, event, reason)) for sa in sa_reports((pair,))]
