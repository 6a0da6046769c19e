"""IKEv2 messages in fragments (RFC 7383), lost, swapped, repeated and forged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pytest

from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.v2 import MessageV2
from chassis.ase.ike.payloads.v2_payloads import Encrypted
from chassis.ase.ike_messages import IkePacket
from tests.support.ike.authentication import certified
from tests.support.ike.pair import A, B, Ends, EnginePair, other, settled

Copies = Iterable[float | tuple[float, bytes]]


def by_certificate(fragment: int, trouble: object = None) -> EnginePair:
    """Two ends whose proofs are larger than a datagram may be."""
    a, b = certified()
    return EnginePair(a, b, trouble=trouble, **{"ike-fragment-size": fragment})  # type: ignore[arg-type]


def test_long_messages_go_in_fragments() -> None:
    two = by_certificate(576)
    two.run(3)
    settled(two)
    assert max(len(packet.data) for end in (two.a, two.b) for packet in end.sent) <= 576


def test_lost_and_swapped_fragments_are_made_good() -> None:
    dice = Random(5)
    two = by_certificate(400, lambda *_: [] if dice.random() < 0.15 else [dice.random() / 10])
    assert two.until(lambda: two.a.up() and two.b.up(), 25)
    two.run(20)
    settled(two)


def established(**settings: int) -> EnginePair:
    ends = Ends(connection="initiator-only")
    two = EnginePair(ends, replace(other(ends), connection="responder-only"), **settings)
    two.run(3)
    settled(two)
    return two


def again_and_otherwise(two: EnginePair, parts: int) -> list[bytes]:
    """A rekey of a's whose request reaches b, while the answer gets lost: the request again, cut into `parts`."""
    sent: list[bytes] = []

    def wire(sender: int, packet: IkePacket, now: float) -> Copies:
        if sender == B or sent:
            return []
        sent.append(packet.data)
        return [0.01]

    two.trouble = wire
    two.ask(two.a, "rekey", what="child")
    two.run(0.1)
    (request,) = sent
    message = MessageV2.parse(request)
    payloads = two.b.session.ike_keymat.receiving.decrypt(request, message)
    guard = two.a.session.ike_keymat.sending
    two.b.sent.clear()
    if parts == 1:
        return [guard.encrypt(message.header, payloads, bytes(16))]
    for room in range(len(request), 100, -1):
        cut = guard.encrypt_fragments(message.header, payloads, room, bytes(64 * 16))
        if len(cut) == parts:
            return list(cut)
    raise AssertionError(f"no {parts} fragments")


def to_b(two: EnginePair, data: bytes) -> None:
    two.give(two.b, IkePacket(7, B, 500, A, 500, data))


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_request_that_comes_again_in_other_fragments_is_answered_again(parts: int) -> None:
    """A peer whose whole request, or our answer, got lost may try smaller datagrams (RFC 7383 2.5.2, 2.6.1)."""
    two = established()
    cut = again_and_otherwise(two, parts)
    two.trouble = None
    for data in (*cut[1:], cut[0]):
        assert not two.b.sent
        to_b(two, data)
    assert len(two.b.sent) == 1
    two.run(2)
    settled(two)
    assert [pair.replaces for pair in two.a.installs] == [1]


def test_only_what_the_peer_made_is_taken_for_its_request_come_again() -> None:
    two = established()
    for data in again_and_otherwise(two, 2):
        to_b(two, data[:-1] + bytes((data[-1] ^ 1,)))
    assert not two.b.sent
    assert two.b.count("integrity failures") == 1, "the second fragment alone brings nothing, so it is not opened"


def test_a_forged_request_between_two_fragments_does_not_keep_the_real_one_from_being_answered_again() -> None:
    two = established(**{"ike-fragment-size": 200})
    forged: list[bytes] = []
    lost: list[bytes] = []

    def wire(sender: int, packet: IkePacket, now: float) -> Copies:
        if sender == B and len(lost) < 2:
            lost.append(packet.data)
            return []
        if sender == A and not forged:
            head = replace(Header.parse(packet.data), next_payload=0)
            forged.append(MessageV2(head, (Encrypted(40, bytes(80)),)).emit())
            return [0.01, (0.015, forged[0])]
        return [0.02 if sender == A else 0.01]

    two.trouble = wire
    two.ask(two.a, "rekey", what="child")
    two.run(3)
    assert two.b.count("integrity failures") == 1
    assert len(lost) == 2
    assert [pair.replaces for pair in two.a.installs] == [1]
    two.trouble = None
    settled(two)
