"""What has no published vectors, done a second way from the RFC's formula; and what protection refuses."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chassis.ase.ike.crypto import ikev1, ikev2, signatures
from chassis.ase.ike.crypto.algorithms import CIPHERS, INTEGRITY
from chassis.ase.ike.crypto.ikev1 import IvChain
from chassis.ase.ike.crypto.ikev2 import IntegrityError, SkCipher
from chassis.ase.ike.ike_proposals import ordered
from chassis.ase.ike.payloads import v2
from chassis.ase.ike.payloads.chain import GENERIC, PayloadError
from chassis.ase.ike.payloads.header import HEADER_LENGTH, Header
from chassis.ase.ike.payloads.numbers import NotifyTypeV1, NotifyTypeV2, PayloadTypeV2
from chassis.ase.ike.payloads.v2_payloads import Encrypted, VendorV2
from chassis.model.ike import IkePolicy, IkeProposal, ProposalRef

HEADER_1 = Header(b"initiate", b"responds", 0, 0x10, 2, 0, 0, 0)
HEADER_2 = Header(b"initiate", b"responds", 0, 0x20, 37, 8, 3, 0)


def test_nat_hash_rfc_3947() -> None:
    expected = hashlib.sha1(b"initiateresponds" + bytes((10, 0, 0, 1)) + b"\x01\xf4").digest()
    assert ikev1.nat_hash("sha1", b"initiate", b"responds", bytes((10, 0, 0, 1)), 500) == expected
    assert ikev1.equal(expected, bytes(expected))
    assert not ikev1.equal(expected, expected[::-1])


def test_keymat_is_cut_exactly() -> None:
    with pytest.raises(ValueError, match="octets of keys"):
        ikev2.split_keymat(bytes(23), (8, 4))


def test_proposals_go_by_sequence_number() -> None:
    table = {name: IkeProposal(name, version=2 if name == "other" else 1) for name in ("a", "b", "c", "other")}
    refs = (
        ProposalRef(30, "a"),
        ProposalRef(10, "c"),
        ProposalRef(15, "other"),
        ProposalRef(17, "lost"),
        ProposalRef(20, "b"),
    )
    assert [proposal.name for proposal in ordered(IkePolicy("p", proposals=refs), table)] == ["c", "b", "a"]


GUARD = SkCipher(CIPHERS["aes-128-cbc"], INTEGRITY["hmac-sha1-96"], b"e" * 16, b"a" * 20)
GCM = SkCipher(CIPHERS["aes-128-gcm"], None, b"e" * 20)


def sealed(guard: SkCipher, padded: bytes) -> bytes:
    """A message with exactly this padded plaintext inside, authentic; a CBC one need not be whole blocks."""
    iv = b"i" * guard.iv_octets
    if guard.integrity is None:
        raise AssertionError("for CBC")
    cut = len(padded) - len(padded) % guard.cipher.block_octets
    body = iv + guard.cipher.encrypt_cbc(guard.sk_e, iv, padded[:cut]) + padded[cut:]
    size = 4 + len(body) + guard.icv_octets
    head = Header(b"initiate", b"responds", PayloadTypeV2.SK, 0x20, 37, 8, 3, HEADER_LENGTH + size)
    clear = head.emit() + GENERIC.pack(PayloadTypeV2.VENDOR, 0, size) + body
    return clear + guard.integrity.icv(guard.sk_a, clear)


def refusal(guard: SkCipher, message: bytes) -> PayloadError:
    with pytest.raises(PayloadError) as caught:
        guard.decrypt(message, v2.MessageV2.parse(message))
    return caught.value


def test_padding_that_is_longer_than_the_plaintext_is_refused() -> None:
    error = refusal(GUARD, sealed(GUARD, bytes(15) + b"\x10"))
    assert (error.field, error.notify) == ("pad length", NotifyTypeV2.INVALID_SYNTAX)
    assert not isinstance(error, IntegrityError)


def test_padding_may_fill_all_of_the_plaintext() -> None:
    message = sealed(GUARD, bytes(15) + b"\x0f")
    (payload,) = v2.MessageV2.parse(message).payloads
    assert isinstance(payload, Encrypted)
    assert GUARD.decrypt_payload(message, payload) == b""


def test_a_part_of_a_block_is_refused() -> None:
    error = refusal(GUARD, sealed(GUARD, bytes(20)))
    assert (error.field, error.notify) == ("length", NotifyTypeV2.INVALID_SYNTAX)


@pytest.mark.parametrize("guard", [GUARD, GCM])
def test_too_little_to_hold_anything_is_not_authentic(guard: SkCipher) -> None:
    size = guard.iv_octets + guard.icv_octets + guard.cipher.block_octets - 1
    head = Header(b"initiate", b"responds", PayloadTypeV2.SK, 0x20, 37, 8, 3, HEADER_LENGTH + 4 + size)
    error = refusal(guard, head.emit() + GENERIC.pack(PayloadTypeV2.VENDOR, 0, 4 + size) + bytes(size))
    assert isinstance(error, IntegrityError)


def test_a_message_without_an_encrypted_payload_is_not_authentic() -> None:
    for payloads in ((), (VendorV2(b"in clear"),)):
        message = v2.MessageV2(HEADER_2, payloads).emit()
        assert isinstance(refusal(GUARD, message), IntegrityError)


def test_a_forged_aead_message_is_not_authentic() -> None:
    message = bytearray(GCM.encrypt(HEADER_2, (VendorV2(b"vendor"),), b"12345678"))
    for place in (17, 29, 40, len(message) - 1):
        forged = bytearray(message)
        forged[place] ^= 1
        assert isinstance(refusal(GCM, bytes(forged)), IntegrityError)


def test_ivs_and_fragments_are_bounded() -> None:
    with pytest.raises(ValueError, match="IV of 16"):
        GUARD.encrypt(HEADER_2, (), b"short")
    with pytest.raises(ValueError, match="no fragment fits"):
        GUARD.fragments_needed((VendorV2(b"v" * 100),), 80)
    with pytest.raises(ValueError, match="fragments"):
        GUARD.encrypt_fragments(HEADER_2, (VendorV2(b"v" * 8000),), 120, bytes(16 * 300))


def test_version_1_wants_whole_blocks() -> None:
    chain = IvChain(CIPHERS["3des-cbc"], b"k" * 24, b"i" * 8)
    for size in (0, 7, 12):
        message = HEADER_1.emit() + bytes(size)
        with pytest.raises(PayloadError) as caught:
            chain.decrypt(message, HEADER_1)
        assert caught.value.notify == NotifyTypeV1.PAYLOAD_MALFORMED


def test_a_cipher_without_cbc_says_so() -> None:
    for name in ("null", "aes-128-gcm"):
        with pytest.raises(ValueError, match="no CBC mode"):
            CIPHERS[name].encrypt_cbc(b"", b"", b"")


def test_a_short_rsa_key_signs_what_fits_and_verifies_without_raising() -> None:
    key = load_pem_private_key(SHORT_KEY, None)
    assert isinstance(key, RSAPrivateKey)
    public = key.public_key()
    for number in (1, 2):
        assert signatures.digital_verify(public, b"octets", signatures.digital_auth(key, b"octets", number))
    for number in (3, 4):
        with pytest.raises(ValueError, match="too long"):
            signatures.digital_auth(key, b"octets", number)
        der = signatures.SIGNATURE_HASHES[number][1]
        assert not signatures.digital_verify(public, b"octets", bytes((len(der),)) + der + bytes(64))
    assert signatures.v1_verify(public, b"h" * 48, signatures.v1_sign(key, b"h" * 48))
    with pytest.raises(ValueError, match="too long"):
        signatures.v1_sign(key, b"h" * 64)
    for signature in (b"", bytes(63), bytes(64), b"\xff" * 64, bytes(65), bytes(3000)):
        assert not signatures.rsa_verify(public, b"octets", signature)
        assert not signatures.v1_verify(public, b"h" * 20, signature)


# `openssl genrsa 512`, made for this test.
SHORT_KEY = b"""\
-----BEGIN RSA PRIVATE KEY-----
MIIBOwIBAAJBAM9cEdc6HA6BPdWmRPB2U9QW1pDuR0TGacVJ40Cc0qBlB+gEIcru
7pUUDI1rzFBGilYdTa1G9CKt3nF2tjczYlkCAwEAAQJBAJkTIqh74VJj3j3mLGZH
M8MRyPvcqwf+YP6feP+txV9ZYZfJ0/eCXrTh6EKRytkjNNh2wui063/4ITg400oh
KMECIQDtOLuEXvNq78AdfNo7oWy7AbXDGhoHva1WPqH/Y0sGvQIhAN/GMCYKLysM
wwF59pph8df8/e1r/6CooPDsyFW0HUHNAiAYLtVm7CsSdrh2CRlSROWJtuXpqsqG
iX6XMTFgkKXAXQIhAJNqlrGYp/YuVBEW7dRKje4CJq5QJXkLXesZsehz3YpJAiAg
junkdbGtEvlNg5SFtZCi38pBDgZQ+eSvTWcmw/N5Yg==
-----END RSA PRIVATE KEY-----
"""
