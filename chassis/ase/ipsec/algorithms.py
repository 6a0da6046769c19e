"""Registries of the integrity and encryption algorithms of ESP and AH.

An entry has the key length, the lengths on the wire and a function that makes a keyed context. The rest of the
package asks the entry, so a further CBC cipher or MAC is one more entry.

Sources: RFC 2403 (HMAC-MD5-96), RFC 2404 (HMAC-SHA-1-96), RFC 3566 (AES-XCBC-MAC-96), RFC 4868 (HMAC-SHA-2),
RFC 2410 (null), RFC 2405 (DES-CBC), RFC 2451 (3DES-CBC), RFC 3602 (AES-CBC), RFC 4106 (AES-GCM). The names
are those of the IKE proposals, so a negotiated algorithm is installed by its name.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias, cast

import numpy as np
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher, CipherContext, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hmac import HMAC

Octets: TypeAlias = bytes | bytearray | memoryview

IcvFunction: TypeAlias = Callable[..., bytes]
"""`Integrity.icv`."""


class Integrity(Protocol):
    """A keyed integrity algorithm."""

    def icv(self, data: Octets, head: Octets | None = None) -> bytes:
        """Return the integrity check value of head + data, truncated to its length on the wire."""

    def icvs(self, view: memoryview, starts: Sequence[int], ends: Sequence[int], more: bytes = b"") -> bytes:
        """Return the ICVs, end to end, of each part of `view` followed by `more`."""

    @staticmethod
    def icvs_by(
        keyed: Sequence[Integrity],
        view: memoryview,
        starts: Sequence[int],
        ends: Sequence[int],
        more: Sequence[bytes],
    ) -> bytes:
        """Return the ICVs, end to end, of each part of `view`, by an algorithm of this kind for each; `more` are
        octets after each part, or empty."""


@dataclass(frozen=True, slots=True)
class IntegrityAlgorithm:
    """One integrity algorithm: keys of `key_octets`, ICVs of `icv_octets` on the wire."""

    name: str
    key_octets: int
    icv_octets: int
    keyed: Callable[[bytes], Integrity]


@dataclass(frozen=True, slots=True)
class CipherAlgorithm:
    """One encryption algorithm.

    The ciphertext is a multiple of `block_octets` (4 or more, RFC 4303 2.4); `iv_octets` is the length of the IV
    before it. `block_cipher` makes the keyed block cipher for CBC mode; it is None for null encryption and for a
    combined mode algorithm, which has an ICV of `icv_octets` and a key that ends in the salt.
    """

    name: str
    key_octets: int
    block_octets: int
    iv_octets: int
    block_cipher: Callable[[bytes], BlockCipherAlgorithm] | None
    icv_octets: int = 0

    @property
    def combined(self) -> bool:
        """Whether the algorithm also authenticates (combined mode, RFC 4303 3.2.3)."""
        return self.icv_octets > 0

    def encryptor(self, key: bytes) -> CipherContext | None:
        """Return a CBC context that lives as long as its SA, or None for null encryption.

        It starts at a zero vector. That is safe only because the caller begins every packet with a fresh random
        block, whose ciphertext becomes the IV (RFC 3602 section 3).
        """
        if self.block_cipher is None:
            return None
        return Cipher(self.block_cipher(key), modes.CBC(bytes(self.iv_octets))).encryptor()

    def decryptor(self, key: bytes) -> CipherContext | None:
        """Return the CBC context of the receiver. For IV and ciphertext as input, the first block of its output
        has no meaning."""
        if self.block_cipher is None:
            return None
        return Cipher(self.block_cipher(key), modes.CBC(bytes(self.iv_octets))).decryptor()


class _Hmac:
    """HMAC (RFC 2104) from copies of a keyed context, which was measured faster than hmac.digest and than two
    contexts of hashlib."""

    __slots__ = ("_copy", "_icv_octets")

    def __init__(self, key: bytes, algorithm: hashes.HashAlgorithm, icv_octets: int) -> None:
        self._copy = HMAC(key, algorithm).copy
        self._icv_octets = icv_octets

    def icv(self, data: Octets, head: Octets | None = None) -> bytes:
        mac = self._copy()
        if head is not None:
            mac.update(head)
        mac.update(data)
        return mac.finalize()[: self._icv_octets]

    def icvs(self, view: memoryview, starts: Sequence[int], ends: Sequence[int], more: bytes = b"") -> bytes:
        copy = self._copy
        found: list[bytes] = []
        add = found.append
        for part in _parts(view, starts, ends):
            mac = copy()
            mac.update(part)
            if more:
                mac.update(more)
            add(mac.finalize())
        return _truncated(found, self._icv_octets)

    @staticmethod
    def icvs_by(
        keyed: Sequence[Integrity],
        view: memoryview,
        starts: Sequence[int],
        ends: Sequence[int],
        more: Sequence[bytes],
    ) -> bytes:
        macs = cast("Sequence[_Hmac]", keyed)
        parts = _parts(view, starts, ends)
        found: list[bytes] = []
        add = found.append
        if more:
            for own, part, after in zip(macs, parts, more, strict=True):
                mac = own._copy()
                mac.update(part)
                mac.update(after)
                add(mac.finalize())
        else:
            for own, part in zip(macs, parts, strict=True):
                mac = own._copy()
                mac.update(part)
                add(mac.finalize())
        return _truncated(found, macs[0]._icv_octets)


def _truncated(icvs: list[bytes], octets: int) -> bytes:
    """Return the first octets of each ICV, end to end; all have one length."""
    whole = np.frombuffer(b"".join(icvs), np.uint8).reshape(len(icvs), -1)
    return whole[:, :octets].tobytes()


def _parts(view: memoryview, starts: Sequence[int], ends: Sequence[int]) -> Iterable[Octets]:
    """Return parts of a view, one at least. Those of one size and distance are taken out in C."""
    if isinstance(starts, range) and isinstance(ends, range) and starts.step == ends.step:
        first, size, last = starts[0], ends[0] - starts[0], len(starts) - 1
        layout = _even_layout(size, starts.step - size)
        even = layout.iter_unpack(view[first : first + last * starts.step])
        return chain(chain.from_iterable(even), (view[starts[last] : ends[last]],))
    return [view[start:end] for start, end in zip(starts, ends, strict=True)]


@lru_cache(maxsize=256)
def _even_layout(size: int, gap: int) -> struct.Struct:
    return struct.Struct(f"{size}s{gap}x")


def _hmac(algorithm: hashes.HashAlgorithm, icv_octets: int) -> Callable[[bytes], Integrity]:
    return lambda key: _Hmac(key, algorithm, icv_octets)


def _double(block: int) -> int:
    """Return block * x in GF(2^128), as CMAC derives its subkeys (RFC 4493 2.3)."""
    return ((block << 1) & ((1 << 128) - 1)) ^ (0x87 if block >> 127 else 0)


class _AesXcbc:
    """AES-XCBC-MAC (RFC 3566 section 4), computed with AES-CMAC under the derived key K1.

    Both are CBC-MACs that add a mask to the last block, and the last block given to CMAC is always whole. Adding
    CMAC's own mask beforehand cancels it, which leaves XCBC's K2 or K3.
    """

    __slots__ = ("_copy", "_icv_octets", "_padded_mask", "_whole_mask")

    def __init__(self, key: bytes, icv_octets: int) -> None:
        encrypt = Cipher(AES(key), modes.ECB()).encryptor().update
        k1, k2, k3 = (encrypt(bytes([octet]) * 16) for octet in (1, 2, 3))
        zero_block = Cipher(AES(k1), modes.ECB()).encryptor().update(bytes(16))
        cancel = _double(int.from_bytes(zero_block, "big"))
        self._whole_mask = int.from_bytes(k2, "big") ^ cancel
        self._padded_mask = int.from_bytes(k3, "big") ^ cancel
        self._copy = CMAC(AES(k1)).copy
        self._icv_octets = icv_octets

    def icv(self, data: Octets, head: Octets | None = None) -> bytes:
        if head is not None:
            data = b"".join((head, data))
        size = len(data)
        cut = (size - 1) & ~15 if size else 0
        last = bytes(data[cut:])
        if len(last) == 16:
            block = int.from_bytes(last, "big") ^ self._whole_mask
        else:
            block = int.from_bytes((last + b"\x80").ljust(16, b"\0"), "big") ^ self._padded_mask
        mac = self._copy()
        mac.update(bytes(data[:cut]))
        mac.update(block.to_bytes(16, "big"))
        return mac.finalize()[: self._icv_octets]

    def icvs(self, view: memoryview, starts: Sequence[int], ends: Sequence[int], more: bytes = b"") -> bytes:
        return b"".join([self.icv(more, view[start:end]) for start, end in zip(starts, ends, strict=True)])

    @staticmethod
    def icvs_by(
        keyed: Sequence[Integrity],
        view: memoryview,
        starts: Sequence[int],
        ends: Sequence[int],
        more: Sequence[bytes],
    ) -> bytes:
        afters = more or [b""] * len(keyed)
        rows = zip(keyed, starts, ends, afters, strict=True)
        return b"".join([own.icv(after, view[start:end]) for own, start, end, after in rows])


def _aes_xcbc(icv_octets: int) -> Callable[[bytes], Integrity]:
    return lambda key: _AesXcbc(key, icv_octets)


def _single_des(key: bytes) -> BlockCipherAlgorithm:
    """Return DES as 3DES with three equal keys: encrypt, decrypt, encrypt leaves one encryption."""
    return TripleDES(key * 3)


INTEGRITY: Final[Mapping[str, IntegrityAlgorithm]] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            IntegrityAlgorithm("hmac-md5-96", 16, 12, _hmac(hashes.MD5(), 12)),
            IntegrityAlgorithm("hmac-sha1-96", 20, 12, _hmac(hashes.SHA1(), 12)),
            IntegrityAlgorithm("hmac-aes-xcbc", 16, 12, _aes_xcbc(12)),
            IntegrityAlgorithm("hmac-sha-256-128", 32, 16, _hmac(hashes.SHA256(), 16)),
            IntegrityAlgorithm("hmac-sha-384-192", 48, 24, _hmac(hashes.SHA384(), 24)),
            IntegrityAlgorithm("hmac-sha-512-256", 64, 32, _hmac(hashes.SHA512(), 32)),
        )
    }
)
"""Integrity algorithms of ESP and AH by their name in a configuration."""

CIPHERS: Final[Mapping[str, CipherAlgorithm]] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            CipherAlgorithm("null", 0, 4, 0, None),
            CipherAlgorithm("des-cbc", 8, 8, 8, _single_des),
            CipherAlgorithm("3des-cbc", 24, 8, 8, TripleDES),
            CipherAlgorithm("aes-128-cbc", 16, 16, 16, AES),
            CipherAlgorithm("aes-192-cbc", 24, 16, 16, AES),
            CipherAlgorithm("aes-256-cbc", 32, 16, 16, AES),
            CipherAlgorithm("aes-128-gcm", 20, 4, 8, None, icv_octets=16),
            CipherAlgorithm("aes-192-gcm", 28, 4, 8, None, icv_octets=16),
            CipherAlgorithm("aes-256-gcm", 36, 4, 8, None, icv_octets=16),
        )
    }
)
"""Ciphers of ESP by their name in a configuration."""
