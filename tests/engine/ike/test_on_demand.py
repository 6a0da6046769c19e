"""Peers of on-demand tunnels: which tunnel each one means, what the controller is asked, and how it is refused.

Guide 9.3. What becomes of an instance afterwards is in `test_instances`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from chassis.ase.ike import peer_questions
from chassis.ase.ike.engine import IkeEngine
from chassis.ase.ike.identity import IkeIdentity
from chassis.ase.ike.log import INFORMATIONAL
from chassis.ase.ike.on_demand import peer_name
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import ExchangeType, IdType, NotifyTypeV1
from chassis.ase.ike.payloads.v1 import MessageV1, NotifyV1
from chassis.ase.ike.peer_questions import MAX_KEY_QUESTIONS
from chassis.ase.ike_messages import IkePacket
from chassis.bus.messages import PeerAnswer
from tests.support.ike.authentication import store
from tests.support.ike.mutation import mutations
from tests.support.ike.on_demand import DialIn, Gateway, Offer, Script, peer
from tests.support.ike.pair import CONTEXT, A, B, Ends, Version, first_message, other, proposal

VERSIONS = pytest.mark.parametrize("version", [1, 2])
WEST = "west.branch.example"
KEY = b"the key of west alone"


def dial(rig: DialIn, ends: Ends, within: float = 5.0) -> None:
    """The first peer comes up."""
    assert rig.until(lambda: rig.connected(rig.a, ends), within), (rig.a.texts(), rig.b.texts(), rig.b.questions)


def errors(rig: DialIn) -> list[str]:
    """Ids of the guide's lines at the gateway that are about something wrong."""
    return [row for row in rig.b.rows() if row not in INFORMATIONAL]


def nothing_kept(rig: DialIn) -> None:
    """The gateway keeps nothing of a peer that it refused."""
    manager = rig.b.ike.ike_sa_manager
    assert not rig.b.sessions
    assert not rig.b.pairs
    assert manager.spis_held == len(manager.questions) == manager.statistics.unassigned_count == 0


@VERSIONS
@pytest.mark.behaviour("B-155", "B-158")
def test_a_peer_dials_in_with_the_configured_key(version: Version) -> None:
    ends = peer(identity=WEST, version=version)
    rig = DialIn([ends], Gateway((Offer(version=version, remote_id="*.branch.example"),)))
    dial(rig, ends)
    (question,) = rig.asked()
    assert (question.step, question.after, question.on_demand) == ("admit", 0, 50)
    assert (question.identity, question.peer, question.local) == (WEST, A, B)
    state = rig.b.states[rig.peers[WEST]]
    assert (state.up, state.identity) == (True, WEST)
    assert errors(rig) == []


@VERSIONS
@pytest.mark.behaviour("B-156", "B-158")
def test_one_configuration_is_for_many_peers(version: Version) -> None:
    peers = [peer(A + 16 * at, f"p{at}.branch.example", version=version) for at in range(6)]
    rig = DialIn(peers, Gateway((Offer(version=version, remote_id="*.branch.example"),)))
    ends = [rig.a, *rig.others]
    assert rig.until(lambda: all(rig.connected(end, one) for end, one in zip(ends, peers, strict=True)), 10)
    assert len(set(rig.peers.values())) == len(rig.b.pairs) == 6
    rows = rig.ask(rig.b, "sas").result["tunnels"]
    assert {row["name"] for row in rows} == {"dial50"}  # type: ignore[index, call-overload]


ORDER = [
    ("", "address"), ("0.0.0.0", "10.0.0.1"), ("*.*.example", "mid.other.example"),
    ("*.branch.example", "east.branch.example"), (WEST, WEST), ("10.0.0.17", "10.0.0.17"),
]  # fmt: skip


@VERSIONS
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("expected", "identity"), [*ORDER[1:], ("", "other.name"), ("", "user@branch.example")])
@pytest.mark.behaviour("B-160", "B-161")
def test_the_most_precise_identity_wins(version: Version, backwards: bool, expected: str, identity: str) -> None:
    texts = [text for text, _ in ORDER]
    offers = [
        Offer(number, text, version=version) for number, text in enumerate(texts[::-1] if backwards else texts, 50)
    ]
    ends = peer(0x0A000011 if identity.endswith("17") else A, identity, version=version)
    rig = DialIn([ends], Gateway(tuple(offers)))
    dial(rig, ends)
    (question,) = rig.asked()
    assert question.on_demand == next(one.number for one in offers if one.remote_id == expected)


