"""Prints `docs/states.md`, the state machines as diagrams, from their tables: `python -m launch.diagrams`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from chassis.ase.ike.v1 import phase1, phase2
from chassis.ase.ike.v2 import child_sa, ike_sa
from chassis.xcrp import tunnels

Table = Mapping[Any, Mapping[Any, Any]]

MACHINES: tuple[tuple[str, str, Table], ...] = (
    ("A tunnel at the controller", "chassis/xcrp/tunnels.py", tunnels.TABLE),
    ("IKEv1, phase 1", "chassis/ase/ike/v1/phase1.py", phase1.TABLE),
    ("IKEv1, phase 2: a quick mode", "chassis/ase/ike/v1/phase2.py", phase2.TABLE),
    ("IKEv2, the IKE SA", "chassis/ase/ike/v2/ike_sa.py", ike_sa.TABLE),
    ("IKEv2, a CHILD SA", "chassis/ase/ike/v2/child_sa.py", child_sa.TABLE),
)
"""Title, file and table of each."""

INTRODUCTION = """# State machines

Printed by `make docs` from the tables that drive the code; a test holds the two together. Arrows that lead nowhere
new are left out. What has no arrow cannot happen in that state: the message is passed over.
"""


def diagram(table: Table) -> str:
    """One table as a Mermaid state diagram; several events with the same way share an arrow."""
    names = {state: f"s{number}" for number, state in enumerate(table)}
    lines = ["stateDiagram-v2"]
    lines += [f'  state "{_text(state)}" as {name}' for state, name in names.items()]
    first = next(iter(table))
    lines.append(f"  [*] --> {names[first]}")
    for state, row in table.items():
        ways: dict[Any, list[str]] = {}
        for event, after in row.items():
            if after is not state:
                ways.setdefault(after, []).append(_text(event))
        lines += [f"  {names[state]} --> {names[after]} : {', '.join(events)}" for after, events in ways.items()]
        if not row:
            lines.append(f"  {names[state]} --> [*]")
    return "\n".join(lines)


def describe() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for title, file, table in MACHINES:
        parts.append(f"## {title}\n\n`{file}`\n\n```mermaid\n{diagram(table)}\n```\n")
    return "\n".join(parts)


def _text(value: Enum) -> str:
    # A colon would end the name of an arrow in Mermaid.
    return str(value.value).replace(":", ",")


if __name__ == "__main__":
    print(describe(), end="")
