"""The shape of a command: its syntax as data, compiled once into a small program for the matcher.

Notation of a syntax:

    word            a keyword; `word/other` accepts `other` too and prints `word`
    <field:type>    a value of a type from `values.TYPES`, or of a range `1-65535` (`32-1024+32` for steps)
    <field=a|b>     one of several keywords, kept; digits become a number; `a/other` accepts `other` too;
                    `+a` is one of an extension, known only where the node's lab asks for it
    [ ... ]         may be left out
    { ... | ... }   one of these
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

from chassis.config.values import TYPES, ValueType, number_type

Kind = Literal["config", "exec", "show", "clear"]
Standing = Literal["emulated", "accepted", "later", "ours"]


@dataclass(frozen=True, slots=True)
class SyntaxWord:
    """A keyword and its other spellings; the first one is printed."""

    spellings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several keywords, stored in a field. `options` maps every accepted spelling to its value,
    `extensions` those that are accepted only with the modern algorithms."""

    field: str
    options: tuple[tuple[str, str | int], ...]
    extensions: tuple[tuple[str, str | int], ...] = ()

    def known(self, modern: bool) -> tuple[tuple[str, str | int], ...]:
        return self.options + self.extensions if modern else self.options


@dataclass(frozen=True, slots=True)
class Param:
    """A value, stored in a field."""

    field: str
    type: ValueType


@dataclass(frozen=True, slots=True)
class OptionalPart:
    """Optional elements."""

    items: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class Alternatives:
    """One of several sequences of elements."""

    branches: tuple[tuple[Element, ...], ...]


Element = SyntaxWord | Choice | Param | OptionalPart | Alternatives


def _leaves(elements: tuple[Element, ...]) -> list[Param | Choice]:
    found: list[Param | Choice] = []
    for element in elements:
        match element:
            case Param() | Choice():
                found.append(element)
            case OptionalPart(items):
                found.extend(_leaves(items))
            case Alternatives(branches):
                for branch in branches:
                    found.extend(_leaves(branch))
    return found


_TOKEN = re.compile(r"<(\w+)([:=])([^>]*)>|([\[\]{}|])|([^\s\[\]{}|<>]+)")
_RANGE = re.compile(r"(\d+)-(\d+)(?:\+(\d+))?")


def _param(field: str, kind: str) -> Param:
    found = _RANGE.fullmatch(kind)
    if found:
        low, high, step = found.groups()
        return Param(field, number_type(int(low), int(high), int(step or 1)))
    return Param(field, TYPES[kind])


def _choice(field: str, text: str) -> Choice:
    options: list[tuple[str, str | int]] = []
    extensions: list[tuple[str, str | int]] = []
    for option in text.split("|"):
        spellings = option.removeprefix("+").split("/")
        value: str | int = int(spellings[0]) if spellings[0].isdigit() else spellings[0]
        into = extensions if option.startswith("+") else options
        into.extend((spelling, value) for spelling in spellings)
    return Choice(field, tuple(options), tuple(extensions))


@cache
def parse_syntax(text: str) -> tuple[Element, ...]:
    """Return the elements of a syntax in the notation above.

    Raises:
        ValueError: the syntax is malformed.
    """
    tokens = list(_TOKEN.finditer(text))
    position = 0

    def sequence(closers: str) -> tuple[Element, ...]:
        nonlocal position
        items: list[Element] = []
        while position < len(tokens):
            field, sign, kind, mark, word = tokens[position].groups()
            if mark and mark in closers:
                return tuple(items)
            position += 1
            if field:
                items.append(_param(field, kind) if sign == ":" else _choice(field, kind))
            elif word:
                items.append(SyntaxWord(tuple(word.split("/"))))
            elif mark == "[":
                items.append(OptionalPart(sequence("]")))
                position += 1
            elif mark == "{":
                branches = [sequence("|}")]
                while tokens[position].group(4) == "|":
                    position += 1
                    branches.append(sequence("|}"))
                position += 1
                items.append(Alternatives(tuple(branches)))
            else:
                raise ValueError(f"stray {mark} in syntax: {text}")
        if closers:
            raise ValueError(f"unclosed bracket in syntax: {text}")
        return tuple(items)

    return sequence("")


