"""The engine of an ASP: a card with the SA and policy databases that carries the packets of tunnels.

It is a pure state machine. In: records and commands of the controller, batches of other cards, messages of the IKE
process, time. Out: `Output` values in the order in which they must be carried out. Manual SAs come from records;
their numbers and windows are in a buffer that outlives the process. Negotiated SAs come from the IKE process and
end with it. Time and randomness are arguments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from math import inf

from chassis.ase.counters import AspCounters
from chassis.ase.datapath import DataPath
from chassis.ase.drop_log import DropLog
from chassis.ase.ike_client import IkeClient
from chassis.ase.ike_messages import (
    FromIke,
    IkeHeartbeat,
    IkeLog,
    IkePacket,
    IkeReply,
    UnknownSpi,
)
from chassis.ase.ipsec.causes import Drops, Notice, NoticeKind, UnknownSa
from chassis.ase.ipsec.cipher_engine import CipherEngine
from chassis.ase.ipsec.cryptography_engine import CRYPTOGRAPHY
from chassis.ase.ipsec.decapsulator import Decapsulator
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.state import OtherStateFiles, SaStateFile, StateError, octets_for
from chassis.ase.negotiated_sas import NegotiatedSas
from chassis.ase.peer_usage import UsageReports
from chassis.ase.sa_statistics import SaStatistics
from chassis.ase.tunnels import TunnelTable
from chassis.bus import requests
from chassis.bus.batch import Batch, Step
from chassis.bus.card import CardBase
from chassis.bus.counters import Counters
from chassis.bus.engine import Output, ToController, ToIke
from chassis.bus.messages import (
    Attributes,
    Hello,
    LogRecord,
    PeerAnswer,
    PeerDropped,
    PeerNetworks,
    PeerQuestion,
    Reply,
    Request,
    SaEvent,
    ToCardMessage,
)
from chassis.bus.records import AspRateRecord, TunnelRecord
from chassis.bus.replication import RecordChange
from chassis.fwd.drop_causes import DropCause
from chassis.fwd.tables import ForwardingTables
from chassis.net.ipv4 import PROTOCOL_AH, PROTOCOL_ESP
from chassis.net.rate import TokenBucket
from chassis.net.udp import IKE_PORT, NAT_PORT

FACILITY = "ase"

EVICTED = "selector flows shed"
"""Counter of cached flows that were removed to make room for others."""

MAX_REPEATED = 250
"""Most reports that one call repeats (count)."""

UNKNOWN_SA_RATE = 10.0
"""Packets for SAs that are not here of which IKE is told (1/s)."""
UNKNOWN_SA_BURST = 20
"""Such packets at once (count)."""

IKE_PROTOCOLS = {PROTOCOL_AH: 2, PROTOCOL_ESP: 3}
"""IKE's numbers of AH and ESP (RFC 7296 3.3.1, RFC 2407 4.4.1)."""

_CHUNK = 1 << 16


def _is_empty(state: memoryview) -> bool:
    """Whether no SA was ever held in this state. It stops at the first used octet."""
    octets = state.cast("B")
    return not any(
        bytes(octets[at : at + _CHUNK]).strip(b"\0") for at in range(octets_for(0), len(octets), _CHUNK)
    )


