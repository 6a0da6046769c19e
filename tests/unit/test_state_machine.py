"""State machines check their own tables."""

from __future__ import annotations

from enum import Enum

import pytest

from chassis.state_machine import IllegalTransition, StateMachine, each, without_actions
from tools.states_page import MACHINES


class Lamp(Enum):
    OFF = "off"
    ON = "on"


class Press(Enum):
    SHORT = "short"
    LONG = "long"


WHOLE = {
    Lamp.OFF: {Press.SHORT: (Lamp.ON, "light"), Press.LONG: (Lamp.OFF, "")},
    Lamp.ON: {**each((Press.SHORT, Press.LONG), (Lamp.OFF, "darken"))},
}


def lamp(
    table: dict[Lamp, dict[Press, tuple[Lamp, str]]], *, partial: bool = False
) -> StateMachine[Lamp, Press, str]:
    return StateMachine("lamp", Lamp, Press, table, theory="", ignore="", partial=partial)


def test_a_transition_gives_state_and_action() -> None:
    machine = lamp(WHOLE)
    assert machine.initial == (Lamp.OFF,)
    assert machine.transition(Lamp.OFF, Press.SHORT) == (Lamp.ON, "light")
    assert machine.allows(Lamp.ON, Press.LONG)


def test_an_impossible_transition_names_machine_state_and_event() -> None:
    machine = lamp({**WHOLE, Lamp.ON: {Press.LONG: (Lamp.OFF, "darken")}}, partial=True)
    assert not machine.allows(Lamp.ON, Press.SHORT)
    with pytest.raises(IllegalTransition, match="lamp: event SHORT is impossible in state ON"):
        machine.transition(Lamp.ON, Press.SHORT)


@pytest.mark.parametrize(("table", "fault"), [
    ({Lamp.OFF: WHOLE[Lamp.OFF]}, "no row for ON"),
    ({**WHOLE, Lamp.ON: {Press.LONG: (Lamp.OFF, "darken")}}, "ON has no entry for SHORT"),
    ({**WHOLE, Lamp.OFF: each((Press.SHORT, Press.LONG), (Lamp.OFF, ""))}, "ON is never reached"),
    ({**WHOLE, Lamp.ON: each((Press.SHORT, Press.LONG), (Lamp.OFF, ""))}, "ON ignores SHORT, but changes to OFF"),
])  # fmt: skip
def test_a_wrong_table_is_refused(table: dict[Lamp, dict[Press, tuple[Lamp, str]]], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        lamp(table)


def test_an_event_in_no_row_and_a_value_given_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="no row has event LONG"):
        lamp({state: {Press.SHORT: row[Press.SHORT]} for state, row in WHOLE.items()}, partial=True)

    class Twice(Enum):
        A = "a"
        B = "a"  # noqa: PIE796

    with pytest.raises(ValueError, match="Twice: 'a' is given twice"):
        StateMachine("twice", Twice, Press, without_actions({Twice.A: dict.fromkeys(Press, Twice.A)}), theory="")


def test_machines_have_names_of_their_own() -> None:
    names = [machine.name for machine in MACHINES]
    assert len(set(names)) == len(names)
