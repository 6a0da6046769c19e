"""Our end of a tunnel with a peer, without a chassis: the IKE engine on UDP sockets in a namespace.

What the data engine would hold, this holds; packets are sealed and opened by `esp_udp`. Everything runs in the
test's own loop: `until` turns it. The whole router is met by the peers in labs.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from chassis.ase.ike.engine import Ike
from chassis.ase.link import (
    Configure,
    FromIke,
    IkeLog,
    IkePacket,
    IkeReply,
    IkeRequest,
    IkeState,
    NoSa,
    PeerSeen,
    SaDelete,
    SaInstall,
    SaMove,
    SaSeen,
    SaSwitch,
)
from chassis.bus.records import (
    CertificateRecord,
    ContextRecord,
    PolicyEntryRecord,
    PolicyRecord,
    Record,
    TunnelRecord,
)
from chassis.model.acl import Acl, AclRule
from chassis.model.ike import Identity, IkePolicy, IkeProposal, PreSharedKey, ProposalRef
from chassis.model.ipsec import IpsecPolicy, IpsecProposal
from chassis.net.address import format_address, parse_address
from tests.support.esp_udp import EspError, Pair, udp_packet
from tests.support.ike.pair import Method, Mode, Version
from tests.support.netns import Namespaces

CONTEXT = 1
INNER = 2
MARKER = bytes(4)
US, PEER = "10.99.0.1", "10.99.0.2"
OUR_HOST, PEER_HOST, PEER_OTHER = "10.1.0.1", "10.2.0.1", "10.2.128.1"
ECHO = 7
SEQUENCE = 0xFFFF
"""What of a line's number is that of its `seq`; the rest names a rule."""


def rule(seq: int = 10, source: str = "10.1.0.0/16", destination: str = "10.2.0.0/16") -> AclRule:
    """A rule of an access list, any protocol."""
    (one, length), (other, far) = ((*text.split("/"),) for text in (source, destination))
    return AclRule(seq, source=(parse_address(one), int(length)), destination=(parse_address(other), int(far)))


def _references(proposals: Sequence[IkeProposal | IpsecProposal]) -> tuple[ProposalRef, ...]:
    return tuple(ProposalRef(seq, one.name) for seq, one in enumerate(proposals, 1))


@dataclass(frozen=True)
class Ours:
    """Configuration of our end, in the terms of the guide's lines. `ike` and `esp` are proposals in order."""

    version: Version
    ike: tuple[IkeProposal, ...]
    esp: tuple[IpsecProposal, ...]
    connection: Literal["initiator-only", "responder-only", "both"] = "both"
    mode: Mode = "main"
    authentication: Method = "pre-shared-key"
    psk: bytes = b"a key of two"
    pfs: int = 0
    lifetime: int = 86400
    rules: tuple[AclRule, ...] = (rule(),)
    certificates: tuple[CertificateRecord, ...] = ()
    keepalive: bool = False
    identity_local: str = ""
    remote_id: str = ""
    number: int = 5
    up: bool = True
    wanted: bool = True

    def records(self) -> tuple[Record, ...]:
        acls = (PolicyRecord(INNER, Acl("traffic", rules=self.rules)),) if self.rules else ()
        return (
            ContextRecord(CONTEXT, "outer", keepalive=self.keepalive),
            PolicyRecord(
                CONTEXT,
                IkePolicy(
                    name="policy",
                    version=self.version,
                    connection_type=self.connection,
                    identity_local=Identity("fqdn", self.identity_local) if self.identity_local else None,
                    mode=self.mode,
                    authentication=self.authentication,
                    lifetime=self.lifetime,
                    proposals=_references(self.ike),
                    pre_shared_key=PreSharedKey("ascii", self.psk) if self.psk else None,
                ),
            ),
            PolicyRecord(0, IpsecPolicy("ipsec", pfs_group=self.pfs or None, proposals=_references(self.esp))),
            *(PolicyRecord(0, one) for one in self.ike),
            *(PolicyRecord(0, one) for one in self.esp),
            *self.certificates,
            *acls,
            TunnelRecord(
                number=self.number,
                name="t",
                economical=True,
                asp="asp 1/1",
                circuit=0,
                home="",
                context=INNER,
                outer_context=CONTEXT,
                local=parse_address(US),
                remote=parse_address(PEER),
                mtu=0,
                df_bit="propagate",
                queues=1,
                entries=(PolicyEntryRecord(10, policy="ipsec", acl="traffic" if acls else ""),),
                up=self.up,
                kind="static",
                ike_policy="policy",
                remote_id=self.remote_id,
                wanted=self.wanted,
            ),
        )


