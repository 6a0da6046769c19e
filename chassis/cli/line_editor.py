"""One line that is typed at a terminal: emacs keys, history, and the octets that keep the terminal in step.

The terminal is the plain one that SSH clients are: cursor left and right, up and down, erase to the end of the
screen. A line longer than the terminal is wide goes on in the next row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

MAX_LINE: Final = 4096
"""Most characters of a line."""

MAX_HISTORY: Final = 100
"""Most lines that the history keeps."""

MAX_SEQUENCE: Final = 16
"""Most octets of a key that begins with ESC."""

BELL: Final = b"\a"
ESC: Final = 0x1B

EventKind = Literal["line", "help", "complete", "interrupt", "end of input", "end of mode"]


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """A key that is not the editor's own. `text` is the whole line for "line", else what is before the cursor."""

    kind: EventKind
    text: str = ""


_CONTROL: Final = {
    0x01: "start",
    0x02: "left",
    0x05: "end",
    0x06: "right",
    0x08: "backspace",
    0x0B: "kill_to_end",
    0x0C: "redraw",
    0x0E: "later",
    0x10: "earlier",
    0x12: "redraw",
    0x14: "transpose",
    0x15: "kill_to_start",
    0x17: "kill_word",
    0x19: "yank",
    0x7F: "backspace",
}
_SEQUENCES: Final = {
    b"[A": "earlier",
    b"OA": "earlier",
    b"[B": "later",
    b"OB": "later",
    b"[C": "right",
    b"OC": "right",
    b"[D": "left",
    b"OD": "left",
    b"[H": "start",
    b"OH": "start",
    b"[1~": "start",
    b"[7~": "start",
    b"[F": "end",
    b"OF": "end",
    b"[4~": "end",
    b"[8~": "end",
    b"[3~": "delete",
    b"b": "word_left",
    b"f": "word_right",
    b"d": "delete_word",
    b"\x7f": "kill_word",
}


