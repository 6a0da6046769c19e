"""Messages that are lost, repeated, reordered or forged, in both versions: SAs are made all the same, once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pytest

from chassis.ase.ike.payloads.header import HEADER_LENGTH, Header
from chassis.ase.ike.payloads.numbers import ExchangeType, PayloadTypeV1
from chassis.ase.ike.payloads.v1 import Hash
from chassis.ase.ike.v1 import exchanges
from chassis.ase.ike_messages import IkePacket, PeerUsesSa
from tests.support.ike.pair import (
    TUNNEL,
    A,
    B,
    End,
    Ends,
    EnginePair,
    Trouble,
    always,
    esp,
    other,
    proposal,
    settled,
)

QUICK, AGGRESSIVE = ExchangeType.QUICK_MODE, ExchangeType.AGGRESSIVE_MODE
MODES = [(1, "main"), (1, "aggressive"), (2, "main")]
Copies = Iterable[float | tuple[float, bytes]]


def pair(
    version: int, trouble: Trouble | None = None, mode: str = "main", seed: int = 1, **more: object
) -> EnginePair:
    """End a initiates."""
    ends = replace(Ends(version=version, mode=mode, connection="initiator-only"), **more)
    return EnginePair(ends, replace(other(ends), connection="responder-only"), trouble=trouble, seed=seed)


def established(version: int, **more: object) -> EnginePair:
    two = pair(version, **more)  # type: ignore[arg-type]
    two.run(3)
    settled(two)
    return two


def exchange(packet: IkePacket) -> int:
    return packet.data[18]


@pytest.mark.parametrize(("version", "mode"), MODES)
@pytest.mark.parametrize("trouble", ["lost", "twice", "late"])
@pytest.mark.parametrize("which", range(9))
def test_each_message_in_turn(version: int, mode: str, trouble: str, which: int) -> None:
    number = -1

    def wire(sender: int, packet: IkePacket, now: float) -> Copies:
        nonlocal number
        number += 1
        return [0.01] if number != which else {"lost": [], "twice": [0.01, 0.02], "late": [1.2]}[trouble]

    two = pair(version, wire, mode)
    two.run(12)
    settled(two)
    assert not [text for end in (two.a, two.b) for text in end.texts() if "does not answer" in text]
    two.run(120)
    settled(two)


def test_a_retransmission_of_version_1_that_is_late_puts_the_next_one_off() -> None:
    two = pair(1, lambda *_: [])
    two.run(0.1)
    (session,) = two.a.sessions
    wait = two.a.ike.ike_sa_manager.settings.retransmit_timeout
    late = two.now + 5 * wait
    session.on_timer(late)
    assert session.next_timer() == late + 2 * wait


def test_message_3_of_aggressive_mode_that_is_lost_twice_is_asked_for_by_quick_mode() -> None:
    sent: list[bytes] = []

    def wire(sender: int, packet: IkePacket, now: float) -> Copies:
        proof = sender == A and exchange(packet) == AGGRESSIVE and packet.data[8:16] != bytes(8)
        sent.extend([packet.data] if proof else [])
        return [] if proof and len(sent) < 3 else [0.01]

    two = pair(1, wire, "aggressive")
    two.run(12)
    settled(two)
    assert len(sent) == 3
    assert len(set(sent)) == 1


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_a_bad_wire(version: int, seed: int) -> None:
    """A tenth is lost, a tenth comes twice, in any order: pairs and IKE SAs are succeeded many times over, by
    their lifetimes and by either operator."""
    dice = Random(seed)

    def wire(sender: int, packet: IkePacket, now: float) -> Copies:
        copies = [] if dice.random() < 0.1 else [dice.uniform(0.01, 0.4)]
        return copies + ([dice.uniform(0.01, 2.0)] if dice.random() < 0.1 else [])

    short = esp(seconds=300)
    two = pair(
        version,
        wire,
        seed=seed,
        suites=(short,),
        lifetime=900,
        pfs=1,
        proposals=(proposal(version, lifetime=900),),
    )
    two.run(60)
    for _ in range(100):
        always(two, 30)
        if dice.random() < 0.2:
            two.ask(dice.choice((two.a, two.b)), "rekey", what=dice.choice(("child", "ike")))
    assert len(two.a.gone) >= 9
    two.trouble = None
    two.run(100)
    agreed = {one.outbound for one in two.a.installs} == {one.inbound for one in two.b.installs}
    assert agreed


def forge_once(two: EnginePair, forged: bytes, wire: Trouble) -> None:
    """Have b get a datagram from a's address now."""
    two.trouble = wire
    two.give(two.b, IkePacket(7, B, 500, A, 500, forged))


def test_a_forged_confirmation_does_not_keep_the_answer_from_being_given_again() -> None:
    """What is kept to know a repeat is set by authentic messages only: message 3 with a wrong HASH is none."""
    first: list[bytes] = []

    def wire(sender: int, packet: IkePacket, now: float) -> Copies:
        if exchange(packet) != QUICK:
            return [0.01]
        if sender == A and not first:
            first.append(packet.data)
            return [0.01]
        return []

    two = pair(1, wire)
    two.run(0.1)
    (answer,) = [one.data for one in two.b.sent if exchange(one) == QUICK]
    (quick,) = two.b.session.quick_modes.pending
    message, _ = quick.chain.encrypt(replace(Header.parse(first[0]), flags=0), (Hash(bytes(20)),))
    two.b.sent.clear()
    forge_once(two, message, lambda *_: [])
    assert two.b.count("decryption failures") == 1
    assert not two.b.sent
    forge_once(two, first[0], lambda *_: [])
    assert [one.data for one in two.b.sent] == [answer]
    two.trouble = None
    two.run(2)
    settled(two)


