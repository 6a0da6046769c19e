"""Certificates of a context: what is read, what is shown, what is trusted and why not."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chassis.ase.ike.credentials import CertificateError, Credentials
from chassis.ase.ike.identity import IkeIdentity
from chassis.ase.ike.payloads.numbers import IdType
from tests.support.ike import pki

ROOT = pki.root("root")
OTHER = pki.root("other root")
BETWEEN = ROOT.authority("between")
LEAF = ROOT.issue("gw", dns=["gw.example"], mail=["gw@example"], addresses=["10.0.0.1", "2001:db8::1"])
TRUST = Credentials((ROOT.certificate,))


def refusal(*chain: x509.Certificate, trust: Credentials = TRUST, wall: float = pki.NOW) -> str:
    with pytest.raises(CertificateError) as caught:
        trust.verify([pki.der(certificate) for certificate in chain], wall)
    return str(caught.value)


def accepted(*chain: x509.Certificate, trust: Credentials = TRUST, wall: float = pki.NOW) -> bool:
    verified = trust.verify([pki.der(certificate) for certificate in chain], wall)
    return verified.certificate == chain[0]


# --- paths ---


def test_what_a_certificate_vouches_for() -> None:
    verified = TRUST.verify([pki.der(LEAF)], pki.NOW)
    assert verified.certificate == LEAF
    assert verified.public_key == pki.key("gw").public_key()
    assert {(IdType(one.id_type).name, one.data) for one in verified.identities} == {
        ("DER_ASN1_DN", LEAF.subject.public_bytes()),
        ("FQDN", b"gw.example"),
        ("USER_FQDN", b"gw@example"),
        ("IPV4_ADDR", b"\x0a\0\0\1"),
        ("IPV6_ADDR", bytes.fromhex("20010db8000000000000000000000001")),
    }
    for text, carried in (("GW.Example", True), ("10.0.0.1", True), ("10.0.0.2", False), ("gw", False)):
        assert any(one.same(IkeIdentity.of(text)) for one in verified.identities) == carried


def test_a_certificate_without_a_subject_vouches_for_its_other_names() -> None:
    nameless = ROOT.issue("", public=pki.key("gw").public_key(), dns=["gw.example"])
    (only,) = TRUST.verify([pki.der(nameless)], pki.NOW).identities
    assert (only.id_type, only.data) == (IdType.FQDN, b"gw.example")


def test_a_path_through_others_in_any_order() -> None:
    lower = BETWEEN.authority("lower")
    leaf = lower.issue("deep")
    assert accepted(leaf, lower.certificate, BETWEEN.certificate)
    assert accepted(leaf, OTHER.certificate, BETWEEN.certificate, lower.certificate, ROOT.certificate)
    assert refusal(leaf, lower.certificate) == "untrusted issuer CN=lower"
    assert refusal(leaf, trust=Credentials()) == "untrusted issuer CN=lower"
    assert accepted(leaf, lower.certificate, trust=Credentials((BETWEEN.certificate,)))


def test_an_unreadable_certificate_beside_the_path_does_no_harm() -> None:
    leaf = BETWEEN.issue("beside")
    assert TRUST.verify([pki.der(leaf), b"noise", pki.der(BETWEEN.certificate)], pki.NOW)


def test_an_untrusted_issuer() -> None:
    assert refusal(OTHER.issue("gw")) == "untrusted issuer CN=other root"
    assert refusal(OTHER.issue("gw"), OTHER.certificate) == "untrusted issuer CN=other root"


def test_a_false_issuer_of_the_right_name() -> None:
    false = pki.Authority(ROOT.certificate, pki.key("false root"))
    assert refusal(false.issue("gw")) == "bad signature in the certificate of CN=gw"


def test_dates_are_the_operators_to_read() -> None:
    leaf = ROOT.issue("gw", begins=pki.NOW - 100, ends=pki.NOW + 100)
    assert accepted(leaf, wall=pki.NOW - 100)
    assert accepted(leaf, wall=pki.NOW + 100)
    assert refusal(leaf, wall=pki.NOW + 101) == "certificate of CN=gw expired on 2026-06-01 00:01:40 UTC"
    assert refusal(leaf, wall=pki.NOW - 101) == "certificate of CN=gw is not valid before 2026-05-31 23:58:20 UTC"


def test_dates_of_issuers_count() -> None:
    wall = pki.NOW + 2 * pki.YEAR
    leaf = ROOT.issue("gw", ends=pki.NOW + 3 * pki.YEAR)
    assert refusal(leaf, wall=wall).startswith("certificate of CN=root expired on 2027-06-01")
    old = pki.Authority(ROOT.issue("old", ca=True, ends=pki.NOW - 1), pki.key("old"))
    assert refusal(old.issue("gw"), old.certificate).startswith("certificate of CN=old expired on")


def test_a_renewed_issuer_beside_an_expired_one() -> None:
    old = pki.Authority(ROOT.issue("renewed", ca=True, ends=pki.NOW - 1), pki.key("renewed"))
    new = ROOT.issue("renewed", ca=True)
    assert accepted(old.issue("gw"), old.certificate, new)


@pytest.mark.parametrize("usage", ["digital_signature", "content_commitment"])
def test_key_usage_for_signatures(usage: pki.Usage) -> None:
    assert accepted(ROOT.issue("gw", usages=[usage]))


def test_key_usage_for_anything_else() -> None:
    assert refusal(ROOT.issue("gw", usages=["key_encipherment"])) == (
        "key usage of the certificate of CN=gw has neither digitalSignature nor nonRepudiation"
    )


@pytest.mark.parametrize("oid", ["2.5.29.37.0", "1.3.6.1.5.5.7.3.17", "1.3.6.1.5.5.8.2.2"])
def test_extended_key_usage_for_ike(oid: str) -> None:
    assert accepted(ROOT.issue("gw", extended=["1.3.6.1.5.5.7.3.1", oid]))


def test_extended_key_usage_for_the_web_alone() -> None:
    assert "is not for IKE" in refusal(ROOT.issue("gw", extended=["1.3.6.1.5.5.7.3.1"]))


def test_only_a_ca_issues() -> None:
    for flag in (None, False):
        between = ROOT.authority("no ca", ca=flag)
        assert refusal(between.issue("gw"), between.certificate) == "issuer CN=no ca is not a CA"
        anchor = pki.root("no ca root", ca=flag)
        assert "is not a CA" in refusal(anchor.issue("gw"), trust=Credentials((anchor.certificate,)))


def test_an_issuer_needs_key_cert_sign() -> None:
    right = pki.Authority(ROOT.issue("usage ca", ca=True, usages=["key_cert_sign"]), pki.key("usage ca"))
    assert accepted(right.issue("gw"), right.certificate)
    wrong = pki.Authority(ROOT.issue("usage ca", ca=True, usages=["crl_sign"]), pki.key("usage ca"))
    assert refusal(wrong.issue("gw"), wrong.certificate) == "key usage of issuer CN=usage ca lacks keyCertSign"


def test_path_length() -> None:
    short = ROOT.authority("short", path_length=0)
    assert accepted(short.issue("gw"), short.certificate)
    lower = short.authority("below short")
    assert refusal(lower.issue("gw"), lower.certificate, short.certificate) == (
        "path length 0 of CA CN=short is exceeded: 1 CAs are below it"
    )
    anchor = pki.root("short root", path_length=0)
    under = anchor.authority("under short root")
    trust = Credentials((anchor.certificate,))
    assert accepted(anchor.issue("gw"), trust=trust)
    assert "path length 0" in refusal(under.issue("gw"), under.certificate, trust=trust)


def test_name_constraints_and_unknown_critical_extensions_are_refused() -> None:
    constraints = x509.NameConstraints([x509.DNSName("example")], None)
    ca = pki.Authority(ROOT.issue("bound", ca=True, other=[(constraints, False)]), pki.key("bound"))
    assert refusal(ca.issue("gw"), ca.certificate) == "name constraints of CA CN=bound are not supported"
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
    assert accepted(ROOT.issue("gw", other=[(strange, False)]))
    assert refusal(ROOT.issue("gw", other=[(strange, True)])) == (
        "unsupported critical extension 1.2.3.4 in the certificate of CN=gw"
    )


def test_a_peers_own_certificate_may_be_trusted() -> None:
    private = pki.key("alone")
    alone = pki.build("alone", private.public_key(), pki.common_name("alone"), private)
    trust = Credentials((alone,))
    assert accepted(alone, trust=trust)
    assert "expired" in refusal(alone, trust=trust, wall=pki.NOW + 2 * pki.YEAR)
    assert refusal(alone) == "untrusted issuer CN=alone"
    below = pki.Authority(alone, private).issue("below alone")
    assert refusal(below, trust=trust) == "issuer CN=alone is not a CA"


def test_only_rsa_keys() -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    assert "only RSA keys" in refusal(ROOT.issue("gw", public=curve.public_key()))


def test_a_key_of_512_bits_and_signatures_with_sha_1() -> None:
    """As OpenSSL makes them: `genrsa 512`, `req -x509 -sha1`."""
    old = x509.load_pem_x509_certificate(OLD_CERTIFICATE)
    trust = Credentials((old,))
    wall = old.not_valid_before_utc.timestamp()
    assert accepted(old, trust=trust, wall=wall)
    leaf = x509.load_pem_x509_certificate(OLD_LEAF)
    assert trust.verify([pki.der(leaf)], wall + 10).public_key.key_size == 512
    broken = bytearray(pki.der(leaf))
    broken[-1] ^= 1
    with pytest.raises(CertificateError, match="bad signature"):
        trust.verify([bytes(broken)], wall + 10)


def test_a_root_with_serial_number_0_warns_nobody() -> None:
    """Old OpenSSL gave it to every root that signed itself."""
    root = bytearray(pki.der(pki.root("zero").certificate))
    assert root[8:14] == b"\xa0\3\2\1\2\2", "the version, then the serial number's tag and length"
    size = root[14]
    root[13 : 15 + size] = b"\2\1\0"
    for length in (2, 6):
        shorter = int.from_bytes(root[length : length + 2], "big") - size + 1
        root[length : length + 2] = shorter.to_bytes(2, "big")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CertificateError, match="untrusted issuer CN=zero"):
            TRUST.verify([bytes(root)], pki.NOW)


def test_names_in_reasons_are_harmless() -> None:
    text = refusal(OTHER.issue("gw\nforged line", ends=pki.NOW - 1))
    assert text.startswith("certificate of CN=gw\\x0aforged line expired on")
    assert len(refusal(OTHER.issue("long " * 12, ends=pki.NOW - 1))) < 200


# --- bounds ---


def test_bounds() -> None:
    assert refusal() == "no certificate received"
    assert refusal(LEAF, *[ROOT.certificate] * 10) == "11 certificates: at most 10 are accepted"
    with pytest.raises(CertificateError, match="at most 16384"):
        TRUST.verify([bytes(16_385)], pki.NOW)
    for noise in (b"", b"\x30\x03\2\1\1", b"noise", pki.der(LEAF)[:-1], pki.der(LEAF) + b"\0"):
        with pytest.raises(CertificateError, match="malformed"):
            TRUST.verify([noise], pki.NOW)


def test_issuers_that_look_alike_are_tried_in_bounded_number() -> None:
    """Nine issuers of one name that sign one another would make a search of 9! paths."""
    private = pki.key("alike")
    name = pki.common_name("alike")
    alike = [pki.build("alike", private.public_key(), name, private, ca=True) for _ in range(9)]
    leaf = pki.Authority(alike[0], private).issue("gw")
    assert refusal(leaf, *alike) == "no path after 32 signatures"


# --- what a context has ---


def test_a_store_is_read() -> None:
    credentials, problems = Credentials.read(
        pki.records(trusted=[ROOT.certificate, OTHER.certificate], own=[("gw", LEAF, pki.key("gw"))])
    )
    assert problems == []
    assert credentials.trusted == (ROOT.certificate, OTHER.certificate)
    (own,) = credentials.own
    assert (own.name, own.certificate, own.ders) == ("gw", LEAF, (pki.der(LEAF),))
    assert own.key.private_numbers() == pki.key("gw").private_numbers()
    assert credentials.names == (ROOT.certificate.subject.public_bytes(), OTHER.certificate.subject.public_bytes())
    info = ROOT.certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert credentials.key_hashes[0] == hashlib.sha1(info).digest()
    assert len(credentials.key_hashes) == 2


def test_our_certificate_is_chosen_by_the_identity() -> None:
    second = ROOT.issue("second", dns=["second.example"])
    store = pki.records(own=[("a", LEAF, pki.key("gw")), ("b", second, pki.key("second"))])
    credentials, _ = Credentials.read(store)

    def chosen(identity: IkeIdentity) -> str:
        own = credentials.select(identity, pki.NOW)
        assert own is not None
        return own.name

    assert chosen(IkeIdentity.of("second.example")) == "b"
    assert chosen(IkeIdentity.of("10.0.0.1")) == "a"
    assert chosen(IkeIdentity.of("nobody.example")) == "a"
    assert chosen(IkeIdentity(IdType.DER_ASN1_DN, second.subject.public_bytes())) == "b"
    assert Credentials().select(IkeIdentity.of("gw.example"), pki.NOW) is None


def test_of_two_certificates_of_ours_the_valid_one_is_chosen() -> None:
    old = ROOT.issue("gw", dns=["gw.example"], ends=pki.NOW - 1.0)
    new = ROOT.issue("gw", dns=["gw.example"], begins=pki.NOW)
    key = pki.key("gw")
    credentials, _ = Credentials.read(pki.records(own=[("a", old, key), ("b", new, key)]))
    before, now, at_last = (
        credentials.select(IkeIdentity.of("gw.example"), pki.NOW + at) for at in (-10.0, 10.0, 2 * pki.YEAR)
    )
    assert before is not None
    assert now is not None
    assert at_last is not None
    assert (before.name, now.name, at_last.name) == ("a", "b", "a")


def test_intermediates_of_ours_are_shown_without_the_root() -> None:
    lower = BETWEEN.authority("lower")
    leaf = lower.issue("deep")
    one = pki.records(trusted=[ROOT.certificate, BETWEEN.certificate], own=[("deep", leaf, pki.key("deep"))])
    own_file = pki.pem(leaf, lower.certificate)
    store = [replace(record, pem=own_file) if record.kind == "self" else record for record in one]
    credentials, problems = Credentials.read(store)
    assert problems == []
    shown = credentials.own[0].ders
    assert shown == (pki.der(leaf), pki.der(lower.certificate), pki.der(BETWEEN.certificate))
    assert TRUST.verify(shown, pki.NOW).certificate == leaf


def test_a_certificate_that_does_not_fit_its_key_is_refused() -> None:
    store = pki.records(own=[("gw", LEAF, pki.key("another"))])
    credentials, problems = Credentials.read(store)
    assert credentials.own == ()
    assert problems == ["PKI self certificate gw: does not match the key pair of this name"]


def test_a_certificate_without_its_key_is_refused() -> None:
    store = [record for record in pki.records(own=[("gw", LEAF, pki.key("gw"))]) if record.kind != "key"]
    assert Credentials.read(store) == (
        Credentials(),
        ["PKI self certificate gw: there is no key pair of this name"],
    )


def test_files_that_cannot_be_read_are_named_without_what_is_in_them() -> None:
    (trusted,) = pki.records(trusted=[ROOT.certificate])
    secret = pki.key_pem(pki.key("gw"))
    curve = pki.key_pem(ec.generate_private_key(ec.SECP256R1()))
    store = [
        replace(trusted, name="fine"),
        replace(trusted, name="empty", pem=b""),
        replace(trusted, name="is a key", pem=secret),
        replace(trusted, kind="key", name="curve", pem=curve),
        replace(trusted, kind="key", name="cut", pem=secret[:200]),
        replace(trusted, kind="key", name="locked", pem=pki.key_pem(pki.key("gw"), b"password")),
        replace(trusted, kind="self", name="torn", pem=pki.pem(LEAF)[:300]),
    ]
    credentials, problems = Credentials.read(store)
    assert credentials.trusted == (ROOT.certificate,)
    assert problems == [
        "PKI key pair curve: unsupported key: only RSA keys are supported",
        "PKI key pair cut: not a private key in PEM form",
        "PKI key pair locked: the key is encrypted",
        "PKI self certificate torn: not a certificate in PEM form",
        "PKI trusted certificate empty: not a certificate in PEM form",
        "PKI trusted certificate is a key: not a certificate in PEM form",
    ]


def test_a_key_of_512_bits_is_read() -> None:
    (record,) = pki.records(trusted=[ROOT.certificate])
    store = [
        replace(record, kind="key", name="old", pem=OLD_KEY),
        replace(record, kind="self", name="old", pem=OLD_CERTIFICATE),
    ]
    credentials, problems = Credentials.read(store)
    assert problems == []
    assert credentials.own[0].key.key_size == 512


def test_no_key_in_a_repr() -> None:
    store = pki.records(trusted=[ROOT.certificate], own=[("gw", LEAF, pki.key("gw"))])
    credentials, _ = Credentials.read(store)
    assert "RSAPrivateKey" not in repr(credentials)
    assert "PRIVATE" not in repr(store)
    assert str(pki.key("gw").private_numbers().d) not in repr(credentials)


# Made for these tests with `openssl genrsa 512` and `-sha1`: `cryptography` reads them and no longer makes them.
OLD_KEY = b"""\
-----BEGIN RSA PRIVATE KEY-----
MIIBOgIBAAJBALBBspCb8coQ0nL3rW/VelgQAG6VPrfskvtLGi6rJihIIliDM3b3
MQr0z8OlYKYeiOAExUiTJFYqFCe5UpvX4YcCAwEAAQJANUGEjMExy5ZNoENJ+lKM
hvM+zir2Kmim+Jr2rEc2XlD8lER8804Hwl2Gi4GHY40s7fA/mHd8PPnbF5whb4n+
oQIhAOZ9t8WJW7g13xOPeN+cAR0DMu44RT7jQn4NaBMMzvs/AiEAw8NoNExA2+Go
/8CLg2DhWgiNgj8xa3RTU8oEzfOsb7kCICGi3xq4vOXZFsDoAx++yHrPaLNTCufu
ilmS40lEaUBJAiEAgSbZB6/LFoWxPlHkeR+gbQq5eVWBoDfVhbEBLHL3r5kCIGt8
9jCOADwqsujY6Qcu4s8rTxDZPdVzBoYQFiHUqx9m
-----END RSA PRIVATE KEY-----
"""
OLD_CERTIFICATE = b"""\
-----BEGIN CERTIFICATE-----
MIIBczCCAR2gAwIBAgIUBRQYsDRmZKlvtexLQ1HD+PMakaMwDQYJKoZIhvcNAQEF
BQAwDjEMMAoGA1UEAwwDb2xkMB4XDTI2MTEyNDAwMDQ0MVoXDTQ2MTExOTAwMDQ0
MVowDjEMMAoGA1UEAwwDb2xkMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALBBspCb
8coQ0nL3rW/VelgQAG6VPrfskvtLGi6rJihIIliDM3b3MQr0z8OlYKYeiOAExUiT
JFYqFCe5UpvX4YcCAwEAAaNTMFEwHQYDVR0OBBYEFL96zonLI8ULzD7TVpwXl5ku
rQLpMB8GA1UdIwQYMBaAFL96zonLI8ULzD7TVpwXl5kurQLpMA8GA1UdEwEB/wQF
MAMBAf8wDQYJKoZIhvcNAQEFBQADQQBkjrtLGVmie66Gd1gR5j23/MjgfdnSgHds
pO9Iy6CjCwQTWSlWRu3+Tk/tVR0ClbrkH0PZByruc2EmwYcMM9ld
-----END CERTIFICATE-----
"""
OLD_LEAF = b"""\
-----BEGIN CERTIFICATE-----
MIIBCjCBtQIBAjANBgkqhkiG9w0BAQUFADAOMQwwCgYDVQQDDANvbGQwHhcNMjYx
MTI0MDAwNDQxWhcNNDYxMTE5MDAwNDQxWjATMREwDwYDVQQDDAhvbGQtbGVhZjBc
MA0GCSqGSIb3DQEBAQUAA0sAMEgCQQDPXBHXOhwOgT3VpkTwdlPUFtaQ7kdExmnF
SeNAnNKgZQfoBCHK7u6VFAyNa8xQRopWHU2tRvQird5xdrY3M2JZAgMBAAEwDQYJ
KoZIhvcNAQEFBQADQQAF+n36PQKM1BhDlb0OejmXXC8qc3jfnq7F4l6K39/vnzX4
FTj0Zfa3hTjioreLHARvt696Dpm463IGJfHyXFeu
-----END CERTIFICATE-----
"""
