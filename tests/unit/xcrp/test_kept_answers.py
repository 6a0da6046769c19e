"""What AAA said of peers that are not authenticated yet: kept for a while, and not without bound."""

from __future__ import annotations

from chassis.aaa.answers import AccessAnswer
from chassis.xcrp.kept_answers import KEPT_TIME, MAX_KEPT, KeptAnswers


def test_an_answer_is_taken_once_and_in_time() -> None:
    kept = KeptAnswers()
    kept.keep("a", AccessAnswer(profile="A"), 0.0)
    kept.keep("b", AccessAnswer(profile="B"), 10.0)
    assert kept.take("a", KEPT_TIME - 1) == AccessAnswer(profile="A")
    assert kept.take("a", KEPT_TIME - 1) is None
    assert kept.take("b", KEPT_TIME + 10.0) is None
    assert len(kept) == 0


def test_the_oldest_goes_first() -> None:
    kept = KeptAnswers()
    for number in range(MAX_KEPT + 2):
        kept.keep(number, AccessAnswer(), 0.0)
    assert len(kept) == MAX_KEPT
    assert kept.take(1, 0.0) is None
    assert kept.take(2, 0.0) is not None
