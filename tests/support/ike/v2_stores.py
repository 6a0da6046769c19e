"""PKI stores of two ends of IKEv2 in memory, in which a certificate is just a name."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa

from chassis.ase.ike.credentials import CertificateError
from chassis.ase.ike.identity import Identity
from tests.support.ike.v2_pair import A, B, connection


@cache
def key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024 + 64 * number)


@dataclass(frozen=True)
class Shown:
    ders: tuple[bytes, ...]
    key: rsa.RSAPrivateKey = field(repr=False)


@dataclass(frozen=True)
class Known:
    public_key: rsa.RSAPublicKey
    identities: tuple[Identity, ...]


@dataclass(frozen=True)
class Store:
    """A store in which a certificate is just a name: `trusted` by it, `own` by identity."""

    number: int
    names: tuple[Identity, ...] = ()
    size: int = 600

    @property
    def key_hashes(self) -> tuple[bytes, ...]:
        return (bytes(20),)

    def select(self, identity: Identity) -> Shown | None:
        return (
            Shown((bytes((self.number,)) * self.size, bytes(self.size)), key(self.number)) if self.number else None
        )

    def verify(self, ders: tuple[bytes, ...], wall: float) -> Known:
        assert wall > 1_600_000_000
        number = ders[0][0]
        if number > 2:
            raise CertificateError("its issuer is not trusted")
        return Known(key(number).public_key(), self.names)


RSA = {"authentication": "rsa-signature"}


def ends(ours: str, theirs: str, **policy: object) -> tuple[object, object]:
    """Two connections of which each goes its own way: `rsa` or `psk`."""
    a = connection(
        A,
        B,
        policy={**(RSA if ours == "rsa" else {}), **policy},
        credentials=Store(1, (Identity.address(B),)),
        psk=b"k" if "psk" in (ours, theirs) else None,
    )
    b = connection(
        B,
        A,
        policy={**(RSA if theirs == "rsa" else {}), **policy},
        credentials=Store(2, (Identity.address(A),)),
        psk=b"k" if "psk" in (ours, theirs) else None,
    )
    return a, b
