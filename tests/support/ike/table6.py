"""What provokes each line of the guide's table 6.

What is wrong in a payload of IKE_SA_INIT comes in clear, in those of other exchanges under the keys of a peer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV2
from chassis.model.ipsec import IpsecProposal
from tests.support.ike.mutated_messages import (
    ADDRESSES,
    RAW,
    Change,
    MutatedPair,
    Part,
    Seen,
    bend_once,
    message,
)
from tests.support.ike.pair import TUNNEL, Ends, esp, other
from tests.support.ike.wrong_payloads import V2_PAYLOADS

OPENING = frozenset((33, 34, 40, 41, 43, 200))
"""Payloads that IKE_SA_INIT may carry: SA, KE, nonce, notification, vendor ID, unknown ones."""
SEALED = frozenset((46, 53))
DELETE = 42


def put(part: Part) -> Change:
    """Instead of the payload of this type, or behind the others."""

    def change(chain: list[Part]) -> list[Part]:
        kinds = [one[0] for one in chain]
        if part[0] not in kinds:
            return [*chain, part]
        at = kinds.index(part[0])
        return [*chain[:at], part, *chain[at + 1 :]] if part[3] is None else [*chain[:at], *chain[at + 1 :], part]

    return change


def exchange_of(kind: int) -> ExchangeType:
    if kind in OPENING:
        return ExchangeType.IKE_SA_INIT
    return ExchangeType.INFORMATIONAL if kind == DELETE else ExchangeType.IKE_AUTH


def spoilt(
    patch: pytest.MonkeyPatch, exchange: ExchangeType, change: Change, who: str = "a"
) -> tuple[MutatedPair, Seen]:
    """One message of an exchange is bent: a's request, or b's response to it."""
    seen = bend_once(patch, ADDRESSES[who], exchange, who == "b", change)
    ends = Ends(connection="initiator-only", keepalive=True, identity_remote="10.0.0.2")
    # A peer that says nothing is asked whether it is there, by INFORMATIONAL.
    settings: dict[str, Any] = {"dpd-interval": 1.0}
    two = MutatedPair(ends, replace(other(ends), connection="responder-only", keepalive=False), **settings)
    two.run(3)
    assert seen.message_id is not None
    return two, seen


PLAIN = [
    (log, kind, bytes.fromhex(body), length) for log, kind, body, length, _ in V2_PAYLOADS if kind not in SEALED
]


def with_a_wrong_payload(
    patch: pytest.MonkeyPatch, kind: int, body: bytes, length: int | None, who: str = "a"
) -> tuple[MutatedPair, Seen]:
    """One message, of a's or of b's, has this payload."""
    return spoilt(patch, exchange_of(kind), put((kind, 0, body, length)), who)


Case = tuple[str, ExchangeType, Change, int]
"""(row, exchange, what is done to its payloads, the notification that answers, 0 for none)"""

CHAINS: list[Case] = [
    ("ikev2-incomplete", ExchangeType.IKE_SA_INIT, lambda chain: [*chain, (43, RAW, bytes(3), None)],
        NotifyTypeV2.INVALID_SYNTAX),
    ("ikev2-vendor-critical", ExchangeType.IKE_SA_INIT, put((43, 0x80, b"vendor", None)),
        NotifyTypeV2.INVALID_SYNTAX),
    ("ikev2-unsupported-critical", ExchangeType.IKE_SA_INIT, put((200, 0x80, b"what", None)),
        NotifyTypeV2.UNSUPPORTED_CRITICAL_PAYLOAD),
    ("ikev2-unsupported-critical", ExchangeType.IKE_AUTH, put((200, 0x80, b"what", None)),
        NotifyTypeV2.UNSUPPORTED_CRITICAL_PAYLOAD),
    ("ikev2-encrypted-nested", ExchangeType.IKE_AUTH, put((46, 0, b"sealed", None)), NotifyTypeV2.INVALID_SYNTAX),
    ("ikev2-encrypted-nested", ExchangeType.INFORMATIONAL, put((53, 0, b"\0\1\0\1sealed", None)),
        NotifyTypeV2.INVALID_SYNTAX),
    ("ikev2-invalid-protocol-id", ExchangeType.IKE_SA_INIT, put((33, 0,
        bytes.fromhex("00000010" + "05040001" + "00000008" + "01000003"), None)), NotifyTypeV2.NO_PROPOSAL_CHOSEN),
    # A transform with an attribute that nobody knows is not chosen.
    ("ikev2-invalid-xform-attrib", ExchangeType.IKE_SA_INIT,
        put((33, 0, bytes.fromhex("00000014" + "05010001" + "0000000c" + "0100000c" + "80630001"), None)),
        NotifyTypeV2.NO_PROPOSAL_CHOSEN),
    # A configuration attribute that nobody knows is passed over.
    ("ikev2-invalid-cp-attrib", ExchangeType.IKE_AUTH, put((47, 0, bytes.fromhex("0100000000780000"), None)), 0),
]  # fmt: skip


HEADERS: list[tuple[str, Callable[[bytes], bytes], int]] = [
    ("ikev2-header-incomplete", lambda data: data[:27], 0),
    ("ikev2-header-total-length", lambda data: data[:24] + (len(data) + 1).to_bytes(4, "big") + data[28:], 0),
    ("ikev2-header-zero-spi", lambda data: bytes(8) + data[8:], 0),
    ("ikev2-header-next-payload", lambda data: data[:16] + b"\x04" + data[17:], 0),
    ("ikev2-header-exchange-type", lambda data: data[:18] + b"\x21" + data[19:], 0),
    ("ikev2-header-major-version", lambda data: data[:17] + b"\x30" + data[18:],
        NotifyTypeV2.INVALID_MAJOR_VERSION),
    # An Encrypted payload without a body, and a fragment without its numbers: nobody could have sealed them.
    ("ikev2-default-incomplete", lambda data: in_clear(data, 46, b""), 0),
    ("ikev2-default-incomplete", lambda data: in_clear(data, 53, b"\0\1\0\1"), 0),
]  # fmt: skip
"""What is only in clear: answered at most by the notification."""


def in_clear(data: bytes, kind: int, body: bytes) -> bytes:
    return message(Header.parse(data), [(kind, 0, body, None)])


def with_a_wrong_header(change: Callable[[bytes], bytes]) -> tuple[MutatedPair, Any]:
    """A message of the tunnel that stands comes again with something else in it: anybody could have done that.

    The ends, and b's IKE SA before."""
    ends = Ends()
    two = MutatedPair(ends, other(ends))
    two.lives()
    two.run(5)
    session = two.b.ike.connection_manager.by_tunnel[TUNNEL].sessions()[0]
    data = next(packet.data for packet in reversed(two.a.sent) if packet.data[18] == ExchangeType.IKE_AUTH)
    two.b.sent.clear()
    two.hand(change(data))
    return two, session


