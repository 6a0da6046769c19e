"""Scapy's IPsec layer as the other end of an SA."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from chassis.ase.ipsec.sa import Ah, Esp
from tests.support.ipsec import LEFT, RIGHT

logging.getLogger("scapy").setLevel(logging.ERROR)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.layers import inet, ipsec
    from scapy.packet import Raw

CIPHER_NAMES = {
    "null": "NULL", "des-cbc": "DES", "3des-cbc": "3DES", "aes-128-cbc": "AES-CBC", "aes-192-cbc": "AES-CBC",
    "aes-256-cbc": "AES-CBC", "aes-128-gcm": "AES-GCM", "aes-192-gcm": "AES-GCM", "aes-256-gcm": "AES-GCM",
}  # fmt: skip
INTEGRITY_NAMES = {
    None: "NULL", "hmac-md5-96": "HMAC-MD5-96", "hmac-sha1-96": "HMAC-SHA1-96", "hmac-sha-256-128": "SHA2-256-128",
    "hmac-sha-384-192": "SHA2-384-192", "hmac-sha-512-256": "SHA2-512-256",
}  # fmt: skip


def text(address: int) -> str:
    return ".".join(str(octet) for octet in address.to_bytes(4, "big"))


def scapy_esp(use: Esp, tunnel: bool = True, **more: Any) -> Any:
    return ipsec.SecurityAssociation(
        ipsec.ESP,
        spi=use.spi,
        crypt_algo=CIPHER_NAMES[use.cipher],
        crypt_key=use.cipher_key or None,
        auth_algo=INTEGRITY_NAMES[use.integrity],
        auth_key=use.integrity_key or None,
        tunnel_header=inet.IP(src=text(LEFT), dst=text(RIGHT)) if tunnel else None,
        **more,
    )


def scapy_ah(use: Ah, tunnel: bool = True, outer: Any = None, **more: Any) -> Any:
    return ipsec.SecurityAssociation(
        ipsec.AH,
        spi=use.spi,
        auth_algo=INTEGRITY_NAMES[use.integrity],
        auth_key=use.key,
        tunnel_header=(outer or inet.IP(src=text(LEFT), dst=text(RIGHT))) if tunnel else None,
        **more,
    )


def scapy_seals(peer: Any, clear: bytes, number: int) -> bytes:
    """A packet that scapy protects with this number, of which an SA with extended ones has the high half, too."""
    peer.seq_num, peer.esn = number & 0xFFFFFFFF, number >> 32
    return bytes(peer.encrypt(inet.IP(clear)))


def scapy_opens(peer: Any, sealed: bytes, number: int = 0) -> bytes:
    """What scapy finds in a packet; IPSecIntegrityError when it is not authentic."""
    peer.esn = number >> 32
    return bytes(peer.decrypt(inet.IP(sealed)))


class Enclosing:
    """AH around an ESP packet, signed by scapy.

    Scapy's own transport mode would sign such a packet as if it were ESP, because it looks for
    ESP first; raw octets after AH keep it from that.
    """

    def __init__(self, use: Ah, esn: bool = False) -> None:
        self.use = use
        self.esn = esn
        self.sequence = 0

    def __call__(self, packet: bytes, number: int = 0) -> bytes:
        """`number` is the packet's, the next one when it is 0."""
        self.sequence = number or self.sequence + 1
        octets = packet[20:]
        header = inet.IP(packet[:20])
        header.remove_payload()
        header.len = len(packet) + self.use.header_octets
        header.proto = 51
        del header.chksum
        header = inet.IP(bytes(header))
        header.remove_payload()
        after = ipsec.AH(
            nh=50,
            payloadlen=self.use.header_octets // 4 - 2,
            spi=self.use.spi,
            seq=self.sequence & 0xFFFFFFFF,
            icv=bytes(self.use.header_octets - 12),
        )
        algorithm = ipsec.AUTH_ALGOS[INTEGRITY_NAMES[self.use.integrity]]
        signed = algorithm.sign(
            header / after / Raw(octets), self.use.key, esn_en=self.esn, esn=self.sequence >> 32
        )
        return bytes(signed)


COMBINATIONS = [
    (cipher, integrity)
    for cipher in CIPHER_NAMES
    for integrity in INTEGRITY_NAMES
    if (cipher, integrity) != ("null", None) and (integrity is None or "gcm" not in cipher)
]
