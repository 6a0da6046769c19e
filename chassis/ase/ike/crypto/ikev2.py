"""Keys and encryption of IKEv2: prf+, SKEYSEED, the seven SK keys, KEYMAT (RFC 7296 2.13 to 2.18), and the
Encrypted payload, whole or in fragments (RFC 7296 3.14, 5282, 7383).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.ase.ike.crypto.algorithms import CipherSpec, IntegritySpec, PrfSpec
from chassis.ase.ike.payloads.chain import GENERIC, GENERIC_LENGTH, PayloadError
from chassis.ase.ike.payloads.header import HEADER_LENGTH, Header
from chassis.ase.ike.payloads.numbers import NotifyTypeV2, PayloadTypeV2
from chassis.ase.ike.payloads.v2 import MessageV2, PayloadV2, emit_payloads, parse_payloads
from chassis.ase.ike.payloads.v2_payloads import MAX_FRAGMENTS, Encrypted, EncryptedFragment
from chassis.net.types import Buffer


def prf_plus(prf: PrfSpec, key: bytes, seed: bytes, octets: int) -> bytes:
    """Return the first `octets` of prf+(key, seed) (RFC 7296 2.13).

    Raises:
        ValueError: they are more than 255 blocks.
    """
    if octets > 255 * prf.octets:
        raise ValueError(f"prf+ of {prf.name} ends at {255 * prf.octets} octets")
    compute = prf.compute
    block = b""
    blocks: list[bytes] = []
    for counter in range(1, -(-octets // prf.octets) + 1):
        block = compute(key, block + seed + bytes((counter,)))
        blocks.append(block)
    return b"".join(blocks)[:octets]


@dataclass(frozen=True, slots=True)
class IkeKeys:
    """SK_d and the pairs of SK_a, SK_e and SK_p; SK_a is empty with an AEAD. `repr` shows none of them."""

    d: bytes = field(repr=False)
    ai: bytes = field(repr=False)
    ar: bytes = field(repr=False)
    ei: bytes = field(repr=False)
    er: bytes = field(repr=False)
    pi: bytes = field(repr=False)
    pr: bytes = field(repr=False)


def skeyseed(prf: PrfSpec, ni: bytes, nr: bytes, g_ir: bytes) -> bytes:
    """Return SKEYSEED of a first IKE SA; a PRF with a fixed key uses 8 octets of each nonce (RFC 7296 2.14)."""
    if prf.fixed_key:
        half = prf.octets // 2
        return prf.compute(ni[:half] + nr[:half], g_ir)
    return prf.compute(ni + nr, g_ir)


def skeyseed_rekey(old_prf: PrfSpec, old_sk_d: bytes, g_ir: bytes, ni: bytes, nr: bytes) -> bytes:
    """Return SKEYSEED of a rekeyed IKE SA, by the PRF and SK_d of the old one (RFC 7296 2.18)."""
    return old_prf.compute(old_sk_d, g_ir + ni + nr)


def ike_keys(
    prf: PrfSpec,
    cipher: CipherSpec,
    integrity: IntegritySpec | None,
    seed: bytes,
    ni: bytes,
    nr: bytes,
    spi_i: bytes,
    spi_r: bytes,
) -> IkeKeys:
    """Derive the seven keys from SKEYSEED `seed` (RFC 7296 2.14)."""
    a = 0 if integrity is None else integrity.key_octets
    e = cipher.key_octets
    p = prf.octets
    stream = prf_plus(prf, seed, ni + nr + spi_i + spi_r, 3 * p + 2 * a + 2 * e)
    keys: list[bytes] = []
    at = 0
    for octets in (p, a, a, e, e, p, p):
        keys.append(stream[at : at + octets])
        at += octets
    return IkeKeys(*keys)


def keymat(prf: PrfSpec, sk_d: bytes, ni: bytes, nr: bytes, octets: int, g_ir: bytes = b"") -> bytes:
    """Return KEYMAT of a CHILD SA (RFC 7296 2.17); `g_ir` only if it had a Diffie-Hellman exchange of its own."""
    return prf_plus(prf, sk_d, g_ir + ni + nr, octets)


def split_keymat(material: bytes, sizes: tuple[int, ...]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return the keys (initiator to responder, responder to initiator), each of `sizes` octets.

    `sizes` are those of one direction: encryption, then integrity; of a bundle, the outermost protocol first
    (RFC 7296 2.17, RFC 4306 2.17).

    Raises:
        ValueError: `material` has another length.
    """
    cut: list[bytes] = []
    at = 0
    for octets in sizes + sizes:
        cut.append(material[at : at + octets])
        at += octets
    if at != len(material):
        raise ValueError(f"{len(material)} octets of keys for {at}")
    return tuple(cut[: len(sizes)]), tuple(cut[len(sizes) :])


GCM_ICV: Final = 16
GCM_SALT: Final = 4


