"""Codecs of both versions: what is emitted parses back, and any bytes parse or raise the one error."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.ase.ike.log import text
from chassis.ase.ike.payloads import v1, v1_sa, v2, v2_sa
from chassis.ase.ike.payloads.chain import PayloadError, UnknownPayload
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import NotifyTypeV1, NotifyTypeV2
from chassis.ase.ike.payloads.v2_payloads import (
    IPV6_RANGE,
    TS,
    Auth,
    CertReqV2,
    CertV2,
    ConfigAttribute,
    ConfigPayload,
    DeleteV2,
    Eap,
    Encrypted,
    EncryptedFragment,
    IdV2,
    KeV2,
    NonceV2,
    NotifyV2,
    TrafficSelector,
    VendorV2,
)
from chassis.net.errors import DecodeError

HEADER_1 = Header(b"initiate", b"responds", 0, 0x10, 2, 0, 0, 0)
HEADER_2 = Header(b"initiate", b"responds", 0, 0x20, 34, 8, 7, 0)

V1_PAYLOADS: tuple[v1.PayloadV1, ...] = (
    v1_sa.SaV1(
        (
            v1_sa.ProposalV1(
                1,
                2,
                b"aaaa",
                (v1_sa.TransformV1(1, 3, (v1_sa.AttributeV1(1, 1), v1_sa.AttributeV1(2, b"\0\1\0\0"))),),
            ),
            v1_sa.ProposalV1(1, 3, b"eeee", (v1_sa.TransformV1(1, 12), v1_sa.TransformV1(2, 3))),
            v1_sa.ProposalV1(1, 4, b"cc", (v1_sa.TransformV1(1, 2),)),
        )
    ),
    v1.KeV1(b"k" * 96),
    v1.IdV1.address(0x0A000001, 17, 500),
    v1.IdV1.subnet(0x0A000000, 0xFF000000),
    v1.IdV1.range(1, 2),
    v1.IdV1(2, b"gw.example"),
    v1.CertV1(4, b"cert"),
    v1.CertReqV1(4),
    v1.Hash(b"h" * 20),
    v1.Signature(b"s" * 128),
    v1.NonceV1(b"n" * 16),
    v1.NotifyV1(14, 1, b"c" * 16, b"data"),
    v1.DeleteV1(3, (b"spi1", b"spi2")),
    v1.VendorV1(b"v" * 16),
    v1.NatD(b"d" * 16),
    v1.NatOa(1, b"\x0a\0\0\1"),
    UnknownPayload(14, b"attributes"),
)

V2_PAYLOADS: tuple[v2.PayloadV2, ...] = (
    v2_sa.SaV2((v2_sa.ProposalV2(1, 2, b"aaaa", (v2_sa.TransformV2(3, 2), v2_sa.TransformV2(5, 0))),
        v2_sa.ProposalV2(1, 3, b"eeee", (v2_sa.TransformV2(1, 12, (v2_sa.AttributeV2(14, 128),)),)),
        v2_sa.ProposalV2(2, 1, b"rekeyspi", (v2_sa.TransformV2(4, 14, (v2_sa.AttributeV2(99, b"long"),)),)))),
    KeV2(14, b"k" * 256),
    IdV2(35, 1, b"\x0a\0\0\1"),
    IdV2(36, 2, b"gw.example"),
    CertV2(4, b"cert"),
    CertReqV2(4, b"h" * 40),
    Auth(2, b"proof"),
    NonceV2(b"n" * 32),
    NotifyV2(16393, b"", 3, b"spi1"),
    NotifyV2(16390, b"cookie"),
    DeleteV2(1),
    DeleteV2(3, (b"spi1", b"spi2")),
    VendorV2(b"vendor"),
    TS(44, (TrafficSelector(1, 2, 6, 80, 80), TrafficSelector(0, 0xFFFFFFFF))),
    TS(45, (TrafficSelector(0, (1 << 128) - 1, kind=IPV6_RANGE),)),
    ConfigPayload(1, (ConfigAttribute(1), ConfigAttribute(3, b"\x0a\0\0\1"))),
    Eap(b"\1\1\0\5\1"),
    UnknownPayload(200, b"what", True),
)  # fmt: skip


def fills_its_line(error: DecodeError) -> None:
    assert isinstance(error, PayloadError)
    assert not error.log or text(error.log, error.values)


def test_every_payload_comes_back() -> None:
    message = v1.MessageV1(HEADER_1, V1_PAYLOADS).emit()
    assert v1.MessageV1.parse(message).payloads == V1_PAYLOADS
    assert v1.MessageV1.parse(message).emit() == message
    for last in (Encrypted(35, b"sealed"), EncryptedFragment(35, 1, 2, b"sealed")):
        message = v2.MessageV2(HEADER_2, (*V2_PAYLOADS, last)).emit()
        again = v2.MessageV2.parse(message)
        assert again.payloads == (*V2_PAYLOADS, last)
        assert again.emit() == message
        again.header.check()


WHOLE = (
    v1.MessageV1(HEADER_1, V1_PAYLOADS).emit(),
    v2.MessageV2(HEADER_2, (*V2_PAYLOADS, Encrypted(35, b"sealed"))).emit(),
    v2.MessageV2(HEADER_2, (*V2_PAYLOADS[:3], EncryptedFragment(35, 1, 2, b"sealed"))).emit(),
)


@pytest.mark.parametrize("message", WHOLE)
def test_any_octet_changed_parses_or_raises_the_one_error(message: bytes) -> None:
    refused = 0
    for place in range(len(message)):
        for value in (0, 1, 3, 0x80, 0xFF, message[place] ^ 1):
            broken = bytearray(message)
            broken[place] = value
            for parse in (v1.MessageV1.parse, v2.MessageV2.parse):
                try:
                    parse(broken).header.check()
                except PayloadError as error:
                    refused += 1
                    fills_its_line(error)
    assert refused > 1000


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*range(1, 22), *range(33, 54), 130, 132, 255]), st.binary(max_size=200), st.booleans())
def test_any_bytes_parse_and_come_back_or_raise(kind: int, body: bytes, flag: bool) -> None:
    try:
        payloads = v1.parse_payloads(kind, memoryview(body), padded=flag)
        assert v1.parse_payloads(kind, memoryview(v1.emit_payloads(payloads)[1])) == payloads
    except DecodeError as error:
        fills_its_line(error)
    try:
        found = v2.parse_payloads(kind, memoryview(body), decrypted=flag)
        assert v2.parse_payloads(kind, memoryview(v2.emit_payloads(found)[1])) == found
    except DecodeError as error:
        fills_its_line(error)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([p.type for p in V1_PAYLOADS] + [p.type for p in V2_PAYLOADS] + [46, 53]),
    st.binary(max_size=64),
)
def test_any_body_of_a_payload(kind: int, inner: bytes) -> None:
    body = b"\0\0" + (4 + len(inner)).to_bytes(2, "big") + inner
    parse = v1.parse_payloads if kind < 33 else v2.parse_payloads
    try:
        parse(kind, memoryview(body))
    except PayloadError as error:
        fills_its_line(error)


@pytest.mark.parametrize(("change", "log", "notify"), [
    ({"spi_i": bytes(8)}, "ikev1-invalid-initiator-cookie", 0),
    ({"next_payload": 153}, "ikev1-invalid-next-payload", NotifyTypeV1.INVALID_PAYLOAD_TYPE),
    ({"version": 0x12}, "ikev1-invalid-minor-version", NotifyTypeV1.INVALID_MINOR_VERSION),
    ({"version": 0x00}, "ikev1-invalid-major-version", NotifyTypeV1.INVALID_MAJOR_VERSION),
    ({"version": 0x20}, "ikev1-invalid-major-version", NotifyTypeV1.INVALID_MAJOR_VERSION),
    ({"version": 0x30}, "ikev1-invalid-major-version", NotifyTypeV1.INVALID_MAJOR_VERSION),
    ({"version": 0x30, "exchange": 34, "next_payload": 33}, "ikev2-header-major-version",
        NotifyTypeV2.INVALID_MAJOR_VERSION),
    ({"exchange": 33}, "ikev1-unsupported-xchgtype", 0),
    ({"flags": 0xF0}, "ikev1-invalid-flags", NotifyTypeV1.INVALID_FLAGS),
    ({"version": 0x20, "exchange": 34, "spi_i": bytes(8)}, "ikev2-header-zero-spi", 0),
    ({"version": 0x20, "exchange": 34, "next_payload": 4}, "ikev2-header-next-payload",
        NotifyTypeV2.INVALID_SYNTAX),
    ({"version": 0x20, "exchange": 2, "next_payload": 33}, "ikev2-header-exchange-type",
        NotifyTypeV2.INVALID_SYNTAX),
])  # fmt: skip
def test_a_header_is_refused_with_its_line(change: dict[str, object], log: str, notify: int) -> None:
    header = replace(HEADER_1, next_payload=1)
    header.check()
    with pytest.raises(PayloadError) as caught:
        replace(header, **change).check()
    assert (caught.value.log, caught.value.notify) == (log, notify)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.values) == (str(caught.value), caught.value.values)


@pytest.mark.parametrize(
    ("version", "kind", "body", "log"),
    [
        (1, 1, "0000002c" + "00004001" + "00000001" + 32 * "00", "ikev1-invalid-doi"),
        (1, 1, "0000002c" + "00000001" + "00004001" + 32 * "00", "ikev1-situation-not-supported"),
        (1, 4, "00004ac0" + "00" * 100, "ikev1-psk-payload-length"),
        (1, 4, "00110008" + "00" * 4, "ikev1-invalid-reserved-payload"),
        (1, 1, "0000001c" + "00000001" + "00000001" + "00000010" + "01ff0001" + "00000008" + "01010000",
         "ikev1-invalid-protocol-id"),
        (1, 1, "0000001c" + "00000001" + "00000001" + "00110010" + "01010001" + "00000008" + "01010000",
         "ikev1-invalid-reserved-value"),
        (1, 1, "00000020" + "00000001" * 2 + "00000010" + "01010001" + "00000008" + "01010000" + "00000000",
         "ikev1-sa-payload-length"),
        (2, 33, "0000000c" + "00000008" + "01010000", "ikev2-zero-transform"),
        (2, 33, "0000000c" + "00000008" + "01010301", "ikev2-proposal-length"),
        (2, 33, "0000000f" + "0000000b" + "01010301" + "000000", "ikev2-invalid-spi-size"),
        (2, 33, "0000000c" + "00000008" + "01010001", "ikev2-xform-incomplete"),
        (2, 33, "00000014" + "00000010" + "01010001" + "00000400" + "01000003", "ikev2-xform-length"),
        (2, 33, "00000018" + "00000014" + "01010001" + "0000000c" + "01000003" + "000404e2",
         "ikev2-xform-attrib-length"),
        (2, 44, "00000008" + "00000000", "ikev2-ts-zero"),
        (2, 44, "00000010" + "01000000" + "05000010" + "00000000", "ikev2-invalid-ts-type"),
        (2, 44, "00000010" + "01000000" + "07000007" + "00000000", "ikev2-invalid-ts-length"),
        (2, 41, "00000008" + "05000001", "ikev2-notify-protocol"),
        (2, 41, "0000000c" + "01040001" + "00000000", "ikev2-notify-ike-spi-size"),
        (2, 42, "00000008" + "0f000000", "ikev2-delete-protocol"),
        (2, 42, "0000000c" + "01040001" + "00000000", "ikev2-delete-ike-spi-size"),
        (2, 42, "00000008" + "03040001", "ikev2-delete-length"),
        (2, 35, "0000000c" + "04000000" + "00000000", "ikev2-invalid-id-type"),
        (2, 39, "0000000c" + "0f000000" + "00000000", "ikev2-auth-method"),
        (2, 37, "00000008" + "16000000", "ikev2-cert-encoding"),
        (2, 43, "00800008" + "00000000", "ikev2-vendor-critical"),
        (2, 34, "000000ff" + "00000000", "ikev2-ke-length"),
        (2, 34, "00000003" + "00000000", "ikev2-generic-header-length"),
        (2, 40, "00000130" + "00" * 300, "ikev2-nonce-too-long"),
    ],
)  # fmt: skip
def test_a_payload_is_refused_with_its_line(version: int, kind: int, body: str, log: str) -> None:
    parse = v1.parse_payloads if version == 1 else v2.parse_payloads
    with pytest.raises(PayloadError) as caught:
        parse(kind, memoryview(bytes.fromhex(body)))
    assert caught.value.log == log
    assert text(log, caught.value.values)


def test_nothing_encrypted_hides_in_the_encrypted() -> None:
    with pytest.raises(PayloadError) as caught:
        v2.parse_payloads(46, memoryview(b"\0\0\0\x08abcd"), decrypted=True)
    assert caught.value.log == "ikev2-encrypted-nested"


def test_a_critical_unknown_payload_is_refused_by_its_type() -> None:
    v2.refuse_critical([UnknownPayload(200, b"")])
    with pytest.raises(PayloadError) as caught:
        v2.refuse_critical([UnknownPayload(200, b"", True)])
    assert (caught.value.notify, caught.value.data) == (NotifyTypeV2.UNSUPPORTED_CRITICAL_PAYLOAD, b"\xc8")


def test_a_chain_is_bounded() -> None:
    for kind, parse in ((13, v1.parse_payloads), (43, v2.parse_payloads)):
        chain = bytes((kind, 0, 0, 5, 1)) * 64 + b"\0\0\0\5\1"
        with pytest.raises(PayloadError, match="more than 64"):
            parse(kind, memoryview(chain))


def test_bounds_of_version_1_identities() -> None:
    assert v1.IdV1.subnet(0x0A000000, 0xFF000000).bounds == (0x0A000000, 0x0AFFFFFF)
    assert v1.IdV1.range(5, 9).bounds == (5, 9)
    assert v1.IdV1.address(5).bounds == (5, 5)
    assert v1.IdV1.range(9, 5).bounds is None
    assert v1.IdV1.subnet(0x0A000000, 0xFF00FF00).bounds is None
    assert v1.IdV1(2, b"name").bounds is None
