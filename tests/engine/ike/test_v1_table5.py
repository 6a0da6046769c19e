"""Each line of the guide's table 5 that a session raises: provoked on the wire, at the end that the guide says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from chassis.ase.ike.connection import Connection, Line
from chassis.ase.ike.credentials import Credentials
from chassis.ase.ike.identity import Identity
from chassis.ase.ike.payloads.header import HEADER_LENGTH, Header
from chassis.ase.ike.payloads.numbers import NotifyTypeV1, PayloadTypeV1
from chassis.ase.ike.payloads.v1 import MessageV1, NotifyV1
from chassis.model.ike import IkeProposal
from tests.engine.ike.test_v1_establish import _root, by_certificate, credentials
from tests.support.ike import pki
from tests.support.ike.v1_pair import FakeHost, V1Pair, connection, other_end, rule, suite


def tampered(change: Callable[[bytearray], None]) -> V1Pair:
    """A pair whose first message is changed on its way; a second is run for the answer."""
    pair = V1Pair(connection(proposals=[IkeProposal("p", dh_group=2, encryption_algorithm="3des-cbc")]))

    def wire(sender: FakeHost, data: bytes) -> Iterable[tuple[float, bytes]]:
        if sender is pair.a and not Header.parse(data).spi_r.strip(b"\0"):
            changed = bytearray(data)
            change(changed)
            data = bytes(changed)
        return [(0.01, data)]

    pair.wire = wire
    pair.establish(3.0)
    assert not pair.a.standing
    assert not pair.b.standing
    return pair


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
    (
        put(SA + 4, b"\x00\x00\x40\x01"),
        "ikev1-situation-not-supported",
        0x4001,
        "ikev1-notify-invalid-notify-type",
        3,
    ),
    (put(17, b"\x12"), "ikev1-invalid-minor-version", 2, "ikev1-notify-invalid-minor-version", 6),
    (put(19, b"\xf0"), "ikev1-invalid-flags", 0xF0, "ikev1-notify-invalid-flags", 8),
    (
        put(20, b"\x00\x10\x01\x00"),
        "ikev1-invalid-message-id",
        0x100100,
        "ikev1-notify-invalid-message-id",
        9,
    ),
    (put(PROPOSAL + 5, b"\xff"), "ikev1-invalid-protocol-id", 0xFF, "", 0),
    (put(TRANSFORM + 5, b"\x11"), "ikev1-invalid-xform-id", 17, "ikev1-notify-invalid-transform-id", 12),
    (
        put(ATTRIBUTE, b"\x90\x03"),
        "ikev1-unsupported-attribute",
        4099,
        "ikev1-notify-attributes-not-supported",
        13,
    ),
    (
        put(TRANSFORM + 6, b"\x00\x11"),
        "ikev1-invalid-reserved-value",
        0x11,
        "ikev1-notify-bad-proposal-syntax",
        15,
    ),
    (
        put(HEADER_LENGTH + 1, b"\x11"),
        "ikev1-invalid-reserved-payload",
        0x11,
        "ikev1-notify-payload-malformed",
        16,
    ),
    (longer_sa, "ikev1-sa-payload-length", None, "ikev1-notify-unequal-payload-length", 30),
]
"""(what is done to it, its row, the value in it, the row of the notification, its type; none: empty, 0)"""


@pytest.mark.parametrize(("change", "row", "values", "sending", "notify"), FIRST_MESSAGES)
def test_a_first_message_that_is_wrong(
    change: Callable[[bytearray], None], row: str, values: int | None, sending: str, notify: int
) -> None:
    pair = tampered(change)
    if values is not None:
        assert pair.b.values(row)["value"] == values
    else:
        assert pair.b.values(row)["length"] == pair.b.values(row)["size"] + 12
    said = [one for one in pair.b.ids if "-notify-" in one]
    assert said == [sending] * len(said)
    assert bool(said) == bool(sending)
    sent = [data for who, data in pair.sent if who == "b"]
    assert bool(sent) == bool(notify)
    for data in sent:
        (one,) = MessageV1.parse(data).payloads
        assert isinstance(one, NotifyV1)
        assert one.notify == notify
    if notify:
        assert "ikev1-received-unprotected-notify" in pair.a.ids
        assert pair.a.causes() == ["refused by the peer"]


def test_an_exchange_that_is_not_spoken() -> None:
    pair = tampered(put(18, b"\x01"))
    assert "ikev1-unsupported-xchgtype" in pair.b.ids
    assert not [data for who, data in pair.sent if who == "b"]


def refused(one: Connection, other: Connection, seconds: float = 4.0) -> V1Pair:
    pair = V1Pair(one, other)
    pair.establish(seconds)
    assert not pair.a.standing
    assert not pair.b.standing
    return pair


@pytest.mark.behaviour("B-026")
@pytest.mark.parametrize("mode", ["main", "aggressive"])
@pytest.mark.parametrize(
    ("change", "row", "received", "configured"),
    [
        ({"dh_group": 5}, "ikev1-p1-dh-group-mismatch", 2, 5),
        ({"authentication_algorithm": "hmac-md5-96"}, "ikev1-p1-auth-alg-mismatch", "IKE_SHA", "IKE_MD5"),
        ({"encryption_algorithm": "3des-cbc"}, "ikev1-p1-encr-alg-mismatch", "AES_CBC", "TRIPLE_DES_CBC"),
        ({"authentication": "rsa-signature"}, "ikev1-p1-auth-method-mismatch", "PRE_SHAREDKEY", "RSA_SIGN"),
        (
            {"encryption_algorithm": "des-cbc", "dh_group": 1},
            "ikev1-p1-no-proposal-encr-alg",
            "AES_CBC",
            "DES_CBC",
        ),
        ({"lifetime": 5000}, "", None, None),
    ],
)
def test_proposals_that_differ(
    mode: str, change: dict[str, Any], row: str, received: Any, configured: Any
) -> None:
    one = connection(mode=mode)
    proposal = replace(one.proposals[0], **change)
    pair = refused(one, other_end(one, proposals=(proposal,)))
    rows = [found for found, _ in pair.b.rows]
    assert rows == ([row] if row else []) + ["ikev1-notify-no-proposal-chosen"]
    if row:
        values = pair.b.values(row)
        assert (values["received"], values["configured"]) == (received, configured)
    assert pair.a.values("ikev1-received-unprotected-notify") == {"notify": "NO_PROPOSAL_CHOSEN"}
    assert pair.b.causes() == ["no proposal chosen"]


def test_lifetimes_may_differ_where_that_is_allowed() -> None:
    one = connection()
    pair = V1Pair(one, other_end(one, proposals=(replace(one.proposals[0], lifetime=5000),)))
    pair.a.settings = pair.b.settings = replace(pair.a.settings, strict_lifetime=False)
    pair.establish()
    assert pair.b.session.describe()["lifetime"] == 5000
    assert pair.both_ways()


@pytest.mark.behaviour("B-030")
@pytest.mark.parametrize("mode", ["main", "aggressive"])
def test_exchange_modes_that_differ(mode: str) -> None:
    other = {"main": "aggressive", "aggressive": "main"}[mode]
    names = {"main": "MAIN_MODE", "aggressive": "AGGRESSIVE_MODE"}
    one = connection(mode=mode)
    pair = refused(one, replace(other_end(one), policy=replace(one.policy, mode=other)))  # type: ignore[arg-type]
    row = pair.b.values("ikev1-p1-xchange-type-mismatch")
    assert row == {"received": names[mode], "configured": names[other]}
    assert pair.a.values("ikev1-received-unprotected-notify") == {"notify": "UNSUPPORTED_EXCHANGE_TYPE"}
    assert not [found for found in pair.b.ids if "-notify-" in found]


@pytest.mark.parametrize("seed", range(4))
def test_preshared_keys_that_differ_in_main_mode(seed: int) -> None:
    one = connection()
    pair = V1Pair(one, other_end(one, psk=b"another key"), seed=seed)
    pair.establish(4.0)
    assert not pair.a.standing
    values = pair.b.values("ikev1-psk-payload-length")
    assert values["length"] > values["limit"]
    assert pair.b.ids == [
        "ikev1-psk-payload-length",
        "ikev1-psk-mismatch-suspected",
        "ikev1-psk-notify-unequal-payload-lengths",
    ]
    assert pair.a.values("ikev1-received-unprotected-notify") == {"notify": "UNEQUAL_PAYLOAD_LENGTHS"}
    assert pair.b.causes() == ["preshared key"]


def test_preshared_keys_that_differ_in_aggressive_mode() -> None:
    one = connection(mode="aggressive")
    pair = refused(one, other_end(one, psk=b"another key"))
    assert any("preshared keys of the two ends differ" in said for said in pair.a.said)
    assert pair.b.values("ikev1-received-unprotected-notify") == {"notify": "INVALID_HASH_INFORMATION"}


@pytest.mark.behaviour("B-039")
@pytest.mark.parametrize(
    ("identity", "row", "id_type"),
    [("10.9.9.9", "ikev1-psk-id-ipv4", "ID_IPV4_ADDR"), ("x.example", "ikev1-psk-id-fqdn", "ID_FQDN")],
)
@pytest.mark.parametrize("mode", ["main", "aggressive"])
def test_identities_with_preshared_keys(mode: str, identity: str, row: str, id_type: str) -> None:
    one = connection(mode=mode, identity=Identity.of(identity))
    pair = refused(one, replace(other_end(one), expected=Identity.of("10.0.0.1")))
    assert pair.b.values(row) == {"id_type": id_type, "id": identity}
    if mode == "main":
        assert pair.a.values("ikev1-received-notify") == {"notify": "INVALID_ID_INFORMATION"}
    else:
        assert pair.a.values("ikev1-received-unprotected-notify") == {"notify": "INVALID_ID_INFORMATION"}
    # The responder is another than the initiator expects: the initiator says so.
    one = connection(mode=mode, expected=Identity.of("y.example"))
    pair = refused(one, replace(other_end(one), identity=Identity.of(identity)))
    assert pair.a.values(row) == {"id_type": id_type, "id": identity}
    assert pair.b.values("ikev1-received-notify") == {"notify": "INVALID_ID_INFORMATION"}


@pytest.mark.behaviour("B-039")
@pytest.mark.parametrize(
    ("identity", "suffix", "id_type", "shown"),
    [
        ("10.9.9.9", "ipv4", "ID_IPV4_ADDR", "10.9.9.9"),
        ("xz@x.com", "user-fqdn", "ID_USER_FQDN", "xz@x.com"),
        ("x.example", "fqdn", "ID_FQDN", "x.example"),
        ("", "dn", "ID_DER_ASN1_DN", "/CN=ours"),
    ],
)
@pytest.mark.parametrize(("mode", "kind"), [("main", "ikev1-cert-id"), ("aggressive", "ikev1-cert-id-dialin")])
def test_identities_with_certificates(
    mode: str, kind: str, identity: str, suffix: str, id_type: str, shown: str
) -> None:
    one, other = by_certificate(mode=mode)
    mine = Identity.of(identity) if identity else Identity(9, pki.common_name("ours").public_bytes())
    pair = refused(replace(one, identity=mine), other)
    assert pair.b.values(f"{kind}-{suffix}") == {"id_type": id_type, "id": shown}
    assert pair.b.values(f"{kind}-notify-invalid-id") == {"notify": "INVALID_ID_INFORMATION"}
    if mode == "main":
        assert f"{kind}-no-cert" not in pair.b.ids
        assert pair.a.values("ikev1-received-notify") == {"notify": "INVALID_ID_INFORMATION"}


def test_no_certificate_of_the_peer_has_an_identity_that_is_expected() -> None:
    one, other = by_certificate()
    pair = refused(replace(one, identity=Identity.of("x.example"), credentials=credentials("x.example")), other)
    assert pair.b.ids == ["ikev1-cert-id-fqdn", "ikev1-cert-id-no-cert", "ikev1-cert-id-notify-invalid-id"]


def test_the_initiator_says_that_the_policy_expects_another() -> None:
    one, other = by_certificate()
    pair = refused(one, replace(other, identity=Identity.of("dkoop.com")))
    assert pair.a.values("ikev1-cert-id-payload-policy") == {"id_type": "ID_FQDN", "id": "dkoop.com"}


@pytest.mark.behaviour("B-045")
def test_the_certificate_is_compared_only_where_that_is_asked_for() -> None:
    one, other = by_certificate(validate=True)
    # The ID payload fits, the certificate says something else (B-045).
    pair = refused(one, replace(other, credentials=credentials("c.example")))
    assert pair.a.values("ikev1-cert-id-payload-cert") == {
        "id_type": "ID_FQDN",
        "id": "b.example",
        "cert_id_type": "ID_FQDN",
        "cert_id": "c.example",
    }
    one, other = by_certificate(validate=False)
    pair = V1Pair(one, replace(other, credentials=credentials("c.example")))
    pair.establish()
    assert pair.both_ways()


def test_a_certificate_of_a_stranger() -> None:
    one, other = by_certificate()
    stranger = pki.root("stranger")
    issued = stranger.issue("b.example", dns=["b.example"])
    theirs, _ = Credentials.read(
        pki.records(trusted=[_root().certificate], own=[("self", issued, pki.key("b.example"))])
    )
    pair = refused(one, replace(other, credentials=theirs))
    assert pair.a.causes() == ["certificate"]


def phase_2(ours: Line, theirs: Line) -> V1Pair:
    one = connection(lines=[ours])
    pair = V1Pair(one, other_end(one, lines=(theirs,)))
    pair.establish()
    assert pair.a.standing
    assert pair.b.standing
    assert not pair.a.installed_pairs
    assert not pair.b.installed_pairs
    pair.settled()
    return pair


def line(*suites: Any, rules: Any = ()) -> Line:
    return Line(10, "ipsec", suites, rules, 64)


@pytest.mark.behaviour("B-034")
@pytest.mark.parametrize(
    ("ours", "theirs", "row", "received", "configured"),
    [
        (suite(group=2), suite(group=5), "ikev1-p2-dh-group-mismatch", 2, 5),
        (suite(group=2), suite(), "ikev1-p2-dh-group-mismatch", 2, 0),
        (suite(integrity="hmac-md5-96"), suite(), "ikev1-p2-auth-alg-mismatch", "MD5", "SHA1"),
        (suite(cipher="des-cbc"), suite(), "ikev1-p2-encr-alg-mismatch", "ESP_DES", "ESP_AES"),
        (suite(ah="hmac-sha1-96"), suite(), "ikev1-p2-ah-count-mismatch", 1, 0),
        (
            suite(ah="hmac-sha1-96", cipher=None, integrity=None),
            suite(ah="hmac-sha1-96"),
            "ikev1-p2-esp-count-mismatch",
            0,
            1,
        ),
        (suite(esn=True), suite(), "", None, None),
        (suite(ip_comp=True), suite(), "", None, None),
    ],
)
def test_suites_that_differ(ours: Any, theirs: Any, row: str, received: Any, configured: Any) -> None:
    pair = phase_2(line(ours), line(theirs))
    if row:
        values = pair.b.values(row)
        assert (values["received"], values["configured"]) == (received, configured)
    assert pair.a.values("ikev1-received-notify") == {"notify": "NO_PROPOSAL_CHOSEN"}
    assert ("failed", "refused by the peer", 10) in pair.a.events


@pytest.mark.behaviour("B-038")
def test_selectors_that_differ() -> None:
    ours = line(suite(), rules=(rule(0x0A010000, 16, 0x0A020000, 16),))
    theirs = line(suite(), rules=(rule(0x0A020000, 16, 0x0A010000, 24),))
    pair = phase_2(ours, theirs)
    assert "ikev1-p2-selectors-no-match" in pair.b.ids
    assert pair.a.values("ikev1-received-notify") == {"notify": "INVALID_ID_INFORMATION"}


@pytest.mark.parametrize("ours_kbytes", [None, 9000])
def test_the_shorter_lifetime_holds(ours_kbytes: int | None) -> None:
    one = connection(lines=[line(suite(seconds=3600, kbytes=ours_kbytes))])
    pair = V1Pair(one, other_end(one, lines=(line(suite(seconds=300, kbytes=70_000 // 10)),)))
    pair.establish()
    for name, value in (("seconds", 300), ("kbytes", 7000)):
        row = f"ikev1-p2-responder-lifetime-{name}"
        assert pair.a.values(f"{row}-notify") == {"notify": "RESPONDER_LIFETIME"}
        assert pair.a.values(row) == {"notify": "RESPOND_NOTIFY", "value": value}
    for host in (pair.a, pair.b):
        (install,) = host.installed_pairs.values()
        assert (install.seconds, install.kbytes) == (300, 7000)
    # The other way round nobody has to be told.
    pair = V1Pair(other_end(pair.b.connections[0]), other_end(one))
    pair.establish()
    assert not [row for row in pair.a.ids + pair.b.ids if "lifetime" in row]
    (install,) = pair.b.installed_pairs.values()
    assert (install.seconds, install.kbytes) == (300, 7000)


def test_what_comes_in_clear_ends_nothing() -> None:
    pair = V1Pair(connection())
    pair.establish()
    session = pair.a.session
    header = session.phase1.header(5, 7)
    for _ in range(100):
        for notify in (
            NotifyTypeV1.NO_PROPOSAL_CHOSEN,
            NotifyTypeV1.INVALID_COOKIE,
            NotifyTypeV1.AUTHENTICATION_FAILED,
        ):
            data = MessageV1(header, (NotifyV1(notify),)).emit()
            session.receive(data, Header.parse(data), session.path, pair.now)
    assert pair.a.ids.count("ikev1-received-unprotected-notify") == 10
    pair.run(60)
    assert pair.both_ways()
    assert pair.a.session is session


def test_a_forged_answer_does_not_stop_the_real_one() -> None:
    pair = V1Pair(connection())

    def wire(sender: FakeHost, data: bytes) -> Iterable[tuple[float, bytes]]:
        if sender is pair.a or Header.parse(data).next_payload == PayloadTypeV1.KE:
            return [(0.01, data)]  # A false public value in message 4 shows only in message 6.
        bad = bytearray(data)
        bad[-1] ^= 1
        bad[HEADER_LENGTH + 9] ^= 0xFF
        return [(0.005, bytes(bad)), (0.01, data)]

    pair.wire = wire
    pair.establish()
    assert pair.both_ways()
