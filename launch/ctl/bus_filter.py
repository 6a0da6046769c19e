"""Filter of control bus messages by type, card, tunnel and text."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from chassis.bus import records
from chassis.bus.messages import Delta, Message, Snapshot
from chassis.bus.recording import RecordedMessage


class Filter:
    """A filter by type, card, tunnel and text. Most messages have a tunnel's number, which differs per router:
    `learn` stores it, and so does every tunnel record that passes."""

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
        """Store the number of a router's tunnel; ignore the number 0."""
        if name == self.tunnel and number:
            self._numbers.setdefault(node, set()).add(number)

    def knows_tunnel(self) -> bool:
        """Return whether the tunnel's number is known for any router."""
        return bool(self._number or self._numbers)

    def takes(self, entry: RecordedMessage) -> bool:
        """Return whether a recorded message matches; a note does not."""
        message = entry.message
        if message is None:
            return False
        if self.tunnel is not None and isinstance(message, Snapshot | Delta):
            for record in message.records if isinstance(message, Snapshot) else message.put:
                if isinstance(record, records.TunnelRecord):
                    self.learn(entry.node, record.config.name, record.number)
        return self.card in (None, entry.card) and self.fits(entry.node, message)

    def fits(self, node: str, message: Message) -> bool:
        """Return whether a router's message matches, without regard to the card."""
        if self.types and type(message).__name__ not in self.types:
            return False
        if self._contains and self._contains not in repr(message):
            return False
        if self.tunnel is None:
            return True
        numbers = self._numbers.get(node)
        return _concerns(message, self.tunnel, numbers or ({self._number} if self._number else set()))


def _concerns(value: Any, name: str, numbers: set[int]) -> bool:
    """Return whether a message or a part of one names the tunnel, or one of its numbers."""
    if isinstance(value, tuple | list):
        # The key of a tunnel's record, or a tuple of values.
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
