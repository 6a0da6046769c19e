"""Every algorithm of the guide in both versions: two engines establish, and a single difference is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import pytest

from chassis.ase.ike import credentials
from chassis.ase.ike.crypto.diffie_hellman import GROUPS as EXCHANGES
from chassis.ase.ike.payloads.numbers import ExchangeType
from chassis.bus.records import CertificateRecord
from tests.support.ike import pki
from tests.support.ike.pair import WALL, End, Ends, EnginePair, agree, esp, other, proposal

CIPHERS = ("des-cbc", "3des-cbc", "aes-128-cbc", "aes-192-cbc", "aes-256-cbc")
INTEGRITY = ("hmac-md5-96", "hmac-sha1-96")
GROUPS = (1, 2, 5, 14)
PRFS = ("hmac-md5", "hmac-sha1", "aes-128-xcbc")
HOWS = ("psk", "rsa", "mixed")


@pytest.fixture(scope="module", autouse=True)
def keys_read_once() -> Iterator[None]:
    """The check of a key pair takes longer than a set-up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(credentials, "_key", cache(credentials._key))
        yield


@pytest.fixture(scope="module")
def stores() -> dict[str, tuple[CertificateRecord, ...]]:
    """PKI stores of two ends whose certificates vouch for their names."""
    root = pki.root("Root of all")
    found = {}
    for name in ("a", "b"):
        leaf = root.issue(f"{name}.example", dns=[f"{name}.example"], begins=WALL - pki.YEAR, ends=WALL + pki.YEAR)
        found[name] = (
            CertificateRecord(7, "root", "trusted", pki.pem(root.certificate)),
            CertificateRecord(7, "me", "self", pki.pem(leaf)),
            CertificateRecord(7, "me", "key", pki.key_pem(pki.key(f"{name}.example"))),
        )
    return found


def named(ends: Ends, stores: dict[str, tuple[CertificateRecord, ...]]) -> tuple[Ends, Ends]:
    """Both ends with certificates and the names in them as identities."""
    a = replace(ends, identity_local="a.example", identity_remote="b.example", certificates=stores["a"])
    return a, replace(other(a), certificates=stores["b"])


def stands(a: Ends, b: Ends, **settings: Any) -> EnginePair:
    two = EnginePair(a, b, **settings)
    assert two.until(lambda: two.a.up() and two.b.up(), 5), (two.a.texts(), two.b.texts())
    assert two.packet(two.a)
    assert two.packet(two.b)
    agree(two)
    return two


def agreed(end: End) -> dict[str, Any]:
    """The algorithms of the one IKE SA of an end."""
    (row,) = end.replies[-1].result["tunnels"]
    (ike,) = row["ike"]
    return dict(ike["algorithms"])


def succeeded(two: EnginePair, exchange: ExchangeType) -> int:
    """Octets of the message with which a asks for a successor of its pair, which then sends and receives."""
    first = two.a.sender()
    two.a.sent.clear()
    assert two.ask(two.a, "rekey").result == {"begun": 1}
    assert two.until(lambda: two.a.sender() is not first, 2), two.a.texts()
    assert two.packet(two.a)
    assert two.packet(two.b)
    return next(len(packet.data) for packet in two.a.sent if packet.data[18] == exchange)


def with_and_without_pfs(a: Ends, b: Ends, expected: dict[str, Any]) -> None:
    """Both establish and make a successor of the pair, and only with PFS a public value goes with it. In version 2
    the first pair has no exchange of its own: its successor is what differs."""
    version, group = a.version, expected["group"]
    exchange = ExchangeType.QUICK_MODE if version == 1 else ExchangeType.CREATE_CHILD_SA
    octets = []
    for pfs in (0, group):
        two = stands(replace(a, pfs=pfs), replace(b, pfs=pfs))
        for end in (two.a, two.b):
            two.ask(end, "sas")
            assert agreed(end) == expected
        octets.append(succeeded(two, exchange))
    public = EXCHANGES[group].public_octets
    assert public <= octets[1] - octets[0] < public + 48


