"""Any text either parses or is spoken of; nothing raises, and what was read prints and reads back."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.config.grammar import Alternatives, Choice, Element, OptionalPart, SyntaxWord
from chassis.config.operations import COMMANDS
from chassis.config.parser import parse
from chassis.config.render import render
from tests.support.configurations import Generator


def _keywords(elements: tuple[Element, ...]) -> set[str]:
    found: set[str] = set()
    for element in elements:
        match element:
            case SyntaxWord(spellings):
                found |= set(spellings)
            case Choice(_, options):
                found |= {text for text, _ in options}
            case OptionalPart(items):
                found |= _keywords(items)
            case Alternatives(branches):
                for branch in branches:
                    found |= _keywords(branch)
            case _:
                pass
    return found


WORDS = sorted(set().union(*(_keywords(command.elements) for command in COMMANDS)))
VALUES = ["1", "10", "65536", "10.0.0.1", "10.0.0.0/8", "3/1", "x", "any", "eq", "no", "0x12", "!", "[a]b#", "é"]

words = st.sampled_from(WORDS) | st.sampled_from(VALUES) | st.text(min_size=1, max_size=6)
lines = st.lists(words, max_size=7).map(" ".join)


def holds(text: str) -> None:
    parsed = parse(text, "f")
    for diagnostic in parsed.diagnostics:
        assert diagnostic.line >= 1
        assert diagnostic.column >= 1
        assert diagnostic.message
    printed = render(parsed.config)
    again = parse(printed)
    assert again.config == parsed.config
    assert not [d for d in again.diagnostics if d.severity == "error"]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    holds(text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(lines, max_size=12).map("\n".join))
def test_any_words_of_the_grammar(text: str) -> None:
    holds(text)


def test_right_files_with_words_lost_doubled_or_changed() -> None:
    source = random.Random(5)
    for number in range(60):
        text = Generator(random.Random(number)).configuration()
        broken = []
        for line in text.split("\n"):
            parts = line.split()
            if parts and source.random() < 0.3:
                at = source.randrange(len(parts))
                change = source.choice(("lose", "double", "swap"))
                if change == "lose":
                    del parts[at]
                elif change == "double":
                    parts.insert(at, parts[at])
                else:
                    parts[at] = source.choice(WORDS + VALUES)
            broken.append(" ".join(parts))
        holds("\n".join(broken))


def test_a_byte_order_mark_is_no_part_of_any_word() -> None:
    for text in ("  \ufeff\n", "\ufeff\ufefffrob x\n", "frob \ufeff\n", "context c\n \ufefffrob\ufeff x\n"):
        holds(text)
