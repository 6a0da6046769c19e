"""Protection of version 1 messages: CBC whose IV is the last block before (RFC 2409 appendix B)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from chassis.ase.ike.crypto.ciphers import CipherSpec
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.header import ENCRYPTION, HEADER_LENGTH, Header
from chassis.ase.ike.payloads.numbers import NotifyTypeV1
from chassis.ase.ike.payloads.v1 import PayloadV1, emit_payloads, parse_payloads
from chassis.net.types import Buffer

_WHERE: Final = "encrypted message"


@dataclass(frozen=True, slots=True)
class Chain:
    """The cipher of an ISAKMP SA at one place in the chain of one exchange; `iv` serves the next message.

    Sealing and opening give the chain of the message after; a message that turns out wrong is simply
    not followed up, so a forged one can't break the exchange.
    """

    cipher: CipherSpec
    key: bytes = field(repr=False)
    iv: bytes

    def seal(self, header: Header, payloads: tuple[PayloadV1, ...]) -> tuple[bytes, Chain]:
        """(whole message, chain after it), padded with zeros to whole blocks."""
        first, plain = emit_payloads(payloads)
        return self.seal_chain(header, first, plain)

    def seal_chain(self, header: Header, first: int, plain: bytes) -> tuple[bytes, Chain]:
        """As `seal`, for payloads that were already laid out (a HASH covers them)."""
        block = self.cipher.block_octets
        sealed = self.cipher.encrypt_cbc(self.key, self.iv, plain + bytes(-len(plain) % block))
        head = replace(
            header, next_payload=first, flags=header.flags | ENCRYPTION, length=HEADER_LENGTH + len(sealed)
        )
        return head.emit() + sealed, replace(self, iv=sealed[-block:])

    def open(self, message: Buffer, header: Header) -> tuple[bytes, Chain]:
        """(decrypted payloads with their padding, chain after it); PayloadError for an odd length."""
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
        return self.cipher.decrypt_cbc(self.key, self.iv, sealed), replace(self, iv=sealed[-block:])


def open_payloads(chain: Chain, message: Buffer, header: Header) -> tuple[tuple[PayloadV1, ...], bytes, Chain]:
    """(payloads, plaintext they were read from, chain after them); raises PayloadError."""
    plain, after = chain.open(message, header)
    return parse_payloads(header.next_payload, memoryview(plain), padded=True), plain, after


def after_hash(plain: bytes) -> bytes:
    """What a leading HASH payload covers: the payloads behind it, without the padding at the end.

    `plain` has parsed before, so its lengths are right; the chain is walked by its generic headers.
    """
    start = int.from_bytes(plain[2:4], "big")
    following = plain[0]
    at = start
    while following:
        following = plain[at]
        at += int.from_bytes(plain[at + 2 : at + 4], "big")
    return plain[start:at]
