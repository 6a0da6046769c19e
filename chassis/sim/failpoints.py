"""Failpoints: a process ends inside a call of its engine, between two outputs or two writes to mapped memory.

`OutputFailpoint` wraps an engine and passes every call on until the call whose outputs it cuts.
`TornWriteFailpoint` runs the calls under a line tracer that watches the module that writes, and ends the
process at a line drawn beforehand. Some of the words that this line changed get their old values, as after an
interrupted copy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from random import Random
from types import FrameType
from typing import Any

from chassis.bus.engine import Append, Persist, ToCard, ToFabric, ToFlash, ToWire, WriteLog
from chassis.sim.process import Die, Halt

CALLS = frozenset(
    {
        "receive",
        "receive_batch",
        "receive_frames",
        "on_timer",
        "on_fabric_peer",
        "on_carrier",
        "on_operator_command",
        "on_stored",
        "on_flash",
        "on_card_died",
        "on_card_started",
    }
)
"""Calls of an engine in which the process may end."""

_BUSY = frozenset({Append, Persist, ToCard, ToFabric, ToFlash, ToWire})

WORD = 8
PAGE = 4096


class _FailpointReached(BaseException):
    """The process ended inside a call. A BaseException, so that engines do not catch it."""


class OutputFailpoint:
    """Wraps an engine and ends its outputs early, with a `Die` or a `Halt`.

    `outputs` is the number of outputs that are still carried out; only calls that give packets, files or messages
    to cards count. `halt` is for how long the process is stopped (s); 0 kills it.
    """

    def __init__(self, engine: Any, outputs: int, *, halt: float = 0.0, chance: Callable[[], float]) -> None:
        self._engine = engine
        self._left = outputs
        self._halt = halt
        self._chance = chance
        self._spent = False

    @property
    def spent(self) -> bool:
        """Whether the process has ended or stopped here."""
        return self._spent

    @property
    def is_stop(self) -> bool:
        """Whether the process is stopped rather than killed."""
        return self._halt > 0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._engine, name)
        if name not in CALLS or self._spent:
            return value

        def call(*arguments: Any) -> list[Any]:
            return self._cut(value(*arguments))

        return call

    def _cut(self, outputs: list[Any]) -> list[Any]:
        if self._spent or not any(type(output) in _BUSY for output in outputs):
            return outputs
        if len(outputs) <= self._left:
            self._left -= len(outputs)
            return outputs
        self._spent = True
        kept, rest = outputs[: self._left], outputs[self._left :]
        if self._halt:
            return [*kept, Halt(self._halt, tuple(rest))]
        first = rest[0]
        if isinstance(first, Append) and self._chance() < 0.5:
            # A write to a file can be cut short by the kill.
            kept.append(Append(first.file, first.data[: int(len(first.data) * self._chance())]))
        elif isinstance(first, WriteLog) and not first.whole:
            kept.append(replace(first, data=first.data[: int(len(first.data) * self._chance())]))
        return [*kept, Die()]


class TornWriteFailpoint:
    """Wraps an engine that writes to mapped memory, and ends the process at the `lines`-th line of `module`.

    `memory` is the mapped memory, which stays after the process.
    """

    def __init__(self, engine: Any, module: str, memory: memoryview, lines: int, random: Random) -> None:
        self._engine = engine
        self._module = module
        self._memory = memory
        self._lines = lines
        self._random = random
        self._before: bytes | None = None
        self._spent = False

    @property
    def spent(self) -> bool:
        """Whether the process has ended or stopped here."""
        return self._spent

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._engine, name)
        if name not in CALLS or self._spent:
            return value

        def call(*arguments: Any) -> list[Any]:
            return self._traced(value, arguments)

        return call

    def _traced(self, call: Callable[..., list[Any]], arguments: tuple[Any, ...]) -> list[Any]:
        usual = sys.gettrace()
        sys.settrace(self._enter)
        try:
            return call(*arguments)
        except _FailpointReached:
            self._spent = True
            return [Die()]
        finally:
            sys.settrace(usual)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename == self._module else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if self._spent:
            raise _FailpointReached
        if self._before is not None:
            self._tear_words(self._before)
            self._spent = True
            raise _FailpointReached
        if event == "line":
            self._lines -= 1
            if self._lines <= 0:
                self._before = bytes(self._memory)
        return self._line

    def _tear_words(self, before: bytes) -> None:
        memory = self._memory
        changed = [
            at
            for page in range(0, len(before), PAGE)
            if memory[page : page + PAGE] != before[page : page + PAGE]
            for at in range(page, min(page + PAGE, len(before)), WORD)
            if memory[at : at + WORD] != before[at : at + WORD]
        ]
        for at in changed[self._random.randint(0, len(changed)) :]:
            memory[at : at + WORD] = before[at : at + WORD]
