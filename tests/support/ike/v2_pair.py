"""Two ends of IKEv2 in memory: a fake clock, a network that can lose, hold, double and alter, and what each end's
data engine would hold. No engine: `Host` here does only what a session needs."""

from __future__ import annotations

import random as randomness
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any

from chassis.ase.ike.child_proposals import Suite
from chassis.ase.ike.connection import Connection, Group, Line
from chassis.ase.ike.errors import FailureReason
from chassis.ase.ike.host import Child, IkeSettings, Path
from chassis.ase.ike.identity import Identity
from chassis.ase.ike.messages import text
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import Protocol
from chassis.ase.ike.v2.session import SessionV2
from chassis.ase.link import FromIke, SaDelete, SaExpiring, SaInstall, SaMove, SaSwitch
from chassis.bus.records import AclRuleRecord
from chassis.model.ike import IkePolicy, IkeProposal
from chassis.model.ipsec import IpsecProposal

A, B = 0x0A000001, 0x0A000002


def suite(
    ah: str | None = None,
    cipher: str | None = "aes-128-cbc",
    integrity: str | None = "hmac-sha1-96",
    *,
    group: int | None = None,
    esn: bool = False,
    ip_comp: bool = False,
    seconds: int = 3600,
    kbytes: int | None = None,
) -> Suite:
    proposal = IpsecProposal(
        "p",
        ip_comp=ip_comp,
        ah=ah,
        esp_authentication=integrity,
        esp_encryption=cipher,
        lifetime_seconds=seconds,
        lifetime_kbytes=kbytes,
    )
    return Suite(proposal, group, esn)


def rule(source: int, destination: int, length: int = 16, protocol: int = -1, port: int = -1) -> AclRuleRecord:
    return AclRuleRecord(10, protocol, source, length, -1, destination, length, port)


def mirrored(rules: tuple[AclRuleRecord, ...]) -> tuple[AclRuleRecord, ...]:
    return tuple(
        replace(
            one,
            source=one.destination,
            source_length=one.destination_length,
            source_port=one.destination_port,
            destination=one.source,
            destination_length=one.source_length,
            destination_port=one.source_port,
        )
        for one in rules
    )


def line(seq: int = 10, *suites: Suite, rules: tuple[AclRuleRecord, ...] = (), window: int = 64) -> Line:
    return Line(seq, f"policy{seq}", suites or (suite(),), rules, window)


def connection(
    local: int,
    remote: int,
    *lines: Line,
    proposals: tuple[IkeProposal, ...] = (IkeProposal("p", 2, dh_group=2),),
    policy: Mapping[str, Any] | None = None,
    **more: Any,
) -> Connection:
    return Connection(
        tunnel=7,
        name="t",
        context=1,
        context_name="local",
        local=local,
        remote=remote,
        version=2,
        policy=IkePolicy("p", 2, **(policy or {})),
        proposals=proposals,
        lines=lines or (line(),),
        identity=more.pop("identity", Identity.address(local)),
        expected=more.pop("expected", Identity.address(remote)),
        psk=more.pop("psk", b"a shared secret"),
        **more,
    )


@dataclass
class Pair:
    """A pair of SAs in an end's data engine."""

    install: SaInstall
    sends: bool