@pytest.mark.behaviour("B-027", "B-048", "B-049", "B-114")
@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("how", HOWS)
def test_version_2(cipher: str, how: str, stores: dict[str, tuple[CertificateRecord, ...]]) -> None:
    """The groups take turns: each meets every cipher, and every integrity algorithm with every PRF."""
    turn = CIPHERS.index(cipher) + HOWS.index(how)
    for number, (integrity, prf) in enumerate(product(INTEGRITY, PRFS)):
        group = GROUPS[(number + turn) % len(GROUPS)]
        one = proposal(2, cipher=cipher, integrity=integrity, dh_group=group, prf=prf)
        ends = Ends(proposals=(one,))
        if how == "psk":
            a, b = ends, other(ends)
        else:
            a, b = named(replace(ends, authentication="rsa-signature"), stores)
            if how == "mixed":
                b = replace(b, authentication="pre-shared-key")
        with_and_without_pfs(a, b, {"cipher": cipher, "integrity": integrity, "group": group, "prf": prf})


@pytest.mark.behaviour("B-031")
@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("how", ["pre-shared-key", "rsa-signature"])
@pytest.mark.parametrize("mode", ["main", "aggressive"])
def test_version_1(cipher: str, how: str, mode: str, stores: dict[str, tuple[CertificateRecord, ...]]) -> None:
    """Its PRF is the hash of its integrity algorithm (RFC 2409, 4). Every second pair of integrity algorithm and
    group; the others with the next cipher."""
    turn = CIPHERS.index(cipher) + (how == "rsa-signature") + (mode == "main")
    for integrity, group in list(product(INTEGRITY, GROUPS))[turn % 2 :: 2]:
        one = proposal(1, cipher=cipher, integrity=integrity, dh_group=group, authentication=how)
        ends = Ends(version=1, mode=mode, proposals=(one,), authentication=how)
        a, b = (ends, other(ends)) if how == "pre-shared-key" else named(ends, stores)
        expected = {"cipher": cipher, "integrity": integrity, "group": group, "authentication": how}
        with_and_without_pfs(a, b, expected)


@pytest.mark.behaviour("B-104")
@pytest.mark.parametrize("version", [1, 2])
def test_every_suite_of_a_pair(version: int) -> None:
    found = list(product((*CIPHERS, "null"), ("hmac-md5-96", "hmac-sha1-96", "hmac-aes-xcbc", "")))
    found.remove(("null", ""))
    suites = [esp("", cipher, integrity) for cipher, integrity in found]
    suites += [esp(ah, "", "") for ah in ("hmac-md5-96", "hmac-sha1-96")]
    suites += [
        esp("hmac-aes-xcbc", "", ""),
        esp("hmac-sha1-96", "aes-256-cbc", "hmac-md5-96"),
        esp("", "3des-cbc", "hmac-sha1-96", ip_comp=True),
        esp("hmac-md5-96", "aes-128-cbc", "", ip_comp=True),
    ]
    for suite, esn in product(suites, (False, True)):
        ends = Ends(version=version, suites=(suite,), esn=esn)
        two = stands(ends, other(ends))
        pair = two.a.sender()
        assert pair is not None
        keys = pair.outbound
        assert (keys.ah_integrity, keys.esp_cipher if keys.esp_spi else "", keys.esp_integrity) == (
            suite.ah or "",
            suite.esp_cipher or "",
            suite.esp_integrity or "",
        )
        assert pair.esn == esn
        assert bool(pair.cpi_out) == suite.ip_comp


def no_pair(two: EnginePair) -> None:
    """Neither a pair nor an SPI that one would have. An IKE SA may stand without (RFC 7296 1.3.1)."""
    for end in (two.a, two.b):
        assert not end.up()
        assert not end.pairs
        assert not end.ike.ike_sa_manager.spis_held


def nothing_left(two: EnginePair) -> None:
    """No pair, and after a while of peace nothing half open either."""
    no_pair(two)
    two.trouble = lambda *_: ()
    # Only the initiator begins again, and is not heard: what the responder held for it runs out.
    two.run(60)
    assert not two.b.ike.ike_sa_manager.table.half_open
    assert not two.b.ike.ike_sa_manager.table.by_spi


Refused = tuple[dict[str, Any], dict[str, Any], str, str, str]
"""(changes of b's proposal, changes of b's end, who sees it, its line, the notification that the other gets)"""