def test_a_forged_answer_of_version_1_does_not_stop_the_real_one() -> None:
    def wire(sender: int, packet: IkePacket, now: float) -> Copies:
        if sender == A or Header.parse(packet.data).next_payload == PayloadTypeV1.KE:
            return [0.01]  # A false public value in message 4 shows only in message 6.
        bad = bytearray(packet.data)
        bad[-1] ^= 1
        bad[HEADER_LENGTH + 9] ^= 0xFF
        return [(0.005, bytes(bad)), 0.01]

    two = pair(1, wire)
    two.run(3)
    settled(two)


def test_altered_messages_of_version_2_are_dropped_and_counted() -> None:
    two = established(2)

    def wire(sender: int, packet: IkePacket, now: float) -> Copies:
        if sender == A and not two.b.count("integrity failures"):
            return [(0.01, packet.data[:-1] + bytes((packet.data[-1] ^ 1,)))]
        return [0.01]

    two.trouble = wire
    two.ask(two.a, "rekey", what="child")
    two.run(3)
    assert two.b.count("integrity failures") == 1
    assert [one.replaces for one in two.a.installs] == [1]
    settled(two)


def test_a_repeated_request_of_version_2_is_answered_the_same_way_and_done_once() -> None:
    two = established(2)
    two.ask(two.a, "rekey", what="child")
    request = two.a.sent[-1].data
    two.run(0.012)
    answer = two.b.sent[-1].data
    two.b.sent.clear()
    two.give(two.b, IkePacket(7, B, 500, A, 500, request))
    assert [one.data for one in two.b.sent] == [answer]
    two.run(2)
    settled(two)


def test_replayed_messages_of_version_1_change_nothing() -> None:
    two = established(1)
    two.ask(two.a, "rekey", what="ike")
    two.run(30)
    before = (dict(two.a.pairs), dict(two.b.pairs), two.a.sessions, two.b.sessions)
    for receiver, sender in ((two.a, two.b), (two.b, two.a)):
        for one in list(sender.sent):
            for _ in range(20):
                two.give(receiver, IkePacket(7, receiver.local, 500, sender.local, 500, one.data))
    two.run(100)
    assert (two.a.pairs, two.b.pairs, two.a.sessions, two.b.sessions) == before
    settled(two)


def test_what_was_recorded_long_ago_is_no_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "MAX_MESSAGE_IDS", 8)
    two = established(1, keepalive=True)
    two.run(400)
    recorded = [one.data for one in two.b.sent][:-12]
    assert len(recorded) > 30, "questions and answers of the peer, and quick mode"
    assert two.a.session.ids_evicted
    two.trouble = lambda *_: []
    begun, session = two.now, two.a.session
    while session.established:
        for data in recorded:
            two.give(two.a, IkePacket(7, A, 500, B, 500, data))
        two.run(0.5)
        assert two.now < begun + 41


# --- a quick mode without its third message ---


def lost_confirmations(sender: int) -> Trouble:
    """Loses what an end sends in quick mode, but the first message."""
    count = 0

    def wire(address: int, packet: IkePacket, now: float) -> Copies:
        nonlocal count
        if exchange(packet) == QUICK and address == sender:
            count += 1
            return [0.01] if count == 1 else []
        return [0.01]

    return wire


def newest(end: End) -> int:
    return max(serial for _, serial in end.pairs)


def test_a_packet_confirms_where_message_3_is_lost() -> None:
    two = pair(1, lost_confirmations(A))
    two.run(1)
    assert two.b.sender() is None
    assert two.packet(two.a)
    assert two.packet(two.b)
    always(two, 60)


def test_a_pair_that_nobody_confirms_goes() -> None:
    two = pair(1, lambda sender, packet, now: [] if exchange(packet) == QUICK and sender == B else [0.01])
    assert two.until(lambda: two.a.says("does not answer") or bool(two.a.count("failed timeout")), 100)
    assert not two.a.pairs
    two.run(40)
    assert not two.a.pairs
    assert two.b.sender() is None


@pytest.mark.parametrize("confirmation", ["message 3", "a packet"])
def test_a_quick_mode_that_ends_under_the_older_sa(confirmation: str) -> None:
    """The new phase 1 stands while a quick mode of the older one waits for message 3."""
    two = established(1)
    held = 0

    def wire(sender: int, packet: IkePacket, now: float) -> Copies:
        nonlocal held
        if sender == A and exchange(packet) == QUICK:
            held += 1
            return [0.01] if held == 1 else [2.0] if confirmation == "message 3" else []
        return [0.01]

    two.trouble = wire
    two.ask(two.a, "rekey", what="child")
    two.run(0.1)
    two.ask(two.a, "rekey", what="ike")
    two.run(0.3)
    assert len(two.b.standing) == 2
    new = newest(two.b)
    assert two.b.sending[TUNNEL, 10] != new
    if confirmation == "a packet":
        two.give(two.b, PeerUsesSa(TUNNEL, new))
        assert two.b.sending[TUNNEL, 10] == new
    always(two, 90)
    assert [serial for _, serial in two.b.pairs] == [new]
    settled(two)
