"""IKE engines in their own processes on UDP sockets: a responder to measure, an initiator as load.

Both have the same tunnels between the same two addresses, distinguished only by identities, each for one UDP port
of the networks behind them. charon is measured with the same tunnels.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chassis.ase.ike.engine import IkeEngine
from chassis.ase.ike_messages import Configure, FromIke, IkePacket, IkeTunnelState
from chassis.bus.codec import carrier
from chassis.bus.messages import Attributes
from chassis.bus.parent_death import die_with_parent
from chassis.bus.records import ContextRecord, PolicyRecord, Record, TunnelRecord
from chassis.model.acl import Acl, AclRule
from chassis.model.ike import Identity, IkePolicy, IkeProposal, PreSharedKey, ProposalRef
from chassis.model.ipsec import IpsecPolicy, IpsecProposal, TunnelEntry
from chassis.model.router import Tunnel
from chassis.net.address import format_address, parse_address

OUTER, INNER = 1, 2
PSK = b"a-key-of-many"
LIFETIME = 86400
MARKER = bytes(4)
"""The non-ESP marker of port 4500 (RFC 3948 2.2)."""

INITIATOR, RESPONDER = "10.99.0.1", "10.99.0.2"
NETWORKS = ("10.1.0.0", "10.2.0.0")
"""Behind the initiator and behind the responder, each with a prefix of this length."""
PREFIX = 16
UDP = 17
TICKS = os.sysconf("SC_CLK_TCK")

RETRANSMIT_TIMEOUT = 10.0
"""Retransmit interval (s). It must exceed the time that a slow responder needs for all concurrent negotiations, so
that the initiator does not repeat a request whose response is only late."""


def identity(address: str, number: int) -> str:
    return f"{address}.{number}.test"


def records(
    local: str, remote: str, tunnels: int, group: int, connection: Literal["initiator-only", "responder-only"]
) -> list[Record]:
    """Return the configuration of one end: IKEv2, preshared keys; `connection` as in an IKE policy."""
    inside, outside = NETWORKS if connection == "initiator-only" else NETWORKS[::-1]
    found: list[Record] = [
        ContextRecord(OUTER, "outer"),
        PolicyRecord(0, IkeProposal("ike", 2, dh_group=group, lifetime=LIFETIME)),
        PolicyRecord(0, IpsecProposal("esp", lifetime_seconds=LIFETIME)),
        PolicyRecord(0, IpsecPolicy("ipsec", proposals=(ProposalRef(10, "esp"),))),
    ]
    for number in range(1, tunnels + 1):
        rule = AclRule(
            10,
            UDP,
            source=(parse_address(inside), PREFIX),
            source_port=number,
            destination=(parse_address(outside), PREFIX),
            destination_port=number,
        )
        found += (
            PolicyRecord(
                OUTER,
                IkePolicy(
                    name=f"policy{number}",
                    version=2,
                    connection_type=connection,
                    identity_local=Identity("fqdn", identity(local, number)),
                    identity_remote=Identity("fqdn", identity(remote, number)),
                    lifetime=LIFETIME,
                    proposals=(ProposalRef(10, "ike"),),
                    pre_shared_key=PreSharedKey("ascii", PSK),
                ),
            ),
            PolicyRecord(INNER, Acl(f"acl{number}", rules=(rule,))),
            TunnelRecord(
                number=number,
                config=Tunnel(
                    f"tunnel{number}",
                    economical=True,
                    ike_policy=f"policy{number}",
                    entries=(TunnelEntry(10, policy="ipsec", acl=f"acl{number}"),),
                ),
                asp="asp 1/1",
                circuit=0,
                home="",
                context=INNER,
                outer_context=OUTER,
                local=parse_address(local),
                remote=parse_address(remote),
                queues=1,
                up=True,
            ),
        )
    return found


class End:
    """An engine and its sockets by port (500 and 4500). Messages to the data engine are encoded, so that their
    cost is measured, and then dropped."""

    def __init__(self, address: str, sockets: dict[int, socket.socket]) -> None:
        self.ike = IkeEngine("asp 1/1", random=os.urandom)
        self.up: set[int] = set()
        self._address = parse_address(address)
        self._sockets = sockets
        self._poll = select.poll()
        self._ports: dict[int, int] = {}
        for port, one in sockets.items():
            self._poll.register(one, select.POLLIN)
            self._ports[one.fileno()] = port
        self._encode, _ = carrier(FromIke)
        self._take(self.ike.start(time.monotonic()))

    def configure(self, put: list[Record]) -> None:
        settings: Attributes = {"ike-retransmit-timeout": RETRANSMIT_TIMEOUT, "cookie-threshold": 4000}
        self._take(self.ike.receive(Configure(tuple(put), (), True, settings), time.monotonic(), time.time()))

    def turn(self, longest: float) -> None:
        """Wait up to `longest` (s) for datagrams or a timer, and process them."""
        ike = self.ike
        wait = max(min(longest, ike.next_timer() - time.monotonic()), 0.0)
        for descriptor, _ in self._poll.poll(wait * 1000):
            port = self._ports[descriptor]
            one = self._sockets[port]
            for _ in range(64):
                try:
                    data, (sender, sender_port) = one.recvfrom(65536)
                except BlockingIOError:
                    break
                if port == 4500:
                    if data[:4] != MARKER:
                        continue
                    data = data[4:]
                packet = IkePacket(OUTER, self._address, port, parse_address(sender), sender_port, data)
                self._take(ike.receive(packet, time.monotonic(), time.time()))
        now = time.monotonic()
        if ike.next_timer() <= now:
            self._take(ike.on_timer(now))

    def _take(self, messages: list[FromIke]) -> None:
        for message in messages:
            if isinstance(message, IkePacket):
                data = message.data if message.local_port == 500 else MARKER + message.data
                self._sockets[message.local_port].sendto(
                    data, (format_address(message.remote), message.remote_port)
                )
            else:
                self._encode(message)
                if isinstance(message, IkeTunnelState):
                    if message.up:
                        self.up.add(message.tunnel)
                    else:
                        self.up.discard(message.tunnel)


def cpu(pid: int) -> float:
    """Return the CPU time (s) that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of an initiator: tunnels up, time (s) since its first message."""

    up: int
    seconds: float


class Process(ABC):
    """A forked process that writes lines; `close` kills it, and it ends with this process."""

    def __init__(self) -> None:
        reading, self._writing = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                die_with_parent(parent)
                os.close(reading)
                self._main()
                status = 0
            finally:
                os._exit(status)
        os.close(self._writing)
        self._lines = os.fdopen(reading)

    @abstractmethod
    def _main(self) -> None:
        """Run the process from its start to its end."""

    def say(self, text: str) -> None:
        os.write(self._writing, text.encode() + b"\n")

    def line(self) -> str:
        """Return the next line; "" when the process has ended."""
        return self._lines.readline().rstrip("\n")

    def close(self) -> None:
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        self._lines.close()


class Responder(Process):
    """This project's responder; the constructor returns when all tunnels are configured."""

    def __init__(self, sockets: dict[int, socket.socket], tunnels: int, group: int) -> None:
        self._sockets, self._tunnels, self._group = sockets, tunnels, group
        super().__init__()
        if self.line() != "ready":
            raise RuntimeError("our responder ended at its start")

    def _main(self) -> None:
        end = End(RESPONDER, self._sockets)
        end.configure(records(RESPONDER, INITIATOR, self._tunnels, self._group, "responder-only"))
        gc.collect()
        self.say("ready")
        self._serve(end)

    def _serve(self, end: End) -> None:
        while True:
            end.turn(1.0)

    def cpu(self) -> float:
        return cpu(self.pid)


class Initiator(Process):
    """The load: start all tunnels as fast as the engine allows, and report progress."""

    def __init__(self, sockets: dict[int, socket.socket], tunnels: int, group: int, within: float) -> None:
        self._sockets, self._tunnels, self._group, self._within = sockets, tunnels, group, within
        super().__init__()

    def _main(self) -> None:
        end = End(INITIATOR, self._sockets)
        put = records(INITIATOR, RESPONDER, self._tunnels, self._group, "initiator-only")
        end.configure(put)
        begin = time.monotonic()
        while len(end.up) < self._tunnels and time.monotonic() - begin < self._within:
            end.turn(0.1)
        self.say(f"{len(end.up)} {time.monotonic() - begin:.6f}")
        while True:
            end.turn(1.0)

    def result(self) -> Progress:
        """Wait for the end of the load."""
        words = self.line().split()
        if len(words) != 2:
            raise RuntimeError("the initiator ended")
        return Progress(int(words[0]), float(words[1]))