MISMATCHES_2: dict[str, Refused] = {
    "cipher": ({"cipher": "3des-cbc"}, {}, "b", "no IKE proposal fits: cipher AES-128 received, 3DES configured",
        "NO_PROPOSAL_CHOSEN"),
    "integrity": ({"integrity": "hmac-md5-96"}, {}, "b",
        "no IKE proposal fits: integrity HMAC-SHA1 received, HMAC-MD5 configured", "NO_PROPOSAL_CHOSEN"),
    "group": ({"dh_group": 5}, {}, "b", "no IKE proposal fits: group 1 received, 5 configured",
        "NO_PROPOSAL_CHOSEN"),
    "prf": ({"prf": "hmac-md5"}, {}, "b", "no IKE proposal fits: prf 2 received, 1 configured",
        "NO_PROPOSAL_CHOSEN"),
    "key": ({}, {"psk": b"another"}, "b", "AUTH of peer a.example is wrong: the preshared keys differ",
        "AUTHENTICATION_FAILED"),
    "identity of the initiator": ({}, {"identity_remote": "c.example"}, "b", "a.example", "AUTHENTICATION_FAILED"),
    "identity of the responder": ({}, {"identity_local": "c.example"}, "a",
        "the peer calls itself c.example, expected is b.example", ""),
    "esn": ({}, {"esn": True}, "b", "MISMATCHED_ESN:0 configured:1 in PROPOSAL_1", "NO_PROPOSAL_CHOSEN"),
}  # fmt: skip


def differing(version: int, changed: dict[str, Any], values: dict[str, Any], mode: str = "main") -> EnginePair:
    """An initiator, and a responder that differs in this; 6 seconds later."""
    ends = Ends(
        version=version, mode=mode, identity_local="a.example", identity_remote="b.example",
        connection="initiator-only",
    )  # fmt: skip
    answering = replace(other(ends), connection="responder-only", proposals=(proposal(version, **changed),))
    two = EnginePair(ends, replace(answering, **values))
    two.run(6)
    return two


@pytest.mark.behaviour("B-027", "B-039", "B-040")
@pytest.mark.parametrize("what", MISMATCHES_2)
def test_one_difference_of_version_2(what: str) -> None:
    changed, values, who, line, notify = MISMATCHES_2[what]
    two = differing(2, changed, values)
    sees, told = (two.b, two.a) if who == "b" else (two.a, two.b)
    assert any(line in text for text in sees.texts()), sees.texts()
    assert "negotiating" not in two.a.states[5].reason, two.a.states[5]
    if notify:
        assert any(notify in text for text in told.texts()), told.texts()
        assert notify in told.states[5].reason
    else:
        # The responder holds the IKE SA for established: it is deleted (RFC 7296 2.21.2).
        assert told.states[5].reason == "deleted by the peer"
    if what == "esn":
        no_pair(two)
    else:
        nothing_left(two)


@pytest.mark.behaviour("B-035")
@pytest.mark.parametrize(("ours", "theirs"), [(0, 2), (2, 0), (5, 2)])
def test_pfs_that_differs_in_version_2(ours: int, theirs: int) -> None:
    """The first pair stands; its successor is refused, and what there is goes on."""
    ends = Ends(pfs=ours, connection="initiator-only")
    two = stands(ends, replace(other(ends), pfs=theirs, connection="responder-only"))
    assert two.ask(two.a, "rekey").result == {"begun": 1}
    two.run(3)
    line = f"MISMATCHED_PFS_GROUP RECEIVED:{ours} configured:{theirs} in PROPOSAL_1"
    assert ("ikev2-mismatch-pfs-group", line) in [(record.id, record.text) for record in two.b.logs]
    assert any("NO_PROPOSAL_CHOSEN" in text for text in two.a.texts()), two.a.texts()
    assert len(two.a.pairs) == 1
    assert two.packet(two.a)
    assert two.packet(two.b)
    agree(two)


@pytest.mark.behaviour("B-032", "B-033")
@pytest.mark.parametrize("connection", ["initiator-only", "responder-only"])
@pytest.mark.parametrize("version", [1, 2])
def test_two_of_one_kind_never_come_up(version: int, connection: str) -> None:
    ends = Ends(version=version, connection=connection)
    two = EnginePair(ends, other(ends))
    two.run(120)
    assert not two.a.up()
    assert not two.b.up()
    if connection == "responder-only":
        assert not two.a.sent
        assert not two.b.sent


@pytest.mark.behaviour("B-002")
def test_versions_do_not_mix() -> None:
    ends = Ends()
    two = EnginePair(ends, replace(other(ends), version=1))
    two.run(20)
    assert not two.a.up()
    assert not two.b.up()
    assert any("IKEv1 is configured" in text for text in two.b.texts())