@VERSIONS
@pytest.mark.behaviour("B-162")
def test_of_equal_identities_one_with_the_proposal_is_meant(version: Version) -> None:
    strong = proposal(version, "strong", cipher="aes-256-cbc")
    offers = (
        Offer(51, WEST, version=version, proposals=(proposal(version, "plain"),)),
        Offer(52, WEST, version=version, proposals=(strong,)),
        Offer(53, WEST, version=version, proposals=(strong,)),
    )
    ends = peer(identity=WEST, version=version, proposals=(strong,))
    rig = DialIn([ends], Gateway(offers))
    dial(rig, ends)
    assert rig.asked()[0].on_demand == 52


@VERSIONS
def test_the_policy_says_who_is_expected_where_the_tunnel_does_not(version: Version) -> None:
    offers = (Offer(51, version=version), Offer(52, identity_remote=WEST, version=version))
    ends = peer(identity=WEST, version=version)
    rig = DialIn([ends], Gateway(offers))
    dial(rig, ends)
    assert rig.asked()[0].on_demand == 52


@VERSIONS
@pytest.mark.behaviour("B-163")
def test_a_static_tunnel_with_the_identity_comes_first(version: Version) -> None:
    static = peer(identity=WEST, version=version)
    beside = replace(other(static), connection="responder-only")
    gateway = Gateway((Offer(version=version, remote_id="*.branch.example"),), (beside,))
    rig = DialIn([static], gateway)
    dial_static = rig.until(lambda: rig.connected(rig.a, static, beside.tunnel), 5)
    assert dial_static, rig.b.texts()
    assert not rig.asked()
    # Another identity at the same address is one of the on-demand tunnel.
    ends = replace(static, identity_local="east.branch.example")
    rig = DialIn([ends], gateway)
    dial(rig, ends)
    assert rig.asked()[0].identity == "east.branch.example"


@VERSIONS
def test_an_identity_that_nothing_expects_is_refused(version: Version) -> None:
    ends = peer(identity="west.elsewhere.example", version=version)
    rig = DialIn([ends], Gateway((Offer(version=version, remote_id="*.branch.example"),)))
    rig.run(0.5)
    assert not rig.asked()
    nothing_kept(rig)
    if version == 1:
        assert rig.b.rows()[:1] == ["ikev1-psk-id-fqdn"]
    else:
        assert rig.b.says("no tunnel expects a peer that calls itself west.elsewhere.example")


def test_the_chosen_proposal_must_be_in_the_policy_of_the_matched_tunnel() -> None:
    """IKE_SA_INIT comes before the identity, so any proposal of a candidate is accepted there."""
    strong, plain = proposal(2, "strong", cipher="aes-256-cbc"), proposal(2, "plain")
    offers = (Offer(51, WEST, proposals=(plain,)), Offer(52, "*.branch.example", proposals=(strong,)))
    rig = DialIn([peer(identity=WEST, proposals=(strong,))], Gateway(offers))
    rig.run(0.5)
    assert rig.b.says("the IKE proposal is not one of tunnel dial51")
    assert rig.a.says("NO_PROPOSAL_CHOSEN")
    assert not rig.asked()
    nothing_kept(rig)


def notifies(packets: Iterable[IkePacket]) -> list[int]:
    """Notifications of version 1 in clear."""
    found = []
    for packet in packets:
        if Header.parse(packet.data).exchange == ExchangeType.INFORMATIONAL_V1:
            payloads = MessageV1.parse(packet.data).payloads
            found += [one.notify for one in payloads if isinstance(one, NotifyV1)]
    return found


@pytest.mark.behaviour("B-157")
def test_main_mode_is_refused_where_only_on_demand_tunnels_are() -> None:
    """Settled S-093."""
    ends = replace(peer(identity=WEST, version=1), mode="main")
    rig = DialIn([ends], Gateway((Offer(version=1, mode="main"),)))
    rig.run(0.1)
    assert rig.b.rows() == ["ikev1-p1-xchange-type-mismatch"]
    (text,) = [record.text for record in rig.b.logs if record.id == "ikev1-p1-xchange-type-mismatch"]
    assert "(MAIN_MODE)" in text
    assert "(AGGRESSIVE_MODE)" in text
    assert notifies(rig.b.sent) == [NotifyTypeV1.UNSUPPORTED_EXCHANGE_TYPE]
    nothing_kept(rig)


