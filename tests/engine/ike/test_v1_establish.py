"""IKEv1 from the first message to a pair that carries traffic: modes, methods, algorithms, protocols, NAT."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from chassis.ase.ike.connection import Line
from chassis.ase.ike.credentials import Credentials
from chassis.ase.ike.host import Path
from chassis.ase.ike.identity import Identity
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import ExchangeType
from chassis.ase.ike.payloads.v1 import Hash
from chassis.ase.link import Encapsulation, SaInstall, SaMove
from chassis.model.ike import IkeProposal
from tests.support.ike import pki
from tests.support.ike.v1_pair import (
    NAT,
    SHIFT,
    A,
    B,
    FakeHost,
    V1Pair,
    connection,
    other_end,
    plainly,
    rule,
    suite,
)

RSA = IkeProposal("rsa", dh_group=2, authentication="rsa-signature")


@cache
def _root() -> pki.Authority:
    return pki.root()


@cache
def credentials(name: str) -> Credentials:
    """The store of one end, with a certificate for the DNS name `name`."""
    issued = _root().issue(name, dns=[name])
    found, problems = Credentials.read(
        pki.records(trusted=[_root().certificate], own=[("self", issued, pki.key(name))])
    )
    assert not problems
    return found


def by_certificate(**more: Any) -> Any:
    one = connection(
        proposals=[RSA],
        psk=None,
        identity=Identity.of("a.example"),
        expected=Identity.of("b.example"),
        credentials=credentials("a.example"),
        **more,
    )
    return one, other_end(one, credentials=credentials("b.example"))


def up(pair: V1Pair) -> SaInstall:
    """Both ends have the same pair, and it carries."""
    assert len(pair.a.standing) == len(pair.b.standing) == 1
    assert pair.both_ways()
    pair.settled()
    (one,) = pair.a.installed_pairs.values()
    (other,) = pair.b.installed_pairs.values()
    assert (one.outbound, one.inbound) == (other.inbound, other.outbound)
    assert one.initiator != other.initiator
    return one


@pytest.mark.parametrize("mode", ["main", "aggressive"])
@pytest.mark.parametrize(
    ("cipher", "integrity", "group"),
    [
        ("des-cbc", "hmac-md5-96", 1),
        ("3des-cbc", "hmac-md5-96", 2),
        ("aes-128-cbc", "hmac-sha1-96", 5),
        ("aes-192-cbc", "hmac-md5-96", 2),
        ("aes-256-cbc", "hmac-sha1-96", 14),
        ("aes-256-cbc", "hmac-sha-256-128", 19),
    ],
)
def test_preshared_key(mode: str, cipher: str, integrity: str, group: int) -> None:
    proposal = IkeProposal("p", 1, None, group, integrity, cipher)
    pair = V1Pair(connection(proposals=[proposal], mode=mode))
    pair.establish()
    up(pair)
    assert pair.a.session.secrets() == pair.b.session.secrets()
    assert str(pair.b.session.peer_identity) == "10.0.0.1"


@pytest.mark.parametrize("mode", ["main", "aggressive"])
@pytest.mark.parametrize("validate", [False, True])
def test_signatures(mode: str, validate: bool) -> None:
    one, other = by_certificate(mode=mode, validate=validate)
    pair = V1Pair(one, other)
    pair.establish()
    up(pair)
    assert str(pair.a.session.peer_identity) == "b.example"
    assert not [row for row in pair.a.ids + pair.b.ids if "mism" in row or "cert" in row]


@pytest.mark.behaviour("B-104")
@pytest.mark.parametrize("group", [None, 2, 14])
@pytest.mark.parametrize(
    "parts",
    [
        {"cipher": "aes-128-cbc"},
        {"cipher": "3des-cbc", "integrity": "hmac-md5-96"},
        {"cipher": "null", "integrity": "hmac-aes-xcbc"},
        {"cipher": "des-cbc", "integrity": None},
        {"ah": "hmac-sha1-96", "cipher": None, "integrity": None},
        {"ah": "hmac-aes-xcbc", "cipher": "aes-256-cbc", "integrity": None},
        {"ah": "hmac-md5-96", "cipher": "aes-192-cbc", "esn": True},
        {"cipher": "aes-128-cbc", "ip_comp": True},
        {"ah": "hmac-sha1-96", "cipher": "null", "ip_comp": True, "kbytes": 5000},
        {"cipher": "aes-256-gcm", "integrity": None},
    ],
)
def test_protocols(group: int | None, parts: dict[str, Any]) -> None:
    line = Line(10, "ipsec", (suite(group=group, **parts),), (), 128)
    pair = V1Pair(connection(lines=[line]))
    pair.establish()
    one = up(pair)
    assert bool(one.inbound.ah_spi) == bool(parts.get("ah"))
    assert bool(one.inbound.esp_spi) == bool(parts["cipher"])
    assert bool(one.cpi_in and one.cpi_out) == parts.get("ip_comp", False)
    assert one.esn == parts.get("esn", False)
    assert one.kbytes == parts.get("kbytes", 0)
    assert one.soft_kbytes == int(one.kbytes * 0.9)
    assert one.window == 128


@pytest.mark.behaviour("B-025", "B-029", "B-034")
def test_the_first_pair_of_proposals_that_fits_is_taken() -> None:
    ours = [IkeProposal("x", dh_group=5, lifetime=500), IkeProposal("y", dh_group=2)]
    one = connection(proposals=ours, lines=[Line(10, "i", (suite(cipher="des-cbc"), suite()), (), 64)])
    other = other_end(
        one, proposals=(ours[1], IkeProposal("z", dh_group=1)), lines=(Line(10, "i", (suite(),), (), 64),)
    )
    pair = V1Pair(one, other)
    pair.establish()
    assert up(pair).inbound.esp_cipher == "aes-128-cbc"
    assert pair.b.session.describe()["algorithms"]["group"] == 2


@pytest.mark.behaviour("B-128", "B-148")
def test_lines_and_access_lists() -> None:
    lines = [
        Line(10, "i", (suite(),), (rule(0x0A010000, 16, 0x0A020000, 16),), 64),
        Line(20, "i", (suite(cipher="3des-cbc"),), (rule(0x0A010000, 16, 0x0A030001, 32, protocol=17),), 64),
        # Two rules of one line.
        Line(30, "i", (suite(),), (rule(0x0A010000, 24, 0x0A040000, 24),), 64, rule=1),
        Line(30, "i", (suite(),), (rule(0x0A010200, 24, 0x0A040000, 24),), 64, rule=2),
    ]
    pair = V1Pair(connection(lines=lines))
    pair.establish()
    for line in lines:
        assert pair.both_ways(line.number)
    pair.settled()
    assert {one.rules for one in pair.a.installed_pairs.values()} == {line.rules for line in lines}
    sent = [values for row, values in pair.a.rows if row == "ikev1-p2-selectors-sent-responder"]
    assert {"id_type": "IPADDR", "address": "10.3.0.1", "proto": 17, "port": 0} in sent
    assert {"id_type": "IPADDR_SUBNET", "address": "10.4.0.0/24", "proto": 0, "port": 0} in sent
    assert "ikev1-p2-selectors-sent-initiator" in pair.a.ids
    assert "ikev1-p2-selectors-received-initiator" in pair.b.ids
    assert pair.b.values("ikev1-p2-selectors-received-responder")["address"] == "10.2.0.0/16"


@pytest.mark.behaviour("B-088")
def test_many_tunnels_between_two_addresses() -> None:
    ones = [
        connection(
            mode="aggressive",
            tunnel=n,
            identity=Identity.of(f"a{n}"),
            expected=Identity.of(f"b{n}"),
            psk=b"key %d" % n,
        )
        for n in (1, 2, 3)
    ]
    pair = V1Pair(ones)
    for n in range(3):
        pair.a.begin(n)
    pair.run(2.0)
    assert sorted(one.tunnel for one in pair.b.installed_pairs.values()) == [1, 2, 3]
    assert {(one.connection.tunnel, str(one.peer_identity)) for one in pair.b.standing if one.connection} == {
        (1, "a1"),
        (2, "a2"),
        (3, "a3"),
    }


@pytest.mark.parametrize("mode", ["main", "aggressive"])
def test_through_a_nat(mode: str) -> None:
    name = Identity.of("a.example")
    pair = V1Pair(connection(mode=mode, identity=name), nat=True)
    pair.b.connections = [replace(pair.b.connections[0], expected=name)]
    pair.establish()
    assert pair.both_ways()
    (one,) = pair.a.installed_pairs.values()
    (other,) = pair.b.installed_pairs.values()
    assert one.encapsulation == (Encapsulation(4500, B, 4500),)
    assert other.encapsulation == (Encapsulation(4500, NAT, 4500 + SHIFT),)
    assert pair.a.session.phase1.behind_nat
    assert not pair.b.session.phase1.behind_nat
    before = len([data for who, data in pair.sent if not data])
    pair.run(100.0)
    assert len([data for who, data in pair.sent if not data]) == before + 5
    pair.run(40_000)
    assert pair.both_ways()


def test_a_peer_whose_nat_gives_it_another_port_is_followed_with_its_pairs() -> None:
    name = Identity.of("a.example")
    pair = V1Pair(connection(identity=name), nat=True)
    pair.b.connections = [replace(pair.b.connections[0], expected=name)]
    pair.establish()
    pair.shift = SHIFT + 7
    pair.a.session.negotiate(pair.a.connections[0].lines[0], 1, pair.now)
    pair.run(2)
    assert pair.b.session.path.remote_port == 4500 + SHIFT + 7
    assert len(pair.b.installed_pairs) == 2
    for one in pair.b.installed_pairs.values():
        assert one.encapsulation == (Encapsulation(4500, NAT, 4500 + SHIFT + 7),)
    moves = [one for one in pair.b.emitted if isinstance(one, SaMove)]
    assert len(moves) == 1, "said once, of what was there"


def through_a_nat(mode: str = "main") -> V1Pair:
    name = Identity.of("a.example")
    pair = V1Pair(connection(mode=mode, identity=name), nat=True)
    pair.b.connections = [replace(pair.b.connections[0], expected=name)]
    return pair


@pytest.mark.parametrize(
    ("mode", "lost"), [*(("main", n) for n in (1, 2, 3, 4)), ("aggressive", 1), ("aggressive", 2)]
)
def test_what_comes_again_from_another_port_of_a_nat_is_answered_to_that_one(mode: str, lost: int) -> None:
    """An answer of b's gets lost with the mapping of the NAT: what a sends again brings a new one."""
    pair = through_a_nat(mode)
    answers = 0

    def wire(sender: FakeHost, data: bytes) -> Iterable[tuple[float, bytes]]:
        nonlocal answers
        if sender is pair.b:
            answers += 1
            if answers == lost:
                pair.shift += 7
                return []
        return plainly(sender, data)

    pair.wire = wire
    pair.establish()
    up(pair)
    assert pair.b.session.path.remote_port == 4500 + SHIFT + 7


