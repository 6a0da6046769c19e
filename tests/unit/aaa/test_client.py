"""The RADIUS client against servers in memory: what it asks, whom, how often, and what it makes of replies."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from pyrad.packet import AccessChallenge, CoAPacket

from chassis.aaa.accounting_record import AccountingRecord
from chassis.aaa.actions import Authorized, RadiusLog, Rejected, SendDatagram, Unreachable
from chassis.aaa.dictionary import DICTIONARY
from chassis.aaa.questions import QuestionLimits
from chassis.aaa.servers import ServerState
from tests.support.radius import (
    BOOKS,
    SECRET,
    WALL,
    A,
    B,
    C,
    MemoryServer,
    RadiusRig,
    aaa,
    attributes_of,
    settings,
)

USERS = {"gw.example.com": {"Security-Service": "ike pre-shared-key secret1"}}


def one_server(**other: object) -> RadiusRig:
    return RadiusRig(aaa(settings(A)), (MemoryServer(A, USERS, **other),))  # type: ignore[arg-type]


def said(rig: RadiusRig) -> list[str]:
    return [one.text for one in rig.done if isinstance(one, RadiusLog)]


def test_a_question_says_who_asks_about_whom() -> None:
    rig = one_server()
    answer = rig.ask(1)[0]
    assert isinstance(answer, Authorized)
    assert (answer.token, answer.answer.key) == (1, b"secret1")
    request = rig.servers[0].requests[0]
    assert attributes_of(request, "User-Password", "Message-Authenticator") == {
        "User-Name": ["gw.example.com"],
        "Service-Type": [5],
        "NAS-Identifier": ["R1"],
        "NAS-IP-Address": ["10.0.0.254"],
        "NAS-Port-Type": [5],
        "Called-Station-Id": ["198.51.100.1"],
        "Calling-Station-Id": ["192.0.2.1"],
    }  # fmt: skip
    assert request.PwDecrypt(request["User-Password"][0]) == "Redback"
    sent = rig.sent[0][1]
    assert (sent.context, sent.destination, sent.destination_port, sent.source_port, sent.source) == (
        "vpn", "10.0.0.1", 1812, 1812, "10.0.0.254",
    )  # fmt: skip


def test_message_authenticator_is_the_first_attribute_and_is_that_of_rfc_3579() -> None:
    rig = one_server()
    rig.ask(1)
    data = rig.servers[0].raw[0]
    assert data[20:22] == b"\x50\x12"
    zeroed = data[:22] + bytes(16) + data[38:]
    assert hmac.digest(SECRET, zeroed, "md5") == data[22:38]


def test_no_secret_and_no_key_is_in_a_repr() -> None:
    rig = one_server()
    rig.ask(1)
    text = repr((rig.done, rig.sent, rig.config, rig.client.status()))
    assert "secret1" not in text
    assert "shared by two" not in text
    assert "gw.example" not in repr(rig.sent)


def test_a_reject_says_what_the_server_says() -> None:
    rig = one_server(bend=None)
    rig.servers[0].users = {}
    assert rig.ask(1) == [Rejected(1, "RADIUS server 10.0.0.1 port 1812 of context vpn: rejected")]


@pytest.mark.behaviour("B-093")
def test_an_accept_without_a_key_is_none_where_a_key_is_wanted() -> None:
    rig = one_server()
    rig.servers[0].users = {"gw.example.com": {"Framed-IP-Address": "10.1.1.1"}}
    assert rig.ask(1) == [Rejected(1, "RADIUS server 10.0.0.1 port 1812 of context vpn gives no preshared key")]
    rig.now = 6
    answer = rig.ask(2, key_wanted=False)[0]
    assert isinstance(answer, Authorized)
    assert answer.answer.address == "10.1.1.1"


def test_a_wrong_attribute_makes_a_reject() -> None:
    rig = one_server()
    rig.servers[0].users = {"gw.example.com": {(2352, 203): [b"ike pre-shared-key hex 0"]}}  # type: ignore[dict-item]
    answer = rig.ask(1)[0]
    assert isinstance(answer, Rejected)
    assert "even number of hexadecimal digits" in answer.reason


# --- silence ---


@pytest.mark.behaviour("B-099")
def test_a_silent_server_is_asked_again_with_the_same_octets() -> None:
    rig = one_server(alive=False)
    assert rig.ask(1) == []
    rig.run_to_the_end()
    assert rig.times(A) == [0, 10, 20, 30]
    assert len(set(rig.servers[0].raw)) == 1
    assert rig.now == 40
    assert rig.done[-1] == Unreachable(1, "no reply from any RADIUS server of context vpn: 10.0.0.1 port 1812")


def test_timeout_and_retries_are_as_configured() -> None:
    rig = RadiusRig(aaa(settings(A, timeout=2.5, retries=0)), (MemoryServer(A, alive=False),))
    rig.ask(1)
    rig.run_to_the_end()
    assert (rig.times(A), rig.now) == ([0], 2.5)


def test_another_server_gets_another_identifier_and_authenticator() -> None:
    rig = RadiusRig(aaa(settings(A, B)), (MemoryServer(A, alive=False), MemoryServer(B, USERS)))
    rig.ask(1)
    assert isinstance(rig.run_to_the_end()[-1], Authorized)
    first, second = rig.servers[0].raw[0], rig.servers[1].raw[0]
    assert first[4:20] != second[4:20]
    assert rig.times(B) == [40]


def test_a_dead_server_is_passed_over_until_its_dead_time_ends() -> None:
    rig = RadiusRig(aaa(settings(A, B)), (MemoryServer(A, USERS, alive=False), MemoryServer(B, USERS)))
    rig.ask(1)
    rig.run_until(100)
    assert rig.client.status()[0].state is ServerState.DEAD
    assert isinstance(rig.ask(2)[0], Authorized)
    assert rig.times(A) == [0, 10, 20, 30]
    rig.run_until(340)
    rig.servers[0].alive = True
    assert isinstance(rig.ask(3)[0], RadiusLog)
    assert rig.times(A)[-1] == 340
    assert rig.client.status()[0].state is ServerState.UP
    assert said(rig) == [
        "RADIUS server 10.0.0.1 port 1812 of context vpn does not reply: it is passed over for 300 seconds",
        "RADIUS server 10.0.0.1 port 1812 of context vpn replies again",
    ]


def test_a_server_on_trial_that_is_silent_is_dead_again_without_another_word() -> None:
    rig = RadiusRig(aaa(settings(A, B)), (MemoryServer(A, USERS, alive=False), MemoryServer(B, USERS)))
    rig.ask(1)
    rig.run_until(340)
    rig.ask(2, exchange="x")
    rig.run_until(385)
    assert rig.client.status()[0].state is ServerState.DEAD
    rig.ask(3, exchange="y")
    assert len(rig.times(A)) == 8
    assert len(said(rig)) == 1


def test_where_all_servers_are_dead_the_answer_comes_at_once() -> None:
    rig = one_server(alive=False)
    rig.ask(1)
    rig.run_until(50)
    assert isinstance(rig.ask(2)[0], Unreachable)
    assert len(rig.sent) == 4


def test_without_dead_time_no_server_is_passed_over() -> None:
    rig = RadiusRig(aaa(settings(A, dead_time=0)), (MemoryServer(A, USERS, alive=False),))
    rig.ask(1)
    rig.run_until(50)
    rig.ask(2)
    assert rig.times(A)[-1] == 50


def test_one_request_without_a_reply_does_not_make_a_talking_server_dead() -> None:
    """A server may drop one request, and reply to others meanwhile."""
    rig = one_server(alive=False)
    rig.ask(1, "odd.example.com")
    rig.run_until(35)
    rig.servers[0].alive = True
    assert isinstance(rig.ask(2)[0], Authorized)
    rig.run_until(45)
    assert isinstance(rig.done[-1], Unreachable)
    assert rig.client.status()[0].state is ServerState.UP


def test_a_late_reply_is_a_stray_and_revives_nothing_else() -> None:
    rig = one_server(alive=False)
    rig.ask(1)
    rig.run_until(60)
    rig.servers[0].alive = True
    reply = rig.servers[0].reply_to(rig.servers[0].raw[0])
    assert reply is not None
    rig.receive(rig.sent[0][1], reply)
    assert rig.client.strays == 1
    assert isinstance(rig.done[-1], Unreachable)


def test_servers_take_turns_where_the_algorithm_says_so() -> None:
    rig = RadiusRig(aaa(settings(A, B, algorithm="round-robin")), (MemoryServer(A, USERS), MemoryServer(B, USERS)))
    for token in range(4):
        rig.ask(token)
    assert [one.destination for _, one in rig.sent] == ["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2"]


# --- fallback ---


@pytest.mark.behaviour("B-097")
def test_the_context_of_the_interface_is_asked() -> None:
    rig = RadiusRig(aaa(settings(A), local=settings(C)), (MemoryServer(A, USERS), MemoryServer(C, USERS)))
    rig.ask(1)
    assert [(one.context, one.destination) for _, one in rig.sent] == [("vpn", "10.0.0.1")]
    rig.ask(2, context="local")
    assert rig.sent[-1][1].context == "local"


@pytest.mark.behaviour("B-098")
def test_context_local_is_asked_where_the_context_falls_back() -> None:
    rig = RadiusRig(
        aaa(settings(A, global_fallback=True), local=settings(C, timeout=1, retries=0)),
        (MemoryServer(A, alive=False), MemoryServer(C, USERS)),
    )
    rig.ask(1)
    answer = rig.run_to_the_end()[-1]
    assert isinstance(answer, Authorized)
    assert answer.answer.server == "RADIUS server 10.9.0.3 port 1812 of context local"
    assert [(one.context, one.destination) for _, one in rig.sent] == [("vpn", "10.0.0.1")] * 4 + [
        ("local", "10.9.0.3")
    ]
    assert isinstance(rig.ask(2)[0], Authorized), "the dead server is not waited for again"


def test_a_reject_is_no_reason_to_ask_another_server() -> None:
    rig = RadiusRig(
        aaa(settings(A, B, global_fallback=True), local=settings(C)),
        (MemoryServer(A), MemoryServer(B, USERS), MemoryServer(C, USERS)),
    )
    assert isinstance(rig.ask(1)[0], Rejected)
    assert len(rig.sent) == 1


@pytest.mark.behaviour("B-099")
def test_without_a_server_or_a_fallback_nobody_is_asked() -> None:
    rig = RadiusRig(aaa(settings(), local=settings(C)), (MemoryServer(C, USERS),))
    assert rig.ask(1) == [Unreachable(1, "context vpn has no RADIUS server")]
    assert rig.ask(2, context="nowhere") == [Unreachable(2, "context nowhere has no RADIUS server")]
    assert rig.sent == []


# --- replies of strangers ---


def test_an_accept_without_message_authenticator_is_dropped_unless_the_server_is_relaxed() -> None:
    rig = one_server(signed=False)
    assert [type(one) for one in rig.ask(1)] == [RadiusLog]
    assert said(rig)[0].endswith("is dropped: it has no Message-Authenticator")
    assert rig.client.status()[0].counters["unsigned replies"] == 1
    rig.run_to_the_end()
    assert isinstance(rig.done[-1], Unreachable)
    assert rig.client.status()[0].state is ServerState.UP, "its key made the reply: it is there"
    relaxed = replace(A, signed=False)
    rig = RadiusRig(aaa(settings(relaxed)), (MemoryServer(relaxed, USERS, signed=False),))
    assert isinstance(rig.ask(1)[0], Authorized)


def test_a_reject_needs_no_message_authenticator() -> None:
    """Else each stranger whom a server does not know would make it look dead, where it signs accepts alone."""
    rig = one_server(signed=False)
    assert [type(one) for one in rig.ask(1, "stranger.example.com")] == [Rejected]


def test_a_forged_reply_is_counted_and_the_true_one_still_counts() -> None:
    rig = one_server(alive=False)
    rig.ask(1)
    forger = MemoryServer(replace(A, secret=b"guessed"), USERS)
    server = rig.servers[0]
    server.alive = True
    true = server.reply_to(server.raw[0])
    assert true is not None
    bent = hashlib.md5(true).digest()
    for octets in (true[:4] + bent + true[20:], true[:-1] + b"!", b"\x02" + true[1:2] + b"\0\x14" + bent):
        rig.receive(rig.sent[0][1], octets)
    assert forger.users
    assert rig.client.status()[0].counters["bad authenticator replies"] == 3
    assert len(said(rig)) == 1, "one line a minute"
    rig.receive(rig.sent[0][1], true)
    assert isinstance(rig.done[-1], Authorized)


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"context": "local"}, {"destination": "10.0.0.9"}, {"destination_port": 1813}, {"source_port": 1813},
    ],
)  # fmt: skip
def test_a_reply_from_or_to_elsewhere_is_a_stray(elsewhere: dict[str, object]) -> None:
    rig = one_server(alive=False)
    rig.ask(1)
    rig.servers[0].alive = True
    reply = rig.servers[0].reply_to(rig.servers[0].raw[0])
    assert reply is not None
    rig.receive(replace(rig.sent[0][1], **elsewhere), reply)  # type: ignore[arg-type]
    assert (rig.client.strays, rig.done) == (1, [])


def test_a_reply_with_another_identifier_is_a_stray() -> None:
    rig = one_server(alive=False)
    rig.ask(1)
    rig.receive(rig.sent[0][1], b"\x02\xee\0\x14" + bytes(16))
    assert rig.client.strays == 1


@pytest.mark.behaviour("B-096")
def test_a_change_of_authorization_changes_nothing() -> None:
    rig = one_server()
    rig.ask(1)
    rig.done.clear()
    change = CoAPacket(id=rig.sent[0][1].payload[1], secret=SECRET, dict=DICTIONARY)
    change.AddAttribute("User-Name", "gw.example.com")
    change.AddAttribute("Security-Service", "ike pre-shared-key another")
    rig.receive(rig.sent[0][1], change.RequestPacket())
    assert (rig.done, rig.client.strays) == ([], 1)
    assert len(rig.sent) == 1, "it is not answered either"


def test_a_challenge_is_a_reject() -> None:
    rig = one_server(alive=False)
    rig.ask(1)
    request = rig.servers[0].requests[0]
    reply = request.CreateReply()
    reply.code = AccessChallenge
    rig.receive(rig.sent[0][1], reply.ReplyPacket())
    answer = rig.done[-1]
    assert isinstance(answer, Rejected)
    assert "challenge" in answer.reason


def test_a_genuine_reply_of_another_type_is_dropped() -> None:
    rig = one_server(alive=False)
    rig.ask(1)
    reply = rig.servers[0].requests[0].CreateReply()
    reply.code = 5
    rig.receive(rig.sent[0][1], reply.ReplyPacket())
    assert rig.client.status()[0].counters["unknown type replies"] == 1
    assert not any(isinstance(one, Rejected | Authorized) for one in rig.done)


@profile(max_examples=150, deadline=None)
@given(st.data())
def test_any_octets_are_taken_dropped_or_answered(data: st.DataObject) -> None:
    """Replies with bits turned, cut off, grown, or of no sense at all, all under the right identifier."""
    rig = one_server(alive=False)
    rig.ask(1)
    rig.servers[0].alive = True
    true = bytearray(rig.servers[0].reply_to(rig.servers[0].raw[0]) or b"")
    way = data.draw(st.sampled_from(["turned", "cut", "grown", "noise"]))
    if way == "turned":
        for at in data.draw(st.lists(st.integers(0, len(true) - 1), min_size=1, max_size=3, unique=True)):
            true[at] ^= 1 << data.draw(st.integers(0, 7))
    elif way == "cut":
        del true[data.draw(st.integers(0, len(true) - 1)) :]
    elif way == "grown":
        true += data.draw(st.binary(min_size=1, max_size=40))
    else:
        true[2:] = data.draw(st.binary(max_size=120))
        true[1:2] = rig.servers[0].raw[0][1:2]
    rig.receive(rig.sent[0][1], bytes(true))
    answers = [one for one in rig.done if isinstance(one, Authorized | Rejected)]
    # Octets beyond the length are padding (RFC 2865 3): nothing else that was bent is genuine.
    assert [type(one) for one in answers] == ([Authorized] if way == "grown" else [])


@profile(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([8, 9, 18, 25, 27, 80, 85, 88, 26, 1, 33, 255]),
            st.binary(max_size=60) | st.sampled_from([b"\0\0\x09\x30\xcb\x06ike ", b"\0\0\x09\x30\xcb\x01"]),
        ),
        max_size=8,
    )
)
def test_any_genuine_accept_gets_one_answer(attributes: list[tuple[int, bytes]]) -> None:
    """A server with the right key may send what it likes: an accept is an answer, a reject, or dropped."""
    rig = RadiusRig(aaa(settings(replace(A, signed=False))), (MemoryServer(A, alive=False),))
    rig.ask(1)
    request = rig.servers[0].raw[0]
    body = b"".join(bytes((code, len(value) + 2)) + value for code, value in attributes)
    head = bytes((2, request[1])) + (20 + len(body)).to_bytes(2)
    reply = head + hashlib.md5(head + request[4:20] + body + SECRET).digest() + body
    rig.receive(rig.sent[0][1], reply)
    answers = [one for one in rig.done if isinstance(one, Authorized | Rejected)]
    dropped = sum(count for name, count in rig.client.status()[0].counters.items() if name.endswith("replies"))
    assert len(answers) + dropped == 1


# --- bounds ---


def test_the_same_question_of_one_exchange_is_asked_once() -> None:
    rig = one_server(alive=False)
    rig.ask(1, exchange="e")
    rig.ask(2, exchange="e")
    rig.ask(2, exchange="e")
    assert len(rig.sent) == 1
    rig.servers[0].alive = True
    answers = rig.run_until(10)
    assert [(type(one), one.token) for one in answers if isinstance(one, Authorized)] == [
        (Authorized, 1), (Authorized, 2),
    ]  # fmt: skip


def test_of_one_identity_one_question_is_asked_at_a_time() -> None:
    rig = one_server(alive=False)
    for token in range(3):
        rig.ask(token)
    assert len(rig.sent) == 1
    rig.servers[0].alive = True
    assert [one.token for one in rig.run_until(10) if isinstance(one, Authorized)] == [0, 1, 2]
    assert len(rig.sent) == 4, "one again, and each of the others"


def test_a_reject_is_remembered_for_five_seconds_also_for_those_that_wait() -> None:
    rig = one_server(alive=False)
    rig.servers[0].users = {}
    rig.ask(1)
    rig.ask(2)
    rig.servers[0].alive = True
    assert [one.token for one in rig.run_until(10) if isinstance(one, Rejected)] == [1, 2]
    asked = len(rig.sent)
    rig.run_until(14.9)
    assert isinstance(rig.ask(3)[0], Rejected)
    assert len(rig.sent) == asked
    rig.run_until(15)
    rig.servers[0].users = USERS
    assert isinstance(rig.ask(4)[0], Authorized)


@pytest.mark.parametrize(
    ("limits", "cause"),
    [
        (QuestionLimits(peer=3), "bound of one peer"),
        (QuestionLimits(local=3), "bound at one local address"),
        (QuestionLimits(total=3), "bound in all"),
    ],
)
def test_questions_are_bounded_and_the_bound_ends_with_them(limits: QuestionLimits, cause: str) -> None:
    rig = RadiusRig(aaa(settings(A)), (MemoryServer(A, alive=False),), limits)
    for token in range(3):
        assert rig.ask(token, f"{token}.example.com") == []
    refused = rig.ask(9, "9.example.com")[0]
    assert isinstance(refused, Rejected)
    assert refused.kind == "busy"
    assert rig.client.refused == {cause: 1}
    rig.run_to_the_end()
    rig.now += 300
    assert rig.ask(10, "10.example.com") == []


def test_exchanges_that_wait_for_an_identity_are_bounded() -> None:
    rig = RadiusRig(aaa(settings(A)), (MemoryServer(A, alive=False),), QuestionLimits(identity=2, shared=2))
    for token in range(3):
        assert rig.ask(token) == []
    assert isinstance(rig.ask(3)[0], Rejected)
    assert rig.ask(4, exchange=0) == []
    assert isinstance(rig.ask(5, exchange=0)[0], Rejected)


@pytest.mark.parametrize("identity", ["", "x" * 254, "\u00e9" * 127])
def test_an_identity_that_does_not_fit_is_refused(identity: str) -> None:
    rig = one_server()
    refused = rig.ask(1, identity)[0]
    assert isinstance(refused, Rejected)
    assert rig.sent == []


def test_more_than_a_server_may_have_outstanding_waits() -> None:
    rig = RadiusRig(aaa(settings(A, outstanding=2)), (MemoryServer(A, alive=False),))
    for token in range(4):
        rig.ask(token, f"{token}.example.com", peer=f"192.0.2.{token}")
    status = rig.client.status()[0]
    assert (len(rig.sent), status.outstanding, status.waiting) == (2, 2, 2)
    rig.servers[0].alive = True
    rig.run_until(10)
    assert [one.token for one in rig.done if isinstance(one, Rejected)] == [0, 2, 3, 1]
    assert rig.client.status()[0].outstanding == 0


def test_at_256_identifiers_a_question_waits_for_one() -> None:
    limits = QuestionLimits(peer=999, local=999, total=999)
    rig = RadiusRig(aaa(settings(A, outstanding=999)), (MemoryServer(A, alive=False),), limits)
    for token in range(260):
        rig.ask(token, f"{token}.example.com")
    assert (len(rig.sent), rig.client.status()[0].waiting) == (256, 4)
    assert len({one.payload[1] for _, one in rig.sent}) == 256
    rig.run_to_the_end()
    assert sum(isinstance(one, Unreachable) for one in rig.done) == 260


def test_an_identifier_goes_to_what_has_waited_longest_whichever_server_has_it() -> None:
    """Authentication and accounting at one port share identifiers."""
    limits = QuestionLimits(peer=999, local=999, total=999)
    config = aaa(settings(A, accounting_servers=(A,), accounting=True, outstanding=999))
    rig = RadiusRig(config, (MemoryServer(A, alive=False),), limits)
    for token in range(256):
        rig.ask(token, f"{token}.example.com")
    rig.account(AccountingRecord("7-1-start", "7-1", "start", "vpn", user="gw", time=WALL))
    rig.run_until(1)
    rig.ask(256, "256.example.com")
    assert (len(rig.sent), [one.waiting for one in rig.client.status()]) == (256, [1, 1])
    rig.take(rig.client.cancel(3, 1))
    assert (len(rig.sent), [one.waiting for one in rig.client.status()]) == (257, [1, 0])
    rig.take(rig.client.cancel(4, 1))
    assert (len(rig.sent), [one.waiting for one in rig.client.status()]) == (258, [0, 0])


def test_what_waits_at_a_server_that_dies_goes_to_the_next() -> None:
    rig = RadiusRig(aaa(settings(A, B, outstanding=1)), (MemoryServer(A, alive=False), MemoryServer(B, USERS)))
    rig.ask(1)
    rig.ask(2, "other.example.com")
    rig.run_to_the_end()
    assert rig.times(A) == [0, 10, 20, 30]
    assert rig.times(B) == [40, 40]


def test_a_cancelled_question_gets_no_answer_and_frees_its_place() -> None:
    rig = RadiusRig(aaa(settings(A, outstanding=1)), (MemoryServer(A, USERS, alive=False),))
    rig.ask(1)
    rig.ask(2, "other.example.com")
    rig.ask(3)
    rig.take(rig.client.cancel(3, 0))
    rig.take(rig.client.cancel(1, 0))
    rig.take(rig.client.cancel(99, 0))
    assert len(rig.sent) == 2
    rig.servers[0].alive = True
    rig.run_to_the_end()
    assert [one.token for one in rig.done if isinstance(one, Rejected | Authorized)] == [2]
    status = rig.client.status()[0]
    assert (status.outstanding, status.waiting) == (0, 0)


# --- commits ---


def test_a_removed_server_hands_its_questions_to_the_next() -> None:
    rig = RadiusRig(aaa(settings(A, B, outstanding=1)), (MemoryServer(A, alive=False), MemoryServer(B, USERS)))
    rig.ask(1)
    rig.ask(2, "other.example.com")
    rig.configure(aaa(settings(B)))
    assert {type(one) for one in rig.done} == {Authorized, Rejected}
    assert len(rig.times(A)) == 1
    assert [one.address for one in rig.client.status()] == ["10.0.0.2"]


def test_a_changed_key_makes_another_server() -> None:
    rig = one_server(alive=False)
    rig.ask(1)
    anew = replace(A, secret=b"a new one")
    rig.servers = (MemoryServer(anew, USERS),)
    rig.configure(aaa(settings(anew)))
    assert isinstance(rig.done[-1], Authorized)


def test_an_unchanged_server_stays_dead_over_a_commit() -> None:
    rig = RadiusRig(aaa(settings(A)), (MemoryServer(A, alive=False),))
    rig.ask(1)
    rig.run_until(45)
    rig.configure(aaa(settings(replace(A, source="10.0.0.253"), B, timeout=5)))
    assert [one.state for one in rig.client.status()] == [ServerState.DEAD, ServerState.UP]


def test_a_source_port_of_its_own_is_used() -> None:
    rig = RadiusRig(aaa(settings(A, source_port=40000)), (MemoryServer(A, USERS),))
    assert isinstance(rig.ask(1)[0], Authorized)
    assert rig.sent[0][1].source_port == 40000


def test_datagrams_are_values_that_show_no_octets() -> None:
    assert "payload" not in repr(SendDatagram("vpn", "10.0.0.1", 1812, 1812, b"octets"))
    assert BOOKS.port == 1813
