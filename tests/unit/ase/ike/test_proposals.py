"""Offers and choices of both versions (behaviours of the guide's chapter 5)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.ase.ike import child_proposals as child
from chassis.ase.ike import ike_proposals as ike
from chassis.ase.ike.payloads import v1_sa, v2_sa
from chassis.model.ike import IkeProposal
from chassis.model.ipsec import IpsecProposal

OURS = IkeProposal("ours", dh_group=2, encryption_algorithm="3des-cbc")


def through_the_wire(sa: v1_sa.SaV1 | v2_sa.SaV2) -> v1_sa.SaV1 | v2_sa.SaV2:
    again = type(sa).parse(memoryview(sa.emit()))
    assert again == sa
    return again


@pytest.mark.parametrize("cipher", ["des-cbc", "3des-cbc", "aes-128-cbc", "aes-192-cbc", "aes-256-cbc"])
@pytest.mark.parametrize("integrity", ["hmac-md5-96", "hmac-sha1-96"])
def test_equal_proposals_match_in_both_versions(cipher: str, integrity: str) -> None:
    own = IkeProposal("p", 1, None, 14, integrity, cipher, lifetime=99_999_999)
    chosen = ike.choose_v1(through_the_wire(ike.offer_v1([OURS, own])), [own])
    assert isinstance(chosen, ike.ChoiceV1)
    assert (chosen.proposal, chosen.cipher.name, chosen.integrity.name) == (own, cipher, integrity)
    assert chosen.answer.proposals[0].transforms[0].number == 2
    assert isinstance(ike.choose_v1(chosen.answer, [OURS, own]), ike.ChoiceV1)
    own = replace(own, version=2, prf="aes-128-xcbc")
    other = replace(own, version=2, lifetime=300)
    both = ike.choose_v2(through_the_wire(ike.offer_v2([replace(OURS, version=2), own])), [other])
    assert isinstance(both, ike.ChoiceV2)
    assert (both.answer.proposals[0].number, both.prf.name, both.group) == (2, "aes-128-xcbc", 14)


@pytest.mark.behaviour("B-029")
def test_the_first_offer_that_fits_wins_and_the_closest_miss_is_told() -> None:
    second = replace(OURS, dh_group=14)
    chosen = ike.choose_v1(ike.offer_v1([second, OURS]), [OURS, second])
    assert isinstance(chosen, ike.ChoiceV1)
    assert chosen.proposal is second
    far = replace(OURS, dh_group=1, encryption_algorithm="aes-256-cbc")
    refusal = ike.choose_v1(ike.offer_v1([far, replace(OURS, dh_group=1)]), [OURS])
    assert isinstance(refusal, ike.NoMatch)
    assert refusal.only_mismatch is not None
    assert refusal.only_mismatch.field == "group"


SPIS = {2: b"aaaa", 3: b"eeee", 4: b"cc"}
THEIRS = {2: b"AAAA", 3: b"EEEE", 4: b"CC"}


def suite(group: int | None = None, esn: bool = False, **fields: object) -> child.Suite:
    return child.Suite(IpsecProposal("p", **fields), group, esn)


SUITES = [
    suite(),
    suite(14, esn=True, lifetime_kbytes=70_000),
    suite(ah="hmac-md5-96"),
    suite(ah="hmac-aes-xcbc", esp_encryption="aes-256-cbc"),
    suite(esp_authentication="hmac-md5-96"),
    suite(esp_encryption="des-cbc", ip_comp=True),
    suite(2, ah="hmac-sha1-96", esp_encryption="3des-cbc", esp_authentication="hmac-md5-96", ip_comp=True),
]


@pytest.mark.parametrize("own", SUITES)
def test_equal_ipsec_proposals_match_in_both_versions(own: child.Suite) -> None:
    other = replace(own, proposal=replace(own.proposal, lifetime_seconds=300, lifetime_kbytes=5))
    first = child.choose_v1(through_the_wire(child.offer_v1([own], THEIRS)), [other], SPIS)
    assert isinstance(first, child.ChildChoiceV1)
    assert (first.peer_seconds, first.peer_kbytes) == (86400, own.kbytes)
    assert all(SPIS[one.protocol] == one.spi for one in first.answer.proposals)
    second = child.choose_v2(
        through_the_wire(child.offer_v2([own], THEIRS, with_group=True)), [other], SPIS, with_group=True
    )
    assert isinstance(second, child.ChildChoiceV2)
    assert second.peer_spis == {protocol: THEIRS[protocol] for protocol in own.protocols}
    assert [(one.protocol, one.spi) for one in second.answer.proposals] == [(p, SPIS[p]) for p in own.protocols]


@pytest.mark.parametrize(
    "own", [suite(), suite(ah="hmac-md5-96"), suite(ah="hmac-md5-96", esp_encryption="des-cbc")]
)
def test_two_proposals_of_one_protocol_and_number_are_no_bundle(own: child.Suite) -> None:
    first = child.offer_v1([own], THEIRS)
    twice_1 = v1_sa.SaV1((*first.proposals, replace(first.proposals[-1], spi=b"\x77" * 4)))
    assert isinstance(child.choose_v1(twice_1, [own], SPIS), ike.NoMatch)
    second = child.offer_v2([own], THEIRS, with_group=False)
    twice_2 = v2_sa.SaV2((*second.proposals, replace(second.proposals[-1], spi=b"\x77" * 4)))
    assert isinstance(child.choose_v2(twice_2, [own], SPIS, with_group=False), ike.NoMatch)
    # A further number is another offer.
    other = replace(second.proposals[-1], number=2, spi=b"\x77" * 4)
    beside = child.choose_v2(v2_sa.SaV2((*second.proposals, other)), [own], SPIS, with_group=False)
    assert isinstance(beside, child.ChildChoiceV2)
    assert beside.peer_spis == {protocol: THEIRS[protocol] for protocol in own.protocols}


@pytest.mark.parametrize("own", [None, 2])
@pytest.mark.parametrize("groups", [(5,), (2, 5), (0,)])
def test_a_group_in_ike_auth_is_passed_over(own: int | None, groups: tuple[int, ...]) -> None:
    """It has no exchange of its own there (RFC 7296 1.2), so it is no reason to refuse what fits."""
    (proposal,) = child.offer_v2([suite()], THEIRS, with_group=False).proposals
    named = tuple(v2_sa.TransformV2(ike.DH, group) for group in groups)
    offered = v2_sa.SaV2((replace(proposal, transforms=(*proposal.transforms, *named)),))
    chosen = child.choose_v2(through_the_wire(offered), [suite(own)], SPIS, with_group=False)
    assert isinstance(chosen, child.ChildChoiceV2)
    assert not [one for one in chosen.answer.proposals[0].transforms if one.type == ike.DH]
    other = child.choose_v2(offered, [suite(own, esp_encryption="des-cbc")], SPIS, with_group=False)
    assert isinstance(other, ike.NoMatch)
    assert [one.field for one in other.mismatches] == ["cipher", "integrity"]


@pytest.mark.parametrize("spi", [1, 255])
def test_reserved_spis_are_not_taken(spi: int) -> None:
    """RFC 4303 2.1. A CPI of so few is the name of an algorithm (RFC 3173 3.3)."""
    for own in SUITES:
        theirs = {protocol: spi.to_bytes(len(value), "big") for protocol, value in THEIRS.items()}
        offered = child.offer_v1([own], theirs)
        found = child.choose_v1(offered, [own], SPIS)
        assert isinstance(found, ike.NoMatch)
        assert {(one.field, one.received) for one in found.mismatches} == {("smallest SPI", spi)}


@pytest.mark.parametrize("one", range(len(SUITES)))
@pytest.mark.parametrize("other", range(len(SUITES)))
def test_different_ipsec_proposals_never_match(one: int, other: int) -> None:
    if one != other:
        assert isinstance(
            child.choose_v1(child.offer_v1([SUITES[one]], THEIRS), [SUITES[other]], SPIS), ike.NoMatch
        )