@dataclass(eq=False)
class End:
    """One Host with its sessions, and the data engine as far as IKE tells it."""

    name: str
    address: int
    net: Net
    connections: tuple[Connection, ...]
    settings: IkeSettings
    asp: str = "1/1"
    sessions: list[SessionV2] = field(default_factory=list)
    pairs: dict[int, Pair] = field(default_factory=dict)
    taken: set[bytes] = field(default_factory=set)
    logs: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    failures: list[tuple[FailureReason, int | None]] = field(default_factory=list)
    downs: list[str] = field(default_factory=list)
    ups: list[SessionV2] = field(default_factory=list)
    emitted: list[FromIke] = field(default_factory=list)
    owners: dict[int, SessionV2] = field(default_factory=dict)
    contacts: list[SessionV2] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    first: bool = False
    serials: Any = field(default_factory=lambda: count(1))

    def random(self, octets: int) -> bytes:
        return self.net.random.randbytes(octets)

    @property
    def wall(self) -> float:
        return 1_700_000_000.0 + self.net.now

    def send(self, path: Path, data: bytes) -> None:
        self.net.send(self, path, data)

    def emit(self, message: FromIke) -> None:
        self.emitted.append(message)
        if isinstance(message, SaInstall):
            assert message.serial not in self.pairs
            if message.send:
                self._quiet(message.entry)
            self.pairs[message.serial] = Pair(message, message.send)
        elif isinstance(message, SaSwitch):
            pair = self.pairs[message.serial]
            self._quiet(pair.install.entry)
            pair.sends = True
        elif isinstance(message, SaDelete):
            del self.pairs[message.serial]
        elif isinstance(message, SaExpiring):
            assert message.serial in self.pairs
        elif isinstance(message, SaMove):
            pair = self.pairs[message.serial]
            pair.install = replace(pair.install, encapsulation=(message.encapsulation,))

    def _quiet(self, entry: int) -> None:
        for pair in self.pairs.values():
            if pair.install.entry == entry:
                pair.sends = False

    def log(self, id: str, values: Mapping[str, Any], session: Any, path: Path, now: float) -> None:
        self.logs.append(text(id, values))

    def say(self, kind: str, severity: str, text: str, session: Any, path: Path, now: float) -> None:
        self.said.append(text)

    def count(self, name: str, number: int = 1) -> None:
        self.counts[name] += number

    def group(self, context: int, local: int, remote: int, version: int) -> Group | None:
        members = tuple(one for one in self.connections if (one.local, one.remote) == (local, remote))
        if not members and self.net.nat is not None:
            members = tuple(one for one in self.connections if one.local == local)
        if not members:
            return None
        by_identity: dict[tuple[int, bytes], list[Connection]] = {}
        for one in members:
            by_identity.setdefault(one.expected.key, []).append(one)
        proposals = tuple(dict.fromkeys(proposal for one in members for proposal in one.proposals))
        return Group(members, proposals, by_identity)

    def ike_spi(self) -> bytes:
        return self.random(8)

    def spis(self, protocols: tuple[int, ...]) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        while not found or self.taken & set(found.values()):
            found = {p: b"\x11" + self.random(1 if p == Protocol.IPCOMP else 3) for p in protocols}
        self.taken |= set(found.values())
        return found

    def release(self, spis: Mapping[int, bytes]) -> None:
        self.taken -= set(spis.values())

    def serial(self, tunnel: int) -> int:
        return next(self.serials)

    def adopt(self, session: Any) -> None:
        if session not in self.sessions:
            self.sessions.append(session)

    def up(self, session: Any, now: float) -> None:
        self.ups.append(session)

    def installed(self, session: Any, child: Child, now: float) -> None:
        assert child.serial in self.pairs
        self.owners[child.serial] = session

    def removed(self, session: Any, child: Child, reason: str, now: float) -> None:
        assert child.serial not in self.pairs
        assert self.owners.pop(child.serial) is session

    def failed(self, session: Any, failure: FailureReason, now: float, line: Line | None = None) -> None:
        self.failures.append((failure, None if line is None else line.seq))

    def down(self, session: Any, reason: str, now: float) -> None:
        assert session.closed
        self.downs.append(reason)

    def first_contact(self, connection: Connection) -> bool:
        first, self.first = self.first, False
        return first

    def contacted(self, session: Any, now: float) -> None:
        self.contacts.append(session)

    # what a test asks

    def begin(self) -> SessionV2:
        one = self.connections[0]
        session = SessionV2.initiate(self, one, Path(one.context, one.local, 500, one.remote, 500))
        self.sessions.append(session)
        session.start(self.net.now)
        return session

    @property
    def live(self) -> list[SessionV2]:
        return [one for one in self.sessions if not one.closed]

    @property
    def session(self) -> SessionV2:
        """The one IKE SA that stands."""
        (found,) = [one for one in self.sessions if one.established]
        return found

    def sender(self, entry: int) -> SaInstall | None:
        found = [pair.install for pair in self.pairs.values() if pair.install.entry == entry and pair.sends]
        assert len(found) <= 1
        return found[0] if found else None

    def receive(self, path: Path, data: bytes) -> None:
        if not data:
            self.counts["keepalives in"] += 1
            return
        header = Header.parse(data)
        ours = {one.spi: one for one in self.live}
        found = ours.get(header.spi_r) or ours.get(header.spi_i)
        if found is None and header.spi_r == bytes(8):
            found = next((one for one in self.live if not one.initiator and one.peer_spi == header.spi_i), None)
        if found is None:
            if header.is_response or header.spi_r != bytes(8):
                self.counts["unknown SPI"] += 1
                return
            found = SessionV2.respond(self, path, header)
            self.sessions.append(found)
        found.receive(data, header, path, self.net.now)


Hook = Callable[["End", bytes, Header], "float | bytes | None"]
"""Given the sender and a message: seconds of delay, other octets to deliver, or None to lose it."""


