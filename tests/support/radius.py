"""A RADIUS server in memory, made of pyrad, and a client with its network and clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from pyrad.packet import (
    AccessAccept,
    AccessReject,
    AccessRequest,
    AccountingResponse,
    AcctPacket,
    AuthPacket,
    Packet,
)

from chassis.aaa.accounting_record import AccountingRecord
from chassis.aaa.actions import AaaAction, AccessQuestion, SendDatagram
from chassis.aaa.client import RadiusClient
from chassis.aaa.dictionary import DICTIONARY
from chassis.aaa.questions import QuestionLimits
from chassis.aaa.settings import AaaConfig, AaaSettings, ServerAddress

SECRET = b"shared by two"
A = ServerAddress("10.0.0.1", 1812, SECRET, source="10.0.0.254")
B = ServerAddress("10.0.0.2", 1812, b"of the second", source="10.0.0.254")
C = ServerAddress("10.9.0.3", 1812, b"of the third", source="10.9.0.254")
BOOKS = ServerAddress("10.0.0.5", 1813, b"of the books", source="10.0.0.254")

WALL = 1_700_000_000.0
"""What the clock of the day shows when the client's shows 0."""


@dataclass
class MemoryServer:
    """Replies as a server with these users does. Silent while it is not `alive`.

    `users`: attributes of the Access-Accept by identity; another identity gets an Access-Reject. `bend` changes
    what goes out: it gets the octets and returns those to send.
    """

    address: ServerAddress
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    alive: bool = True
    signed: bool = True
    bend: Callable[[bytes], bytes] | None = None
    requests: list[Packet] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    def reply_to(self, payload: bytes) -> bytes | None:
        """Take a request; return the octets of the reply, None for silence."""
        secret = self.address.secret
        kind = AuthPacket if payload[0] == AccessRequest else AcctPacket
        request = kind(packet=payload, secret=secret, dict=DICTIONARY)
        self.requests.append(request)
        self.raw.append(payload)
        if not self.alive:
            return None
        if isinstance(request, AuthPacket):
            assert request.verify_message_authenticator(), "the server drops a request that is not signed"
            reply = request.CreateReply(message_authenticator=self.signed)
            attributes = self.users.get(request["User-Name"][0])
            reply.code = AccessReject if attributes is None else AccessAccept
            for name, value in (attributes or {}).items():
                if isinstance(name, tuple | int):
                    reply[name] = value
                else:
                    reply.AddAttribute(name, value)
            if not self.signed:
                reply.message_authenticator = None
        else:
            assert request.VerifyAcctRequest(), "the server drops a report that is not authentic"
            reply = request.CreateReply()
            reply.code = AccountingResponse
        made = reply.ReplyPacket()
        return self.bend(made) if self.bend else made


@dataclass
class RadiusRig:
    """A client, its servers and its clock. Actions other than datagrams are in `done`, in order."""

    config: AaaConfig
    servers: tuple[MemoryServer, ...] = ()
    limits: QuestionLimits | None = None
    now: float = 0.0
    done: list[AaaAction] = field(default_factory=list)
    sent: list[tuple[float, SendDatagram]] = field(default_factory=list)
    client: RadiusClient = field(init=False)
    _random: int = 0

    def __post_init__(self) -> None:
        self.client = RadiusClient(self.random, WALL, self.limits)
        self.take(self.client.configure(self.config, self.now))

    def random(self, count: int) -> bytes:
        self._random += 1
        return self._random.to_bytes(count) if count > 1 else bytes((self._random % 256,))

    def take(self, actions: Iterable[AaaAction]) -> None:
        """Carry actions out; servers reply at once."""
        for action in actions:
            if not isinstance(action, SendDatagram):
                self.done.append(action)
                continue
            self.sent.append((self.now, action))
            for server in self.servers:
                if (server.address.address, server.address.port) == (action.destination, action.destination_port):
                    reply = server.reply_to(action.payload)
                    if reply is not None:
                        self.receive(action, reply)

    def receive(self, to: SendDatagram, payload: bytes) -> None:
        """Give the client a datagram from where one went to."""
        self.take(
            self.client.on_datagram(
                to.context, to.destination, to.destination_port, to.source_port, payload, self.now
            )
        )

    def configure(self, config: AaaConfig) -> None:
        self.config = config
        self.take(self.client.configure(config, self.now))

    def ask(
        self, token: int | str, identity: str = "gw.example.com", context: str = "vpn", **other: Any
    ) -> list[AaaAction]:
        """Ask about a peer; return what came of it at once."""
        before = len(self.done)
        values = {"peer": "192.0.2.1", "local": "198.51.100.1", "exchange": token, **other}
        self.take(self.client.authorize(AccessQuestion(token, context, identity, **values), self.now))
        return self.done[before:]

    def account(self, record: AccountingRecord) -> list[AaaAction]:
        before = len(self.done)
        self.take(self.client.account(record, self.now))
        return self.done[before:]

    def run_until(self, time: float) -> list[AaaAction]:
        """Let time pass; return what came of it."""
        before = len(self.done)
        while self.client.next_timer() <= time:
            self.now = max(self.now, self.client.next_timer())
            self.take(self.client.on_timer(self.now))
        self.now = time
        return self.done[before:]

    def run_to_the_end(self) -> list[AaaAction]:
        """Let time pass until nothing is due."""
        before = len(self.done)
        while (at := self.client.next_timer()) < inf:
            self.run_until(at)
        return self.done[before:]

    def times(self, address: ServerAddress) -> list[float]:
        """When datagrams went to a server."""
        return [at for at, one in self.sent if (one.destination, one.destination_port) == key_of(address)]


def key_of(address: ServerAddress) -> tuple[str, int]:
    return address.address, address.port


def settings(*servers: ServerAddress, **other: Any) -> AaaSettings:
    return replace(AaaSettings(servers=servers), **other)


def aaa(vpn: AaaSettings, **others: AaaSettings) -> AaaConfig:
    """The AAA of router R1 with context vpn and others."""
    return AaaConfig("R1", {"vpn": vpn, **others})


def attributes_of(packet: Packet, *without: str) -> dict[str, list[Any]]:
    """The attributes of a packet by name."""
    # pyrad's packets are dictionaries of codes whose keys() are names.
    return {name: packet[name] for name in list(packet.keys()) if name not in without}
