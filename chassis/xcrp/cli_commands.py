"""What sessions of the router's CLI ask a controller: who it is, objects and names.

An object is named as in a difference: ("tunnel", "t1"), ("context", "L1", "ike-policy", "p").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from chassis.bus.arguments import ArgumentError
from chassis.bus.engine import Output, ToOperator
from chassis.bus.messages import Attributes, Value
from chassis.config.objects import HOLDERS
from chassis.config.render import render_object, without_parts
from chassis.model.router import Config
from chassis.xcrp.operators import Method, Operators

MAX_NAMES: Final = 200
"""Most names (count) of one answer."""

HOSTNAME: Final = "system-hostname"
"""The command that names the router; without it the node's name is shown."""


def _found(config: Config, path: list[str]) -> tuple[str, Any]:
    """Return the mode and the object at a path; None for an object that is not there.

    Raises:
        ArgumentError: no object can have such a path.
    """
    around, mode = "", "global"
    value: Any = config
    for word, name in _steps(path):
        field, mode = HOLDERS.get((around, word), ("", ""))
        if not field:
            raise ArgumentError(f"no object is at {' '.join(path)!r}")
        key: str | int = int(name) if word == "card" and name.isdigit() else name
        value = getattr(value, field).get(key) if value is not None else None
        around = word
    if around == "ike-proposal" and value is not None:
        mode = "ike2-proposal" if value.version == 2 else "ike-proposal"
    return mode, value


def _steps(path: list[str]) -> Iterator[tuple[str, str]]:
    if not path or len(path) % 2:
        raise ArgumentError("a path has pairs of a kind and a name")
    return zip(path[::2], path[1::2], strict=True)


def _identity(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    state = operators.state
    config = state.config
    named = HOSTNAME in config.written or config.hostname != Config().hostname
    contexts: list[Value] = list(islice(config.contexts, MAX_NAMES))
    answer: Attributes = {
        "hostname": config.hostname if named else state.node.name,
        "contexts": contexts,
        "version": state.journal.version,
        "modern": state.settings.modern,
    }
    return [ToOperator(number, answer)]


def _object(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    mode, value = _found(operators.state.config, given["path"])
    if value is None:
        return [ToOperator(number, {"exists": False, "text": ""})]
    if mode == "context":
        value = without_parts(value)
    text = "".join(f"{line}\n" for line in render_object(mode, value, keys=False))
    return [ToOperator(number, {"exists": True, "text": text})]


def _names(operators: Operators, number: int, given: dict[str, Any], now: float) -> list[Output]:
    config, kind, context, prefix = operators.state.config, given["kind"], given["context"], given["prefix"]
    outside, inside = HOLDERS.get(("", kind)), HOLDERS.get(("context", kind))
    held: list[Mapping[Any, Any]] = []
    if outside is not None:
        held = [getattr(config, outside[0])]
    elif inside is not None:
        held = [getattr(one, inside[0]) for one in config.contexts.values() if context in ("", one.name)]
    else:
        raise ArgumentError(f"no kind of object is {kind!r}")
    every = dict.fromkeys(str(name) for names in held for name in names)
    found: list[Value] = [name for name in every if name.startswith(prefix)]
    return [ToOperator(number, {"names": found[:MAX_NAMES], "more": len(found) > MAX_NAMES})]


COMMANDS: Final[dict[str, Method]] = {
    "identity": _identity,
    "object": _object,
    "names": _names,
}
"""Functions that carry out the commands, by name."""
