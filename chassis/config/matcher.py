"""Matching the words of a line against the commands of a mode.

Each mode's commands are compiled, backwards, into states: a state is the tuple of all words that may come next,
in order of preference, and an `Accept` where the line may end. Matching keeps every reading that is still
possible, so optional words and commands with a common beginning need no backtracking. At each word an exact
keyword wins; else values come before abbreviated keywords, and an abbreviation must be unique.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from chassis.config.grammar import (
    Alternatives,
    Choice,
    Command,
    Element,
    OptionalPart,
    Param,
    SyntaxWord,
    parse_syntax,
)
from chassis.config.operations import COMMANDS
from chassis.config.values import InvalidValue, ValueType

PREFIXES = ("no", "default")
"""Words before a command: `no` removes, `default` gives a setting the value that it has without a line."""


@dataclass(frozen=True, slots=True, eq=False)
class Accept:
    """The line may end here as this command."""

    command: Command


@dataclass(frozen=True, slots=True, eq=False)
class Keyword:
    """One accepted spelling. `field` keeps `value`; it is empty for plain keywords, where `value` is the first
    spelling."""

    spelling: str
    field: str
    value: object
    target: State
    command: Command


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One value of a type."""

    field: str
    type: ValueType
    read: Callable[[str], object]
    target: State
    command: Command


Arc = Accept | Keyword | Value
"""One way on from a state."""

State = tuple["Accept | Keyword | Value", ...]
_Captures = tuple["_Captures", str, object, int] | None


@dataclass(frozen=True, slots=True)
class Match:
    """A matched line: its command, its values by field, and the index of each value's word."""

    command: Command
    values: dict[str, object] = field(repr=False)
    word_index: dict[str, int]


@dataclass(frozen=True, slots=True)
class Failure:
    """A line that matches no command: the index of the wrong word, or the number of words if some are missing.

    `commands` are the commands that were still possible before that word.
    """

    position: int
    expected: tuple[str, ...]
    commands: tuple[Command, ...]
    may_end: Command | None = None
    refusal: InvalidValue | None = None
    refusing: Command | None = None
    ambiguous: tuple[str, ...] = ()


def _build(elements: Sequence[Element], following: State, command: Command, modern: bool) -> State:
    state = following
    for element in reversed(elements):
        match element:
            case SyntaxWord(spellings):
                state = tuple(Keyword(s, "", spellings[0], state, command) for s in spellings)
            case Choice(name):
                options = element.known(modern)
                state = tuple(Keyword(text, name, value, state, command) for text, value in options)
            case Param(name, kind):
                state = (Value(name, kind, kind.read, state, command),)
            case OptionalPart(items):
                state = _build(items, state, command, modern) + state
            case Alternatives(branches):
                state = tuple(arc for branch in branches for arc in _build(branch, state, command, modern))
    return state


