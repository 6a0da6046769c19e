"""Configuration mode of one session: the open modes, the lines of its candidate, and the check of each typed line.

Lines are checked against a sparse configuration: the objects that were entered, as they were in force. The
controller checks them again, on the whole, when they are committed.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from chassis.config.diagnostics import Diagnostic, has_errors
from chassis.config.drafts import Frame, Path, SourceLine
from chassis.config.grammar import MODES, Param
from chassis.config.kept import masked, misuses
from chassis.config.matcher import PREFIXES, Failure, Match, compiled_grammar
from chassis.config.objects import HOLDERS, key_of, path_of
from chassis.config.operations import COMMANDS
from chassis.config.parser import Parser, is_flat
from chassis.config.values import HIDDEN_VALUE
from chassis.model.router import Config


@dataclass(frozen=True, slots=True)
class TypedLine:
    """A line as the open modes read it: `match` of the mode at `depth`, or `failure`, the nearest one.

    `shift` is 1 where the line begins with `no` or `default`: indices of match and failure do not count that word.
    """

    source: SourceLine
    shift: int
    depth: int
    match: Match | None = field(repr=False)
    failure: Failure | None = field(repr=False)

    @property
    def changes(self) -> bool:
        """Whether it is a line of a configuration that a session may type."""
        if self.match is None:
            return False
        return self.match.command.kind == "config" and self.match.command.does not in ("control", "foreign")

    @property
    def known(self) -> bool:
        """Whether the line is one of the grammar's, right or wrong."""
        if self.failure is not None:
            return misuses(self.failure, bool(self.shift))
        return self.match is not None and self.match.command.does != "foreign"

    @property
    def configures(self) -> bool:
        """Whether the line, wrong as it is, may be meant for a command that changes something."""
        commands = (
            self.failure.commands if self.failure is not None else (self.match.command,) if self.match else ()
        )
        return any(command.kind == "config" and command.does != "control" for command in commands)

    @property
    def reached(self) -> int:
        """Number of words that are right."""
        return self.shift + self.failure.position if self.failure is not None else 0

    @property
    def hides(self) -> bool:
        """Whether a value of it is the sign for a hidden one."""
        return any(self.source.words[index] == HIDDEN_VALUE for index in self._secrets())

    @property
    def masked(self) -> str:
        """The line with its keys hidden; most of it where it may hold one that is not recognised."""
        line = self.source
        if self.match is not None:
            text = line.text
            for index in sorted(self._secrets(), reverse=True):
                start = line.columns[index] - 1
                text = f"{text[:start]}{HIDDEN_VALUE}{text[start + len(line.words[index]) :]}"
            return text[line.start :] if self.changes else masked(text[line.start :], HIDDEN_VALUE)
        if len(line.words) > 1 and self._may_hold_secret():
            return f"{line.words[0]} {HIDDEN_VALUE}"
        return masked(line.body, HIDDEN_VALUE)

    def _secrets(self) -> list[int]:
        if self.match is None:
            return []
        secret = secret_fields(self.match.command.id)
        return [index + self.shift for name, index in self.match.word_index.items() if name in secret]

    def _may_hold_secret(self) -> bool:
        failure = self.failure
        if failure is not None and failure.position and any(command.has_secret for command in failure.commands):
            return True
        return any(difflib.get_close_matches(word.lower(), _secret_words(), 1, 0.7) for word in self.source.words)


@cache
def secret_fields(command: str) -> frozenset[str]:
    """The fields of a command (by id) that are keys or password hashes."""
    found: set[str] = set()

    def visit(elements: Sequence[Any]) -> None:
        for element in elements:
            if isinstance(element, Param) and element.type.secret:
                found.add(element.field)
            for inner in getattr(element, "branches", ()) or (getattr(element, "items", ()),):
                visit(inner)

    for one in COMMANDS:
        if one.id == command:
            visit(one.elements)
    return frozenset(found)


@cache
def _secret_words() -> tuple[str, ...]:
    """Keywords of the commands that take a key."""
    words = {word for one in COMMANDS if one.has_secret for word in one.keywords.split()}
    return (*sorted(words), "key", "hex", "encrypted")


