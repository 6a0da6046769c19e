"""What provokes each line of the guide's table 5: a first message that is bent, ends that differ, and what is no
mistake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from chassis.ase.ike.identity import IkeIdentity
from chassis.ase.ike.payloads.header import HEADER_LENGTH
from chassis.ase.ike.payloads.numbers import IdType, NotifyTypeV1
from chassis.ase.ike_messages import SaInstall
from chassis.bus.records import PolicyRecord, Record
from chassis.model.acl import AclRule
from chassis.model.ike import IkePolicy
from tests.support.ike import pki
from tests.support.ike.authentication import store
from tests.support.ike.mutated_messages import MutatedPair
from tests.support.ike.on_demand import DialIn, Gateway, Offer, peer
from tests.support.ike.pair import Ends, esp, other, proposal


def put(at: int, octets: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[at : at + len(octets)] = octets

    return change


SA = HEADER_LENGTH + 4
PROPOSAL = SA + 8
TRANSFORM = PROPOSAL + 8
ATTRIBUTE = TRANSFORM + 8


def longer_sa(data: bytearray) -> None:
    """Twelve octets more in the SA payload than its proposals fill."""
    length = int.from_bytes(data[HEADER_LENGTH + 2 : SA], "big")
    data[HEADER_LENGTH + length : HEADER_LENGTH + length] = bytes(12)
    data[HEADER_LENGTH + 2 : SA] = (length + 12).to_bytes(2, "big")
    data[24:28] = len(data).to_bytes(4, "big")


FIRST_MESSAGES: list[tuple[Callable[[bytearray], None], str, int | None, str, int]] = [
    (put(HEADER_LENGTH, b"\x99"), "ikev1-invalid-next-payload", 0x99, "ikev1-notify-invalid-payload-type", 1),
    (put(SA, b"\x00\x00\x40\x01"), "ikev1-invalid-doi", 0x4001, "ikev1-notify-doi-not-supported", 2),
    (put(SA + 4, b"\x00\x00\x40\x01"), "ikev1-situation-not-supported", 0x4001, "ikev1-notify-invalid-notify-type",
        3),
    (put(17, b"\x12"), "ikev1-invalid-minor-version", 2, "ikev1-notify-invalid-minor-version", 6),
    (put(19, b"\xf0"), "ikev1-invalid-flags", 0xF0, "ikev1-notify-invalid-flags", 8),
    (put(20, b"\x00\x10\x01\x00"), "ikev1-invalid-message-id", 0x100100, "ikev1-notify-invalid-message-id", 9),
    (put(PROPOSAL + 5, b"\xff"), "ikev1-invalid-protocol-id", 0xFF, "", 0),
    (put(TRANSFORM + 5, b"\x11"), "ikev1-invalid-xform-id", 17, "ikev1-notify-invalid-transform-id", 12),
    (put(ATTRIBUTE, b"\x90\x03"), "ikev1-unsupported-attribute", 4099, "ikev1-notify-attributes-not-supported",
        13),
    (put(TRANSFORM + 6, b"\x00\x11"), "ikev1-invalid-reserved-value", 0x11, "ikev1-notify-bad-proposal-syntax",
        15),
    (put(HEADER_LENGTH + 1, b"\x11"), "ikev1-invalid-reserved-payload", 0x11, "ikev1-notify-payload-malformed",
        16),
    (longer_sa, "ikev1-sa-payload-length", None, "ikev1-notify-unequal-payload-length", 30),
    (put(0, bytes(8)), "ikev1-invalid-initiator-cookie", None, "", 0),
    (put(17, b"\x20"), "ikev1-invalid-major-version", 0x20, "ikev1-notify-invalid-major-version",
        NotifyTypeV1.INVALID_MAJOR_VERSION),
    # 0x20 is quick mode, for which there has to be an IKE SA; 1 is the base exchange, known and not spoken.
    (put(18, b"\x20"), "ikev1-invalid-xchange-type", 0x20, "", 0),
    (put(18, b"\x99"), "ikev1-invalid-xchange-type", 0x99, "", 0),
    (put(18, b"\x01"), "ikev1-unsupported-xchgtype", None, "", 0),
]  # fmt: skip
"""(what is done to it, its row, the value in it, the row of the notification, its type; none: empty, 0)"""


def bent_first(change: Callable[[bytearray], None]) -> MutatedPair:
    """End a's first message comes to b with this done to it."""

    def bend(data: bytes) -> bytes:
        changed = bytearray(data)
        change(changed)
        return bytes(changed)

    ends = Ends(version=1, connection="initiator-only")
    two = MutatedPair(ends, replace(other(ends), connection="responder-only"), bend)
    two.run(0.3)
    return two


