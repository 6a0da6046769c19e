"""Random configurations, made by walking the grammar, with a record of which nodes each line went through."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from chassis.config.commands import CONFIG_COMMANDS
from chassis.config.effects import KEY_BYTES
from chassis.config.grammar import (
    Alternatives,
    Choice,
    Command,
    Element,
    OptionalPart,
    Param,
    SyntaxWord,
    parse_syntax,
)
from chassis.config.matcher import knows
from chassis.config.secrets import CHARACTERS, HEXADECIMAL, RouterSecret

SECRET = RouterSecret(("secret-of-every-router-here",))
"""The secret of the routers whose encrypted forms these configurations have."""

Node = tuple[str, str, str]
"""A node of the grammar: command, its syntax, and what was taken there."""

OPENING: dict[str, tuple[str, ...]] = {
    "global": (),
    "asp-pool": ("asp pool p service security",),
    "asp-group": ("asp group g",),
    "context": ("context c",),
    "interface": ("context c", "interface i"),
    "administrator": ("context c", "administrator a encrypted 1 $1$x$y"),
    "ike-policy": ("context c", "ike policy p"),
    "ipsec-acl": ("context c", "ipsec access-list a"),
    "ipsec-profile": ("context c", "ipsec profile p"),
    "tunnel": ("tunnel ipsec t",),
    "ike-proposal": ("ike proposal p",),
    "ike2-proposal": ("ike2 proposal p",),
    "ipsec-proposal": ("ipsec proposal p",),
    "ipsec-policy": ("ipsec policy p",),
    "ipsec-sa": ("ipsec security-association s",),
    "ipsec-sa-spi": ("ipsec security-association s", "both"),
    "ipsec-policy-pq": ("ipsec qos policy q pq",),
    "policing": ("qos policy q policing",),
    "card": ("card ase 2",),
    "port": ("port ethernet 3/1",),
}
"""Lines that open each mode."""

_VARIANT_OPENING = {
    "ikev2": ("context c", "ike2 policy p"),
    "on-demand": ("tunnel ipsec t on-demand",),
    "manual": ("tunnel ipsec t manual",),
}


def opening_of(command: Command) -> tuple[str, ...]:
    """Lines that open the mode in which a command stands."""
    if command.variants and command.variants[0] in _VARIANT_OPENING:
        return _VARIANT_OPENING[command.variants[0]]
    return OPENING[command.modes[0]]


_REFERENCES = {
    "ike_policy": ("ike-policy0", "ike2-policy0", "ike-policy1"),
    "policy": ("ipsec-policy0", "ipsec-policy1"),
    "sa": ("ipsec-sa0", "ipsec-sa1", "ipsec-sa2"),
    "acl": ("ipsec-acl0", "ipsec-acl1"),
    "policing_policy": ("policing-policy0", "policing-policy9"),
    "qos_policy": ("ipsec-qos-policy0", "ipsec-qos-policy9"),
    "context": ("local", "context0", "context1", "nowhere"),
    "interface_context": ("local", "context0", "context1", "nowhere"),
    "interface": ("interface0", "interface-ipsec0", "interface-ipsec-multibind0", "interface-loopback0"),
    "unnumbered": ("interface0", "interface-loopback0", "absent"),
    "pools": ("asp-pool0", "asp-pool1"),
    "asp_group": ("asp-group0", "asp-group1"),
    "remote_id": ("10.0.0.9", "peer.example.net", "*.example.net", "10.0.0.8"),
    "hostname": ("Redback", "east", "west-1"),
}


@dataclass
class Generator:
    """Makes one configuration; `lines` are its lines, `taken[i]` the nodes that line i went through."""

    random: random.Random
    lines: list[str] = field(default_factory=list)
    taken: list[set[Node]] = field(default_factory=list)
    no_share: float = 0.15
    wanted: set[Node] = field(default_factory=set)
    """Nodes that no configuration has met yet: they are gone for a little more often."""

    def configuration(self) -> str:
        """The whole text."""
        if self.random.random() < 0.3:
            self.emit(0, "config", {("config", "", "config")})
        self.mode("global", "", 0, self.random.randint(6, 14))
        if self.random.random() < 0.5:
            self.emit(0, "end", {("end", "", "end")})
        return "\n".join(self.lines) + "\n"

    def emit(self, depth: int, text: str, nodes: set[Node]) -> None:
        self.lines.append("  " * depth + text)
        self.taken.append(nodes)

    def mode(self, mode: str, variant: str, depth: int, count: int) -> None:
        commands = [c for c in CONFIG_COMMANDS if mode in c.modes and knows(c, mode, variant)]
        deep = [c for c in commands if c.enters] or commands
        for _ in range(count):
            # Many lines open something, and at the top often a context: most of the grammar is inside.
            among = self.random.choice((commands, deep, _CONTEXT) if mode == "global" else (commands, deep))
            command = self.random.choice(among)
            if self.wanted and self.random.random() < 0.2:
                sought = {node[:2] for node in self.wanted}
                pairs = [(c, s) for c in commands for s in _syntaxes(c) if (c.id, s) in sought]
                if pairs:
                    command, syntax = self.random.choice(pairs)
                    self.one(command, syntax, depth)
                    continue
            if self.random.random() < self.no_share and command.no_forms:
                self.one(command, self.random.choice(command.no_forms), depth)
            else:
                self.one(command, self.random.choice((command.syntax, *command.aliases)), depth)

    def one(self, command: Command, syntax: str, depth: int) -> None:
        """One line, and what stands in the mode that it opens."""
        text, nodes = self.line(command, syntax)
        self.emit(depth, text, nodes)
        if command.enters and not syntax.startswith("no "):
            self.mode(command.enters, _variant(command), depth + 1, self.random.randint(0, 6))
            word = self.random.choice(("exit", "commit", "", "", ""))
            if word:
                self.emit(depth + 1, word, {(word, "", word)})

    def line(self, command: Command, syntax: str) -> tuple[str, set[Node]]:
        """One line of a command in one of its syntaxes, and the nodes it went through."""
        nodes: set[Node] = set()
        words = self.words(parse_syntax(syntax), command, syntax, nodes, {})
        return " ".join(words), nodes

    def words(
        self, elements: Sequence[Element], command: Command, syntax: str, nodes: set[Node], chosen: dict[str, str]
    ) -> list[str]:
        words: list[str] = []
        for element in elements:
            match element:
                case SyntaxWord(spellings):
                    words.append(self.random.choice(spellings))
                    nodes.add((command.id, syntax, f"word {words[-1]}"))
                case Choice(name, options):
                    text, _ = self.random.choice(options)
                    chosen[name] = text
                    words.append(text)
                    nodes.add((command.id, syntax, f"choice {name} {text}"))
                case Param(name, kind):
                    words.append(self.value(command, name, kind.name, chosen))
                    nodes.add((command.id, syntax, f"value {name} {kind.name}"))
                case OptionalPart(items):
                    taken = self.random.random() < 0.6
                    nodes.add((command.id, syntax, f"maybe {_name(items)} {taken}"))
                    if taken:
                        words.extend(self.words(items, command, syntax, nodes, chosen))
                case Alternatives(branches):
                    branch = self.random.choice(branches)
                    words.extend(self.words(branch, command, syntax, nodes, chosen))
        return words

    def value(self, command: Command, name: str, kind: str, chosen: dict[str, str]) -> str:
        pick = self.random.choice
        if ".." in kind:
            return self.number(command, name, kind)
        if kind in ("manual-key", "hex-key"):
            return self.key(command, kind, chosen)
        if kind == "key-encrypted":
            return SECRET.encrypt(
                HEXADECIMAL, bytes.fromhex(self.key(command, "hex-key", chosen).removeprefix("0x"))
            )
        if kind == "name" and name == "name":
            if command.does == "enter":
                return f"{command.id}{pick('012')}"
            return pick(("ike-proposal0", "ike2-proposal0", "ipsec-proposal0", "ipsec-proposal1"))
        if name in _REFERENCES:
            return pick(_REFERENCES[name])
        return pick(_VALUES[kind])

    def number(self, command: Command, name: str, kind: str) -> str:
        low, _, high = kind.partition("..")
        if name == "window":
            return str(self.random.choice((32, 64, 128, 992, 1024)))
        if name == "seq":
            return str(self.random.choice((1, 10, 20, 30, 65535)))
        return str(self.random.choice((int(low), int(high), self.random.randint(int(low), int(high)))))

    def key(self, command: Command, kind: str, chosen: dict[str, str]) -> str:
        usual = "aes-128-cbc" if command.target == "esp_encryption" else "hmac-sha1-96"
        size = KEY_BYTES[chosen.get("algorithm", usual)][0]
        digits = self.random.randbytes(size).hex()
        if kind == "hex-key":
            return self.random.choice((digits, "0x" + digits))
        return self.random.choice(("0x" + digits, digits[:size]))


_CONTEXT = [command for command in CONFIG_COMMANDS if command.id == "context"]


def _syntaxes(command: Command) -> tuple[str, ...]:
    return (command.syntax, *command.aliases, *command.no_forms)


def _variant(command: Command) -> str:
    if command.enters == "ike-policy":
        return "ikev2" if command.id == "ike2-policy" else "ikev1"
    if command.enters == "tunnel":
        return next((kind for kind in ("on-demand", "manual") if kind in command.id), "static")
    return ""


def _name(items: Sequence[Element]) -> str:
    first = items[0]
    match first:
        case SyntaxWord(spellings):
            return spellings[0]
        case Choice(name, _) | Param(name, _):
            return name
    return "group"


_VALUES = {
    "name": ("n1", "n2"),
    "word": ("test.cfg", "/flash/a.cfg"),
    "text": ("IKE-Policy-1", "two  words of text"),
    "hash": ("$1$........$kvQfdsjs0ACFMeDHQ7n/o.",),
    "public-key": ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDaI0ut5neEvpfNObB/+vWINVtWSYp9VX5fFrQzYqKVS op at home",),
    "address": ("10.0.0.1", "10.0.0.2", "172.16.1.1", "192.168.2.9"),
    "network": ("0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/16", "3.3.3.3/32"),
    "network-any": ("any", "10.0.0.0/8", "172.168.2.0/24", "1.1.1.1/32"),
    "interface-address": ("10.0.0.1/32", "10.0.0.1/8", "172.16.1.1/30", "10.9.0.0/31"),
    "interface": ("interface0", "interface-ipsec0"),
    "asp": ("1/1", "2/2", "2/1", "4/1"),
    "port": ("3/1", "3/11", "7/1", "5/2"),
    "rate": ("50M", "20kpps", "1500000"),
    "dscp": ("ef", "af21", "cs5", "0", "63", "df"),
    "card-type": ("ase", "ge-10-port", "ether-12-port", "atm-oc3"),
    "protocol": ("tcp", "udp", "6", "icmp", "89", "250"),
    "radius-key": ("s3cret", "0x1", "key"),
    "psk-hex": ("0x4d79", "00ff00", "0xABCD"),
    "psk-text": ("123456789123456", "0x1", "TEST_SHARED_KEY"),
    "psk-aaa": ("use-aaa",),
    "psk-encrypted": (SECRET.encrypt(CHARACTERS, b"TEST_SHARED_KEY"), SECRET.encrypt(HEXADECIMAL, b"My\0\xff")),
    "id-address": ("30.0.0.1", "20.1.0.2"),
    "id-fqdn": ("vpn.example.net",),
}


def all_nodes() -> set[Node]:
    """Every node of the grammar that a configuration can go through."""
    found: set[Node] = {
        ("config", "", "config"),
        ("commit", "", "commit"),
        ("exit", "", "exit"),
        ("end", "", "end"),
    }
    for command in CONFIG_COMMANDS:
        for syntax in _syntaxes(command):
            found.update(_nodes(parse_syntax(syntax), command, syntax))
    return found


def _nodes(elements: Sequence[Element], command: Command, syntax: str) -> Iterator[Node]:
    for element in elements:
        match element:
            case SyntaxWord(spellings):
                for spelling in spellings:
                    yield command.id, syntax, f"word {spelling}"
            case Choice(name, options):
                for text, _ in options:
                    yield command.id, syntax, f"choice {name} {text}"
            case Param(name, kind):
                yield command.id, syntax, f"value {name} {kind.name}"
            case OptionalPart(items):
                yield command.id, syntax, f"maybe {_name(items)} True"
                yield command.id, syntax, f"maybe {_name(items)} False"
                yield from _nodes(items, command, syntax)
            case Alternatives(branches):
                for branch in branches:
                    yield from _nodes(branch, command, syntax)
