"""Two whole IKE engines in memory, on a fake clock, with a wire between them that a test can trouble."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random
from typing import Any, Literal

from chassis.ase.ike.engine import IkeEngine
from chassis.ase.ike.log import TEMPLATES
from chassis.ase.ike_messages import (
    Acquire,
    Configure,
    FromIke,
    IkeLog,
    IkePacket,
    IkeReply,
    IkeRequest,
    IkeTunnelState,
    PeerUsesSa,
    SaActivateOutbound,
    SaDelete,
    SaExpire,
    SaInstall,
    SaUpdateAddress,
)
from chassis.bus.messages import PeerDropped, PeerQuestion
from chassis.bus.records import CertificateRecord, ContextRecord, PolicyRecord, Record, TunnelRecord
from chassis.model.acl import Acl, AclRule
from chassis.model.ike import Identity, IkePolicy, IkeProposal, PreSharedKey, ProposalRef
from chassis.model.ipsec import IpsecPolicy, IpsecProposal, TunnelEntry
from chassis.model.router import Tunnel

START = 1000.0
WALL = 1_750_000_000.0
A, B = 0x0A000001, 0x0A000002
CONTEXT = 7
TUNNEL = 5
Version = Literal[1, 2]
Mode = Literal["main", "aggressive"]
Method = Literal["pre-shared-key", "rsa-signature"]
SEQUENCE = 0xFFFF
"""What of a line's number is that of its `seq`; the rest names a rule."""


def esp(
    ah: str = "",
    cipher: str = "aes-128-cbc",
    integrity: str = "hmac-sha1-96",
    seconds: int = 86400,
    kbytes: int | None = None,
    *,
    ip_comp: bool = False,
) -> IpsecProposal:
    """An IPsec proposal; "" is an algorithm that it does not have."""
    return IpsecProposal(
        "child", ip_comp=ip_comp, ah=ah or None, esp_encryption=cipher or None,
        esp_authentication=integrity or None, lifetime_seconds=seconds, lifetime_kbytes=kbytes,
    )  # fmt: skip


def named(text: str) -> Identity | None:
    """An identity of a policy, None for ""."""
    return Identity("address" if text[:1].isdigit() else "fqdn", text) if text else None


def references(proposals: Sequence[IkeProposal | IpsecProposal]) -> tuple[ProposalRef, ...]:
    """The lines of a policy that name these proposals in order."""
    return tuple(ProposalRef(seq, one.name) for seq, one in enumerate(proposals, 1))


@dataclass(frozen=True)
class Ends:
    """The configuration of one end, changed by `replace` where a test wants another one."""

    local: int = A
    remote: int = B
    version: Version = 2
    connection: Literal["initiator-only", "responder-only", "both"] = "both"
    mode: Mode = "main"
    proposals: tuple[IkeProposal, ...] = ()
    suites: tuple[IpsecProposal, ...] = (esp(),)
    authentication: Method = "pre-shared-key"
    psk: bytes = b"secret of two"
    pfs: int = 0
    esn: bool = False
    window: int = 64
    lifetime: int = 86400
    identity_local: str = ""
    identity_remote: str = ""
    remote_id: str = ""
    validate: bool = False
    keepalive: bool = False
    rules: tuple[tuple[AclRule, ...], ...] = ((),)
    certificates: tuple[CertificateRecord, ...] = ()
    wanted: bool = True
    ready: bool = True
    tunnel: int = TUNNEL
    outer: int = CONTEXT
    inner: int = 1

    def records(self) -> tuple[Record, ...]:
        proposals = self.proposals or (proposal(self.version, authentication=self.authentication),)
        found: list[Record] = [
            ContextRecord(self.outer, "outer", keepalive=self.keepalive),
            PolicyRecord(
                self.outer,
                IkePolicy(
                    name=f"policy{self.tunnel}",
                    version=self.version,
                    connection_type=self.connection,
                    identity_local=named(self.identity_local),
                    identity_remote=named(self.identity_remote),
                    mode=self.mode,
                    authentication=self.authentication,
                    validate_certificate_identity=self.validate,
                    lifetime=self.lifetime,
                    proposals=references(proposals),
                    pre_shared_key=PreSharedKey("ascii", self.psk) if self.psk else None,
                ),
            ),
            PolicyRecord(0, IpsecPolicy(name="ipsec", window=self.window, pfs_group=self.pfs or None,
                proposals=references(self.suites), esn=self.esn)),
            *(PolicyRecord(0, one) for one in proposals),
            *(PolicyRecord(0, one) for one in self.suites),
            *self.certificates,
        ]  # fmt: skip
        entries = []
        for seq, rules in enumerate(self.rules, 1):
            name = f"acl{seq}" if rules else ""
            if rules:
                found.append(PolicyRecord(self.inner, Acl(name, rules=rules)))
            entries.append(TunnelEntry(seq * 10, policy="ipsec", acl=name))
        found.append(
            TunnelRecord(
                number=self.tunnel,
                config=Tunnel(f"tunnel{self.tunnel}", economical=True, ike_policy=f"policy{self.tunnel}",
                    remote_id=self.remote_id or None, entries=tuple(entries)),
                asp="asp 1/1",
                circuit=0,
                home="",
                context=self.inner,
                outer_context=self.outer,
                local=self.local,
                remote=self.remote,
                queues=1,
                up=self.ready,
                wanted=self.wanted,
            ),
        )  # fmt: skip
        return tuple(found)


