"""What the two ends of a phase 1 put together: cookies, values, keys (RFC 2409 section 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from chassis.ase.ike.connections import Connection, Group
from chassis.ase.ike.crypto import ikev1
from chassis.ase.ike.crypto.algorithms import PRFS_V1_HASH, PrfSpec
from chassis.ase.ike.crypto.diffie_hellman import GROUPS, DhKeyPair, GroupError
from chassis.ase.ike.crypto.ikev1 import IvChain, SkeyId, equal, nat_hash
from chassis.ase.ike.errors import NegotiationError
from chassis.ase.ike.host import Path
from chassis.ase.ike.ike_proposals import METHODS_V1, OAKLEY_METHOD, ChoiceV1
from chassis.ase.ike.payloads.header import ENCRYPTION, HEADER_LENGTH, VERSION_1, Header
from chassis.ase.ike.payloads.numbers import NotifyTypeV1
from chassis.ase.ike.payloads.v1 import NatD, NotifyV1, PayloadV1, VendorV1, parse_payloads
from chassis.ase.ike.payloads.v1_sa import SaV1

NONCE_OCTETS: Final = 20
NO_COOKIE: Final = bytes(8)
PSK: Final = METHODS_V1["pre-shared-key"][0]

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A message as it came."""

    data: bytes
    header: Header
    path: Path
    now: float


@dataclass(slots=True)
class Phase1Negotiation:
    """One phase 1. `sa_i` is the body of the initiator's SA payload as sent; `g_i`, `g_r` are public values.

    `members` are the connections that the peer may still mean.
    """

    mode: int
    cky_i: bytes
    cky_r: bytes = NO_COOKIE
    group: Group | None = None
    members: tuple[Connection, ...] = ()
    sa_i: bytes = b""
    choice: ChoiceV1 | None = None
    dh_key: DhKeyPair | None = field(default=None, repr=False)
    ni: bytes = b""
    nr: bytes = b""
    g_i: bytes = b""
    g_r: bytes = b""
    keys: SkeyId | None = field(default=None, repr=False)
    chain: IvChain | None = field(default=None, repr=False)
    """At its place after the last encrypted message of phase 1."""
    nat_t: bool = False
    """Both ends speak RFC 3947."""
    dpd: bool = False
    behind_nat: bool = False
    peer_behind_nat: bool = False
    peer_initial_contact: bool = False
    """The peer said INITIAL-CONTACT."""
    undecryptable: int = 0
    """Messages that made no sense under our keys while the peer's proof was due."""

    @property
    def cookies(self) -> bytes:
        """Both cookies: the SPI of the ISAKMP SA."""
        return self.cky_i + self.cky_r

    @property
    def chosen(self) -> ChoiceV1:
        assert self.choice is not None
        return self.choice

    @property
    def prf(self) -> PrfSpec:
        hash_number = self.chosen.integrity.v1_hash
        assert hash_number is not None
        return PRFS_V1_HASH[hash_number]

    @property
    def hash_name(self) -> str:
        name = self.prf.hash_name
        assert name is not None
        return name

    @property
    def by_psk(self) -> bool:
        return self.chosen.proposal.authentication == "pre-shared-key"

    def header(self, exchange: int, message_id: int = 0) -> Header:
        """The header of a message of this SA; `next_payload` and `length` are filled in later."""
        return Header(self.cky_i, self.cky_r, 0, VERSION_1, exchange, 0, message_id, 0)

    def make_ke_and_nonce(self, random: Callable[[int], bytes], initiator: bool) -> None:
        """Our public value and nonce in the chosen group."""
        group = GROUPS[self.chosen.proposal.dh_group]
        self.dh_key = group.private(random(group.random_octets))
        nonce = random(NONCE_OCTETS)
        if initiator:
            self.g_i, self.ni = self.dh_key.public, nonce
        else:
            self.g_r, self.nr = self.dh_key.public, nonce

    def derive(self, psk: bytes | None, initiator: bool) -> None:
        """SKEYID and the cipher, once all values are there; NegotiationError for a public value that is none."""
        chosen = self.chosen
        assert self.dh_key is not None
        try:
            secret = GROUPS[chosen.proposal.dh_group].shared(self.dh_key, self.g_r if initiator else self.g_i)
        except GroupError as error:
            raise NegotiationError(
                "key exchange", str(error), notify=NotifyTypeV1.INVALID_KEY_INFORMATION
            ) from error
        if self.by_psk:
            if psk is None:
                raise NegotiationError(
                    "no key", "no preshared key is configured", notify=NotifyTypeV1.AUTHENTICATION_FAILED
                )
            skeyid = ikev1.skeyid_psk(self.prf, psk, self.ni, self.nr)
        else:
            skeyid = ikev1.skeyid_signature(self.prf, self.ni, self.nr, secret)
        self.keys = ikev1.derive(self.prf, skeyid, secret, self.cky_i, self.cky_r)
        key = ikev1.encryption_key(self.keys, chosen.cipher)
        self.chain = IvChain(chosen.cipher, key, ikev1.first_iv(self.hash_name, chosen.cipher, self.g_i, self.g_r))

    def auth_hash(self, initiator: bool, id_body: bytes) -> bytes:
        """HASH_I or HASH_R."""
        assert self.keys is not None
        make = ikev1.hash_i if initiator else ikev1.hash_r
        return make(self.keys, self.g_i, self.g_r, self.cky_i, self.cky_r, self.sa_i, id_body)

    def exchange_chain(self, message_id: int) -> IvChain:
        """The start of the chain of a quick mode or informational exchange."""
        assert self.chain is not None
        cipher = self.chain.cipher
        iv = ikev1.message_iv(self.hash_name, cipher, self.chain.iv, message_id)
        return IvChain(cipher, self.chain.key, iv)


