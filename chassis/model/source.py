"""What a configuration keeps of the text that it was read from.

Inputs and outputs: field makers for the classes of `chassis.model`, and `Kept`. These fields matter to diagnostics
and to printing, never to what the router does:

- `line`: the line of the file that opened the object (1-based, 0 if it came from elsewhere),
- `encrypted`: the encrypted form of a key (`chassis.config.secrets`), empty if there is none,
- `written` and the `*_written` flags: settings that were typed though they have their default value,
- `kept`: lines that no command of the grammar is.

They stay at the controller, as descriptions do: a field with `metadata=OFF_WIRE` does not travel to cards, and
`as_carried` gives a value as it arrives there.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

OFF_WIRE = {"wire": False}
"""Metadata of a field that does not travel."""

_T = TypeVar("_T")


def line_field() -> int:
    """Make the field for the line that opened the object (1-based, 0 from elsewhere)."""
    return field(default=0, compare=False, repr=False, metadata=OFF_WIRE)


def written_flag() -> bool:
    """Make the field that says whether one value was typed."""
    return field(default=False, compare=False, repr=False, metadata=OFF_WIRE)


def encrypted_field() -> str:
    """Make the field for the text of a key's encrypted form, which is printed instead of the key."""
    return field(default="", compare=False, repr=False, metadata=OFF_WIRE)


def kept_field() -> tuple[Kept, ...]:
    """Make the field for the lines of the object that no command of the grammar is."""
    return field(default=(), repr=False, metadata=OFF_WIRE)


def written_field() -> frozenset[str]:
    """Make the field for the ids of commands that were typed, with `no ` before the id for a no form."""
    return field(default=frozenset(), compare=False, repr=False, metadata=OFF_WIRE)


def description_field() -> str | None:
    """Make the field for the text of a `description` line."""
    return field(default=None, metadata=OFF_WIRE)


@dataclass(frozen=True, slots=True)
class Kept:
    """Lines without effect, word for word: one and the block under it, with the block's indentation below it.

    `after` names the line of the same object that they follow, empty for its opening line; see `config.kept`. Not
    part of a `repr`: such a line may hold a key. `shown` are the lines as they are printed without keys, empty if
    the router that read them has no secret.
    """

    lines: tuple[str, ...] = field(repr=False)
    after: tuple[str | int, ...] = ()
    shown: tuple[str, ...] = field(default=(), compare=False, repr=False)


def on_wire(item: Field[Any]) -> bool:
    """Whether a field of a dataclass travels."""
    return bool(item.metadata.get("wire", True))


def as_carried(value: _T) -> _T:
    """Return a value as it arrives at a card: fields that do not travel have their defaults.

    Records are made of such values, so that a changed description changes no record. A value without anything to
    drop is returned itself.
    """
    if isinstance(value, tuple):
        items = tuple([as_carried(item) for item in value])
        return value if all(a is b for a, b in zip(items, value, strict=True)) else items  # type: ignore[return-value]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changes: dict[str, Any] = {}
    for item in fields(value):
        old = getattr(value, item.name)
        new = as_carried(old) if on_wire(item) else item.default
        if new is not old:
            changes[item.name] = new
    return replace(value, **changes) if changes else value
