"""Keying material of phase 1 (RFC 2409 5): cookies, public values, nonces, SKEYID, the IV chain, NAT-D hashes.

`Phase1Negotiation` collects what both ends contribute, and derives the keys. The functions read the payloads of a
received message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from chassis.ase.ike.connections import Connection, ConnectionGroup
from chassis.ase.ike.crypto import ikev1
from chassis.ase.ike.crypto.algorithms import PRFS_V1_HASH, PrfSpec
from chassis.ase.ike.crypto.diffie_hellman import GROUPS, DhKeyPair, GroupError
from chassis.ase.ike.crypto.ikev1 import IvChain, SkeyId, equal, nat_hash
from chassis.ase.ike.errors import NegotiationError
from chassis.ase.ike.host import NetworkPath
from chassis.ase.ike.ike_proposals import METHODS_V1, OAKLEY_METHOD, ChoiceV1, settled_v1
from chassis.ase.ike.payloads.header import ENCRYPTION, HEADER_LENGTH, VERSION_1, Header
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1
from chassis.ase.ike.payloads.v1 import Hash, NatD, NotifyV1, PayloadV1, VendorV1, emit_payloads, parse_payloads
from chassis.ase.ike.payloads.v1_sa import SaV1

NONCE_OCTETS: Final = 20
NO_COOKIE: Final = bytes(8)
"""The responder's cookie in the first message (RFC 2408 2.5.3)."""
PSK: Final = METHODS_V1["pre-shared-key"][0]
"""Authentication method of preshared keys."""

NAT_T_VENDOR: Final = VendorV1(bytes.fromhex("4a131c81070358455c5728f20e95452f"))
"""NAT traversal: MD5 of "RFC 3947" (RFC 3947 3.1)."""
DPD_VENDOR: Final = VendorV1(bytes.fromhex("afcad71368a1f1c96b8696fc77570100"))
"""Dead peer detection (RFC 3706 5.2)."""

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A received message: its octets, its parsed header, where it came from, and when (s)."""

    data: bytes
    header: Header
    path: NetworkPath
    now: float


@dataclass(slots=True)
class Phase1Negotiation:
    """What one phase 1 has agreed so far. An empty or None field has not come yet.

    `mode` is the exchange type. `members` are the connections of `group` that the peer may still mean. `sa_i` is
    the body of the initiator's SA payload as sent, `g_i` and `g_r` are public values, `ni` and `nr` nonces.
    """

    mode: int
    cky_i: bytes
    cky_r: bytes = NO_COOKIE
    group: ConnectionGroup | None = None
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
    """The cipher, with the IV after the last encrypted message of phase 1."""
    nat_t: bool = False
    """The peer has NAT traversal (RFC 3947)."""
    dpd: bool = False
    """The peer has dead peer detection (RFC 3706)."""
    behind_nat: bool = False
    peer_behind_nat: bool = False
    peer_initial_contact: bool = False
    """The peer sent INITIAL-CONTACT."""
    undecryptable: int = 0
    """Messages that did not decrypt while MM6 was due (count)."""

    def settle(self) -> None:
        """Forget what only the negotiation needed: the keys and the chosen values are left."""
        self.group, self.members, self.dh_key = None, (), None
        self.sa_i = self.ni = self.nr = self.g_i = self.g_r = b""
        self.choice = settled_v1(self.chosen.proposal, self.chosen.lifetime)

    @property
    def cookies(self) -> bytes:
        """Both cookies: the SPI of the ISAKMP SA."""
        return self.cky_i + self.cky_r

    @property
    def chosen(self) -> ChoiceV1:
        """The chosen proposal; read it only after it was chosen."""
        assert self.choice is not None
        return self.choice

    @property
    def prf(self) -> PrfSpec:
        """The HMAC of the chosen hash (RFC 2409 4)."""
        hash_number = self.chosen.integrity.v1_hash
        assert hash_number is not None
        return PRFS_V1_HASH[hash_number]

    @property
    def hash_name(self) -> str:
        """The chosen hash, by its name in `hashlib`."""
        name = self.prf.hash_name
        assert name is not None
        return name

    @property
    def by_psk(self) -> bool:
        """Whether the peers authenticate by preshared key."""
        return self.chosen.proposal.authentication == "pre-shared-key"

    def header(self, exchange: int, message_id: int = 0) -> Header:
        """Return the header of a message of this SA, with `next_payload` and `length` 0."""
        return Header(self.cky_i, self.cky_r, 0, VERSION_1, exchange, 0, message_id, 0)

    def make_ke_and_nonce(self, random: Callable[[int], bytes], initiator: bool) -> None:
        """Make our public value in the chosen group, and our nonce."""
        group = GROUPS[self.chosen.proposal.dh_group]
        self.dh_key = group.private(random(group.random_octets))
        nonce = random(NONCE_OCTETS)
        if initiator:
            self.g_i, self.ni = self.dh_key.public, nonce
        else:
            self.g_r, self.nr = self.dh_key.public, nonce

    def derive(self, psk: bytes | None, initiator: bool) -> None:
        """Derive SKEYID and its keys, and the cipher, when both public values and nonces are there.

        Raises:
            NegotiationError: the peer's public value is not one of the group, or there is no preshared key.
        """
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
        """Return HASH_I or HASH_R over the ID payload of that end."""
        assert self.keys is not None
        make = ikev1.hash_i if initiator else ikev1.hash_r
        return make(self.keys, self.g_i, self.g_r, self.cky_i, self.cky_r, self.sa_i, id_body)

    def exchange_chain(self, message_id: int) -> IvChain:
        """Return the cipher with the first IV of a quick mode or informational exchange (RFC 2409 appendix B)."""
        assert self.chain is not None
        cipher = self.chain.cipher
        iv = ikev1.message_iv(self.hash_name, cipher, self.chain.iv, message_id)
        return IvChain(cipher, self.chain.key, iv)

    def informational(self, message_id: int, payloads: Sequence[PayloadV1]) -> bytes:
        """Return an informational message under the keys (RFC 2409 5.7)."""
        assert self.keys is not None
        digest = ikev1.quick_hash_1(self.keys, message_id, emit_payloads(payloads)[1])
        header = self.header(ExchangeType.INFORMATIONAL_V1, message_id)
        message, _ = self.exchange_chain(message_id).encrypt(header, (Hash(digest), *payloads))
        return message

    def nat_d_payloads(self, path: NetworkPath) -> tuple[NatD, NatD]:
        """Return our NAT-D payloads: the hash of the peer's address and port as seen here, then of our own."""
        return (
            NatD(self._nat_d_hash(path.remote, path.remote_port)),
            NatD(self._nat_d_hash(path.local, path.local_port)),
        )

    def detect_nat(self, received: Sequence[NatD], path: NetworkPath) -> None:
        """Store which end is behind a NAT, by the peer's NAT-D payloads (RFC 3947 3.2): the first one is for the
        address at which the peer sees us, the others are for its own."""
        if len(received) < 2:
            self.behind_nat = self.peer_behind_nat = False
            return
        ours = self._nat_d_hash(path.local, path.local_port)
        peers = self._nat_d_hash(path.remote, path.remote_port)
        self.behind_nat = not equal(received[0].hash, ours)
        self.peer_behind_nat = not any(equal(one.hash, peers) for one in received[1:])

    def _nat_d_hash(self, address: int, port: int) -> bytes:
        return nat_hash(self.hash_name, self.cky_i, self.cky_r, address.to_bytes(4, "big"), port)