class AspEngine(CardBase):
    """One ASP of an ASE card."""

    kind = "asp"
    specs = requests.ASP

    def __init__(
        self,
        card: str,
        *,
        pid: int,
        boot: int,
        state: memoryview,
        fresh: bool,
        random: Callable[[int], bytes],
        counters: Counters | None = None,
        others: OtherStateFiles = tuple,
        engine: CipherEngine = CRYPTOGRAPHY,
        remarks: tuple[str, ...] = (),
    ) -> None:
        """`state` keeps the SAs' numbers and windows and outlives the process; `fresh` says that it is new.

        `random(n)` returns n unpredictable octets. `others` returns the states of the router's other ASPs, to find
        the progress of an SA that moved here. A damaged state is erased, which counts as fresh: the controller
        then knows that SAs lost their windows, and holds them back. `engine` encrypts ESP; the operator is told
        its name and `remarks`.
        """
        super().__init__(card, pid=pid, boot=boot, counters=counters)
        self._damage = ""
        self._cipher_engine, self._remarks = engine.name, remarks
        salt = int.from_bytes(random(8), "little")
        try:
            held = SaStateFile(state, salt, others)
        except StateError as error:
            self._damage = str(error)
            state.cast("B")[:] = bytes(state.nbytes)
            held = SaStateFile(state, salt, others)
        # A state of a process that died before it was in service counts as new.
        self.fresh = fresh or held.is_fresh or not (held.was_in_service or not _is_empty(state))
        self.sadb = Sadb(held, partial(self.counters.add, EVICTED), engine)
        self.tunnels = TunnelTable(card, self.sadb)
        self.tables = ForwardingTables(card, self.up, _no_port, self.counters)
        self._counts = AspCounters(self.counters)
        self._log = DropLog(card, self.tunnels.name_of)
        self._unknown_budget = TokenBucket(UNKNOWN_SA_RATE, UNKNOWN_SA_BURST)
        self.datapath = DataPath(self, self.sadb, self.tunnels, self.tables, self._counts, random, self.counters)
        self.negotiated = NegotiatedSas(self.sadb, self.tunnels)
        self.sa_statistics = SaStatistics(self.sadb, self.tunnels, self._counts)
        self._usage = UsageReports(card, self._counts)
        self.ike = IkeClient(card, self.counters)
        self._lease_requests: dict[tuple[int, int], tuple[SaEvent, int]] = {}
        """Leases requested and not granted yet, with the end of the present lease."""
        self._installed_version = 0
        """Version of the records whose SAs are all installed."""
        self._dropped: set[int] = set()
        """Instances whose peers IKE dropped, until the controller, which may not know yet, deletes them."""
        self._answers: list[PeerAnswer] = []
        """Answers that wait for records before them. IKE limits its questions."""
        self._to_repeat: deque[int] = deque()
        """Tunnels whose last reports are to be repeated, because the controller may have lost them."""
        self._report_all = False
        """The controller may have lost reports of tunnels without SAs, and lease requests: send them again."""

    # calls that every card has

    def hello_state(self, hello: Hello) -> Hello:
        """Add the SAs held, the networks behind peers, and, until the first snapshot, whether the SAs' numbers are
        unknown.

        A restarted controller would withdraw the routes to the networks until it learned of them.
        """
        states = self.tunnels.local
        sas = tuple(chain.from_iterable([state.sas for state in states.values()]))
        networks = tuple(
            PeerNetworks(number, state.ike.selectors)
            for number, state in states.items()
            if state.up and state.ike is not None and state.ike.selectors
        )
        return replace(
            hello,
            fresh=self.fresh and self.replica.version == 0,
            sas=sas,
            networks=networks,
            cipher_engine=self._cipher_engine,
            remarks=self._remarks,
        )

    def held_instances(self) -> tuple[TunnelRecord, ...]:
        """Return the records of the peers of on-demand tunnels that IKE has not dropped."""
        records = [state.record for number, state in self.tunnels.local.items() if number not in self._dropped]
        return tuple([record for record in records if record.instance is not None])

    def on_connected(self, now: float) -> list[Output]:
        """Send the hello; repeat the reports after the next records."""
        self._report_all = True
        return super().on_connected(now)

    def receive(self, message: ToCardMessage, now: float) -> list[Output]:
        """Act on a message of the controller. IKE asked the questions about peers; an answer follows the record of
        its tunnel, which may be in a slice that waits."""
        if isinstance(message, PeerAnswer):
            if not self.replica.settled:
                self._answers.append(message)
                return []
            return self.ike.pass_answer(message)
        return super().receive(message, now)

    def on_records_changed(self, change: RecordChange, now: float) -> list[Output]:
        """Apply changed records and settings; return reports, messages to IKE and log records."""
        self.sadb.state.mark_in_service()
        # Apply the records before the next packet, so that no decision of the old records is used.
        self.tunnels.apply(change)
        self._dropped &= self.tunnels.local.keys()
        usage = self._usage.apply_records(change, now)
        self.tables.apply(change)
        self.negotiated.apply_records(change)
        self.sa_statistics.apply_records(change)
        self.negotiated.apply_settings(self.settings)
        self._update_queues()
        outputs = usage + self.ike.on_records(change, self.settings, self.replica.records)
        if self._report_all and not change.more:
            self._report_all = False
            outputs += self._usage.repeat()
            # A hello lists the SAs, but not their peers' identities, and no tunnels without SAs.
            states = self.tunnels.local.items()
            self._to_repeat = deque(
                [number for number, state in states if state.last_report and (state.negotiated or not state.up)]
            )
            outputs += self._repeat_reports()
            outputs += [ToController(event) for event, _ in self._lease_requests.values()]
            outputs += self.ike.ask_again()
            if self._damage:
                outputs.append(self.log(now, "error", FACILITY, f"SA state erased: {self._damage}"))
                self._damage = ""
        return outputs + self._install_pending()

    def _repeat_reports(self) -> list[Output]:
        """Return the next `MAX_REPEATED` reports of tunnels that are to be repeated."""
        outputs: list[Output] = []
        for _ in range(min(len(self._to_repeat), MAX_REPEATED)):
            state = self.tunnels.local.get(self._to_repeat.popleft())
            if state is not None:
                outputs.append(state.report())
        return outputs

    def _update_queues(self) -> None:
        """Apply settings and records to the queues. A fenced ASP keeps no packets."""
        queues = self.datapath.queues
        configured = self.replica.records.get((AspRateRecord.TYPE, self.card))
        asked = configured.rate if isinstance(configured, AspRateRecord) else self.settings.get("asp-rate")
        queues.set_rate(asked)
        local = self.tunnels.local
        # Of few tunnels packets were queued; a difference of sets would look at all that are here.
        for number in [number for number in queues.measured_tunnels() if number not in local]:
            queues.remove_tunnel(number)
        queues.remove_stale_entries()
        self._flush_if_fenced()

    def _flush_if_fenced(self) -> None:
        """Drop the queued packets of a fenced ASP."""
        if self.fenced and self.datapath.queues.waiting:
            self.drop(DropCause.FENCED, self.datapath.queues.flush(DropCause.FENCED))

    def _install_pending(self) -> list[Output]:
        """Continue with the SAs that changed records want; return the reports."""
        outputs = self.tunnels.install_pending()
        if not self.tunnels.pending:
            self._installed_version = self.replica.version
        for key in [key for key, (_, limit) in self._lease_requests.items() if not self._has_lease(key, limit)]:
            del self._lease_requests[key]
        return outputs

    def on_cards_changed(self, now: float) -> list[Output]:
        """Decide again for every packet, because cards went up or down."""
        self.tables.decider.invalidate()
        return []

    def on_request(self, request: Request, now: float) -> list[Output] | None:
        """Run a command about SAs or queues. IKE runs those about negotiated tunnels; manual SAs are reinstalled
        at once."""
        tunnel = request.arguments.get("tunnel")
        if request.name == "queues":
            return [ToController(Reply(request.number, self._queue_statistics(tunnel)))]
        if request.name == "sas":
            number = tunnel if isinstance(tunnel, int) else None
            return [ToController(Reply(request.number, self.sa_statistics.statistics(number)))]
        if request.name == "totals":
            context = request.arguments["context"]
            assert isinstance(context, int)
            return [ToController(Reply(request.number, self.sa_statistics.totals(context)))]
        if request.name == "ike":
            return self.ike.request(request, str(request.arguments["what"]), 0)
        if request.name not in ("clear", "rekey"):
            return None
        # A tunnel with manual keys has no IKE SA.
        manual = [
            number
            for number, state in self.tunnels.local.items()
            if not state.negotiated and tunnel in (None, number) and request.arguments.get("what") != "ike"
        ]
        outputs: list[Output] = []
        for number in manual:
            outputs += self.tunnels.reinstall(number)
        if manual and (tunnel is not None or len(manual) == len(self.tunnels.local)):
            return [*outputs, ToController(Reply(request.number, {"manual": len(manual)}))]
        return outputs + self.ike.request(request, request.name, len(manual))

    def on_disconnected(self, now: float) -> list[Output]:
        """Give up the commands that IKE runs for the controller."""
        self.ike.on_disconnected()
        return super().on_disconnected(now)

    def on_stall(self, seconds: float, now: float) -> list[Output]:
        """Handle `seconds` in which the process could not run. The card may fence itself."""
        self.ike.on_stall(seconds)
        outputs = super().on_stall(seconds, now)
        self._flush_if_fenced()
        return outputs

    # calls of the IKE process

    def ike_connected(self, now: float) -> list[Output]:
        """The IKE process is ready. Send it the records that it needs; their changes follow."""
        self.datapath.datagrams.connected = True
        return self.ike.connect(self.settings, self.replica.records, self.replica.version > 0, now)

    def from_ike(self, message: FromIke, now: float) -> list[Output]:
        """Handle a message of the IKE process."""
        match message:
            case IkePacket():
                if self.fenced:
                    self._counts.count_ike_dropped()
                    return []
                return self.datapath.send_datagram(message, now)
            case IkeLog():
                return [ToController(message.record)]
            case PeerDropped():
                if message.tunnel in self.tunnels.local:
                    self._dropped.add(message.tunnel)
                return self.ike.pass_dropped(message)
            case PeerQuestion():
                return self.ike.pass_question(message)
            case IkeReply():
                return self.ike.on_reply(message)
            case IkeHeartbeat():
                self.ike.on_heartbeat(message, now)
                return []
        outputs = self.negotiated.receive(message)
        state = self.tunnels.local.get(message.tunnel)
        if state is not None and state.last_report is not None and bool(state.last_report[0]) == state.up:
            # Report a change of up or down at once; other changes are gathered.
            outputs.append(state.report())
        return outputs

    # batches

    def receive_batch(self, batch: Batch, now: float) -> list[Output]:
        """Encapsulate or decapsulate a batch of another card."""
        self._counts.values[self._counts.received] += len(batch.lengths)
        if not self.is_current_sender(batch):
            return []
        step = batch.step
        if step is Step.ENCAPSULATE:
            act = self.datapath.encapsulate
        elif step is Step.DECAPSULATE:
            act = self.datapath.decapsulate
        else:
            self.drop(DropCause.WRONG_STEP, len(batch.lengths))
            return []
        if not batch.marks and not batch.runs:
            return act(batch, now)
        if batch.runs and step is Step.ENCAPSULATE:
            return self.datapath.encapsulate_runs(batch, now)
        outputs: list[Output] = []
        for part in batch.split_runs() if batch.runs else batch.split_marked():
            outputs += act(part, now)
        return outputs

    def receive_frames(self, port: str, batch: Batch, now: float) -> list[Output]:
        """Drop the frames: an ASP has no port."""
        self._counts.values[self._counts.received] += len(batch.lengths)
        self.drop(DropCause.NO_PORT, len(batch.lengths))
        return []

    def on_carrier(self, port: str, up: bool, now: float) -> list[Output]:
        """No-op: an ASP has no port."""
        return []

    # timers

    def on_timer(self, now: float) -> list[Output]:
        """Return what is due: heartbeat, log records, queued packets, messages to IKE, reports, SAs still to be
        installed."""
        outputs = super().on_timer(now)
        if self._to_repeat:
            outputs += self._repeat_reports()
        if self._answers and self.replica.settled:
            answers, self._answers = self._answers, []
            outputs += chain.from_iterable([self.ike.pass_answer(answer) for answer in answers])
        datapath = self.datapath
        if now >= self._log.due:
            outputs += _records(self._log.flush(now))
        datapath.datagrams.on_timer(now)
        datapath.path_mtus.on_timer(now)
        if not datapath.queues.idle:
            self._flush_if_fenced()
            outputs += datapath.serve(now)
        outputs += self.negotiated.on_timer(now)
        outputs += self._usage.on_timer(now)
        outputs += self.ike.on_timer(now)
        if self.tunnels.pending:
            outputs += self._install_pending()
            if not self.tunnels.pending:
                outputs.append(self._heartbeat(now))
        return outputs

    def parts_due(self) -> float:
        """As `CardBase.parts_due`; -inf while SAs are to be installed, or reports repeated."""
        if self.tunnels.pending or self._to_repeat:
            return -inf
        datapath = self.datapath
        return min(
            self._log.due,
            datapath.datagrams.next_timer(),
            datapath.path_mtus.next_timer(),
            datapath.queues.due,
            self.negotiated.next_timer(),
            self._usage.next_timer(),
            self.ike.next_timer(),
        )

    def held_version(self) -> int:
        """Return the version whose SAs are installed. Other cards send packets only to an ASP that has the present
        version."""
        return self._installed_version if self.tunnels.pending else super().held_version()

    # calls of the data path

    def count_drops(self, drops: Drops, now: float) -> list[Output]:
        """Count packets that the data path dropped; return the log records that are due."""
        for cause, count in drops.counts.items():
            self.drop(cause, count)
        return _records(self._log.log(drops, now))

    def on_unknown_sa(self, context: int, packet: UnknownSa, now: float) -> list[Output]:
        """Tell IKE of a packet for an SA that is not here: its peer may not know that an ASP lost its SAs."""
        if self.fenced or not self._unknown_budget.consume(now) or not self.ike.has_peers:
            return []
        number = IKE_PROTOCOLS[packet.protocol]
        ports = (NAT_PORT, packet.udp_port) if packet.udp_port else (IKE_PORT, IKE_PORT)
        unknown = UnknownSpi(context, packet.destination, ports[0], packet.source, ports[1], number, packet.spi)
        return [ToIke(unknown)]

    def on_sa_notice(self, notices: tuple[Notice, ...], now: float) -> list[Output]:
        """Request a lease from the controller, report an exhausted SA, or pass on the notice of a
        negotiated SA."""
        outputs: list[Output] = []
        for notice in notices:
            state = self.tunnels.local.get(notice.tunnel)
            if state is None:
                continue
            if state.negotiated:
                outputs += self.negotiated.on_sa_notice(notice)
                continue
            exhausted = notice.kind is NoticeKind.SEQUENCE_EXHAUSTED
            for sa in state.sas:
                if sa.serial != notice.serial or sa.direction != "out":
                    continue
                event = SaEvent(sa, "exhausted" if exhausted else "lease", str(notice.kind), notice.next_number)
                outputs.append(ToController(event))
                if not exhausted:
                    self._lease_requests[notice.tunnel, notice.serial] = (event, notice.limit)
                break
            if exhausted:
                outputs += self.tunnels.mark_exhausted(notice.tunnel)
        return outputs

    def on_acquire(self, tunnel: int, entries: tuple[int, ...], now: float) -> list[Output]:
        """Tell IKE about SPD entries that need an SA."""
        return self.negotiated.on_acquire(tunnel, entries, now)

    def on_inbound_traffic(
        self, decapsulators: tuple[Decapsulator, ...], peers: Sequence[int], now: float
    ) -> list[Output]:
        """Tell IKE about its peers."""
        return self.negotiated.on_inbound_traffic(decapsulators, peers)

    # internals

    def _queue_statistics(self, tunnel: object) -> Attributes:
        """Return the statistics of the queues of one tunnel (a number) or of all (None)."""
        report = self.datapath.queues.statistics(tunnel if isinstance(tunnel, int) else None)
        for sa in report["sas"]:
            state = self.tunnels.local.get(sa["tunnel"])
            sa["name"] = state.record.config.name if state is not None else ""
        return report

    def _has_lease(self, key: tuple[int, int], limit: int) -> bool:
        """Whether an SA exists and its lease still ends at `limit`."""
        encapsulator = self.sadb.outbound.get(key)
        return encapsulator is not None and encapsulator.limit == limit


def _records(records: list[LogRecord]) -> list[Output]:
    return [ToController(record) for record in records]


def _no_port(port: str) -> bool:
    """An ASP has no port of its own."""
    return False
