"""Values: the ends of every range, the forms of keys, the rules of ACLs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

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
from chassis.config.parser import Parsed, parse
from chassis.config.render import render
from chassis.model.acl import Acl, AclRule
from chassis.model.ike import PreSharedKey, ProposalRef
from chassis.model.ipsec import IpsecPolicy, Key, Keyed, Spi
from chassis.model.router import LOCAL, Config, Context
from chassis.model.source import as_carried
from chassis.net.address import parse_prefix
from tests.support.configurations import Generator, opening_of


def errors(parsed: Parsed) -> list[str]:
    return [d.code for d in parsed.diagnostics if d.severity == "error"]


# --- ranges ---


def ranges(command: Command) -> Iterator[tuple[str, int, int]]:
    def walk(elements: Sequence[Element]) -> Iterator[tuple[str, int, int]]:
        for element in elements:
            match element:
                case Param(name, kind) if ".." in kind.name:
                    low, _, high = kind.name.partition("..")
                    yield name, int(low), int(high)
                case OptionalPart(items):
                    yield from walk(items)
                case Alternatives(branches):
                    for branch in branches:
                        yield from walk(branch)
                case Choice() | SyntaxWord() | Param():
                    pass

    yield from dict.fromkeys(walk(command.elements))


class Edge(Generator):
    """Writes one line with a given value in one field, every optional word in place."""

    edge_field = ""
    edge_number = 0

    def value(self, command: Command, name: str, kind: str, chosen: dict[str, str]) -> str:
        if name == self.edge_field:
            return str(self.edge_number)
        return "tcp" if kind == "protocol" else super().value(command, name, kind, chosen)


def edge_line(command: Command, name: str, number: int) -> str:
    generator = Edge(random.Random(1))
    generator.random.random = lambda: 0.0  # type: ignore[method-assign]
    generator.edge_field, generator.edge_number = name, number
    return generator.line(command, command.syntax)[0]


RANGES = [
    pytest.param(command, *found, id=f"{command.id} {found[0]}")
    for command in CONFIG_COMMANDS
    for found in ranges(command)
]


@pytest.mark.parametrize(("command", "name", "low", "high"), RANGES)
def test_the_ends_of_a_range_are_in_it_and_their_neighbours_are_not(
    command: Command, name: str, low: int, high: int
) -> None:
    def codes(number: int) -> list[str]:
        lines = [*opening_of(command), edge_line(command, name, number)]
        return [code for code in errors(parse("\n".join(lines))) if code != "S-102"]

    assert codes(low) == []
    assert codes(high) == []
    assert len(codes(high + 1)) == 1
    if low > 0:
        assert len(codes(low - 1)) == 1


def test_a_window_comes_in_steps_of_32() -> None:
    for window, right in ((32, True), (64, True), (96, True), (100, False), (1024, True), (1056, False)):
        text = f"ipsec policy p\n anti-replay-window {window}\n"
        assert errors(parse(text)) == ([] if right else ["S-096"])


@pytest.mark.parametrize("command", CONFIG_COMMANDS, ids=lambda command: command.id)
def test_a_word_that_is_no_choice_is_refused(command: Command) -> None:
    elements = parse_syntax(command.syntax)
    if not any(isinstance(element, Choice) for element in elements):
        return
    words = [element.spellings[0] if isinstance(element, SyntaxWord) else "name" for element in elements]
    words = ["nonsense" if isinstance(e, Choice) else w for e, w in zip(elements, words, strict=True)]
    assert errors(parse("\n".join([*opening_of(command), " ".join(words)])))


@pytest.mark.parametrize(("line", "right"), [
    ("ip address 10.0.0.1/8", True),
    ("ip address 10.0.0.0/31", True),
    ("ip address 10.0.0.0/32", True),
    ("ip address 10.0.0.0/30", False),
    ("ip address 10.0.0.1/33", False),
    ("ip address 10.0.0.1", False),
    ("ip address 10.0.0.256/8", False),
    ("ip address 224.0.0.1/8", False),
    ("ip address 127.0.0.1/8", False),
    ("ip address 0.0.0.0/0", False),
    ("ip address ::1/64", False),
    ("ip route 10.1.2.3/8 1.1.1.1", True),
    ("ip route 10.0.0.0/8 300.1.1.1", False),
    ("ip route 10.0.0.0/8 224.0.0.1", False),
    ("ip route 10.0.0.0/8 x cost 0", False),
])  # fmt: skip
def test_addresses_and_prefixes(line: str, right: bool) -> None:
    assert (errors(parse(f"context c\n interface x\n  {line}\n")) == []) is right


def test_a_prefix_loses_its_host_bits() -> None:
    assert parse("context c\n ip route 10.1.2.3/8 x\n").config.contexts["c"].routes[0].prefix == "10.0.0.0/8"


# --- keys ---


def spi(*lines: str) -> Spi:
    text = "ipsec security-association s\n both\n" + "\n".join(lines)
    parsed = parse(text)
    assert errors(parsed) == [], text
    both = parsed.config.manual_sas["s"].both
    assert both is not None
    return both


@pytest.mark.parametrize(("written", "value", "printed"), [
    ("key 12345678", b"12345678", "key 12345678"),
    ("key 0x3132333435363738", b"12345678", "key 0x3132333435363738"),
    ("key 0XaBcDef0102030405", bytes.fromhex("abcdef0102030405"), "key 0xabcdef0102030405"),
    ("hex 0102030405060708", bytes(range(1, 9)), "key 0x0102030405060708"),
    ("hex 0x0102030405060708", bytes(range(1, 9)), "key 0x0102030405060708"),
])  # fmt: skip
def test_forms_of_a_manual_key(written: str, value: bytes, printed: str) -> None:
    held = spi(f"esp encryption des-cbc {written}").esp_encryption
    assert held == Keyed("des-cbc", Key(value))
    text = render(parse(f"ipsec security-association s\nboth\nesp encryption des-cbc {written}\n").config)
    assert f"  esp encryption des-cbc {printed}\n" in text


@pytest.mark.parametrize(
    "word", ["hex 123", "hex 0x123", "key 0x123", "hex xyz", "key 0xzz", "key sch\u00f6n", "hex 0x"]
)
def test_what_is_no_key(word: str) -> None:
    text = f"ipsec security-association s\nboth\nah {word}\n"
    assert errors(parse(text)) == ["S-022"]


@pytest.mark.behaviour("B-124")
@pytest.mark.parametrize(("algorithm", "sizes"), KEY_BYTES.items())
def test_a_key_has_the_length_of_its_algorithm(algorithm: str, sizes: tuple[int, ...]) -> None:
    command = "esp authentication" if algorithm.startswith("hmac") else "esp encryption"
    for size in range(1, 40):
        text = f"ipsec security-association s\nboth\n{command} {algorithm} key 0x{'ab' * size}\n"
        assert (errors(parse(text)) == []) is (size in sizes)


def test_the_last_pre_shared_key_counts_and_its_form_is_kept() -> None:
    forms = {
        "hex 0x4d79": (PreSharedKey("hex", b"My"), "pre-shared-key hex 0x4d79"),
        "hex 4D79": (PreSharedKey("hex", b"My"), "pre-shared-key hex 0x4d79"),
        "0x4d79": (PreSharedKey("ascii", b"0x4d79"), "pre-shared-key 0x4d79"),
        "12345678": (PreSharedKey("ascii", b"12345678"), "pre-shared-key 12345678"),
        "use-aaa": (PreSharedKey("aaa"), "pre-shared-key use-aaa"),
    }
    for word in ("pre-shared-key", "preshared-key"):
        for written, (held, printed) in forms.items():
            config = parse(f"context c\nike policy p\npre-shared-key first\n{word} {written}\n").config
            assert config.contexts["c"].ike_policies["p"].pre_shared_key == held
            assert f"  {printed}\n" in render(config)


# --- ACL rules ---


@pytest.mark.parametrize(("rule", "expected", "printed"), [
    ("tcp 1.1.1.0/24 eq 20000", AclRule(10, 6, parse_prefix("1.1.1.0/24"), 20000), ""),
    ("1.1.1.0/24 2.2.2.0/24",
        AclRule(10, source=parse_prefix("1.1.1.0/24"), destination=parse_prefix("2.2.2.0/24")), ""),
    ("any any", AclRule(10), ""),
    ("any", AclRule(10), ""),
    ("0.0.0.0/0 any", AclRule(10), ""),
    ("any 0.0.0.0/0", AclRule(10), ""),
    ("tcp", AclRule(10, 6), ""),
    ("17 any any eq 53", AclRule(10, 17, destination_port=53), "udp any any eq 53"),
    ("tcp any eq 5", AclRule(10, 6, source_port=5), ""),
    ("tcp eq 5", AclRule(10, 6, source_port=5), ""),
    ("tcp eq 5 eq 6", AclRule(10, 6, source_port=5, destination_port=6), ""),
    ("tcp eq 5 2.0.0.0/8", AclRule(10, 6, source_port=5, destination=parse_prefix("2.0.0.0/8")), ""),
    ("tcp 1.0.0.0/8 eq 5 2.0.0.0/8 eq 6",
        AclRule(10, 6, parse_prefix("1.0.0.0/8"), 5, parse_prefix("2.0.0.0/8"), 6), ""),
    ("icmp 1.0.0.0/8", AclRule(10, 1, parse_prefix("1.0.0.0/8")), ""),
    ("250 any 1.0.0.0/8", AclRule(10, 250, destination=parse_prefix("1.0.0.0/8")), ""),
])  # fmt: skip
def test_forms_of_a_rule(rule: str, expected: AclRule, printed: str) -> None:
    parsed = parse(f"context c\nipsec access-list a\nseq 10 {rule}\n")
    assert errors(parsed) == []
    assert parsed.config.contexts["c"].acls["a"].rules == (expected,)
    assert f"  seq 10 {printed or rule}\n" in render(parsed.config)


@pytest.mark.parametrize("rule", [
    AclRule(10),
    AclRule(10, 6, destination=parse_prefix("2.0.0.0/8")),
    AclRule(10, 6, destination_port=7),
    AclRule(10, 6, parse_prefix("1.0.0.0/8"), destination_port=7),
    AclRule(10, 6, source_port=5, destination_port=7),
])  # fmt: skip
def test_a_rule_that_was_not_typed_prints_so_that_it_reads_back(rule: AclRule) -> None:
    context = Context("c", acls={"a": Acl("a", rules=(rule,))})
    config = Config(contexts={LOCAL: Context(LOCAL), "c": context})
    assert parse(render(config)).config == config


@pytest.mark.behaviour("B-125")
def test_rules_are_in_order_of_their_numbers() -> None:
    config = parse("context c\nipsec access-list a\nseq 30 any\nseq 10 tcp\nseq 20 udp\nseq 30 icmp\n").config
    assert [(r.seq, r.protocol) for r in config.contexts["c"].acls["a"].rules] == [(10, 6), (20, 17), (30, 1)]


# --- cards and ports ---


def test_cards_by_name() -> None:
    config = parse("card ase 1\ncard ge-10-port 3\ncard ether-12-port 4\ncard atm-oc3 5\n").config
    assert [(c.slot, c.ports, c.is_ase, c.is_line_card) for c in config.cards.values()] == [
        (1, 0, True, False), (3, 10, False, True), (4, 12, False, True), (5, 0, False, False),
    ]  # fmt: skip


def test_ports_start_shut_down() -> None:
    config = parse("port ethernet 3/11\nport ethernet 3/2\n no shutdown\n bind interface x c\n").config
    assert config.ports["3/11"].shutdown
    port = config.ports["3/2"]
    assert (port.shutdown, port.interface, port.context, port.slot, port.number) == (False, "x", "c", 3, 2)


def test_what_cards_do_not_need_stays_at_the_controller() -> None:
    """A value arrives at a card without its text: `description`, kept lines, where it stood."""
    text = "ipsec policy p\n description of ours\n perfect-forward-secrecy dh-group 2\n seq 1 proposal q\n"
    policy = parse(text + " frobnicate the thing\n").config.ipsec_policies["p"]
    assert policy.description
    assert policy.kept
    carried = as_carried(policy)
    assert carried == IpsecPolicy("p", pfs_group=2, proposals=(ProposalRef(1, "q"),))
    assert (carried.line, carried.written, carried.proposals[0].line) == (0, frozenset(), 0)
    assert as_carried(carried) is carried
