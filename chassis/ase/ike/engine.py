"""The IKE engine of an ASP: one UDP port for both versions, and what keeps every configured tunnel up.

Pure: datagrams and the data engine's words come in, messages of `chassis.ase.link` go out, time and randomness are
arguments. Negotiations are sessions (`chassis.ase.ike.v1`, `.v2`), written against `chassis.ase.ike.host`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any, Final

from chassis.ase.ike.child_proposals import LOWEST_SPI
from chassis.ase.ike.connection_manager import ConnectionManager
from chassis.ase.ike.connections import Connection, Connections, Group, Line
from chassis.ase.ike.errors import FailureReason
from chassis.ase.ike.host import Child, IkeSettings, Path, Session, read_settings
from chassis.ase.ike.ike_sa_manager import IkeSaTable, Statistics
from chassis.ase.ike.log import IkeLogger
from chassis.ase.ike.payloads.numbers import Protocol
from chassis.ase.ike.receiver import IkeReceiver
from chassis.ase.ike.requests import RequestError, answer
from chassis.ase.ike.v1.session import SessionV1
from chassis.ase.ike.v2.session import SessionV2
from chassis.ase.link import (
    Configure,
    Encapsulation,
    FromIke,
    IkeAlive,
    IkeLog,
    IkePacket,
    IkeReply,
    IkeRequest,
    NoSa,
    PeerMoved,
    PeerSeen,
    SaExpiring,
    SaInstall,
    SaMove,
    SaSeen,
    SaSwitch,
    ToIke,
)
from chassis.bus.arguments import fault
from chassis.bus.messages import LogRecord

ALIVE = 1.0
"""Seconds between two signs of life."""

CPI_END: Final = 61_440
"""CPIs from here on are for private use (RFC 3173 3.3)."""

VERSION_AT: Final = 17
"""Octet of a message whose upper half is the major version (RFC 7296 3.1)."""

NOWHERE: Final = Path(0, 0, 0, 0, 0)


class Ike:
    """All IKE of one ASP."""

    def __init__(
        self,
        asp: str,
        *,
        random: Callable[[int], bytes],
        settings: IkeSettings | None = None,
    ) -> None:
        """`random(n)` gives n unpredictable octets."""
        self.asp = asp
        self.settings = IkeSettings() if settings is None else settings
        self.statistics = Statistics()
        self.registry = IkeSaTable()
        self.keeping = ConnectionManager(self)
        self._arrivals = IkeReceiver(self, random)
        self._connections = Connections()
        self._parts: list[Configure] = []
        """Of a change that has not come in whole yet."""
        self._random = random
        self._wall = 0.0
        self._logger = IkeLogger(asp, self._connections.group)
        self._out: list[FromIke] = []
        self._serials: dict[int, int] = {}
        self._spis: set[bytes] = set()
        self._contacts: set[tuple[int, object, object]] = set()
        self._current: Session | None = None
        self._alive_at = -inf
        self._now = 0.0

    # the process's calls

    def start(self, now: float) -> list[FromIke]:
        self._alive(now)
        return self._flush()

    def receive(self, message: ToIke, now: float, wall: float) -> list[FromIke]:
        """One message of the data engine. `wall` is the time of day, in seconds since 1970: it may jump, and what
        a peer shows in this message is judged by it."""
        self._now, self._wall = now, wall
        if isinstance(message, IkePacket):
            self._arrivals.receive(message, now)
        elif isinstance(message, Configure):
            self._configure(message, now)
        elif isinstance(message, SaExpiring | SaSeen | PeerMoved):
            session = self.registry.owners.get((message.tunnel, message.serial))
            if session is None or session.closed:
                pass
            elif isinstance(message, SaExpiring):
                self.run(session, session.expiring, message.serial, message.hard, message.reason, now)
            elif isinstance(message, SaSeen):
                self.run(session, session.seen, message.serial, now)
            else:
                self._moved(session, message)
        elif isinstance(message, PeerSeen):
            for tunnel in message.tunnels:
                self.keeping.seen(tunnel, now)
        elif isinstance(message, NoSa):
            self.keeping.wanted(message.tunnel, message.entry, now)
        elif isinstance(message, IkeRequest):
            try:
                self._out.append(IkeReply(message.number, answer(self, message.name, message.arguments, now)))
            except RequestError as error:
                self._out.append(IkeReply(message.number, {}, str(error)))
            except Exception as error:
                # A fault of this program: whoever asked is told, and the tunnels of this ASP go on.
                text = f"{message.name}: {fault(error)}"
                self.say("fault", "error", text, None, NOWHERE, now)
                self._out.append(IkeReply(message.number, {}, text))
        return self._flush()

    def left_out(self, text: str, number: int, now: float) -> list[FromIke]:
        """A message to the data engine or from it was not carried; `number` is its command's, 0 for none."""
        text = f"A message between {self.asp} and its IKE was left out: {text}"
        self.say("left out", "error", text, None, NOWHERE, now)
        if number:
            self._out.append(IkeReply(number, {}, text))
        return self._flush()

    def on_timer(self, now: float) -> list[FromIke]:
        self._now = now
        while (session := self.registry.due(now)) is not None:
            self.run(session, session.on_timer, now)
        self.keeping.on_timer(now)
        if now >= self._alive_at:
            self._alive(now)
        return self._flush()

    def next_timer(self) -> float:
        return min(self.registry.next_timer(), self.keeping.next_timer(), self._alive_at)

    # what sessions ask (chassis.ase.ike.host.Host)

    def random(self, octets: int) -> bytes:
        return self._random(octets)

    @property
    def wall(self) -> float:
        return self._wall

    def send(self, path: Path, data: bytes) -> None:
        self.counted("sent", data)
        packet = IkePacket(path.context, path.local, path.local_port, path.remote, path.remote_port, data)
        self._out.append(packet)

    def emit(self, message: FromIke) -> None:
        if isinstance(message, SaInstall):
            self.count("CHILD SAs rekeyed" if message.replaces else "CHILD SAs created")
            if message.send:
                self.keeping.sends(message.tunnel, message.entry, message.serial)
        elif isinstance(message, SaSwitch):
            self.keeping.switched(message.tunnel, message.serial)
        self._out.append(message)

    def log(self, id: str, values: Mapping[str, Any], session: Session | None, path: Path, now: float) -> None:
        self._logged(self._logger.table(id, values, session, path, now))

    def say(self, kind: str, severity: str, text: str, session: Session | None, path: Path, now: float) -> None:
        self._logged(self._logger.own(kind, severity, text, session, path, now))

    def _logged(self, record: LogRecord | None) -> None:
        """Give a line to the data engine, which hands it on; count one that is too many."""
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

    def group(self, context: int, local: int, remote: int, version: int) -> Group | None:
        return self._connections.group(context, local, remote, version)

    def ike_spi(self) -> bytes:
        while True:
            spi = self._random(8)
            if any(spi) and spi not in self.registry.by_spi:
                return spi

    def spis(self, protocols: tuple[int, ...]) -> dict[int, bytes]:
        result: dict[int, bytes] = {}
        for protocol in protocols:
            octets, end = (2, CPI_END) if protocol == Protocol.IPCOMP else (4, 1 << 32)
            while True:
                spi = self._random(octets)
                if LOWEST_SPI <= int.from_bytes(spi, "big") < end and spi not in self._spis:
                    break
            self._spis.add(spi)
            result[protocol] = spi
        return result

    def release(self, spis: Mapping[int, bytes]) -> None:
        self._spis.difference_update(spis.values())

    @property
    def spis_held(self) -> int:
        """Inbound SPIs that are taken: as many as live pairs and negotiations have."""
        return len(self._spis)

    def serial(self, tunnel: int) -> int:
        serial = self._serials[tunnel] = self._serials.get(tunnel, 0) + 1
        return serial

    def adopt(self, session: Session) -> None:
        old = self._current
        self.registry.add(session, self._now)
        if old is not None and session.established:
            self.keeping.succeeded(old, session)
        self.registry.settle(session)

    def siblings(self, session: Session) -> Sequence[Session]:
        return self.keeping.siblings(session)

    def changed(self, session: Session) -> None:
        self.registry.settle(session)

    def up(self, session: Session, now: float) -> None:
        self.registry.proved(session)
        if session.connection is not None:
            # From now on an INITIAL-CONTACT would speak against an IKE SA that stands.
            self._contacts.add(_contact(session.connection))
        self.keeping.up(session, now)

    def installed(self, session: Session, child: Child, now: float) -> None:
        self.keeping.installed(session, child)

    def removed(self, session: Session, child: Child, reason: str, now: float) -> None:
        self.keeping.removed(session, child, reason, now)

    def failed(self, session: Session, failure: FailureReason, now: float, line: Line | None = None) -> None:
        self.count(f"failed {failure.cause}")
        self.say(f"failed {failure.cause}", "error", failure.text, session, session.path, now)
        self.keeping.failed(session, failure, now, line)

    def down(self, session: Session, reason: str, now: float) -> None:
        self.keeping.down(session, reason, now)

    def first_contact(self, connection: Connection) -> bool:
        return _contact(connection) not in self._contacts

    def contacted(self, session: Session, now: float) -> None:
        self.keeping.contacted(session, now)

    # what the parts of this engine ask

    def run(self, session: Session, call: Callable[..., None], *arguments: Any) -> None:
        """Do something with a session: what it counts is its tunnel's, and its timer is set anew afterwards."""
        before, self._current = self._current, session
        try:
            call(*arguments)
        finally:
            self._current = before
        if session.connection is not None:
            self.statistics.credit(session.spi, session.connection.tunnel)
        elif session.closed:
            self.statistics.credit(session.spi, 0)
        self.registry.settle(session)

    def counted(self, way: str, data: bytes) -> None:
        """A message that was `sent` or `received`: the session's that is at work, else its version's alone."""
        if self._current is None:
            version = data[VERSION_AT] >> 4 if len(data) > VERSION_AT else 0
            self.statistics.count(f"messages {way}", version, 0)
            self.statistics.count(f"octets {way}", version, 0, len(data))
        else:
            self.count(f"messages {way}")
            self.count(f"octets {way}", len(data))

    def initiate(self, connection: Connection, path: Path) -> Session:
        """A session that begins; its first message leaves with `start`."""
        if connection.version == 1:
            return SessionV1.initiate(self, connection, path)
        return SessionV2.initiate(self, connection, path)

    @property
    def connections(self) -> Mapping[int, Connection]:
        """By tunnel number."""
        return self._connections.by_tunnel

    # inside

    def _configure(self, message: Configure, now: float) -> None:
        if message.settings:
            self.settings, problems = read_settings(message.settings)
            for problem in problems:
                self.say("configuration", "error", problem, None, NOWHERE, now)
        self._parts.append(message)
        if message.more:
            return
        parts, self._parts = self._parts, []
        # Together: what a whole account does not name is void, and a first part names but some of it.
        put = [record for part in parts for record in part.put]
        delete = [key for part in parts for key in part.delete]
        changes = self._connections.apply(put, delete, any(part.whole for part in parts))
        for problem in self._connections.problems:
            self.say("configuration", "error", problem, None, NOWHERE, now)
        self._connections.problems.clear()
        for tunnel, (before, after) in changes.items():
            self.keeping.configure(tunnel, before, after, now)

    def _moved(self, session: Session, message: PeerMoved) -> None:
        """Follow a peer whose NAT gave it another port: for IKE and for all its pairs (RFC 7296 2.23)."""
        if not session.path.encapsulated:
            return
        session.path = replace(session.path, remote=message.remote, remote_port=message.remote_port)
        way = Encapsulation(session.path.local_port, message.remote, message.remote_port)
        for serial in self.keeping.by_tunnel[message.tunnel].child_sas:
            if self.registry.owners.get((message.tunnel, serial)) is session:
                self._out.append(SaMove(message.tunnel, serial, way))

    def _alive(self, now: float) -> None:
        late = max(now - self._alive_at, 0.0) if self._alive_at > -inf else 0.0
        self._alive_at = now + ALIVE
        self._out.append(IkeAlive(late, dict(self.statistics.total)))

    def _flush(self) -> list[FromIke]:
        out, self._out = self._out, []
        return out


def _contact(connection: Connection) -> tuple[int, object, object]:
    """For whom an INITIAL-CONTACT is said once: the same names in another context are another peer's."""
    return connection.context, connection.identity.key, connection.expected.key