class LineEditor:
    """The line being typed after `prompt`. `width` is that of the terminal in columns."""

    def __init__(self, width: int = 80) -> None:
        self.width = width
        self.prompt = ""
        self.text = ""
        self.cursor = 0
        self.history: list[str] = []
        self._place = 0
        """Which line of the history is shown; its length for the line that is typed."""
        self._typed = ""
        """What was typed before the history was looked at."""
        self._killed = ""
        self._sequence: bytes | None = None
        self._after_return = False
        self._literal = False
        """Whether ^V came: the next key is a character of the line, `?` too."""

    def begin(self, prompt: str) -> bytes:
        """Return what shows a prompt; an empty line follows it."""
        self.prompt = prompt
        self.text, self.cursor, self._place = "", 0, len(self.history)
        return prompt.encode() + self._settle(0)

    def resume(self) -> bytes:
        """Return what shows prompt and line again, in a new row."""
        return (self.prompt + self.text).encode() + self._back_from(len(self.text))

    def remember(self, line: str) -> None:
        """Keep a line in the history, unless it is empty or the last one again."""
        if line.strip() and self.history[-1:] != [line]:
            self.history.append(line)
            del self.history[:-MAX_HISTORY]

    def insert(self, text: str) -> bytes:
        """Put text in at the cursor; return its echo."""
        if len(self.text) + len(text) > MAX_LINE:
            return BELL
        before, after = self.text[: self.cursor], self.text[self.cursor :]
        self.text = before + text + after
        self.cursor += len(text)
        return (text + after).encode() + self._back_from(len(self.text))

    def feed(self, octet: int) -> tuple[bytes, KeyEvent | None]:
        """Take one octet of what is typed; return its echo and the event, if it is one."""
        if self._sequence is not None:
            return self._escape(octet), None
        literal, self._literal = self._literal, octet == 0x16
        after_return, self._after_return = self._after_return, octet == 0x0D
        if octet in (0x0D, 0x0A):
            if octet == 0x0A and after_return:
                return b"", None
            return self._move(len(self.text)) + b"\r\n", KeyEvent("line", self.text)
        if octet == ESC:
            self._sequence = b""
            return b"", None
        if octet == 0x03:
            return self._move(len(self.text)) + b"^C\r\n", KeyEvent("interrupt")
        if octet == 0x04:
            return (self._delete(), None) if self.text else (b"", KeyEvent("end of input"))
        if octet == 0x1A:
            return self._move(len(self.text)) + b"^Z\r\n", KeyEvent("end of mode", self.text)
        if octet == 0x09:
            return b"", KeyEvent("complete", self.text[: self.cursor])
        if octet == 0x3F and not literal:
            return b"", KeyEvent("help", self.text[: self.cursor])
        if octet in _CONTROL:
            return self._act(_CONTROL[octet]), None
        if 0x20 <= octet < 0x7F:
            return self.insert(chr(octet)), None
        return b"", None

    def _escape(self, octet: int) -> bytes:
        assert self._sequence is not None
        self._sequence += bytes((octet,))
        sequence = self._sequence
        begun = sequence in (b"[", b"O") or (sequence[:1] == b"[" and not 0x40 <= octet < 0x7F)
        if begun and len(sequence) < MAX_SEQUENCE:
            return b""
        self._sequence = None
        return self._act(_SEQUENCES[sequence]) if sequence in _SEQUENCES else b""

    def _act(self, name: str) -> bytes:
        match name:
            case "start":
                return self._move(0)
            case "end":
                return self._move(len(self.text))
            case "left":
                return self._move(max(self.cursor - 1, 0))
            case "right":
                return self._move(min(self.cursor + 1, len(self.text)))
            case "word_left":
                return self._move(self._word_before())
            case "word_right":
                return self._move(self._word_after())
            case "backspace":
                return self._cut(self.cursor - 1, self.cursor) if self.cursor else BELL
            case "delete":
                return self._delete()
            case "kill_to_end":
                return self._kill(self.cursor, len(self.text))
            case "kill_to_start":
                return self._kill(0, self.cursor)
            case "kill_word":
                return self._kill(self._word_before(), self.cursor)
            case "delete_word":
                return self._kill(self.cursor, self._word_after())
            case "yank":
                return self.insert(self._killed)
            case "transpose":
                return self._transpose()
            case "earlier":
                return self._show_history(self._place - 1)
            case "later":
                return self._show_history(self._place + 1)
            case _:
                return b"\r\n" + self.resume()

    def _delete(self) -> bytes:
        return self._cut(self.cursor, self.cursor + 1) if self.cursor < len(self.text) else BELL

    def _kill(self, start: int, end: int) -> bytes:
        if start == end:
            return b""
        self._killed = self.text[start:end]
        return self._cut(start, end)

    def _cut(self, start: int, end: int) -> bytes:
        moved = self._move(start)
        self.text = self.text[:start] + self.text[end:]
        return moved + b"\x1b[J" + self.text[start:].encode() + self._back_from(len(self.text))

    def _transpose(self) -> bytes:
        if not self.cursor or len(self.text) < 2:
            return BELL
        at = min(self.cursor, len(self.text) - 1)
        first, second = self.text[at - 1], self.text[at]
        moved = self._move(at - 1)
        self.text = self.text[: at - 1] + second + first + self.text[at + 1 :]
        self.cursor = at + 1
        return moved + self.text[at - 1 :].encode() + self._back_from(len(self.text))

    def _show_history(self, place: int) -> bytes:
        if not 0 <= place <= len(self.history):
            return BELL
        if self._place == len(self.history):
            self._typed = self.text
        self._place = place
        moved = self._move(0)
        self.text = self._typed if place == len(self.history) else self.history[place]
        self.cursor = len(self.text)
        return moved + b"\x1b[J" + self.text.encode() + self._settle(self.cursor)

    def _word_before(self) -> int:
        at = self.cursor
        while at and self.text[at - 1] == " ":
            at -= 1
        while at and self.text[at - 1] != " ":
            at -= 1
        return at

    def _word_after(self) -> int:
        at = self.cursor
        while at < len(self.text) and self.text[at] == " ":
            at += 1
        while at < len(self.text) and self.text[at] != " ":
            at += 1
        return at

    # the terminal's cursor

    def _place_of(self, index: int) -> tuple[int, int]:
        """Row and column of a character, counted from the prompt's."""
        return divmod(len(self.prompt) + index, max(self.width, 1))

    def _move(self, index: int) -> bytes:
        moved = self._travel(self.cursor, index)
        self.cursor = index
        return moved

    def _back_from(self, index: int) -> bytes:
        """From behind the character that was printed last back to the cursor."""
        return self._settle(index) + self._travel(index, self.cursor)

    def _settle(self, index: int) -> bytes:
        """After a row's last column a terminal waits with its cursor there: make it begin the next row."""
        return b" \r" if self._place_of(index)[1] == 0 else b""

    def _travel(self, old: int, new: int) -> bytes:
        (old_row, old_column), (row, column) = self._place_of(old), self._place_of(new)
        if old_row == row:
            if column <= old_column:
                return b"\b" * (old_column - column)
            return self.text[old:new].encode()
        way, rows = ("A", old_row - row) if old_row > row else ("B", row - old_row)
        right = f"\x1b[{column}C" if column else ""
        return f"\x1b[{rows}{way}\r{right}".encode()
