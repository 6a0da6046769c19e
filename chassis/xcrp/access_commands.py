"""What the process `mgmt` asks a controller: who may log in; and what it tells: who is logged in.

Only the owner of the lab can open the operator socket. The answer to `login` has a password hash: no session asks
it, and nothing prints it.
"""

from __future__ import annotations

from typing import Any, Final

from chassis.bus.engine import Output, ToOperator
from chassis.bus.messages import Value
from chassis.cli.rows import DEFAULT_PRIVILEGE, HIGHEST_PRIVILEGE
from chassis.model.router import Administrator
from chassis.xcrp.operators import Method, Operators

FACILITY: Final = "login"
"""Facility of log lines about logins."""


def _rights(found: Administrator) -> dict[str, Value]:
    """Return the privileges of an administrator, and the minutes (0: none) after which an idle session ends."""
    return {
        "privilege_start": DEFAULT_PRIVILEGE if found.privilege_start is None else found.privilege_start,
        "privilege_max": HIGHEST_PRIVILEGE if found.privilege_max is None else found.privilege_max,
        "idle_timeout": found.idle_timeout or 0,
    }


def _login(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    context = operators.state.config.contexts.get(given["context"])
    found = context.administrators.get(given["name"]) if context is not None else None
    answer: dict[str, Any] = {"exists": found is not None}
    if found is not None:
        answer |= {
            "hash": found.password_hash,
            **_rights(found),
            "keys": [*found.public_keys],
        }
    if context is not None:
        answer["enable"] = context.enable_hash or ""
    return [ToOperator(number, answer)]


def _sessions(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    operators.state.sessions = given["sessions"]
    for text in given["warnings"]:
        operators.state.log("warning", FACILITY, text, now)
    for text in given["notes"]:
        operators.state.log("info", FACILITY, text, now)
    return [ToOperator(number, {})]


def _administrators(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    rows: list[dict[str, Value]] = [
        {
            "name": found.name,
            "context": context.name,
            **_rights(found),
        }
        for context in operators.state.config.contexts.values()
        for found in context.administrators.values()
    ]
    return [ToOperator(number, {"administrators": rows, "sessions": list(operators.state.sessions.values())})]


COMMANDS: Final[dict[str, Method]] = {
    "login": _login,
    "sessions": _sessions,
    "administrators": _administrators,
}
"""Functions that carry out the commands, by name."""