def proposal(
    version: Version,
    name: str = "ike",
    *,
    cipher: str = "aes-128-cbc",
    integrity: str = "hmac-sha1-96",
    **values: Any,
) -> IkeProposal:
    """The guide's default proposal, with what a test wants otherwise."""
    return IkeProposal(name, version, encryption_algorithm=cipher, authentication_algorithm=integrity, **values)


def other(ends: Ends) -> Ends:
    """The far end of it: addresses, identities and rules mirrored."""
    mirrored = tuple(
        tuple(
            replace(
                rule,
                source=rule.destination,
                source_port=rule.destination_port,
                destination=rule.source,
                destination_port=rule.source_port,
            )
            for rule in rules
        )
        for rules in ends.rules
    )
    return replace(
        ends, local=ends.remote, remote=ends.local, identity_local=ends.identity_remote,
        identity_remote=ends.identity_local, rules=mirrored,
    )  # fmt: skip


@dataclass
class End:
    """One engine and what its data engine would hold."""

    ike: IkeEngine
    local: int
    pairs: dict[tuple[int, int], SaInstall] = field(default_factory=dict)
    sending: dict[tuple[int, int], int] = field(default_factory=dict)
    """Serial of the pair that sends, by (tunnel, entry)."""
    seen: set[tuple[int, int]] = field(default_factory=set)
    states: dict[int, IkeTunnelState] = field(default_factory=dict)
    logs: list[Any] = field(default_factory=list)
    replies: list[IkeReply] = field(default_factory=list)
    sent: list[IkePacket] = field(default_factory=list)
    gone: dict[tuple[int, int], SaInstall] = field(default_factory=dict)
    deleted: list[SaDelete] = field(default_factory=list)
    expiring: list[SaExpire] = field(default_factory=list)
    moves: list[SaUpdateAddress] = field(default_factory=list)
    questions: list[PeerQuestion | PeerDropped] = field(default_factory=list)
    """What this end asked its controller about peers, and told it of them."""
    dead: bool = False

    def next_timer(self) -> float:
        return inf if self.dead else self.ike.next_timer()

    @property
    def sessions(self) -> list[Any]:
        """Every negotiation and IKE SA, oldest first."""
        return list(self.ike.ike_sa_manager.table.by_spi.values())

    @property
    def standing(self) -> list[Any]:
        return [one for one in self.sessions if one.established]

    @property
    def session(self) -> Any:
        """The newest IKE SA that is established."""
        return self.standing[-1]

    @property
    def installs(self) -> list[SaInstall]:
        """The pairs that there are, oldest first."""
        return list(self.pairs.values())

    def count(self, name: str) -> int:
        """What this end counted of a name, in both versions."""
        total = self.ike.ike_sa_manager.statistics.total
        return sum(total.get(f"{mark}{name}", 0) for mark in ("", "v1 ", "v2 "))

    def says(self, part: str) -> bool:
        """Whether a log line has this text in it."""
        return any(part in text for text in self.texts())

    def up(self, tunnel: int = TUNNEL) -> bool:
        state = self.states.get(tunnel)
        return state is not None and state.up

    def rows(self) -> list[str]:
        """Ids of the guide's log lines, in order."""
        return [record.id for record in self.logs if record.id in TEMPLATES]

    def texts(self) -> list[str]:
        return [record.text for record in self.logs]

    def number(self, entry: int = 10, tunnel: int = TUNNEL, rule: int = 0) -> int:
        """What a line is known by, or one of its rules where each has SAs of its own: the first without `rule`."""
        known = [
            pair.entry
            for (number, _), pair in (*self.pairs.items(), *self.gone.items())
            if number == tunnel
            and pair.entry & SEQUENCE == entry
            and rule in (0, *(one.seq for one in pair.rules))
        ]
        return min(known, default=entry)

    def sender(self, entry: int = 10, tunnel: int = TUNNEL, rule: int = 0) -> SaInstall | None:
        serial = self.sending.get((tunnel, self.number(entry, tunnel, rule)))
        return None if serial is None else self.pairs.get((tunnel, serial))

    def opens(self, spis: tuple[int, int]) -> tuple[int, int] | None:
        """The pair whose inbound (AH, ESP) SPIs these are."""
        for name, pair in self.pairs.items():
            if (pair.inbound.ah_spi, pair.inbound.esp_spi) == spis:
                return name
        return None


