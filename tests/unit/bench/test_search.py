"""The best load of a lab: found to one step of 5 %, also where trials fail at times."""

from __future__ import annotations

import pytest

from bench.search import LEAST, MOST, STEP, best_load


class Machine:
    """Carries up to `capacity` packets/s; every `disturbed`-th trial fails whatever it is."""

    def __init__(self, capacity: float, disturbed: int = 0) -> None:
        self._capacity = capacity
        self._disturbed = disturbed
        self.trials = 0

    def carries(self, load: float) -> bool:
        self.trials += 1
        if self._disturbed and self.trials % self._disturbed == 0:
            return False
        return load <= self._capacity


@pytest.mark.parametrize("capacity", [LEAST, 4_321.0, 25_000.0, 87_654.0, MOST])
@pytest.mark.parametrize("guess", [1.0, 1_000.0, 25_000.0, 2e6])
@pytest.mark.parametrize("disturbed", [0, 3])
def test_it_is_found_to_a_step(capacity: float, guess: float, disturbed: int) -> None:
    machine = Machine(capacity, disturbed)
    found = best_load(machine.carries, guess)
    assert found <= capacity < found * STEP * STEP


def test_few_trials_are_needed_near_the_guess() -> None:
    machine = Machine(25_000.0)
    best_load(machine.carries, 23_000.0)
    assert machine.trials <= 8
    machine = Machine(25_000.0)
    best_load(machine.carries, 25_000.0, stride=2)
    assert machine.trials <= 6


def test_a_lab_that_carries_nothing_is_an_error() -> None:
    with pytest.raises(AssertionError, match="not even 1,000 packets/s"):
        best_load(Machine(LEAST - 1).carries, 25_000.0)
