"""Computations done a second way; published vectors are in test_known_answers."""

from __future__ import annotations

from dataclasses import replace

import gmpy2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from scapy.contrib import ikev2 as scapy_v2
from scapy.layers import isakmp as scapy_v1

from chassis.ase.ike import ike_proposals
from chassis.ase.ike.crypto import algorithms, signatures
from chassis.ase.ike.crypto.algorithms import CIPHERS
from chassis.ase.ike.crypto.diffie_hellman import GROUPS, Ecp, GroupError, Modp
from chassis.ase.ike.crypto.ikev1 import IvChain, after_hash, decrypt_payloads
from chassis.ase.ike.crypto.ikev2 import IntegrityError, SkCipher
from chassis.ase.ike.payloads import v1, v2
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.v1 import DeleteV1, Hash
from chassis.ase.ike.payloads.v2_payloads import DeleteV2, EncryptedFragment, KeV2, NonceV2, VendorV2
from chassis.model.ike import IkeProposal

COUNTING = bytes(range(64))


def test_primes_are_safe_and_exponents_fit() -> None:
    for group in GROUPS.values():
        if isinstance(group, Modp):
            assert group.p.bit_length() == group.bits
            if group.bits <= 3072:
                assert gmpy2.is_prime(group.p, 2)
                assert gmpy2.is_prime((group.p - 1) // 2, 2)


@pytest.mark.parametrize("number", sorted(GROUPS))
def test_both_ends_share_a_secret(number: int) -> None:
    group = GROUPS[number]
    a = group.private((COUNTING * 2)[: group.random_octets])
    b = group.private((COUNTING[::-1] * 2)[: group.random_octets])
    secret = group.shared(a, b.public)
    assert secret == group.shared(b, a.public)
    assert len(a.public) == group.public_octets
    if isinstance(group, Modp):
        assert int.from_bytes(secret, "big") == pow(2, a.secret * b.secret, int(group.p))
    assert str(a.secret) not in repr(a)
    for bad in (bytes(group.public_octets), b"\xff" * group.public_octets, a.public[:-1]):
        if number == 31 and bad[:1] == b"\xff" and len(bad) == 32:
            continue
        with pytest.raises(GroupError):
            group.shared(a, bad)
    with pytest.raises(ValueError):
        group.private(b"short")


@pytest.mark.parametrize("number", [1, 2, 5, 14])
def test_trivial_public_values_are_refused(number: int) -> None:
    group = GROUPS[number]
    assert isinstance(group, Modp)
    pair = group.private(COUNTING[: group.random_octets])
    for value in (0, 1, int(group.p) - 1, int(group.p)):
        with pytest.raises(GroupError):
            group.shared(pair, value.to_bytes(group.public_octets, "big"))


def test_orders_of_the_curves() -> None:
    for group in GROUPS.values():
        if isinstance(group, Ecp):
            one = ec.derive_private_key(1, group.curve).public_key().public_numbers()
            last = ec.derive_private_key(group.order - 1, group.curve).public_key().public_numbers()
            assert (one.x, one.y) != (last.x, last.y)
            assert one.x == last.x


def test_proofs_of_identity() -> None:
    prf = algorithms.PRFS["hmac-sha1"]
    octets = signatures.signed_octets(prf, b"sk_p", b"message", b"nonce", b"id")
    proof = signatures.psk_auth(prf, b"secret", octets)
    assert signatures.psk_verify(prf, b"secret", octets, proof)
    assert not signatures.psk_verify(prf, b"Secret", octets, proof)
    key = rsa.generate_private_key(65537, 1024)
    public = key.public_key()
    assert signatures.rsa_verify(public, octets, signatures.rsa_auth(key, octets))
    assert not signatures.rsa_verify(public, octets + b"!", signatures.rsa_auth(key, octets))
    for number in signatures.SIGNATURE_HASHES:
        data = signatures.digital_auth(key, octets, number)
        assert signatures.digital_verify(public, octets, data)
        assert not signatures.digital_verify(public, octets + b"!", data)
    assert not signatures.digital_verify(public, octets, b"")
    signature = signatures.v1_sign(key, b"h" * 20)
    numbers = public.public_numbers()
    block = pow(int.from_bytes(signature, "big"), numbers.e, numbers.n).to_bytes(128, "big")
    assert block == b"\0\1" + b"\xff" * 105 + b"\0" + b"h" * 20
    assert signatures.v1_verify(public, b"h" * 20, signature)
    assert not signatures.v1_verify(public, b"H" * 20, signature)
    assert not signatures.v1_verify(public, b"h" * 20, signature[:-1])


@pytest.mark.parametrize("name", ["des-cbc", "3des-cbc", "aes-128-cbc", "aes-256-cbc"])
def test_version_1_messages_chain(name: str) -> None:
    cipher = CIPHERS[name]
    chain = IvChain(cipher, COUNTING[: cipher.key_octets], bytes(cipher.block_octets))
    header = Header(b"initiate", b"responds", 0, 0x10, 5, 0, 9, 0)
    payloads = (Hash(b"h" * 20), DeleteV1(3, (b"spi1",)))
    message, after = chain.encrypt(header, payloads)
    again, plain, other = decrypt_payloads(chain, message, Header.parse(message))
    assert again == payloads
    assert other == after
    assert after_hash(plain) == v1.emit_payloads(payloads[1:])[1]
    with pytest.raises(PayloadError):
        chain.decrypt(message[:-1], Header.parse(message))
    assert COUNTING[:8].hex() not in repr(chain)


GUARDS = [
    *(
        SkCipher(
            CIPHERS[c],
            algorithms.INTEGRITY[i],
            COUNTING[: CIPHERS[c].key_octets],
            b"a" * algorithms.INTEGRITY[i].key_octets,
        )
        for c in ("des-cbc", "3des-cbc", "aes-192-cbc")
        for i in ("hmac-md5-96", "hmac-sha1-96", "hmac-sha-256-128")
    ),
    SkCipher(CIPHERS["aes-256-gcm"], None, COUNTING[:36]),
]
HEADER_2 = Header(b"initiate", b"responds", 0, 0x20, 37, 8, 3, 0)


@pytest.mark.parametrize("guard", GUARDS)
def test_version_2_messages_are_sealed(guard: SkCipher) -> None:
    payloads = (DeleteV2(3, (b"spi1",)), VendorV2(b"v" * 700))
    message = guard.encrypt(HEADER_2, payloads, COUNTING[: guard.iv_octets])
    assert guard.decrypt(message, v2.MessageV2.parse(message)) == payloads
    for place in (20, 28 + 4, len(message) - 1):
        broken = bytearray(message)
        broken[place] ^= 1
        with pytest.raises(IntegrityError):
            guard.decrypt(broken, v2.MessageV2.parse(broken))
    assert guard.fragments_needed(payloads, 300) in (3, 4)
    pieces = []
    assert len(guard.encrypt_fragments(HEADER_2, payloads, 300, COUNTING)) == guard.fragments_needed(payloads, 300)
    for fragment in guard.encrypt_fragments(HEADER_2, payloads, 300, COUNTING):
        assert len(fragment) <= 300
        (only,) = v2.MessageV2.parse(fragment).payloads
        assert isinstance(only, EncryptedFragment)
        pieces.append((only.first, guard.decrypt_payload(fragment, only)))
    plain = b"".join(piece for _, piece in pieces)
    assert v2.parse_payloads(pieces[0][0], memoryview(plain), decrypted=True) == payloads


def test_scapy_reads_our_offers() -> None:
    own = IkeProposal("p", dh_group=14, encryption_algorithm="aes-256-cbc")
    first = v2.MessageV2(
        replace(HEADER_2, exchange=34), (ike_proposals.offer_v2([own]), KeV2(14, b"k" * 256), NonceV2(b"n" * 32))
    ).emit()
    seen = scapy_v2.IKEv2(first)
    proposal = seen[scapy_v2.IKEv2_Proposal]
    assert (proposal.proto, proposal.trans_nb) == (1, 4)
    assert (seen[scapy_v2.IKEv2_KE].group, seen[scapy_v2.IKEv2_Nonce].nonce) == (14, b"n" * 32)
    header = Header(b"initiate", bytes(8), 0, 0x10, 2, 0, 0, 0)
    offered = scapy_v1.ISAKMP(v1.MessageV1(header, (ike_proposals.offer_v1([own]),)).emit())
    transforms = {name: value for name, value, *_ in offered[scapy_v1.ISAKMP_payload_Transform].transforms}
    assert transforms["Encryption"] == "AES-CBC"
    assert (transforms["KeyLength"], transforms["Hash"], transforms["LifeDuration"]) == (256, "SHA", 86400)