# --- both ends are configured, and differ ---


@dataclass(frozen=True)
class Case:
    """What the ends differ by, and the lines and notifications of it.

    `rows` are the rows that the end that sees it says, with values; `sees` is that end; `told` is the row at the
    other end and `notify` what it names there.
    """

    rows: Sequence[tuple[str, dict[str, Any]]]
    ours: dict[str, Any] = field(default_factory=dict)
    theirs: dict[str, Any] = field(default_factory=dict)
    sees: str = "b"
    told: str = "ikev1-received-unprotected-notify"
    notify: str = "NO_PROPOSAL_CHOSEN"

    def ends(self) -> tuple[Ends, Ends]:
        """End a as it is wrong or right, and the end that would fit it."""
        ends = replace(Ends(version=1, connection="initiator-only"), **self.ours)
        return ends, replace(other(ends), connection="responder-only")

    def negotiated(self) -> MutatedPair:
        """Both ends, after they have found that they differ."""
        ends, alike = self.ends()
        two = MutatedPair(ends, replace(alike, **self.theirs))
        two.run(1.0)
        return two


NO_PROPOSAL: tuple[str, dict[str, Any]] = ("ikev1-notify-no-proposal-chosen", {"notify": "NO_PROPOSAL_CHOSEN"})


def offer(**values: Any) -> dict[str, Any]:
    return {"proposals": (proposal(1, **values),)}


def differs(row: str, received: Any, configured: Any) -> list[tuple[str, dict[str, Any]]]:
    values = {"received": received, "configured": configured}
    return [(row, values), NO_PROPOSAL]


def pair(ah: str = "", cipher: str = "", integrity: str = "", **more: Any) -> dict[str, Any]:
    return {"suites": (esp(ah, cipher, integrity, **more),)}


def phase_2(row: str, received: Any, configured: Any, ours: dict[str, Any], theirs: dict[str, Any]) -> Case:
    values = {"received": received, "configured": configured}
    return Case([(row, values)], ours, theirs, told="ikev1-received-notify")


def certified(
    identity: str = "a.example", expected: str = "b.example", *, by: str = "", **more: Any
) -> dict[str, Any]:
    """An end that goes by its certificate, which says `by` (or the identity)."""
    return {
        "authentication": "rsa-signature",
        "proposals": (proposal(1, authentication="rsa-signature"),),
        "identity_local": identity,
        "identity_remote": expected,
        "certificates": store(by or identity),
        **more,
    }


ANSWERS = certified("b.example", "a.example")
DN = "cn ours"
"""An identity that no command sets: a peer that goes by the name of its certificate."""
NAMES = [
    ("dn", DN, "ID_DER_ASN1_DN", "/CN=ours"),
    ("ipv4", "172.16.5.72", "ID_IPV4_ADDR", "172.16.5.72"),
    ("user-fqdn", "xz@x.com", "ID_USER_FQDN", "xz@x.com"),
    ("fqdn", "dkoop.ours.com", "ID_FQDN", "dkoop.ours.com"),
]
INVALID_ID = {"notify": "INVALID_ID_INFORMATION"}


