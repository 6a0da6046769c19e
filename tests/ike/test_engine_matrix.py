"""Every algorithm of the guide in both versions: two engines establish, and a single difference is told."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pki
import pytest
from engines import WALL, Ends, Two, agree, other, proposal

from chassis.bus.records import Certificate, IpsecProposal

CIPHERS = ("des-cbc", "3des-cbc", "aes-128-cbc", "aes-192-cbc", "aes-256-cbc")
INTEGRITY = ("hmac-md5-96", "hmac-sha1-96")
GROUPS = (1, 2, 5, 14)
PRFS = ("hmac-md5", "hmac-sha1", "aes-128-xcbc")


@pytest.fixture(scope="module")
def stores() -> dict[str, tuple[Certificate, ...]]:
    """PKI stores of two ends whose certificates vouch for their names."""
    root = pki.root("Root of all")
    found = {}
    for name in ("a", "b"):
        leaf = root.issue(f"{name}.example", dns=[f"{name}.example"], begins=WALL - pki.YEAR, ends=WALL + pki.YEAR)
        found[name] = (
            Certificate(7, "root", "trusted", pki.pem(root.certificate)),
            Certificate(7, "me", "self", pki.pem(leaf)),
            Certificate(7, "me", "key", pki.key_pem(pki.key(f"{name}.example"))),
        )
    return found


def named(ends: Ends, stores: dict[str, tuple[Certificate, ...]]) -> tuple[Ends, Ends]:
    """Both ends with certificates and the names in them as identities."""
    a = replace(ends, identity_local="a.example", identity_remote="b.example", certificates=stores["a"])
    return a, replace(other(a), certificates=stores["b"])


def stands(a: Ends, b: Ends, **settings: Any) -> Two:
    two = Two(a, b, **settings)
    assert two.until(lambda: two.a.up() and two.b.up(), 5), (two.a.texts(), two.b.texts())
    assert two.packet(two.a)
    assert two.packet(two.b)
    agree(two)
    return two


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("how", ["psk", "rsa", "mixed"])
def test_version_2(cipher: str, how: str, stores: dict[str, tuple[Certificate, ...]]) -> None:
    for integrity, group, prf, pfs in product(INTEGRITY, GROUPS, PRFS, (False, True)):
        one = proposal(2, cipher=cipher, integrity=integrity, dh_group=group, prf=prf)
        ends = Ends(proposals=(one,), pfs=group if pfs else 0)
        if how == "psk":
            a, b = ends, other(ends)
        else:
            a, b = named(replace(ends, authentication="rsa-signature"), stores)
            if how == "mixed":
                b = replace(b, authentication="pre-shared-key")
        stands(a, b)


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("how", ["pre-shared-key", "rsa-signature"])
@pytest.mark.parametrize("mode", ["main", "aggressive"])
def test_version_1(cipher: str, how: str, mode: str, stores: dict[str, tuple[Certificate, ...]]) -> None:
    for integrity, group, pfs in product(INTEGRITY, GROUPS, (False, True)):
        one = proposal(1, cipher=cipher, integrity=integrity, dh_group=group, authentication=how)
        ends = Ends(version=1, mode=mode, proposals=(one,), pfs=group if pfs else 0, authentication=how)
        stands(*((ends, other(ends)) if how == "pre-shared-key" else named(ends, stores)))


@pytest.mark.parametrize("version", [1, 2])
def test_every_suite_of_a_pair(version: int) -> None:
    esp = list(product((*CIPHERS, "null"), ("hmac-md5-96", "hmac-sha1-96", "hmac-aes-xcbc", "")))
    esp.remove(("null", ""))
    suites = [IpsecProposal("child", False, "", cipher, integrity, 86400) for cipher, integrity in esp]
    suites += [IpsecProposal("child", False, ah, "", "", 86400) for ah in ("hmac-md5-96", "hmac-sha1-96")]
    suites += [
        IpsecProposal("child", False, "hmac-aes-xcbc", "", "", 86400),
        IpsecProposal("child", False, "hmac-sha1-96", "aes-256-cbc", "hmac-md5-96", 86400),
        IpsecProposal("child", True, "", "3des-cbc", "hmac-sha1-96", 86400),
        IpsecProposal("child", True, "hmac-md5-96", "aes-128-cbc", "", 86400),
    ]
    for suite, esn in product(suites, (False, True)):
        ends = Ends(version=version, suites=(suite,), esn=esn)
        two = stands(ends, other(ends))
        pair = two.a.sender()
        assert pair is not None
        keys = pair.outbound
        assert (keys.ah_integrity, keys.esp_cipher if keys.esp_spi else "", keys.esp_integrity) == (
            suite.ah,
            suite.esp_cipher,
            suite.esp_integrity,
        )
        assert pair.esn == esn
        assert bool(pair.cpi_out) == suite.ip_comp


MISMATCHES_2 = {
    "cipher": ({"cipher": "3des-cbc"}, {}, ""),
    "integrity": ({"integrity": "hmac-md5-96"}, {}, ""),
    "group": ({"dh_group": 5}, {}, ""),
    "prf": ({"prf": "hmac-md5"}, {}, ""),
    "key": ({}, {"psk": b"another"}, ""),
    "identity": ({}, {"identity_local": "c.example"}, ""),
    "pfs": ({}, {"pfs": 2}, "ikev2-mismatch-pfs-group"),
    "esn": ({}, {"esn": True}, "ikev2-mismatch-esn"),
}


@pytest.mark.parametrize("what", MISMATCHES_2)
def test_one_difference_of_version_2(what: str) -> None:
    changed, values, row = MISMATCHES_2[what]
    ends = Ends(identity_local="a.example", identity_remote="b.example", connection="initiator-only")
    answering = replace(other(ends), connection="responder-only")
    two = Two(ends, replace(answering, proposals=(proposal(2, **changed),), **values))
    two.run(6)
    if what == "pfs":
        # The first pair is made without an exchange of its own: only its successor could differ.
        assert two.ask(two.a, "rekey").result == {"begun": 1}
        two.run(3)
        assert row in two.a.rows() + two.b.rows()
        return
    assert not two.a.up()
    assert not two.b.up()
    assert not two.a.pairs
    assert not two.b.pairs
    assert "negotiating" not in two.a.states[5].reason, two.a.states[5]
    assert two.a.logs
    assert two.b.logs or what == "identity", "the initiator alone sees that the answer comes from somebody else"
    if row:
        assert row in two.b.rows()


def child(ah: str, cipher: str, integrity: str) -> IpsecProposal:
    return IpsecProposal("child", False, ah, cipher, integrity, 86400)


@pytest.mark.parametrize(
    ("one", "another", "row"),
    [
        (
            child("", "aes-128-cbc", "hmac-sha1-96"),
            child("", "3des-cbc", "hmac-sha1-96"),
            "ikev2-mismatch-esp-encr",
        ),
        (child("hmac-sha1-96", "", ""), child("hmac-md5-96", "", ""), "ikev2-mismatch-ah-auth"),
        (
            child("", "aes-128-cbc", "hmac-sha1-96"),
            child("hmac-sha1-96", "aes-128-cbc", "hmac-sha1-96"),
            "ikev2-mismatch-protocol-count",
        ),
    ],
)
def test_pairs_of_version_2_that_differ(one: IpsecProposal, another: IpsecProposal, row: str) -> None:
    ends = Ends(connection="initiator-only", suites=(one,))
    two = Two(ends, replace(other(ends), connection="responder-only", suites=(another,)))
    two.run(6)
    assert not two.a.pairs
    assert not two.b.pairs
    assert "negotiating" not in two.a.states[5].reason
    assert row in two.b.rows(), two.b.texts()


MISMATCHES_1 = {
    "cipher": ({"cipher": "3des-cbc"}, {}, "ikev1-p1-encr-alg-mismatch"),
    "integrity": ({"integrity": "hmac-md5-96"}, {}, "ikev1-p1-auth-alg-mismatch"),
    "group": ({"dh_group": 5}, {}, "ikev1-p1-dh-group-mismatch"),
    "lifetime": ({"lifetime": 3600}, {}, ""),
    "key": ({}, {"psk": b"another"}, ""),
    "mode": ({}, {"mode": "aggressive"}, "ikev1-p1-xchange-type-mismatch"),
    "identity": ({}, {"identity_local": "c.example"}, ""),
    "pfs": ({}, {"pfs": 2}, "ikev1-p2-dh-group-mismatch"),
    "suite": (
        {},
        {"suites": (IpsecProposal("child", False, "", "3des-cbc", "hmac-sha1-96", 86400),)},
        "ikev1-p2-encr-alg-mismatch",
    ),
    "authentication": (
        {},
        {"suites": (IpsecProposal("child", False, "", "aes-128-cbc", "hmac-md5-96", 86400),)},
        "ikev1-p2-auth-alg-mismatch",
    ),
}


@pytest.mark.parametrize("what", MISMATCHES_1)
def test_one_difference_of_version_1(what: str) -> None:
    changed, values, row = MISMATCHES_1[what]
    ends = Ends(version=1, identity_local="a.example", identity_remote="b.example", connection="initiator-only")
    answering = replace(other(ends), connection="responder-only")
    two = Two(ends, replace(answering, proposals=(proposal(1, **changed),), **values))
    two.run(6)
    assert not two.a.up()
    assert not two.b.up()
    assert not two.a.pairs
    assert not two.b.pairs
    assert two.b.logs or what == "identity", "the initiator alone sees that the answer comes from somebody else"
    if row:
        assert row in two.b.rows(), two.b.texts()


@pytest.mark.parametrize("connection", ["initiator-only", "responder-only"])
@pytest.mark.parametrize("version", [1, 2])
def test_two_of_one_kind_never_come_up(version: int, connection: str) -> None:
    ends = Ends(version=version, connection=connection)
    two = Two(ends, other(ends))
    two.run(120)
    assert not two.a.up()
    assert not two.b.up()
    if connection == "responder-only":
        assert not two.a.sent
        assert not two.b.sent


def test_versions_do_not_mix() -> None:
    ends = Ends()
    two = Two(ends, replace(other(ends), version=1))
    two.run(20)
    assert not two.a.up()
    assert not two.b.up()
    assert any("IKEv1 is configured" in text for text in two.b.texts())
