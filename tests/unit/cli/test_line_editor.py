"""The line editor, keystroke by keystroke, on a terminal that does what its octets say."""

from __future__ import annotations

import random
import re

import pytest

from chassis.cli.line_editor import BELL, MAX_HISTORY, MAX_LINE, KeyEvent, LineEditor


class Terminal:
    """A terminal of `width` columns that wraps as xterm does: after the last column the cursor waits there."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.cells: dict[tuple[int, int], str] = {}
        self.row = self.column = 0

    def write(self, octets: bytes) -> None:
        for found in re.finditer(r"\x1b\[(\d*)([A-Z])|(.)", octets.decode(), re.DOTALL):
            count = int(found[1] or 1)
            match found[2] or found[3]:
                case "A" if found[2]:
                    self.row -= count
                case "B" if found[2]:
                    self.row += count
                case "C" if found[2]:
                    self.column = min(self.column + count, self.width - 1)
                case "J" if found[2]:
                    here = (self.row, self.column)
                    self.cells = {place: cell for place, cell in self.cells.items() if place < here}
                case "\r":
                    self.column = 0
                case "\n":
                    self.row += 1
                case "\b":
                    self.column = max(min(self.column, self.width - 1) - 1, 0)
                case "\a":
                    pass
                case cell:
                    if self.column == self.width:
                        self.row, self.column = self.row + 1, 0
                    self.cells[self.row, self.column] = cell
                    self.column += 1

    def text(self, rows: int) -> str:
        """The cells of the first rows, one after the other."""
        places = [(row, column) for row in range(rows) for column in range(self.width)]
        return "".join(self.cells.get(place, " ") for place in places)


def typed(keys: bytes, history: tuple[str, ...] = ()) -> tuple[str, int]:
    """Text and cursor after these keys."""
    editor = LineEditor()
    for line in history:
        editor.remember(line)
    editor.begin("> ")
    for octet in keys:
        editor.feed(octet)
    return editor.text, editor.cursor


@pytest.mark.parametrize(
    ("keys", "text", "cursor"),
    [
        (b"show", "show", 4),
        (b"show\x01x", "xshow", 1),
        (b"show\x01\x05x", "showx", 5),
        (b"show\x02\x02x", "shxow", 3),
        (b"show\x02\x02\x06x", "shoxw", 4),
        (b"show\x7f", "sho", 3),
        (b"show\x08\x08", "sh", 2),
        (b"show\x01\x04", "how", 0),
        (b"show a b\x17", "show a ", 7),
        (b"show a \x17", "show ", 5),
        (b"show a\x15", "", 0),
        (b"show a\x02\x15", "a", 0),
        (b"show a\x01\x06\x0b", "s", 1),
        (b"show a\x17\x01\x19", "ashow ", 1),
        (b"shwo\x14", "show", 4),
        (b"show a\x1bb\x1bbx", "xshow a", 1),
        (b"show a\x01\x1bfx", "showx a", 5),
        (b"show a\x01\x1bd", " a", 0),
        (b"show\x1b[D\x1b[Dx\x1b[C\x1bOCy", "shxowy", 6),
        (b"show\x1b[Hx\x1b[Fy", "xshowy", 6),
        (b"show\x1b[1~\x1b[3~\x1b[4~y", "howy", 4),
        (b"show\x1b[99;99zx", "showx", 5),
        (b"sh\xc3\xa4ow\x00", "show", 4),
        (b"a\x16?", "a?", 2),
    ],
)
def test_keys_edit_a_line(keys: bytes, text: str, cursor: int) -> None:
    assert typed(keys) == (text, cursor)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (b"\x10", "three"),
        (b"\x10\x10\x10\x10", "one"),
        (b"\x1b[A\x1b[A\x1b[B", "three"),
        (b"new\x10\x10\x0e\x0e", "new"),
        (b"\x0e", ""),
    ],
)
def test_the_history_is_walked(keys: bytes, text: str) -> None:
    assert typed(keys, ("one", "two", "three"))[0] == text


def test_the_history_is_bounded_and_has_no_line_twice_in_a_row() -> None:
    editor = LineEditor()
    for number in range(MAX_HISTORY + 5):
        editor.remember(f"line {number}")
        editor.remember(f"line {number}")
        editor.remember("  ")
    assert editor.history == [f"line {number}" for number in range(5, MAX_HISTORY + 5)]


@pytest.mark.parametrize(
    ("keys", "event"),
    [
        (b"show\r", KeyEvent("line", "show")),
        (b"show\n", KeyEvent("line", "show")),
        (b"show\x01\r", KeyEvent("line", "show")),
        (b"show?", KeyEvent("help", "show")),
        (b"show\x02\x02?", KeyEvent("help", "sh")),
        (b"sh\t", KeyEvent("complete", "sh")),
        (b"sh\x03", KeyEvent("interrupt")),
        (b"sh\x1a", KeyEvent("end of mode", "sh")),
        (b"\x04", KeyEvent("end of input")),
    ],
)
def test_keys_that_are_the_sessions(keys: bytes, event: KeyEvent) -> None:
    editor = LineEditor()
    editor.begin("> ")
    assert [found for octet in keys if (found := editor.feed(octet)[1])] == [event]


def test_return_and_newline_together_end_one_line() -> None:
    editor = LineEditor()
    ended = [event for octet in b"a\r\nb\n\nc\r" if (event := editor.feed(octet)[1])]
    assert len(ended) == 4


def test_a_line_has_an_end() -> None:
    editor = LineEditor(512)
    assert editor.insert("x" * MAX_LINE) != BELL
    assert editor.feed(ord("x")) == (BELL, None)


@pytest.mark.parametrize("seed", range(60))
def test_the_terminal_shows_what_is_edited(seed: int) -> None:
    chance = random.Random(seed)
    width = chance.choice((9, 10, 20, 80))
    editor, terminal = LineEditor(width), Terminal(width)
    for line in ("show tunnel", "x" * (width * 2 - 3), "clear"):
        editor.remember(line)
    terminal.write(editor.begin("a# "))
    control = b"\x01\x02\x05\x06\x0b\x0e\x10\x14\x15\x17\x19\x7f\x04"
    keys = (*[bytes((octet,)) for octet in control], b"\x1bb", b"\x1bf")
    for _ in range(300):
        key = chance.choice(keys) if chance.random() < 0.4 else chance.choice((b"a", b"b", b" ", b"xyz"))
        if key == b"\x04" and not editor.text:
            continue
        for octet in key:
            terminal.write(editor.feed(octet)[0])
        shown = "a# " + editor.text
        rows = len(shown) // width + 2
        assert terminal.text(rows).rstrip() == shown.rstrip()
        place = terminal.row * width + terminal.column
        assert place == len("a# ") + editor.cursor
