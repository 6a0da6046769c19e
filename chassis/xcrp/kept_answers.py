"""What AAA said of peers with their keys, until they are authenticated and ask for their tunnels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from chassis.aaa.answers import AccessAnswer

KEPT_TIME: Final = 120.0
"""Time (s) for which an answer is kept: longer than an IKE SA may be half open."""

MAX_KEPT: Final = 4096
"""Answers that are kept (count); the oldest goes first."""


class KeptAnswers:
    """Answers by the token of their question."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[AccessAnswer, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, token: Hashable, answer: AccessAnswer, now: float) -> None:
        """Keep an answer for some time."""
        self._expire(now)
        self._kept[token] = (answer, now + KEPT_TIME)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def take(self, token: Hashable, now: float) -> AccessAnswer | None:
        """Return the answer with this token, which is then kept no longer; None if there is none."""
        self._expire(now)
        found = self._kept.pop(token, None)
        return None if found is None else found[0]

    def _expire(self, now: float) -> None:
        while self._kept:
            token, (_, until) = next(iter(self._kept.items()))
            if now < until:
                return
            del self._kept[token]
