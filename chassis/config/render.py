"""Printing a configuration back: the settled spellings, in the order of a saved file, so that it loads again.

The grammar is the only source of the words: the syntax of each command is walked with the values of the object.
The order of the sections is the order of the commands in the grammar, one blank of indentation for each mode.
Kept lines come after the line that they followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from chassis.config.commands import CONFIG_COMMANDS
from chassis.config.drafts import Anchor, defaults
from chassis.config.grammar import Alternatives, Choice, Command, Element, OptionalPart, Param, SyntaxWord
from chassis.config.kept import anchor, circuit_takes, claims, first_word, masked, opens_circuit
from chassis.config.matcher import knows
from chassis.config.objects import FIXED, variant_of
from chassis.config.operations import BY_ID
from chassis.config.values import HIDDEN_VALUE, ValueType, is_hash
from chassis.model.acl import AclRule, Form
from chassis.model.ipsec import Keyed
from chassis.model.router import Config, Context, StaticRoute
from chassis.model.source import Kept
from chassis.net.address import ANY
from chassis.net.types import Prefix

_REMARKS = {
    "logging-tdm-console": "! ** End Context **",
    "ike-proposal": "!Ethernet connectivity fault management configuration",
}
"""Comment lines that the router prints before these commands in a saved file."""


_UNSAID = frozenset({"ike-policy.mode"})
"""Settings whose default is not printed back even if it was typed (S-008)."""


class Style(NamedTuple):
    """Print options: include settings with their default value; print keys, or their encrypted forms instead.

    `brief`, as in messages: no password hash, and of each line that is kept the first word only.
    """

    verbose: bool = False
    keys: bool = True
    brief: bool = False


_IF_FLAT = "\0"
"""An `exit` that only a text without indentation needs, to end the mode before."""


def render(config: Config, verbose: bool = False, keys: bool = True) -> str:
    """Return the configuration as text that ends with `end`; `verbose` includes settings with their default value.

    With `keys` the keys are clear. Without, each has its encrypted form, which loads again on a router with the
    same secret; a key that has none, because the router that read it has no secret, is `HIDDEN_VALUE`.
    """
    return next(render_in_parts(config, verbose, keys))


def render_in_parts(
    config: Config, verbose: bool = False, keys: bool = True, every: int | None = None
) -> Iterator[str]:
    """Yield the text that `render` returns, after an empty one each time that `every` lines are ready.

    Thousands of tunnels take a second: whoever has other work does it in between.
    """
    lines: list[str] = []
    ready = 0
    for line in _body("global", config, "", Style(verbose, keys)):
        if line == "!" and (not lines or lines[-1] == "!"):
            if every is not None and len(lines) >= ready + every:
                ready = len(lines)
                yield ""
            continue
        lines.append(line)
    if _IF_FLAT in lines:
        flat = not any(line[0] == " " for line in lines)
        lines = ["exit" if line == _IF_FLAT else line for line in lines if flat or line != _IF_FLAT]
    if lines and lines[-1] != "!":
        lines.append("!")
    lines.append("end")
    yield "\n".join(lines) + "\n"


def with_printed_anchors(config: Config) -> Config:
    """Return the configuration with the anchor of each kept line set to the line that is printed before it."""
    return _with_printed_anchors("global", config, "")  # type: ignore[no-any-return]


def _with_printed_anchors(mode: str, value: Any, variant: str) -> Any:
    changes: dict[str, Any] = {}
    for command in _commands(mode, variant):
        if command.does != "enter" or command.target in changes:
            continue
        held = getattr(value, command.target)
        if held is None:
            continue
        if not isinstance(held, Mapping):
            changes[command.target] = _with_printed_anchors(command.enters, held, "")
            continue
        opened = {key: (_opening(command, item).enters, item) for key, item in held.items()}
        made = {
            key: _with_printed_anchors(inner, item, variant_of(inner, _view(item)))
            for key, (inner, item) in opened.items()
        }
        if any(made[key] is not held[key] for key in made):
            changes[command.target] = made
    if value.kept:
        after: Anchor = ()
        kept: list[Kept] = []
        for part in _parts(mode, value, variant, Style()):
            if part.kept is not None:
                kept.append(replace(part.kept, after=after))
            elif part.lines and part.anchor:
                after = part.anchor
        changes["kept"] = tuple(kept)
    return replace(value, **changes) if changes else value


def render_object(mode: str, value: Any, keys: bool = True, brief: bool = False) -> list[str]:
    """Return the lines of one object of a mode, its opening line first.

    `keys` as for `render`; with `brief`, password hashes are hidden, and kept lines shown by their first word.
    """
    style = Style(keys=keys, brief=brief)
    openings = tuple(c for c in CONFIG_COMMANDS if c.does == "enter" and c.enters == mode)
    opening = _fitting(openings, value) or openings[0]
    inner = _body(mode, value, variant_of(mode, _view(value)), style)
    return [*_line(opening, _opening_values(opening, value), style), *(f" {line}" for line in inner)]


def without_parts(context: Context) -> Context:
    """Return a context with only its own settings, without its parts."""
    return replace(context, interfaces={}, administrators={}, routes=(), ike_policies={}, acls={}, profiles={})


def render_route(route: StaticRoute) -> str:
    """Return the line of a static route."""
    return next(_route(route, Style()))


def _view(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in ("kind", "version") if hasattr(value, name)}


@cache
def _commands(mode: str, variant: str) -> tuple[Command, ...]:
    return tuple(c for c in CONFIG_COMMANDS if mode in c.modes and knows(c, mode, variant))


class _Part(NamedTuple):
    """Lines of an object that belong together: those of one anchor, or kept lines (`kept`).

    `opened`: the mode and the object that they open, None for single lines.
    """

    anchor: Anchor
    lines: Sequence[str]
    opened: tuple[str, Any] | None = None
    kept: Kept | None = None


def _body(mode: str, value: Any, variant: str, style: Style) -> Iterator[str]:
    opened: tuple[str, Any] | None = None
    circuit = False
    for part in _parts(mode, value, variant, style):
        if circuit and part.lines and circuit_takes(part.lines[0]):
            yield "exit"
        if part.kept is not None:
            yield from ["exit"] * _exits(opened, part.kept.lines[0].split())
            if mode == "global":
                yield _IF_FLAT
            yield from part.lines
            if mode == "global":
                yield _IF_FLAT
            opened = None
            circuit = len(part.lines) == 1 and opens_circuit(mode, part.lines[0])
        elif part.lines:
            yield from part.lines
            opened, circuit = part.opened, False


def _exits(opened: tuple[str, Any] | None, words: Sequence[str]) -> int:
    """Return how many modes must be left before a line, so that none of them takes it as its own.

    `opened` is the mode and object before the line; the last object in it is open too, and so on.
    """
    depth = exits = 0
    while opened is not None:
        mode, item = opened
        variant = variant_of(mode, _view(item))
        depth += 1
        if claims(mode, variant, words) and not exits:
            exits = depth
        opened = None
        for part in _parts(mode, item, variant, Style()):
            if part.lines:
                opened = part.opened
    return depth - exits + 1 if exits else 0


def _parts(mode: str, value: Any, variant: str, style: Style) -> Iterator[_Part]:
    """Yield the lines of an object by anchors, in order, each followed by the lines kept after it."""
    waiting: dict[Anchor, list[Kept]] = {}
    for kept in value.kept:
        waiting.setdefault(kept.after, []).append(kept)

    def followers(at: Anchor) -> Iterator[_Part]:
        for kept in waiting.pop(at, ()):
            yield _Part(at, _kept_lines(kept, style), kept=kept)

    yield from followers(())
    done: set[str] = set()
    for command in _commands(mode, variant):
        if mode == "global" and command.id in _REMARKS:
            yield _Part((), ("!", _REMARKS[command.id]))
        subject = command.id
        if command.does in ("enter", "route"):
            # Several commands open objects of one collection, or fill one list. Print it once, in its order.
            subject = command.target or command.does
            if subject in done:
                continue
            done.add(subject)
        for part in _COLLECT[command.does](command, value, style):
            yield part
            if waiting:
                yield from followers(part.anchor)
        if waiting:
            # Kept lines after a line that is not printed, because it has a default value or was removed.
            for at in [at for at in waiting if at[0] in (subject, command.target or command.id)]:
                yield from followers(at)
    for at in list(waiting):
        yield from followers(at)


def _plain(collect: Callable[[Command, Any, Style], Iterator[str]]) -> Callable[..., Iterator[_Part]]:
    """Return a collector for a command that has one line in each object."""

    def parts(command: Command, value: Any, style: Style) -> Iterator[_Part]:
        for line in collect(command, value, style):
            yield _Part((command.id,), (line,))

    return parts


def _objects(command: Command, value: Any, style: Style) -> Iterator[_Part]:
    held = getattr(value, command.target)
    if held is None:
        return
    top = "global" in command.modes
    for item in held.values() if isinstance(held, Mapping) else (held,):
        opening = _opening(command, item)
        values = _opening_values(opening, item)
        variant = variant_of(opening.enters, _view(item))
        lines = ["!"] if top else []
        lines += _line(opening, values, style)
        lines += [f" {line}" for line in _body(opening.enters, item, variant, style)]
        if top:
            lines.append("!")
        yield _Part(anchor(command, values), lines, (opening.enters, item))


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
    return {name: getattr(item, name) for name in command.fields if hasattr(item, name)}


# --- one command ---


def _line(command: Command, values: Mapping[str, Any], style: Style) -> Iterator[str]:
    words = _words(command.elements, values, style)
    if words is not None:
        yield " ".join(words)


def _words(elements: Sequence[Element], values: Mapping[str, Any], style: Style) -> list[str] | None:
    """Return the words of a syntax with these values; None if a required value is missing or of another type."""
    words: list[str] = []
    for element in elements:
        match element:
            case SyntaxWord(spellings):
                words.append(spellings[0])
            case Choice(name, _):
                if values.get(name) is None:
                    return None
                words.append(str(values[name]))
            case Param(name, kind):
                value = values.get(name)
                word = _word(kind, value, style)
                if word is None:
                    return None
                words.append(word)
            case OptionalPart(items):
                words.extend(_words(items, values, style) or ())
            case Alternatives(branches):
                branch = next((w for w in (_words(b, values, style) for b in branches) if w is not None), None)
                if branch is None:
                    return None
                words.extend(branch)
    return words


def _word(kind: ValueType, value: Any, style: Style) -> str | None:
    """Return a value as it is printed; None if it is missing or of another type or form."""
    if value is None or not kind.fits(value):
        return None
    if kind.encrypted:
        return None if style.keys and not value.opaque else kind.show(value)
    if not kind.secret or style.keys:
        return kind.show(value)
    shown = kind.show(value)
    return shown if kind.one_way and not style.brief and is_hash(shown) else HIDDEN_VALUE


def _kept_lines(kept: Kept, style: Style) -> Sequence[str]:
    if style.brief:
        return [first_word(line) for line in kept.lines]
    if style.keys:
        return kept.lines
    return kept.shown or [masked(line, HIDDEN_VALUE) for line in kept.lines]


@cache
def _required(command: Command) -> frozenset[str]:
    return frozenset(_required_fields(command.elements))


def _required_fields(elements: Sequence[Element]) -> Iterator[str]:
    for element in elements:
        match element:
            case Choice(name, _) | Param(name, _):
                yield name
            case Alternatives(branches):
                for branch in branches:
                    yield from _required_fields(branch)


def _setting(command: Command, value: Any, style: Style) -> Iterator[str]:
    standard = defaults(type(value))
    required = _required(command)
    values: dict[str, Any] = {}
    worth = style.verbose or (command.id in value.written and command.id not in _UNSAID)
    for name in command.fields:
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
    elif f"no {command.id}" in value.written:
        yield f"no {command.keywords}"


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
    elif style.verbose or command.id in value.written:
        yield command.keywords


def _address(command: Command, value: Any, style: Style) -> Iterator[str]:
    if value.address is not None:
        yield from _line(command, {"address": f"{value.address}/{value.prefix_len}"}, style)


def _appended(command: Command, value: Any, style: Style) -> Iterator[_Part]:
    for item in getattr(value, command.target):
        values = {command.target: item}
        yield _Part(anchor(command, values), [*_line(command, values, style)])


def _kept(command: Command, value: Any, style: Style) -> Iterator[str]:
    for text in value.accepted:
        if command.begins(text):
            yield text


def _items(command: Command, value: Any, style: Style) -> Iterator[_Part]:
    for item in getattr(value, command.target):
        values = {name: getattr(item, name) for name in command.fields}
        yield _Part(anchor(command, values), [*_line(command, values, style)])


def _rules(command: Command, value: Any, style: Style) -> Iterator[_Part]:
    for rule in getattr(value, command.target):
        values = _rule_values(rule)
        yield _Part(anchor(command, values), [*_line(command, values, style)])


def _rule_values(rule: AclRule) -> dict[str, Any]:
    source = _network(rule.source, rule.source_form)
    destination = _network(rule.destination, rule.destination_form)
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


def _network(prefix: Prefix, form: Form) -> Prefix | str | None:
    """Return what is printed for a network of a rule; None for nothing."""
    return prefix if prefix != ANY or form == "prefix" else form or None


def _routes(command: Command, value: Any, style: Style) -> Iterator[_Part]:
    for route in value.routes:
        at = ("route", route.prefix, route.next_hop or route.interface or "")
        yield _Part(at, [*_route(route, style)])


def _route(route: StaticRoute, style: Style) -> Iterator[str]:
    kind = "next-hop" if route.next_hop is not None else "interface" if route.interface is not None else "context"
    chosen = BY_ID[f"ip-route-{kind}"]
    values = {name: getattr(route, name) for name in chosen.fields}
    for name in ("cost", "distance"):
        if values[name] == 1 and not style.verbose and not getattr(route, f"{name}_written"):
            values[name] = None
    yield from _line(chosen, values, style)


def _keyed(command: Command, value: Any, style: Style) -> Iterator[str]:
    held: Keyed | None = getattr(value, command.target)
    if held is not None and held.algorithm != "null":
        yield from _line(command, {"algorithm": held.algorithm, "key": held.key}, style)


def _null(command: Command, value: Any, style: Style) -> Iterator[str]:
    held: Keyed | None = getattr(value, command.target)
    if held is not None and held.algorithm == "null":
        yield from _line(command, {}, style)


_COLLECT: Mapping[str, Callable[[Command, Any, Style], Iterator[_Part]]] = {
    "enter": _objects,
    "set": _plain(_setting),
    "flag": _plain(_flag),
    "switch": _plain(_switch),
    "idle": _plain(_idle),
    "shutdown": _plain(_shutdown),
    "address": _plain(_address),
    "append": _appended,
    "secondary": _appended,
    "keep": _plain(_kept),
    "proposal": _items,
    "entry": _items,
    "rule": _rules,
    "listed": _items,
    "route": _routes,
    "keyed": _plain(_keyed),
    "null": _plain(_null),
}
"""Functions that return the lines of a command in an object, by `Command.does`."""