def strangers() -> dict[str, Case]:
    """Peers with a certificate whose identity is not expected. In aggressive mode they are refused before their
    certificate has come."""
    found = {}
    for mode, told in (("main", "ikev1-received-notify"), ("aggressive", "ikev1-received-unprotected-notify")):
        for suffix, identity, name, shown in NAMES:
            rows = [
                (f"ikev1-cert-id-{suffix}", {"id_type": name, "id": shown}),
                ("ikev1-cert-id-notify-invalid-id", INVALID_ID),
            ]
            ours = certified(identity, by="a.example", mode=mode)
            theirs = {**ANSWERS, "mode": mode}
            found[f"{mode} {suffix}"] = Case(rows, ours, theirs, told=told, notify="INVALID_ID_INFORMATION")
    return found


NETWORK = AclRule(1, source=(0x0A010000, 16), destination=(0x0A020000, 16))
SMALLER = replace(NETWORK, source=(0x0A020000, 16), destination=(0x0A010000, 24))

CASES: dict[str, Case] = {
    "preshared keys": Case([("ikev1-psk-payload-length", {}), ("ikev1-psk-mismatch-suspected", {}),
        ("ikev1-psk-notify-unequal-payload-lengths", {"notify": "UNEQUAL_PAYLOAD_LENGTHS"})],
        theirs={"psk": b"another"}, notify="UNEQUAL_PAYLOAD_LENGTHS"),
    "group": Case(differs("ikev1-p1-dh-group-mismatch", 1, 5), theirs=offer(dh_group=5)),
    # The guide has no line for it: what differs is said in our own words.
    "lifetime": Case([NO_PROPOSAL], theirs=offer(lifetime=3600)),
    "mode": Case([("ikev1-p1-xchange-type-mismatch", {"received": "MAIN_MODE", "configured": "AGGRESSIVE_MODE"})],
        theirs={"mode": "aggressive"}, notify="UNSUPPORTED_EXCHANGE_TYPE"),
    "integrity": Case(differs("ikev1-p1-auth-alg-mismatch", "IKE_SHA", "IKE_MD5"),
        theirs=offer(integrity="hmac-md5-96")),
    "cipher": Case(differs("ikev1-p1-encr-alg-mismatch", "AES_CBC", "TRIPLE_DES_CBC"),
        theirs=offer(cipher="3des-cbc")),
    "cipher and group": Case(differs("ikev1-p1-no-proposal-encr-alg", "AES_CBC", "DES_CBC"),
        theirs=offer(cipher="des-cbc", dh_group=2)),
    "method": Case(differs("ikev1-p1-auth-method-mismatch", "PRE_SHAREDKEY", "RSA_SIGN"),
        theirs={**offer(authentication="rsa-signature"), "authentication": "rsa-signature"}),
    **strangers(),
    "no certificate": Case([("ikev1-cert-id-fqdn", {"id": "c.example"}), ("ikev1-cert-id-no-cert", {"count": 1}),
        ("ikev1-cert-id-notify-invalid-id", INVALID_ID)], certified("c.example"), ANSWERS,
        told="ikev1-received-notify", notify="INVALID_ID_INFORMATION"),
    "no certificate, aggressive": Case(
        [("ikev1-cert-id-no-cert", {"count": 1}), ("ikev1-cert-id-notify-invalid-id", INVALID_ID)],
        certified("a.example", by="xz@x.com", mode="aggressive"),
        {**ANSWERS, "mode": "aggressive", "validate": True},
        told="ikev1-received-notify",
        notify="INVALID_ID_INFORMATION",
    ),
    "address": Case([("ikev1-psk-id-ipv4", {"id_type": "ID_IPV4_ADDR", "id": "10.0.0.1"})],
        theirs={"identity_remote": "a.example"}, told="ikev1-received-notify", notify="INVALID_ID_INFORMATION"),
    "name": Case([("ikev1-psk-id-fqdn", {"id_type": "ID_FQDN", "id": "dkoop.com"})],
        {"identity_local": "dkoop.com"}, {"identity_remote": "dkoop.ours.com"}, told="ikev1-received-notify",
        notify="INVALID_ID_INFORMATION"),
    "identity of the responder": Case([("ikev1-cert-id-payload-policy", {"id_type": "ID_FQDN", "id": "dkoop.com"}),
        ("ikev1-cert-id-notify-invalid-id", INVALID_ID)], certified(), certified("dkoop.com", "a.example",
        by="b.example"), sees="a", told="ikev1-received-notify", notify="INVALID_ID_INFORMATION"),
    "certificate of the responder": Case(
        [("ikev1-cert-id-payload-cert",
            {"id_type": "ID_FQDN", "id": "b.example", "cert_id_type": "ID_FQDN", "cert_id": "dkoop.ours.com"})],
        certified(validate=True),
        certified("b.example", "a.example", by="dkoop.ours.com"),
        sees="a",
        told="ikev1-received-notify",
        notify="INVALID_ID_INFORMATION",
    ),
    "phase 2 group": phase_2("ikev1-p2-dh-group-mismatch", 2, 5, {"pfs": 2}, {"pfs": 5}),
    "phase 2 integrity": phase_2("ikev1-p2-auth-alg-mismatch", "MD5", "SHA1",
        pair("", "aes-128-cbc", "hmac-md5-96"), pair("", "aes-128-cbc", "hmac-sha1-96")),
    "phase 2 cipher": phase_2("ikev1-p2-encr-alg-mismatch", "ESP_DES", "ESP_AES",
        pair("", "des-cbc", "hmac-sha1-96"), pair("", "aes-128-cbc", "hmac-sha1-96")),
    "number of AH": phase_2("ikev1-p2-ah-count-mismatch", 1, 0,
        pair("hmac-sha1-96", "aes-128-cbc", "hmac-sha1-96"), pair("", "aes-128-cbc", "hmac-sha1-96")),
    "number of ESP": phase_2("ikev1-p2-esp-count-mismatch", 0, 1, pair("hmac-sha1-96"),
        pair("hmac-sha1-96", "aes-128-cbc", "hmac-sha1-96")),
    "phase 2 without a group": phase_2("ikev1-p2-dh-group-mismatch", 2, 0, {"pfs": 2}, {"pfs": 0}),
    "selectors": Case([("ikev1-p2-selectors-no-match", {})], {"rules": ((NETWORK,),)}, {"rules": ((SMALLER,),)},
        told="ikev1-received-notify", notify="INVALID_ID_INFORMATION"),
}  # fmt: skip


