"""Understanding a line as far as it goes: the whole exec command, and in every mode help for `?` and tab."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chassis.cli import pipes
from chassis.cli.commands import BY_NAME, CONFIGURATION_WORDS, PREFIX_WORDS, WORDS, grammar, other_spellings
from chassis.cli.config_mode import ConfigMode
from chassis.cli.dialogue import Seat
from chassis.cli.names import NameQuery, query
from chassis.cli.pipes import PIPES, LineFilter, PipeError
from chassis.cli.rows import ExecCommand
from chassis.config.drafts import Frame
from chassis.config.effects import HAVE_DEFAULT
from chassis.config.matcher import PREFIXES, Accept, Arc, Keyword, Match, Value, compiled_grammar

MAX_HELP_NAMES: Final = 40
"""Most names (count) that `?` lists."""

HELP_COLUMN: Final = 22
"""Columns from the start of a keyword to that of its help."""

END: Final = "<cr>"
"""Stands for the end of the line in help."""


@dataclass(frozen=True, slots=True)
class ParsedLine:
    """A line that is a command: its row, its arguments and its filters."""

    command: ExecCommand
    values: Mapping[str, Any]
    pipes: Sequence[LineFilter]


@dataclass(frozen=True, slots=True)
class SyntaxFault:
    """Why a line is no command. `column` is where the caret stands, None where the text says enough."""

    text: str
    column: int | None = None
    reached: int = 0
    """Number of words that are right."""

    def lines(self, indent: int) -> list[str]:
        """The lines that say it; the command was printed `indent` columns from the left."""
        caret = [] if self.column is None else [" " * (indent + self.column) + "^"]
        return [*caret, self.text]


def _columns(text: str) -> list[tuple[int, str]]:
    """Each word with its column."""
    return [(found.start(), found[0]) for found in re.finditer(r"\S+", text)]


def _invalid(column: int, reached: int = 0) -> SyntaxFault:
    return SyntaxFault("% Invalid input at '^' marker", column, reached)


def _incomplete(text: str) -> SyntaxFault:
    return SyntaxFault(f"% Incomplete command: {' '.join(text.split())}", None, len(text.split()))


def parse(line: str, privilege: int, configuring: bool = False) -> ParsedLine | SyntaxFault:
    """Read a line that is not blank as a session of this privilege may type it, in exec mode or `configuring`."""
    (start, command), *filters = pipes.split(line)
    words = _columns(command)
    if not words:
        return _invalid(start)
    found = grammar(privilege, configuring).match(
        [word for _, word in words], lambda at: command[words[at][0] :].strip()
    )
    if isinstance(found, Match):
        try:
            return ParsedLine(BY_NAME[found.command.id], found.values, pipes.read(filters))
        except PipeError as error:
            if str(error) == "incomplete":
                return _incomplete(line)
            if str(error) == "ambiguous":
                return _ambiguous(line, error.column, len(words))
            return _invalid(error.column, len(words))
    if found.position >= len(words):
        return _incomplete(command)
    if found.ambiguous:
        return _ambiguous(command, words[found.position][0], found.position)
    return _invalid(words[found.position][0], found.position)


def _ambiguous(line: str, column: int, reached: int) -> SyntaxFault:
    word = line[column:].split(maxsplit=1)[0]
    return SyntaxFault(f'% Ambiguous command:  "{line[:column].lstrip()}{word}"', None, reached)


@dataclass(frozen=True, slots=True)
class Offers:
    """What may be typed next. `begun` is the word that was begun, as it is.

    `words` has, with the help of each, keywords that continue it; `<type>` for a value, `|` and `<cr>` for the end
    only where none was begun. `names` says whose names fit too.
    """

    begun: str
    words: Mapping[str, str]
    names: NameQuery | None = None


def offers(text: str, seat: Seat) -> Offers:
    """Return what may be typed after `text`, which is what stands before the cursor."""
    parts = pipes.split(text)
    last = parts[-1][1]
    words = last.split()
    begun = words.pop() if last.strip() and not last[-1].isspace() else ""
    if len(parts) > 1:
        rest = PIPES if not words else {}
        return Offers(begun, {name: help for name, help in rest.items() if name.startswith(begun.lower())})
    mode = seat.mode
    arcs = [arc for arc in grammar(seat.privilege, mode is not None).following(words) if _fits(arc, begun)]
    offered = _words(arcs, begun, WORDS)
    if END in offered:
        offered = {**offered, "|": "filter the output", END: "run the command"}
    if mode is None:
        return Offers(begun, offered, _names(arcs, (), seat.context))
    depth, own = _of_modes(mode, words, begun)
    offered |= {
        word: help for word, help in _words(own, begun, CONFIGURATION_WORDS).items() if word not in offered
    }
    if not words:
        offered |= {word: help for word, help in PREFIX_WORDS.items() if word.startswith(begun.lower())}
    return Offers(
        begun, offered, _names(own, mode.frames[: depth + 1], seat.context) or _names(arcs, (), seat.context)
    )


def _of_modes(mode: ConfigMode, words: Sequence[str], begun: str) -> tuple[int, list[Arc]]:
    """Return what may follow in the innermost mode that knows the words, and its depth."""
    prefix = words[0].lower() if words and words[0].lower() in PREFIXES else ""
    used = words[1:] if prefix else words
    for depth in range(len(mode.frames) - 1, -1, -1):
        frame = mode.frames[depth]
        known = compiled_grammar(frame.mode, frame.variant, bool(prefix), mode.modern)
        arcs = [arc for arc in known.following(used) if _fits(arc, begun) and _changes(arc, prefix)]
        if arcs or not (words or begun):
            return depth, arcs
    return 0, []


def _changes(arc: Arc, prefix: str) -> bool:
    command = arc.command
    if command.kind != "config" or command.does in ("control", "foreign"):
        return False
    return prefix != "default" or command.does in HAVE_DEFAULT


def _fits(arc: Arc, begun: str) -> bool:
    if isinstance(arc, Keyword):
        return arc.spelling.startswith(begun.lower())
    return not begun or isinstance(arc, Value)


def _words(arcs: Sequence[Arc], begun: str, known: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    printed: dict[str, str] = {}
    """The word that the grammar prints in place of another."""
    for arc in arcs:
        match arc:
            case Keyword():
                found.setdefault(arc.spelling, known.get(arc.spelling, arc.command.help))
                other = str(arc.value) if arc.field else other_spellings(arc.command).get(arc.spelling)
                if other is not None and other != arc.spelling:
                    printed[arc.spelling] = other
            case Value() if not begun:
                found.setdefault(f"<{arc.type.name}>", arc.type.help)
            case Accept() if not begun:
                found.setdefault(END, "run the command")
    return {word: help for word, help in found.items() if printed.get(word) not in found}


def _names(arcs: Sequence[Arc], frames: Sequence[Frame], context: str) -> NameQuery | None:
    found = (query(arc.command, arc, frames, context) for arc in arcs if isinstance(arc, Value))
    return next((one for one in found if one is not None), None)


def help_lines(offered: Offers, names: Sequence[str] = (), more: bool = False) -> list[str]:
    """What `?` prints: keywords and values with their help, then names; `more`: there are others."""
    words = offered.words
    if not words and not names:
        return ["% Unrecognized command"]
    order = sorted(words, key=lambda word: (word in ("|", END), word == END, word))
    lines = [f"  {word:<{HELP_COLUMN}}{words[word]}" if words[word] else f"  {word}" for word in order]
    ends = [line for line, word in zip(lines, order, strict=True) if word in ("|", END)]
    shown = [f"  {name}" for name in names[:MAX_HELP_NAMES]]
    if more or len(names) > MAX_HELP_NAMES:
        shown.append("  ...")
    return [*lines[: len(lines) - len(ends)], *shown, *ends]


def complete(offered: Offers, names: Sequence[str] = (), more: bool = False) -> str:
    """What tab adds: the rest of the only word that fits and a blank, or what all that fit share."""
    begun = offered.begun
    found = {name for name in offered.words if name[0] not in "<|"} | {
        name for name in names if name.startswith(begun)
    }
    if not begun or not found:
        return ""
    if len(found) == 1 and not more:
        return found.pop()[len(begun) :] + " "
    first, last = min(found), max(found)
    shared = next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return first[len(begun) : shared]
