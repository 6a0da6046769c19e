"""Large snapshots are sent in turns; what is said to a card stays in order."""

from __future__ import annotations

from chassis.bus.messages import Delta, Goodbye, Message, Snapshot, Welcome
from chassis.xcrp.send_turns import PARTS_AT_ONCE, SendTurns

WELCOME = Welcome(1, 1, 0.1, 5, {})


def snapshot(parts: int) -> list[Message]:
    return [Snapshot(7, number, parts, ()) for number in range(1, parts + 1)]


def sent(turns: SendTurns) -> list[tuple[str, Message]]:
    messages = []
    while turns:
        turn = turns.take()
        assert 0 < len(turn) <= PARTS_AT_ONCE
        messages += turn
    return messages


def test_what_is_small_is_sent_at_once() -> None:
    turns = SendTurns()
    delta = Delta(7, 8, (), ())
    assert not any(turns.keep("lc 3", message) for message in (WELCOME, *snapshot(PARTS_AT_ONCE), delta))
    assert not turns
    assert turns.take() == []


def test_cards_have_their_turns_and_each_its_order() -> None:
    turns = SendTurns()
    parts, delta = snapshot(2 * PARTS_AT_ONCE + 1), Delta(7, 8, (), ())
    for card in ("lc 3", "asp 1/1"):
        assert not turns.keep(card, WELCOME)
        assert all(turns.keep(card, part) for part in parts)
    # What follows the snapshot waits behind it; of another card nothing waits.
    assert turns.keep("lc 3", delta)
    assert not turns.keep("asp 1/2", delta)
    order = sent(turns)
    assert [card for card, _ in order[::PARTS_AT_ONCE]][:4] == ["lc 3", "asp 1/1"] * 2
    assert [message for card, message in order if card == "lc 3"] == [*parts, delta]
    assert [message for card, message in order if card == "asp 1/1"] == parts
    assert not turns.keep("lc 3", delta)


def test_nothing_waits_for_a_card_that_is_gone() -> None:
    turns = SendTurns()
    for part in snapshot(PARTS_AT_ONCE + 1):
        turns.keep("lc 3", part)
        turns.keep("lc 4", part)
    turns.drop("lc 3")
    assert not turns.keep("lc 4", Goodbye("no longer in the configuration"))
    assert not turns
