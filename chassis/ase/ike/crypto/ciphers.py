"""Ciphers of IKE messages and of ESP, with their numbers in both versions.

Sources: RFC 2405, 2451, 3602 (CBC), RFC 4106 and 5282 (AES-GCM, 16-octet ICV); numbers: RFC 2409
appendix A, RFC 2407 4.4.4, RFC 7296 3.3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES


@dataclass(frozen=True, slots=True)
class CipherSpec:
    """One cipher. `key_octets` includes the salt of an AEAD; `key_bits` is the Key Length attribute, or None.

    `v1` is the phase 1 number, `v1_esp` the phase 2 transform, `v2` the ENCR transform (None: not there).
    `log_v1`, `log_esp` and `log_v2` are the words of the guide's tables for it.
    """

    name: str
    key_octets: int
    block_octets: int
    key_bits: int | None
    v1: int | None
    v1_esp: int | None
    v2: int
    log_v1: str
    log_esp: str
    log_v2: str
    algorithm: Callable[[bytes], BlockCipherAlgorithm] | None
    aead: bool = False
    modern: bool = False

    @property
    def iv_octets(self) -> int:
        """Octets of the IV in a version 2 message; in CBC also the length of a block."""
        return 8 if self.aead else self.block_octets

    def encrypt_cbc(self, key: bytes, iv: bytes, plain: bytes) -> bytes:
        """Ciphertext of a whole number of blocks; ValueError otherwise, or for an AEAD or null."""
        context = self._cbc(key, iv).encryptor()
        return context.update(plain) + context.finalize()

    def decrypt_cbc(self, key: bytes, iv: bytes, sealed: bytes) -> bytes:
        """The opposite of `encrypt_cbc`."""
        context = self._cbc(key, iv).decryptor()
        return context.update(sealed) + context.finalize()

    def _cbc(self, key: bytes, iv: bytes) -> Cipher[modes.CBC]:
        if self.algorithm is None or self.aead:
            raise ValueError(f"{self.name} has no CBC mode")
        return Cipher(self.algorithm(key), modes.CBC(iv))


def _single_des(key: bytes) -> BlockCipherAlgorithm:
    """DES as 3DES with three equal keys."""
    return TripleDES(key * 3)


def _aes(bits: int) -> CipherSpec:
    octets = bits // 8
    words = ("AES_CBC", "ESP_AES", f"AES-{bits}")
    return CipherSpec(f"aes-{bits}-cbc", octets, 16, bits, 7, 12, 12, *words, AES)


def _gcm(bits: int) -> CipherSpec:
    words = ("AES_GCM", "ESP_AES_GCM", f"AES-GCM-{bits}")
    octets = bits // 8 + 4
    return CipherSpec(f"aes-{bits}-gcm", octets, 1, bits, None, 20, 20, *words, AES, aead=True, modern=True)


_ALL: Final = (
    CipherSpec("des-cbc", 8, 8, None, 1, 2, 2, "DES_CBC", "ESP_DES", "DES", _single_des),
    CipherSpec("3des-cbc", 24, 8, None, 5, 3, 3, "TRIPLE_DES_CBC", "ESP_3DES", "3DES", TripleDES),
    _aes(128),
    _aes(192),
    _aes(256),
    CipherSpec("null", 0, 1, None, None, 11, 11, "NULL", "ESP_NULL", "NULL", None),
    _gcm(128),
    _gcm(192),
    _gcm(256),
)

CIPHERS: Final[Mapping[str, CipherSpec]] = MappingProxyType({spec.name: spec for spec in _ALL})
"""Ciphers by their name in a configuration; `modern` ones are the extensions'."""

CIPHERS_V1: Final[Mapping[tuple[int, int | None], CipherSpec]] = MappingProxyType(
    {(spec.v1, spec.key_bits): spec for spec in _ALL if spec.v1 is not None}
)
"""By (phase 1 encryption algorithm, key length)."""

CIPHERS_V1_ESP: Final[Mapping[tuple[int, int | None], CipherSpec]] = MappingProxyType(
    {(spec.v1_esp, spec.key_bits): spec for spec in _ALL if spec.v1_esp is not None}
)
"""By (ESP transform identifier of phase 2, key length)."""

CIPHERS_V2: Final[Mapping[tuple[int, int | None], CipherSpec]] = MappingProxyType(
    {(spec.v2, spec.key_bits): spec for spec in _ALL}
)
"""By (ENCR transform, key length)."""
