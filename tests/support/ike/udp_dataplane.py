"""Our end of a tunnel with the product's own packets: its SAs are those of the data engine, and it sends and sees
whole outer packets.

IKE is that of `OurEnd`. What goes out leaves by a raw socket as the engine made it, outer headers and all; what
comes in is taken from the wire, frame by frame, as a line card would hand it over.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.state import SaStateFile, octets_for
from chassis.ase.link import FromIke, PeerSeen, SaDelete, SaInstall, SaSeen, SaSwitch
from chassis.ase.sa_builder import negotiated_pair, spd_entries
from chassis.bus.records import PolicyRecord, TunnelRecord
from chassis.model.acl import Acl
from chassis.net.address import parse_address
from chassis.net.ethernet import HEADROOM
from tests.support.ike.udp_end import CONTEXT, INNER, MARKER, PEER, US, OurEnd, Ours
from tests.support.netns import Namespaces

TUNNEL = 5
OUTGOING = 4
WITHIN = 4.0
"""Seconds for all packets of one direction."""
NAT_TRAVERSAL = (4500).to_bytes(2, "big")


class ProductEnd(OurEnd):
    """As `OurEnd`; `opened` are the clear packets that came, `drops` why others did not."""

    def __init__(self, namespaces: Namespaces, host: str, **settings: Any) -> None:
        self._raw = namespaces.socket(host, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._tap = namespaces.tap(host, "eth0")
        self._record: TunnelRecord | None = None
        super().__init__(namespaces, host, **settings)

    def reset(self) -> None:
        self.sadb = Sadb(SaStateFile(memoryview(bytearray(octets_for(8)))))
        self.opened: list[bytes] = []
        self.drops: list[str] = []
        super().reset()

    def drain(self) -> None:
        super().drain()
        self._frames()

    def close(self) -> None:
        super().close()
        self._raw.close()
        self._tap.close()

    def configure(self, ours: Ours, **settings: Any) -> None:
        records = ours.records()
        (self._record,) = (record for record in records if isinstance(record, TunnelRecord))
        self._acls = [one.value for one in records if isinstance(one, PolicyRecord) and isinstance(one.value, Acl)]
        self._version = ours.version
        super().configure(ours, **settings)

    def story(self) -> str:
        return "\n".join([super().story(), *self.drops[-10:]])

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

    def _take(self, messages: list[FromIke]) -> None:
        super()._take(messages)
        for message in messages:
            if isinstance(message, SaInstall):
                assert self._record is not None
                pair = negotiated_pair(self._record, message)
                self.sadb.install_inbound(pair.inbound)
                self.sadb.install_outbound(pair.outbound, pair.lease, current=message.send)
                acls = {(INNER, acl.name): acl for acl in self._acls}
                apart = self._version == 1
                self.sadb.spd.set_entries(message.tunnel, spd_entries(self._record, acls, apart))
            elif isinstance(message, SaSwitch):
                self.sadb.activate_outbound(message.tunnel, message.serial)
            elif isinstance(message, SaDelete):
                self.sadb.remove_inbound(message.tunnel, message.serial)
                self.sadb.remove_outbound(message.tunnel, message.serial)

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
            if self.sending.get((sa.tunnel, self.pairs[sa.tunnel, sa.serial].install.entry)) != sa.serial:
                self._give(SaSeen(sa.tunnel, sa.serial))
            self._give(PeerSeen((sa.tunnel,)))

    def both_ways(
        self,
        there: Sequence[bytes],
        back: Callable[[], None],
        arrived: Callable[[], bool],
        came: Callable[[], bool],
    ) -> None:
        """Send packets and wait until they arrived; make the peer send, and wait until it came."""
        self.send(there)
        self.until(arrived, lambda: "packets at the peer's host", WITHIN)
        self.opened.clear()
        back()
        self.until(came, lambda: f"packets from the peer's host; {len(self.opened)} so far", WITHIN)
