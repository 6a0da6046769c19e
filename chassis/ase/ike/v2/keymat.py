"""Keys of an IKE SA: their key exchange, the encryption of messages, fragments (RFC 7296 2.14, 2.17; RFC 7383)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from chassis.ase.ike.crypto.algorithms import CipherSpec, IntegritySpec
from chassis.ase.ike.crypto.diffie_hellman import GROUPS, DhKeyPair, GroupError
from chassis.ase.ike.crypto.ikev2 import IkeKeys, SkCipher, ike_keys
from chassis.ase.ike.errors import syntax_error_v2
from chassis.ase.ike.ike_proposals import ChoiceV2, settled_v2
from chassis.ase.ike.payloads.chain import first_of_type
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import EncryptedFragment, KeV2, NonceV2
from chassis.ase.ike.payloads.v2_sa import SaV2

_TSHARK_CIPHERS = {
    "3des-cbc": "3DES [RFC2451]",
    "aes-128-cbc": "AES-CBC-128 [RFC3602]",
    "aes-192-cbc": "AES-CBC-192 [RFC3602]",
    "aes-256-cbc": "AES-CBC-256 [RFC3602]",
    "aes-128-gcm": "AES-GCM-128 with 16 octet ICV [RFC5282]",
    "aes-192-gcm": "AES-GCM-192 with 16 octet ICV [RFC5282]",
    "aes-256-gcm": "AES-GCM-256 with 16 octet ICV [RFC5282]",
}
"""Names in Wireshark's table of IKEv2 keys. Wireshark refuses the whole file if it does not know a name."""

_UNCHECKED = "ANY 96-bits of Authentication [No Checking]"
"""For an algorithm that Wireshark lacks. A row with it must leave both SK_a empty, else the file is refused."""

_TSHARK_INTEGRITY = {
    "hmac-md5-96": "HMAC_MD5_96 [RFC2403]",
    "hmac-sha1-96": "HMAC_SHA1_96 [RFC2404]",
    "hmac-aes-xcbc": _UNCHECKED,
    "hmac-sha-256-128": "HMAC_SHA2_256_128 [RFC4868]",
    "hmac-sha-384-192": "HMAC_SHA2_384_192 [RFC4868]",
    "hmac-sha-512-256": "HMAC_SHA2_512_256 [RFC4868]",
}


@dataclass(slots=True)
class IkeSaKeymat:
    """`sending` and `receiving` are the ciphers of our two directions; `ivs` is the next IV of an AEAD cipher."""

    choice: ChoiceV2
    keys: IkeKeys = field(repr=False)
    sending: SkCipher
    receiving: SkCipher
    ivs: int = 0

    @classmethod
    def make(
        cls, choice: ChoiceV2, seed: bytes, ni: bytes, nr: bytes, spi_i: bytes, spi_r: bytes, *, initiator: bool
    ) -> IkeSaKeymat:
        """Derive all keys from SKEYSEED `seed` (RFC 7296 2.14). `initiator`: we are the IKE SA's initiator."""
        cipher: CipherSpec = choice.cipher
        integrity: IntegritySpec | None = choice.integrity
        keys = ike_keys(choice.prf, cipher, integrity, seed, ni, nr, spi_i, spi_r)
        return cls.of(choice, keys, initiator=initiator)

    @classmethod
    def of(cls, choice: ChoiceV2, keys: IkeKeys, *, initiator: bool) -> IkeSaKeymat:
        """Return what these keys are used for. `initiator`: we are the IKE SA's initiator."""
        ours = SkCipher(choice.cipher, choice.integrity, keys.ei, keys.ai)
        theirs = SkCipher(choice.cipher, choice.integrity, keys.er, keys.ar)
        return cls(choice, keys, *((ours, theirs) if initiator else (theirs, ours)))

    def settle(self) -> None:
        """Forget what nothing needs once the IKE SA is established: the answer to the offer, and both SK_p."""
        self.choice = settled_v2(self.choice.proposal)
        self.keys = replace(self.keys, pi=b"", pr=b"")

    def next_ivs(self, count: int) -> bytes:
        """Return `count` IVs of 8 octets for an AEAD cipher, end to end; none repeats (RFC 5282 section 4)."""
        first = self.ivs
        self.ivs += count
        return b"".join(number.to_bytes(8, "big") for number in range(first, self.ivs))

    def wireshark_rows(self, spi_i: bytes, spi_r: bytes) -> list[dict[str, str]]:
        """Return the row of Wireshark's key table; empty for a cipher that Wireshark cannot decrypt."""
        encryption = _TSHARK_CIPHERS.get(self.choice.cipher.name)
        if encryption is None:
            return []
        integrity = self.choice.integrity
        name = "NONE [RFC4306]" if integrity is None else _TSHARK_INTEGRITY[integrity.name]
        sk_a = ("", "") if name == _UNCHECKED else (self.keys.ai.hex(), self.keys.ar.hex())
        return [
            {
                "kind": "ikev2",
                "spi_i": spi_i.hex(),
                "spi_r": spi_r.hex(),
                "sk_ei": self.keys.ei.hex(),
                "sk_er": self.keys.er.hex(),
                "encryption": encryption,
                "sk_ai": sk_a[0],
                "sk_ar": sk_a[1],
                "integrity": name,
            }
        ]