class IntegrityError(PayloadError):
    """The message is not authentic: drop it without an answer."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__("SK", field, what)


@dataclass(frozen=True, slots=True)
class SkCipher:
    """SK_e and SK_a of one direction. `integrity` is None with an AEAD, whose salt ends SK_e."""

    cipher: CipherSpec
    integrity: IntegritySpec | None
    sk_e: bytes = field(repr=False)
    sk_a: bytes = field(repr=False, default=b"")

    @property
    def icv_octets(self) -> int:
        return GCM_ICV if self.integrity is None else self.integrity.icv_octets

    @property
    def iv_octets(self) -> int:
        return self.cipher.iv_octets

    def _pad(self, plain: bytes) -> bytes:
        """Return the plaintext with padding and Pad Length; an AEAD needs no padding."""
        fill = -(len(plain) + 1) % self.cipher.block_octets
        return plain + bytes(fill) + bytes((fill,))

    def _encrypt(
        self, header: Header, before: bytes, kind: int, first: int, prefix: bytes, plain: bytes, iv: bytes
    ) -> bytes:
        """Return a message that ends in an Encrypted payload or fragment; `before` are payloads in clear."""
        if len(iv) != self.iv_octets:
            raise ValueError(f"{self.cipher.name} needs an IV of {self.iv_octets} octets")
        padded = self._pad(plain)
        size = GENERIC_LENGTH + len(prefix) + len(iv) + len(padded) + self.icv_octets
        head = header.emit_before(kind, HEADER_LENGTH + len(before) + size)
        clear = head + before + GENERIC.pack(first, 0, size) + prefix
        if self.integrity is None:
            key, salt = self.sk_e[:-GCM_SALT], self.sk_e[-GCM_SALT:]
            return clear + iv + AESGCM(key).encrypt(salt + iv, padded, clear)
        body = clear + iv + self.cipher.encrypt_cbc(self.sk_e, iv, padded)
        return body + self.integrity.icv(self.sk_a, body)

    def encrypt(self, header: Header, payloads: tuple[PayloadV2, ...], iv: bytes) -> bytes:
        """Return a message with all payloads encrypted.

        `iv` is `iv_octets` long and used once: unpredictable for CBC, unique under the key for an AEAD.

        Raises:
            ValueError: `iv` has another length.
        """
        first, plain = emit_payloads(payloads)
        return self._encrypt(header, b"", PayloadTypeV2.SK, first, b"", plain, iv)

    def encrypt_fragments(
        self, header: Header, payloads: tuple[PayloadV2, ...], room: int, ivs: bytes
    ) -> tuple[bytes, ...]:
        """Return the message in fragments of at most `room` octets each (RFC 7383 2.5).

        `ivs` are the IVs of at least `fragments_needed` fragments, one after the other.

        Raises:
            ValueError: more than MAX_FRAGMENTS are needed, or `room` is too small for one.
        """
        first, plain = emit_payloads(payloads)
        piece = self._piece(room)
        total = max(1, -(-len(plain) // piece))
        if total > MAX_FRAGMENTS:
            raise ValueError(f"{len(plain)} octets don't fit into {MAX_FRAGMENTS} fragments of {room}")
        size = self.iv_octets
        messages: list[bytes] = []
        for number in range(1, total + 1):
            at = (number - 1) * piece
            prefix = number.to_bytes(2, "big") + total.to_bytes(2, "big")
            iv = ivs[(number - 1) * size : number * size]
            kind = first if number == 1 else 0
            messages.append(
                self._encrypt(header, b"", PayloadTypeV2.SKF, kind, prefix, plain[at : at + piece], iv)
            )
        return tuple(messages)

    def fragments_needed(self, payloads: tuple[PayloadV2, ...], room: int) -> int:
        """Return how many fragments of at most `room` octets the payloads need."""
        return max(1, -(-len(emit_payloads(payloads)[1]) // self._piece(room)))

    def _piece(self, room: int) -> int:
        """Return how many octets of plaintext fit into a fragment of `room` octets."""
        sealed = room - HEADER_LENGTH - GENERIC_LENGTH - 4 - self.iv_octets - self.icv_octets
        piece = sealed - sealed % self.cipher.block_octets - 1
        if piece < 16:
            raise ValueError(f"no fragment fits into {room} octets")
        return piece

    def decrypt_payload(self, view: Buffer, payload: Encrypted | EncryptedFragment) -> bytes:
        """Return the plaintext of `payload`, which ends the message `view`.

        Raises:
            IntegrityError: it is not authentic.
            PayloadError: it is authentic, and its padding is not valid.
        """
        message = bytes(view)
        size = len(payload.body)
        start = len(message) - size
        iv_octets, icv_octets = self.iv_octets, self.icv_octets
        if size < iv_octets + icv_octets + self.cipher.block_octets:
            raise IntegrityError("length", f"{size} bytes")
        iv = payload.body[:iv_octets]
        if self.integrity is None:
            key, salt = self.sk_e[:-GCM_SALT], self.sk_e[-GCM_SALT:]
            try:
                padded = AESGCM(key).decrypt(salt + iv, payload.body[iv_octets:], message[:start])
            except InvalidTag:
                raise IntegrityError("integrity check value", "wrong") from None
        else:
            icv = self.integrity.icv(self.sk_a, message[:-icv_octets])
            if not hmac.compare_digest(icv, message[-icv_octets:]):
                raise IntegrityError("integrity check value", "wrong")
            sealed = payload.body[iv_octets:-icv_octets]
            if len(sealed) % self.cipher.block_octets:
                raise PayloadError(
                    "SK", "length", f"{len(sealed)} bytes in blocks", notify=NotifyTypeV2.INVALID_SYNTAX
                )
            padded = self.cipher.decrypt_cbc(self.sk_e, iv, sealed)
        fill = padded[-1] + 1
        if fill > len(padded):
            raise PayloadError(
                "SK", "pad length", f"{fill - 1} of {len(padded)} bytes", notify=NotifyTypeV2.INVALID_SYNTAX
            )
        return padded[:-fill]

    def decrypt(self, view: Buffer, message: MessageV2) -> tuple[PayloadV2, ...]:
        """Return the payloads in the Encrypted payload that ends `message`, which was parsed from `view`.

        Raises:
            IntegrityError: it is not authentic, or there is no Encrypted payload.
            PayloadError: it is authentic, and its contents do not decode.
        """
        payload = message.payloads[-1] if message.payloads else None
        if not isinstance(payload, Encrypted):
            raise IntegrityError("payload", "missing")
        plain = self.decrypt_payload(view, payload)
        return parse_payloads(payload.first, memoryview(plain), decrypted=True)
