"""The page about negotiations that fail: its lines are typed at both ends of simulated labs and print the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import pytest

from chassis.ase.ike.log import TEMPLATES
from tests.support import CONFIGS, ROOT
from tests.support.cli import CliRig
from tests.support.sim_shell import SimShell

PAGE = ROOT / "docs" / "failed-negotiation.md"
BLOCK = re.compile(r"^```(sh|a|b)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"^\[\w+\][ab](?:\([\w-]+\))?#", re.MULTILINE)
LAB = re.compile(r"^chassis-launch configs/([\w-]+)/lab.yaml", re.MULTILINE)

DIFFERS = (
    (re.compile(r"[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d"), "DATE"),
    (re.compile(r"Payload Length\(\d+\)"), "Payload Length(N)"),
    (re.compile(r"= [\d.]+/[\d.]+/[\d.]+ ms"), "= MS"),
)
"""What is another one in each run, and what stands for it here."""

WITHIN = 60.0
"""Time (s) in which what a command shows becomes what the page says."""


def steady(text: str) -> str:
    """A text without what differs from run to run, and without blanks at the ends of lines."""
    for pattern, word in DIFFERS:
        text = pattern.sub(word, text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines()).strip("\n")


def commands(block: str) -> Iterator[tuple[str, str, str]]:
    """Prompt, command and expected output of each command of a block."""
    marks = [*PROMPT.finditer(block)]
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        said = block[mark.end() : following.start() if following else None]
        command, _, expected = said.partition("\n")
        yield mark[0], command, expected


class Reader:
    """Someone at both ends of a lab."""

    def __init__(self, lab: str) -> None:
        self.shell = SimShell(CONFIGS / lab / "lab.yaml")
        self.rigs = {
            name: CliRig(partial(self.shell.ask, name), hostname=name, width=400) for name in self.shell.routers
        }
        self.prompts: dict[str, str] = {}
        for name, rig in self.rigs.items():
            rig.start()
            self.type(name, "terminal length 0")
        self.shell.wait_until(self.shell.tunnels_up)

    def type(self, router: str, command: str) -> str:
        """Type a command; return its output. What stands after it is the next prompt."""
        said = self.rigs[router].type(f"{command}\r").replace("\r\n", "\n")
        output, _, self.prompts[router] = said.removeprefix(f"{command}\n").rpartition("\n")
        return output

    def does(self, router: str, prompt: str, command: str, expected: str) -> str:
        """Type a command at its prompt; what only shows something is typed again until it is as expected."""
        assert self.prompts[router] == prompt
        output = self.type(router, command)
        until = self.shell.run.world.now + WITHIN
        while command.startswith("show ") and steady(output) != steady(expected):
            if self.shell.run.world.now > until:
                break
            self.shell.pass_time(0.1)
            output = self.type(router, command)
        return output


@pytest.mark.behaviour("B-224")
def test_the_page_says_what_both_ends_say() -> None:
    reader, shown = None, 0
    for kind, text in BLOCK.findall(PAGE.read_text()):
        if kind == "sh":
            (lab,) = LAB.findall(text)
            reader = Reader(lab)
            continue
        assert reader is not None, "no lab is launched"
        for prompt, command, expected in commands(text):
            assert steady(reader.does(kind, prompt, command, expected)) == steady(expected), command
            shown += command.startswith("show ")
    assert shown > 20


def test_what_either_end_says_are_texts_of_the_log() -> None:
    """The table quotes the guide's lines, with three dots for what differs, and those that the page shows."""
    page = PAGE.read_text()
    shown = "".join(text for _, text in BLOCK.findall(page))
    table = page.partition("## What either end says")[2]
    quotes = re.findall(r"`([^`]+)`", table)
    assert len(quotes) > 15
    for quote in quotes:
        # A notification of the guide's lines is any of RFC 2408 3.14.1.
        pieces = re.sub(r"(?<=notify type )[A-Z_]+", "{notify}", quote).split("...")
        texts = [text for text in (*TEMPLATES.values(), shown) if all(piece in text for piece in pieces)]
        assert texts, quote
