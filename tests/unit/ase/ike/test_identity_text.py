"""Identities as a stranger may send them: whatever the octets, they are shown in one harmless line."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type

from chassis.ase.ike.identity import MAX_SHOWN, IkeIdentity
from chassis.ase.ike.payloads.numbers import IdType
from tests.support.ike import mutation

OIDS = x509.NameOID
NAMES = [
    x509.Name([x509.NameAttribute(OIDS.COUNTRY_NAME, "SE"), x509.NameAttribute(OIDS.COMMON_NAME, "gw",
        _ASN1Type.BMPString), x509.NameAttribute(OIDS.EMAIL_ADDRESS, "gw@example"),
        x509.NameAttribute(OIDS.X500_UNIQUE_IDENTIFIER, b"\0ab", _ASN1Type.BitString)]).public_bytes(),
    b"gw.example",
    bytes(range(256)),
]  # fmt: skip


def test_any_identity_is_shown_in_one_line() -> None:
    for count, data in enumerate(mutation.mutations(11, NAMES, 6000, header=False)):
        kind = count % 12
        shown = str(IkeIdentity(kind, data))
        assert shown.isprintable()
        assert len(shown) <= 4 * MAX_SHOWN + 3


@pytest.mark.parametrize(("kind", "data", "shown"), [
    (IdType.FQDN, b"gw\nforged line", "gw\\x0aforged line"),
    (IdType.KEY_ID, b"\x1b[31mred", "\\x1b[31mred"),
    (IdType.USER_FQDN, b"gw@example", "gw@example"),
    (IdType.FQDN, b"\xff.example", "\\xff.example"),
    (IdType.FQDN, b"a" * 300, "a" * 256 + "..."),
    # a bit string where only a unique identifier may have one
    (IdType.DER_ASN1_DN, bytes.fromhex("300e310c300a06035504030303006162"), "300e310c300a06035504030303006162"),
])  # fmt: skip
def test_how_it_is_shown(kind: int, data: bytes, shown: str) -> None:
    assert str(IkeIdentity(kind, data)) == shown
