"""The sessions of an engine: what ended is let go, however far ahead its timers were."""

from __future__ import annotations

import gc
import weakref
from itertools import count
from math import inf
from random import Random
from typing import Any

from chassis.ase.ike.ike_sa_manager import IkeSaTable

DAY = 86_400.0


class Held:
    """As much of a session as the registry looks at."""

    _spis = count(1)

    def __init__(self, at: float) -> None:
        self.spi = next(self._spis).to_bytes(8, "big")
        self.at = at
        self.closed = False
        self.initiator = self.established = False

    def next_timer(self) -> float:
        return self.at


def held(registry: IkeSaTable, at: float) -> Any:
    session: Any = Held(at)
    registry.add(session, 0.0)
    registry.update_timer(session)
    return session


def test_sessions_that_ended_are_let_go_before_their_timers_come() -> None:
    registry = IkeSaTable()
    stays = held(registry, 2 * DAY)
    gone = []
    for _ in range(2000):
        session = held(registry, DAY)
        gone.append(weakref.ref(session))
        session.closed = True
        registry.update_timer(session)
    del session
    gc.collect()
    assert not any(one() is not None for one in gone)
    assert len(registry._timers) < 300
    assert registry.pop_due(2 * DAY - 1) is None
    assert registry.pop_due(2 * DAY) is stays


def test_a_timer_that_is_moved_for_ever_takes_no_room() -> None:
    registry = IkeSaTable()
    sessions = [held(registry, DAY + number) for number in range(3)]
    for turn in range(5000):
        # To and fro, so that what was set before holds again.
        sessions[0].at = DAY - turn % 2
        registry.update_timer(sessions[0])
    assert len(registry._timers) < 300
    assert registry.next_timer() == DAY - 1


def test_sessions_come_when_they_want_to() -> None:
    rng = Random(5)
    registry = IkeSaTable()
    sessions = [held(registry, float(rng.randrange(1000))) for _ in range(400)]
    for _ in range(4000):
        session = rng.choice(sessions)
        session.at = rng.choice((inf, float(rng.randrange(1000))))
        registry.update_timer(session)
    due = []
    while (next_one := registry.pop_due(1000.0)) is not None:
        due.append(next_one)
    wanted = [session for session in sessions if session.at < inf]
    assert [session.next_timer() for session in due] == sorted(session.at for session in wanted)
    assert set(map(id, due)) == set(map(id, wanted))
