"""Print `docs/states.md`, diagrams of the state machines, from their tables: `python -m tools.states_page`."""

from __future__ import annotations

from enum import Enum
from typing import Any

from chassis.aaa import servers
from chassis.ase.ike.v1 import isakmp_sa, quick_mode
from chassis.ase.ike.v2 import child_sas, ike_sa
from chassis.linecard import arp
from chassis.state_machine import StateMachine
from chassis.xcrp import cards

Machine = StateMachine[Any, Any, Any]


def _machine(name: str, module: Any, table: dict[Any, dict[Any, Any]], *, partial: bool) -> Machine:
    states = type(next(iter(table)))
    events = next(type(event) for row in table.values() for event in row)
    return StateMachine(name, states, events, table, theory=module.__doc__ or "", partial=partial)


MACHINES: tuple[Machine, ...] = (
    cards.ADMISSION,
    arp.NEIGHBOUR,
    isakmp_sa.PHASE_1,
    quick_mode.QUICK_MODE,
    ike_sa.IKE_SA,
    child_sas.CHILD_SA,
    servers.RADIUS_SERVER,
)
"""Every machine, in the order of the page. A module that has its own `StateMachine` is listed with it."""

INTRODUCTION = """# State machines

Printed by `make docs` from the tables that drive the code; a test compares the page with them. An arrow is
labelled `event / action`. The diagrams leave out events that change nothing, and events that are impossible in
a state.
"""


def diagram(machine: Machine) -> str:
    """Return one machine as a Mermaid state diagram; events with the same next state and action share an
    arrow."""
    names: dict[Any, str] = {state: f"s{number}" for number, state in enumerate(machine.table)}
    lines = ["stateDiagram-v2"]
    lines += [f'  state "{_text(state)}" as {name}' for state, name in names.items()]
    lines += [f"  [*] --> {names[state]}" for state in machine.initial]
    for state, row in machine.table.items():
        arrows: dict[tuple[Any, str], list[str]] = {}
        for event, (after, action) in row.items():
            does = "" if not action or action == machine.ignore else _actions(action)
            if after is not state or does:
                arrows.setdefault((after, does), []).append(_text(event))
        for (after, does), events in arrows.items():
            label = ", ".join(events) + (f" / {does}" if does else "")
            lines.append(f"  {names[state]} --> {names[after]} : {label}")
        if not row:
            lines.append(f"  {names[state]} --> [*]")
    return "\n".join(lines)


def describe() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION]
    for machine in MACHINES:
        file = machine.states.__module__.replace(".", "/") + ".py"
        theory = machine.theory.strip()
        parts.append(f"## {machine.name}\n\n`{file}`\n\n{theory}\n\n```mermaid\n{diagram(machine)}\n```\n")
    return "\n".join(parts)


def _actions(action: Any) -> str:
    return ", ".join(_text(one) for one in (action if isinstance(action, tuple) else (action,)))


def _text(value: Enum) -> str:
    # A colon would end the label of an arrow in Mermaid.
    return str(value.value).replace(":", ",")


if __name__ == "__main__":
    print(describe(), end="")
