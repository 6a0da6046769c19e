"""Each line of tables 5 and 6 that a decoder or the matching of proposals raises, provoked by octets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.ase.ike import ike_proposals
from chassis.ase.ike.log import text
from chassis.ase.ike.payloads import v1, v2, v2_sa
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import NotifyTypeV1, NotifyTypeV2
from chassis.ase.ike.payloads.v2_payloads import ConfigAttribute, ConfigPayload
from chassis.ase.ike.payloads.v2_sa import SaV2
from chassis.model.ike import IkeProposal
from tests.support.ike.wrong_payloads import PROPOSAL, V2_PAYLOADS

HEADER_1 = Header(b"initiate", b"responds", 0, 0x10, 2, 0, 0, 0)
HEADER_2 = Header(b"initiate", b"responds", 0, 0x20, 34, 8, 0, 0)


NO_LINE_V2 = [
    # refusals for which the guide has no line
    (47, "05000000"),
    (33, "07000010" + PROPOSAL[8:]),
    (33, "00000010" + "01010001" + "05000008" + "01000003"),
    (33, "00000010" + "010100ff" + "03000008" + "01000003"),
    (33, "0200000c" + "01010001" + "00000008"),
]


def message_2(kind: int, body: bytes, length: int | None = None) -> bytes:
    size = 4 + len(body)
    payload = bytes(2) + (size if length is None else length).to_bytes(2, "big") + body
    return replace(HEADER_2, next_payload=kind, length=28 + size).emit() + payload


@pytest.mark.parametrize(("log", "kind", "body", "length", "line"), V2_PAYLOADS)
def test_version_2_payloads(log: str, kind: int, body: str, length: int | None, line: str | None) -> None:
    with pytest.raises(PayloadError) as caught:
        v2.MessageV2.parse(message_2(kind, bytes.fromhex(body), length))
    error = caught.value
    assert error.log == log
    assert error.notify == (
        NotifyTypeV2.AUTHENTICATION_FAILED if log == "ikev2-auth-method" else NotifyTypeV2.INVALID_SYNTAX
    )
    assert line is None or text(log, error.values) == line
    assert text(log, error.values)


@pytest.mark.parametrize(("kind", "body"), NO_LINE_V2)
def test_version_2_payloads_without_a_line(kind: int, body: str) -> None:
    with pytest.raises(PayloadError) as caught:
        v2.MessageV2.parse(message_2(kind, bytes.fromhex(body)))
    assert (caught.value.notify, caught.value.field != "") == (NotifyTypeV2.INVALID_SYNTAX, True)


def one_sa(count: int, more: int = 1) -> bytes:
    """`more` proposals of `count` transforms each."""
    transforms = tuple(v2_sa.TransformV2(1, 3) for _ in range(count))
    return SaV2(tuple(v2_sa.ProposalV2(1, 1, b"", transforms) for _ in range(more))).emit()


@pytest.mark.parametrize("body", [one_sa(1, 65), one_sa(171, 3)])
def test_proposals_and_transforms_are_bounded(body: bytes) -> None:
    with pytest.raises(PayloadError, match="too many"):
        v2.MessageV2.parse(message_2(33, body))


def test_attributes_of_a_transform_are_bounded() -> None:
    many = v2_sa.TransformV2(1, 12, tuple(v2_sa.AttributeV2(99, number) for number in range(17)))
    with pytest.raises(PayloadError) as caught:
        v2.MessageV2.parse(message_2(33, SaV2((v2_sa.ProposalV2(1, 1, b"", (many,)),)).emit()))
    assert caught.value.log == "ikev2-xform-attrib-length"


def chain(*payloads: tuple[int, int, bytes]) -> bytes:
    """A message of (type, flags, body)."""
    body = b""
    for place, (_, flags, inner) in enumerate(payloads):
        following = payloads[place + 1][0] if place + 1 < len(payloads) else 0
        body += bytes((following, flags)) + (4 + len(inner)).to_bytes(2, "big") + inner
    return replace(HEADER_2, next_payload=payloads[0][0], length=28 + len(body)).emit() + body


def test_version_2_chains() -> None:
    cases = {
        "ikev2-incomplete": replace(HEADER_2, next_payload=40, length=31).emit() + bytes(3),
        "ikev2-vendor-critical": chain((43, 0x80, b"vendor")),
        "ikev2-unsupported-critical": chain((40, 0, b"n" * 16), (200, 0x80, b"what")),
        "ikev2-default-length": chain((40, 0, b"n" * 16), (0, 0, b"left")),
    }
    for log, data in cases.items():
        with pytest.raises(PayloadError) as caught:
            v2.refuse_critical(v2.MessageV2.parse(data).payloads)
        assert caught.value.log == log
    assert text("ikev2-unsupported-critical", {"type": 200}) == "UNSUPPORTED PAYLOAD TYPE: 200, Critical Bit set"
    for kind, inner in ((46, b"sealed"), (53, b"\0\1\0\1sealed")):
        body = bytes(2) + (4 + len(inner)).to_bytes(2, "big") + inner
        with pytest.raises(PayloadError) as caught:
            v2.parse_payloads(kind, memoryview(body), decrypted=True)
        assert caught.value.log == "ikev2-encrypted-nested"


def test_what_is_passed_over_is_remarked_once() -> None:
    attributes = (ConfigAttribute(1), ConfigAttribute(120), ConfigAttribute(120), ConfigAttribute(16))
    transform = v2_sa.TransformV2(
        1, 12, (v2_sa.AttributeV2(14, 128), v2_sa.AttributeV2(12, 1), v2_sa.AttributeV2(13, b"x"))
    )
    offered = SaV2((v2_sa.ProposalV2(5, 1, b"", (transform, transform)),))
    message = v2.MessageV2(HEADER_2, (ConfigPayload(1, attributes), offered))
    remarks = v2.ignored_attributes(v2.MessageV2.parse(message.emit()).payloads)
    assert sorted(text(log, values) for log, values in remarks) == [
        "INVALID_CP_ATTRIB_TYPE:120", "INVALID_CP_ATTRIB_TYPE:16", "INVALID_XFORM_ATTRIB_TYPE:12 Prop Num:5",
        "INVALID_XFORM_ATTRIB_TYPE:13 Prop Num:5",
    ]  # fmt: skip
    assert v2.ignored_attributes(()) == ()


def test_a_transform_with_an_unknown_attribute_is_not_chosen() -> None:
    own = IkeProposal("p", version=2, dh_group=2, encryption_algorithm="aes-128-cbc")
    (offer,) = ike_proposals.offer_v2([own]).proposals
    assert isinstance(ike_proposals.choose_v2(SaV2((offer,)), [own]), ike_proposals.ChoiceV2)
    encr, *others = offer.transforms
    strange = replace(encr, attributes=(*encr.attributes, v2_sa.AttributeV2(12, 1)))
    assert isinstance(
        ike_proposals.choose_v2(SaV2((replace(offer, transforms=(strange, *others)),)), [own]),
        ike_proposals.NoMatch,
    )
    both = replace(offer, transforms=(strange, encr, *others))
    assert isinstance(ike_proposals.choose_v2(SaV2((both,)), [own]), ike_proposals.ChoiceV2)


def test_a_proposal_of_another_protocol() -> None:
    data = message_2(33, bytes.fromhex("00000010" + "05040001" + "00000008" + "01000003"))
    (offered,) = v2.MessageV2.parse(data).payloads
    assert isinstance(offered, SaV2)
    refusal = ike_proposals.choose_v2(offered, [IkeProposal("p", version=2)])
    assert isinstance(refusal, ike_proposals.NoMatch)
    assert [text(one.log, one.values) for one in refusal.mismatches] == ["INVALID_PROTOCOL_ID 4 in PROPOSAL_5,"]


SITUATION = "00000001" * 2
V1_PAYLOADS = [
    ("ikev1-psk-payload-length", 4, "6b" * 259, 19136, NotifyTypeV1.UNEQUAL_PAYLOAD_LENGTHS,
     "Payload Length(19136) is greater than the supported length(263)"),
    ("ikev1-invalid-doi", 1, "00004001" + "00000001" + "00" * 8, None, NotifyTypeV1.DOI_NOT_SUPPORTED,
     "Invalid DOI (0x4001) detected in IKE phase-I 1st message"),
    ("ikev1-invalid-doi", 11, "00000002" + "01000001", None, NotifyTypeV1.DOI_NOT_SUPPORTED, None),
    ("ikev1-invalid-doi", 12, "00000002" + "03040001" + "73" * 4, None, NotifyTypeV1.DOI_NOT_SUPPORTED, None),
    ("ikev1-situation-not-supported", 1, "00000001" + "00004001" + "00" * 8, None,
     NotifyTypeV1.SITUATION_NOT_SUPPORTED, "Situation (0x4001) is not supported"),
    ("ikev1-invalid-protocol-id", 1, SITUATION + "00000010" + "01ff0001" + "00000008" + "01010000", None, 0,
     "Invalid Protocol ID(0xff) detected."),
    ("ikev1-invalid-reserved-value", 1, SITUATION + "00110010" + "01010001" + "00000008" + "01010000", None,
     NotifyTypeV1.BAD_PROPOSAL_SYNTAX, "Invalid Reserved field value(0x11) detected"),
    ("ikev1-invalid-reserved-value", 1, SITUATION + "00000010" + "01010001" + "00110008" + "01010000", None,
     NotifyTypeV1.BAD_PROPOSAL_SYNTAX, "Invalid Reserved field value(0x11) detected"),
    ("ikev1-invalid-reserved-value", 1, SITUATION + "00000010" + "01010001" + "00000008" + "01010011", None,
     NotifyTypeV1.BAD_PROPOSAL_SYNTAX, "Invalid Reserved field value(0x11) detected"),
    ("ikev1-sa-payload-length", 1, SITUATION + "00000010" + "01010001" + "00000008" + "01010000" + "00" * 12, None,
     NotifyTypeV1.UNEQUAL_PAYLOAD_LENGTHS, None),
]  # fmt: skip

NO_LINE_V1 = [
    (1, "00" * 8, NotifyTypeV1.PAYLOAD_MALFORMED),
    (1, SITUATION + "02000010" + "01010001" + "00000008" + "01010000", NotifyTypeV1.BAD_PROPOSAL_SYNTAX),
    (1, SITUATION + "09000010" + "01010001" + "00000008" + "01010000", NotifyTypeV1.BAD_PROPOSAL_SYNTAX),
    (1, SITUATION + "00000020" + "01010001" + "00000008" + "01010000", NotifyTypeV1.BAD_PROPOSAL_SYNTAX),
    (1, SITUATION + "00000010" + "01030001" + "00000008" + "01010000", NotifyTypeV1.INVALID_SPI),
    (1, SITUATION + "00000010" + "01010000" + "00000008" + "01010000", NotifyTypeV1.BAD_PROPOSAL_SYNTAX),
    (1, SITUATION + "00000010" + "01010002" + "00000008" + "01010000", NotifyTypeV1.BAD_PROPOSAL_SYNTAX),
    (1, SITUATION + "00000010" + "01010002" + "03000008" + "01010000", NotifyTypeV1.BAD_PROPOSAL_SYNTAX),
    (1, SITUATION + "00000010" + "01010001" + "00000009" + "01010000", NotifyTypeV1.BAD_PROPOSAL_SYNTAX),
    (1, SITUATION + "00000014" + "01010001" + "00000008" + "01010000" + "00" * 4,
        NotifyTypeV1.BAD_PROPOSAL_SYNTAX),
    (1, SITUATION + "00000012" + "01010001" + "0000000a" + "01010000" + "8001", NotifyTypeV1.BAD_PROPOSAL_SYNTAX),
    (1, SITUATION + "00000014" + "01010001" + "0000000c" + "01010000" + "00010004",
        NotifyTypeV1.BAD_PROPOSAL_SYNTAX),
    (4, "", NotifyTypeV1.PAYLOAD_MALFORMED),
    (5, "010000", NotifyTypeV1.PAYLOAD_MALFORMED),
    (5, "0c000000" + "61", NotifyTypeV1.INVALID_ID_INFORMATION),
    (5, "01000000" + "0a0000", NotifyTypeV1.INVALID_ID_INFORMATION),
    (5, "02000000", NotifyTypeV1.INVALID_ID_INFORMATION),
    (6, "04", NotifyTypeV1.PAYLOAD_MALFORMED),
    (7, "", NotifyTypeV1.PAYLOAD_MALFORMED),
    (8, "", NotifyTypeV1.PAYLOAD_MALFORMED),
    (9, "", NotifyTypeV1.PAYLOAD_MALFORMED),
    (10, "6e" * 7, NotifyTypeV1.PAYLOAD_MALFORMED),
    (10, "6e" * 257, NotifyTypeV1.PAYLOAD_MALFORMED),
    (11, "00000001" + "0100", NotifyTypeV1.PAYLOAD_MALFORMED),
    (11, "00000001" + "01110001" + "73" * 17, NotifyTypeV1.INVALID_SPI),
    (12, "00000001" + "0304", NotifyTypeV1.PAYLOAD_MALFORMED),
    (12, "00000001" + "03040002" + "73" * 4, NotifyTypeV1.PAYLOAD_MALFORMED),
    (13, "", NotifyTypeV1.PAYLOAD_MALFORMED),
    (20, "", NotifyTypeV1.PAYLOAD_MALFORMED),
    (21, "02000000" + "0a000001", NotifyTypeV1.PAYLOAD_MALFORMED),
]  # fmt: skip


def message_1(kind: int, body: bytes, length: int | None = None) -> bytes:
    size = 4 + len(body)
    payload = bytes(2) + (size if length is None else length).to_bytes(2, "big") + body
    return replace(HEADER_1, next_payload=kind, length=28 + size).emit() + payload


@pytest.mark.parametrize(("log", "kind", "body", "length", "notify", "line"), V1_PAYLOADS)
def test_version_1_payloads(
    log: str, kind: int, body: str, length: int | None, notify: int, line: str | None
) -> None:
    with pytest.raises(PayloadError) as caught:
        v1.MessageV1.parse(message_1(kind, bytes.fromhex(body), length))
    assert (caught.value.log, caught.value.notify) == (log, notify)
    assert line is None or text(log, caught.value.values) == line
    assert text(log, caught.value.values)


@pytest.mark.parametrize(("kind", "body", "notify"), NO_LINE_V1)
def test_version_1_payloads_without_a_line(kind: int, body: str, notify: int) -> None:
    with pytest.raises(PayloadError) as caught:
        v1.MessageV1.parse(message_1(kind, bytes.fromhex(body)))
    assert (caught.value.log, caught.value.notify) == ("", notify)


def test_version_1_chains() -> None:
    cases = {
        ("ikev1-invalid-next-payload", NotifyTypeV1.INVALID_PAYLOAD_TYPE): bytes.fromhex(
            "99000005" + "76" + "00000005" + "76"
        ),
        ("ikev1-invalid-reserved-payload", NotifyTypeV1.PAYLOAD_MALFORMED): bytes.fromhex("00110005" + "76"),
        ("", NotifyTypeV1.PAYLOAD_MALFORMED): bytes.fromhex("0d000005" + "76" + "0000"),
        ("", NotifyTypeV1.UNEQUAL_PAYLOAD_LENGTHS): bytes.fromhex("00000005" + "76" + "0000"),
    }
    for (log, notify), body in cases.items():
        with pytest.raises(PayloadError) as caught:
            v1.parse_payloads(13, memoryview(body))
        assert (caught.value.log, caught.value.notify) == (log, notify)
    with pytest.raises(PayloadError, match="length: 3"):
        v1.parse_payloads(13, memoryview(bytes.fromhex("00000003" + "76")))
    (only,) = v1.parse_payloads(132, memoryview(bytes.fromhex("00000005" + "76")))
    assert only.type == 132
