"""Authentication of IKE peers: AUTH of IKEv2 (RFC 7296 2.15, RFC 7427), RSA signatures of IKEv1 (RFC 2409 5.1)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from chassis.ase.ike.crypto.algorithms import PrfSpec

KEY_PAD: Final = b"Key Pad for IKEv2"

_SHA1_RSA: Final = bytes.fromhex("300d06092a864886f70d0101050500")
_SHA256_RSA: Final = bytes.fromhex("300d06092a864886f70d01010b0500")
_SHA384_RSA: Final = bytes.fromhex("300d06092a864886f70d01010c0500")
_SHA512_RSA: Final = bytes.fromhex("300d06092a864886f70d01010d0500")

SIGNATURE_HASHES: Final[Mapping[int, tuple[hashes.HashAlgorithm, bytes]]] = MappingProxyType(
    {
        1: (hashes.SHA1(), _SHA1_RSA),
        2: (hashes.SHA256(), _SHA256_RSA),
        3: (hashes.SHA384(), _SHA384_RSA),
        4: (hashes.SHA512(), _SHA512_RSA),
    }
)
"""By number of SIGNATURE_HASH_ALGORITHMS (RFC 7427 7): the hash, and PKCS #1 1.5 with it in DER (appendix A)."""


def signed_octets(prf: PrfSpec, sk_p: bytes, first_message: bytes, peer_nonce: bytes, id_body: bytes) -> bytes:
    """Return what one end signs: its first message as sent, the peer's nonce, and prf(SK_p, its ID body)."""
    return first_message + peer_nonce + prf.compute(sk_p, id_body)


def psk_auth(prf: PrfSpec, psk: bytes, octets: bytes) -> bytes:
    """Return AUTH by shared key, over `signed_octets`."""
    return prf.compute(prf.compute(psk, KEY_PAD), octets)


def psk_verify(prf: PrfSpec, psk: bytes, octets: bytes, data: bytes) -> bool:
    """Return whether the peer's AUTH by shared key is valid, in constant time."""
    return hmac.compare_digest(psk_auth(prf, psk, octets), data)


def rsa_auth(key: rsa.RSAPrivateKey, octets: bytes) -> bytes:
    """Return AUTH by RSA signature, method 1: PKCS #1 1.5 with SHA-1."""
    return key.sign(octets, padding.PKCS1v15(), hashes.SHA1())


def rsa_verify(key: rsa.RSAPublicKey, octets: bytes, data: bytes) -> bool:
    """Return whether a method 1 signature is valid, with SHA-1 as usual, or with SHA-256 (RFC 7296 3.8)."""
    return _verifies(key, octets, data, hashes.SHA1()) or _verifies(key, octets, data, hashes.SHA256())


def digital_auth(key: rsa.RSAPrivateKey, octets: bytes, number: int) -> bytes:
    """Return the data of AUTH by digital signature, method 14, with hash `number` of SIGNATURE_HASHES.

    Raises:
        ValueError: the key is too short for the hash; one of 512 bits signs with SHA-1 and SHA-256 only.
    """
    algorithm, der = SIGNATURE_HASHES[number]
    return bytes((len(der),)) + der + key.sign(octets, padding.PKCS1v15(), algorithm)


def digital_verify(key: rsa.RSAPublicKey, octets: bytes, data: bytes) -> bool:
    """Return whether a method 14 signature is valid; False for an algorithm that is not in SIGNATURE_HASHES."""
    length = data[0] if data else 0
    der, signature = data[1 : 1 + length], data[1 + length :]
    for algorithm, known in SIGNATURE_HASHES.values():
        if known == der:
            return _verifies(key, octets, signature, algorithm)
    return False


def _verifies(key: rsa.RSAPublicKey, octets: bytes, data: bytes, algorithm: hashes.HashAlgorithm) -> bool:
    try:
        key.verify(data, octets, padding.PKCS1v15(), algorithm)
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def v1_sign(key: rsa.RSAPrivateKey, digest: bytes) -> bytes:
    """Return SIG of HASH_I or HASH_R: PKCS #1 1.5 of the hash alone, without its DER name (RFC 2409 5.1).

    Raises:
        ValueError: the key is too short for the hash; one of 512 bits signs up to 53 octets.
    """
    return key.sign(digest, padding.PKCS1v15(), utils.NoDigestInfo())


def v1_verify(key: rsa.RSAPublicKey, digest: bytes, signature: bytes) -> bool:
    """Return whether a signature of IKEv1 is one of this hash."""
    try:
        found = key.recover_data_from_signature(signature, padding.PKCS1v15(), utils.NoDigestInfo())
    except (InvalidSignature, ValueError):
        return False
    return hmac.compare_digest(found, digest)