class CompiledGrammar:
    """The compiled commands of one mode: either their normal forms or their `no` forms."""

    def __init__(self, commands: Iterable[Command], negative: bool, modern: bool) -> None:
        arcs: list[Accept | Keyword | Value] = []
        for command in commands:
            if negative:
                syntaxes = tuple(text.removeprefix("no ") for text in command.no_forms)
            else:
                syntaxes = (command.syntax, *command.aliases)
            for syntax in syntaxes:
                arcs.extend(_build(parse_syntax(syntax), (Accept(command),), command, modern))
        self.start: State = tuple(arcs)
        self._first: dict[str, list[Keyword]] = {}
        for arc in arcs:
            if isinstance(arc, Keyword):
                self._first.setdefault(arc.spelling, []).append(arc)

    def match(self, words: Sequence[str], rest: Callable[[int], str]) -> Match | Failure:
        """Return the command of the words, or why none matches.

        `rest(i)` returns the text of the line from word `i` on, for values that take all of it.
        """
        threads: list[tuple[State, _Captures]] = [(self.start, None)]
        for index, word in enumerate(words):
            lower = word.lower()
            if index == 0 and lower in self._first:
                threads = [(arc.target, None) for arc in self._first[lower]]
                continue
            exact: list[tuple[State, _Captures]] = []
            valued: list[tuple[State, _Captures]] = []
            short: list[tuple[Keyword, _Captures]] = []
            whole: tuple[Value, _Captures] | None = None
            refusal: tuple[InvalidValue, Command] | None = None
            for state, captures in threads:
                for arc in state:
                    if isinstance(arc, Keyword):
                        if arc.spelling == lower:
                            kept = (captures, arc.field, arc.value, index) if arc.field else captures
                            exact.append((arc.target, kept))
                        elif (
                            arc.spelling.startswith(lower)
                            and not lower.isdigit()
                            # A command without effect does not make an abbreviation ambiguous.
                            and arc.command.does != "foreign"
                        ):
                            short.append((arc, captures))
                    elif isinstance(arc, Value) and not exact:
                        if arc.type.rest:
                            whole = whole or (arc, (captures, arc.field, rest(index), index))
                            continue
                        value = arc.read(word)
                        if isinstance(value, InvalidValue):
                            if refusal is None or _telling(value) > _telling(refusal[0]):
                                refusal = (value, arc.command)
                        else:
                            valued.append((arc.target, (captures, arc.field, value, index)))
            if exact:
                threads = exact
                continue
            if whole is not None:
                return _matched(whole[0].command, whole[1])
            if _is_clear([arc for arc, _ in short]):
                valued.extend(
                    (arc.target, (kept, arc.field, arc.value, index) if arc.field else kept) for arc, kept in short
                )
            if not valued:
                return _failure(index, threads, refusal, tuple(sorted({a.spelling for a, _ in short})))
            threads = valued
        for state, captures in threads:
            for arc in state:
                if isinstance(arc, Accept):
                    return _matched(arc.command, captures)
        return _failure(len(words), threads, None, ())

    def following(self, words: Sequence[str]) -> tuple[Arc, ...]:
        """Return what may follow these words, in order of preference."""
        threads: list[State] = [self.start]
        for word in words:
            lower = word.lower()
            arcs = [arc for state in threads for arc in state]
            keywords = [arc for arc in arcs if isinstance(arc, Keyword)]
            following = [arc.target for arc in keywords if arc.spelling == lower]
            if not following:
                values = [arc for arc in arcs if isinstance(arc, Value)]
                following = [a.target for a in values if not isinstance(a.read(word), InvalidValue)]
                short = [arc for arc in keywords if arc.spelling.startswith(lower)]
                if _is_clear(short):
                    following.extend(arc.target for arc in short)
            threads = following
        return tuple(arc for state in threads for arc in state)

    def expected(self, words: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Return what may follow these words: (keyword or <type>, help) pairs, with ("<cr>", help) for the end."""
        found: dict[str, str] = {}
        for arc in self.following(words):
            match arc:
                case Accept(command):
                    found.setdefault("<cr>", command.help)
                case Keyword():
                    found.setdefault(arc.spelling, arc.command.help)
                case Value():
                    found.setdefault(f"<{arc.type.name}>", arc.type.help)
        return tuple(found.items())


def _is_clear(short: Sequence[Keyword]) -> bool:
    """Return whether an abbreviation of these keywords means one thing: one word, or the spellings of one."""
    words = {arc.value if arc.field else arc.spelling for arc in short}
    return len(words) == 1 or len({arc.value for arc in short}) == 1


def _telling(refusal: InvalidValue) -> tuple[bool, bool]:
    """Return the rank of a refusal by its detail; a refusal with a suggested word has the highest."""
    return bool(refusal.suggestion), refusal.code != "bad-value"


def _matched(command: Command, captures: _Captures) -> Match:
    values: dict[str, object] = {}
    word_index: dict[str, int] = {}
    while captures is not None:
        captures, name, value, index = captures
        values[name] = value
        word_index[name] = index
    return Match(command, values, word_index)


def _failure(
    index: int,
    threads: list[tuple[State, _Captures]],
    refusal: tuple[InvalidValue, Command] | None,
    short: tuple[str, ...],
) -> Failure:
    expected: dict[str, None] = {}
    commands: dict[str, Command] = {}
    may_end: Command | None = None
    for state, _ in threads:
        for arc in state:
            commands[arc.command.id] = arc.command
            match arc:
                case Accept():
                    may_end = may_end or arc.command
                case Keyword():
                    expected[arc.spelling] = None
                case Value():
                    expected[f"<{arc.type.name}>"] = None
    return Failure(
        index,
        tuple(expected),
        tuple(commands.values()),
        may_end,
        refusal[0] if refusal else None,
        refusal[1] if refusal else None,
        short if len(short) > 1 else (),
    )


def knows(command: Command, mode: str, variant: str) -> bool:
    """Return whether a mode, for objects of this variant ("" for any), has the command."""
    if mode not in command.modes and "any" not in command.modes:
        return False
    return not variant or not command.variants or variant in command.variants


@cache
def compiled_grammar(mode: str, variant: str, negative: bool, modern: bool = False) -> CompiledGrammar:
    """Return the compiled commands of a mode for one variant of its object ("" for all variants).

    `modern`: include the algorithms that the guide does not have.
    """
    return CompiledGrammar((c for c in COMMANDS if knows(c, mode, variant)), negative, modern)


def expected(mode: str, words: Sequence[str], variant: str = "") -> tuple[tuple[str, str], ...]:
    """Return what may follow `words` in a mode, for help and completion."""
    if words and words[0].lower() == "no":
        return compiled_grammar(mode, variant, True).expected(words[1:])
    return compiled_grammar(mode, variant, False).expected(words)