def test_the_confirmation_of_a_pair_goes_where_its_answer_came_from() -> None:
    """The NAT forgets a's port while a quick mode of b's is on its way: a answers from a new one."""
    pair = through_a_nat()
    pair.establish()

    def wire(sender: FakeHost, data: bytes) -> Iterable[tuple[float, bytes]]:
        if sender is pair.b and pair.shift == SHIFT:
            pair.shift += 7
        return plainly(sender, data)

    pair.wire = wire
    pair.b.session.negotiate(pair.b.connections[0].lines[0], 1, pair.now)
    pair.run(0.1)
    assert not pair.a.session.quick_modes.pending, "message 3 has come"
    pair.run(10)
    up(pair)


def test_the_refusal_of_a_proof_goes_where_the_proof_came_from() -> None:
    """Behind a NAT the proof comes by port 4500, and what was said before came by another."""
    pair = through_a_nat()
    pair.b.connections = [replace(pair.b.connections[0], psk=b"another one")]
    ports = []
    send = pair.b.send

    def sending(path: Path, data: bytes) -> None:
        ports.append((path.local_port, path.remote_port))
        send(path, data)

    pair.b.send = sending  # type: ignore[method-assign]
    pair.a.begin()
    pair.run(0.1)
    assert ports == [(500, 500 + SHIFT)] * 2 + [(4500, 4500 + SHIFT)]


