"""The keys of an IKE SA, and what a message goes through on its way out and in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from chassis.ase.ike.crypto.algorithms import CipherSpec, IntegritySpec
from chassis.ase.ike.crypto.ikev2 import IkeKeys, SkCipher, ike_keys
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import EncryptedFragment
from chassis.ase.ike.proposals import ChoiceV2

_TSHARK_CIPHERS = {
    "3des-cbc": "3DES [RFC2451]",
    "aes-128-cbc": "AES-CBC-128 [RFC3602]",
    "aes-192-cbc": "AES-CBC-192 [RFC3602]",
    "aes-256-cbc": "AES-CBC-256 [RFC3602]",
    "aes-128-gcm": "AES-GCM-128 with 16 octet ICV [RFC5282]",
    "aes-192-gcm": "AES-GCM-192 with 16 octet ICV [RFC5282]",
    "aes-256-gcm": "AES-GCM-256 with 16 octet ICV [RFC5282]",
}
"""Names in Wireshark's table of IKEv2 keys; one that it does not know makes it refuse the whole file."""

_UNCHECKED = "ANY 96-bits of Authentication [No Checking]"
"""For an algorithm that Wireshark lacks. A row with it has to leave both SK_a empty, or the file is refused."""

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
    """`sending` and `receiving` are the guards of our two directions; an AEAD counts its IVs in `ivs`."""

    choice: ChoiceV2
    keys: IkeKeys = field(repr=False)
    sending: SkCipher
    receiving: SkCipher
    ivs: int = 0

    @classmethod
    def make(
        cls, choice: ChoiceV2, seed: bytes, ni: bytes, nr: bytes, spi_i: bytes, spi_r: bytes, *, initiator: bool
    ) -> IkeSaKeymat:
        """From SKEYSEED `seed`; `initiator` says whether we are the IKE SA's."""
        cipher: CipherSpec = choice.cipher
        integrity: IntegritySpec | None = choice.integrity
        keys = ike_keys(choice.prf, cipher, integrity, seed, ni, nr, spi_i, spi_r)
        ours = SkCipher(cipher, integrity, keys.ei, keys.ai)
        theirs = SkCipher(cipher, integrity, keys.er, keys.ar)
        return cls(choice, keys, *((ours, theirs) if initiator else (theirs, ours)))

    def next_ivs(self, count: int) -> bytes:
        """IVs for an AEAD, end to end, none of them ever used before with its key (RFC 5282 section 4)."""
        first = self.ivs
        self.ivs += count
        return b"".join(number.to_bytes(8, "big") for number in range(first, self.ivs))

    def wireshark_rows(self, spi_i: bytes, spi_r: bytes) -> list[dict[str, str]]:
        """The row of Wireshark's table; none for a cipher that it cannot read."""
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


MAX_ASSEMBLED_OCTETS = 65_536
"""Plaintext of one message that is put together; a longer one is given up."""


def encrypt_message(
    keyring: IkeSaKeymat,
    header: Header,
    payloads: tuple[PayloadV2, ...],
    room: int,
    random: Callable[[int], bytes],
    *,
    fragment: bool,
) -> tuple[bytes, ...]:
    """The datagrams of a message: one, or fragments of at most `room` octets where the peer takes them."""
    guard = keyring.sending

    def ivs(count: int) -> bytes:
        return keyring.next_ivs(count) if guard.cipher.aead else random(count * guard.iv_octets)

    whole = guard.encrypt(header, payloads, ivs(1))
    if len(whole) <= room or not fragment:
        return (whole,)
    return guard.encrypt_fragments(header, payloads, room, ivs(guard.fragments_needed(payloads, room)))


@dataclass(slots=True)
class Assembly:
    """Fragments of one message, each authentic already. Only one message is in the making for each direction."""

    message_id: int = -1
    total: int = 0
    first: int = 0
    parts: dict[int, bytes] = field(default_factory=dict)

    def needs(self, message_id: int, fragment: EncryptedFragment) -> bool:
        """Whether it is worth opening: not there yet, and not of an older cut (RFC 7383 2.6)."""
        if message_id != self.message_id or fragment.total > self.total:
            return True
        return fragment.total == self.total and fragment.number not in self.parts

    def add(self, message_id: int, fragment: EncryptedFragment, plain: bytes) -> tuple[int, bytes] | None:
        """(first payload type, plaintext) once all parts are there."""
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