def suite(ah: str = "", cipher: str = "", integrity: str = "") -> tuple[IpsecProposal, ...]:
    return (esp(ah, cipher, integrity),)


AES = suite("", "aes-128-cbc", "hmac-sha1-96")
MISMATCHES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("ikev2-mismatch-protocol-count", {"suites": AES},
        {"suites": suite("hmac-sha1-96", "aes-128-cbc", "hmac-sha1-96")}, {"received": 1, "configured": 2}),
    ("ikev2-mismatch-esn", {}, {"esn": True}, {"received": 0, "configured": 1}),
    ("ikev2-mismatch-ah-auth", {"suites": suite("hmac-sha1-96")}, {"suites": suite("hmac-md5-96")},
        {"received": "HMAC-SHA1", "configured": "HMAC-MD5"}),
    ("ikev2-mismatch-esp-encr", {"suites": AES}, {"suites": suite("", "3des-cbc", "hmac-sha1-96")},
        {"received": "AES-128", "configured": "3DES"}),
    ("ikev2-mismatch-pfs-group", {"pfs": 2}, {"pfs": 5}, {"received": 2, "configured": 5}),
]  # fmt: skip
"""(row, how a is configured, how b is, the values that the line has)"""


def with_other_suites(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[MutatedPair, Ends]:
    """Both ends, after they have found that they differ, and the end that would fit a's."""
    ends = replace(Ends(connection="initiator-only"), **ours)
    alike = replace(other(ends), connection="responder-only")
    two = MutatedPair(ends, replace(alike, **theirs))
    two.run(3)
    if "pfs" in ours:
        # The first pair has no exchange of its own.
        two.ask(two.a, "rekey")
        two.run(3)
    return two, alike
