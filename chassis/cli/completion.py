"""Understanding a line of exec mode as far as it goes: the whole command, help for `?`, completion for tab."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chassis.cli import pipes
from chassis.cli.commands import BY_NAME, WORDS, grammar, other_spellings
from chassis.cli.pipes import PIPES, LineFilter, PipeError
from chassis.cli.rows import ExecCommand
from chassis.config.matcher import Match

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


def _words(text: str) -> list[tuple[int, str]]:
    """Each word with its column."""
    return [(found.start(), found[0]) for found in re.finditer(r"\S+", text)]


def _invalid(column: int, reached: int = 0) -> SyntaxFault:
    return SyntaxFault("% Invalid input at '^' marker", column, reached)


def _incomplete(text: str) -> SyntaxFault:
    return SyntaxFault(f"% Incomplete command: {' '.join(text.split())}", None, len(text.split()))


def parse(line: str, privilege: int, configuring: bool = False) -> ParsedLine | SyntaxFault:
    """Read a line that is not blank as a session of this privilege may type it, in exec mode or `configuring`."""
    (start, command), *filters = pipes.split(line)
    words = _words(command)
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


def candidates(text: str, privilege: int) -> dict[str, str]:
    """What may be typed after `text`, which is what stands before the cursor, with the help of each.

    Keywords that continue the last word; `<type>` for a value and `<cr>` for the end where no word has begun.
    """
    parts = pipes.split(text)
    _, last = parts[-1]
    begun = last[len(last.rstrip()) :] == "" and last.strip() != ""
    words = last.split()
    prefix = words.pop().lower() if begun else ""
    if len(parts) > 1:
        return {} if words else {name: help for name, help in PIPES.items() if name.startswith(prefix)}
    found = dict(grammar(privilege).expected(words))
    other = other_spellings()
    offered = {
        word: WORDS.get(word, help)
        for word, help in found.items()
        if other.get(word) not in found and (word.startswith(prefix) if word[0] != "<" else not begun)
    }
    if END in offered:
        offered.pop(END)
        offered |= {"|": "filter the output", END: "run the command"}
    return offered


def help_lines(text: str, privilege: int) -> list[str]:
    """What `?` prints after `text`."""
    found = candidates(text, privilege)
    if not found:
        return ["% Unrecognized command"]
    order = sorted(found, key=lambda word: (word in ("|", END), word == END, word))
    return [f"  {word:<{HELP_COLUMN}}{found[word]}" if found[word] else f"  {word}" for word in order]


def complete(text: str, privilege: int) -> str:
    """What tab adds to `text`: the rest of the only keyword that fits and a blank, or what all that fit share."""
    word = re.search(r"\S*$", text)
    prefix = word[0].lower() if word else ""
    found = [name for name in candidates(text, privilege) if name[0] not in "<|"]
    if not prefix or not found:
        return ""
    if len(found) == 1:
        return found[0][len(prefix) :] + " "
    first, last = min(found), max(found)
    shared = next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return first[len(prefix) : shared]