class ConfigMode:
    """The candidate of one session. `base` is the version of the configuration that it was begun on.

    `lines` are what the controller gets at commit: the typed lines without indentation, and before the first one
    those that open its mode.
    """

    def __init__(self, base: int, *, modern: bool = False) -> None:
        self.base = base
        self.modern = modern
        self.file = ""
        """File that lines of the candidate come from."""
        self.lines: list[str] = []
        self._shown: list[str] = []
        """The same lines with keys hidden."""
        self._told: set[tuple[int, str]] = set()
        """Number of the line, and code, of what was said when lines were taken."""
        self._parser = Parser("", Config(), modern, flat=True)
        self._openings: list[tuple[Frame, str, str]] = []
        self._known: set[Path] = set()
        self._absent: set[Path] = set()
        """Objects that were not in force when they were entered, or are removed by the candidate."""
        self._skip_below: int | None = None
        """Indentation of a line that was refused, while the lines below it are left out; otherwise None."""

    @property
    def prompt(self) -> str:
        """The mode as the prompt shows it, such as (config-tunnel)."""
        return MODES[self._parser.mode].prompt.removesuffix("#")

    @property
    def depth(self) -> int:
        """Number of open modes inside global configuration."""
        return len(self._parser.stack) - 1

    @property
    def frames(self) -> Sequence[Frame]:
        """The open modes, global configuration first."""
        return self._parser.stack

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)

    def line(self, number: int) -> str:
        """A line of the candidate (1 is the first) as it may be shown; empty where there is none."""
        return self._shown[number - 1] if 0 < number <= len(self._shown) else ""

    def was_told(self, number: int, code: str) -> bool:
        """Whether a diagnostic of a line of the candidate was shown when the line was taken."""
        return (number, code) in self._told

    # lines

    def read(self, text: str) -> TypedLine:
        """Read a line of at least one word, without effect."""
        source = SourceLine(text, 0)
        words = source.words
        negative = words[0].lower() in PREFIXES and len(words) > 1
        shift = 1 if negative else 0
        nearest: tuple[int, Failure] | None = None
        stack = self._parser.stack
        for depth in range(len(stack) - 1, -1, -1):
            frame = stack[depth]
            grammar = compiled_grammar(frame.mode, frame.variant, negative, self.modern)
            found = grammar.match(words[shift:], lambda index: source.rest(index + shift))
            if isinstance(found, Match):
                return TypedLine(source, shift, depth, found, None)
            if nearest is None or found.position > nearest[1].position:
                nearest = depth, found
        assert nearest is not None
        return TypedLine(source, shift, nearest[0], None, nearest[1])

    def leaves_out(self, typed: TypedLine) -> bool:
        """Whether a line is indented below one that was refused: it belongs to what that one would have opened."""
        if self._skip_below is not None and typed.source.indent > self._skip_below:
            return True
        self._skip_below = None
        return False

    def refuse(self, typed: TypedLine) -> None:
        """The line was refused: those of a paste that are indented below it are not meant for the open modes."""
        self._skip_below = typed.source.indent

    def missing(self, typed: TypedLine) -> tuple[str, ...]:
        """The path of the object that has to be learned before the line is taken; empty where there is none."""
        path = self._path(typed)
        above = (path[:length] for length in range(2, len(path), 2))
        if not path or path in self._known or any(one in self._absent for one in above):
            return ()
        return tuple(str(part) for part in path)

    def learn(self, typed: TypedLine, exists: bool, text: str) -> None:
        """Take the object that `missing` named: its lines as in `show configuration`, where it exists."""
        path = self._path(typed)
        self._known.add(path)
        if not exists:
            self._absent.add(path)
            return
        assert typed.match is not None
        command, parent = typed.match.command, self._parser.stack[typed.depth]
        key = key_of(command, typed.match.values)
        scratch = Parser(modern=self.modern)
        if parent.mode == "context":
            scratch.read_line(f"context {parent.key}")
        for line in text.splitlines():
            scratch.read_line(line)
        config = scratch.config()
        holder = config.contexts[str(parent.key)] if parent.mode == "context" else config
        made = getattr(holder, command.target).get(key)
        if made is not None:
            parent.fields[command.target][key] = made

    def take(self, typed: TypedLine) -> tuple[Diagnostic, ...]:
        """Carry out a line that changes something; return what is said about it. One in error has no effect."""
        parser, path = self._parser, self._path(typed)
        before = list(parser.stack)
        parser.read_line(typed.source.text, len(self.lines) + 1)
        said = tuple(found for found in parser.diagnostics if not self._doubtful(typed, found))
        parser.diagnostics.clear()
        parser.positions.clear()
        if has_errors(said):
            parser.stack[:] = before
            self.refuse(typed)
            return said
        if path and typed.shift:
            self._known.add(path)
            self._absent.add(path)
        shown = typed.masked
        if not self.lines:
            self.lines += [opening for _, opening, _ in self._openings]
            self._shown += [opening for _, _, opening in self._openings]
        self.lines.append(typed.source.body)
        self._shown.append(shown)
        self._told |= {(len(self.lines), found.code) for found in said}
        self._openings = [opened for opened in self._openings if opened[0] in parser.stack]
        if parser.stack[-1] not in before:
            self._openings.append((parser.stack[-1], typed.source.body, shown))
        return said

    # files

    def begin_file(self, name: str, lines: Sequence[str]) -> None:
        """The lines that come next are those of a file, from its first on."""
        self.file = name
        self._parser.flat = is_flat(lines)

    def read_in_file(self, text: str) -> TypedLine | None:
        """Read a line of a file, without effect; None for one without words."""
        source = SourceLine(text, 0)
        return self.read(text) if source.words else None

    def take_in_file(self, typed: TypedLine | None, text: str, number: int) -> tuple[Diagnostic, ...]:
        """Carry out a line of a file, by the rules of files: a line that no mode knows is kept."""
        parser = self._parser
        parser.read_line(text, number)
        said = tuple(found for found in parser.diagnostics if typed is None or not self._doubtful(typed, found))
        parser.diagnostics.clear()
        parser.positions.clear()
        if not parser.ended:
            self.lines.append(text)
            self._told |= {(number, found.code) for found in said}
            self._shown.append("" if typed is None else typed.masked if typed.known else typed.source.words[0])
        return said

    @property
    def file_ended(self) -> bool:
        """Whether an `end` came in the file."""
        return self._parser.ended

    def end_file(self) -> None:
        """Leave the modes that the file has opened."""
        while self.depth:
            self.leave()

    def why(self, typed: TypedLine) -> Diagnostic | None:
        """What is wrong with a line that does not match."""
        scratch = Parser(modern=self.modern)
        scratch.stack = _copies(self._parser.stack)
        scratch.read_line(typed.source.text)
        return next((found for found in scratch.diagnostics if found.severity != "note"), None)

    def leave(self) -> None:
        """Leave the innermost mode."""
        self._parser.read_line("exit")
        if self.lines:
            self.lines.append("exit")
            self._shown.append("exit")
        self._openings = [opened for opened in self._openings if opened[0] in self._parser.stack]

    def committed(self, version: int) -> None:
        """The candidate is in force, as this version; the next line begins another."""
        self.base = version
        self.file = ""
        self.lines, self._shown = [], []
        self._told.clear()

    # names

    def names(self, kind: str, context: str) -> list[str]:
        """The names of objects of a kind (a word of paths) in the candidate and among what was entered."""
        found: dict[str, None] = {}
        frames = self._parser.stack
        held: list[Mapping[Any, Any]] = []
        if ("", kind) in HOLDERS:
            held = [frames[0].fields[HOLDERS["", kind][0]]]
        elif ("context", kind) in HOLDERS:
            target = HOLDERS["context", kind][0]
            held = [one.fields[target] for one in frames if one.mode == "context" and context in ("", one.key)]
            contexts = frames[0].fields["contexts"].values()
            held += [getattr(one, target) for one in contexts if context in ("", one.name)]
        for names in held:
            found |= dict.fromkeys(map(str, names))
        open_now = (one for one in frames if MODES[one.mode].path == kind and one.key is not None)
        return list(found | {str(one.key): None for one in open_now})

    # inside

    def _path(self, typed: TypedLine) -> Path:
        if not typed.changes:
            return ()
        assert typed.match is not None
        command = typed.match.command
        if command.does != "enter" or command.enters == "ipsec-sa-spi":
            return ()
        return path_of(command, self._parser.stack[typed.depth], key_of(command, typed.match.values))

    def _doubtful(self, typed: TypedLine, found: Diagnostic) -> bool:
        """Whether only the whole configuration tells: routes of a context are not learned with it."""
        command = typed.match.command if typed.match is not None else None
        if found.code != "nothing-to-remove" or command is None or command.does != "route":
            return False
        return self._parser.stack[typed.depth].path not in self._absent


def _copies(stack: Sequence[Frame]) -> list[Frame]:
    copies: list[Frame] = []
    for frame in stack:
        copy = Frame(
            frame.mode, frame.cls, dict(frame.fields), copies[-1] if copies else None, frame.target, frame.key,
            frame.path, frame.variant,
        )  # fmt: skip
        copies.append(copy)
    return copies