def test_main_mode_is_that_of_a_static_tunnel_beside_the_on_demand_one() -> None:
    static = replace(peer(version=1), mode="main")
    beside = replace(other(static), connection="responder-only")
    rig = DialIn([static], Gateway((Offer(version=1),), (beside,)))
    assert rig.until(lambda: rig.connected(rig.a, static, beside.tunnel), 5)
    assert errors(rig) == []


# --- keys of AAA ---


@VERSIONS
@pytest.mark.parametrize("delay", [0.01, 8.0])
def test_the_key_comes_from_aaa(version: Version, delay: float) -> None:
    """However late: the peer's repeated messages ask nothing more, and get no answer meanwhile."""
    ends = peer(identity=WEST, version=version, psk=KEY)
    offer = Offer(version=version, remote_id="*.branch.example", aaa=True, psk=b"")
    rig = DialIn([ends], Gateway((offer,)), Script({WEST: KEY}, delay=delay))
    if delay > 1:
        assert rig.until(lambda: bool(rig.asked()), 1)
        sent = len(rig.b.sent)
        rig.run(5)
        assert len(rig.a.sent) > 4 - version, "the peer repeats itself"
        assert len(rig.b.sent) == sent
    dial(rig, ends, 25)
    asked = [(one.number, one.step, one.identity, one.after) for one in rig.asked()]
    assert asked == [(1, "key", WEST, 0), (2, "admit", WEST, 1)]
    assert not rig.dropped()


@VERSIONS
@pytest.mark.parametrize("step", ["key", "admit"])
def test_a_question_without_an_answer_ends_with_the_half_open_time(version: Version, step: str) -> None:
    ends = peer(identity=WEST, version=version, psk=KEY)
    offer = Offer(version=version, aaa=True, psk=b"")
    script = Script({WEST: KEY}, silent=frozenset((step,)))
    rig = DialIn([ends], Gateway((offer,)), script)
    assert rig.until(lambda: bool(rig.asked(step)), 1)
    number = rig.asked(step)[0].number
    asked = rig.now
    assert rig.until(lambda: bool(rig.dropped()), 31)
    assert 29 < rig.now - asked <= 30.1
    (dropped,) = rig.dropped()
    assert (dropped.question, dropped.tunnel) == (number, 0)
    assert "nothing was answered" in dropped.reason
    assert rig.b.says("nothing was answered about 10.0.0.1 in time")
    # An answer that comes now does nothing.
    rig.mute(rig.a)
    before = len(rig.b.sent)
    rig.give(rig.b, PeerAnswer(number, "", KEY, 1000))
    assert len(rig.b.sent) == before
    rig.run(31)
    nothing_kept(rig)


@VERSIONS
def test_a_key_that_aaa_refuses_refuses_the_peer(version: Version) -> None:
    ends = peer(identity=WEST, version=version, psk=KEY)
    rig = DialIn([ends], Gateway((Offer(version=version, aaa=True, psk=b""),)), Script())
    rig.run(0.5)
    assert rig.b.says(f"on-demand tunnel dial50 refuses {WEST}: access rejected")
    assert rig.a.says("AUTHENTICATION_FAILED")
    assert [one.step for one in rig.asked()] == ["key"]
    nothing_kept(rig)


@VERSIONS
def test_another_key_than_that_of_aaa_authenticates_nobody(version: Version) -> None:
    ends = peer(identity=WEST, version=version, psk=KEY)
    rig = DialIn([ends], Gateway((Offer(version=version, aaa=True, psk=b""),)), Script({WEST: b"other key"}))
    rig.run(0.5)
    assert [one.step for one in rig.asked()] == ["key"], "nobody is admitted who is not authenticated"
    assert not rig.b.standing
    rig.mute(rig.a)
    rig.run(40)
    nothing_kept(rig)


@VERSIONS
def test_keys_are_in_no_log_and_no_repr(version: Version) -> None:
    ends = peer(identity=WEST, version=version, psk=KEY)
    rig = DialIn([ends], Gateway((Offer(version=version, aaa=True, psk=b""),)), Script({WEST: KEY}))
    dial(rig, ends)
    engine: IkeEngine = rig.b.ike
    states = [state.connection for state in engine.connection_manager.by_tunnel.values()]
    shown = "\n".join(map(repr, [rig.b.logs, rig.b.questions, states, PeerAnswer(1, "", KEY)]))
    assert states[0].psk == KEY
    assert KEY.decode() not in shown
    assert KEY.hex() not in shown


# --- certificates ---


