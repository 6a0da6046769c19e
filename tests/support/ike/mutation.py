"""Messages of IKE with something wrong in them, made by the thousand from right ones by a seed.

`mutations` is the mutator; `hammer` gives what it makes to the decoders, in clear and inside encryption.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from chassis.ase.ike import child_proposals, ike_proposals
from chassis.ase.ike.crypto.algorithms import CIPHERS, INTEGRITY
from chassis.ase.ike.crypto.ikev1 import IvChain, after_hash, decrypt_payloads
from chassis.ase.ike.crypto.ikev2 import SkCipher
from chassis.ase.ike.log import text
from chassis.ase.ike.payloads import v1, v2
from chassis.ase.ike.payloads.chain import PayloadError, UnknownPayload
from chassis.ase.ike.payloads.header import HEADER_LENGTH, Header
from chassis.ase.ike.payloads.numbers import NotifyTypeV1, NotifyTypeV2, PayloadTypeV2
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
    EncryptedFragment,
    IdV2,
    KeV2,
    NonceV2,
    NotifyV2,
    TrafficSelector,
    VendorV2,
)
from chassis.model.ike import IkeProposal
from chassis.model.ipsec import IpsecProposal

OCTETS = (0, 1, 2, 3, 4, 7, 8, 16, 0x20, 0x2E, 0x7F, 0x80, 0xFF)
LENGTHS = (0, 1, 3, 4, 5, 7, 8, 9, 12, 16, 28, 0x7FFF, 0x8000, 0xFFFF)
MOST = 4096

SPI_I, SPI_R = b"initiate", b"responds"
HEADER_1 = Header(SPI_I, SPI_R, 0, 0x10, 2, 0, 0, 0)
HEADER_2 = Header(SPI_I, SPI_R, 0, 0x20, 34, 8, 0, 0)


# --- the mutator ---


def mutations(seed: int, corpus: Sequence[bytes], count: int, *, header: bool = True) -> Iterator[bytes]:
    """`count` messages, each one of `corpus` with one to four things changed.

    `header` says that they begin with an IKE header, whose length field is then put right in three of four: so
    that what is wrong lies behind it.
    """
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(rng.choice(corpus))
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
            rng.choice(_CHANGES)(rng, data, corpus)
        del data[MOST:]
        if header and len(data) >= HEADER_LENGTH and rng.random() < 0.75:
            data[24:28] = len(data).to_bytes(4, "big")
        yield bytes(data)


def _flip(rng: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _octet(rng: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(OCTETS)


def _length(rng: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    """Two octets that may be a length: a remarkable number, or nearly what they were."""
    if len(data) >= 2:
        at = rng.randrange(len(data) - 1)
        was = int.from_bytes(data[at : at + 2], "big")
        now = rng.choice(LENGTHS) if rng.random() < 0.5 else was + rng.choice((-4, -1, 1, 4, 20))
        data[at : at + 2] = (now & 0xFFFF).to_bytes(2, "big")


def _cut(rng: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _leave_out(rng: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.choice((1, 2, 4, 8, 40))]


def _put_in(rng: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 40)))


def _twice(rng: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = data[at : at + rng.choice((4, 8, 12, 40, 200))]


def _splice(rng: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    """The beginning of this one, the end of another."""
    other = rng.choice(corpus)
    data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other) + 1) :]


_CHANGES: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    _flip, _flip, _octet, _octet, _length, _length, _cut, _leave_out, _put_in, _twice, _splice,
)  # fmt: skip


# --- right messages ---

_PROPOSALS = (
    IkeProposal("a", dh_group=2, encryption_algorithm="aes-256-cbc"),
    IkeProposal("b", dh_group=14, encryption_algorithm="3des-cbc"),
)
_SUITES = (
    child_proposals.Suite(IpsecProposal("bundle", ah="hmac-sha1-96", esp_encryption="aes-128-cbc",
        esp_authentication="hmac-md5-96", lifetime_seconds=3600), 2, True),
    child_proposals.Suite(IpsecProposal("esp", ip_comp=True, esp_encryption="3des-cbc",
        esp_authentication="hmac-sha1-96", lifetime_seconds=90_000, lifetime_kbytes=100_000)),
)  # fmt: skip
_SPIS = {2: b"ahah", 3: b"espe", 4: b"cp"}

V1_CHAINS: tuple[tuple[v1.PayloadV1, ...], ...] = (
    (ike_proposals.offer_v1(_PROPOSALS), v1.VendorV1(b"v" * 16), v1.VendorV1(b"w" * 20)),
    (v1.KeV1(b"k" * 128), v1.NonceV1(b"n" * 20), v1.CertReqV1(4, b"0\0"), v1.NatD(b"h" * 20),
        v1.NatD(b"i" * 20, 130)),
    (v1.IdV1(2, b"gw.example", 17, 500), v1.CertV1(4, b"c" * 90), v1.Signature(b"s" * 64),
        v1.NotifyV1(NotifyTypeV1.INITIAL_CONTACT, 1, SPI_I + SPI_R)),
    (ike_proposals.offer_v1(_PROPOSALS), v1.KeV1(b"k" * 96), v1.NonceV1(b"n" * 16), v1.IdV1.address(0x0A000001),
        v1.Hash(b"h" * 20)),
    (v1.Hash(b"h" * 20), child_proposals.offer_v1(_SUITES, _SPIS), v1.NonceV1(b"n" * 16),
        v1.IdV1.subnet(0x0A000000, 0xFF000000), v1.IdV1.range(0x0A000000, 0x0A0000FF, 6, 80),
        v1.NatOa(1, b"\x0a\0\0\1")),
    (v1.Hash(b"h" * 20), v1.DeleteV1(3, (b"spi1", b"spi2"))),
    (v1.Hash(b"h" * 16), v1.NotifyV1(NotifyTypeV1.R_U_THERE, 1, SPI_I + SPI_R, b"\0\0\0\7")),
)  # fmt: skip

V2_CHAINS: tuple[tuple[v2.PayloadV2, ...], ...] = (
    (NotifyV2(NotifyTypeV2.COOKIE, b"c" * 24), ike_proposals.offer_v2(_PROPOSALS), KeV2(14, b"k" * 256),
        NonceV2(b"n" * 32), NotifyV2(NotifyTypeV2.NAT_DETECTION_SOURCE_IP, b"s" * 20),
        NotifyV2(NotifyTypeV2.NAT_DETECTION_DESTINATION_IP, b"d" * 20), VendorV2(b"vendor")),
    (
        IdV2(35, 2, b"gw.example"),
        CertV2(4, b"c" * 90),
        CertReqV2(4, b"h" * 40),
        IdV2(36, 1, b"\x0a\0\0\1"),
        Auth(1, b"a" * 128),
        child_proposals.offer_v2(_SUITES, _SPIS, with_group=False),
        TS(44, (TrafficSelector(0x0A000000, 0x0AFFFFFF), TrafficSelector(1, 2, 6, 80, 80))),
        TS(45, (TrafficSelector(0, (1 << 128) - 1, kind=IPV6_RANGE),)),
        ConfigPayload(1, (ConfigAttribute(1), ConfigAttribute(3, b"\x0a\0\0\1"), ConfigAttribute(120))),
        NotifyV2(NotifyTypeV2.INITIAL_CONTACT),
    ),
    (NotifyV2(NotifyTypeV2.REKEY_SA, b"", 3, b"spi1"), child_proposals.offer_v2(_SUITES, _SPIS, with_group=True),
        NonceV2(b"n" * 16), KeV2(2, b"k" * 128), TS(44, (TrafficSelector(0, 0xFFFFFFFF),)),
        TS(45, (TrafficSelector(0, 0xFFFFFFFF),))),
    (ike_proposals.offer_v2(_PROPOSALS, b"rekeyspi"), NonceV2(b"n" * 16), KeV2(2, b"k" * 128)),
    (DeleteV2(3, (b"spi1", b"spi2")), DeleteV2(1), NotifyV2(NotifyTypeV2.INVALID_SELECTORS, b"p" * 28)),
    (Eap(b"\1\1\0\5\1"), UnknownPayload(200, b"what")),
    (),
)  # fmt: skip

CLEAR_1 = tuple(v1.MessageV1(HEADER_1, chain).emit() for chain in V1_CHAINS)
CLEAR_2 = (
    *(v2.MessageV2(HEADER_2, chain).emit() for chain in V2_CHAINS),
    v2.MessageV2(HEADER_2, (EncryptedFragment(35, 1, 3, b"sealed" * 10),)).emit(),
)
GUARD = SkCipher(CIPHERS["aes-128-cbc"], INTEGRITY["hmac-sha1-96"], b"e" * 16, b"a" * 20)
CHAIN = IvChain(CIPHERS["aes-128-cbc"], b"k" * 16, b"i" * 16)
SEALED_2 = (*(GUARD.encrypt(HEADER_2, chain, b"i" * 16) for chain in V2_CHAINS),)
FRAGMENTS_2 = GUARD.encrypt_fragments(HEADER_2, V2_CHAINS[1], 300, b"i" * 16 * 8)
SEALED_1 = tuple(CHAIN.encrypt(HEADER_1, chain)[0] for chain in V1_CHAINS)

INSIDE_1 = tuple(bytes((first,)) + octets for first, octets in map(v1.emit_payloads, V1_CHAINS))
INSIDE_2 = tuple(bytes((first,)) + octets for first, octets in map(v2.emit_payloads, V2_CHAINS))
"""The type of the first payload, then the chain: what is encrypted."""


# --- the decoders ---


@dataclass(slots=True)
class Tally:
    """What became of the messages: `lines` counts refusals by the id of their log line."""

    parsed: int = 0
    refused: int = 0
    lines: dict[str, int] = field(default_factory=dict)

    def refuse(self, error: PayloadError) -> None:
        """A refusal has to fill the line that it names, and to fit into a Notify payload."""
        self.refused += 1
        self.lines[error.log] = self.lines.get(error.log, 0) + 1
        if error.log:
            text(error.log, error.values)
        assert str(error).isprintable()
        assert 0 <= error.notify < 0x10000


def decode(data: bytes, tally: Tally) -> None:
    """A datagram as it comes in: its version decides who reads it. Anything but PayloadError escapes."""
    try:
        header = Header.parse(data)
        header.check()
        if header.major == 1:
            first = v1.MessageV1.parse(data)
            for payload in first.payloads:
                if isinstance(payload, v1.IdV1):
                    assert payload.bounds is None or payload.bounds[0] <= payload.bounds[1]
            _again_1(first)
        else:
            message = v2.MessageV2.parse(data)
            v2.refuse_critical(message.payloads)
            for log, values in v2.ignored_attributes(message.payloads):
                text(log, values)
            _again_2(message)
    except PayloadError as error:
        tally.refuse(error)
    else:
        tally.parsed += 1


def _again_1(message: v1.MessageV1) -> None:
    assert v1.MessageV1.parse(message.emit()).payloads == message.payloads


def _again_2(message: v2.MessageV2) -> None:
    assert v2.MessageV2.parse(message.emit()).payloads == message.payloads


def open_1(data: bytes, tally: Tally) -> None:
    """An encrypted message of version 1."""
    try:
        header = Header.parse(data)
        header.check()
        payloads, plain, _ = decrypt_payloads(CHAIN, data, header)
        if payloads:
            after_hash(plain)
    except PayloadError as error:
        tally.refuse(error)
    else:
        tally.parsed += 1


def open_2(data: bytes, tally: Tally) -> None:
    """An encrypted message of version 2."""
    try:
        message = v2.MessageV2.parse(data)
        last = message.payloads[-1] if message.payloads else None
        if isinstance(last, EncryptedFragment):
            GUARD.decrypt_payload(data, last)
        else:
            payloads = GUARD.decrypt(data, message)
            v2.refuse_critical(payloads)
            for log, values in v2.ignored_attributes(payloads):
                text(log, values)
    except PayloadError as error:
        tally.refuse(error)
    else:
        tally.parsed += 1


def inside_1(seed: int, count: int) -> Iterator[bytes]:
    """Messages of version 1 whose plaintext is wrong."""
    for data in mutations(seed, INSIDE_1, count, header=False):
        yield CHAIN.encrypt_plain(HEADER_1, data[0] if data else 0, data[1:])[0]


def inside_2(seed: int, count: int) -> Iterator[bytes]:
    """Messages of version 2 that are authentic and whose plaintext is wrong."""
    for data in mutations(seed, INSIDE_2, count, header=False):
        yield GUARD._encrypt(HEADER_2, b"", PayloadTypeV2.SK, data[0] if data else 0, b"", data[1:], b"i" * 16)


def hammer(seed: int, count: int) -> dict[str, Tally]:
    """`count` wrong messages in all, to all decoders; AssertionError or what escaped on the first bug."""
    part = count // 6
    work: dict[str, tuple[Iterator[bytes], Callable[[bytes, Tally], None]]] = {
        "clear 1": (mutations(seed, CLEAR_1, part), decode),
        "clear 2": (mutations(seed + 1, CLEAR_2, part), decode),
        "sealed 1": (mutations(seed + 2, SEALED_1, part), open_1),
        "sealed 2": (mutations(seed + 3, (*SEALED_2, *FRAGMENTS_2), part), open_2),
        "inside 1": (inside_1(seed + 4, part), open_1),
        "inside 2": (inside_2(seed + 5, count - 5 * part), open_2),
    }
    tallies: dict[str, Tally] = {}
    for name, (messages, decoder) in work.items():
        tally = tallies[name] = Tally()
        for message in messages:
            decoder(message, tally)
    return tallies
