"""Generated configurations with odd words: diagnostics with places come out, and a router starts from any."""

from __future__ import annotations

import time
from random import Random

import pytest

from chassis.config.diagnostics import has_errors
from chassis.config.parser import parse
from chassis.config.render import render
from tests.support import odd
from tests.support.configurations import Generator
from tests.support.xcrp import Node

WORDS = (
    *odd.TEXTS,
    *(str(number) for number in odd.NUMBERS),
    *("0x" + "f" * 300, "[a]b#", "!", '"', '"a b"', "\ufeff", "\u0660", "1" * 5000, "3/99999999999", "0.0.0.0/0"),
    *("255.255.255.255", "224.0.0.1/4", "no", "exit", "end", "context", "?"),
)


def mutated(random: Random) -> str:
    """A right configuration with some words lost, doubled, swapped or odd, and lines moved."""
    lines = Generator(random).configuration().split("\n")
    for _ in range(random.choice((1, 3, 10))):
        at = random.randrange(len(lines))
        indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        words = lines[at].split() or [""]
        index = random.randrange(len(words))
        chance = random.random()
        if chance < 0.6:
            words[index] = random.choice(WORDS)
        elif chance < 0.7:
            words.insert(index, random.choice(WORDS))
        elif chance < 0.8:
            del words[index]
        elif chance < 0.9:
            lines.insert(random.randrange(len(lines)), lines[at])
        else:
            indent = " " * random.randrange(12)
        lines[at] = indent + " ".join(words)
    return "\n".join(lines)


@pytest.mark.parametrize("seed", range(4))
def test_generated_configurations(seed: int) -> None:
    random = Random(seed)
    for number in range(80):
        text = mutated(random)
        began = time.process_time()
        parsed = odd.survived(parse, text, "f", about=text)
        for found in parsed.diagnostics:
            assert found.line >= 1
            assert found.column >= 1
            assert found.message
            odd.survived(str(found).encode, about=text)
        printed = odd.survived(render, parsed.config, about=text)
        again = odd.survived(parse, printed, about=printed)
        assert again.config == parsed.config
        assert not has_errors(again.diagnostics), text
        if number % 4 == 0:
            # Its records go through the bus's codec to every card that it calls for.
            node = Node(text)
            odd.survived(node.boot_all, about=text)
            node.kill_controller()
            odd.survived(node.start, about=text)
        assert time.process_time() - began < 10, text