IN_AGGRESSIVE_MODE = (
    "group", "integrity", "cipher", "cipher and group", "method", "lifetime", "phase 2 group", "phase 2 integrity",
    "phase 2 cipher",
)  # fmt: skip
CASES |= {
    f"{name}, aggressive": replace(CASES[name], ours={**CASES[name].ours, "mode": "aggressive"})
    for name in IN_AGGRESSIVE_MODE
}
CASES |= {
    # Identities and, of the responder, the proof come before there is anything to protect them.
    f"{name}, aggressive": replace(
        CASES[name], ours={**CASES[name].ours, "mode": "aggressive"}, told="ikev1-received-unprotected-notify"
    )
    for name in ("address", "name")
}
CASES["preshared keys, aggressive"] = Case(
    [], {"mode": "aggressive"}, {"psk": b"another"}, sees="a", notify="INVALID_HASH_INFORMATION"
)
CASES["mode, main"] = Case(
    [("ikev1-p1-xchange-type-mismatch", {"received": "AGGRESSIVE_MODE", "configured": "MAIN_MODE"})],
    {"mode": "aggressive"},
    {"mode": "main"},
    notify="UNSUPPORTED_EXCHANGE_TYPE",
)


def distinguished(patch: pytest.MonkeyPatch) -> None:
    """`DN` in a configuration is a distinguished name."""
    of = IkeIdentity.of

    def read(text: str) -> IkeIdentity:
        return IkeIdentity(IdType.DER_ASN1_DN, pki.common_name("ours").public_bytes()) if text == DN else of(text)

    patch.setattr(IkeIdentity, "of", read)


