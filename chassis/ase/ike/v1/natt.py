"""NAT traversal in the negotiation (RFC 3947): the vendor ID, the NAT-D payloads, and what they reveal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chassis.ase.ike.crypto.ikev1 import equal, nat_hash
from chassis.ase.ike.host import Path
from chassis.ase.ike.payloads.v1 import NatD, VendorV1

NAT_T_VENDOR: Final = VendorV1(bytes.fromhex("4a131c81070358455c5728f20e95452f"))
"""MD5 of "RFC 3947"."""


def _nat_d_hash(hash_name: str, cky_i: bytes, cky_r: bytes, address: int, port: int) -> bytes:
    return nat_hash(hash_name, cky_i, cky_r, address.to_bytes(4, "big"), port)


def nat_d_payloads(hash_name: str, cky_i: bytes, cky_r: bytes, path: Path) -> tuple[NatD, NatD]:
    """The peer's address and port as we see them, then our own."""
    return (
        NatD(_nat_d_hash(hash_name, cky_i, cky_r, path.remote, path.remote_port)),
        NatD(_nat_d_hash(hash_name, cky_i, cky_r, path.local, path.local_port)),
    )


def detect_nat(
    received: Sequence[NatD], hash_name: str, cky_i: bytes, cky_r: bytes, path: Path
) -> tuple[bool, bool]:
    """(we are behind a NAT, the peer is), by the peer's NAT-D payloads: the first is what it sees of us."""
    if len(received) < 2:
        return False, False
    ours = _nat_d_hash(hash_name, cky_i, cky_r, path.local, path.local_port)
    peers = _nat_d_hash(hash_name, cky_i, cky_r, path.remote, path.remote_port)
    return not equal(received[0].hash, ours), not any(equal(one.hash, peers) for one in received[1:])
