"""Our end of a tunnel with a peer, without a chassis: the IKE engine on UDP sockets in a namespace.

Packets are protected and opened by the SA database of an ASP. Everything runs in the test's own loop: `until`
turns it. The whole router is met by the peers in labs.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from chassis.ase.ike.engine import IkeEngine
from chassis.ase.ike_messages import (
    Acquire,
    Configure,
    FromIke,
    IkeLog,
    IkePacket,
    IkeReply,
    IkeRequest,
    IkeTunnelState,
    PeerAlive,
    PeerUsesSa,
    SaActivateOutbound,
    SaDelete,
    SaInstall,
    SaUpdateAddress,
)
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.state import SaStateFile, octets_for
from chassis.ase.sa_builder import negotiated_pair, spd_entries
from chassis.bus.records import PolicyRecord, TunnelRecord
from chassis.model.acl import Acl, AclRule
from chassis.model.ike import IkeProposal
from chassis.model.ipsec import IpsecProposal
from chassis.net.address import format_address, parse_address
from chassis.net.checksum import checksum
from chassis.net.ethernet import HEADROOM
from tests.support.ike.pair import SEQUENCE, TUNNEL, Ends, Version
from tests.support.netns import Namespaces

CONTEXT = 1
INNER = 2
MARKER = bytes(4)
US, PEER = "10.99.0.1", "10.99.0.2"
OUR_HOST, PEER_HOST, PEER_OTHER = "10.1.0.1", "10.2.0.1", "10.2.128.1"
ECHO = 7
DONT_FRAGMENT = 0x4000
OUTGOING = 4
WITHIN = 4.0
"""Seconds for all packets of one direction."""
NAT_TRAVERSAL = (4500).to_bytes(2, "big")


def rule(seq: int = 10, source: str = "10.1.0.0/16", destination: str = "10.2.0.0/16") -> AclRule:
    """A rule of an access list, any protocol."""
    (one, length), (other, far) = ((*text.split("/"),) for text in (source, destination))
    return AclRule(seq, source=(parse_address(one), int(length)), destination=(parse_address(other), int(far)))


def ours(
    version: Version, ike: IkeProposal, esp: IpsecProposal, *, rules: tuple[AclRule, ...] = (rule(),), **more: Any
) -> Ends:
    """The configuration of our end for the peer of this rig."""
    local, remote = parse_address(US), parse_address(PEER)
    return Ends(
        local, remote, version, proposals=(ike,), suites=(esp,), rules=(rules,), outer=CONTEXT, inner=INNER, **more
    )


def clear_packet(target: str, size: int, data: bytes, flags: int = DONT_FRAGMENT) -> bytes:
    """An IPv4 packet of `size` octets in all from our host, with a UDP datagram that begins with `data`."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, size, 7, flags, 64, 17, 0)
    head += b"".join(parse_address(one).to_bytes(4, "big") for one in (OUR_HOST, target))
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    return head + struct.pack("!HHHH", ECHO, ECHO, size - 20, 0) + data.ljust(size - 28, b"\0")[: size - 28]


@dataclass
class Seen:
    """What the engine said, for conditions and for failures."""

    states: dict[int, IkeTunnelState] = field(default_factory=dict)
    logs: list[Any] = field(default_factory=list)
    replies: list[IkeReply] = field(default_factory=list)
    deletes: list[SaDelete] = field(default_factory=list)