def test_a_forged_confirmation_does_not_keep_the_answer_from_being_given_again() -> None:
    """What is kept to know a repeat is set by authentic messages only: message 3 with a wrong HASH is none."""
    pair = V1Pair(connection())
    first: list[bytes] = []
    forged: list[bytes] = []

    def wire(sender: FakeHost, data: bytes) -> Iterable[tuple[float, bytes]]:
        if data[18] != ExchangeType.QUICK_MODE:
            return plainly(sender, data)
        if sender is pair.b:
            return []
        if not first:
            first.append(data)
            return plainly(sender, data)
        return []

    pair.wire = wire
    pair.establish(0.1)
    (quick,) = pair.b.session.quick_modes.pending
    head = Header.parse(first[0])
    message, _ = quick.chain.encrypt(replace(head, flags=0), (Hash(bytes(20)),))
    pair.wire = lambda sender, data: forged.append(data) or []  # type: ignore[func-returns-value]
    where = Path(1, B, 500, A, 500)
    pair.b.arrive(where, message)
    assert pair.b.counts["decryption failures"] == 1
    pair.b.arrive(where, first[0])
    assert forged
    assert forged == [data for who, data in pair.sent if who == "b" and data[18] == ExchangeType.QUICK_MODE][:1]
    pair.wire = plainly
    pair.run(2)
    up(pair)