# --- peers of on-demand tunnels ---


class CertifiedGateway(Gateway):
    """The end with on-demand tunnels goes by its certificate, and wants that of a peer to say who that is."""

    def records(self) -> tuple[Record, ...]:
        found = super().records()
        return (*(_checks_certificates(record) for record in found), *store("b.example"))


def _checks_certificates(record: Record) -> Record:
    if isinstance(record, PolicyRecord) and isinstance(record.value, IkePolicy):
        return replace(record, value=replace(record.value, validate_certificate_identity=True))
    return record


@dataclass(frozen=True)
class DialInUser:
    """Who dials in: its identity and what its certificate says (empty: the same). `rows` are what the gateway says
    of it, with values; `told` is what it hears."""

    identity: str
    rows: Sequence[tuple[str, dict[str, Any]]]
    by: str = ""
    told: str = "ikev1-received-unprotected-notify"

    def dials(self) -> DialIn:
        """Both ends, after the user has tried."""
        signs: dict[str, Any] = {
            "version": 1,
            "authentication": "rsa-signature",
            "proposals": (proposal(1, authentication="rsa-signature"),),
        }
        ends = peer(identity=self.identity, certificates=store(self.by or "a.example"), **signs)
        two = DialIn([ends], CertifiedGateway((Offer(remote_id="*.branch.example", **signs),)))
        two.run(1.0)
        return two


DIALIN_REFUSED = ("ikev1-cert-id-dialin-notify-invalid-id", INVALID_ID)
DIALIN_USERS: dict[str, DialInUser] = {
    suffix: DialInUser(
        identity, [(f"ikev1-cert-id-dialin-{suffix}", {"id_type": name, "id": shown}), DIALIN_REFUSED]
    )
    for suffix, identity, name, shown in NAMES
}
DIALIN_USERS["no certificate"] = DialInUser(
    "a.branch.example",
    [("ikev1-cert-id-dialin-no-cert", {"count": 1}), DIALIN_REFUSED],
    by="xz@x.com",
    told="ikev1-received-notify",
)


# --- what is no mistake ---


def with_rules() -> MutatedPair:
    """A tunnel whose ends have an access list; it stands."""
    ends = Ends(version=1, connection="initiator-only", rules=((NETWORK,),))
    two = MutatedPair(ends, replace(other(ends), connection="responder-only"))
    two.lives()
    return two


SHORTER = {"seconds": 300, "kbytes": 7000}
"""Lifetimes of an answering end."""


def with_shorter_lifetimes() -> MutatedPair:
    """A tunnel whose answering end has the shorter lifetimes; it stands."""
    ends = Ends(version=1, connection="initiator-only", **pair("", "aes-128-cbc", "hmac-sha1-96", kbytes=9000))
    theirs = pair("", "aes-128-cbc", "hmac-sha1-96", **SHORTER)
    two = MutatedPair(ends, replace(other(ends), connection="responder-only", **theirs))
    two.lives()
    return two


def with_a_deleted_pair(name: str) -> tuple[MutatedPair, SaInstall]:
    """A tunnel of AH or ESP that end a has cleared, and what end b had of it."""
    suites = pair("hmac-sha1-96") if name == "ah" else pair("", "aes-128-cbc", "hmac-sha1-96")
    ends = Ends(version=1, connection="initiator-only", **suites)
    two = MutatedPair(ends, replace(other(ends), connection="responder-only"))
    two.lives()
    (gone,) = two.b.pairs.values()
    two.ask(two.a, "clear")
    two.run(2)
    return two, gone