class ChassisPeer:
    """The IKE engine with its sockets in namespace `host`, and the SA database that it tells.

    `opened` are the clear packets that came, `drops` why others did not. What goes out leaves by a raw socket as
    the database made it, outer headers and all; what comes in is taken from the wire, frame by frame, as a line
    card would hand it over.
    """

    def __init__(self, namespaces: Namespaces, host: str, **settings: Any) -> None:
        self._sockets = {port: namespaces.udp(host, US, port) for port in (500, 4500)}
        self._raw = namespaces.socket(host, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._tap = namespaces.tap(host, "eth0")
        self._tunnel: TunnelRecord | None = None
        self._settings = settings
        self.far = namespaces.udp("peer", PEER_HOST, ECHO)
        self._marks = 0
        self.reset()

    def reset(self) -> None:
        """A new life, as after `kill -9`: nothing is known, and nobody was told."""
        self.ike = IkeEngine("asp 1/1", random=os.urandom)
        self.pairs: dict[tuple[int, int], SaInstall] = {}
        self.sending: dict[tuple[int, int], int] = {}
        """Serial of the pair that sends, by (tunnel, number of the line or of one of its rules)."""
        self.seen = Seen()
        self.sadb = Sadb(SaStateFile(memoryview(bytearray(octets_for(8)))))
        self.opened: list[bytes] = []
        self.drops: list[str] = []
        self._take(self.ike.start(time.monotonic()))

    def drain(self) -> None:
        """Forget what waits in the sockets: it belongs to the life before."""
        for one in (*self._sockets.values(), self.far):
            while select.select([one], [], [], 0)[0]:
                one.recv(65536)
        self._frames()

    def close(self) -> None:
        for one in (*self._sockets.values(), self.far, self._raw, self._tap):
            one.close()

    # the engine

    def configure(self, ends: Ends, **settings: Any) -> None:
        """Take a configuration, whole; `settings` are the node's, `_` for `-`, beside those of the rig."""
        records = ends.records()
        (self._tunnel,) = (record for record in records if isinstance(record, TunnelRecord))
        acls = [one.value for one in records if isinstance(one, PolicyRecord) and isinstance(one.value, Acl)]
        self._acls = {(INNER, acl.name): acl for acl in acls}
        self._version = ends.version
        given = {name.replace("_", "-"): value for name, value in settings.items()}
        self._give(Configure(records, (), True, {**self._settings, **given}))

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
        pairs = [f"pair {name}: {pair}" for name, pair in self.pairs.items()]
        return "\n".join(["-- our end", *logs, *map(str, self.seen.states.values()), *pairs, *self.drops[-5:]])

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
                self.pairs[message.tunnel, message.serial] = message
                self._install(message)
                if message.send:
                    self.sending[message.tunnel, message.entry] = message.serial
            elif isinstance(message, SaActivateOutbound):
                entry = self.pairs[message.tunnel, message.serial].entry
                self.sending[message.tunnel, entry] = message.serial
                self.sadb.activate_outbound(message.tunnel, message.serial)
            elif isinstance(message, SaDelete):
                pair = self.pairs.pop((message.tunnel, message.serial))
                self.seen.deletes.append(message)
                self.sadb.remove_inbound(message.tunnel, message.serial)
                self.sadb.remove_outbound(message.tunnel, message.serial)
                if self.sending.get((message.tunnel, pair.entry)) == message.serial:
                    del self.sending[message.tunnel, pair.entry]
            elif isinstance(message, SaUpdateAddress):
                name = (message.tunnel, message.serial)
                self.pairs[name] = replace(self.pairs[name], encapsulation=(message.encapsulation,))
            elif isinstance(message, IkeTunnelState):
                self.seen.states[message.tunnel] = message
            elif isinstance(message, IkeLog):
                self.seen.logs.append(message.record)
            elif isinstance(message, IkeReply):
                self.seen.replies.append(message)

    def sends(self, tunnel: int = 5, entry: int = 10, rule: int = 0) -> int:
        """Serial of the pair that sends for a line, or for one of its rules where each has its own; 0 for none."""
        for (number, line), serial in self.sending.items():
            rules = self.pairs[number, serial].rules
            mine = rule in (0, *(one.seq for one in rules))
            if number == tunnel and line & SEQUENCE == entry and mine:
                return serial
        return 0

    # packets

    def _install(self, message: SaInstall) -> None:
        assert self._tunnel is not None
        pair = negotiated_pair(self._tunnel, message)
        self.sadb.install_inbound(pair.inbound)
        self.sadb.install_outbound(pair.outbound, pair.lease, current=message.send)
        apart = self._version == 1
        self.sadb.spd.set_entries(message.tunnel, spd_entries(self._tunnel, self._acls, apart))

    def protect(self, packets: Sequence[bytes]) -> list[bytes]:
        """The outer packets of clear ones."""
        body = bytearray(b"".join([bytes(HEADROOM) + packet for packet in packets]))
        result = self.sadb.encapsulate_tunnel(
            TUNNEL, body, [HEADROOM + len(packet) for packet in packets], os.urandom
        )  # fmt: skip
        assert result.drops.counts == {}
        outer: list[bytes] = []
        offset = 0
        for length in result.lengths:
            outer.append(bytes(result.body[offset + HEADROOM : offset + length]))
            offset += length
        return outer

    def send(self, packets: Sequence[bytes]) -> list[bytes]:
        """Protect clear packets and put them on the wire."""
        outer = self.protect(packets)
        for packet in outer:
            self._raw.sendto(packet, (PEER, 0))
        return outer

    def _frames(self) -> list[bytes]:
        """What the wire brought of ESP in UDP: Ethernet frames."""
        found: list[bytes] = []
        us = parse_address(US).to_bytes(4, "big")
        while True:
            try:
                frame, address = self._tap.recvfrom(65536)
            except BlockingIOError:
                return found
            ip = frame[HEADROOM:]
            is_udp = ip[:1] == b"\x45" and ip[9:10] == b"\x11" and ip[16:20] == us and address[2] != OUTGOING
            if is_udp and ip[22:24] == NAT_TRAVERSAL and len(ip) > 36 and ip[28:32] != MARKER:
                found.append(frame)

    def _esp(self, packet: bytes) -> None:
        """A datagram of ESP came by the socket; so its frame is here, and perhaps others'."""
        frames = self._frames()
        result = self.sadb.decapsulate_batch(
            bytearray(b"".join(frames)), [len(frame) for frame in frames], CONTEXT
        )
        for group in result.groups:
            offset = 0
            for length in group.lengths:
                self.opened.append(bytes(group.body[offset + HEADROOM : offset + length]))
                offset += length
        self.drops += [f"{cause}: {count}" for cause, count in result.drops.counts.items()]
        for opener in result.negotiated:
            sa = opener.sa
            if self.sending.get((sa.tunnel, self.pairs[sa.tunnel, sa.serial].entry)) != sa.serial:
                self._give(PeerUsesSa(sa.tunnel, sa.serial))
            self._give(PeerAlive((sa.tunnel,)))

    def both_ways(
        self,
        there: Sequence[bytes],
        back: Callable[[], object],
        arrived: Callable[[], bool],
        came: Callable[[], bool],
    ) -> None:
        """Send packets and wait until they arrived; make the peer send, and wait until it came."""
        self.send(there)
        self.until(arrived, lambda: "packets at the peer's host", WITHIN)
        self.opened.clear()
        back()
        self.until(came, lambda: f"packets from the peer's host; {len(self.opened)} so far", WITHIN)

    def carry(self, *sizes: int) -> None:
        """UDP packets of these sizes with DF to the host behind the peer and from there to ours; all must come."""
        if not self.sends():
            self._give(Acquire(TUNNEL, 10))
            raise AssertionError(f"no SA sends\n{self.story()}")
        for size in sizes:
            self._marks += 1
            mark = self._marks.to_bytes(4, "big")[-max(size - 28, 0) :] if size > 28 else b""
            data = mark.ljust(size - 28, b"\0")
            self.both_ways(
                [clear_packet(PEER_HOST, size, mark)],
                partial(self.far.sendto, data, (OUR_HOST, ECHO)),
                partial(self._came, data),
                partial(self._is_opened, data),
            )

    def _is_opened(self, data: bytes) -> bool:
        return any(one[28:] == data for one in self.opened)

    def _came(self, data: bytes) -> bool:
        """Whether the next datagram at the peer's host is this one."""
        try:
            return self.far.recv(65536) == data
        except BlockingIOError:
            return False
