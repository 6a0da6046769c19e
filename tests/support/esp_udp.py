"""ESP in UDP (RFC 3948) with the keys of a negotiated pair: a plain implementation beside the product's."""

from __future__ import annotations

import hmac
import os
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.ase.ike.crypto.algorithms import CIPHERS, INTEGRITY
from chassis.ase.link import SaInstall
from chassis.model.ipsec import SaKeys
from chassis.net.checksum import checksum

IP_IN_IP = 4
UDP = 17
GCM_ICV = 16
GCM_SALT = 4


class EspError(Exception):
    """A packet that a receiver drops."""


def seal(keys: SaKeys, number: int, inner: bytes) -> bytes:
    """The ESP packet, from its header on, of an inner IPv4 packet."""
    cipher = CIPHERS[keys.esp_cipher]
    fill = -(len(inner) + 2) % max(cipher.block_octets, 4)
    plain = inner + bytes(range(1, fill + 1)) + bytes((fill, IP_IN_IP))
    head = struct.pack("!II", keys.esp_spi, number)
    if cipher.aead:
        key, salt = keys.esp_cipher_key[:-GCM_SALT], keys.esp_cipher_key[-GCM_SALT:]
        iv = number.to_bytes(8, "big")
        return head + iv + AESGCM(key).encrypt(salt + iv, plain, head)
    if keys.esp_cipher == "null":
        body = head + plain
    else:
        iv = os.urandom(cipher.iv_octets)
        body = head + iv + cipher.encrypt_cbc(keys.esp_cipher_key, iv, plain)
    return body + INTEGRITY[keys.esp_integrity].icv(keys.esp_integrity_key, body) if keys.esp_integrity else body


def unseal(keys: SaKeys, packet: bytes) -> bytes:
    """The inner packet; EspError for one that is not authentic, or wrong inside."""
    cipher = CIPHERS[keys.esp_cipher]
    if cipher.aead:
        key, salt = keys.esp_cipher_key[:-GCM_SALT], keys.esp_cipher_key[-GCM_SALT:]
        plain = AESGCM(key).decrypt(salt + packet[8:16], packet[16:], packet[:8])
    else:
        body = packet
        if keys.esp_integrity:
            spec = INTEGRITY[keys.esp_integrity]
            body, icv = packet[: -spec.icv_octets], packet[-spec.icv_octets :]
            if not hmac.compare_digest(spec.icv(keys.esp_integrity_key, body), icv):
                raise EspError("integrity check value")
        if keys.esp_cipher == "null":
            plain = body[8:]
        else:
            iv_end = 8 + cipher.iv_octets
            plain = cipher.decrypt_cbc(keys.esp_cipher_key, body[8:iv_end], body[iv_end:])
    fill, following = plain[-2], plain[-1]
    if following != IP_IN_IP or plain[-2 - fill : -2] != bytes(range(1, fill + 1)):
        raise EspError("padding")
    return plain[: -2 - fill]


class Pair:
    """An installed pair and its sending number."""

    def __init__(self, install: SaInstall) -> None:
        self.install = install
        self.number = 0
        self.received = 0

    def seal(self, inner: bytes) -> bytes:
        self.number += 1
        return seal(self.install.outbound, self.number, inner)

    def unseal(self, packet: bytes) -> bytes:
        inner = unseal(self.install.inbound, packet)
        self.received += 1
        return inner


def udp_packet(source: bytes, target: bytes, port: int, size: int, content: bytes) -> bytes:
    """An IPv4 packet of `size` bytes in all with DF and a UDP datagram that begins with `content`."""
    data = content.ljust(size - 28, b"\0")[: size - 28]
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, 0, 0x4000, 64, UDP, 0, source, target)
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    return head + struct.pack("!HHHH", port, port, 8 + len(data), 0) + data
