"""Read YAML 1.2 with positions: every value knows its line and column for diagnostics.

Input: a file. Output: a tree of `Marked`. Scalars follow the core schema (`true`, `false`, `null`, numbers), so
`3:11` and `on` are strings. Anchors, aliases and `<<` merging work; a duplicate key is an error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from chassis.bus import regular_files
from chassis.config.diagnostics import Diagnostic, Severity

MAX_OCTETS = 1 << 20
"""Largest lab file (octets)."""

MAX_YAML_NODES = 30_000
"""Values (count) that a lab file may have before aliases are followed."""

MAX_VALUES = 100_000
"""Values (count) that a lab file may have when all aliases are followed."""

MAX_DEPTH = 40
"""Largest nesting (count) of lists and mappings."""

MAX_ERRORS = 200
"""Diagnostics (count) after which reading stops."""

OCTETS = 64
"""Characters of a text that count as one more value."""

SHOWN = 100
"""Characters that a message shows of a value, and `MESSAGE` those of a whole message."""

MESSAGE = 1000

_UNFIT = re.compile("[\0\ud800-\udfff]")
"""Characters that are not allowed in a name, path or command."""


class LabError(Exception):
    """The file cannot be used; `diagnostics` have errors and positions."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(str(d) for d in self.diagnostics))


@dataclass(frozen=True, slots=True)
class YamlPosition:
    """Line and column in a file, from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, repr=False)
class Marked:
    """A value of a document with its position. `value` is a scalar, a tuple of these or a mapping to these.

    `key` is the position of the value's key; the value's own if it has none.
    """

    value: Any
    at: YamlPosition
    key: YamlPosition = field(default=YamlPosition(0, 0))

    def __repr__(self) -> str:
        """Return a short text for any value: messages contain it."""
        if self.is_mapping:
            return "{...}"
        return "[...]" if self.is_list else repr(self.value)[:SHOWN]

    @property
    def size(self) -> int:
        """Return the size: the number of values, plus long texts by their length."""
        children: Iterable[Marked] = ()
        if isinstance(self.value, dict):
            children = self.value.values()
        elif isinstance(self.value, tuple):
            children = self.value
        elif isinstance(self.value, str):
            return 1 + len(self.value) // OCTETS
        return 1 + sum(child.size for child in children)

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.value, dict)

    @property
    def is_list(self) -> bool:
        return isinstance(self.value, tuple)

    def plain(self) -> Any:
        """Return the value without positions: dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, tuple):
            return [child.plain() for child in self.value]
        return self.value

    def items(self) -> Iterator[tuple[str, Marked]]:
        yield from self.value.items()

    def changed(self, changes: Any) -> Marked:
        """Return the value with changes: mappings are merged, other values replaced. A new value has the position
        of the value that contains it."""
        if not isinstance(changes, Mapping):
            value = tuple(Marked(None, self.at).changed(one) for one in changes) if _is_list(changes) else changes
            return Marked(value, self.at, self.key)
        known = self.value if self.is_mapping else {}
        new = Marked(None, self.at, self.key)
        merged = {str(key): known.get(str(key), new).changed(value) for key, value in changes.items()}
        return Marked({**known, **merged}, self.at, self.key)

    def filled(self, number: int) -> Marked:
        """Replace `{i}` by the number in every string."""
        if isinstance(self.value, dict):
            return Marked({k: v.filled(number) for k, v in self.value.items()}, self.at, self.key)
        if isinstance(self.value, tuple):
            return Marked(tuple(v.filled(number) for v in self.value), self.at, self.key)
        if isinstance(self.value, str) and "{i}" in self.value:
            return Marked(self.value.replace("{i}", str(number)), self.at, self.key)
        return self


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


class _Loader(yaml.SafeLoader):
    """Compose nodes up to MAX_YAML_NODES and MAX_DEPTH; scalars follow YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the base class's own name and form

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._made = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._made += 1
        self._depth += 1
        if self._made > MAX_YAML_NODES or self._depth > MAX_DEPTH:
            what = "nested too deep" if self._depth > MAX_DEPTH else f"more than {MAX_YAML_NODES} values"
            raise yaml.MarkedYAMLError(problem=what, problem_mark=self._mark())
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _mark(self) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        return event.start_mark


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|false)\Z"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:null|~|)\Z"), ["n", "~", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+\Z"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?\Z"),
    list("-+.0123456789"),
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"<<\Z"), ["<"])


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the most similar known word, or "" if none is similar."""
    close = difflib.get_close_matches(word[:SHOWN], list(known), n=1, cutoff=0.6)
    return close[0] if close else ""


def beside(file: Path, name: str) -> Path:
    """Return the path of a file or folder named in a lab file, relative to that file."""
    path = file.absolute().parent / name
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def is_there(path: Path, *, folder: bool = False) -> bool:
    """Return whether there is a regular file (or a folder) of that name; False if the system rejects the name."""
    try:
        return path.is_dir() if folder else path.is_file()
    except OSError:
        return False