@dataclass(frozen=True)
class Command:
    """One command of the router.

    `modes` are those that know it; `variants` narrows a mode to kinds of its object (ikev1, ikev2; static,
    on-demand, manual). `does` and `target` name what it does to the configuration (see `effects`), `enters` the
    mode that it opens. `no` lists its no forms (None: made from the syntax, empty: there is none). `code` is the
    diagnostic code of its refused values, `surplus` that of words too many, `misplaced` the one if it is
    used under the wrong variant or mode.
    """

    id: str
    modes: tuple[str, ...]
    syntax: str
    help: str
    kind: Kind = "config"
    does: str = "set"
    target: str = ""
    enters: str = ""
    aliases: tuple[str, ...] = ()
    no: tuple[str, ...] | None = None
    variants: tuple[str, ...] = ()
    code: str = "bad-value"
    surplus: str = "surplus"
    misplaced: str = "misplaced"
    standing: Standing = "emulated"
    guide: str = ""

    @cached_property
    def elements(self) -> tuple[Element, ...]:
        """Return the syntax that is printed back."""
        return parse_syntax(self.syntax)

    @cached_property
    def keywords(self) -> str:
        """Return the leading keywords, which messages use as the command's name."""
        words: list[str] = []
        for element in self.elements:
            if not isinstance(element, SyntaxWord):
                break
            words.append(element.spellings[0])
        return " ".join(words)

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the command's values, each once."""
        return tuple(dict.fromkeys(leaf.field for leaf in _leaves(self.elements)))

    @cached_property
    def has_secret(self) -> bool:
        """Return whether a line of the command may contain a key or a password hash."""
        return any(isinstance(leaf, Param) and leaf.type.secret for leaf in _leaves(self.elements))

    def begins(self, text: str) -> bool:
        """Return whether a line begins with the command's leading keywords, or those of its `no` form."""
        text = text.removeprefix("no ")
        return text == self.keywords or text.startswith(f"{self.keywords} ")

    @cached_property
    def no_forms(self) -> tuple[str, ...]:
        """Return all accepted `no` forms, in the notation of the syntax."""
        if self.no is not None:
            return self.no
        if self.kind != "config":
            return ()
        if self.does == "enter":
            cut = self.syntax.find(">")
            return (f"no {self.syntax[: cut + 1]}" if cut >= 0 else f"no {self.syntax}",)
        if self.does in ("proposal", "entry", "rule"):
            return ("no seq <seq:1-65535>",)
        if self.does in ("route", "foreign"):
            return (f"no {self.syntax}",)
        short = f"no {self.keywords}"
        return (short,) if short == f"no {self.syntax}" else (short, f"no {self.syntax}")


@dataclass(frozen=True, slots=True)
class Mode:
    """A configuration mode: its prompt, its enclosing mode, and the word for its objects in paths and texts."""

    name: str
    prompt: str
    parent: str
    path: str
    title: str


MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode("exec", "#", "", "", "exec mode"),
        Mode("global", "(config)#", "", "", "global configuration"),
        Mode("asp-pool", "(config-asp-pool-mode)#", "global", "asp-pool", "an ASP pool"),
        Mode("asp-group", "(config-asp-group-mode)#", "global", "asp-group", "an ASP group"),
        Mode("context", "(config-ctx)#", "global", "context", "a context"),
        Mode("interface", "(config-if)#", "context", "interface", "an interface"),
        Mode("administrator", "(config-administrator)#", "context", "administrator", "an administrator"),
        Mode("ike-policy", "(config-ike-policy)#", "context", "ike-policy", "an IKE policy"),
        Mode("ipsec-acl", "(config-ipsec-acl)#", "context", "ipsec-access-list", "an IPsec ACL"),
        Mode("ipsec-profile", "(cfg-ipsec-profile)#", "context", "ipsec-profile", "an IPsec profile"),
        Mode("tunnel", "(config-tunnel)#", "global", "tunnel", "a tunnel"),
        Mode("ike-proposal", "(config-ike-proposal)#", "global", "ike-proposal", "an IKEv1 proposal"),
        Mode("ike2-proposal", "(config-ike2-proposal)#", "global", "ike-proposal", "an IKEv2 proposal"),
        Mode("ipsec-proposal", "(config-ipsec-proposal)#", "global", "ipsec-proposal", "an IPsec proposal"),
        Mode("ipsec-policy", "(config-ipsec-policy)#", "global", "ipsec-policy", "an IPsec policy"),
        Mode("ipsec-sa", "(config-ipsec-sa)#", "global", "security-association", "a manual SA"),
        Mode("ipsec-sa-spi", "(config-ipsec-sa-spi)#", "ipsec-sa", "spi", "a direction of a manual SA"),
        Mode("ipsec-policy-pq", "(config-ipsec-policy-pq)#", "global", "qos-policy", "an IPsec QoS policy"),
        Mode("policing", "(config-policy-policing)#", "global", "policing-policy", "a QoS policy of ports"),
        Mode("card", "(config-card)#", "global", "card", "a card"),
        Mode("port", "(config-port)#", "global", "port", "a port"),
    )
}
"""All modes, by name. Mode "any" in a command means all of them."""


def ancestors(mode: str) -> tuple[str, ...]:
    """Return a mode and its enclosing modes, innermost first."""
    chain: list[str] = []
    while mode:
        chain.append(mode)
        mode = MODES[mode].parent
    return tuple(chain)
