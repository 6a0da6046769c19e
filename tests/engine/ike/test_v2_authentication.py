"""Who the ends are, by certificates, keys and identities; most of it is of IKEv2."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.ase.ike import child_proposals
from chassis.ase.ike.identity import IkeIdentity
from chassis.ase.ike.payloads.v2_payloads import IdV2
from chassis.ase.ike.v2 import create_child_sa
from tests.support.ike.authentication import certified, store
from tests.support.ike.pair import Ends, EnginePair, other, settled

METHODS = ["rsa-signature", "pre-shared-key"]


def up(a: Ends, b: Ends) -> EnginePair:
    two = EnginePair(a, b)
    two.run(3)
    settled(two)
    return two


def refused(a: Ends, b: Ends) -> EnginePair:
    two = EnginePair(a, b)
    two.run(0.5)
    for end in (two.a, two.b):
        assert not end.pairs
        assert not end.up()
    return two


@pytest.mark.behaviour("B-049")
@pytest.mark.parametrize("ours", METHODS)
@pytest.mark.parametrize("theirs", METHODS)
@pytest.mark.parametrize("validate", [False, True])
def test_each_end_proves_itself_its_own_way(ours: str, theirs: str, validate: bool) -> None:
    up(*certified(ours, theirs, validate=validate))


@pytest.mark.parametrize("mode", ["main", "aggressive"])
@pytest.mark.parametrize("validate", [False, True])
def test_signatures_of_version_1(mode: str, validate: bool) -> None:
    two = up(*certified(version=1, mode=mode, validate=validate))
    assert str(two.a.session.peer_identity) == "b.example"
    assert not [row for end in (two.a, two.b) for row in end.rows() if "mism" in row or "cert" in row]


def test_without_hash_algorithms_the_old_signature_is_made() -> None:
    two = EnginePair(*certified())
    while not two.a.sessions or two.a.sessions[0].keymat is None:
        two.run(0.001)
    for end in (two.a, two.b):
        end.sessions[0].signature_hashes = ()
    two.run(3)
    settled(two)


@pytest.mark.parametrize("version", [1, 2])
def test_an_untrusted_certificate_is_refused(version: int) -> None:
    a, b = certified(version=version)
    two = refused(replace(a, certificates=store("a.example", trusted=False)), b)
    assert two.b.says("untrusted issuer CN=Somebody else")


@pytest.mark.parametrize("judge", ["initiator", "responder"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.behaviour("B-045")
@pytest.mark.parametrize("validate", [False, True])
def test_a_certificate_of_another_identity_counts_only_by_rsa_signature_without_validation(
    judge: str, method: str, validate: bool
) -> None:
    """A trusted certificate, but somebody else's: the policy of the end that judges says what becomes of it."""
    a, b = certified(method, validate=validate)
    b = replace(b, certificates=store("mallory.example"))
    if judge == "responder":
        a, b = replace(a, connection=b.connection), replace(b, connection=a.connection)
    if method == "pre-shared-key" or validate:
        two = refused(a, b)
        assert two.a.says("the certificate of the peer does not carry identity b.example")
    else:
        up(a, b)


@pytest.mark.parametrize("name", ["mallory.example", "a.example"])
def test_without_the_preshared_key_only_the_certificate_of_the_peer_itself_comes_in(name: str) -> None:
    """Every certificate here is of an authority that the context trusts.

    End a believes the key of the end that it calls, which may be anybody's: what it lacks is its own proof.
    """
    a, b = certified(theirs="pre-shared-key")
    a = replace(a, certificates=store(name))
    if name == "a.example":
        up(a, b)
    else:
        assert refused(a, b).b.says("the certificate of the peer does not carry identity a.example")


class OddId(IdV2):
    """An ID payload whose RESERVED octets are not zero."""

    def emit(self) -> bytes:
        return bytes((self.id_type, 1, 2, 3)) + self.data


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("odd", ["initiator", "responder"])
def test_an_identity_is_proved_by_its_octets_as_they_came(
    odd: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reserved octets are ignored (RFC 7296 2.5), and AUTH covers them (2.15)."""
    name = b"a.example" if odd == "initiator" else b"b.example"
    right = IkeIdentity.v2

    def v2(identity: IkeIdentity, kind: int) -> IdV2:
        plain = right(identity, kind)
        return OddId(plain.type, plain.id_type, plain.data) if plain.data == name else plain

    monkeypatch.setattr(IkeIdentity, "v2", v2)
    up(*certified(method, method))


def test_no_certificate_to_show() -> None:
    a, b = certified(theirs="pre-shared-key")
    two = refused(replace(a, certificates=store("a.example", own=False)), b)
    assert two.a.says("no certificate with a key")


def test_a_peer_that_names_a_group_in_ike_auth_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's line about PFS groups is not for it: there is none to agree on yet (RFC 7296 1.2)."""
    monkeypatch.setattr(
        create_child_sa,
        "offer_v2",
        lambda ours, spis, *, with_group: child_proposals.offer_v2(ours, spis, with_group=True),
    )
    ends = Ends(pfs=5)
    two = up(ends, replace(other(ends), pfs=2))
    assert not two.a.rows()
    assert not two.b.rows()
