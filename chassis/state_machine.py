"""State machines as total tables: (state, event) -> (next state, action).

A `StateMachine` is a constant of its module and checks its table when the module is imported. It holds no
state: each object that it describes keeps a field `state` and has a method

    def transition(self, event: ArpEvent) -> ArpAction:
        self.state, action = ARP.transition(self.state, event)
        return action

`tools/states_page.py` prints every machine in docs/states.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)
A = TypeVar("A")


class IllegalTransition(LookupError):
    """An event in a state in which the table says that it is impossible: a bug of the caller."""


class StateMachine(Generic[S, E, A]):
    """One machine.

    `name` is the title in docs/states.md, and `theory` its theory of operation: what the machine is of, what
    moves it, and the RFC or guide section. `initial` are the states in which an object begins; without it, the
    first of `states`.

    `table` has a row for each state. A row lists every event; None says that the event is impossible in that
    state. With `partial` a row may omit impossible events: then the caller asks `allows` first where a peer or a
    user can cause the event. `ignore` is the action that does nothing: such a pair must not change the state, and
    the diagram leaves it out.

    Raises:
        ValueError: the table is not total, a value of an enum is given twice, an event or a state is never
            reached, or `ignore` changes the state.
    """

    def __init__(
        self,
        name: str,
        states: type[S],
        events: type[E],
        table: Mapping[S, Mapping[E, tuple[S, A] | None]],
        *,
        theory: str,
        initial: tuple[S, ...] = (),
        ignore: A | None = None,
        partial: bool = False,
    ) -> None:
        self.name = name
        self.states, self.events = states, events
        self.table = {
            state: {event: then for event, then in row.items() if then is not None} for state, row in table.items()
        }
        """The possible transitions."""
        self.theory = theory
        self.ignore = ignore
        self.initial = initial or (next(iter(states)),)
        self._check(table, partial=partial)

    def transition(self, state: S, event: E) -> tuple[S, A]:
        """Return the next state and the action.

        Raises:
            IllegalTransition: the event is impossible in that state.
        """
        try:
            return self.table[state][event]
        except KeyError:
            text = f"{self.name}: event {event.name} is impossible in state {state.name}"
            raise IllegalTransition(text) from None

    def allows(self, state: S, event: E) -> bool:
        """Return whether the event is possible in that state."""
        return event in self.table[state]

    def _check(self, table: Mapping[S, Mapping[E, tuple[S, A] | None]], *, partial: bool) -> None:
        faults = []
        for members in (self.states, self.events):
            names = Counter(member.value for member in members.__members__.values())
            faults += [f"{members.__name__}: {value!r} is given twice" for value, n in names.items() if n > 1]
        faults += [f"no row for {state.name}" for state in self.states if state not in self.table]
        if not partial:
            faults += [
                f"{state.name} has no entry for {event.name}"
                for state, row in table.items()
                for event in self.events
                if event not in row
            ]
        used = {event for row in self.table.values() for event in row}
        faults += [f"no row has event {event.name}" for event in self.events if event not in used]
        reached, todo = set(self.initial), list(self.initial)
        while todo:
            new = {after for after, _ in self.table.get(todo.pop(), {}).values()} - reached
            reached |= new
            todo += new
        faults += [f"{state.name} is never reached" for state in self.states if state not in reached]
        if self.ignore is not None:
            faults += [
                f"{state.name} ignores {event.name}, but changes to {after.name}"
                for state, row in self.table.items()
                for event, (after, action) in row.items()
                if action == self.ignore and after is not state
            ]
        if faults:
            raise ValueError(f"state machine {self.name}: {'; '.join(faults)}")


def without_actions(table: Mapping[S, Mapping[E, S]]) -> dict[S, dict[E, tuple[S, None]]]:
    """Return a table for `StateMachine` from one that gives next states only; the action is None."""
    return {state: {event: (after, None) for event, after in row.items()} for state, row in table.items()}


def each(events: Iterable[E], then: A) -> dict[E, A]:
    """Return a part of a row: several events with the same entry."""
    return dict.fromkeys(events, then)
