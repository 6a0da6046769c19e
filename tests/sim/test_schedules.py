"""Whole runs with the simplest engines: the schedule does what it says, and every check can fail."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.bus.engine import ToCard
from chassis.bus.messages import Delta, Snapshot
from chassis.sim.run import simulate
from tests.support.sim import JOURNAL, FakeController, fake_lab, tunnel


def first_violation(controller: Any, seeds: int = 30) -> Any:
    for seed in range(seeds):
        outcome = simulate(fake_lab(controller=controller), seed)
        if not outcome.passed:
            return outcome
    return None


def test_engines_without_faults_of_their_own_pass() -> None:
    for seed in range(4):
        outcome = simulate(fake_lab(), seed)
        assert outcome.passed, outcome
        assert outcome.kills + outcome.stops >= 20
        assert outcome.commits >= 4
        assert outcome.restarts >= outcome.kills


def test_a_seed_replays_its_run_event_by_event() -> None:
    lines: list[list[str]] = [[], []]
    outcomes = [
        simulate(fake_lab(), 7, 2.0, trace=lambda time, line, into=into: into.append(f"{time} {line}"))  # type: ignore[misc]
        for into in lines
    ]
    assert outcomes[0] == outcomes[1]
    assert lines[0] == lines[1]
    assert simulate(fake_lab(), 7, 2.0) == outcomes[0]
    assert simulate(fake_lab(), 8, 2.0).fingerprint != outcomes[0].fingerprint


class HalfApplied(FakeController):
    """A commit reaches the cards tunnel by tunnel."""

    def configure(self) -> None:
        self.publisher.put(tunnel(1, self.mtu))
        self.rest = [tunnel(2, self.mtu)]

    def flush(self) -> list[Any]:
        outputs = super().flush()
        while getattr(self, "rest", []):
            self.publisher.put(self.rest.pop())
            outputs += super().flush()
        return outputs


class Forgetful(FakeController):
    """A commit is acknowledged and not written down."""

    def on_operator_command(self, number: int, command: str, arguments: Any, now: float) -> list[Any]:
        outputs = super().on_operator_command(number, command, arguments, now)
        return [output for output in outputs if getattr(output, "file", "") != JOURNAL]


class Flushing(FakeController):
    """A controller that comes back gives every card a new epoch."""

    def __init__(self, start: Any) -> None:
        super().__init__(start)
        for key in [key for key in self.publisher.records if key[0] == "card"]:
            del self.publisher.records[key]
        self.heard.clear()


class Raising(FakeController):
    """Loses its head over a card that is given up."""

    def on_connection_lost(self, card: str, now: float) -> list[Any]:
        raise KeyError(card)

    on_card_died = on_connection_lost  # type: ignore[assignment]


class Deaf(FakeController):
    """Never gives a card that went silent its state again."""

    def receive(self, card: str, message: Any, now: float) -> list[Any]:
        outputs = super().receive(card, message, now)
        given = getattr(self, "given", set())
        self.given = given | {card}
        if card in given:
            return [
                output
                for output in outputs
                if not (isinstance(output, ToCard) and isinstance(output.message, Snapshot | Delta))
            ]
        return outputs


@pytest.mark.parametrize(("controller", "rules"), [
    (HalfApplied, {"a commit is whole"}),
    # Where the controller is killed alone, what it forgot is seen as flushed.
    (Forgetful, {"a commit is whole", "nothing is flushed"}),
    (Flushing, {"nothing is flushed"}),
    (Raising, {"no exception escapes"}),
    (Deaf, {"a commit is whole"}),
])  # fmt: skip
def test_every_fault_is_found_and_its_seed_finds_it_again(controller: Any, rules: set[str]) -> None:
    found = first_violation(controller)
    assert found is not None
    assert found.rule in rules
    assert simulate(fake_lab(controller=controller), found.seed) == found
