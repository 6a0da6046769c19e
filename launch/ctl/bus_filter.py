"""Which messages of the bus somebody wants to see."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from chassis.bus import records
from chassis.bus.messages import Delta, Message, Snapshot
from chassis.bus.recording import RecordedMessage


class Filter:
    """By type, card, tunnel and text. Most messages name a tunnel by a number, which each router has its own of:
    `learn` says it, and so does every record of a tunnel that passes."""

    def __init__(
        self,
        types: tuple[str, ...] = (),
        card: str | None = None,
        tunnel: str | None = None,
        contains: str | None = None,
    ) -> None:
        self.types, self.card, self.tunnel = types, card, tunnel
        self._contains = contains
        self._number = int(tunnel) if tunnel is not None and tunnel.isdecimal() else 0
        self._numbers: dict[str, set[int]] = {}

    def learn(self, node: str, name: str, number: int) -> None:
        """A router has a tunnel of this name and number; 0 is none."""
        if name == self.tunnel and number:
            self._numbers.setdefault(node, set()).add(number)

    def knows_tunnel(self) -> bool:
        """Whether any number is known of the tunnel."""
        return bool(self._number or self._numbers)

    def takes(self, entry: RecordedMessage) -> bool:
        """Whether a line is wanted; a note never is."""
        message = entry.message
        if message is None:
            return False
        if self.tunnel is not None and isinstance(message, Snapshot | Delta):
            for record in message.records if isinstance(message, Snapshot) else message.put:
                if isinstance(record, records.TunnelRecord):
                    self.learn(entry.node, record.config.name, record.number)
        return self.card in (None, entry.card) and self.fits(entry.node, message)

    def fits(self, node: str, message: Message) -> bool:
        """Whether a message of a router is wanted, of whichever card it is."""
        if self.types and type(message).__name__ not in self.types:
            return False
        if self._contains and self._contains not in repr(message):
            return False
        if self.tunnel is None:
            return True
        numbers = self._numbers.get(node)
        return _concerns(message, self.tunnel, numbers or ({self._number} if self._number else set()))


def _concerns(value: Any, name: str, numbers: set[int]) -> bool:
    """Whether a message, or a part of one, is about the tunnel of this name and one of these numbers."""
    if isinstance(value, tuple | list):
        # The key of a tunnel's record, or several of anything.
        if len(value) == 2 and value[0] == records.TunnelRecord.TYPE:
            return value[1] in numbers
        return any(_concerns(item, name, numbers) for item in value)
    if isinstance(value, dict):
        return value.get("tunnel") in (name, *numbers) or any(
            _concerns(item, name, numbers) for item in value.values()
        )
    if not is_dataclass(value):
        return False
    if isinstance(value, records.TunnelRecord):
        return value.config.name == name or value.number in numbers
    return getattr(value, "tunnel", 0) in numbers or any(
        _concerns(getattr(value, item.name), name, numbers) for item in fields(value)
    )
