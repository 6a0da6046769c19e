"""IKEv2 from nothing to traffic: every algorithm, both proofs, narrowing, refusals."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from chassis.ase.ike.host import IkeSettings
from chassis.ase.ike.identity import Identity
from chassis.model.ike import IkeProposal
from tests.support.ike.v2_pair import A, B, Net, both, connection, established, line, rule, suite

CIPHERS = ("des-cbc", "3des-cbc", "aes-128-cbc", "aes-192-cbc", "aes-256-cbc")
INTEGRITY = ("hmac-md5-96", "hmac-sha1-96")
PRFS = ("hmac-md5", "hmac-sha1", "aes-128-xcbc")
GROUPS = (1, 2, 5, 14)


def ike(cipher: str, integrity: str, prf: str, group: int) -> IkeProposal:
    return IkeProposal(
        "p",
        2,
        dh_group=group,
        authentication_algorithm=integrity,
        encryption_algorithm=cipher,
        prf=prf,
    )


def everything() -> list[tuple[str, str, str, int]]:
    """Every pair of values at least once: five ciphers by groups, the others turned against them."""
    rows = []
    for number, (cipher, group) in enumerate(product(CIPHERS, GROUPS)):
        rows.append((cipher, INTEGRITY[number % 2], PRFS[number % 3], group))
        rows.append((cipher, INTEGRITY[(number + 1) % 2], PRFS[(number + 1) % 3], group))
    return rows


@pytest.mark.behaviour("B-048")
@pytest.mark.parametrize(("cipher", "integrity", "prf", "group"), everything())
def test_every_algorithm_of_the_guide(cipher: str, integrity: str, prf: str, group: int) -> None:
    net = established(proposals=(ike(cipher, integrity, prf, group),))
    net.flow(0.2)
    assert not net.lost
    assert net.a.session.describe()["algorithms"] == {
        "cipher": cipher,
        "integrity": integrity,
        "prf": prf,
        "group": group,
    }


@pytest.mark.parametrize("group", [15, 19, 20, 21, 31])
def test_modern_groups_with_an_aead(group: int) -> None:
    net = established(
        line(10, suite(None, "aes-256-gcm", None, group=group)),
        proposals=(ike("aes-128-gcm", "hmac-sha1-96", "hmac-sha-256", group),),
    )
    net.a.session.rekey(net.now)
    net.run(2)
    net.a.session.negotiate(net.a.connections[0].lines[0], 1, net.now)
    net.run(2)
    net.agree()
    (pair,) = net.a.pairs.values()
    assert len(pair.install.outbound.esp_cipher_key) == 36


@pytest.mark.parametrize(
    "one",
    [
        suite("hmac-md5-96", None, None),
        suite("hmac-aes-xcbc", None, None),
        suite(None, "null", "hmac-sha1-96"),
        suite(None, "3des-cbc", None),
        suite("hmac-sha1-96", "aes-192-cbc", "hmac-md5-96"),
        suite("hmac-sha1-96", "aes-256-cbc", None, group=5),
        suite(esn=True),
        suite(ip_comp=True),
        suite(group=14, kbytes=5000),
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_every_kind_of_pair(one: object, again: bool) -> None:
    net = established(line(10, one))  # type: ignore[arg-type]
    if again:
        net.a.session.negotiate(net.a.connections[0].lines[0], 1, net.now)
        net.flow(1.0)
    net.flow(0.2)
    assert not net.lost
    net.agree()
    (pair,) = net.a.pairs.values()
    (other,) = net.b.pairs.values()
    assert (pair.install.cpi_out, pair.install.cpi_in) == (other.install.cpi_in, other.install.cpi_out)
    assert bool(pair.install.cpi_in) == one.ip_comp  # type: ignore[attr-defined]
    assert pair.install.esn == one.esn  # type: ignore[attr-defined]
    assert pair.install.kbytes == (one.kbytes or 0)  # type: ignore[attr-defined]


@pytest.mark.behaviour("B-148")
def test_all_lines_come_up_and_go_in_order() -> None:
    lines = [line(seq, rules=(rule(seq << 16, (seq + 100) << 16),)) for seq in (10, 20, 30)]
    net = established(*lines)
    net.flow(0.1)
    assert not net.lost
    assert {pair.install.entry for pair in net.b.pairs.values()} == {10, 20, 30}
    net.a.session.close("done", net.now)
    net.run(2)
    net.nothing()
    assert net.b.downs == ["deleted by the peer"]


@pytest.mark.behaviour("B-050")
def test_the_responder_narrows_and_both_ends_use_the_part() -> None:
    wide = (rule(0x0A000000, 0x0B000000, 8),)
    narrow = (rule(0x0B010000, 0x0A020000, 16, protocol=6, port=80),)
    net = Net(connection(A, B, line(10, rules=wide)), connection(B, A, line(10, rules=narrow)))
    net.a.begin()
    net.run(1)
    net.agree()
    (ours,), (theirs,) = net.a.pairs.values(), net.b.pairs.values()
    (one,), (other,) = ours.install.rules, theirs.install.rules
    assert (one.source, one.source_length, one.source_port) == (0x0A020000, 16, 80)
    assert (one.destination, one.destination_length, one.protocol) == (0x0B010000, 16, 6)
    assert (other.source, other.destination, other.destination_port) == (0x0B010000, 0x0A020000, 80)


@pytest.mark.behaviour("B-050")
def test_offer_everything_accept_a_subset_the_other_way_round() -> None:
    narrow = (rule(0x0B010000, 0x0A020000),)
    net = Net(connection(A, B, line(10)), connection(B, A, line(10, rules=narrow)))
    net.b.begin()
    net.run(1)
    net.agree()
    (pair,) = net.a.pairs.values()
    assert [(r.source, r.destination) for r in pair.install.rules] == [(0x0A020000, 0x0B010000)]


MISMATCHES = [
    (suite(cipher="3des-cbc"), "MISMATCHED_ESP_ENCRYPTION_ALG:3DES configured:AES-128 in PROPOSAL_1"),
    (suite(esn=True), "MISMATCHED_ESN:1 configured:0 in PROPOSAL_1"),
    (
        suite("hmac-sha1-96"),
        "MISMATCHED_NUMBER_OF_SECURITY_PROTOCOLS:2 configured:1 in PROPOSAL_1",
    ),
]


@pytest.mark.parametrize(("one", "said"), MISMATCHES)
def test_a_pair_that_does_not_fit_leaves_the_ike_sa(one: object, said: str) -> None:
    net = Net(connection(A, B, line(10, one)), connection(B, A, line(10, suite())))  # type: ignore[arg-type]
    net.a.begin()
    net.run(1)
    net.agree(0)
    assert net.b.logs == [said]
    assert [(failure.cause, seq) for failure, seq in net.a.failures] == [("no proposal chosen", 10)]
    assert [(failure.cause, seq) for failure, seq in net.b.failures] == [("no proposal chosen", 10)]


def test_pfs_that_differs_is_refused_when_a_pair_is_made_later() -> None:
    first = line(10, rules=(rule(1 << 16, 2 << 16),))
    second = rule(3 << 16, 4 << 16)
    a = connection(A, B, first, line(20, suite(group=5), rules=(second,)))
    b = connection(
        B, A, *both(first)[1].lines, replace(both(line(20, suite(group=2), rules=(second,)))[1].lines[0])
    )
    net = Net(a, b)
    net.a.begin()
    net.run(1)
    net.agree(1)
    assert net.b.logs == ["MISMATCHED_PFS_GROUP RECEIVED:5 configured:2 in PROPOSAL_1"]
    assert [(failure.cause, seq) for failure, seq in net.a.failures] == [("no proposal chosen", 20)]


@pytest.mark.behaviour("B-038")
def test_selectors_without_anything_in_common() -> None:
    net = Net(
        connection(A, B, line(10, rules=(rule(1 << 16, 2 << 16),))),
        connection(B, A, line(10, rules=(rule(3 << 16, 4 << 16),))),
    )
    net.a.begin()
    net.run(1)
    net.agree(0)
    assert net.a.failures[0][0].cause == "selectors"


@pytest.mark.parametrize(
    "other",
    [
        ike("3des-cbc", "hmac-sha1-96", "hmac-sha1", 2),
        ike("aes-128-cbc", "hmac-md5-96", "hmac-sha1", 2),
        ike("aes-128-cbc", "hmac-sha1-96", "hmac-md5", 2),
        ike("aes-128-cbc", "hmac-sha1-96", "hmac-sha1", 5),
    ],
)
def test_an_ike_proposal_that_differs_fails_at_both_ends(other: IkeProposal) -> None:
    net = Net(connection(A, B), connection(B, A, proposals=(other,)))
    net.a.begin()
    net.run(1)
    net.nothing()
    assert [failure.cause for failure, _ in net.a.failures] == ["no proposal chosen"]
    assert [failure.cause for failure, _ in net.b.failures] == ["no proposal chosen"]
    assert "received" in net.b.failures[0][0].text


def test_another_group_is_asked_for_and_given() -> None:
    both_groups = (IkeProposal("x", 2, dh_group=1), IkeProposal("y", 2, dh_group=14))
    net = Net(connection(A, B, proposals=both_groups), connection(B, A, proposals=both_groups[1:]))
    net.a.begin()
    net.run(1)
    net.agree()
    assert net.a.session.describe()["algorithms"]["group"] == 14
    assert net.a.counts["retried after INVALID_KE_PAYLOAD"] == 1
    # ... and when the IKE SA is replaced, too
    net.a.session.rekey(net.now)
    net.run(2)
    net.agree()
    assert net.a.downs == ["rekeyed"]


def test_a_wrong_preshared_key_is_refused_and_said() -> None:
    net = Net(connection(A, B), connection(B, A, psk=b"another"))
    net.a.begin()
    net.run(1)
    net.nothing()
    assert [failure.cause for failure, _ in net.a.failures] == ["authentication"]
    assert "preshared keys differ" in net.b.failures[0][0].text


@pytest.mark.behaviour("B-039")
def test_an_unexpected_identity_is_refused_by_either_end() -> None:
    wrong = Identity.of("somebody.example.com")
    net = Net(connection(A, B, identity=wrong), connection(B, A))
    net.a.begin()
    net.run(1)
    net.nothing()
    assert "somebody.example.com" in net.b.failures[0][0].text
    net = Net(connection(A, B), connection(B, A, identity=wrong))
    net.a.begin()
    net.run(40)
    net.nothing()
    assert "somebody.example.com" in net.a.failures[0][0].text
    assert net.b.downs == ["deleted by the peer"]


@pytest.mark.behaviour("B-033")
def test_who_only_initiates_lets_nobody_in() -> None:
    net = Net(connection(A, B), connection(B, A, policy={"connection_type": "initiator-only"}))
    net.a.begin()
    net.run(1)
    net.nothing()
    assert "only initiates" in net.b.failures[0][0].text


def test_initial_contact_is_said_once() -> None:
    a, b = both()
    net = Net(a, b)
    net.a.first = True
    net.a.begin()
    net.run(1)
    assert net.b.contacts == [net.b.session]
    assert not net.a.contacts


@pytest.mark.behaviour("B-001")
def test_nobody_answers() -> None:
    net = Net(*both())
    net.hook = lambda *_: None
    net.a.begin()
    net.run(60)
    net.nothing()
    assert [failure.cause for failure, _ in net.a.failures] == ["no answer"]
    assert net.a.counts["retransmissions"] == 5


def test_a_half_open_responder_gives_up() -> None:
    net = Net(*both(), settings=IkeSettings(give_up=5.0))
    net.hook = lambda sender, data, header: 0.0 if header.exchange == 34 else None
    net.a.begin()
    net.run(10)
    net.nothing()
    assert net.b.failures[0][0].text == "10.0.0.1 sent no IKE_AUTH"


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("after", [0.0, 0.005, 0.015, 0.025, 0.035])
def test_an_attempt_that_is_given_up_leaves_nothing(after: float, refused: bool) -> None:
    net = Net(connection(A, B), connection(B, A, psk=b"another" if refused else b"a shared secret"))
    session = net.a.begin()
    net.run(after)
    session.close("by the test", net.now)
    net.run(60)
    net.nothing()
