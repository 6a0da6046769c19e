"""Two hosts of IKEv1 sessions in memory: a fake clock, a wire to trouble, and what a data engine would hold.

A host does what the engine does for sessions, no more: it has no back-off and asks for lines when an SA stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random
from typing import Any

from chassis.ase.ike.child_proposals import Suite
from chassis.ase.ike.connection import Connection, Group, Line
from chassis.ase.ike.credentials import Credentials
from chassis.ase.ike.errors import FailureReason
from chassis.ase.ike.host import Child, IkeSettings, Path, Session
from chassis.ase.ike.identity import Identity
from chassis.ase.ike.messages import text
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import Protocol
from chassis.ase.ike.v1.session import SessionV1
from chassis.ase.link import FromIke, SaDelete, SaInstall, SaMove, SaSwitch
from chassis.bus.records import AclRuleRecord
from chassis.model.ike import IkePolicy, IkeProposal
from chassis.model.ipsec import IpsecProposal

WALL = 1_780_272_000.0
A = 0x0A000001
B = 0x0A000002
NAT = 0xC0000201
SHIFT = 10_000
"""What the NAT adds to a port."""

Wire = Callable[["FakeHost", bytes], Iterable[tuple[float, bytes]]]
"""What becomes of a message: (delay, octets) of each copy that arrives."""


def plainly(host: FakeHost, data: bytes) -> Iterable[tuple[float, bytes]]:
    return [(0.01, data)]


def suite(
    ah: str | None = None,
    cipher: str | None = "aes-128-cbc",
    integrity: str | None = "hmac-sha1-96",
    *,
    ip_comp: bool = False,
    group: int | None = None,
    esn: bool = False,
    seconds: int = 3600,
    kbytes: int | None = None,
    name: str = "suite",
) -> Suite:
    proposal = IpsecProposal(
        name,
        ip_comp=ip_comp,
        ah=ah,
        esp_authentication=integrity,
        esp_encryption=cipher,
        lifetime_seconds=seconds,
        lifetime_kbytes=kbytes,
    )
    return Suite(proposal, group, esn)


def rule(source: int, source_length: int, destination: int, destination_length: int, **more: int) -> AclRuleRecord:
    return AclRuleRecord(
        10,
        source=source,
        source_length=source_length,
        destination=destination,
        destination_length=destination_length,
        **more,
    )


def mirrored(rules: Sequence[AclRuleRecord]) -> tuple[AclRuleRecord, ...]:
    return tuple(
        AclRuleRecord(
            one.seq,
            one.protocol,
            one.destination,
            one.destination_length,
            one.destination_port,
            one.source,
            one.source_length,
            one.source_port,
        )
        for one in rules
    )


def connection(
    local: int = A,
    remote: int = B,
    *,
    proposals: Sequence[IkeProposal] = (IkeProposal("p", dh_group=2),),
    lines: Sequence[Line] | None = None,
    mode: Any = "main",
    kind: Any = "both",
    identity: Identity | None = None,
    expected: Identity | None = None,
    psk: bytes | None = b"a preshared key",
    credentials: Credentials | None = None,
    keepalive: bool = False,
    validate: bool = False,
    tunnel: int = 1,
) -> Connection:
    return Connection(
        tunnel=tunnel,
        name=f"tunnel_{tunnel}",
        context=1,
        context_name="local",
        local=local,
        remote=remote,
        version=1,
        policy=IkePolicy("policy", connection_type=kind, mode=mode, validate_certificate_identity=validate),
        proposals=tuple(proposals),
        lines=tuple(lines) if lines is not None else (Line(10, "ipsec", (suite(),), (), 64),),
        identity=identity or Identity.address(local),
        expected=expected or Identity.address(remote),
        psk=psk,
        credentials=credentials,
        keepalive=keepalive,
    )


def other_end(one: Connection, **changes: Any) -> Connection:
    """The mirror image of a connection, with what the test wants to differ."""
    lines = tuple(replace(line, rules=mirrored(line.rules)) for line in one.lines)
    mirror = replace(
        one, local=one.remote, remote=one.local, identity=one.expected, expected=one.identity, lines=lines
    )
    return replace(mirror, **changes)


@dataclass(eq=False)
class FakeHost:
    """One end."""

    name: str
    pair: V1Pair
    connections: list[Connection]
    settings: IkeSettings
    asp: str = "2/1"
    sessions: list[SessionV1] = field(default_factory=list)
    emitted: list[FromIke] = field(default_factory=list)
    rows: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    installed_pairs: dict[int, SaInstall] = field(default_factory=dict)
    senders: dict[int, int] = field(default_factory=dict)
    """By line: the serial that sends."""
    owners: dict[int, Session] = field(default_factory=dict)
    spis_out: set[bytes] = field(default_factory=set)
    contacts: set[Any] = field(default_factory=set)
    asks: bool = True
    """Whether lines are asked for when an SA stands that began here."""

    def __post_init__(self) -> None:
        self._random = Random(f"{self.pair.seed} {self.name}")
        self._serial = count(1)

    # Host

    def random(self, octets: int) -> bytes:
        return self._random.randbytes(octets)

    @property
    def wall(self) -> float:
        return WALL + self.pair.now

    def send(self, path: Path, data: bytes) -> None:
        self.count("sent")
        self.pair.carry(self, path, data)

    def emit(self, message: FromIke) -> None:
        self.emitted.append(message)
        if isinstance(message, SaInstall):
            assert message.serial not in self.installed_pairs
            self.installed_pairs[message.serial] = message
            if message.send:
                self.senders[message.entry] = message.serial
        elif isinstance(message, SaSwitch):
            self.senders[self.installed_pairs[message.serial].entry] = message.serial
        elif isinstance(message, SaMove):
            moved = replace(self.installed_pairs[message.serial], encapsulation=(message.encapsulation,))
            self.installed_pairs[message.serial] = moved
        elif isinstance(message, SaDelete):
            gone = self.installed_pairs.pop(message.serial)
            if self.senders.get(gone.entry) == message.serial:
                del self.senders[gone.entry]

    def log(self, id: str, values: Mapping[str, Any], session: Session | None, path: Path, now: float) -> None:
        text(id, values)
        self.rows.append((id, dict(values)))

    def say(self, kind: str, severity: str, text: str, session: Session | None, path: Path, now: float) -> None:
        self.said.append(text)

    def count(self, name: str, number: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + number

    def group(self, context: int, local: int, remote: int, version: int) -> Group | None:
        members = [one for one in self.connections if (one.local, one.remote) == (local, remote)]
        if not members or version != 1:
            return None
        by_identity: dict[tuple[int, bytes], list[Connection]] = {}
        for one in members:
            by_identity.setdefault(one.expected.key, []).append(one)
        union = dict.fromkeys(proposal for one in members for proposal in one.proposals)
        return Group(tuple(members), tuple(union), by_identity)

    def ike_spi(self) -> bytes:
        return self.random(8)

    def spis(self, protocols: tuple[int, ...]) -> dict[int, bytes]:
        found = {protocol: self.random(2 if protocol == Protocol.IPCOMP else 4) for protocol in protocols}
        self.spis_out.update(found.values())
        return found

    def release(self, spis: Mapping[int, bytes]) -> None:
        for spi in spis.values():
            self.spis_out.remove(spi)

    def serial(self, tunnel: int) -> int:
        return next(self._serial)

    def adopt(self, session: Session) -> None:
        assert isinstance(session, SessionV1)
        self.sessions.append(session)

    def siblings(self, session: Session) -> Sequence[Session]:
        mine = session.connection
        return [
            one
            for one in self.sessions
            if one is not session
            and (one.established or one.orphaned)
            and one.connection is not None
            and mine is not None
            and one.connection.tunnel == mine.tunnel
        ]

    def changed(self, session: Session) -> None:
        pass

    def up(self, session: Session, now: float) -> None:
        self.events.append(("up", session))
        connection = session.connection
        assert connection is not None
        if self.asks and session.initiator:
            held = {one.entry for one in self.installed_pairs.values()}
            for line in connection.lines:
                if line.seq not in held:
                    session.negotiate(line, 0, now)

    def installed(self, session: Session, child: Child, now: float) -> None:
        self.owners[child.serial] = session
        self.events.append(("installed", child.serial))

    def removed(self, session: Session, child: Child, reason: str, now: float) -> None:
        self.events.append(("removed", child.serial, reason))
        self.owners.pop(child.serial)

    def failed(self, session: Session, failure: FailureReason, now: float, line: Line | None = None) -> None:
        self.events.append(("failed", failure.cause, line.seq if line else 0))
        self.said.append(failure.text)

    def down(self, session: Session, reason: str, now: float) -> None:
        self.events.append(("down", reason))

    def first_contact(self, connection: Connection) -> bool:
        pair = (connection.identity.key, connection.expected.key)
        fresh = pair not in self.contacts
        self.contacts.add(pair)
        return fresh

    def contacted(self, session: Session, now: float) -> None:
        self.events.append(("contacted",))
        for one in self.siblings(session):
            one.close("the peer began anew", now, tell=False)

    # for tests

    @property
    def standing(self) -> list[SessionV1]:
        return [one for one in self.sessions if one.established]

    @property
    def session(self) -> SessionV1:
        """The newest that stands."""
        return self.standing[-1]

    @property
    def ids(self) -> list[str]:
        return [row for row, _ in self.rows]

    def values(self, id: str) -> dict[str, Any]:
        return next(values for row, values in self.rows if row == id)

    def begin(self, which: int = 0) -> SessionV1:
        one = self.connections[which]
        session = SessionV1.initiate(self, one, Path(1, one.local, 500, one.remote, 500))
        self.sessions.append(session)
        session.start(self.pair.now)
        return session

    def arrive(self, path: Path, data: bytes) -> None:
        """As the engine does: by cookie, else a new one."""
        if not data:
            return
        now = self.pair.now
        header = Header.parse(data)
        ours = (header.spi_i, header.spi_r)
        for session in self.sessions:
            known = session.spi in ours or (header.spi_r == bytes(8) and session.phase1.cky_i == header.spi_i)
            if not session.closed and known:
                session.receive(data, header, path, now)
                return
        if header.spi_r == bytes(8) and header.exchange in (2, 4, 1, 3):
            session = SessionV1.respond(self, path, header)
            self.sessions.append(session)
            session.receive(data, header, path, now)

    def causes(self) -> list[str]:
        return [event[1] for event in self.events if event[0] == "failed"]


class V1Pair:
    """Hosts `a` and `b`, joined. `wire` is asked about every message."""

    def __init__(
        self,
        a: Connection | Sequence[Connection],
        b: Connection | Sequence[Connection] | None = None,
        *,
        settings: IkeSettings | None = None,
        nat: bool = False,
        seed: int = 1,
    ) -> None:
        self.now = 100.0
        self.seed = seed
        self.nat = nat
        self.shift = SHIFT
        self.wire: Wire = plainly
        self.sent: list[tuple[str, bytes]] = []
        self.watch: Callable[[], None] | None = None
        settings = settings or IkeSettings()
        ours = [a] if isinstance(a, Connection) else list(a)
        theirs = [other_end(one) for one in ours] if b is None else [b] if isinstance(b, Connection) else list(b)
        if nat:
            theirs = [replace(one, remote=NAT) for one in theirs]
        self.a = FakeHost("a", self, ours, settings)
        self.b = FakeHost("b", self, theirs, settings)
        self._order = count()
        self._flying: list[tuple[float, int, FakeHost, Path, bytes]] = []

    def carry(self, sender: FakeHost, path: Path, data: bytes) -> None:
        self.sent.append((sender.name, data))
        target = self.b if sender is self.a else self.a
        arriving = Path(path.context, path.remote, path.remote_port, path.local, path.local_port)
        if self.nat and sender is self.a:
            arriving = replace(arriving, remote=NAT, remote_port=path.local_port + self.shift)
        elif self.nat:
            arriving = replace(arriving, local=A, local_port=path.remote_port - self.shift)
        # A NAT knows one port of a's at a time.
        passes = not self.nat or sender is self.a or arriving.local_port in (500, 4500)
        for delay, copy in self.wire(sender, data) if passes else ():
            heappush(self._flying, (self.now + delay, next(self._order), target, arriving, copy))

    def _next_timer(self) -> float:
        return min((one.next_timer() for host in (self.a, self.b) for one in host.sessions), default=inf)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        for _ in range(200_000):
            flying = self._flying[0][0] if self._flying else inf
            at = min(flying, self._next_timer())
            if at > end:
                self.now = end
                return
            self.now = max(self.now, at)
            if flying <= self.now:
                _, _, target, path, data = heappop(self._flying)
                target.arrive(path, data)
            else:
                for host in (self.a, self.b):
                    for one in list(host.sessions):
                        if one.next_timer() <= self.now:
                            one.on_timer(self.now)
            for host in (self.a, self.b):
                host.sessions = [one for one in host.sessions if not one.closed]
            if self.watch is not None:
                self.watch()
        raise AssertionError("no rest")

    # what tests ask

    def establish(self, seconds: float = 3.0) -> None:
        self.a.begin()
        self.run(seconds)

    def carries(self, sender: FakeHost, entry: int = 10) -> bool:
        """Whether a packet that this end sends for a line now would be opened by the other end."""
        serial = sender.senders.get(entry)
        if serial is None:
            return False
        receiver = self.b if sender is self.a else self.a
        out = sender.installed_pairs[serial].outbound
        return any(one.inbound == out for one in receiver.installed_pairs.values())

    def both_ways(self, entry: int = 10) -> bool:
        return self.carries(self.a, entry) and self.carries(self.b, entry)

    def settled(self) -> None:
        """Nothing leaked: both ends hold the same pairs, and no SPI but theirs."""
        for host in (self.a, self.b):
            held = {
                spi.to_bytes(4, "big")
                for one in host.installed_pairs.values()
                for spi in (one.inbound.esp_spi, one.inbound.ah_spi)
                if spi
            }
            held |= {one.cpi_in.to_bytes(2, "big") for one in host.installed_pairs.values() if one.cpi_in}
            assert host.spis_out == held
            assert set(host.owners) == set(host.installed_pairs)
            own = {pair.child.serial for session in host.sessions for pair in session.child_sas.all}
            assert own == set(host.installed_pairs)
        inbound = sorted(
            repr(one.inbound.esp_spi or one.inbound.ah_spi) for one in self.a.installed_pairs.values()
        )
        outbound = sorted(
            repr(one.outbound.esp_spi or one.outbound.ah_spi) for one in self.b.installed_pairs.values()
        )
        assert inbound == outbound
