"""Turns of cards whose snapshots are large: their messages are encoded and sent between other work.

A controller that starts again sends every card all records. At 32,000 tunnels that takes it longer than operators
and other cards should wait.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from chassis.bus.messages import Goodbye, Message, Snapshot

PARTS_AT_ONCE: Final = 4
"""Most parts of a snapshot that are sent at once (count); a larger one is sent in turns."""


class SendTurns:
    """What waits to be sent, by card, in order."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Message]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def keep(self, card: str, message: Message) -> bool:
        """Keep a message of a large snapshot, and what follows one; return False for one to be sent at once."""
        if isinstance(message, Goodbye):
            self.drop(card)
            return False
        waiting = self._waiting.get(card)
        if waiting is not None:
            waiting.append(message)
            return True
        if not isinstance(message, Snapshot) or message.parts <= PARTS_AT_ONCE:
            return False
        self._waiting[card] = deque([message])
        return True

    def take(self) -> list[tuple[str, Message]]:
        """Return the next `PARTS_AT_ONCE` messages of the card whose turn it is; then it is another's turn."""
        if not self._waiting:
            return []
        card = next(iter(self._waiting))
        waiting = self._waiting.pop(card)
        taken = [(card, waiting.popleft()) for _ in range(min(len(waiting), PARTS_AT_ONCE))]
        if waiting:
            self._waiting[card] = waiting
        return taken

    def drop(self, card: str) -> None:
        """Forget what waits for a card whose connection is gone."""
        self._waiting.pop(card, None)
