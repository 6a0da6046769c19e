"""Records of the bus: control messages in a file, one JSON object a line, to be printed and looked at again.

The first line names the format, its version and that of the protocol. Every other line is a message as a
controller saw it: `time` (seconds since 1970), `node`, `card`, `direction` (`to-controller` or `to-card`), `type`,
`text` for people, and `data`, the message in the bus's own encoding as base64. A line with `note` in place of the
last three says that something may be missing there. A record holds no secret: keys are blanked before a message
is encoded.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, cast

from chassis.bus import codec
from chassis.bus.messages import PROTOCOL, Message, Reply
from chassis.model.ipsec import Key
from chassis.net.errors import DecodeError

FORMAT = "chassis bus record"
VERSION = 2

DIRECTIONS = ("to-controller", "to-card")


class RecordError(ValueError):
    """A file is no record that can be read; the text says which line, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """One line of a record. `message` is None where it is a note."""

    time: float
    node: str
    card: str
    direction: str
    message: Message | None
    note: str = ""

    @property
    def type(self) -> str:
        return "" if self.message is None else type(self.message).__name__


def redacted(message: Message) -> Message:
    """The message without its secrets: what no `repr` shows, and the keys that an ASP was asked for.

    Keys of a manual SA are as many octets of zero, so that an engine can be given the message again; everything
    else is empty.
    """
    if isinstance(message, Reply) and "keys" in message.result:
        message = replace(message, result={"keys": "***"})
    return cast("Message", _redacted(message))


def _redacted(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple([_redacted(item) for item in value])
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changes: dict[str, Any] = {}
    for item in fields(value):
        old = getattr(value, item.name)
        if not item.repr and isinstance(old, bytes):
            changes[item.name] = bytes(len(old)) if isinstance(value, Key) else b""
        elif isinstance(old, tuple) or is_dataclass(old):
            changes[item.name] = _redacted(old)
    return replace(value, **changes) if changes else value


def describe_message(time: float, node: str, card: str, direction: str, message: Message) -> dict[str, Any]:
    """A message as a line of a record has it."""
    message = redacted(message)
    return {
        "time": time,
        "node": node,
        "card": card,
        "direction": direction,
        "type": type(message).__name__,
        "text": repr(message),
        "data": base64.b64encode(codec.encode(message)).decode(),
    }


def header() -> dict[str, Any]:
    """The first line."""
    return {"format": FORMAT, "version": VERSION, "protocol": PROTOCOL}


def note(time: float, node: str, text: str) -> dict[str, Any]:
    """A line that says that something may be missing there."""
    return {"time": time, "node": node, "card": "xcrp", "direction": "", "note": text}


def entry(values: Mapping[str, Any]) -> RecordedMessage:
    """The entry of a line's values; RecordError where they are none, without the line's number."""
    time, node, card, direction = (values.get(name) for name in ("time", "node", "card", "direction"))
    if not isinstance(time, int | float) or not all(isinstance(word, str) for word in (node, card, direction)):
        raise RecordError("not a line of a record: it has no time, node, card and direction")
    place = (float(time), str(node), str(card), str(direction))
    if "note" in values:
        return RecordedMessage(*place, None, str(values["note"]))
    if direction not in DIRECTIONS:
        raise RecordError(f"{direction!r} is not a direction; expected to-controller or to-card")
    try:
        data = base64.b64decode(values.get("data", ""), validate=True)
        return RecordedMessage(*place, codec.decode(data))
    except DecodeError as error:
        raise RecordError(f"its message does not decode: {error}") from None
    except (TypeError, ValueError) as error:
        raise RecordError(f"its message is not base64: {error}") from None


def read(lines: Iterable[str]) -> Iterator[tuple[Mapping[str, Any], RecordedMessage]]:
    """Each line's values and its entry, in order.

    Raises:
        RecordError: in the first line, where the file is no record of this version; in a later one, where that
            line was cut short or is something else. What stands before it has been given by then.
    """
    number = 0
    for number, line in enumerate(lines, 1):
        try:
            values = _object(line)
            if number == 1:
                _check(values)
            else:
                yield values, entry(values)
        except RecordError as error:
            raise RecordError(f"line {number}: {error}") from None
    if not number:
        raise RecordError("line 1: the file is empty")


def _object(line: str) -> Mapping[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise RecordError("not a whole JSON object: the file was cut short, or is no record of the bus") from None
    if not isinstance(values, dict):
        raise RecordError("not a JSON object")
    return values


def _check(values: Mapping[str, Any]) -> None:
    if values.get("format") != FORMAT:
        raise RecordError(f"this is no record of the bus: its first line does not say {FORMAT!r}")
    if values.get("version") != VERSION:
        raise RecordError(f"a record of version {values.get('version')}; this program reads version {VERSION}")
    if values.get("protocol") != PROTOCOL:
        raise RecordError(
            f"its messages are of protocol version {values.get('protocol')}; this program knows {PROTOCOL}"
        )
