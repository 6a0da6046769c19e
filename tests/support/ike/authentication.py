"""Ends of IKE that prove themselves by certificates of one authority, or by a preshared key."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from chassis.bus.records import CertificateRecord
from tests.support.ike import pki
from tests.support.ike.pair import WALL, Ends, Method, Version, other, proposal


@cache
def root() -> pki.Authority:
    return pki.root("Root of all")


@cache
def store(name: str, *, trusted: bool = True, own: bool = True) -> tuple[CertificateRecord, ...]:
    """The PKI store of an end whose certificate vouches for this name, an address or a mail address too.

    Not `trusted`: the certificate is of another authority, which this store alone trusts.
    """
    issuer = root() if trusted else pki.root("Somebody else")
    kind = {"mail": (name,)} if "@" in name else {"addresses": (name,)} if name[-1].isdigit() else {"dns": (name,)}
    leaf = issuer.issue("ours", begins=WALL - pki.YEAR, ends=WALL + pki.YEAR, **kind)  # type: ignore[arg-type]
    found = [CertificateRecord(7, "root", "trusted", pki.pem(issuer.certificate))]
    if own:
        found.append(CertificateRecord(7, "me", "self", pki.pem(leaf)))
        found.append(CertificateRecord(7, "me", "key", pki.key_pem(pki.key("ours"))))
    return tuple(found)


def certified(
    ours: Method = "rsa-signature", theirs: Method = "rsa-signature", *, version: Version = 2, **more: Any
) -> tuple[Ends, Ends]:
    """Both ends, the first of which initiates; `ours` and `theirs` are their methods.

    Their names are in their certificates.
    """
    a = Ends(
        version=version, connection="initiator-only", identity_local="a.example", identity_remote="b.example",
        **more,
    )  # fmt: skip
    return _end(a, ours), _end(replace(other(a), connection="responder-only"), theirs)


def _end(ends: Ends, method: Method) -> Ends:
    certificates = store(ends.identity_local)
    proposals = (proposal(ends.version, authentication=method),)
    return replace(ends, authentication=method, proposals=proposals, certificates=certificates)