NONCE_OCTETS = 32
"""Octets of our nonces: at least half of any PRF's key (RFC 7296 2.10)."""


def key_exchange_payloads(payloads: tuple[PayloadV2, ...]) -> tuple[SaV2, NonceV2, KeV2]:
    """Return the payloads that negotiate an IKE SA.

    Raises:
        NegotiationError: one of them is missing.
    """
    offered, nonce, ke = (
        first_of_type(payloads, SaV2),
        first_of_type(payloads, NonceV2),
        first_of_type(payloads, KeV2),
    )
    if offered is None or nonce is None or ke is None:
        raise syntax_error_v2("SA, nonce or public value is missing")
    return offered, nonce, ke


def shared_secret(dh_key: DhKeyPair, ke: KeV2) -> bytes:
    """Return the Diffie-Hellman shared secret g^ir.

    Raises:
        NegotiationError: the peer's public value is invalid.
    """
    try:
        return GROUPS[dh_key.group].shared(dh_key, ke.public)
    except GroupError as error:
        raise syntax_error_v2(str(error)) from error


MAX_ASSEMBLED_OCTETS = 65_536
"""Plaintext (octets) of a message that is reassembled; a longer one is dropped."""


def encrypt_message(
    keymat: IkeSaKeymat,
    header: Header,
    payloads: tuple[PayloadV2, ...],
    room: int,
    random: Callable[[int], bytes],
    *,
    fragment: bool,
) -> tuple[bytes, ...]:
    """Return the datagrams of a message: one, or with `fragment` as many of at most `room` octets as it needs."""
    cipher = keymat.sending

    def ivs(count: int) -> bytes:
        return keymat.next_ivs(count) if cipher.cipher.aead else random(count * cipher.iv_octets)

    whole = cipher.encrypt(header, payloads, ivs(1))
    if len(whole) <= room or not fragment:
        return (whole,)
    return cipher.encrypt_fragments(header, payloads, room, ivs(cipher.fragments_needed(payloads, room)))


@dataclass(slots=True)
class Assembly:
    """The authentic fragments of one message (RFC 7383 2.6); a fragment of another message replaces them."""

    message_id: int = -1
    total: int = 0
    first: int = 0
    parts: dict[int, bytes] = field(default_factory=dict)

    def needs(self, message_id: int, fragment: EncryptedFragment) -> bool:
        """Return whether to decrypt a fragment: it is missing, or of a finer fragmentation (RFC 7383 2.6)."""
        if message_id != self.message_id or fragment.total > self.total:
            return True
        return fragment.total == self.total and fragment.number not in self.parts

    def add(self, message_id: int, fragment: EncryptedFragment, plain: bytes) -> tuple[int, bytes] | None:
        """Return (first payload type, plaintext of the message) once all fragments are there; None before."""
        if message_id != self.message_id or fragment.total > self.total:
            self.clear()
            self.message_id, self.total = message_id, fragment.total
        self.parts[fragment.number] = plain
        if fragment.number == 1:
            self.first = fragment.first
        if sum(map(len, self.parts.values())) > MAX_ASSEMBLED_OCTETS:
            self.clear()
            return None
        if len(self.parts) < self.total:
            return None
        whole = b"".join(self.parts[number] for number in range(1, self.total + 1))
        first = self.first
        self.clear()
        return first, whole

    def clear(self) -> None:
        self.message_id, self.total, self.first = -1, 0, 0
        self.parts.clear()