class Net:
    """The way between the ends `a` and `b`. `hook` sees every message; `nat` is the address that a's become."""

    def __init__(
        self,
        a: Connection | tuple[Connection, ...],
        b: Connection | tuple[Connection, ...],
        *,
        settings: IkeSettings | None = None,
        other: IkeSettings | None = None,
        seed: int = 1,
        nat: tuple[int, int] | None = None,
        latency: float = 0.01,
    ) -> None:
        self.now = 1000.0
        self.random = randomness.Random(seed)
        self.nat = nat
        self.latency = latency
        self.hook: Hook | None = None
        self.traffic = False
        self.lost: list[str] = []
        self.carried = 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._ids = count()
        mine = settings or IkeSettings()
        self.a = End("a", A, self, a if isinstance(a, tuple) else (a,), mine)
        self.b = End("b", B, self, b if isinstance(b, tuple) else (b,), other or mine)

    def send(self, sender: End, path: Path, data: bytes) -> None:
        fate: float | bytes | None = 0.0
        if self.hook is not None and data:
            fate = self.hook(sender, data, Header.parse(data))
        if fate is None:
            return
        if isinstance(fate, bytes):
            data, fate = fate, 0.0
        target = self.b if sender is self.a else self.a
        source, port = path.local, path.local_port
        remote, remote_port = path.remote, path.remote_port
        if self.nat is not None:
            if sender is self.a:
                source, port = self.nat[0], self.nat[1] + port
            else:
                remote, remote_port = A, path.remote_port - self.nat[1]
        there = Path(path.context, remote, remote_port, source, port)
        self.at(self.now + self.latency + fate, lambda: target.receive(there, data))

    def at(self, when: float, call: Callable[[], None]) -> None:
        heappush(self._queue, (when, next(self._ids), call))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        for _ in range(1_000_000):
            due = [self._queue[0][0]] if self._queue else []
            due += [one.next_timer() for end_ in (self.a, self.b) for one in end_.live]
            at = min(due, default=inf)
            if at > end:
                break
            self.now = max(self.now, at)
            while self._queue and self._queue[0][0] <= self.now:
                heappop(self._queue)[2]()
            for one in (*self.a.live, *self.b.live):
                if one.next_timer() <= self.now:
                    one.on_timer(self.now)
        else:
            raise AssertionError("time does not pass")
        self.now = end

    # packets

    def flow(self, seconds: float, every: float = 0.004) -> None:
        """Let time pass with packets of every line going both ways; what gets lost is in `lost`."""
        steps = round(seconds / every)
        for _ in range(steps):
            self._packet(self.a, self.b)
            self._packet(self.b, self.a)
            self.run(every)

    def _packet(self, sender: End, receiver: End) -> None:
        for one in sender.connections[0].lines:
            pair = sender.sender(one.seq)
            if pair is None:
                self.lost.append(f"{self.now:.3f} {sender.name}: line {one.seq} has no pair that sends")
                continue
            self.at(self.now + self.latency, lambda pair=pair: self._arrive(sender, receiver, pair))

    def _arrive(self, sender: End, receiver: End, pair: SaInstall) -> None:
        for serial, one in list(receiver.pairs.items()):
            inbound = one.install.inbound
            if (inbound.esp_spi, inbound.ah_spi) == (pair.outbound.esp_spi, pair.outbound.ah_spi):
                assert inbound == pair.outbound
                self.carried += 1
                if not one.sends:
                    receiver.owners[serial].seen(serial, self.now)
                return
        self.lost.append(f"{self.now:.3f} {receiver.name}: no pair of {sender.name}'s {pair.serial}")

    # the oracle

    def agree(self, lines: int = 1, sessions: int = 1) -> None:
        """Both ends hold the same pairs and IKE SAs, every line sends, and no SPI is taken for nothing."""
        for end in (self.a, self.b):
            assert len([one for one in end.live if one.established]) == sessions, [
                one.sa.state for one in end.sessions
            ]
            assert len(end.live) == sessions, [one.sa.state for one in end.live]
            assert len(end.pairs) == lines, (end.name, end.pairs)
            held = {
                spi
                for one in end.live
                for child in one.child_sas.by_serial.values()
                for spi in child.spis_in.values()
            }
            assert end.taken == held
            assert all(pair.sends for pair in end.pairs.values())
            assert set(end.owners) == set(end.pairs)
            assert all(end.owners[serial] in end.live for serial in end.pairs)
        assert {one.spi for one in self.a.live} == {one.peer_spi for one in self.b.live}
        ours = {(p.install.outbound, p.install.inbound) for p in self.a.pairs.values()}
        theirs = {(p.install.inbound, p.install.outbound) for p in self.b.pairs.values()}
        assert ours == theirs

    def nothing(self) -> None:
        """Nothing is left at either end."""
        for end in (self.a, self.b):
            assert not end.live
            assert not end.pairs
            assert not end.taken
            assert not end.owners


def both(*lines: Line, **more: Any) -> tuple[Connection, Connection]:
    """The connections of two ends that fit."""
    there = tuple(replace(one, rules=mirrored(one.rules)) for one in lines)
    return connection(A, B, *lines, **more), connection(B, A, *there, **more)


def established(*lines: Line, net: Mapping[str, Any] | None = None, **more: Any) -> Net:
    """Two ends between which everything stands; a began."""
    a, b = both(*lines, **more)
    made = Net(a, b, **(net or {}))
    made.a.begin()
    made.run(2.0)
    made.agree(len(a.lines))
    return made
