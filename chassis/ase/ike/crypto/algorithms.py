"""Ciphers, pseudo-random functions and integrity algorithms of IKE and ESP, with their numbers in both versions.

Sources: RFC 2405, 2451, 3602 (CBC), RFC 4106 and 5282 (AES-GCM, 16-octet ICV), RFC 2104 (HMAC), RFC 2403, 2404
(96-bit forms), RFC 3566 and 4434 (AES-XCBC), RFC 4868 (SHA-2); numbers: RFC 2409 appendix A, RFC 2407 4.4.4 and
4.5, RFC 7296 3.3.2.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES


@dataclass(frozen=True, slots=True)
class CipherSpec:
    """One cipher. `key_octets` includes the salt of an AEAD; `key_bits` is the Key Length attribute, or None.

    `v1` is the number in phase 1, `v1_esp` the transform in phase 2, `v2` the ENCR transform (None: not defined).
    `log_v1`, `log_esp` and `log_v2` are its names in the guide's tables. `modern`: only with a lab's option.
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
        """Length (octets) of the IV in a message of IKEv2; in CBC also of a block."""
        return 8 if self.aead else self.block_octets

    def encrypt_cbc(self, key: bytes, iv: bytes, plain: bytes) -> bytes:
        """Return the ciphertext of whole blocks.

        Raises:
            ValueError: `plain` is not whole blocks, or the cipher is an AEAD or null.
        """
        context = self._cbc(key, iv).encryptor()
        return context.update(plain) + context.finalize()

    def decrypt_cbc(self, key: bytes, iv: bytes, sealed: bytes) -> bytes:
        """Return the plaintext of whole blocks; raises as `encrypt_cbc`."""
        context = self._cbc(key, iv).decryptor()
        return context.update(sealed) + context.finalize()

    def _cbc(self, key: bytes, iv: bytes) -> Cipher[modes.CBC]:
        if self.algorithm is None or self.aead:
            raise ValueError(f"{self.name} has no CBC mode")
        return Cipher(self.algorithm(key), modes.CBC(iv))


def _single_des(key: bytes) -> BlockCipherAlgorithm:
    """Return DES, as 3DES with three equal keys."""
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
"""Ciphers by their name in a configuration."""

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


Mac: TypeAlias = Callable[[bytes, bytes], bytes]
"""`mac(key, data)`, not truncated."""


def _hmac(digest: str) -> Mac:
    one_shot = hmac.digest

    def mac(key: bytes, data: bytes) -> bytes:
        return one_shot(key, data, digest)

    return mac


def aes_xcbc_mac(key: bytes, data: bytes) -> bytes:
    """Return AES-XCBC-MAC (RFC 3566 4), all 16 octets: CBC with its last block masked by K2 or K3."""
    derive = Cipher(AES(key), modes.ECB()).encryptor().update
    k1 = derive(b"\x01" * 16)
    size = len(data)
    cut = (size - 1) // 16 * 16 if size else 0
    last = data[cut:]
    whole = len(last) == 16
    mask = derive((b"\x02" if whole else b"\x03") * 16)
    if not whole:
        last = (last + b"\x80").ljust(16, b"\0")
    masked = (int.from_bytes(last, "big") ^ int.from_bytes(mask, "big")).to_bytes(16, "big")
    return Cipher(AES(k1), modes.CBC(bytes(16))).encryptor().update(data[:cut] + masked)[-16:]


def aes_xcbc_prf(key: bytes, data: bytes) -> bytes:
    """Return AES-XCBC-PRF-128 (RFC 4434 2). A shorter key is padded with zeros, a longer one hashed."""
    if len(key) < 16:
        key = key.ljust(16, b"\0")
    elif len(key) > 16:
        key = aes_xcbc_mac(bytes(16), key)
    return aes_xcbc_mac(key, data)


@dataclass(frozen=True, slots=True)
class PrfSpec:
    """One PRF. `octets` is the length of its output and preferred key; `fixed_key`: the key has only that length
    (RFC 7296 2.14). `v2` is its transform, `hash_v1` the hash of IKEv1 whose HMAC it is (None: none)."""

    name: str
    octets: int
    v2: int
    hash_v1: int | None
    hash_name: str | None
    compute: Mac
    fixed_key: bool = False
    modern: bool = False


