"""An engine with on-demand tunnels, the peers that dial in, and a controller that does what a test wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from chassis.ase.ike_messages import IkePacket, PeerUsesSa
from chassis.bus.messages import PeerAnswer, PeerDropped, PeerQuestion
from chassis.bus.records import (
    CertificateRecord,
    ContextRecord,
    Instance,
    OnDemandRecord,
    PolicyRecord,
    Record,
    TunnelRecord,
)
from chassis.model.acl import Acl, AclRule
from chassis.model.ike import IkePolicy, IkeProposal, PreSharedKey
from chassis.model.ipsec import IpsecPolicy, IpsecProposal, TunnelEntry
from chassis.model.router import Tunnel
from chassis.net.address import format_address
from tests.support.ike.pair import (
    CONTEXT,
    A,
    B,
    End,
    Ends,
    EnginePair,
    Method,
    Mode,
    Trouble,
    Version,
    esp,
    named,
    proposal,
    references,
)

FIRST_INSTANCE = 1000
"""Number of the first instance."""
ENTRY = 10


@dataclass(frozen=True)
class Offer:
    """One on-demand tunnel of the gateway with its policy and profile, changed by `replace`."""

    number: int = 50
    remote_id: str = ""
    version: Version = 2
    mode: Mode = "aggressive"
    connection: Literal["initiator-only", "responder-only", "both"] = "both"
    proposals: tuple[IkeProposal, ...] = ()
    suites: tuple[IpsecProposal, ...] = (esp(),)
    authentication: Method = "pre-shared-key"
    psk: bytes = b"secret of two"
    aaa: bool = False
    addresses: bool = False
    lifetime: int = 86400
    identity_local: str = ""
    identity_remote: str = ""
    rules: tuple[tuple[AclRule, ...], ...] = ((),)
    keepalive: bool = False
    local: int = B
    validate: bool = False
    certificates: tuple[CertificateRecord, ...] = ()

    @property
    def name(self) -> str:
        return f"dial{self.number}"

    @property
    def config(self) -> Tunnel:
        return Tunnel(
            self.name, kind="on-demand", economical=True, ike_policy=f"policy{self.number}",
            remote_id=self.remote_id or None,
        )  # fmt: skip

    def records(self) -> tuple[Record, ...]:
        proposals = self.proposals or (proposal(self.version, authentication=self.authentication),)
        key = PreSharedKey("aaa") if self.aaa else PreSharedKey("ascii", self.psk) if self.psk else None
        return (
            ContextRecord(CONTEXT, "outer", keepalive=self.keepalive),
            PolicyRecord(
                CONTEXT,
                IkePolicy(
                    name=f"policy{self.number}",
                    version=self.version,
                    connection_type=self.connection,
                    identity_local=named(self.identity_local),
                    identity_remote=named(self.identity_remote),
                    mode=self.mode,
                    authentication=self.authentication,
                    validate_certificate_identity=self.validate,
                    address_allocation=self.addresses,
                    lifetime=self.lifetime,
                    proposals=references(proposals),
                    pre_shared_key=key,
                ),
            ),
            *self.certificates,
            PolicyRecord(0, IpsecPolicy(name=f"ipsec{self.number}", proposals=references(self.suites))),
            *(PolicyRecord(0, one) for one in proposals),
            *(PolicyRecord(0, one) for one in self.suites),
            *(
                PolicyRecord(1, Acl(f"acl{self.number}-{seq}", rules=rules))
                for seq, rules in enumerate(self.rules, 1)
                if rules
            ),
            OnDemandRecord(
                number=self.number,
                config=self.config,
                asp="asp 2/1",
                context=1,
                outer_context=CONTEXT,
                local=self.local,
            ),
        )

    def instance(self, number: int, question: PeerQuestion, address: int = 0) -> TunnelRecord:
        """The tunnel of one peer."""
        entries = tuple(
            TunnelEntry(ENTRY * seq, policy=f"ipsec{self.number}", acl=f"acl{self.number}-{seq}" if rules else "")
            for seq, rules in enumerate(self.rules, 1)
        )
        return TunnelRecord(
            number=number,
            config=replace(self.config, remote_id=question.identity, entries=entries),
            asp="asp 2/1",
            circuit=0,
            home="",
            context=1,
            outer_context=CONTEXT,
            local=question.local,
            remote=question.peer,
            queues=1,
            up=True,
            instance=Instance(
                on_demand=self.number,
                identity=question.identity,
                profile=self.name,
                address=address,
                prefix_length=32 if address else 0,
            ),
        )


@dataclass(frozen=True)
class Gateway:
    """The configuration of the end with on-demand tunnels, and static tunnels beside them."""

    offers: tuple[Offer, ...]
    beside: tuple[Ends, ...] = ()
    local: int = B

    def records(self) -> tuple[Record, ...]:
        parts = [*(one.records() for one in self.beside), *(one.records() for one in self.offers)]
        return tuple({record.key: record for records in parts for record in records}.values())


def peer(address: int = A, identity: str = "", **changes: Any) -> Ends:
    """A peer that initiates a static tunnel with the gateway; its number is that of its address."""
    return Ends(
        local=address, remote=B, connection="initiator-only", mode="aggressive", identity_local=identity,
        tunnel=address & 0xFFFF, **changes,
    )  # fmt: skip


@dataclass
class Script:
    """What the controller answers. `keys` are those of AAA by identity."""

    keys: dict[str, bytes] = field(default_factory=dict)
    refuses: str = ""
    """Why it admits nobody; empty if it admits."""
    delay: float = 0.01
    silent: frozenset[str] = frozenset()
    """Steps that it never answers."""
    addresses: dict[str, int] = field(default_factory=dict)
    dns: tuple[int, ...] = ()


class DialIn(EnginePair):
    """The gateway is end b, its controller a `Script`; end a is the first of the peers."""

    def __init__(
        self,
        peers: Sequence[Ends],
        gateway: Gateway,
        script: Script | None = None,
        *,
        trouble: Trouble | None = None,
        **settings: Any,
    ) -> None:
        self.script = script or Script()
        self.gateway = gateway
        self.instances: dict[int, TunnelRecord] = {}
        self.peers: dict[str, int] = {}
        """Number of the instance by identity."""
        self.next_number = FIRST_INSTANCE
        self.nats: dict[int, tuple[int, int]] = {}
        """(address that a NAT gives it, what is added to its ports) of a peer, by its address."""
        first, *rest = peers
        super().__init__(first, gateway, trouble=trouble, **settings)  # type: ignore[arg-type]
        for ends in rest:
            self.join(ends)

    def join(self, ends: Ends) -> End:
        """Another peer."""
        end = self._end(ends)
        self.others.append(end)
        self.ends[ends.local] = end
        self.configure(end, ends.records(), whole=True)
        return end

    def leave(self, end: End) -> None:
        """A peer goes without a word."""
        self.others.remove(end)
        del self.ends[end.local]

    # the controller

    def asked(self, step: str = "") -> list[PeerQuestion]:
        return [one for one in self.b.questions if isinstance(one, PeerQuestion) and step in ("", one.step)]

    def dropped(self) -> list[PeerDropped]:
        return [one for one in self.b.questions if isinstance(one, PeerDropped)]

    def on_question(self, end: End, message: PeerQuestion | PeerDropped) -> None:
        if isinstance(message, PeerQuestion):
            if message.step not in self.script.silent:
                self._later(self.script.delay, end, lambda: self.answer(message))
        elif message.tunnel:
            self._later(0.001, end, lambda: self.take_down(message.tunnel))

    def answer(self, question: PeerQuestion) -> None:
        """Answer a question as the script says."""
        if question.step == "key":
            key = self.script.keys.get(question.identity, b"")
            error = "" if key else "access rejected"
            self.give(self.b, PeerAnswer(question.number, error, key))
        elif self.script.refuses:
            self.give(self.b, PeerAnswer(question.number, self.script.refuses))
        else:
            self.admit(question)

    def admit(self, question: PeerQuestion) -> None:
        """Give the peer its instance: the one that it has, unless it comes from another address."""
        number = self.peers.get(question.identity, 0)
        address = self.script.addresses.get(question.identity, 0) if question.wants_address else 0
        if number and self.instances[number].remote != question.peer:
            self.take_down(number)
            number = 0
        if not number:
            number, self.next_number = self.next_number, self.next_number + 1
            offer = next(one for one in self.gateway.offers if one.number == question.on_demand)
            self.peers[question.identity] = number
            self.instances[number] = record = offer.instance(number, question, address)
            self.configure(self.b, (record,))
        netmask = 0xFFFFFFFF if address else 0
        answer = PeerAnswer(question.number, "", b"", number, address, netmask, self.script.dns if address else ())
        self.give(self.b, answer)

    def take_down(self, number: int) -> None:
        """Delete an instance."""
        record = self.instances.pop(number, None)
        if record is None:
            return
        assert record.instance is not None
        if self.peers.get(record.instance.identity) == number:
            del self.peers[record.instance.identity]
        self.configure(self.b, (), (record.key,))

    # the peers

    def _wire(self, end: End, packet: IkePacket) -> None:
        here, from_port, there, port = packet.local, packet.local_port, packet.remote, packet.remote_port
        if not packet.data:
            self.keepalives += 1
            return
        if here in self.nats:
            address, shift = self.nats[here]
            here, from_port = address, from_port + shift
        behind = [
            (inside, port - shift)
            for inside, (address, shift) in self.nats.items()
            if address == there and port - shift in (500, 4500)
        ]
        there, port = behind[0] if behind else (there, port)
        receiver = self.ends.get(there)
        if receiver is None:
            return
        copies = [0.005] if self.trouble is None else self.trouble(end.local, packet, self.now)
        for copy in copies:
            delay, data = copy if isinstance(copy, tuple) else (copy, packet.data)
            arrived = IkePacket(packet.context, there, port, here, from_port, data)
            self._later(delay, receiver, lambda arrived=arrived: self.give(receiver, arrived))  # type: ignore[misc]

    def connected(self, end: End, ends: Ends, number: int | None = None) -> bool:
        """Whether packets pass both ways between a peer and its instance."""
        number = number or self.peers.get(ends.identity_local or format_address(ends.local), 0)
        ours = self.b.sender(ENTRY, number)
        theirs = end.sender(ENTRY, ends.tunnel)
        if ours is None:
            for serial in [pair.serial for pair in self.b.installs if pair.tunnel == number]:
                self.b_uses(number, serial)
            ours = self.b.sender(ENTRY, number)
        return ours is not None and theirs is not None and ours.outbound == theirs.inbound

    def b_uses(self, tunnel: int, serial: int) -> None:
        """The peer's first packet arrives."""
        self.give(self.b, PeerUsesSa(tunnel, serial))