def cleartext_payloads(message: IncomingMessage) -> tuple[PayloadV1, ...]:
    """The payloads of a message that has to be in clear; raises PayloadError."""
    return parse_payloads(message.header.next_payload, memoryview(message.data)[HEADER_LENGTH:])


def is_encrypted(message: IncomingMessage) -> bool:
    return bool(message.header.flags & ENCRYPTION)


def first_of_type(payloads: Iterable[PayloadV1], kind: type[P]) -> P | None:
    """The first payload of a kind, None without one."""
    return next((one for one in payloads if isinstance(one, kind)), None)


def exactly_one(payloads: Iterable[PayloadV1], kind: type[P]) -> P:
    """The one payload of a kind; NegotiationError when it is missing or there are several."""
    found = [one for one in payloads if isinstance(one, kind)]
    if len(found) != 1:
        raise NegotiationError(
            "malformed",
            f"{len(found)} payloads {kind.__name__} where one is due",
            notify=NotifyTypeV1.PAYLOAD_MALFORMED,
        )
    return found[0]


def sa_body(message: IncomingMessage, payloads: tuple[PayloadV1, ...]) -> bytes:
    """The body of the SA payload, which has to be the first one, as it came."""
    if not payloads or not isinstance(payloads[0], SaV1):
        raise NegotiationError("malformed", "the first payload is no SA", notify=NotifyTypeV1.PAYLOAD_MALFORMED)
    start = HEADER_LENGTH + 4
    size = int.from_bytes(message.data[HEADER_LENGTH + 2 : start], "big")
    return message.data[start : HEADER_LENGTH + size]


def offered_method(sa: SaV1) -> int:
    """The authentication method of the first transform that names one, 0 without any."""
    for proposal in sa.proposals:
        for transform in proposal.transforms:
            for attribute in transform.attributes:
                if attribute.type == OAKLEY_METHOD:
                    return attribute.number
    return 0


NAT_T_VENDOR: Final = VendorV1(bytes.fromhex("4a131c81070358455c5728f20e95452f"))
"""MD5 of "RFC 3947"."""
DPD_VENDOR: Final = VendorV1(bytes.fromhex("afcad71368a1f1c96b8696fc77570100"))
"""Dead peer detection (RFC 3706 5.2)."""


def _nat_d_hash(hash_name: str, cky_i: bytes, cky_r: bytes, address: int, port: int) -> bytes:
    return nat_hash(hash_name, cky_i, cky_r, address.to_bytes(4, "big"), port)


def nat_d_payloads(hash_name: str, cky_i: bytes, cky_r: bytes, path: Path) -> tuple[NatD, NatD]:
    """The peer's address and port as we see them, then our own."""
    return (
        NatD(_nat_d_hash(hash_name, cky_i, cky_r, path.remote, path.remote_port)),
        NatD(_nat_d_hash(hash_name, cky_i, cky_r, path.local, path.local_port)),
    )


def detect_nat(
    received: Sequence[NatD], hash_name: str, cky_i: bytes, cky_r: bytes, path: Path
) -> tuple[bool, bool]:
    """(we are behind a NAT, the peer is), by the peer's NAT-D payloads: the first is what it sees of us."""
    if len(received) < 2:
        return False, False
    ours = _nat_d_hash(hash_name, cky_i, cky_r, path.local, path.local_port)
    peers = _nat_d_hash(hash_name, cky_i, cky_r, path.remote, path.remote_port)
    return not equal(received[0].hash, ours), not any(equal(one.hash, peers) for one in received[1:])


def has_initial_contact(payloads: tuple[PayloadV1, ...]) -> bool:
    """Whether INITIAL-CONTACT is among the payloads."""
    return any(isinstance(one, NotifyV1) and one.notify == NotifyTypeV1.INITIAL_CONTACT for one in payloads)