@dataclass(frozen=True, slots=True)
class IntegritySpec:
    """One integrity algorithm with keys of `key_octets`, truncated to `icv_octets`.

    `v1_hash` is its hash in phase 1 (None: none), `v1_auth` the attribute value in phase 2, `v1_ah` the transform
    of AH, `v2` the INTEG transform. `log_...` are its names in the guide's tables.
    """

    name: str
    key_octets: int
    icv_octets: int
    v1_hash: int | None
    v1_auth: int
    v1_ah: int
    v2: int
    log_v1: str
    log_phase_2: str
    log_v2: str
    compute: Mac
    modern: bool = False

    def icv(self, key: bytes, data: bytes) -> bytes:
        """Return the integrity check value, `icv_octets` long."""
        return self.compute(key, data)[: self.icv_octets]


_MD5, _SHA1 = _hmac("md5"), _hmac("sha1")
_SHA256, _SHA384, _SHA512 = _hmac("sha256"), _hmac("sha384"), _hmac("sha512")

PRFS: Final[Mapping[str, PrfSpec]] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            PrfSpec("hmac-md5", 16, 1, 1, "md5", _MD5),
            PrfSpec("hmac-sha1", 20, 2, 2, "sha1", _SHA1),
            PrfSpec("aes-128-xcbc", 16, 4, None, None, aes_xcbc_prf, fixed_key=True),
            PrfSpec("hmac-sha-256", 32, 5, 4, "sha256", _SHA256, modern=True),
            PrfSpec("hmac-sha-384", 48, 6, 5, "sha384", _SHA384, modern=True),
            PrfSpec("hmac-sha-512", 64, 7, 6, "sha512", _SHA512, modern=True),
        )
    }
)
"""PRFs by their name in a configuration."""

INTEGRITY: Final[Mapping[str, IntegritySpec]] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            IntegritySpec("hmac-md5-96", 16, 12, 1, 1, 2, 1, "IKE_MD5", "MD5", "HMAC-MD5", _MD5),
            IntegritySpec("hmac-sha1-96", 20, 12, 2, 2, 3, 2, "IKE_SHA", "SHA1", "HMAC-SHA1", _SHA1),
            IntegritySpec(
                "hmac-aes-xcbc", 16, 12, None, 9, 9, 5, "AES_XCBC", "AES_XCBC", "AES-XCBC", aes_xcbc_mac
            ),
            IntegritySpec(
                "hmac-sha-256-128",
                32,
                16,
                4,
                5,
                5,
                12,
                "IKE_SHA256",
                "SHA256",
                "HMAC-SHA256",
                _SHA256,
                modern=True,
            ),
            IntegritySpec(
                "hmac-sha-384-192",
                48,
                24,
                5,
                6,
                6,
                13,
                "IKE_SHA384",
                "SHA384",
                "HMAC-SHA384",
                _SHA384,
                modern=True,
            ),
            IntegritySpec(
                "hmac-sha-512-256",
                64,
                32,
                6,
                7,
                7,
                14,
                "IKE_SHA512",
                "SHA512",
                "HMAC-SHA512",
                _SHA512,
                modern=True,
            ),
        )
    }
)
"""Integrity algorithms by their name in a configuration."""

PRFS_V2: Final[Mapping[int, PrfSpec]] = MappingProxyType({spec.v2: spec for spec in PRFS.values()})
INTEGRITY_V2: Final[Mapping[int, IntegritySpec]] = MappingProxyType({spec.v2: spec for spec in INTEGRITY.values()})
INTEGRITY_V1_HASH: Final[Mapping[int, IntegritySpec]] = MappingProxyType(
    {spec.v1_hash: spec for spec in INTEGRITY.values() if spec.v1_hash is not None}
)
INTEGRITY_V1_AUTH: Final[Mapping[int, IntegritySpec]] = MappingProxyType(
    {spec.v1_auth: spec for spec in INTEGRITY.values()}
)
PRFS_V1_HASH: Final[Mapping[int, PrfSpec]] = MappingProxyType(
    {spec.hash_v1: spec for spec in PRFS.values() if spec.hash_v1 is not None}
)
"""By hash of IKEv1: its PRF is the HMAC of the negotiated hash (RFC 2409 4)."""
