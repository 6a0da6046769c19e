"""Replay a recorded card's messages to a new engine of its kind, and compare its answers with the recorded ones.

Input: recorded messages of the control bus. Output: answers in order of time, and a summary. A record does not
have an engine's other inputs: packets, an ASP's IKE negotiations, connections to other cards. The replay takes the
carrier of ports from the port events that the card sent. An ASP's sequence numbers and windows start empty, so its
engine reports itself as fresh.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from random import Random
from typing import Any

from chassis.ase.engine import AspEngine
from chassis.ase.ipsec.state import octets_for
from chassis.bus.engine import CardEngine, Exit, Output, ToController
from chassis.bus.messages import (
    Heartbeat,
    Hello,
    LogRecord,
    Message,
    PortEvent,
    ToCardMessage,
    TraceStamps,
)
from chassis.bus.recording import RecordedMessage
from chassis.linecard.engine import LineCardEngine

SA_SLOTS = 1 << 12
"""SAs (count) that the engine of an ASP can hold."""

NO_CARRIER = "no carrier"
"""The reason in port events that concern the wire and not the configuration."""

UNADMITTED = "the record begins when this card was admitted already: no engine until its next hello"

LEFT_OUT = (Heartbeat, TraceStamps)
"""Messages that depend on the machine or on packets, left out of the comparison."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of a replay. `what`: in (a message to the card), same, recorded (only the card answered so), engine
    (only the engine did), or note."""

    time: float
    what: str
    message: Message | None
    note: str = ""

    @property
    def text(self) -> str:
        return self.note if self.message is None else repr(self.message)

    def to_json(self) -> dict[str, Any]:
        name = "" if self.message is None else type(self.message).__name__
        return {"time": self.time, "what": self.what, "type": name, "text": self.text}


def replay(entries: Sequence[RecordedMessage], card: str) -> tuple[list[Answer], str]:
    """Replay the messages of a line card or an ASP. Return the lines in order of time and a summary line.

    `entries` are of one node; those of other cards are ignored. Exceptions of the engine are not caught: finding
    one may be the purpose of the replay.
    """
    run = _Replay(card)
    wanted = [entry for entry in entries if entry.message is None or entry.card == card]
    for index, entry in enumerate(wanted):
        run.take(entry, wanted[index + 1 :] if isinstance(entry.message, Hello) else ())
    answers = _compared(run.lines)
    counts = Counter(answer.what for answer in answers)
    left = Counter(line.what for line in run.lines if isinstance(line.message, LEFT_OUT))
    summary = (
        f"{counts['in']} messages to {card}; of its answers {counts['same']} are the same, {counts['recorded']} "
        f"in the record only, {counts['engine']} from the engine only; "
        f"{left['recorded'] + left['engine']} heartbeats and trace stamps are left out"
    )
    if run.others:
        said = ", ".join(f"{count} {name}" for name, count in sorted(run.others.items()))
        summary += f"; other outputs of the engine: {said}"
    return answers, summary


class _Replay:
    """Successive engines, one for each recorded start of the card."""

    def __init__(self, card: str) -> None:
        self.lines: list[Answer] = []
        self.others: Counter[str] = Counter()
        self._card = card
        self._engine: CardEngine | None = None
        self._boot = -1
        self._ahead = 0
        """Hellos that the engine sent and the record has not shown yet."""
        self._connected = False
        self._said = False
        self._now = -inf

    def take(self, entry: RecordedMessage, following: Iterable[RecordedMessage]) -> None:
        message = entry.message
        # The clock of the record may have been set back; an engine's time must not go backwards.
        self._advance(max(self._now, entry.time))
        if message is None:
            self.lines.append(Answer(entry.time, "note", None, entry.note))
            if self._engine is not None and self._connected:
                self._connected = False
                self._put(self._engine.on_disconnected(self._now))
            return
        if entry.direction == "to-controller":
            self.lines.append(Answer(entry.time, "recorded", message))
            if isinstance(message, Hello):
                self._hello(message, following)
            elif isinstance(message, PortEvent) and isinstance(self._engine, LineCardEngine):
                self._carrier(message)
            return
        self.lines.append(Answer(entry.time, "in", message))
        if self._boot < 0 and not self._said:
            self._said = True
            self.lines.append(Answer(entry.time, "note", None, UNADMITTED))
        if self._engine is not None and isinstance(message, ToCardMessage):
            self._put(self._engine.receive(message, self._now))

    def _hello(self, hello: Hello, following: Iterable[RecordedMessage]) -> None:
        if hello.boot != self._boot:
            self._start(hello.boot, hello.pid, hello.fresh, following)
        elif self._ahead > 0:
            self._ahead -= 1
            return
        elif self._engine is not None:
            # A hello without a message before it: the card has a new connection to the controller.
            if self._connected:
                self._put(self._engine.on_disconnected(self._now))
            self._connected = True
            self._put(self._engine.on_connected(self._now))
        self._ahead -= 1

    def _start(self, boot: int, pid: int, fresh: bool, following: Iterable[RecordedMessage]) -> None:
        self._boot, self._ahead = boot, 0
        self._engine = engine = _engine(self._card, boot, pid, fresh)
        self._put(engine.start(self._now))
        told: set[str] = set()
        for entry in following:
            message = entry.message
            if isinstance(message, Hello) and message.boot != boot:
                break
            if isinstance(message, PortEvent) and message.port not in told:
                told.add(message.port)
                self._carrier(message)
        self._connected = True
        self._put(engine.on_connected(self._now))

    def _carrier(self, event: PortEvent) -> None:
        if self._engine is not None and (event.up or event.reason == NO_CARRIER):
            self._put(self._engine.on_carrier(event.port, event.up, self._now))

    def _advance(self, until: float) -> None:
        """Advance the engine's time."""
        while self._engine is not None and (next_timer := self._engine.next_timer()) <= until:
            self._now = max(self._now, next_timer)
            self._put(self._engine.on_timer(self._now))
        self._now = until

    def _put(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if isinstance(output, ToController):
                self.lines.append(Answer(self._now, "engine", output.message))
                self._ahead += isinstance(output.message, Hello)
            else:
                self.others[type(output).__name__] += 1
                if isinstance(output, Exit):
                    self._engine = None
                    return


def _engine(card: str, boot: int, pid: int, fresh: bool) -> CardEngine:
    if card.startswith("lc "):
        return LineCardEngine(card, pid=pid, boot=boot)
    state = memoryview(bytearray(octets_for(SA_SLOTS)))
    # Use the same random numbers in every replay, so that differences are not by chance.
    return AspEngine(card, pid=pid, boot=boot, state=state, fresh=fresh, random=Random(boot).randbytes)


def _compared(lines: Iterable[Answer]) -> list[Answer]:
    """Merge equal answers of card and engine into one line, at the engine's place."""
    lines = [line for line in lines if not isinstance(line.message, LEFT_OUT)]
    recorded = Counter(_timeless(line.message) for line in lines if line.what == "recorded")
    engine = Counter(_timeless(line.message) for line in lines if line.what == "engine")
    alike = recorded & engine
    left = {"recorded": alike.copy(), "engine": alike}
    answers: list[Answer] = []
    for line in lines:
        counts = left.get(line.what)
        if counts is None:
            answers.append(line)
            continue
        words = _timeless(line.message)
        if counts[words] <= 0:
            answers.append(line)
            continue
        counts[words] -= 1
        if line.what == "engine":
            answers.append(replace(line, what="same"))
    return answers


def _timeless(message: Message | None) -> str:
    """Return a message's text without its time: the clocks of the engine and the record differ."""
    return repr(replace(message, time=0.0) if isinstance(message, LogRecord) else message)
