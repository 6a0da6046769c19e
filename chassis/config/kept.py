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
from chassis.config.matcher import PREFIXES, Failure, Match, compiled_grammar
from chassis.config.secrets import REST, VERSION, EncryptedFormError, RouterSecret
from chassis.config.values import HIDDEN_VALUE, is_hash

PAIRED = {"ike-proposal": "ike2-proposal", "ike2-proposal": "ike-proposal", "ipsec-sa": "ipsec-sa-spi"}
"""Pairs of related modes: a line of one is an error in the other, not an unknown line."""

CIRCUIT = "pvc"
"""The mode of a circuit of a port."""

_SECRET = re.compile(
    r"(?<!\S)(?!authori|key-(?:chain|id)\s)"
    r"\S*(?:key|passw|secret|encrypted|(?<!set )communit|md5|digest|auth)\S*\s+(?:[0-9]\s+)?"
    r"(?!administrator\s|subscriber\s|pap(?:\s|$)|chap(?:\s|$)|none(?:\s|$))",
    re.IGNORECASE,
)
"""Words after which a line may have a key or a password."""

_REST = "encrypted-rest"
"""Keyword before the encrypted form of the rest of a kept line: `password encrypted-rest 1 TEXT`."""

_ENCRYPTED_REST = re.compile(rf"(?P<head>.*\S\s+){_REST}\s+{VERSION}\s+(?P<text>\S+)", re.DOTALL)


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
    if does == "listed":
        return (target, values[command.fields[0]])
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
    negative = words[0].lower() in PREFIXES and len(words) > 1
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
    negative = words[0] in PREFIXES and len(words) > 1
    used = words[1:] if negative else words
    return isinstance(compiled_grammar(CIRCUIT, "", negative).match(used, lambda index: ""), Match)


def _secret_at(text: str) -> int | None:
    """Return the offset of what may be a key or a password in a line that is kept; None if there is nothing."""
    found = _SECRET.search(text)
    if found is None or found.end() == len(text) or is_hash(text[found.end() :]):
        return None
    return found.end()


def masked(text: str, hidden: str = HIDDEN_VALUE) -> str:
    """Return a kept line with the text after a word such as `key` or `password` hidden."""
    at = _secret_at(text)
    return text if at is None else f"{text[:at]}{hidden}"


def with_encrypted_rest(text: str, secret: RouterSecret) -> str:
    """Return a kept line with the text after a word such as `key` or `password` encrypted."""
    at = _secret_at(text)
    if at is None:
        return text
    made = secret.encrypt(REST, text[at:].encode())
    return f"{text[:at]}{_REST} {VERSION} {made}" if made else masked(text)


def with_clear_rest(text: str, secret: RouterSecret) -> str:
    """Return a line as it was before `with_encrypted_rest`; other lines are unchanged.

    Raises:
        EncryptedFormError: the encrypted form cannot be read.
    """
    found = _ENCRYPTED_REST.fullmatch(text)
    if found is None:
        return text
    kind, octets = secret.decrypt(found["text"])
    try:
        rest = octets.decode()
    except UnicodeDecodeError:
        rest = ""
    if kind != REST or not rest.strip() or any(sign in rest for sign in "\n\r\0"):
        raise EncryptedFormError("what is encrypted here is no rest of a line: copy the line as it was printed")
    return found["head"] + rest


def first_word(text: str) -> str:
    """Return a kept line with all but its first word hidden, as messages and differences show it."""
    body = text.lstrip()
    word, blank, _ = body.partition(" ")
    return f"{text[: len(text) - len(body)]}{word}{blank and f' {HIDDEN_VALUE}'}"
