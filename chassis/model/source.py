"""What a configuration keeps of the text that it was read from.

Inputs and outputs: field makers for the classes of `chassis.model`, and `Kept`. These fields matter to diagnostics
and to printing, never to what the router does:

- `line`: the line of the file that opened the object (1-based, 0 if it came from elsewhere),
- `written` and the `*_written` flags: settings that were typed though they have their default value,
- `kept`: lines that no command of the grammar is.
"""

from __future__ import annotations

from dataclasses import dataclass, field


def line_field() -> int:
    """Make the field for the line that opened the object (1-based, 0 from elsewhere)."""
    return field(default=0, compare=False, repr=False)


def written_flag() -> bool:
    """Make the field that says whether one value was typed."""
    return field(default=False, compare=False, repr=False)


def kept_field() -> tuple[Kept, ...]:
    """Make the field for the lines of the object that no command of the grammar is."""
    return field(default=(), repr=False)


def written_field() -> frozenset[str]:
    """Make the field for the ids of commands that were typed, with `no ` before the id for a no form."""
    return field(default=frozenset(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """Lines without effect, word for word: one and the block under it, with the block's indentation below it.

    `after` names the line of the same object that they follow, empty for its opening line; see `config.kept`. Not
    part of a `repr`: such a line may hold a key.
    """

    lines: tuple[str, ...] = field(repr=False)
    after: tuple[str | int, ...] = ()
