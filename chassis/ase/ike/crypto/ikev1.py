"""Keys and encryption of IKEv1: SKEYID family, hashes and KEYMAT (RFC 2409 5), CBC with chained IVs (appendix B).

Input and output are octets; encrypted messages are read and written whole, with their header.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from chassis.ase.ike.crypto.algorithms import CipherSpec, PrfSpec
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.header import ENCRYPTION, HEADER_LENGTH, Header
from chassis.ase.ike.payloads.numbers import NotifyTypeV1
from chassis.ase.ike.payloads.v1 import PayloadV1, emit_payloads, parse_payloads
from chassis.net.types import Buffer


@dataclass(frozen=True, slots=True)
class SkeyId:
    """SKEYID and the keys derived from it; `repr` does not show them.

    `d` derives the keys of phase 2, `a` authenticates, `e` encrypts (`encryption_key` fits it to the cipher).
    """

    prf: PrfSpec
    skeyid: bytes = field(repr=False)
    d: bytes = field(repr=False)
    a: bytes = field(repr=False)
    e: bytes = field(repr=False)


def skeyid_psk(prf: PrfSpec, psk: bytes, ni: bytes, nr: bytes) -> bytes:
    """Return SKEYID for authentication by preshared key."""
    return prf.compute(psk, ni + nr)


def skeyid_signature(prf: PrfSpec, ni: bytes, nr: bytes, g_xy: bytes) -> bytes:
    """Return SKEYID for authentication by signatures."""
    return prf.compute(ni + nr, g_xy)


def derive(prf: PrfSpec, skeyid: bytes, g_xy: bytes, cky_i: bytes, cky_r: bytes) -> SkeyId:
    """Derive SKEYID_d, SKEYID_a and SKEYID_e, each from the one before it."""
    cookies = cky_i + cky_r
    d = prf.compute(skeyid, g_xy + cookies + b"\0")
    a = prf.compute(skeyid, d + g_xy + cookies + b"\1")
    e = prf.compute(skeyid, a + g_xy + cookies + b"\2")
    return SkeyId(prf, skeyid, d, a, e)


def encryption_key(keys: SkeyId, cipher: CipherSpec) -> bytes:
    """Return the key of the ISAKMP SA's cipher: SKEYID_e truncated, or expanded if too short (appendix B)."""
    if len(keys.e) >= cipher.key_octets:
        return keys.e[: cipher.key_octets]
    block = b"\0"
    stretched = b""
    while len(stretched) < cipher.key_octets:
        block = keys.prf.compute(keys.e, block)
        stretched += block
    return stretched[: cipher.key_octets]


def first_iv(hash_name: str, cipher: CipherSpec, g_xi: bytes, g_xr: bytes) -> bytes:
    """Return the IV of the first encrypted message of phase 1, from both public values."""
    return _digest(hash_name, g_xi + g_xr)[: cipher.block_octets]


def message_iv(hash_name: str, cipher: CipherSpec, last_phase_1_block: bytes, message_id: int) -> bytes:
    """Return the IV of the first message of a quick mode or informational exchange, by its message ID."""
    return _digest(hash_name, last_phase_1_block + message_id.to_bytes(4, "big"))[: cipher.block_octets]


def _digest(hash_name: str, data: bytes) -> bytes:
    return hashlib.new(hash_name, data, usedforsecurity=False).digest()


def hash_i(keys: SkeyId, g_xi: bytes, g_xr: bytes, cky_i: bytes, cky_r: bytes, sa_i: bytes, id_i: bytes) -> bytes:
    """Return HASH_I. `sa_i` is the body of the initiator's SA payload as sent, `id_i` that of its ID payload."""
    return keys.prf.compute(keys.skeyid, g_xi + g_xr + cky_i + cky_r + sa_i + id_i)


def hash_r(keys: SkeyId, g_xi: bytes, g_xr: bytes, cky_i: bytes, cky_r: bytes, sa_i: bytes, id_r: bytes) -> bytes:
    """Return HASH_R; it covers the initiator's SA payload too."""
    return keys.prf.compute(keys.skeyid, g_xr + g_xi + cky_r + cky_i + sa_i + id_r)


def quick_hash_1(keys: SkeyId, message_id: int, after_hash: bytes) -> bytes:
    """Return HASH(1). `after_hash` is the message after the HASH payload, without padding.

    Informational exchanges have the same HASH (RFC 2409 5.7).
    """
    return keys.prf.compute(keys.a, message_id.to_bytes(4, "big") + after_hash)


