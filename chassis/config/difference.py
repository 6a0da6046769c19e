"""The difference between two configurations, object by object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from chassis.config.kept import first_word
from chassis.config.render import render_object, render_route, without_parts
from chassis.model.router import Config, Context, StaticRoute

ChangePath = tuple[str | int, ...]

_GLOBAL = (
    ("pools", "asp-pool", "asp-pool"),
    ("groups", "asp-group", "asp-group"),
    ("ike_proposals", "ike-proposal", "ike-proposal"),
    ("ipsec_proposals", "ipsec-proposal", "ipsec-proposal"),
    ("ipsec_policies", "ipsec-policy", "ipsec-policy"),
    ("manual_sas", "security-association", "ipsec-sa"),
    ("qos_policies", "qos-policy", "ipsec-policy-pq"),
    ("policing_policies", "policing-policy", "policing"),
    ("tunnels", "tunnel", "tunnel"),
    ("cards", "card", "card"),
    ("ports", "port", "port"),
)
_CONTEXT = (
    ("interfaces", "interface", "interface"),
    ("administrators", "administrator", "administrator"),
    ("ike_policies", "ike-policy", "ike-policy"),
    ("acls", "ipsec-access-list", "ipsec-acl"),
    ("profiles", "ipsec-profile", "ipsec-profile"),
)


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """One object added, removed or changed.

    `path` names it: ("context", "L1", "interface", "x"), or ("context", "L1", "route", "10.0.0.0/8", "1.2.3.4").
    `old` and `new` are the typed objects (None: it does not exist); a context is given without its parts, which
    have changes of their own. `lines` are the removed ("- ...") and added ("+ ...") configuration lines, with keys
    in their encrypted form or hidden, and of lines that the grammar does not know the first word.
    """

    kind: Literal["added", "removed", "changed"]
    path: ChangePath
    old: Any
    new: Any
    lines: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        head = f"{self.kind} {' '.join(str(part) for part in self.path)}"
        return head if not self.lines else f"{head}: {'; '.join(self.lines)}"


_LOGGING: Final = (
    ("log_file", "logging file"),
    ("log_ring_size", "logging ring-size"),
    ("log_filter_console", "logging filter console"),
    ("log_filter_syslog", "logging filter syslog"),
    ("log_filter_file", "logging filter file"),
)
"""Settings of the log, by field, and the words of their lines."""


def difference(old: Config, new: Config) -> tuple[ConfigChange, ...]:
    """Return the changes from `old` to `new`, global objects first, then contexts; empty if they are equal."""
    return tuple(_changes(old, new))


def _changes(old: Config, new: Config) -> Iterator[ConfigChange]:
    if old.hostname != new.hostname:
        lines: tuple[str, ...] = (f"- system hostname {old.hostname}", f"+ system hostname {new.hostname}")
        yield ConfigChange("changed", ("hostname",), old.hostname, new.hostname, lines)
    for name, words in _LOGGING:
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            lines = tuple(f"{sign} {_logging(words, value)}" for sign, value in (("-", before), ("+", after)))
            yield ConfigChange("changed", tuple(words.split()), before, after, lines)
    if old.accepted != new.accepted:
        lines = _lines(list(old.accepted), list(new.accepted))
        yield ConfigChange("changed", ("accepted",), old.accepted, new.accepted, lines)
    if old.kept != new.kept:
        lines = _lines(_kept(old), _kept(new))
        yield ConfigChange("changed", ("kept",), old.kept, new.kept, lines or ("lines without effect changed",))
    for attribute, word, mode in _GLOBAL:
        yield from _collection((), word, mode, getattr(old, attribute), getattr(new, attribute))
    empty = Context("")
    for name in {**old.contexts, **new.contexts}:
        before, after = old.contexts.get(name), new.contexts.get(name)
        if before == after:
            continue
        path: ChangePath = ("context", name)
        change = _one(path, "context", before and without_parts(before), after and without_parts(after))
        if change is not None:
            yield change
        first, second = before or empty, after or empty
        for attribute, word, mode in _CONTEXT:
            yield from _collection(path, word, mode, getattr(first, attribute), getattr(second, attribute))
        yield from _routes(path, first, second)


def _logging(words: str, value: bool | int | None) -> str:
    if isinstance(value, bool) or value is None:
        return f"no {words}" if value is False else words
    return f"{words} {value}"


def _kept(config: Config) -> list[str]:
    return [first_word(line) for kept in config.kept for line in kept.lines]


def _collection(
    base: ChangePath, word: str, mode: str, old: Mapping[Any, Any], new: Mapping[Any, Any]
) -> Iterator[ConfigChange]:
    if old is new:
        return
    for key in {**old, **new}:
        one, two = old.get(key), new.get(key)
        # Of thousands of objects a commit leaves almost all: they need no comparison.
        change = None if one is two else _one((*base, word, key), mode, one, two)
        if change is not None:
            yield change


def _one(path: ChangePath, mode: str, old: Any, new: Any) -> ConfigChange | None:
    if old == new:
        return None
    if old is None:
        return ConfigChange("added", path, None, new, tuple(f"+ {line}" for line in _body(mode, new)))
    if new is None:
        return ConfigChange("removed", path, old, None)
    lines = _lines(_body(mode, old), _body(mode, new))
    return ConfigChange("changed", path, old, new, lines or (_hidden_change(old, new),))


def _hidden_change(old: Any, new: Any) -> str:
    return "lines without effect changed" if old.kept != new.kept else "a key or its kind changed"


def _body(mode: str, value: Any) -> list[str]:
    if mode == "ike-proposal" and value.version == 2:
        mode = "ike2-proposal"
    return [line.strip() for line in render_object(mode, value, keys=False, brief=True)]


def _lines(old: list[str], new: list[str]) -> tuple[str, ...]:
    gone = [f"- {line}" for line in old if line not in new]
    come = [f"+ {line}" for line in new if line not in old]
    return (*gone, *come)


def _routes(base: ChangePath, old: Context, new: Context) -> Iterator[ConfigChange]:
    if old.routes is new.routes:
        return
    before = {_route_key(route): route for route in old.routes}
    after = {_route_key(route): route for route in new.routes}
    for key in {**before, **after}:
        one, two = before.get(key), after.get(key)
        if one is two or one == two:
            continue
        path = (*base, "route", *key)
        gone = (f"- {render_route(one)}",) if one is not None and two is not None else ()
        come = (f"+ {render_route(two)}",) if two is not None else ()
        kind: Literal["added", "removed", "changed"] = "changed"
        if one is None:
            kind = "added"
        elif two is None:
            kind = "removed"
        yield ConfigChange(kind, path, one, two, (*gone, *come))


def _route_key(route: StaticRoute) -> tuple[str, ...]:
    key = (route.prefix, route.next_hop or route.interface or "")
    return key if route.context is None else (*key, route.context)