def cleartext_payloads(message: IncomingMessage) -> tuple[PayloadV1, ...]:
    """Return the payloads of a message in clear.

    Raises:
        PayloadError: they do not decode.
    """
    return parse_payloads(message.header.next_payload, memoryview(message.data)[HEADER_LENGTH:])


def is_encrypted(message: IncomingMessage) -> bool:
    """Return whether the header says that the payloads are encrypted."""
    return bool(message.header.flags & ENCRYPTION)


def exactly_one(payloads: Iterable[PayloadV1], kind: type[P]) -> P:
    """Return the only payload of a type.

    Raises:
        NegotiationError: it is missing, or there are several.
    """
    found = [one for one in payloads if isinstance(one, kind)]
    if len(found) != 1:
        text = f"{len(found)} {kind.__name__.removesuffix('V1').upper()} payloads, expected 1"
        raise NegotiationError("malformed", text, notify=NotifyTypeV1.PAYLOAD_MALFORMED)
    return found[0]


def sa_body(message: IncomingMessage, payloads: tuple[PayloadV1, ...]) -> bytes:
    """Return the body of the SA payload as received.

    Raises:
        NegotiationError: the SA payload is not the first one (RFC 2409 5).
    """
    if not payloads or not isinstance(payloads[0], SaV1):
        text = "the first payload is not an SA payload"
        raise NegotiationError("malformed", text, notify=NotifyTypeV1.PAYLOAD_MALFORMED)
    start = HEADER_LENGTH + 4
    size = int.from_bytes(message.data[HEADER_LENGTH + 2 : start], "big")
    return message.data[start : HEADER_LENGTH + size]


def offered_method(sa: SaV1) -> int:
    """Return the authentication method of the first transform that has one; 0 if none has."""
    for proposal in sa.proposals:
        for transform in proposal.transforms:
            for attribute in transform.attributes:
                if attribute.type == OAKLEY_METHOD:
                    return attribute.number
    return 0


def has_initial_contact(payloads: tuple[PayloadV1, ...]) -> bool:
    """Return whether INITIAL-CONTACT is among the payloads."""
    return any(isinstance(one, NotifyV1) and one.notify == NotifyTypeV1.INITIAL_CONTACT for one in payloads)
