"""SAs that IKE makes: from IKE's messages into the SA database, and reports of them to IKE and the controller.

IKE decides which pair of an SPD entry sends; several pairs may receive at the same time. The data path detects the
first use of a pair, the end of its octets or sequence numbers, and a changed address of the peer. It is asked once
a batch, never once a packet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

from chassis.ase.ike.host import read_settings
from chassis.ase.ike_messages import (
    Acquire,
    IkeTunnelState,
    NatMappingChanged,
    PeerAlive,
    PeerUsesSa,
    SaActivateOutbound,
    SaDelete,
    SaExpire,
    SaInstall,
    SaMessage,
    SaUpdateAddress,
    UdpEncapsulation,
)
from chassis.ase.ipsec.causes import Notice, NoticeKind
from chassis.ase.ipsec.decapsulator import Decapsulator
from chassis.ase.ipsec.inbound_table import NO_LIMIT
from chassis.ase.ipsec.sa import SaError, UdpPorts
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.sa_builder import Incomplete, SaPair, negotiated_pair, sa_reports
from chassis.ase.tunnels import AspTunnel, TunnelTable
from chassis.bus.engine import Output, ToController, ToIke
from chassis.bus.messages import Attributes, SaEvent
from chassis.bus.records import TunnelRecord
from chassis.bus.replication import RecordChange

PEER_ALIVE_INTERVALS = (0.02, 1.0)
"""Smallest and largest interval (s) between two `PeerAlive` messages. The interval is a tenth of the DPD interval,
so a report delays the next DPD probe by a tenth at most."""

ACQUIRE_INTERVAL = 1.0
"""Interval (s) between two `Acquire` messages about one SPD entry."""

SA_REPORT_DELAY = 0.05
"""Time (s) during which changes of a tunnel's SAs are gathered into one report."""

MAX_REPORTS = 500
"""Tunnels that one call reports."""


@dataclass(slots=True)
class _SaUsage:
    """Use of a pair: whether it was ever the sending one, what was reported of it, and the peer's UDP address."""

    sent: bool
    seen: bool = False
    soft: bool = False
    origin: tuple[int, int] | None = None


