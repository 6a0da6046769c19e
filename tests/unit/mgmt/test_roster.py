"""What the controller is told of sessions and logins: also one that was away, and never without bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from chassis.bus.operator import AWAY, OperatorError
from chassis.mgmt import roster
from chassis.mgmt.logins import Account
from chassis.mgmt.roster import MAX_FAILURES, MAX_LINES, Roster
from tests.support.mgmt import until


class Told:
    """In place of the controller: what it was told; `away` makes it refuse."""

    def __init__(self) -> None:
        self.away = False
        self.reports: list[dict[str, Any]] = []
        self.on_gone: Callable[[], None] = lambda: None

    async def call(self, command: str, wait: float, /, **arguments: Any) -> dict[str, Any]:
        assert command == "sessions"
        if self.away:
            raise OperatorError(AWAY)
        self.reports.append(arguments)
        return {}


class Session:
    """What the roster has of a session."""

    def __init__(self, user: str) -> None:
        self.account = Account(user)
        self.source, self.closing = "127.0.0.1:4242", ""
        self.began = self.active = 5.0


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "REPORT_INTERVAL", 0.0)
    monkeypatch.setattr(roster, "ACTIVE_INTERVAL", 0.01)


def serve(act: Callable[[Roster, Told], Any]) -> Told:
    """Let a roster report while `act` goes on."""
    told = Told()

    async def run() -> None:
        made = Roster(told)  # type: ignore[arg-type]
        reporting = asyncio.create_task(made.report())
        await act(made, told)
        reporting.cancel()

    asyncio.run(run())
    return told


def test_sessions_and_their_last_keys_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    async def act(made: Roster, told: Told) -> None:
        one: Any = Session("op")
        made.enter(one)
        await until(lambda: told.reports)
        one.active = 77.0
        await until(lambda: told.reports[-1]["sessions"]["1"]["active"] == 77.0)
        seen = len(told.reports)
        one.closing = "the session was idle for 5 minutes"
        made.leave(one)
        made.leave(one)
        await until(lambda: len(told.reports) > seen)

    told = serve(act)
    assert told.reports[0]["notes"] == ["op@local logged in from 127.0.0.1:4242"]
    assert told.reports[0]["sessions"] == {
        "1": {"user": "op", "context": "local", "source": "127.0.0.1:4242", "since": 5.0, "active": 5.0}
    }
    left = "op@local from 127.0.0.1:4242 logged out: the session was idle for 5 minutes"
    assert (told.reports[-1]["sessions"], told.reports[-1]["notes"]) == ({}, [left])
    assert capsys.readouterr().out.splitlines() == ["op@local logged in from 127.0.0.1:4242", left]


def test_a_controller_that_was_away_is_told_what_it_missed() -> None:
    async def act(made: Roster, told: Told) -> None:
        told.away = True
        one: Any = Session("op")
        made.enter(one)
        for number in range(2 * MAX_LINES):
            made._note(f"line {number}")
        await asyncio.sleep(0)
        told.away = False
        await until(lambda: told.reports)
        # Its successor knows of nobody.
        seen = len(told.reports)
        told.on_gone()
        await until(lambda: len(told.reports) > seen)

    told = serve(act)
    assert told.reports[0]["notes"] == [f"line {number}" for number in range(MAX_LINES, 2 * MAX_LINES)]
    assert [one["sessions"].keys() for one in told.reports] == [{"1"}] * len(told.reports)
    assert not told.reports[-1]["notes"]


def test_only_the_number_of_very_many_failed_logins_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(roster, "time", SimpleNamespace(monotonic=lambda: now))

    async def act(made: Roster, told: Told) -> None:
        nonlocal now
        for _ in range(500):
            made.turn_away("'guest'", "127.0.0.1:1", "wrong password")
        now += roster.FAILURES_WITHIN + 1
        made.turn_away("'other'", "127.0.0.1:1", "wrong password")
        await until(lambda: told.reports)

    lines = serve(act).reports[0]["warnings"]
    assert lines == [
        *["login of 'guest' from 127.0.0.1:1 failed: wrong password"] * MAX_FAILURES,
        f"{500 - MAX_FAILURES} more logins failed",
        "login of 'other' from 127.0.0.1:1 failed: wrong password",
    ]