def with_certificate(version: Version, of: str, *, validate: bool, expects: str = "*.example") -> DialIn:
    """A peer that calls itself a.example and has a trusted certificate of a name."""
    ends = peer(identity="a.example", version=version, authentication="rsa-signature", psk=b"",
        identity_remote="b.example", certificates=store(of))  # fmt: skip
    offer = Offer(
        version=version, remote_id=expects, authentication="rsa-signature", psk=b"", validate=validate,
        identity_local="b.example", certificates=store("b.example"),
    )  # fmt: skip
    rig = DialIn([ends], Gateway((offer,)))
    rig.until(lambda: rig.connected(rig.a, ends), 3)
    return rig


@VERSIONS
@pytest.mark.parametrize("expects", ["a.example", "*.example", ""])
@pytest.mark.parametrize("validate", [False, True])
def test_a_peer_authenticates_by_its_certificate(version: Version, expects: str, validate: bool) -> None:
    rig = with_certificate(version, "a.example", validate=validate, expects=expects)
    assert rig.peers == {"a.example": 1000}, rig.b.texts()
    assert rig.b.up(1000)
    assert errors(rig) == []


@VERSIONS
def test_the_certificate_must_say_who_the_peer_says_it_is(version: Version) -> None:
    """Where the policy validates: what is compared is the claimed identity, not the partial one."""
    rig = with_certificate(version, "mallory.example", validate=True)
    assert not rig.asked()
    assert not rig.b.standing
    rig = with_certificate(version, "mallory.example", validate=False)
    assert rig.peers == {"a.example": 1000}, "the operator's choice (guide 6.4.1)"


# --- admission ---


@VERSIONS
def test_a_peer_that_is_not_admitted_is_told_and_forgotten(version: Version) -> None:
    ends = peer(identity=WEST, version=version)
    rig = DialIn([ends], Gateway((Offer(version=version),)), Script(refuses="max-tunnels 2 reached"))
    rig.run(0.5)
    assert rig.b.says(f"on-demand tunnel dial50 refuses {WEST}: max-tunnels 2 reached")
    assert rig.a.says("AUTHENTICATION_FAILED")
    assert not rig.a.standing, "the peer deleted what it had"
    assert not rig.instances
    nothing_kept(rig)


@VERSIONS
def test_a_slow_admission_loses_nothing_that_the_peer_sent_meanwhile(version: Version) -> None:
    ends = peer(identity=WEST, version=version)
    rig = DialIn([ends], Gateway((Offer(version=version),)), Script(delay=4.0))
    assert rig.until(lambda: bool(rig.asked()), 1)
    at = rig.now
    dial(rig, ends, 10)
    assert rig.now - at < 4.1, "at once when the answer came, not when the peer repeats itself"
    assert len(rig.asked()) == 1
    assert rig.b.count("unexpected messages") == 0


def test_a_tunnel_that_is_not_the_peers_admits_nobody() -> None:
    ends = peer(identity=WEST)
    static = replace(other(peer(0x0A000021)), connection="responder-only", tunnel=9)
    offers = Offer(), Offer(51, "east.branch.example")
    rig = DialIn([ends], Gateway(offers, (static,)), Script(silent=frozenset(("admit",))))
    for turn, number in enumerate((9, 77, 88), 1):
        assert rig.until(lambda turn=turn: len(rig.asked()) == turn, 60)
        if number == 88:
            rig.configure(rig.b, (offers[1].instance(88, rig.asked()[-1]),))
        rig.give(rig.b, PeerAnswer(rig.asked()[-1].number, tunnel=number))
        assert rig.b.says(f"tunnel {number} of {WEST} is not one of dial50")
        nothing_kept(rig)


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        (IkeIdentity.of("10.0.0.1"), "10.0.0.1"),
        (IkeIdentity.of("West.branch.example"), "West.branch.example"),
        (IkeIdentity.of("user@branch.example"), "user@branch.example"),
        (IkeIdentity(IdType.FQDN, b"10.0.0.1"), ""),
        (IkeIdentity(IdType.FQDN, b"user@branch.example"), ""),
        (IkeIdentity(IdType.FQDN, b"CN=west"), ""),
        (IkeIdentity(IdType.FQDN, b"a\0b.example"), ""),
        (IkeIdentity(IdType.FQDN, b"a" * 300), ""),
        (IkeIdentity(IdType.KEY_ID, b"west"), ""),
        (IkeIdentity(IdType.DER_ASN1_DN, bytes.fromhex("300f310d300b06035504030c0477657374")), "CN=west"),
        (IkeIdentity(IdType.DER_ASN1_DN, b"\xff"), ""),
    ],
)
def test_two_peers_never_have_one_name(identity: IkeIdentity, name: str) -> None:
    assert peer_name(identity) == name


