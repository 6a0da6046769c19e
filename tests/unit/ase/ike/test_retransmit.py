"""Dead peer detection of IKEv1 (RFC 3706), and the message IDs that it uses up."""

from __future__ import annotations

from chassis.ase.ike import retransmit
from chassis.ase.ike.host import IkeSettings
from chassis.ase.ike.v1.exchanges import MAX_MESSAGE_IDS, MAX_QUICK_MODE_IDS, UsedMessageIds


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


def test_message_ids_of_quick_modes_outlive_those_of_many_informational_exchanges() -> None:
    used = UsedMessageIds()
    for number in range(1, 101):
        used.add(number, quick=True)
    for number in range(1000, 1000 + MAX_MESSAGE_IDS):
        used.add(number, quick=False)
        used.add(number, quick=False)
    assert not used.evicted
    used.add(5000, quick=False)
    assert used.evicted
    assert all(number in used for number in range(1, 101))
    assert 1000 not in used
    assert 1001 in used
    for number in range(10_000, 11_000):
        used.add(number, quick=True)
    assert 1 not in used
    assert len(used.quick) + len(used.others) == MAX_QUICK_MODE_IDS + MAX_MESSAGE_IDS


def test_thousands_do_not_probe_together_where_their_interval_is_long() -> None:
    spis = [bytes((0, number)) for number in range(256)]
    assert {IkeSettings(dpd_interval=10.0).probe_interval(spi) for spi in spis} == {10.0}
    found = [IkeSettings(dpd_interval=120.0).probe_interval(spi) for spi in spis]
    assert (min(found), max(found)) == (100.0, 120.0)
    assert len(set(found)) == 256


def test_probes_of_thousands_leave_in_rounds_where_their_interval_is_long() -> None:
    settings, phase = IkeSettings(dpd_interval=120.0), 0.3
    spis = [bytes((0, number)) for number in range(256)]
    found = [settings.probe_due(spi, 1000.0, phase) for spi in spis]
    assert all(1000.0 + settings.probe_interval(spi) - at < 1.0 for spi, at in zip(spis, found, strict=True))
    assert (round(min(found), 3), round(max(found), 3)) == (1099.3, 1119.3)
    assert len(set(found)) == 21
    assert {IkeSettings(dpd_interval=10.0).probe_due(spi, 1000.0, phase) for spi in spis} == {1010.0}