def test_ah_does_not_pass_a_nat() -> None:
    name = Identity.of("a.example")
    line = Line(10, "i", (suite(ah="hmac-sha1-96"),), (), 64)
    pair = V1Pair(connection(identity=name, lines=[line]), nat=True)
    pair.b.connections = [replace(pair.b.connections[0], expected=name)]
    pair.establish()
    assert ("failed", "NAT", 10) in pair.a.events
    assert any("AH does not pass" in said for said in pair.a.said)
    assert pair.a.standing
    pair.settled()


@pytest.mark.behaviour("B-032", "B-033")
def test_connection_types() -> None:
    passive = connection(kind="responder-only")
    pair = V1Pair(connection(kind="initiator-only"), other_end(passive))
    pair.establish()
    up(pair)
    # An end that only initiates does not answer (B-033).
    pair = V1Pair(connection(), other_end(connection(kind="initiator-only")))
    pair.establish(40.0)
    assert not pair.a.standing
    assert pair.a.causes() == ["timeout"]
    assert not [one for who, one in pair.sent if who == "b"]
    # One that only answers does not begin phase 1 anew by itself.
    pair = V1Pair(connection(), other_end(connection(kind="responder-only")))
    pair.establish()
    pair.b.session.rekey(pair.now)
    assert len(pair.b.sessions) == 1


def test_what_people_see_has_no_key() -> None:
    pair = V1Pair(connection())
    pair.establish()
    session = pair.a.session
    shown = repr(session.describe()) + repr(session.phase1) + repr(session.child_sas.all)
    for secret in (b"a preshared key", session.keys.e, session.keys.d, session.keys.skeyid):
        assert secret.hex() not in shown
        assert repr(secret) not in shown
    key = next(iter(pair.a.installed_pairs.values())).inbound.esp_cipher_key
    assert repr(key) not in shown
    (row,) = session.secrets()
    assert row["kind"] == "ikev1"
    assert row["cookie_i"] == session.spi.hex()
    assert len(row["key"]) == 32
