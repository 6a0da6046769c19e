"""Work on the files of a router's flash: what the shell is asked to do, and who waits for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chassis.bus.engine import FlashPath, Output, ToFlash
from chassis.xcrp.flash import FlashFile

MAX_FILES = 4096
"""Most files and folders of a flash (count)."""

MAX_OCTETS = 512 << 20
"""Size (octets) of a flash: what all its files may have together."""


@dataclass(frozen=True, slots=True)
class FlashEntry:
    """A file or folder of a listing. `modified` is in seconds of Unix time."""

    name: str
    octets: int = 0
    modified: float = 0.0
    folder: bool = False


@dataclass(frozen=True, slots=True)
class FlashAnswer:
    """What came of a `ToFlash`: `error` says why nothing did.

    `exists`: a file was not written because there is one of its name. `missing`: there is no such file.
    """

    error: str = ""
    data: bytes = field(default=b"", repr=False)
    entries: tuple[FlashEntry, ...] = ()
    store: tuple[FlashFile, ...] = field(default=(), repr=False)
    exists: bool = False
    missing: bool = False


Then = Callable[[FlashAnswer, float], list[Output]]
"""Goes on with the answer and the time."""


class FlashOperations:
    """The work under way."""

    def __init__(self) -> None:
        self._number = 0
        self._waiting: dict[int, Then] = {}

    def request(self, operation: str, path: FlashPath, then: Then, **more: Any) -> list[Output]:
        """Have the shell do an operation (see `ToFlash`); `then` gets what came of it."""
        self._number += 1
        self._waiting[self._number] = then
        return [ToFlash(self._number, operation, path, **more)]

    def on_answer(self, number: int, answer: FlashAnswer, now: float) -> list[Output]:
        """The shell has done an operation, or could not."""
        then = self._waiting.pop(number, None)
        return then(answer, now) if then is not None else []
