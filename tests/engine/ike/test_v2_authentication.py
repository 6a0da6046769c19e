"""IKEv2 and who the ends are: certificates, keys, identities, and the first proposal of a pair in IKE_AUTH."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.ase.ike import child_proposals
from chassis.ase.ike.identity import Identity
from chassis.ase.ike.payloads.v2_payloads import IdV2
from chassis.ase.ike.v2 import create_child_sa
from tests.support.ike import pki
from tests.support.ike.pair import WALL, Ends, Two, other
from tests.support.ike.v2_pair import A, Net, both, line, suite
from tests.support.ike.v2_stores import Store, ends


@pytest.mark.behaviour("B-049")
@pytest.mark.parametrize("ours", ["rsa", "psk"])
@pytest.mark.parametrize("theirs", ["rsa", "psk"])
@pytest.mark.parametrize("validate", [False, True])
def test_each_end_proves_itself_its_own_way(ours: str, theirs: str, validate: bool) -> None:
    net = Net(*ends(ours, theirs, validate_certificate_identity=validate))  # type: ignore[arg-type]
    net.a.begin()
    net.run(1)
    net.agree()


def test_without_hash_algorithms_the_old_signature_is_made() -> None:
    net = Net(*ends("rsa", "rsa"))  # type: ignore[arg-type]
    session = net.a.begin()
    while session.keymat is None:
        net.run(0.001)
    session.signature_hashes = ()
    (responder,) = net.b.sessions
    responder.signature_hashes = ()
    net.run(1)
    net.agree()


def test_an_untrusted_certificate_is_refused() -> None:
    a, b = ends("rsa", "rsa")
    net = Net(replace(a, credentials=Store(3)), b)  # type: ignore[type-var, arg-type]
    net.a.begin()
    net.run(1)
    net.nothing()
    assert "its issuer is not trusted" in net.b.failures[0][0].text


@pytest.mark.parametrize("judge", ["initiator", "responder"])
@pytest.mark.parametrize("policy", ["psk", "rsa"])
@pytest.mark.behaviour("B-045")
@pytest.mark.parametrize("validate", [False, True])
def test_a_certificate_of_another_identity_counts_only_by_rsa_signature_without_validation(
    judge: str, policy: str, validate: bool
) -> None:
    """A trusted certificate, but somebody else's: the policy of the end that judges says what becomes of it."""
    a, b = ends(policy, "rsa", validate_certificate_identity=validate)
    other = Store(1, (Identity.of("mallory.example.com"),))
    net = Net(replace(a, credentials=other), b)  # type: ignore[type-var, arg-type]
    judging = net.a
    if judge == "initiator":
        net.a.begin()
    else:
        net.b.begin()
    net.run(40)
    if policy == "psk" or validate:
        net.nothing()
        assert judging.failures[0][0].text == "the certificate of the peer does not carry identity 10.0.0.2"
    else:
        net.agree()


@pytest.mark.parametrize("name", ["mallory.example.com", "a.example"])
def test_without_the_preshared_key_only_the_certificate_of_the_peer_itself_comes_in(name: str) -> None:
    """Every certificate here is of an authority that the context trusts."""
    root = pki.root("Root of all")

    def store(*names: str) -> tuple[object, ...]:
        leaf = root.issue(names[0], dns=names, begins=WALL - pki.YEAR, ends=WALL + pki.YEAR)
        return tuple(pki.records(trusted=[root.certificate], own=[("me", leaf, pki.key(names[0]))], context=7))

    b = Ends(identity_local="b.example", identity_remote="a.example", certificates=store("b.example"))  # type: ignore[arg-type]
    b = replace(b, connection="responder-only")
    a = replace(other(b), connection="initiator-only", authentication="rsa-signature", certificates=store(name))  # type: ignore[arg-type]
    # It believes the key of the end that it calls, which may be anybody's: what it lacks is its own proof.
    two = Two(a, b)
    two.run(5)
    assert two.a.up() is two.b.up() is (name == "a.example")
    if name != "a.example":
        refused = "the certificate of the peer does not carry identity a.example"
        assert any(refused in text for text in two.b.texts())
        assert not two.b.pairs


class OddId(IdV2):
    """An ID payload whose RESERVED octets are not zero."""

    def emit(self) -> bytes:
        return bytes((self.id_type, 1, 2, 3)) + self.data


class OddIdentity(Identity):
    def v2(self, type: int) -> IdV2:
        return OddId(type, self.id_type, self.data)


@pytest.mark.parametrize("way", ["psk", "rsa"])
@pytest.mark.parametrize("odd", ["initiator", "responder"])
def test_an_identity_is_proved_by_its_octets_as_they_came(odd: str, way: str) -> None:
    """Reserved octets are ignored (RFC 7296 2.5), and AUTH covers them (2.15)."""
    a, b = ends(way, way)
    net = Net(replace(a, identity=OddIdentity(1, A.to_bytes(4, "big"))), b)  # type: ignore[type-var, arg-type]
    (net.a if odd == "initiator" else net.b).begin()
    net.run(2)
    net.agree()


def test_no_certificate_to_show() -> None:
    a, b = ends("rsa", "psk")
    net = Net(replace(a, credentials=Store(0)), b)  # type: ignore[type-var, arg-type]
    net.a.begin()
    net.run(40)
    net.nothing()
    assert "no certificate with a key" in net.a.failures[0][0].text


def test_a_peer_that_names_a_group_in_ike_auth_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's line about PFS groups is not for it: there is none to agree on yet (RFC 7296 1.2)."""
    monkeypatch.setattr(
        create_child_sa,
        "offer_v2",
        lambda ours, spis, *, with_group: child_proposals.offer_v2(ours, spis, with_group=True),
    )
    a, b = both(line(10, suite(group=5)))
    net = Net(a, replace(b, lines=(line(10, suite(group=2)),)))
    net.a.begin()
    net.run(2)
    net.agree()
    assert not net.a.logs
    assert not net.b.logs