Trouble = Callable[[int, IkePacket, float], Iterable[float | tuple[float, bytes]]]
"""(sender's address, datagram, time): delays in seconds at which copies arrive, with their octets where these are
others; none for a lost one."""
NAT, SHIFT = 0x0B000001, 10_000
"""The address that a NAT gives end a, and what it adds to a port."""


class EnginePair:
    """Both ends and the wire. `trouble` decides what becomes of each datagram."""

    def __init__(
        self,
        a: Ends,
        b: Ends,
        *,
        seed: int = 1,
        trouble: Trouble | None = None,
        nat: bool = False,
        **settings: Any,
    ) -> None:
        """With `nat` the peer knows end a by the address `NAT`; `shift` is what is added to its ports."""
        self.now = START
        self.wall = WALL - START
        """What has to be added to `now` for the time of day."""
        self.trouble = trouble
        self.shift = SHIFT
        self.keepalives = 0
        """Datagrams that only keep a mapping of the NAT."""
        self._random = Random(seed)
        self._heap: list[tuple[float, int, End, Any]] = []
        self._ids = count()
        self.settings = settings
        self.flown = self.unsent = 0
        self.lost: list[tuple[float, int]] = []
        self.a, self.b = self._end(a), self._end(b)
        self.others: list[End] = []
        """Further ends."""
        self.ends = {NAT if nat else a.local: self.a, b.local: self.b}
        self.configure(self.a, a.records(), whole=True)
        self.configure(self.b, b.records(), whole=True)

    def _end(self, ends: Ends) -> End:
        return End(IkeEngine(f"asp {ends.local & 15}/1", random=self._random.randbytes), ends.local)

    def mute(self, end: End) -> None:
        """The ASP of an end is dead: nothing of it does anything any more."""
        end.dead = True
        end.pairs.clear()
        end.sending.clear()

    def restart(self, end: End, ends: Ends) -> End:
        """The ASP of an end was killed and stands again."""
        new = self._end(ends)
        if end is self.a:
            self.a = new
        else:
            self.b = new
        self.ends[ends.local] = new
        self.configure(new, ends.records(), whole=True)
        return new

    def configure(
        self, end: End, put: tuple[Record, ...], delete: tuple[Any, ...] = (), *, whole: bool = False
    ) -> None:
        self.give(end, Configure(put, delete, whole, dict(self.settings) if whole else {}))

    def give(self, end: End, message: Any) -> None:
        """A message of an end's data engine, at once."""
        self._took(end, end.ike.receive(message, self.now, self.now + self.wall))

    def drive(self, end: End, call: Callable[..., None], *arguments: Any, **more: Any) -> None:
        """Call a method of one of an end's sessions: what the engine does after each of its own calls is done."""
        end.ike.ike_sa_manager.run(call.__self__, lambda: call(*arguments, **more))  # type: ignore[attr-defined]
        self._took(end, end.ike.on_timer(self.now))

    def ask(self, end: End, name: str, **arguments: Any) -> IkeReply:
        self.give(end, IkeRequest(1, name, arguments))
        return end.replies[-1]

    def until(self, condition: Callable[[], bool], within: float = 60.0) -> bool:
        """Let time pass until something is so; whether it came to be."""
        deadline = self.now + within
        while not condition():
            if not self._step(deadline):
                return condition()
        return True

    def run(self, seconds: float) -> None:
        """Let time pass."""
        deadline = self.now + seconds
        while self._step(deadline):
            pass

    def packet(self, sender: End, entry: int = 10, tunnel: int = TUNNEL, rule: int = 0) -> bool:
        """Whether a packet gets through just now: the SA that sends is there, and the other end can open it."""
        receiver = self.b if sender is self.a else self.a
        pair = sender.sender(entry, tunnel, rule)
        if pair is None:
            self.give(sender, Acquire(tunnel, sender.number(entry, tunnel, rule)))
            return False
        name = receiver.opens((pair.outbound.ah_spi, pair.outbound.esp_spi))
        if name is None:
            return False
        taken = receiver.pairs[name]
        assert taken.inbound == pair.outbound, "both ends have the same keys"
        if name not in receiver.seen:
            receiver.seen.add(name)
            if receiver.sending.get((name[0], taken.entry)) != name[1]:
                self.give(receiver, PeerUsesSa(*name))
        return True

    def flow(self, sender: End, entry: int = 10, tunnel: int = TUNNEL, delay: float = 0.005) -> None:
        """A packet leaves now by the pair that sends, and arrives later: `lost` counts those that nobody opens."""
        pair = sender.sender(entry, tunnel)
        self.flown += 1
        if pair is None:
            self.unsent += 1
            return
        receiver = self.b if sender is self.a else self.a
        self._later(delay, receiver, lambda: self._arrived(receiver, pair))

    def _later(self, delay: float, receiver: End, arrive: Callable[[], None]) -> None:
        """Something that is not IKE's comes to an end, if it lives then."""
        heappush(self._heap, (self.now + delay, next(self._ids), receiver, arrive))

    def _arrived(self, receiver: End, pair: SaInstall) -> None:
        name = receiver.opens((pair.outbound.ah_spi, pair.outbound.esp_spi))
        if name is None:
            self.lost.append((self.now, receiver.local))
            return
        taken = receiver.pairs[name]
        assert taken.inbound == pair.outbound, "both ends have the same keys"
        if name not in receiver.seen and receiver.sending.get((name[0], taken.entry)) != name[1]:
            receiver.seen.add(name)
            self.give(receiver, PeerUsesSa(*name))

    def _step(self, deadline: float) -> bool:
        everyone = (self.a, self.b, *self.others)
        at = min(self._heap[0][0] if self._heap else inf, *(end.next_timer() for end in everyone))
        if at > deadline:
            self.now = deadline
            return False
        self.now = max(self.now, at)
        if self._heap and self._heap[0][0] <= self.now:
            _, _, end, message = heappop(self._heap)
            if end in everyone and not end.dead:
                if callable(message):
                    message()
                else:
                    self.give(end, message)
        else:
            for end in everyone:
                if end.next_timer() <= self.now:
                    self._took(end, end.ike.on_timer(self.now))
        return True

    def _took(self, end: End, messages: list[FromIke]) -> None:
        for message in messages:
            if isinstance(message, IkePacket):
                end.sent.append(message)
                self._wire(end, message)
            elif isinstance(message, SaInstall):
                name = (message.tunnel, message.serial)
                assert name not in end.pairs, "a serial is given once"
                end.pairs[name] = message
                if message.send:
                    end.sending[message.tunnel, message.entry] = message.serial
            elif isinstance(message, SaActivateOutbound):
                pair = end.pairs[message.tunnel, message.serial]
                end.sending[message.tunnel, pair.entry] = message.serial
            elif isinstance(message, SaDelete):
                pair = end.pairs.pop((message.tunnel, message.serial))
                end.gone[message.tunnel, message.serial] = pair
                end.deleted.append(message)
                if end.sending.get((message.tunnel, pair.entry)) == message.serial:
                    del end.sending[message.tunnel, pair.entry]
            elif isinstance(message, SaUpdateAddress):
                name = (message.tunnel, message.serial)
                end.pairs[name] = replace(end.pairs[name], encapsulation=(message.encapsulation,))
                end.moves.append(message)
            elif isinstance(message, SaExpire):
                assert (message.tunnel, message.serial) in end.pairs
                end.expiring.append(message)
            elif isinstance(message, IkeTunnelState):
                end.states[message.tunnel] = message
            elif isinstance(message, IkeLog):
                end.logs.append(message.record)
            elif isinstance(message, IkeReply):
                end.replies.append(message)
            elif isinstance(message, PeerQuestion | PeerDropped):
                end.questions.append(message)
                self.on_question(end, message)

    def on_question(self, end: End, message: PeerQuestion | PeerDropped) -> None:
        """An end asks its controller about a peer, or tells it that one is gone."""

    def _wire(self, end: End, packet: IkePacket) -> None:
        there, port = packet.remote, packet.remote_port
        here, from_port = packet.local, packet.local_port
        receiver = self.ends.get(there)
        if not packet.data:
            self.keepalives += 1
        if receiver is None or not packet.data:
            return
        if NAT in self.ends:
            if end is self.a:
                here, from_port = NAT, from_port + self.shift
            else:
                there, port = receiver.local, port - self.shift
                # A NAT knows one port of a's at a time.
                if port not in (500, 4500):
                    return
        copies = [0.005] if self.trouble is None else self.trouble(end.local, packet, self.now)
        for copy in copies:
            delay, data = copy if isinstance(copy, tuple) else (copy, packet.data)
            arrived = IkePacket(packet.context, there, port, here, from_port, data)
            heappush(self._heap, (self.now + delay, next(self._ids), receiver, arrived))