# --- strangers ---


@VERSIONS
@pytest.mark.parametrize("aaa", [False, True])
def test_forged_first_messages_keep_little_and_make_no_instance(version: Version, aaa: bool) -> None:
    """A thousand of them from a thousand addresses."""
    ends = peer(identity=WEST, version=version, psk=KEY)
    first = first_message(replace(ends, tunnel=5))
    offer = Offer(version=version, aaa=aaa, psk=b"" if aaa else KEY)
    rig = DialIn([replace(ends, ready=False)], Gateway((offer,)), Script({WEST: KEY}, silent=frozenset(("key",))))
    manager = rig.b.ike.ike_sa_manager
    for at in range(1000):
        data = (at + 1).to_bytes(8, "big") + first[8:]
        rig.give(rig.b, IkePacket(CONTEXT, B, 500, 0x0B000000 + at, 500, data))
    limit = rig.settings.get("cookie-threshold", manager.settings.cookie_threshold) if version == 2 else 1000
    assert manager.table.half_open <= limit
    assert len(manager.questions) <= MAX_KEY_QUESTIONS
    assert (len(manager.questions) == MAX_KEY_QUESTIONS) == (version == 1 and aaa)
    assert not rig.asked("admit")
    assert not rig.instances
    # A peer that is no forgery comes up nevertheless, once the open questions are over.
    rig.script.silent = frozenset()
    rig.configure(rig.a, ends.records())
    dial(rig, ends, 45)
    rig.run(45)
    assert manager.table.half_open == len(manager.questions) == 0


@VERSIONS
def test_too_many_questions_make_a_peer_ask_again(version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those about one address have a bound of their own, so that a site cannot shut out the others."""
    monkeypatch.setattr(peer_questions, "MAX_KEY_QUESTIONS_PER_ADDRESS", 1)
    ends = peer(identity=WEST, version=version, psk=KEY)
    offer = Offer(version=version, aaa=True, psk=b"")
    rig = DialIn([replace(ends, ready=False)], Gateway((offer,)), Script({WEST: KEY, "other.name": KEY}))
    rig.script.silent = frozenset(("key",))
    rig.configure(rig.a, replace(ends, identity_local="other.name").records())
    assert rig.until(lambda: bool(rig.asked()), 1)
    # A second peer behind the same address.
    second = replace(ends, local=A + 16)
    rig.nats = {A + 16: (A, 5000)}
    end = rig.join(second)
    rig.run(1)
    assert len(rig.asked()) == 1
    rig.answer(rig.asked()[0])
    rig.script.silent = frozenset()
    assert rig.until(lambda: rig.connected(end, second), 10)
    assert len(rig.b.ike.ike_sa_manager.questions) == 0
    # One elsewhere would not have waited.
    rig.script.silent = frozenset(("key",))
    rig.join(replace(ends, local=A + 32))
    rig.join(replace(ends, local=A + 48))
    rig.run(0.5)
    assert len(rig.b.ike.ike_sa_manager.questions) == 2


@VERSIONS
@pytest.mark.parametrize("step", ["key", "admit"])
def test_mutated_messages_while_a_peer_waits(version: Version, step: str) -> None:
    ends = peer(identity=WEST, version=version, psk=KEY)
    offer = Offer(version=version, aaa=True, psk=b"")
    rig = DialIn([ends], Gateway((offer,)), Script({WEST: KEY}, silent=frozenset((step,))))
    assert rig.until(lambda: bool(rig.asked(step)), 1)
    rig.run(1)
    corpus = [packet.data for packet in rig.a.sent]
    for data in mutations(version, corpus, 1500):
        rig.give(rig.b, IkePacket(CONTEXT, B, 500, A, 500, data))
    assert len(rig.asked(step)) == 1 or version == 1, "another first message may be another peer's"
    rig.script.silent = frozenset()
    for question in rig.asked():
        if question.step == step:
            rig.answer(question)
    dial(rig, ends, 15)
    rig.run(60)
    assert rig.connected(rig.a, ends)
    assert len(rig.b.ike.ike_sa_manager.questions) == rig.b.ike.ike_sa_manager.table.half_open == 0