def quick_hash_2(keys: SkeyId, message_id: int, ni: bytes, after_hash: bytes) -> bytes:
    """Return HASH(2): as HASH(1), with the body of the initiator's nonce before the rest."""
    return keys.prf.compute(keys.a, message_id.to_bytes(4, "big") + ni + after_hash)


def quick_hash_3(keys: SkeyId, message_id: int, ni: bytes, nr: bytes) -> bytes:
    """Return HASH(3), over both nonces."""
    return keys.prf.compute(keys.a, b"\0" + message_id.to_bytes(4, "big") + ni + nr)


def keymat(keys: SkeyId, protocol: int, spi: bytes, ni: bytes, nr: bytes, octets: int, g_xy: bytes = b"") -> bytes:
    """Return KEYMAT of one SA for the SPI of its receiver; `g_xy` only with PFS (RFC 2409 5.5)."""
    seed = g_xy + bytes((protocol,)) + spi + ni + nr
    compute = keys.prf.compute
    block = b""
    result = b""
    while len(result) < octets:
        block = compute(keys.d, block + seed)
        result += block
    return result[:octets]


def equal(one: bytes, other: bytes) -> bool:
    """Compare two hashes in constant time."""
    return hmac.compare_digest(one, other)


def nat_hash(hash_name: str, cky_i: bytes, cky_r: bytes, address: bytes, port: int) -> bytes:
    """Return the hash of NAT-D (RFC 3947 3.2); with "sha1" and the SPIs, that of NAT_DETECTION (RFC 7296 2.23)."""
    return _digest(hash_name, cky_i + cky_r + address + port.to_bytes(2, "big"))


_WHERE: Final = "encrypted message"


@dataclass(frozen=True, slots=True)
class IvChain:
    """The cipher of an ISAKMP SA with the IV of the next message of one exchange.

    In CBC the IV of a message is the last block of the one before. Each call returns the `IvChain` after its
    message. The caller drops that if the message fails a check, so a forged message does not break the exchange.
    """

    cipher: CipherSpec
    key: bytes = field(repr=False)
    iv: bytes

    def encrypt(self, header: Header, payloads: tuple[PayloadV1, ...]) -> tuple[bytes, IvChain]:
        """Return (message with its header, chain after it); the payloads are padded with zeros to whole blocks."""
        first, plain = emit_payloads(payloads)
        return self.encrypt_plain(header, first, plain)

    def encrypt_plain(self, header: Header, first: int, plain: bytes) -> tuple[bytes, IvChain]:
        """As `encrypt`, for payloads as octets; `first` is the type of the first one."""
        block = self.cipher.block_octets
        sealed = self.cipher.encrypt_cbc(self.key, self.iv, plain + bytes(-len(plain) % block))
        head = header.emit_before(first, HEADER_LENGTH + len(sealed), header.flags | ENCRYPTION)
        return head + sealed, self._after(sealed)

    def _after(self, sealed: bytes) -> IvChain:
        """Return the chain after a message."""
        return IvChain(self.cipher, self.key, sealed[-self.cipher.block_octets :])

    def decrypt(self, message: Buffer, header: Header) -> tuple[bytes, IvChain]:
        """Return (decrypted payloads with their padding, chain after it).

        Raises:
            PayloadError: the length is not one of whole blocks.
        """
        sealed = bytes(memoryview(message)[HEADER_LENGTH:])
        block = self.cipher.block_octets
        if not sealed or len(sealed) % block:
            raise PayloadError(
                _WHERE,
                "length",
                f"{len(sealed)} bytes in blocks of {block}",
                24,
                notify=NotifyTypeV1.PAYLOAD_MALFORMED,
            )
        return self.cipher.decrypt_cbc(self.key, self.iv, sealed), self._after(sealed)


def decrypt_payloads(
    chain: IvChain, message: Buffer, header: Header
) -> tuple[tuple[PayloadV1, ...], bytes, IvChain]:
    """Return (payloads, the plaintext that they were read from, chain after them).

    Raises:
        PayloadError: the message does not decrypt to payloads.
    """
    plain, after = chain.decrypt(message, header)
    return parse_payloads(header.next_payload, memoryview(plain), padded=True), plain, after


def after_hash(plain: bytes) -> bytes:
    """Return what a HASH payload at the front covers: the payloads after it, without padding.

    Call it only for a `plain` that was parsed: its lengths are not checked again.
    """
    start = int.from_bytes(plain[2:4], "big")
    following = plain[0]
    at = start
    while following:
        following = plain[at]
        at += int.from_bytes(plain[at + 2 : at + 4], "big")
    return plain[start:at]
