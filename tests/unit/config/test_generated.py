"""Parse, render, parse is a fixed point, over hundreds of configurations that use every node of the grammar."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from chassis.config.difference import difference
from chassis.config.parser import Parsed, parse
from chassis.config.render import render
from tests.support.configurations import Generator, Node, all_nodes

LEAST, COUNT = 400, 1000
"""So many configurations at least, and at most until every node was met."""
SEED = 3
LOST = {"S-016", "S-051", "nothing-to-remove"}
"""Warnings about words that have no effect: the rendered text does not have them."""


def said(parsed: Parsed, *severities: str) -> Counter[tuple[str, str]]:
    return Counter((d.code, d.name) for d in parsed.diagnostics if d.severity in severities and d.code not in LOST)


@pytest.mark.behaviour("B-227")
def test_parse_render_parse_is_a_fixed_point_and_every_node_of_the_grammar_is_met() -> None:
    source = random.Random(SEED)
    every, met = all_nodes(), set[Node]()
    clean = 0
    for number in range(COUNT):
        if number >= LEAST and met == every:
            break
        # Half of the configurations have no `no` line, and only later ones go looking for what is left.
        wanted = every - met if number % 2 and number > LEAST // 4 else set()
        generator = Generator(random.Random(source.random()), no_share=0.3 if number % 2 else 0.0, wanted=wanted)
        text = generator.configuration()
        parsed = parse(text)
        wrong = {d.line for d in parsed.diagnostics if d.severity == "error"}
        for line, nodes in enumerate(generator.taken, 1):
            if line not in wrong:
                met |= nodes
        printed = render(parsed.config)
        again = parse(printed)
        assert again.config == parsed.config, text
        assert difference(parsed.config, again.config) == ()
        assert render(again.config) == printed
        assert not said(again, "error"), printed
        if not wrong:
            clean += 1
            assert said(again, "warning") == said(parsed, "warning"), text
        verbose = parse(render(parsed.config, verbose=True))
        assert verbose.config == parsed.config
        assert not said(verbose, "error")
    assert every - met == set()
    assert clean > number // 10


def test_the_generator_makes_the_same_text_from_the_same_seed() -> None:
    one, two = (Generator(random.Random(7)).configuration() for _ in range(2))
    assert one == two