def settled(two: EnginePair, pairs: int = 1) -> None:
    """Both ends hold the same pairs, one IKE SA serves them, packets pass, and no SPI is held for nothing."""
    agree(two)
    for end in (two.a, two.b):
        assert len(end.pairs) == pairs, end.pairs
        assert len(end.standing) == 1, end.sessions
        held = [
            spi for one in end.installs for spi in (one.inbound.esp_spi, one.inbound.ah_spi, one.cpi_in) if spi
        ]
        assert end.ike.ike_sa_manager.spis_held == len(held)
        assert not pairs or two.packet(end)


def agree(two: EnginePair) -> None:
    """Both ends hold the same pairs."""
    mine = {(p.outbound, p.inbound) for p in two.a.pairs.values()}
    theirs = {(p.inbound, p.outbound) for p in two.b.pairs.values()}
    assert mine == theirs


def first_message(ends: Ends) -> bytes:
    """What an initiator begins with."""
    seen: list[bytes] = []

    def listen(sender: int, packet: IkePacket, now: float) -> Iterable[float]:
        seen.append(packet.data)
        return ()

    EnginePair(replace(ends, connection="initiator-only"), other(ends), seed=9, trouble=listen).run(0.01)
    return seen[0]


def always(two: EnginePair, seconds: float) -> None:
    """Let time pass in which both ends always have a pair that the other one opens."""
    until = two.now + seconds
    while two.now < until:
        two.run(0.25)
        assert two.packet(two.a)
        assert two.packet(two.b)
