"""Bus recordings: control messages in a file, one JSON object on each line.

The first line names the format, its version and the version of the protocol. Every other line is a message that a
controller sent or received: `time` (seconds since 1970), `node`, `card`, `direction` (`to-controller` or
`to-card`), `type`, `text` (readable), and `data` (the encoded message in base64). A line with `note` instead of
the last three says that messages may be missing there. A recording has no keys: they are blanked before a message
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
    """A file is not a readable recording; the text names the line and the error."""


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """One line of a recording. `message` is None in a note."""

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
    """Return a message without its secrets: fields that `repr` leaves out, and keys that an ASP reported.

    Keys of a manual SA become zeros of the same length, so that an engine accepts the message in a replay. Other
    secrets become empty.
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
    """Return the line of a message."""
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
    """Return the first line of a recording."""
    return {"format": FORMAT, "version": VERSION, "protocol": PROTOCOL}


def note(time: float, node: str, text: str) -> dict[str, Any]:
    """Return a line that says that messages may be missing there."""
    return {"time": time, "node": node, "card": "xcrp", "direction": "", "note": text}


def entry(values: Mapping[str, Any]) -> RecordedMessage:
    """Return the entry of a line's values.

    Raises:
        RecordError: the values are not an entry; the text does not have the line's number.
    """
    time, node, card, direction = (values.get(name) for name in ("time", "node", "card", "direction"))
    if not isinstance(time, int | float) or not all(isinstance(word, str) for word in (node, card, direction)):
        raise RecordError("not a line of a bus recording: time, node, card and direction are required")
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
    """Yield values and entry of each line, in order.

    Raises:
        RecordError: the first line is not that of a recording of this version, or a later line is incomplete or
            not an entry. The entries before it have been yielded.
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
        raise RecordError("not a complete JSON object: the file is cut short or not a bus recording") from None
    if not isinstance(values, dict):
        raise RecordError("not a JSON object")
    return values


def _check(values: Mapping[str, Any]) -> None:
    if values.get("format") != FORMAT:
        raise RecordError(f"not a bus recording: the first line does not have {FORMAT!r}")
    if values.get("version") != VERSION:
        raise RecordError(f"a record of version {values.get('version')}; this program reads version {VERSION}")
    if values.get("protocol") != PROTOCOL:
        raise RecordError(
            f"its messages are of protocol version {values.get('protocol')}; this program knows {PROTOCOL}"
        )