class Reporter:
    """Collect the diagnostics of one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.diagnostics: list[Diagnostic] = []

    def error(self, at: YamlPosition, code: str, message: str, name: str = "", hint: str = "") -> None:
        self._say("error", at, code, message, name, hint)

    def warning(self, at: YamlPosition, code: str, message: str, name: str = "", hint: str = "") -> None:
        self._say("warning", at, code, message, name, hint)

    def _say(self, severity: Severity, at: YamlPosition, code: str, message: str, name: str, hint: str) -> None:
        """Add a diagnostic. Raise LabError after MAX_ERRORS."""
        message = message if len(message) <= MESSAGE else f"{message[:MESSAGE]} ..."
        made = Diagnostic(severity, code, name[:SHOWN], self.file, at.line, at.column, message, hint)
        self.diagnostics.append(made)
        if len(self.diagnostics) >= MAX_ERRORS:
            text = f"{MAX_ERRORS} problems: the rest of the file is not looked at"
            self.diagnostics.append(Diagnostic("error", "lab-many", "", self.file, at.line, at.column, text))
            self.stop()

    def unknown(self, what: str, word: str, known: Iterable[str], at: YamlPosition) -> None:
        """Report an unknown key or name, with the most similar known one as hint."""
        known = sorted(known)
        close = nearest(word, known)
        choice = f"did you mean {close!r}?" if close else f"known: {', '.join(known) or 'none'}"
        self.error(at, "lab-unknown", f"unknown {what} {word[:SHOWN]!r}; {choice}", word, close)

    @property
    def failed(self) -> bool:
        return any(d.severity == "error" for d in self.diagnostics)

    def stop(self) -> NoReturn:
        raise LabError(self.diagnostics)


class _Converter:
    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._done: dict[int, Any] = {}
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()
        self._merged = 0

    def convert(self, node: yaml.Node, key: YamlPosition | None = None) -> Marked:
        at = YamlPosition(node.start_mark.line + 1, node.start_mark.column + 1)
        if id(node) not in self._done:
            if id(node) in self._open:
                self._reporter.error(at, "lab-yaml", "an alias leads back into itself")
                return Marked(None, at, key or at)
            self._open.add(id(node))
            self._done[id(node)] = self._value(node)
            self._open.discard(id(node))
            size = self._sizes[id(node)] = self._size(node)
            if max(size, self._merged) > MAX_VALUES:
                message = f"its aliases stand for more than {MAX_VALUES} values"
                self._reporter.error(at, "lab-yaml", message)
                self._reporter.stop()
        return Marked(self._done[id(node)], at, key or at)

    def _value(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            return tuple(self.convert(child) for child in node.value)
        text, kind = self._fit(node), node.tag.rpartition(":")[2]
        if kind == "int":
            # int() rejects thousands of digits; no number in a lab is that large.
            return int(text) if len(text) < 20 else text
        if kind == "float":
            return float(text)
        return {"bool": text == "true", "null": None}.get(kind, text)

    def _size(self, node: yaml.Node) -> int:
        """Return the number of values of a node with all aliases followed; at least that of `Marked.size`."""
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value) // OCTETS
        children = [value for _, value in node.value] if isinstance(node, yaml.MappingNode) else node.value
        return 1 + sum(self._sizes.get(id(child), 1) for child in children)

    def _fit(self, node: yaml.Node) -> str:
        """Return the text of a scalar; report a character that is not allowed and replace it."""
        text = str(node.value)
        found = _UNFIT.search(text)
        if found is not None:
            at = YamlPosition(node.start_mark.line + 1, node.start_mark.column + 1)
            message = f"character U+{ord(found[0]):04X} is not allowed in a lab"
            self._reporter.error(at, "lab-yaml", message)
        return _UNFIT.sub("\ufffd", text)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Marked]:
        merged: dict[str, Marked] = {}
        own: dict[str, Marked] = {}
        for key_node, value_node in node.value:
            place = YamlPosition(key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                self._reporter.error(place, "lab-yaml", "a key must be a scalar, not a list or a mapping")
                continue
            value = self.convert(value_node, place)
            if key_node.tag.endswith(":merge"):
                for source in value.value if value.is_list else (value,):
                    if source.is_mapping:
                        self._merged += len(source.value) + len(merged)
                        if self._merged > MAX_VALUES:
                            break
                        merged = source.value | merged
                    else:
                        self._reporter.error(place, "lab-yaml", "'<<' merges mappings only")
                continue
            word = self._fit(key_node)
            if word in own:
                message = f"duplicate key {word!r}; first defined in line {own[word].key.line}"
                self._reporter.error(place, "lab-yaml", message, word)
            own[word] = value
        return merged | own


def text_beside(file: Path, name: Marked, reporter: Reporter) -> str:
    """Return the text of a file named in a lab file; empty, with an error, if it cannot be read."""
    if not isinstance(name.value, str):
        reporter.error(name.at, "lab-value", "is the name of a file beside the lab", str(name.value))
        return ""
    try:
        return regular_files.read_text(beside(file, name.value), errors="replace")
    except OSError as error:
        reporter.error(name.at, "lab-file", f"{name.value!r} cannot be read: {error.strerror}", name.value)
        return ""


def read(path: Path, reporter: Reporter) -> Marked:
    """Read the file's single document.

    Raises:
            LabError: the file cannot be read, is not YAML, or is not a mapping.
    """
    start = YamlPosition(1, 1)
    try:
        text = regular_files.read_text(path, MAX_OCTETS)
    except OSError as error:
        reporter.error(start, "lab-file", f"cannot be read: {error.strerror}", str(path))
        reporter.stop()
    except UnicodeDecodeError as error:
        reporter.error(start, "lab-file", f"is not UTF-8 text: {error.reason}", str(path))
        reporter.stop()
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            reporter.error(start, "lab-yaml", "the file is empty; a lab begins with 'name:' and 'topology:'")
            reporter.stop()
        root = _Converter(reporter).convert(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = YamlPosition(mark.line + 1, mark.column + 1) if mark else start
        message = ", ".join(part for part in (error.problem, error.context) if part)
        reporter.error(place, "lab-yaml", f"not YAML: {message}")
        reporter.stop()
    except (yaml.YAMLError, RecursionError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else str(error).replace("\n", " ")
        reporter.error(start, "lab-yaml", f"not YAML: {why}")
        reporter.stop()
    if not root.is_mapping:
        reporter.error(root.at, "lab-yaml", "a lab is a mapping that begins with 'name:' and 'topology:'")
        reporter.stop()
    return root
