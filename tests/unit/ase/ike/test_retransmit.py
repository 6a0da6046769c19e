"""Dead peer detection of IKEv1 (RFC 3706)."""

from __future__ import annotations

from chassis.ase.ike import retransmit


def test_an_answer_to_no_question_is_no_sign_of_life() -> None:
    detector = retransmit.DpdState(10, 3, 0xFFFFFFFE)
    detector.reset(0.0)
    assert not detector.matches_pending(0xFFFFFFFD)
    assert not detector.matches_pending(0xFFFFFFFE), "not asked yet"
    asked = [detector.next_probe(10.0), detector.next_probe(20.0), detector.next_probe(30.0)]
    assert asked == [0xFFFFFFFE, 0xFFFFFFFF, 0]
    assert all(detector.matches_pending(number) for number in asked if number is not None)
    assert not detector.matches_pending(1)
    assert not detector.matches_pending(0xFFFFFFFD)
    detector.reset(31.0)
    assert not detector.matches_pending(0)
    assert retransmit.is_newer_sequence(0, 0xFFFFFFFF)
    assert not retransmit.is_newer_sequence(5, 5)
    assert not retransmit.is_newer_sequence(4, 5)