@dataclass
class Seen:
    """What the engine said, for conditions and for failures."""

    states: dict[int, IkeState] = field(default_factory=dict)
    logs: list[Any] = field(default_factory=list)
    replies: list[IkeReply] = field(default_factory=list)
    deletes: list[SaDelete] = field(default_factory=list)


class OurEnd:
    """The engine, its sockets in namespace `host`, and what a data engine holds for it."""

    def __init__(self, namespaces: Namespaces, host: str, **settings: Any) -> None:
        self._sockets = {port: namespaces.udp(host, US, port) for port in (500, 4500)}
        self._settings = settings
        self.far = namespaces.udp("peer", PEER_HOST, ECHO)
        self._marks = 0
        self.reset()

    def reset(self) -> None:
        """A new life, as after `kill -9`: nothing is known, and nobody was told."""
        self.ike = Ike("asp 1/1", random=os.urandom)
        self.pairs: dict[tuple[int, int], Pair] = {}
        self.sending: dict[tuple[int, int], int] = {}
        """Serial of the pair that sends, by (tunnel, number of the line or of one of its rules)."""
        self.seen = Seen()
        self.inner: list[bytes] = []
        self.refused: list[str] = []
        self._take(self.ike.start(time.monotonic()))

    def drain(self) -> None:
        """Forget what waits in the sockets: it belongs to the life before."""
        for one in (*self._sockets.values(), self.far):
            while select.select([one], [], [], 0)[0]:
                one.recv(65536)

    def close(self) -> None:
        for one in (*self._sockets.values(), self.far):
            one.close()

    # the engine

    def configure(self, ours: Ours, **settings: Any) -> None:
        """Take a configuration, whole; `settings` are the node's, `_` for `-`, beside those of the rig."""
        given = {name.replace("_", "-"): value for name, value in settings.items()}
        self._give(Configure(ours.records(), (), True, {**self._settings, **given}))

    def clear(self) -> None:
        """No configuration any more: everything is deleted, and the peer told."""
        self._give(Configure((), (), True))
        self.drain()

    def ask(self, name: str, **arguments: Any) -> Any:
        """An operator's command; its result."""
        self._give(IkeRequest(len(self.seen.replies), name, arguments))
        reply = self.seen.replies[-1]
        assert not reply.error, reply.error
        return reply.result

    def up(self, number: int = 5) -> bool:
        state = self.seen.states.get(number)
        return state is not None and state.up

    def turn(self, wait: float = 0.0) -> None:
        """One turn of the loop: what came in, and what is due."""
        due = max(min(wait, self.ike.next_timer() - time.monotonic()), 0.0)
        for ready in select.select([*self._sockets.values()], [], [], due)[0]:
            port = next(port for port, one in self._sockets.items() if one is ready)
            for _ in range(64):
                try:
                    data, sender = ready.recvfrom(65536)
                except BlockingIOError:
                    break
                self._datagram(port, data, sender)
        now = time.monotonic()
        if self.ike.next_timer() <= now:
            self._take(self.ike.on_timer(now))

    def until(self, condition: Callable[[], object], what: Callable[[], str], within: float = 10.0) -> None:
        """Turn until something is so; AssertionError with what was seen instead after the deadline."""
        deadline = time.monotonic() + within
        while not condition():
            assert time.monotonic() < deadline, f"not within {within} s: {what()}\n{self.story()}"
            self.turn(0.005)

    def story(self) -> str:
        """What our end has to say, for a failure."""
        logs = [f"{record.severity}: {record.text}" for record in self.seen.logs[-20:]]
        pairs = [f"pair {name}: {pair.install}" for name, pair in self.pairs.items()]
        return "\n".join(["-- our end", *logs, *map(str, self.seen.states.values()), *pairs, *self.refused[-5:]])

    def _give(self, message: Any) -> None:
        self._take(self.ike.receive(message, time.monotonic(), time.time()))

    def _datagram(self, port: int, data: bytes, sender: tuple[str, int]) -> None:
        if port == 4500:
            if data == b"\xff":
                return
            if data[:4] != MARKER:
                self._esp(data)
                return
            data = data[4:]
        packet = IkePacket(CONTEXT, parse_address(US), port, parse_address(sender[0]), sender[1], data)
        self._give(packet)

    def _take(self, messages: list[FromIke]) -> None:
        for message in messages:
            if isinstance(message, IkePacket):
                data = message.data
                if message.local_port == 4500:
                    data = MARKER + data if data else b"\xff"
                where = (format_address(message.remote), message.remote_port)
                self._sockets[message.local_port].sendto(data, where)
            elif isinstance(message, SaInstall):
                self.pairs[message.tunnel, message.serial] = Pair(message)
                if message.send:
                    self.sending[message.tunnel, message.entry] = message.serial
            elif isinstance(message, SaSwitch):
                entry = self.pairs[message.tunnel, message.serial].install.entry
                self.sending[message.tunnel, entry] = message.serial
            elif isinstance(message, SaDelete):
                pair = self.pairs.pop((message.tunnel, message.serial))
                self.seen.deletes.append(message)
                if self.sending.get((message.tunnel, pair.install.entry)) == message.serial:
                    del self.sending[message.tunnel, pair.install.entry]
            elif isinstance(message, SaMove):
                pair = self.pairs[message.tunnel, message.serial]
                pair.install = replace(pair.install, encapsulation=(message.encapsulation,))
            elif isinstance(message, IkeState):
                self.seen.states[message.tunnel] = message
            elif isinstance(message, IkeLog):
                self.seen.logs.append(message.record)
            elif isinstance(message, IkeReply):
                self.seen.replies.append(message)

    def sends(self, tunnel: int = 5, entry: int = 10, rule: int = 0) -> int:
        """Serial of the pair that sends for a line, or for one of its rules where each has its own; 0 for none."""
        for (number, line), serial in self.sending.items():
            rules = self.pairs[number, serial].install.rules
            mine = rule in (0, *(one.seq for one in rules))
            if number == tunnel and line & SEQUENCE == entry and mine:
                return serial
        return 0

    # packets

    def _esp(self, packet: bytes) -> None:
        spi = int.from_bytes(packet[:4], "big")
        for (tunnel, serial), pair in self.pairs.items():
            if pair.install.inbound.esp_spi == spi:
                try:
                    self.inner.append(pair.unseal(packet))
                except EspError as error:
                    self.refused.append(f"SPI {spi:#x}: {error}")
                    return
                if pair.received == 1 and self.sending.get((tunnel, pair.install.entry)) != serial:
                    self._give(SaSeen(tunnel, serial))
                self._give(PeerSeen((tunnel,)))
                return
        self.refused.append(f"SPI {spi:#x}: no such SA")

    def carry(self, *sizes: int, tunnel: int = 5, entry: int = 10, within: float = 2.0) -> None:
        """UDP packets of these sizes with DF to the host behind the peer and from there to ours; all must come."""
        for size in sizes:
            self._marks += 1
            mark = self._marks.to_bytes(4, "big")[-max(size - 28, 0) :] if size > 28 else b""
            self._outwards(size, mark, tunnel, entry, within)
            self._inwards(size, mark, within)

    def _outwards(self, size: int, mark: bytes, tunnel: int, entry: int, within: float) -> None:
        serial = self.sends(tunnel, entry)
        if not serial:
            self._give(NoSa(tunnel, entry))
            raise AssertionError(f"no SA sends\n{self.story()}")
        install = self.pairs[tunnel, serial].install
        (way,) = install.encapsulation
        source, target = (parse_address(text).to_bytes(4, "big") for text in (OUR_HOST, PEER_HOST))
        packet = self.pairs[tunnel, serial].seal(udp_packet(source, target, ECHO, size, mark))
        where = (format_address(way.remote), way.remote_port)
        self._sockets[way.local_port].sendto(packet, where)
        got: list[bytes] = []

        def came() -> bool:
            try:
                got.append(self.far.recv(65536))
            except BlockingIOError:
                return False
            return len(got[-1]) == size - 28 and got[-1].startswith(mark)

        self.until(came, lambda: f"{size} bytes to the peer by {install}; it got {got}", within)

    def _inwards(self, size: int, mark: bytes, within: float) -> None:
        self.inner.clear()
        self.far.sendto(mark.ljust(size - 28, b"\0"), (OUR_HOST, ECHO))

        def came() -> bool:
            return any(len(one) == size and one[28:].startswith(mark) for one in self.inner)

        self.until(came, lambda: f"{size} bytes from the peer", within)
