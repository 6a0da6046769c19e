"""Every no form takes back what its command did, and nothing else."""

from __future__ import annotations

import random

import pytest

from chassis.config.commands import CONFIG_COMMANDS
from chassis.config.grammar import Command
from chassis.config.parser import parse
from tests.support.configurations import Generator, opening_of

STATES = {"keep", "switch", "idle", "shutdown"}
"""Commands whose no form is a setting of its own."""


def pair(command: Command, no_form: str) -> tuple[str, str]:
    """A line of a command and its no form with the same values."""
    generator = Generator(random.Random(f"{command.id} {no_form}"))
    while True:
        state = generator.random.getstate()
        negative = generator.line(command, no_form)[0]
        generator.random.setstate(state)
        positive = generator.line(command, command.syntax)[0]
        words = negative.split()[1:]
        if command.does in ("enter", "append", "secondary", "route", "listed"):
            # The value that names the object stands in both lines at the same place.
            if positive.split()[: len(words)] != words[: len(positive.split())]:
                continue
        elif command.does in ("proposal", "entry", "rule"):
            negative = " ".join(["no", *positive.split()[:2]])
        if command.does == "idle" and positive.endswith(" 0"):
            continue
        parsed = parse("\n".join([*opening_of(command), positive]))
        if not any(d.severity == "error" for d in parsed.diagnostics):
            return positive, negative


PAIRS = [
    pytest.param(command, no_form, id=f"{command.id}: {no_form[:40]}")
    for command in CONFIG_COMMANDS
    for no_form in command.no_forms
]


@pytest.mark.parametrize(("command", "no_form"), PAIRS)
def test_a_no_form_takes_its_command_back(command: Command, no_form: str) -> None:
    positive, negative = pair(command, no_form)
    opening = opening_of(command)
    empty = parse("\n".join(opening)).config
    done = parse("\n".join([*opening, positive]))
    undone = parse("\n".join([*opening, positive, negative]))
    assert not [d for d in undone.diagnostics if d.severity == "error"], (positive, negative)
    assert "nothing-to-remove" not in {d.code for d in undone.diagnostics}, (positive, negative)
    if command.does in STATES:
        assert undone.config != done.config, (positive, negative)
        assert parse("\n".join([*opening, positive, negative, positive])).config == done.config
    else:
        assert undone.config == empty, (positive, negative)


def test_esp_lines_of_a_proposal() -> None:
    """Only the lines that are there count; with none left the default pair is back."""

    def of(*lines: str) -> tuple[str | None, str | None, str | None]:
        proposal = parse("\n".join(["ipsec proposal p", *lines])).config.ipsec_proposals["p"]
        return proposal.ah, proposal.esp_integrity, proposal.esp_cipher

    both = ("esp authentication hmac-md5-96", "esp encryption des-cbc")
    assert of() == (None, "hmac-sha1-96", "aes-128-cbc")
    assert of(both[0]) == (None, "hmac-md5-96", "null")
    assert of(both[1]) == (None, None, "des-cbc")
    assert of("ah hmac-md5-96") == ("hmac-md5-96", None, None)
    assert of(*both, "no esp authentication") == (None, None, "des-cbc")
    assert of(*both, "no esp encryption") == (None, "hmac-md5-96", "null")
    assert of(*both, "no esp encryption", "no esp authentication") == (None, "hmac-sha1-96", "aes-128-cbc")
    assert of(*both, "ah hmac-sha1-96", "no ah") == (None, "hmac-md5-96", "des-cbc")
    assert of("ah hmac-sha1-96", *both, "no esp encryption", "no esp authentication") == (
        "hmac-sha1-96",
        None,
        None,
    )
