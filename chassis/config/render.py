"""Printing a configuration back: the settled spellings, in the order of a saved file, so that it loads again.

The grammar is the only source of the words: the syntax of each command is walked with the values of the object.
The order of the sections is the order of the commands in the grammar, one blank of indentation for each mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from chassis.config import model
from chassis.config.commands import CONFIG_COMMANDS
from chassis.config.drafts import defaults
from chassis.config.effects import FIXED, fields_of, same_command, variant_of
from chassis.config.grammar import Choice, Command, Either, Element, Maybe, Param, Word
from chassis.config.matcher import knows
from chassis.config.operations import BY_ID

_REMARKS = {
    "logging-tdm-console": "! ** End Context **",
    "ike-proposal": "!Ethernet connectivity fault management configuration",
}
"""Comment lines that a saved file of the router has before these commands."""


class Style(NamedTuple):
    """How to print: settings that have their default value too; keys as they are, or as `HIDDEN`."""

    verbose: bool = False
    keys: bool = True


HIDDEN = "***"


def render(config: model.Config, verbose: bool = False) -> str:
    """The configuration as text that ends with `end`; `verbose` prints settings that have their default value too.

    Keys are printed: the text is what is saved, and has to load again.
    """
    lines: list[str] = []
    for line in _body("global", config, "", Style(verbose)):
        if line == "!" and (not lines or lines[-1] == "!"):
            continue
        lines.append(line)
    if lines and lines[-1] != "!":
        lines.append("!")
    lines.append("end")
    return "\n".join(lines) + "\n"


def render_object(mode: str, value: Any, keys: bool = True) -> list[str]:
    """The lines of one object that a mode configures, its opening line first; keys are hidden on request."""
    style = Style(keys=keys)
    openings = tuple(c for c in CONFIG_COMMANDS if c.does == "enter" and c.enters == mode)
    opening = _fitting(openings, value) or openings[0]
    inner = _body(mode, value, variant_of(mode, _view(value)), style)
    return [*_line(opening, _opening_values(opening, value), style), *(f" {line}" for line in inner)]


def render_route(route: model.StaticRoute) -> str:
    """The line of a static route."""
    return next(_route(route, Style()))


def _view(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in ("kind", "version") if hasattr(value, name)}


@cache
def _commands(mode: str, variant: str) -> tuple[Command, ...]:
    return tuple(c for c in CONFIG_COMMANDS if mode in c.modes and knows(c, mode, variant))


def _body(mode: str, value: Any, variant: str, style: Style) -> Iterator[str]:
    done: set[str] = set()
    for command in _commands(mode, variant):
        if mode == "global" and command.id in _REMARKS:
            yield "!"
            yield _REMARKS[command.id]
        if command.does in ("enter", "route"):
            # Several commands open objects of one collection, or fill one list: it is printed once, in its order.
            subject = command.target or command.does
            if subject in done:
                continue
            done.add(subject)
        yield from _COLLECT[command.does](command, value, style)


def _objects(command: Command, value: Any, style: Style) -> Iterator[str]:
    held = getattr(value, command.target)
    if held is None:
        return
    top = "global" in command.modes
    for item in held.values() if isinstance(held, Mapping) else (held,):
        opening = _opening(command, item)
        if top:
            yield "!"
        yield from _line(opening, _opening_values(opening, item), style)
        inner = _body(opening.enters, item, variant_of(opening.enters, _view(item)), style)
        yield from (f" {line}" for line in inner)
        if top:
            yield "!"


@cache
def _openings(mode: str, target: str) -> tuple[Command, ...]:
    return tuple(c for c in CONFIG_COMMANDS if c.does == "enter" and mode in c.modes and c.target == target)


def _opening(command: Command, item: Any) -> Command:
    return _fitting(_openings(command.modes[0], command.target), item) or command


def _fitting(candidates: Sequence[Command], item: Any) -> Command | None:
    for candidate in candidates:
        fixed = FIXED.get(candidate.id, {})
        if all(getattr(item, name) == wanted for name, wanted in fixed.items()):
            return candidate
    return None


def _opening_values(command: Command, item: Any) -> dict[str, Any]:
    return {name: getattr(item, name) for name in fields_of(command) if hasattr(item, name)}


# --- one command ---


def _line(command: Command, values: Mapping[str, Any], style: Style) -> Iterator[str]:
    words = _words(command.elements, values, style)
    if words is not None:
        yield " ".join(words)


def _words(elements: Sequence[Element], values: Mapping[str, Any], style: Style) -> list[str] | None:
    """The words of a syntax with these values; None when a required value is missing or does not fit."""
    words: list[str] = []
    for element in elements:
        match element:
            case Word(spellings):
                words.append(spellings[0])
            case Choice(name, _):
                if values.get(name) is None:
                    return None
                words.append(str(values[name]))
            case Param(name, kind):
                value = values.get(name)
                if value is None or not kind.fits(value):
                    return None
                words.append(HIDDEN if kind.secret and not style.keys else kind.show(value))
            case Maybe(items):
                words.extend(_words(items, values, style) or ())
            case Either(branches):
                branch = next((w for w in (_words(b, values, style) for b in branches) if w is not None), None)
                if branch is None:
                    return None
                words.extend(branch)
    return words


@cache
def _required(command: Command) -> frozenset[str]:
    return frozenset(_required_fields(command.elements))


def _required_fields(elements: Sequence[Element]) -> Iterator[str]:
    for element in elements:
        match element:
            case Choice(name, _) | Param(name, _):
                yield name
            case Either(branches):
                for branch in branches:
                    yield from _required_fields(branch)


def _setting(command: Command, value: Any, style: Style) -> Iterator[str]:
    standard = defaults(type(value))
    required = _required(command)
    values: dict[str, Any] = {}
    worth = style.verbose
    for name in fields_of(command):
        item = getattr(value, name)
        typed = getattr(value, f"{name}_written", False)
        differs = name not in standard or item != standard[name]()
        worth = worth or differs
        if style.verbose or differs or typed or name in required:
            values[name] = item
    if worth:
        yield from _line(command, values, style)


def _flag(command: Command, value: Any, style: Style) -> Iterator[str]:
    if getattr(value, command.target):
        yield from _line(command, {}, style)


def _switch(command: Command, value: Any, style: Style) -> Iterator[str]:
    state = getattr(value, command.target)
    if state is not None:
        yield command.keywords if state else f"no {command.keywords}"


def _idle(command: Command, value: Any, style: Style) -> Iterator[str]:
    if value.idle_timeout == 0:
        yield f"no {command.keywords}"
    elif value.idle_timeout is not None:
        yield from _line(command, {"idle_timeout": value.idle_timeout}, style)


def _shutdown(command: Command, value: Any, style: Style) -> Iterator[str]:
    if not value.shutdown:
        yield f"no {command.keywords}"
    elif style.verbose:
        yield command.keywords


def _address(command: Command, value: Any, style: Style) -> Iterator[str]:
    if value.address is not None:
        yield from _line(command, {"address": f"{value.address}/{value.prefix_len}"}, style)


def _appended(command: Command, value: Any, style: Style) -> Iterator[str]:
    for item in getattr(value, command.target):
        yield from _line(command, {command.target: item}, style)


def _kept(command: Command, value: Any, style: Style) -> Iterator[str]:
    for text in value.accepted:
        if same_command(text, command.keywords):
            yield text


def _items(command: Command, value: Any, style: Style) -> Iterator[str]:
    for item in getattr(value, command.target):
        yield from _line(command, {name: getattr(item, name) for name in fields_of(command)}, style)


def _rules(command: Command, value: Any, style: Style) -> Iterator[str]:
    for rule in getattr(value, command.target):
        yield from _line(command, _rule_values(rule), style)


def _rule_values(rule: model.AclRule) -> dict[str, Any]:
    source = rule.source or ("any" if rule.source_written else None)
    destination = rule.destination or ("any" if rule.destination_written else None)
    if rule.source_port is None:
        # Without a source port the first network is the source and the first port the source's.
        if rule.destination_port is not None:
            destination = destination or "any"
        if destination is not None or rule.protocol is None:
            source = source or "any"
    return {
        "seq": rule.seq,
        "protocol": rule.protocol,
        "source": source,
        "source_port": rule.source_port,
        "destination": destination,
        "destination_port": rule.destination_port,
    }


def _routes(command: Command, value: Any, style: Style) -> Iterator[str]:
    for route in value.routes:
        yield from _route(route, style)


def _route(route: model.StaticRoute, style: Style) -> Iterator[str]:
    chosen = BY_ID["ip-route-next-hop" if route.next_hop is not None else "ip-route-interface"]
    cost = route.cost if style.verbose or route.cost != 1 else None
    values = {"prefix": route.prefix, "next_hop": route.next_hop, "interface": route.interface, "cost": cost}
    yield from _line(chosen, values, style)


def _keyed(command: Command, value: Any, style: Style) -> Iterator[str]:
    held: model.Keyed | None = getattr(value, command.target)
    if held is not None and held.algorithm != "null":
        yield from _line(command, {"algorithm": held.algorithm, "key": held.key}, style)


def _null(command: Command, value: Any, style: Style) -> Iterator[str]:
    held: model.Keyed | None = getattr(value, command.target)
    if held is not None and held.algorithm == "null":
        yield from _line(command, {}, style)


_COLLECT = {
    "enter": _objects,
    "set": _setting,
    "flag": _flag,
    "switch": _switch,
    "idle": _idle,
    "shutdown": _shutdown,
    "address": _address,
    "append": _appended,
    "keep": _kept,
    "proposal": _items,
    "entry": _items,
    "rule": _rules,
    "route": _routes,
    "keyed": _keyed,
    "null": _null,
}
"""How the lines of a command are found in an object, by `Command.does`."""
