"""IKE SA table: lookup by SPI, by first message and by CHILD SA, and a timer heap; counters of IKE."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from math import inf
from sys import intern
from typing import Any, Final
from zlib import crc32

from chassis.ase.ike.child_sa import ChildSa
from chassis.ase.ike.connections import Connection, ConnectionGroup, Connections, Peer, PolicyEntry
from chassis.ase.ike.errors import FailureReason
from chassis.ase.ike.host import PROBE_STEP, IkeReports, IkeSettings, NetworkPath, Session
from chassis.ase.ike.log import IkeLogger
from chassis.ase.ike.on_demand import OnDemandGroup, OnDemandTunnels
from chassis.ase.ike.payloads.numbers import Protocol
from chassis.ase.ike.peer_questions import PeerQuestions
from chassis.ase.ike_messages import FromIke, IkeLog, IkePacket, SaActivateOutbound, SaInstall
from chassis.ase.ipsec.sa import MIN_SPI
from chassis.bus.messages import LogRecord

FIRST_PRIVATE_CPI: Final = 61_440
"""CPIs from here on are for private use (RFC 3173 3.3)."""

VERSION_AT: Final = 17
"""Offset of the octet whose upper half is the major version (RFC 7296 3.1)."""

InitKey = tuple[int, int, int, int, bytes]
"""(context, our address, the peer's address and port, mark) of the first message of an IKE SA."""


MAX_STALE_TIMERS = 256
"""Stale timers kept in the heap (count), in addition to three for each valid one."""


class IkeSaTable:
    """Sessions by SPI, first message and CHILD SA. `update_timer` removes a closed one."""

    def __init__(self) -> None:
        self.by_spi: dict[bytes, Session] = {}
        self.child_owner: dict[tuple[int, int], Session] = {}
        """The session of each CHILD SA, by (tunnel, serial)."""
        self.initiating: dict[bytes, None] = {}
        """Our SPIs of own attempts that are not established yet."""
        self.started_at: dict[bytes, float] = {}
        """When each session was added (s), by our SPI."""
        self._by_init: dict[InitKey, Session] = {}
        self._init_keys: dict[bytes, InitKey] = {}
        self._half_open: dict[bytes, int] = {}
        """The peer's address of half-open sessions, by our SPI, oldest first."""
        self._half_open_by_address: dict[int, dict[bytes, None]] = {}
        """Our SPIs of half-open sessions, by the peer's address."""
        self._timers: list[tuple[float, bytes]] = []
        """(time, our SPI). It holds no sessions, so that a closed one is freed before its timer is due."""
        self._timer_of: dict[bytes, float] = {}

    def add(self, session: Session, now: float) -> None:
        """Add a session that this end initiated, or the successor of another session."""
        self.by_spi[session.spi] = session
        self.started_at.setdefault(session.spi, now)
        if session.initiator and not session.established:
            self.initiating[session.spi] = None

    def add_responder(self, session: Session, path: NetworkPath, mark: bytes, now: float) -> None:
        """Add a responder's session. `mark` recognises retransmissions of the peer's first message."""
        self.started_at[session.spi] = now
        first = (path.context, path.local, path.remote, path.remote_port, mark)
        self.by_spi[session.spi] = session
        self._by_init[first] = session
        self._init_keys[session.spi] = first
        self._half_open[session.spi] = path.remote
        self._half_open_by_address.setdefault(path.remote, {})[session.spi] = None

    def by_init_message(self, path: NetworkPath, mark: bytes) -> Session | None:
        """Return the session that answered this first message before; None if it is new."""
        return self._by_init.get((path.context, path.local, path.remote, path.remote_port, mark))

    def mark_authenticated(self, session: Session) -> None:
        """Stop counting a session as half open: the peer has authenticated itself."""
        self.initiating.pop(session.spi, None)
        remote = self._half_open.pop(session.spi, None)
        if remote is not None:
            here = self._half_open_by_address[remote]
            del here[session.spi]
            if not here:
                del self._half_open_by_address[remote]

    @property
    def half_open(self) -> int:
        return len(self._half_open)

    def half_open_from(self, remote: int) -> int:
        return len(self._half_open_by_address.get(remote, ()))

    def oldest_unverified(self, remote: int | None = None) -> Session | None:
        """Return the oldest half-open session whose peer has not shown that it receives; `remote` None: any."""
        spis: Iterable[bytes] = self._half_open if remote is None else self._half_open_by_address.get(remote, ())
        return next((one for one in map(self.by_spi.__getitem__, spis) if not one.receives), None)

    def update_timer(self, session: Session) -> None:
        """Read the next timer of a session, or remove it if it is closed. Call this after every change of it."""
        spi = session.spi
        if session.closed:
            if self.by_spi.get(spi) is session:
                del self.by_spi[spi]
                self._timer_of.pop(spi, None)
                self.started_at.pop(spi, None)
            self.mark_authenticated(session)
            first = self._init_keys.pop(spi, None)
            if first is not None and self._by_init.get(first) is session:
                del self._by_init[first]
            return
        at = session.next_timer()
        if self._timer_of.get(spi) == at:
            return
        if at == inf:
            self._timer_of.pop(spi, None)
            return
        self._timer_of[spi] = at
        heappush(self._timers, (at, spi))
        if len(self._timers) > MAX_STALE_TIMERS + 4 * len(self._timer_of):
            self._remove_stale_timers()

    def take_out(self, session: Session) -> tuple[float, InitKey | None]:
        """Remove an established session that goes on elsewhere; return when it was added (s), and the key of its
        first message if it is a responder's."""
        spi = session.spi
        del self.by_spi[spi]
        self._timer_of.pop(spi, None)
        first = self._init_keys.pop(spi, None)
        if first is not None:
            del self._by_init[first]
        if len(self._timers) > MAX_STALE_TIMERS + 4 * len(self._timer_of):
            self._remove_stale_timers()
        return self.started_at.pop(spi), first

    def put_back(self, session: Session, started_at: float, first: InitKey | None) -> None:
        """Add a session that was taken out."""
        self.by_spi[session.spi] = session
        self.started_at[session.spi] = started_at
        if first is not None:
            self._by_init[first], self._init_keys[session.spi] = session, first
        self.update_timer(session)

    def _remove_stale_timers(self) -> None:
        """Remove stale timers. Without this a peer that creates and deletes IKE SAs quickly fills the heap with
        day-long timers."""
        self._timer_of = {spi: at for spi, at in self._timer_of.items() if spi in self.by_spi}
        self._timers = [(at, spi) for spi, at in self._timer_of.items()]
        heapify(self._timers)

    def pop_due(self, now: float) -> Session | None:
        """Return a session whose timer is due, or None. Call `update_timer` for it afterwards."""
        while self.next_timer() <= now:
            _, spi = heappop(self._timers)
            del self._timer_of[spi]
            return self.by_spi[spi]
        return None

    def next_timer(self) -> float:
        timers = self._timers
        while timers:
            at, spi = timers[0]
            if self._timer_of.get(spi) == at and spi in self.by_spi:
                return at
            heappop(timers)
        return inf


VERSIONS = {0: "", 1: "v1 ", 2: "v2 "}


class IkeStatistics:
    """Counters by name, such as `negotiations initiated` or `failed no response`."""

    def __init__(self) -> None:
        self.total: dict[str, int] = {}
        """Counters of the ASP. The name begins with the version if it has one: `v2 negotiations initiated`."""
        self.tunnels: dict[int, dict[str, int]] = {}
        self._unnamed: dict[bytes, dict[str, int]] = {}
        """Counters of negotiations whose tunnel is not known yet, by our SPI."""

    def count(self, name: str, version: int, tunnel: int, number: int = 1, spi: bytes = b"") -> None:
        """Add to a counter. Without a `tunnel` (0) store it for our `spi` until `assign_to_tunnel`."""
        # All tunnels share one text of each name.
        name = intern(name)
        key = VERSIONS.get(version, "") + name
        self.total[key] = self.total.get(key, 0) + number
        if tunnel:
            counts = self.tunnels.setdefault(tunnel, {})
        elif spi:
            counts = self._unnamed.setdefault(spi, {})
        else:
            return
        counts[name] = counts.get(name, 0) + number

    def assign_to_tunnel(self, spi: bytes, tunnel: int) -> None:
        """Add the counters of a negotiation to its tunnel, which is now known; 0 discards them."""
        kept = self._unnamed.pop(spi, None)
        if kept is not None and tunnel:
            counts = self.tunnels.setdefault(tunnel, {})
            for name, number in kept.items():
                counts[name] = counts.get(name, 0) + number

    @property
    def unassigned_count(self) -> int:
        """Negotiations whose tunnel is not known yet."""
        return len(self._unnamed)

    def remove(self, tunnel: int) -> None:
        """Remove the counters of a deleted tunnel; those of the ASP stay."""
        self.tunnels.pop(tunnel, None)


class IkeSaManager:
    """The IKE SAs of one ASP, and what they share: randomness, SPIs, serials, log lines, counters and outputs.

    Implements `IkeHost` for the sessions and passes their reports to `reports`, which the engine sets.
    """

    reports: IkeReports

    def __init__(
        self,
        asp: str,
        random: Callable[[int], bytes],
        settings: IkeSettings,
        connections: Connections,
    ) -> None:
        """`random(n)` returns n unpredictable octets."""
        self.asp = asp
        self.probe_phase = crc32(asp.encode()) / (1 << 32) * PROBE_STEP
        self.settings = settings
        self.statistics = IkeStatistics()
        self.table = IkeSaTable()
        self._random = random
        self._connections = connections
        self._on_demand = OnDemandTunnels(connections)
        self._logger = IkeLogger(asp, connections.group)
        self._now = 0.0
        self._wall = 0.0
        self._out: list[FromIke] = []
        self._serials: dict[int, int] = {}
        self._spis: set[bytes] = set()
        self._contacts: set[tuple[int, object, object]] = set()
        self._current: Session | None = None
        self.questions = PeerQuestions(self.output)

    # for the engine

    def set_time(self, now: float, wall: float | None = None) -> None:
        """Call it before an input is handled. `wall` is seconds since 1970; None leaves the one before."""
        self._now = now
        if wall is not None:
            self._wall = wall

    def output(self, message: FromIke) -> None:
        """Queue a message for the data engine that is not about an SA."""
        self._out.append(message)

    def flush(self) -> list[FromIke]:
        """Return the messages for the data engine since the last call, in order."""
        out, self._out = self._out, []
        return out

    def run_due(self, now: float) -> None:
        """Run the timers of IKE SAs that are due."""
        while (session := self.table.pop_due(now)) is not None:
            self.run(session, session.on_timer, now)

    # for sessions (`IkeHost`)

    def random(self, octets: int) -> bytes:
        return self._random(octets)

    @property
    def wall_clock(self) -> float:
        return self._wall

    def send(self, path: NetworkPath, data: bytes) -> None:
        self.count_message("sent", data)
        packet = IkePacket(path.context, path.local, path.local_port, path.remote, path.remote_port, data)
        self._out.append(packet)

    def send_to_dataplane(self, message: FromIke) -> None:
        if isinstance(message, SaInstall):
            self.count("CHILD SAs rekeyed" if message.replaces else "CHILD SAs created")
            if message.send:
                self.reports.on_child_sends(message.tunnel, message.entry, message.serial)
        elif isinstance(message, SaActivateOutbound):
            self.reports.on_outbound_activated(message.tunnel, message.serial)
        self._out.append(message)

    def log(
        self, id: str, values: Mapping[str, Any], session: Session | None, path: NetworkPath, now: float
    ) -> None:
        self._logged(self._logger.table(id, values, session, path, now))

    def log_own(
        self, kind: str, severity: str, text: str, session: Session | None, path: NetworkPath, now: float
    ) -> None:
        self._logged(self._logger.own(kind, severity, text, session, path, now))

    def _logged(self, record: LogRecord | None) -> None:
        """Send a log record to the data engine; count it if the logger suppressed it (None)."""
        if record is None:
            self.count("log lines held back")
        else:
            self._out.append(IkeLog(record))

    def count(self, name: str, number: int = 1) -> None:
        session = self._current
        if session is None:
            self.statistics.count(name, 0, 0, number)
            return
        tunnel = 0 if session.connection is None else session.connection.tunnel
        self.statistics.count(name, session.version, tunnel, number, session.spi)

    def group(self, context: int, local: int, remote: int, version: int) -> ConnectionGroup | None:
        return self._connections.group(context, local, remote, version)

    def on_demand(self, context: int, local: int, version: int) -> OnDemandGroup | None:
        return self._on_demand.group(context, local, version)

    def ask_key(self, session: Session, candidate: Connection) -> int:
        return self.questions.ask_key(session, candidate, session.path)

    def ask_admission(self, session: Session, candidate: Connection, after: int, *, wants_address: bool) -> int:
        return self.questions.ask_admission(session, candidate, session.path, after, wants_address)

    def is_asking(self, session: Session) -> bool:
        return self.questions.is_open(session)

    def instance(self, tunnel: int) -> Connection | None:
        connection = self._connections.by_tunnel.get(tunnel)
        return connection if connection is not None and connection.on_demand else None

    def admit(self, tunnel: int, peer: Peer) -> Connection:
        connection = self._connections.set_peer(tunnel, peer)
        self.reports.on_admitted(connection)
        return connection

    def new_ike_spi(self) -> bytes:
        while True:
            spi = self._random(8)
            if any(spi) and spi not in self.table.by_spi:
                return spi

    def allocate_spis(self, protocols: tuple[int, ...]) -> dict[int, bytes]:
        result: dict[int, bytes] = {}
        for protocol in protocols:
            octets, end = (2, FIRST_PRIVATE_CPI) if protocol == Protocol.IPCOMP else (4, 1 << 32)
            while True:
                spi = self._random(octets)
                if MIN_SPI <= int.from_bytes(spi, "big") < end and spi not in self._spis:
                    break
            self._spis.add(spi)
            result[protocol] = spi
        return result

    def release_spis(self, spis: Mapping[int, bytes]) -> None:
        self._spis.difference_update(spis.values())

    @property
    def spis_held(self) -> int:
        """Inbound SPIs in use by CHILD SAs and negotiations (count)."""
        return len(self._spis)

    def new_serial(self, tunnel: int) -> int:
        if self.instance(tunnel) is not None:
            # Instances come and go, and another one may have the number later: one count serves all of them.
            tunnel = 0
        serial = self._serials[tunnel] = self._serials.get(tunnel, 0) + 1
        return serial

    def register_session(self, session: Session) -> None:
        old = self._current
        self.table.add(session, self._now)
        if old is not None and session.established:
            self.reports.on_rekeyed(old, session)
        self.table.update_timer(session)

    def sibling_sessions(self, session: Session) -> Sequence[Session]:
        return self.reports.sibling_sessions(session)

    def reschedule(self, session: Session) -> None:
        self.table.update_timer(session)

    def on_established(self, session: Session, now: float) -> None:
        self.table.mark_authenticated(session)
        if session.connection is not None and not session.connection.on_demand:
            # A later INITIAL-CONTACT would make the peer delete this IKE SA.
            self._contacts.add(_contact_key(session.connection))
        self.reports.on_established(session, now)

    def on_child_installed(self, session: Session, child: ChildSa, now: float) -> None:
        self.reports.on_child_installed(session, child)

    def on_child_removed(self, session: Session, child: ChildSa, reason: str, now: float) -> None:
        self.reports.on_child_removed(session, child, reason, now)

    def on_failed(
        self, session: Session, failure: FailureReason, now: float, entry: PolicyEntry | None = None
    ) -> None:
        self.count(f"failed {failure.cause}")
        self.log_own(f"failed {failure.cause}", "error", failure.text, session, session.path, now)
        self.reports.on_failed(session, failure, now, entry)

    def on_closed(self, session: Session, reason: str, now: float) -> None:
        self.questions.drop(session, reason)
        self.reports.on_closed(session, reason, now)
        connection = session.connection
        if connection is not None and connection.tunnel not in self._connections.by_tunnel:
            # It counted a little more after its tunnel was deleted.
            self.statistics.remove(connection.tunnel)

    def may_send_initial_contact(self, connection: Connection) -> bool:
        # On-demand peers come and go, and always initiate: nothing is kept to know which ones were here before.
        return not connection.on_demand and _contact_key(connection) not in self._contacts

    def on_initial_contact(self, session: Session, now: float) -> None:
        self.reports.on_initial_contact(session, now)

    # for the parts of the engine

    def forget_tunnel(self, connection: Connection) -> tuple[int, bool, dict[str, int]]:
        """Forget what is kept of a tunnel beside its SAs, and return it: its last serial, whether
        `may_send_initial_contact` said no, its counters. Its SPIs stay in use."""
        contact = _contact_key(connection)
        contacted = contact in self._contacts
        self._contacts.discard(contact)
        serial = self._serials.pop(connection.tunnel, 0)
        return serial, contacted, self.statistics.tunnels.pop(connection.tunnel, {})

    def remember_tunnel(
        self, connection: Connection, serial: int, contacted: bool, counts: Mapping[str, int]
    ) -> None:
        """Take what `forget_tunnel` returned."""
        self._serials[connection.tunnel] = serial
        if contacted:
            self._contacts.add(_contact_key(connection))
        self.statistics.tunnels[connection.tunnel] = {intern(name): number for name, number in counts.items()}

    def run(self, session: Session, call: Callable[..., None], *arguments: Any) -> None:
        """Call a method of a session: count for its tunnel meanwhile, and update its timer afterwards."""
        before, self._current = self._current, session
        try:
            call(*arguments)
        finally:
            self._current = before
        if session.connection is not None and session.connection.tunnel:
            self.statistics.assign_to_tunnel(session.spi, session.connection.tunnel)
        elif session.closed:
            self.statistics.assign_to_tunnel(session.spi, 0)
        self.table.update_timer(session)

    def count_message(self, way: str, data: bytes) -> None:
        """Count a message that was `sent` or `received`, for the session that runs, else for its version only."""
        if self._current is None:
            version = data[VERSION_AT] >> 4 if len(data) > VERSION_AT else 0
            self.statistics.count(f"messages {way}", version, 0)
            self.statistics.count(f"octets {way}", version, 0, len(data))
        else:
            self.count(f"messages {way}")
            self.count(f"octets {way}", len(data))


def _contact_key(connection: Connection) -> tuple[int, object, object]:
    """Return the key of a peer for INITIAL-CONTACT. Equal identities in two contexts are two peers."""
    return connection.context, connection.identity.key, connection.expected.key
