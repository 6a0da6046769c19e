"""NAT detection (RFC 7296 2.23): hashes of both ends' addresses as their senders see them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from chassis.ase.ike.host import Path
from chassis.ase.ike.payloads.numbers import NotifyTypeV2
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import NotifyV2


def _digest(spi_i: bytes, spi_r: bytes, address: int, port: int) -> bytes:
    data = spi_i + spi_r + address.to_bytes(4, "big") + port.to_bytes(2, "big")
    return hashlib.sha1(data, usedforsecurity=False).digest()


def nat_notifications(spi_i: bytes, spi_r: bytes, path: Path) -> tuple[NotifyV2, NotifyV2]:
    """What a message says about where it is sent from and to; `spi_r` is zero in the request."""
    return (
        NotifyV2(NotifyTypeV2.NAT_DETECTION_SOURCE_IP, _digest(spi_i, spi_r, path.local, path.local_port)),
        NotifyV2(NotifyTypeV2.NAT_DETECTION_DESTINATION_IP, _digest(spi_i, spi_r, path.remote, path.remote_port)),
    )


@dataclass(frozen=True, slots=True)
class NatStatus:
    """Which end is behind a NAT, as far as the peer can tell."""

    here: bool = False
    there: bool = False

    @property
    def found(self) -> bool:
        return self.here or self.there


def detect_nat(payloads: Iterable[PayloadV2], spi_i: bytes, spi_r: bytes, path: Path) -> NatStatus:
    """What the peer's message says; a peer that says nothing does no NAT traversal."""
    sources: list[bytes] = []
    destinations: list[bytes] = []
    for one in payloads:
        if isinstance(one, NotifyV2) and one.notify == NotifyTypeV2.NAT_DETECTION_SOURCE_IP:
            sources.append(one.data)
        elif isinstance(one, NotifyV2) and one.notify == NotifyTypeV2.NAT_DETECTION_DESTINATION_IP:
            destinations.append(one.data)
    if not sources or not destinations:
        return NatStatus()
    return NatStatus(
        here=_digest(spi_i, spi_r, path.local, path.local_port) not in destinations,
        there=_digest(spi_i, spi_r, path.remote, path.remote_port) not in sources,
    )
