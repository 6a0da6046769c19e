"""A node of peers and its gateway in memory: the gateway is an IKE engine with a static tunnel for each peer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random
from typing import Any, Final

from chassis.ase.ike.engine import IkeEngine
from chassis.ase.ike_messages import Configure, FromIke, IkePacket, IkeRequest
from chassis.bus.engine import Output, ToOperator, ToWire
from chassis.bus.records import CertificateRecord, PolicyRecord, Record, TunnelRecord
from chassis.fwd.reassembly import Reassembler
from chassis.model.acl import Acl
from chassis.model.ike import Identity, IkePolicy
from chassis.net.arp import REPLY, Arp
from chassis.net.ethernet import HEADROOM, header, padded
from chassis.net.fragments import fragment
from chassis.net.ipv4 import PROTOCOL_UDP, Ipv4
from chassis.net.udp import Udp
from chassis.peers.engine import MTU, PeersEngine
from chassis.peers.spec import OUTER, PeersSpec
from chassis.tester.host import frames_batch

MAC: Final = bytes.fromhex("020000000001")
PEERS: Final[dict[str, Any]] = {
    "peers": 100, "first-address": "10.9.0.1", "towards": "10.255.0.1", "identity": "p{number}.branch.example",
    "remote-id": "hub.example", "pre-shared-key": "a-key", "first-network": "10.112.0.0/30",
    "remote-network": "10.100.0.0/16", "start": "manual", "rate": 1000, "version": "both", "keepalive": True,
    "ike-proposal": {"dh-group": 1},
}  # fmt: skip
PORTS: Final = {"1": {"address": "172.16.1.2/24", "gateway": "172.16.1.1"}}


def mirrored(spec: PeersSpec, number: int) -> Iterable[Record]:
    """The records of a peer's tunnel as its gateway has them."""
    for record in spec.records(number):
        if isinstance(record, TunnelRecord):
            config = replace(record.config, remote_id=spec.name(number))
            yield replace(record, local=record.remote, remote=record.local, config=config)
        elif isinstance(record, PolicyRecord) and isinstance(record.value, IkePolicy):
            own = Identity("fqdn", spec.remote_id)
            policy = replace(record.value, identity_local=own, connection_type="responder-only")
            yield replace(record, value=policy)
        elif isinstance(record, PolicyRecord) and isinstance(record.value, Acl):
            (rule,) = record.value.rules
            rules = (replace(rule, source=rule.destination, destination=rule.source),)
            yield replace(record, value=replace(record.value, rules=rules))


class Gateway:
    """The gateway's IKE, for some of the peers."""

    def __init__(
        self,
        spec: PeersSpec,
        numbers: Iterable[int],
        now: float,
        settings: dict[str, Any],
        credentials: tuple[CertificateRecord, ...] = (),
    ) -> None:
        self.spec = spec
        self.ike = IkeEngine("gateway", random=Random(2).randbytes)
        records = [one for number in numbers for one in mirrored(spec, number)]
        shared = replace(spec, credentials=credentials or spec.credentials).shared_records()
        self.ike.receive(Configure((*shared, *records), full=True, settings=settings), now, now)

    @property
    def sessions(self) -> list[Any]:
        return list(self.ike.ike_sa_manager.table.by_spi.values())


class PeersAndGateway:
    """Both, on a fake clock, with a wire that loses nothing between them."""

    def __init__(
        self,
        *,
        settings: dict[str, Any] | None = None,
        credentials: tuple[CertificateRecord, ...] = (),
        **peers: Any,
    ) -> None:
        """`credentials` are the gateway's, in place of those of the peers."""
        self.credentials = credentials
        self.now = 100.0
        self.settings = settings or {}
        values = {**PEERS, **{name.replace("_", "-"): value for name, value in peers.items()}}
        values = {name: value for name, value in values.items() if value is not None}
        self.peers = PeersEngine(
            "p", ports=PORTS, peers=values, random=Random(1).randbytes, settings=self.settings
        )
        self.gateway = Gateway(self.peers.spec, (), self.now, self.settings)
        self.fragments = 0
        """Fragments that the gateway received."""
        self._fragments = Reassembler()
        self._carry(self.peers.start(self.now))
        self._carry(self.peers.on_carrier("1", True, self.now))

    def serve(self, numbers: Iterable[int]) -> None:
        """Another gateway takes the place of the one before, which nobody tells."""
        self.gateway = Gateway(self.peers.spec, numbers, self.now, self.settings, self.credentials)

    def command(self, name: str, **arguments: Any) -> dict[str, Any]:
        outputs = self.peers.on_operator_command(1, name, arguments, self.now)
        answer = outputs.pop()
        assert isinstance(answer, ToOperator)
        self._carry(outputs)
        return answer.result

    def status(self) -> dict[str, Any]:
        return self.command("status")

    def ask(self, name: str, **arguments: Any) -> None:
        """A command for the gateway's IKE."""
        self._take(self.gateway.ike.receive(IkeRequest(1, name, arguments), self.now, self.now))

    def run(self, seconds: float) -> None:
        self.until(lambda: False, seconds)

    def until(self, condition: Callable[[], bool], within: float = 60.0) -> bool:
        """Let time pass until something is so; whether it came to be."""
        deadline = self.now + within
        while not condition():
            at = min(self.peers.next_timer(), self.gateway.ike.next_timer())
            if at > deadline:
                self.now = deadline
                return condition()
            self.now = max(self.now, at)
            self._carry(self.peers.on_timer(self.now))
            self._take(self.gateway.ike.on_timer(self.now))
        return True

    def _carry(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if isinstance(output, ToWire):
                for frame in output.batch.packets():
                    self._on_frame(bytes(frame))

    def _on_frame(self, frame: bytes) -> None:
        if frame[12:14] == b"\x08\x06":
            asked = Arp.parse(frame[HEADROOM:])
            answer = Arp(REPLY, MAC, asked.target_address, asked.sender_mac, asked.sender_address)
            self._deliver(header(asked.sender_mac, MAC, 0x0806) + answer.emit())
            return
        packet = Ipv4.parse(frame[HEADROOM:], padding=True)
        if packet.more_fragments or packet.offset:
            self.fragments += 1
            whole = self._fragments.add(OUTER, packet, self.now)
            if whole is None:
                return
            packet = whole[0]
        udp = Udp.parse(packet.payload, (packet.source, packet.destination))
        arrived = IkePacket(
            OUTER, packet.destination, udp.destination_port, packet.source, udp.source_port, udp.payload
        )
        self._take(self.gateway.ike.receive(arrived, self.now, self.now))

    def _take(self, messages: Iterable[FromIke]) -> None:
        for one in messages:
            if isinstance(one, IkePacket):
                udp = Udp(one.local_port, one.remote_port, one.data).emit((one.local, one.remote))
                for piece in fragment(Ipv4(one.local, one.remote, PROTOCOL_UDP, udp), MTU):
                    self._deliver(header(self.peers._host.mac, MAC) + piece.emit())

    def _deliver(self, frame: bytes) -> None:
        self._carry(self.peers.receive_frames("1", frames_batch([padded(frame)]), self.now))
