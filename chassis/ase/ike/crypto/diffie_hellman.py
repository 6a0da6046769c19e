"""Diffie-Hellman groups: MODP 1, 2, 5, 14 to 18 (RFC 2409, 3526), ECP 19 to 21 (RFC 5903), curve25519 (RFC 8031).

The primes are computed from the formula that their RFCs define them by. Modular exponentiation is
GMP's constant-time one: python's own `pow` leaks the exponent through its timing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Final, Protocol

import gmpy2
from cryptography.exceptions import InternalError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519


class GroupError(ValueError):
    """The peer's public value is not one of the group, or not allowed."""


class DhGroup(Protocol):
    """One Diffie-Hellman group. Values are octets as on the wire, of fixed length."""

    @property
    def number(self) -> int: ...

    @property
    def modern(self) -> bool: ...

    @property
    def public_octets(self) -> int: ...

    @property
    def random_octets(self) -> int:
        """Length (octets) of the `entropy` of `private`."""

    def private(self, entropy: bytes) -> DhKeyPair:
        """Return a key pair made from `random_octets` random octets.

        Raises:
            ValueError: `entropy` has another length.
        """

    def shared(self, pair: DhKeyPair, public: bytes) -> bytes:
        """Return the shared secret with the peer's public value.

        Raises:
            GroupError: the value is not allowed.
        """


@dataclass(frozen=True, slots=True)
class DhKeyPair:
    """Our key pair of one exchange; `repr` does not show `secret`."""

    group: int
    public: bytes
    secret: int = field(repr=False)


@cache
def prime(bits: int, k: int) -> gmpy2.mpz:
    """Return 2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) * pi] + k) (RFC 2409 6.1, RFC 3526 2 to 7)."""
    with gmpy2.context(precision=bits + 64):
        pi = gmpy2.mpz(gmpy2.floor(gmpy2.mul_2exp(gmpy2.const_pi(), bits - 130)))
    one = gmpy2.mpz(1)
    return (one << bits) - (one << (bits - 64)) - 1 + ((pi + k) << 64)


@dataclass(frozen=True, slots=True)
class Modp:
    """A MODP group with generator 2; `exponent_bits` is twice its strength (RFC 3526 8)."""

    number: int
    bits: int
    k: int
    exponent_bits: int
    modern: bool = False

    @property
    def public_octets(self) -> int:
        return self.bits // 8

    @property
    def random_octets(self) -> int:
        return self.exponent_bits // 8

    @property
    def p(self) -> gmpy2.mpz:
        return prime(self.bits, self.k)

    def private(self, entropy: bytes) -> DhKeyPair:
        if len(entropy) != self.random_octets:
            raise ValueError(f"group {self.number} needs {self.random_octets} random octets, not {len(entropy)}")
        secret = int.from_bytes(entropy, "big") | 1 << (self.exponent_bits - 1)
        public = int(gmpy2.powmod_sec(2, secret, self.p))
        return DhKeyPair(self.number, public.to_bytes(self.public_octets, "big"), secret)

    def shared(self, pair: DhKeyPair, public: bytes) -> bytes:
        if len(public) != self.public_octets:
            raise GroupError(f"group {self.number}: public value of {len(public)} octets")
        value = int.from_bytes(public, "big")
        p = self.p
        if not 1 < value < p - 1:
            raise GroupError(f"group {self.number}: public value out of range")
        return int(gmpy2.powmod_sec(value, pair.secret, p)).to_bytes(self.public_octets, "big")


@dataclass(frozen=True, slots=True)
class Ecp:
    """A NIST curve: the public value is x and y, the secret is x alone (RFC 5903 7)."""

    number: int
    curve: ec.EllipticCurve
    order: int
    modern: bool = True

    @property
    def _octets(self) -> int:
        return (self.curve.key_size + 7) // 8

    @property
    def public_octets(self) -> int:
        return 2 * self._octets

    @property
    def random_octets(self) -> int:
        """64 bits more than the order, so that the remainder has almost no bias (FIPS 186-4 B.4.1)."""
        return self._octets + 8

    def private(self, entropy: bytes) -> DhKeyPair:
        if len(entropy) != self.random_octets:
            raise ValueError(f"group {self.number} needs {self.random_octets} random octets, not {len(entropy)}")
        secret = int.from_bytes(entropy, "big") % (self.order - 1) + 1
        key = ec.derive_private_key(secret, self.curve)
        point = key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        return DhKeyPair(self.number, point[1:], secret)

    def shared(self, pair: DhKeyPair, public: bytes) -> bytes:
        if len(public) != self.public_octets:
            raise GroupError(f"group {self.number}: public value of {len(public)} octets")
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(self.curve, b"\x04" + public)
            return ec.derive_private_key(pair.secret, self.curve).exchange(ec.ECDH(), point)
        except (ValueError, InternalError) as error:
            raise GroupError(f"group {self.number}: public value is not on the curve") from error


@dataclass(frozen=True, slots=True)
class X25519:
    """curve25519 (RFC 7748, RFC 8031)."""

    number: int = 31
    modern: bool = True

    @property
    def public_octets(self) -> int:
        return 32

    @property
    def random_octets(self) -> int:
        return 32

    def private(self, entropy: bytes) -> DhKeyPair:
        if len(entropy) != 32:
            raise ValueError(f"group 31 needs 32 random octets, not {len(entropy)}")
        key = x25519.X25519PrivateKey.from_private_bytes(entropy)
        return DhKeyPair(31, key.public_key().public_bytes_raw(), int.from_bytes(entropy, "little"))

    def shared(self, pair: DhKeyPair, public: bytes) -> bytes:
        if len(public) != 32:
            raise GroupError(f"group 31: public value of {len(public)} octets")
        key = x25519.X25519PrivateKey.from_private_bytes(pair.secret.to_bytes(32, "little"))
        try:
            return key.exchange(x25519.X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise GroupError("group 31: public value of small order") from error


_P256: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_P384: Final = (1 << 384) - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D
_P521: Final = (1 << 521) - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7

GROUPS: Final[Mapping[int, DhGroup]] = MappingProxyType(
    {
        group.number: group
        for group in (
            Modp(1, 768, 149_686, 160),
            Modp(2, 1024, 129_093, 160),
            Modp(5, 1536, 741_804, 240),
            Modp(14, 2048, 124_476, 320),
            Modp(15, 3072, 1_690_314, 424, modern=True),
            Modp(16, 4096, 240_904, 480, modern=True),
            Modp(17, 6144, 929_484, 544, modern=True),
            Modp(18, 8192, 4_743_158, 624, modern=True),
            Ecp(19, ec.SECP256R1(), _P256),
            Ecp(20, ec.SECP384R1(), _P384),
            Ecp(21, ec.SECP521R1(), _P521),
            X25519(),
        )
    }
)
"""Groups by their number, which is the same in both versions; `modern` ones need a lab's option."""