class NegotiatedSas:
    """The SA pairs of all negotiated tunnels of an ASP. Each call returns the outputs that follow from it."""

    def __init__(self, sadb: Sadb, tunnels: TunnelTable) -> None:
        self._sadb = sadb
        self._tunnels = tunnels
        self._usages: dict[int, dict[int, _SaUsage]] = {}
        """By tunnel and serial."""
        self._peers: set[int] = set()
        self._peer_interval = PEER_ALIVE_INTERVALS[1]
        self._settings: Attributes | None = None
        self._peers_report_at = -inf
        """When the next `PeerAlive` may be sent."""
        self._acquire_at: dict[int, dict[int, float]] = {}
        """When the next `Acquire` about an entry may be sent, by tunnel and entry."""
        self._to_report: dict[int, None] = {}
        self._reports_at = inf

    # messages of IKE

    def receive(self, message: SaMessage) -> list[Output]:
        """Act on a message of IKE about SAs."""
        match message:
            case SaInstall():
                return self.install(message)
            case SaActivateOutbound():
                return self.activate_outbound(message)
            case SaDelete():
                return self.delete(message)
            case SaUpdateAddress():
                return self.update_address(message)
            case SaExpire():
                return self.on_expiring(message)
            case IkeTunnelState():
                return self.on_tunnel_state(message)

    def install(self, message: SaInstall) -> list[Output]:
        """Install a pair. It receives at once, before anything is sent that the peer could answer."""
        state = self._tunnel(message.tunnel)
        if state is None or (state.record.local, state.record.remote) != (message.local, message.remote):
            # IKE does not know yet that the tunnel changed or was removed; it will delete the SAs.
            return []
        name = (message.tunnel, message.serial)
        try:
            pair = negotiated_pair(state.record, message)
            self._sadb.install_inbound(pair.inbound).quiet_until = 0
            try:
                self._sadb.install_outbound(pair.outbound, pair.lease, message.send)
            except SaError:
                self._sadb.remove_inbound(*name)
                raise
        except (SaError, Incomplete) as error:
            return [ToIke(SaExpire(*name, True, f"not installed: {error}"))]
        origin = None
        if message.encapsulation:
            way = message.encapsulation[0]
            origin = (way.remote, way.remote_port)
        # The SPD entry may have changed since IKE negotiated.
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
        self._evaluate(state)
        return outputs

    def activate_outbound(self, message: SaActivateOutbound) -> list[Output]:
        """Send with this pair from now on."""
        usage = self._usage(message.tunnel, message.serial)
        if usage is not None and self._tunnel(message.tunnel) is not None:
            try:
                self._sadb.activate_outbound(message.tunnel, message.serial)
            except SaError:
                return []
            usage.sent = True
        return []

    def delete(self, message: SaDelete) -> list[Output]:
        """Remove a pair."""
        return self._remove(message.tunnel, message.serial, "deleted", message.reason)

    def update_address(self, message: SaUpdateAddress) -> list[Output]:
        """Send a pair's packets to the peer's new UDP address (RFC 7296 2.23)."""
        state = self._tunnel(message.tunnel)
        pair = None if state is None else _find_pair(state, message.serial)
        if state is None or pair is None:
            return []
        way: UdpEncapsulation = message.encapsulation
        try:
            outbound = replace(
                pair.outbound, destination=way.remote, udp=UdpPorts(way.local_port, way.remote_port)
            )
            self._sadb.update_outbound(outbound)
        except SaError:
            # AH cannot pass a NAT, so IKE never asks for that.
            return []
        moved = replace(pair, outbound=outbound)
        state.pairs = tuple([moved if other is pair else other for other in state.pairs])
        self._usages[message.tunnel][message.serial].origin = (way.remote, way.remote_port)
        self._evaluate(state)
        return []

    def on_expiring(self, message: SaExpire) -> list[Output]:
        """IKE rekeys a pair because of its age. Report it to the controller once."""
        return self._report_expiring(message.tunnel, message.serial, message.reason)

    def on_tunnel_state(self, message: IkeTunnelState) -> list[Output]:
        """Apply IKE's report of a tunnel."""
        state = self._tunnel(message.tunnel)
        if state is None:
            return []
        state.ike = message
        self._evaluate(state)
        return []

    # events of the data path

    def on_inbound_traffic(self, decapsulators: Sequence[Decapsulator], peers: Sequence[int]) -> list[Output]:
        """Authentic packets arrived with these SAs. They did too for tunnels of `peers`, but nothing else follows
        from those (`Decapsulator.quiet_until`)."""
        outputs: list[Output] = []
        if peers:
            self._peers.update(peers)
        for decapsulator in decapsulators:
            self._peers.add(decapsulator.tunnel)
            if decapsulator.is_quiet:
                continue
            sa = decapsulator.sa
            usage = self._usage(sa.tunnel, sa.serial)
            if usage is None:
                continue
            if not usage.seen:
                usage.seen = True
                if not usage.sent:
                    outputs.append(ToIke(PeerUsesSa(sa.tunnel, sa.serial)))
            if decapsulator.udp_source is not None and decapsulator.udp_source != usage.origin:
                usage.origin = decapsulator.udp_source
                outputs.append(ToIke(NatMappingChanged(sa.tunnel, sa.serial, *decapsulator.udp_source)))
            limits = sa.lifetime
            if limits.hard and decapsulator.octets >= limits.hard:
                outputs += self._hard_expire(sa.tunnel, sa.serial, NoticeKind.HARD_OCTETS)
            elif limits.soft and decapsulator.octets >= limits.soft:
                outputs += self._soft_expire(sa.tunnel, sa.serial, NoticeKind.SOFT_OCTETS)
            if not sa.udp:
                # The next thing that octets lead to. IKE may have reported the first limit before.
                left = [limit for limit in (limits.hard, 0 if usage.soft else limits.soft) if limit]
                decapsulator.quiet_until = min(left, default=NO_LIMIT)
        return outputs

    def on_sa_notice(self, notice: Notice) -> list[Output]:
        """An outbound SA has reached a limit of octets or sequence numbers."""
        if notice.kind in (NoticeKind.SEQUENCE_EXHAUSTED, NoticeKind.HARD_OCTETS):
            return self._hard_expire(notice.tunnel, notice.serial, notice.kind)
        return self._soft_expire(notice.tunnel, notice.serial, notice.kind)

    def on_acquire(self, tunnel: int, entries: Iterable[int], now: float) -> list[Output]:
        """Packets matched these SPD entries, which have no SA. Report each entry to IKE once in
        `ACQUIRE_INTERVAL`."""
        outputs: list[Output] = []
        if self._tunnel(tunnel) is None:
            return outputs
        again = self._acquire_at.setdefault(tunnel, {})
        for entry in entries:
            if now >= again.get(entry, -inf):
                again[entry] = now + ACQUIRE_INTERVAL
                outputs.append(ToIke(Acquire(tunnel, entry)))
        return outputs

    # records and settings

    def apply_settings(self, settings: Attributes) -> None:
        """Apply the router's settings."""
        if settings is self._settings:
            return
        self._settings = settings
        least, most = PEER_ALIVE_INTERVALS
        self._peer_interval = min(max(read_settings(settings)[0].dpd_interval / 10, least), most)

    def apply_records(self, change: RecordChange) -> None:
        """Remove what is known of pairs and entries that no longer exist."""
        for record in (*change.put, *change.deleted):
            if isinstance(record, TunnelRecord):
                number = record.number
                self._acquire_at.pop(number, None)
                usages = self._usages.pop(number, {})
                kept = {serial: usage for serial, usage in usages.items() if self._is_installed(number, serial)}
                if kept:
                    self._usages[number] = kept

    # timers

    def on_timer(self, now: float) -> list[Output]:
        """Return the gathered messages to IKE and reports of tunnels that are due."""
        outputs: list[Output] = []
        if self._peers and now >= self._peers_report_at:
            peers = tuple(sorted(self._peers & self._tunnels.local.keys()))
            self._peers.clear()
            self._peers_report_at = now + self._peer_interval
            if peers:
                outputs.append(ToIke(PeerAlive(peers)))
        return outputs + self._tunnel_reports(now)

    def _tunnel_reports(self, now: float) -> list[Output]:
        """Return the reports of changed tunnels that are due."""
        if self._to_report and self._reports_at == inf:
            self._reports_at = now + SA_REPORT_DELAY
        if now < self._reports_at:
            return []
        outputs: list[Output] = []
        for number in list(self._to_report)[:MAX_REPORTS]:
            del self._to_report[number]
            state = self._tunnels.local.get(number)
            if state is not None and state.last_report != state.pending_report:
                outputs.append(state.report())
        self._reports_at = now if self._to_report else inf
        return outputs

    def next_timer(self) -> float:
        """Return the time of the next `on_timer`; -inf if a new change must be scheduled."""
        peers_at = self._peers_report_at if self._peers else inf
        reports_at = -inf if self._to_report and self._reports_at == inf else self._reports_at
        return min(peers_at, reports_at)

    # internals

    def _tunnel(self, tunnel: int) -> AspTunnel | None:
        state = self._tunnels.local.get(tunnel)
        return state if state is not None and state.negotiated else None

    def _usage(self, tunnel: int, serial: int) -> _SaUsage | None:
        return self._usages.get(tunnel, {}).get(serial)

    def _is_installed(self, tunnel: int, serial: int) -> bool:
        return (tunnel, serial) in self._sadb.inbound

    def _evaluate(self, state: AspTunnel) -> None:
        self._sadb.table.forget(state.record.number)
        state.evaluate()
        self._to_report[state.record.number] = None

    def _soft_expire(self, tunnel: int, serial: int, kind: NoticeKind) -> list[Output]:
        """Ask IKE to rekey a pair; once, whichever of its SAs reached its limit first."""
        events = self._report_expiring(tunnel, serial, str(kind))
        return [ToIke(SaExpire(tunnel, serial, False, str(kind))), *events] if events else []

    def _report_expiring(self, tunnel: int, serial: int, reason: str) -> list[Output]:
        """Return the events for the controller about a pair that is rekeyed; empty if it was reported before."""
        usage = self._usage(tunnel, serial)
        state = self._tunnel(tunnel)
        pair = None if state is None else _find_pair(state, serial)
        if usage is None or usage.soft or pair is None:
            return []
        usage.soft = True
        return _sa_events(pair, "expiring", reason)

    def _hard_expire(self, tunnel: int, serial: int, kind: NoticeKind) -> list[Output]:
        """Remove a pair that has used its lifetime, in both directions (RFC 4301 4.4.2.1)."""
        if not self._is_installed(tunnel, serial):
            return []
        return [
            ToIke(SaExpire(tunnel, serial, True, str(kind))),
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
        self._tunnels.drop_removed_entries(state)
        self._evaluate(state)
        return _sa_events(pair, event, reason)


def _find_pair(state: AspTunnel, serial: int) -> SaPair | None:
    return next((pair for pair in state.pairs if pair.outbound.serial == serial), None)


def _sa_events(pair: SaPair, event: str, reason: str) -> list[Output]:
    return [ToController(SaEvent(sa, event, reason)) for sa in sa_reports((pair,))]
