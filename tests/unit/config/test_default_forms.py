"""Every setting has a default form that leaves its object as a new one is; other lines have none."""

from __future__ import annotations

import pytest

from chassis.config.commands import CONFIG_COMMANDS
from chassis.config.effects import HAVE_DEFAULT
from chassis.config.grammar import Command
from chassis.config.parser import parse
from chassis.config.render import render
from tests.support.configurations import opening_of
from tests.unit.config.test_no_forms import pair


def forms(*, settings: bool) -> list[object]:
    return [
        pytest.param(command, no_form, id=f"{command.id}: {no_form[:40]}")
        for command in CONFIG_COMMANDS
        if (command.does in HAVE_DEFAULT) is settings
        for no_form in command.no_forms
    ]


@pytest.mark.parametrize(("command", "no_form"), forms(settings=True))
def test_a_default_form_leaves_nothing_of_its_command_and_of_its_no_form(command: Command, no_form: str) -> None:
    positive, negative = pair(command, no_form)
    opening = opening_of(command)
    default = f"default {negative.removeprefix('no ')}"
    new = render(parse("\n".join(opening)).config)
    for lines in ([positive], [negative], [positive, negative], []):
        parsed = parse("\n".join([*opening, *lines, default]))
        assert not [found for found in parsed.diagnostics if found.severity == "error"], (lines, default)
        assert render(parsed.config) == new, (lines, default)


@pytest.mark.parametrize(("command", "no_form"), forms(settings=False))
def test_a_line_that_is_no_setting_has_none(command: Command, no_form: str) -> None:
    positive, negative = pair(command, no_form)
    opening = opening_of(command)
    default = f"default {negative.removeprefix('no ')}"
    parsed = parse("\n".join([*opening, positive, *opening, default]))
    found = [found for found in parsed.diagnostics if found.severity == "error"]
    assert [one.code for one in found] == ["no-default"], default
    assert found[0].column == 1
    assert parsed.config == parse("\n".join([*opening, positive])).config
