"""Objects while they are being configured: the open modes, and where each word of the file stands."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import partial
from typing import Any, NamedTuple

from chassis.config.model import Config

Path = tuple[str | int, ...]
"""Where an object or one of its fields is, such as ("tunnel", "t1", "ike_policy")."""

_WORD = re.compile(r"\S+")

_PROMPT = re.compile(
    r"\s*(?:\[[^\]\s]*\][\w.-]*)?\s*(?:\(?(?:config|cfg|context)[\w-]*\))?\s*[#>]+"
    r"(?:\((?:config|cfg)[\w-]*\)#?)?\s*",
    re.ASCII,
)
"""A prompt as transcripts have it, the misprinted ones of the guide included."""


class Place(NamedTuple):
    """Where a word stands: 1-based line and column, the word, its line without indentation, its offset in that."""

    line: int
    column: int
    word: str
    text: str
    offset: int

    def repaired(self, word: str) -> str:
        """The line with another word here."""
        return f"{self.text[: self.offset]}{word}{self.text[self.offset + len(self.word) :]}"


class Line:
    """One line of a file: its words with their columns, without prompt and comment."""

    __slots__ = ("columns", "number", "start", "text", "words")

    def __init__(self, text: str, number: int) -> None:
        self.number = number
        text = text.rstrip()
        prompt = _PROMPT.match(text) if text.lstrip()[:1] in ("[", "#", "(", ">", "c") else None
        start = prompt.end() if prompt else 0
        found = list(_WORD.finditer(text, start))
        if found and found[0].group()[0] == "!":
            found = []
        self.words = [match.group() for match in found]
        self.columns = [match.start() + 1 for match in found]
        self.start = found[0].start() if found else 0
        self.text = text

    @property
    def body(self) -> str:
        """The line without prompt and indentation."""
        return self.text[self.start :]

    def rest(self, index: int) -> str:
        """The text from a word to the end of the line."""
        return self.text[self.columns[index] - 1 :]

    def place(self, index: int) -> Place:
        """Where a word stands; the last word when the index is beyond it."""
        index = min(index, len(self.words) - 1)
        column = self.columns[index]
        return Place(self.number, column, self.words[index], self.body, column - 1 - self.start)

    def replaced(self, first: int, last: int, word: str) -> str:
        """The line with words `first` to `last` replaced by one, or dropped when it is empty."""
        before = self.text[self.start : self.columns[first] - 1]
        after = self.text[self.columns[last] - 1 + len(self.words[last]) :]
        return f"{before}{word}{after}".strip() if word else f"{before.rstrip()}{after}".strip()


def _same(value: object) -> object:
    return value


_DEFAULTS: dict[type, dict[str, Callable[[], object]]] = {}
_NAMES: dict[type, tuple[str, ...]] = {}


def defaults(cls: type) -> dict[str, Callable[[], object]]:
    """For each field of a configuration class with a default, a function that makes it."""
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
    """The names of the fields of a configuration class."""
    known = _NAMES.get(cls)
    if known is None:
        known = _NAMES[cls] = tuple(item.name for item in fields(cls))
    return known


def thaw(value: Any) -> dict[str, Any]:
    """The fields of a frozen object as a dictionary that may be changed; mappings are copied one level deep."""
    thawed: dict[str, Any] = {}
    for name in field_names(type(value)):
        item = getattr(value, name)
        thawed[name] = dict(item) if isinstance(item, Mapping) else item
    return thawed


def blank(cls: type, **given: object) -> dict[str, Any]:
    """The fields of a new object with their defaults."""
    made = {name: make() for name, make in defaults(cls).items()}
    made.update(given)
    return made


class Frame:
    """An open mode and the object in it.

    `variant` is the kind of the object as the grammar's variants have it. A `void` frame belongs to an object
    whose opening line was wrong: its lines are read, so that they do not count as errors, and change nothing.
    """

    __slots__ = ("cls", "fields", "key", "mode", "parent", "path", "target", "variant", "void")

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
        void: bool = False,
    ) -> None:
        self.mode = mode
        self.cls = cls
        self.fields = content
        self.parent = parent
        self.target = target
        self.key = key
        self.path = path
        self.variant = variant
        self.void = void

    def freeze(self) -> Any:
        """The frozen object."""
        routes = self.fields.get("routes")
        if isinstance(routes, dict):
            self.fields["routes"] = tuple(routes.values())
        return self.cls(**self.fields)

    def close(self) -> None:
        """Put the frozen object where it belongs in the mode around it."""
        if self.void or self.parent is None:
            return
        if self.key is None:
            self.parent.fields[self.target] = self.freeze()
        else:
            self.parent.fields[self.target][self.key] = self.freeze()


def root(config: Config | None = None) -> Frame:
    """The frame of global configuration mode, on top of an existing configuration or of an empty one."""
    return Frame("global", Config, thaw(config or Config()))
