"""Objects while they are configured: the open modes, the lines of a file, and the position of each word."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import partial
from typing import Any, NamedTuple

from chassis.config.transcript import BYTE_ORDER_MARK, prompt_end
from chassis.model.router import Config
from chassis.model.source import Kept

Path = tuple[str | int, ...]
"""Where an object or one of its fields is, such as ("tunnel", "t1", "ike_policy")."""

Anchor = tuple[str | int, ...]
"""Names one line of an object: see `config.kept`."""

_WORD = re.compile(r"\S+")


class SourcePosition(NamedTuple):
    """Position of a word: 1-based line and column, the word, its line without indentation, its offset in that."""

    line: int
    column: int
    word: str
    text: str
    offset: int

    def repaired(self, word: str) -> str:
        """Return the line with another word here."""
        return f"{self.text[: self.offset]}{word}{self.text[self.offset + len(self.word) :]}"


def indent_of(blanks: str) -> int:
    """Return the width of the blanks before a line, tabs counted to the next eighth column."""
    return len(blanks.expandtabs(8)) if "\t" in blanks else len(blanks)


class SourceLine:
    """One line of a file: its words with their columns, without prompt and comment.

    `indent` is the column of its first word less one, tabs counted to the next eighth; after a prompt it is 0.
    """

    __slots__ = ("columns", "indent", "number", "start", "text", "words")

    def __init__(self, text: str, number: int) -> None:
        self.number = number
        # Programs that take a carriage return for the end of a line must not see two lines where we see one.
        text = text.replace(BYTE_ORDER_MARK, "").rstrip().replace("\r", " ")
        start = prompt_end(text)
        found = list(_WORD.finditer(text, start))
        if found and found[0].group()[0] == "!":
            found = []
        self.words = [match.group() for match in found]
        self.columns = [match.start() + 1 for match in found]
        self.start = found[0].start() if found else 0
        self.indent = 0 if start else indent_of(text[: self.start])
        self.text = text

    @property
    def body(self) -> str:
        """Return the line without prompt and indentation."""
        return self.text[self.start :]

    def rest(self, index: int) -> str:
        """Return the text from a word to the end of the line."""
        return self.text[self.columns[index] - 1 :]

    def position(self, index: int) -> SourcePosition:
        """Return the position of a word, or of the last word if the index is beyond it."""
        index = min(index, len(self.words) - 1)
        column = self.columns[index]
        return SourcePosition(self.number, column, self.words[index], self.body, column - 1 - self.start)

    def replaced(self, first: int, last: int, word: str) -> str:
        """Return the line with words `first` to `last` replaced by one, or dropped if `word` is empty."""
        before = self.text[self.start : self.columns[first] - 1]
        after = self.text[self.columns[last] - 1 + len(self.words[last]) :]
        return f"{before}{word}{after}".strip() if word else f"{before.rstrip()}{after}".strip()


def _same(value: object) -> object:
    return value


_DEFAULTS: dict[type, dict[str, Callable[[], object]]] = {}
_NAMES: dict[type, tuple[str, ...]] = {}


def defaults(cls: type) -> dict[str, Callable[[], object]]:
    """Return, for each field of a configuration class with a default, a function that makes the default."""
    known = _DEFAULTS.get(cls)
    if known is not None:
        return known
    made: dict[str, Callable[[], object]] = {}
    for item in fields(cls):
        if item.default is not MISSING:
            made[item.name] = partial(_same, item.default)
        elif item.default_factory is not MISSING:
            made[item.name] = item.default_factory
    _DEFAULTS[cls] = made
    return made


def field_names(cls: type) -> tuple[str, ...]:
    """Return the names of the fields of a configuration class."""
    known = _NAMES.get(cls)
    if known is None:
        known = _NAMES[cls] = tuple(item.name for item in fields(cls))
    return known


def thaw(value: Any) -> dict[str, Any]:
    """Return the fields of a frozen object as a dictionary to change; mappings are copied one level deep."""
    thawed: dict[str, Any] = {}
    for name in field_names(type(value)):
        item = getattr(value, name)
        thawed[name] = dict(item) if isinstance(item, Mapping) else item
    return thawed


def blank(cls: type, **given: object) -> dict[str, Any]:
    """Return the fields of a new object: their defaults, then what is given."""
    made = {name: make() for name, make in defaults(cls).items()}
    made.update(given)
    return made


class KeptDraft:
    """Lines without effect while they are read."""

    __slots__ = ("after", "lines", "shown")

    def __init__(self, after: Anchor) -> None:
        self.after = after
        self.lines: list[str] = []
        self.shown: list[str] = []

    def add(self, line: str, shown: str | None) -> None:
        """Add a line; `shown` is what is printed of it without keys, None where there is no secret."""
        self.lines.append(line)
        if shown is not None:
            self.shown.append(shown)

    def freeze(self) -> Kept:
        return Kept(tuple(self.lines), self.after, tuple(self.shown))


class Frame:
    """An open mode and the object in it.

    `variant` is the kind of the object as the grammar's variants have it. A `discarded` frame belongs to an object
    whose opening line was wrong: its lines are read, so that they do not count as errors, and change nothing. A
    frame with `draft` is a mode without effect: its lines are kept there word for word, `level` deeper than the
    draft's first line.

    `indent` is that of the line that opened the mode last, `inner` that of the first line read in it, None before.
    `after` is the anchor of the line of this object that was read last (see `config.kept`). `routes` has by
    context the routes as they were frozen last, and the same by key: a context that is opened for each of a
    thousand lines does not list all of its routes again each time.
    """

    __slots__ = (
        "after", "cls", "discarded", "draft", "fields", "indent", "inner", "key", "level", "mode", "parent",
        "path", "routes", "target", "variant",
    )  # fmt: skip

    def __init__(
        self,
        mode: str,
        cls: type,
        content: dict[str, Any],
        parent: Frame | None = None,
        target: str = "",
        key: str | int | None = None,
        path: Path = (),
        variant: str = "",
        discarded: bool = False,
    ) -> None:
        self.mode = mode
        self.cls = cls
        self.fields = content
        self.parent = parent
        self.target = target
        self.key = key
        self.path = path
        self.variant = variant
        self.discarded = discarded
        self.indent = 0
        self.inner: int | None = None
        self.after: Anchor = ()
        self.draft: KeptDraft | None = None
        self.level = 0
        self.routes: dict[object, tuple[tuple[Any, ...], dict[Any, Any]]] = {}

    def add_kept(self) -> KeptDraft:
        """Add a place for lines without effect after the line that was read last, and return it."""
        held = self.fields["kept"]
        if not isinstance(held, list):
            held = self.fields["kept"] = list(held)
        draft = KeptDraft(self.after)
        held.append(draft)
        return draft

    def freeze(self) -> Any:
        """Return the frozen object."""
        routes = self.fields.get("routes")
        if isinstance(routes, dict):
            frozen = self.fields["routes"] = tuple(routes.values())
            if self.parent is not None:
                self.parent.routes[self.key] = frozen, routes
        kept = self.fields.get("kept")
        if isinstance(kept, list):
            self.fields["kept"] = tuple(item.freeze() if isinstance(item, KeptDraft) else item for item in kept)
        return self.cls(**self.fields)

    def close(self) -> None:
        """Put the frozen object into the object of the mode around it."""
        if self.discarded or self.parent is None or self.draft is not None:
            return
        if self.key is None:
            self.parent.fields[self.target] = self.freeze()
        else:
            self.parent.fields[self.target][self.key] = self.freeze()


def root(config: Config | None = None) -> Frame:
    """Return the frame of global configuration mode, on an existing configuration or an empty one."""
    return Frame("global", Config, thaw(config or Config()))
