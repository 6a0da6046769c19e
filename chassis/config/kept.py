"""Lines that match no command of the grammar: which of them are kept, and where they are printed.

A line is kept in the object of its mode, after the line of that object that it followed. An anchor names the line
before: the field or list that it sets, and its key there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from chassis.config.drafts import Anchor
from chassis.config.grammar import Command, SyntaxWord, parse_syntax
from chassis.config.matcher import Failure, Match, compiled_grammar

PAIRED = {"ike-proposal": "ike2-proposal", "ike2-proposal": "ike-proposal", "ipsec-sa": "ipsec-sa-spi"}
"""Pairs of related modes: a line of one is an error in the other, not an unknown line."""

CIRCUIT = "pvc"
"""The mode of a circuit of a port."""

_SECRET = re.compile(r"\b\S*(?:key|passw|secret|encrypted|communit|md5|digest|auth)\S*\s", re.IGNORECASE)


def anchor(command: Command, values: Mapping[str, Any]) -> Anchor:
    """Return the anchor of a line that was read."""
    does, target = command.does, command.target
    if does == "enter":
        key = values.get("slot") if command.enters == "card" else values.get("name")
        return (target,) if key is None else (target, key)
    if does in ("append", "secondary"):
        return (target, values[target])
    if does in ("proposal", "entry", "rule"):
        return (target, values["seq"])
    if does == "route":
        return ("route", values["prefix"], values.get("next_hop") or values.get("interface") or "")
    return (command.id,)


@cache
def _leading(command: Command, negative: bool) -> int:
    """Return the number of keywords before the first value of a command, in its shortest form."""
    syntaxes = command.no_forms if negative else (command.syntax, *command.aliases)
    counts = []
    for syntax in syntaxes:
        elements = parse_syntax(syntax.removeprefix("no ") if negative else syntax)
        words = [isinstance(element, SyntaxWord) for element in elements]
        counts.append(words.index(False) if False in words else len(words))
    return min(counts, default=0)


def misuses(failure: Failure, negative: bool) -> bool:
    """Return whether a line without a matching command begins with the keywords of one, or ambiguously."""
    if failure.ambiguous:
        return True
    return any(
        command.does != "foreign" and failure.position >= _leading(command, negative)
        for command in failure.commands
    )


def claims(mode: str, variant: str, words: Sequence[str]) -> bool:
    """Return whether a mode handles a line as its own, right or wrong."""
    negative = words[0].lower() == "no" and len(words) > 1
    used = words[1:] if negative else words
    for name, kind in ((mode, variant), (mode, ""), (PAIRED.get(mode, ""), "")):
        found = compiled_grammar(name, kind, negative).match(used, lambda index: " ".join(used[index:]))
        if isinstance(found, Match):
            if found.command.does != "foreign":
                return True
        elif misuses(found, negative):
            return True
    # A bare `lifetime` of an IPsec proposal is an error of its own.
    return mode == "ipsec-proposal" and used[0] == "lifetime"


def opens_circuit(mode: str, line: str) -> bool:
    """Return whether a line opens a circuit. A circuit also takes lines with the same indentation that it
    knows."""
    words = line.split()
    found = compiled_grammar(mode, "", False).match(words, lambda index: "")
    return isinstance(found, Match) and found.command.enters == CIRCUIT


def circuit_takes(line: str) -> bool:
    """Return whether a circuit knows a line."""
    words = line.split()
    negative = words[0] == "no" and len(words) > 1
    used = words[1:] if negative else words
    return isinstance(compiled_grammar(CIRCUIT, "", negative).match(used, lambda index: ""), Match)


def masked(text: str, hidden: str) -> str:
    """Return a kept line with the text after a word such as `key` or `password` hidden."""
    found = _SECRET.search(text)
    return text if found is None else f"{text[: found.end()]}{hidden}"
