"""Print `docs/bus.md` from the message types and request tables: `python -m tools.bus_page > docs/bus.md`."""

from __future__ import annotations

import inspect
import re
import typing
from dataclasses import fields, is_dataclass
from typing import Any

from chassis.ase import ike_messages
from chassis.bus import batch, codec, messages, requests
from chassis.bus.arguments import Argument
from chassis.model.source import on_wire

INTRODUCTION = f"""# The bus

Printed from the types and the table of requests in `chassis/bus/` and from `chassis/ase/ike_messages.py` by
`make docs`; a test compares the page with them.

Control messages travel between the controller's ROUTER and each card's DEALER as MessagePack: the message's name,
then its fields in order. Protocol version {messages.PROTOCOL}. Undecodable messages are counted and dropped.
"""

REQUESTS = """
## Requests of operators

On a process's operator socket a request is a line of JSON, `{"id": 1, "command": "ping", "arguments": {}}`; its
answers are lines `{"id": 1, "result": {}, "error": "", "last": true}`. The controller forwards requests to line
cards and ASPs as `Request`. The receiver checks every argument against this table. A socket has up to 128 clients:
for another one it closes the client that has been silent longest and waits for no answer; if all wait, it refuses
the new one."""


_MODULE = re.compile(r"\b(?:chassis\.(?:\w+\.)+|typing\.)")


def _type(hint: object) -> str:
    """Print a type for readers of the page."""
    text = getattr(hint, "__name__", "") if isinstance(hint, type) else str(hint)
    if "CardStateRecord" in text and "RouteRecord" in text:
        return "tuple[Record, ...]" if text.startswith("tuple") else "Record"
    return _MODULE.sub("", text).replace("|", "or")


def _summary(kind: type) -> str:
    doc = inspect.getdoc(kind) or ""
    return (
        ""
        if doc.startswith(f"{kind.__name__}(")
        else doc.replace("\n\n", "\0").replace("\n", " ").replace("\0", " ")
    )


def _table(kinds: tuple[type, ...]) -> list[str]:
    lines = []
    for kind in kinds:
        hints = typing.get_type_hints(kind)
        lines.append(f"\n### {kind.__name__}\n")
        if summary := _summary(kind):
            lines.append(f"{summary}\n")
        lines += ["| field | type |", "| --- | --- |"]
        for item in filter(on_wire, fields(kind)):
            shown = "map" if typing.get_origin(hints[item.name]) is dict else _type(hints[item.name])
            lines.append(f"| {item.name} | {shown} |")
    return lines


def _values_of(kinds: tuple[type, ...]) -> list[type]:
    """Return the dataclasses that occur in fields of these types, in the order of the fields."""
    found: dict[type, None] = {}

    def look_into(hint: Any) -> None:
        for inner in typing.get_args(hint):
            look_into(inner)
        if isinstance(hint, type) and is_dataclass(hint) and hint not in found:
            found[hint] = None
            hints = typing.get_type_hints(hint)
            for item in filter(on_wire, fields(hint)):
                look_into(hints[item.name])

    for kind in kinds:
        look_into(kind)
    return [kind for kind in found if kind not in kinds]


def _default(argument: Argument) -> str:
    if argument.required:
        return "required"
    default = argument.default
    if isinstance(default, bool):
        return "true" if default else "false"
    return "" if default is None or default in ("", ()) else str(default)


def _requests() -> list[str]:
    """Print the table of requests, by the process that answers."""
    lines = [REQUESTS]
    for who, table in requests.TABLES.items():
        lines.append(f"\n### Requests to a {who}" if who != "ASP" else "\n### Requests to an ASP")
        for name, spec in table.items():
            lines.append(f"\n`{name}`: {spec.help}")
            if spec.arguments:
                lines += ["\n| argument | what it is | values | default |", "| --- | --- | --- | --- |"]
            lines += [
                f"| {key} | {argument.help} | {argument.kind.expected} | {_default(argument)} |"
                for key, argument in spec.arguments.items()
            ]
    return lines


def describe() -> str:
    """Return the whole page."""
    lines = [INTRODUCTION, "## Card to controller"]
    lines += _table(typing.get_args(messages.FromCard))
    lines.append("\n## Controller to card")
    both = typing.get_args(messages.FromCard)
    lines += _table(tuple(kind for kind in typing.get_args(messages.ToCardMessage) if kind not in both))
    lines.append("\n## Records\n\nSnapshots and deltas consist of records. Each has a key and is replaced whole.")
    lines += _table(codec.RECORD_TYPES)
    lines.append("\n## Values inside them")
    inner = (messages.SaReport, messages.PeerNetworks, messages.Stamp, messages.Datagram)
    lines += _table((*_values_of(codec.RECORD_TYPES), *inner))
    lines.append(f"\n## Fabric: Batch\n\n{_summary(batch.Batch)}\n")
    lines += ["| field | type |", "| --- | --- |"]
    lines += [f"| {item.name} | {str(item.type).replace('|', 'or')} |" for item in fields(batch.Batch)]
    lines += ["\n| step | number |", "| --- | --- |", *[f"| {step.name} | {step.value} |" for step in batch.Step]]
    lines.append(
        "\n## Inside an ASP: data engine to IKE\n\n"
        "Both are processes of one ASP; the same encoding, on a socket of their own."
    )
    lines += _table(typing.get_args(ike_messages.ToIke))
    lines.append("\n## Inside an ASP: IKE to data engine")
    lines += _table(
        tuple(
            kind
            for kind in typing.get_args(ike_messages.FromIke)
            if kind not in typing.get_args(ike_messages.ToIke)
        )
    )
    lines.append("\n## Values inside them")
    lines += _table((ike_messages.UdpEncapsulation,))
    lines += _requests()
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(describe(), end="")
