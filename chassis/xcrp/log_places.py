"""What a log record is about: its context and its circuit, from the names in its values.

Records of cards name a tunnel, or the context in which a packet came in; by number where they know no better.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from chassis.bus.log_lines import circuit_id
from chassis.bus.messages import LogRecord
from chassis.xcrp.node import NodeState

CONTEXT_IDS: Final = 0x40080000
"""Added to a context's number, which begins at 1, for its id as the router prints it."""

TUNNEL_CIRCUIT: Final = 3
"""Type of a tunnel's circuit in its id."""


def placed(node: NodeState, record: LogRecord) -> tuple[LogRecord, int, str]:
    """Return the record with the name of its context, that context's id or 0, and its circuit or nothing."""
    plan, values = node.plan, record.values
    name, context, circuit = values.get("tunnel"), values.get("context"), ""
    number = plan.by_name.get(name) if isinstance(name, str) else None
    demanded = plan.on_demand_by_name.get(name) if isinstance(name, str) else None
    if demanded is not None and not isinstance(context, str | int):
        context = plan.on_demand[demanded].config.interface_context
    if number is not None:
        if not isinstance(context, str):
            context = plan.tunnels[number].config.interface_context
        state = node.tunnels.get(number)
        if state is not None and state.circuit:
            circuit = circuit_id(f"{state.home.rpartition(' ')[2] or 255}/0", TUNNEL_CIRCUIT, state.circuit)
    if isinstance(context, int):
        context = next((name for name, known in plan.contexts.items() if known == context), None)
    if context != values.get("context"):
        kept = {key: value for key, value in values.items() if key != "context"}
        record = replace(record, values=kept if context is None else {**kept, "context": context})
    known = plan.contexts.get(context) if isinstance(context, str) else None
    return record, 0 if known is None else CONTEXT_IDS + known, circuit
