"""Checks by difference: what a commit's lines affect is found again, exactly as a check of the whole finds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from chassis.config.affected import Affected
from chassis.config.diagnostics import Diagnostic, has_errors
from chassis.config.parser import Parser, parse
from chassis.config.validate import check, check_change
from chassis.model.router import Config
from tests.support.edits import BASE, Edits

COMMITS = 60


def said(found: Iterable[Diagnostic]) -> Counter[tuple[str, ...]]:
    """What is said of each object, wherever its lines are."""
    return Counter((*map(str, one.owner), one.severity, one.code, one.message) for one in found if one.owner)


def edited(config: Config, text: str) -> Parser:
    parser = Parser("", config)
    for number, line in enumerate(text.splitlines(), 1):
        parser.read_line(line, number)
    return parser


@pytest.mark.parametrize("seed", range(40))
def test_random_commits(seed: int) -> None:
    """The same configuration is left, and the same is said of all objects, as by a check from nothing."""
    edits = Edits(seed)
    config = parse(BASE).config
    standing: tuple[Diagnostic, ...] = check(config)[1]
    for _ in range(COMMITS):
        text = edits.text()
        parser = edited(config, text)
        whole, found = check(parser.config(), parser.positions, parser.broken)
        change = check_change(config, parser.config(), parser.positions, parser.broken)
        assert change.config == whole, text
        after = (*(one for one in standing if one.owner not in change.owners), *change.found)
        assert said(after) == said(found), text
        assert set(change.found) <= set(found)
        if has_errors((*parser.diagnostics, *found)):
            # It is refused. (What follows from a wrong line is not said with it, but later.)
            continue
        config, standing = change.config, after


MANY = (
    BASE
    + "ipsec proposal y\nipsec policy x1\n  seq 10 proposal z\n"
    + "".join(
        f"""
context A
  interface lo{number} loopback
    ip address 9.0.0.{number}/32
  ike policy p{number}
    pre-shared-key key{number}
  interface i{number}
    ip address 10.0.{number}.1/24
  ip route 50.{number}.0.0/16 i{number}
tunnel ipsec t{number}
  peer-end-point local 9.0.0.{number} remote 20.0.0.1 context A
  bind interface i{number} A
  ike-policy p{number}
  seq 10 ipsec-policy x1
"""
        for number in range(1, 40)
    )
)


@pytest.mark.parametrize(
    ("text", "tunnels"),
    [
        ("tunnel ipsec t3\n mtu 1400", {"t3"}),
        ("context A\n interface i3\n ip address 10.0.3.2/24", {"t3"}),
        ("context A\n interface lo4 loopback\n ip address 9.0.0.200/32", {"t4"}),
        ("context A\n ike policy p5\n mode aggressive", {"t5"}),
        ("no tunnel ipsec t6", set()),
        ("tunnel ipsec t7\n bind interface i8 A", {"t7", "t8"}),
        ("context A\n ip route 60.0.0.0/8 i3", set()),
        ("context B", set()),
        ("context A", set()),
        ("ipsec policy x2", set()),
        ("context A\n asp-group G1 service security", {f"t{number}" for number in range(1, 40)}),
        ("ipsec policy x1\n seq 10 proposal y", {f"t{number}" for number in range(1, 40)}),
    ],
)
def test_only_what_refers_to_it_is_affected(text: str, tunnels: set[str]) -> None:
    config = parse(MANY).config
    assert Affected(config, edited(config, text).config()).tunnels == tunnels


ON_DEMAND = """
context A
  interface mb ipsec multibind
    ip unnumbered lo1
  ike2 policy own
    pre-shared-key k
  ike2 policy asks
    pre-shared-key use-aaa
  ipsec access-list first
    seq 10 any any
  ipsec access-list second
    seq 10 any any
  ipsec profile d1
    seq 10 ipsec-policy own-esp access-group first
  ipsec profile other
    seq 10 ipsec-policy other-esp access-group second
ipsec proposal other-p
ipsec policy own-esp
ipsec policy other-esp
  seq 10 proposal other-p
""" + "".join(
    f"tunnel ipsec d{number} on-demand\n bind interface mb A\n peer-end-point local 9.0.0.{number} context A\n"
    f" ike-policy {policy}\n"
    for number, policy in ((1, "own"), (2, "asks"))
)


@pytest.mark.parametrize(
    ("text", "tunnels"),
    [
        ("context A\n ipsec profile d1\n mtu 1400", {"d1", "d2"}),
        ("context A\n ipsec profile other\n mtu 1400", {"d2"}),
        ("context A\n ipsec profile new\n mtu 1400", {"d2"}),
        ("context A\n no ipsec profile d1", {"d1", "d2"}),
        ("context A\n no ipsec profile other", {"d2"}),
        ("context A\n ipsec access-list first\n seq 20 any any", {"d1", "d2"}),
        ("context A\n ipsec access-list second\n seq 20 any any", {"d2"}),
        ("ipsec policy own-esp\n anti-replay-window 128", {"d1", "d2"}),
        ("ipsec policy other-esp\n anti-replay-window 128", {"d2"}),
        ("ipsec proposal other-p\n ip-comp", {"d2"}),
        ("context A\n ike2 policy own\n pre-shared-key use-aaa", {"d1"}),
        ("context B\n ipsec profile d1\n mtu 1400", set()),
    ],
)
def test_on_demand_tunnels_are_affected_by_the_profiles_that_their_peers_may_have(
    text: str, tunnels: set[str]
) -> None:
    config = parse(MANY + ON_DEMAND).config
    assert Affected(config, edited(config, text).config()).tunnels & {"d1", "d2"} == tunnels


def test_untouched_objects_are_the_same_ones() -> None:
    """Nothing is copied or compared: a commit's cost grows with what it changes."""
    config = parse(MANY).config
    read = parse("tunnel ipsec t3\n mtu 1400", config=config)
    assert {name for name, tunnel in read.config.tunnels.items() if tunnel is not config.tunnels[name]} == {"t3"}
    assert read.config.contexts is not config.contexts
    assert all(one is config.contexts[name] for name, one in read.config.contexts.items())
