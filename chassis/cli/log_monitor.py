"""Log lines in a session as they come: `terminal monitor`, and the console. Pure.

A session asks for the lines after the last one that it has, once in `INTERVAL`, and writes them when it is at its
prompt. Meanwhile at most `MOST` wait; of more the first are left out, which is said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import inf
from typing import Any, Final

from chassis.bus.log_lines import line

INTERVAL: Final = 1.0
"""Time (s) between two questions."""

MOST: Final = 100
"""Lines that wait for a prompt, and that come in one answer (count)."""

FIRST_NUMBER: Final = 1 << 40
"""Number of a monitor's first request: above those of a session's commands."""

LATEST: Final = 1 << 53
"""Above the number of every record."""


class LogMonitor:
    """What one session has seen of the log. With `console` it is told what goes to the console."""

    def __init__(self, now: float, *, console: bool) -> None:
        self.due = now
        """When to ask next (s); infinity while an answer is awaited."""
        self.number = FIRST_NUMBER
        """Number of the last request."""
        self._console = console
        self._after: int | None = None
        self._held: deque[str] = deque(maxlen=MOST)
        self._left_out = 0

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Return number and arguments of the next request `log`. The first finds out where the log ends."""
        self.due = inf
        self.number += 1
        after = LATEST if self._after is None else self._after
        shown = "console" if self._console else "monitor"
        return self.number, {"after": after, "last": MOST, "shown": shown}

    def on_answer(self, result: Mapping[str, Any], error: str, now: float) -> None:
        """Take the answer; a controller that is away is asked again."""
        self.due = now + INTERVAL
        if error:
            return
        self._after = int(result["number"])
        lines = [line(record) for record in result["records"]]
        lost = max(len(self._held) + len(lines) - MOST, 0)
        self._left_out += int(result["left_out"]) + lost
        self._held.extend(lines)

    def take(self) -> str:
        """Return the lines that wait, as the terminal gets them; empty where there are none."""
        text = "".join(f"{one}\r\n" for one in self._held)
        if self._left_out:
            text = f"% {self._left_out} lines of the log are left out here\r\n{text}"
        self._held.clear()
        self._left_out = 0
        return text
