"""The grammar against the guide's list of commands, and in itself."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis.cli.commands import COMMANDS as EXEC_COMMANDS
from chassis.config.commands import CONFIG_COMMANDS
from chassis.config.effects import EFFECTS, NO_EFFECTS
from chassis.config.foreign import FOREIGN_MODES
from chassis.config.grammar import MODES, Command, parse_syntax
from chassis.config.matcher import Match, compiled_grammar, expected, knows
from chassis.config.objects import CLASSES
from chassis.config.operations import BY_ID, COMMANDS, OPERATIONS
from tests.support.configurations import Generator, opening_of


@pytest.fixture(scope="session")
def guide(spec_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((spec_dir / "commands.yaml").read_text())
    return found


def test_every_command_of_the_guide_is_there(guide: dict[str, Any]) -> None:
    assert {entry["id"] for entry in guide["commands"]} - set(BY_ID) == set()


def test_kinds_modes_and_entered_modes_are_the_guides(guide: dict[str, Any]) -> None:
    for entry in guide["commands"]:
        command = BY_ID[entry["id"]]
        assert command.kind == entry["kind"], command.id
        if command.kind == "show":
            assert command.modes == ("any",), command.id
        else:
            assert set(command.modes) == {entry["mode"], *entry.get("also_in", ())}, command.id
        assert command.enters == entry.get("enters", ""), command.id


def test_prompts_are_the_guides(guide: dict[str, Any]) -> None:
    for name, mode in guide["modes"].items():
        if name != "any" and mode["prompt"] is not None:
            assert MODES[name].prompt == mode["prompt"]


def test_kinds_of_objects_are_the_guides(guide: dict[str, Any]) -> None:
    spoken = {"ikev1", "ikev2", "static", "on-demand", "manual"}
    for entry in guide["commands"]:
        command, kinds = BY_ID[entry["id"]], set(entry.get("applies_to", ()))
        if command.id == "tunnel.remote-id" or not kinds or not {"ike-policy", "tunnel"} & set(command.modes):
            continue
        everything = {"ikev1", "ikev2"} if "ike-policy" in command.modes else spoken - {"ikev1", "ikev2"}
        assert set(command.variants or everything) == kinds, command.id


PRINTED = {"authentication preshared-key", "lifetime 43200"}
"""The aliases of the list that are whole lines."""


def test_lines_printed_by_the_guide_are_known(guide: dict[str, Any]) -> None:
    """Entries whose syntax is an example line, aliases that are, and no forms."""
    for entry in guide["commands"]:
        lines = [entry["syntax"]] if entry.get("source") == "example only" else []
        lines += [alias for alias in entry.get("aliases", ()) if alias in PRINTED]
        lines += [entry["no_form"]] if "no_form" in entry else []
        for line in lines:
            words = line.split()
            negative = words[0] == "no"
            words = words[1:] if negative else words
            mode = "global" if entry["mode"] == "any" else entry["mode"]
            found = compiled_grammar(mode, "", negative).match(
                words, lambda index, words=words: " ".join(words[index:])
            )
            assert isinstance(found, Match), line
            assert found.command.id == entry["id"] or found.command.modes == BY_ID[entry["id"]].modes, line


def test_ids_are_unique() -> None:
    assert len(BY_ID) == len(COMMANDS)


def test_every_command_is_well_formed() -> None:
    for command in COMMANDS:
        assert command.help, command.id
        assert not command.help.endswith("."), command.id
        known = FOREIGN_MODES if command.does == "foreign" else frozenset[str]()
        assert all(mode in MODES or mode in known or mode == "any" for mode in command.modes), command.id
        assert (
            not command.enters or command.enters in CLASSES or command.enters in known or command.id == "config"
        ), command.id
        assert command.does in EFFECTS, command.id
        assert command.kind != "config" or command.does == "control" or command.does in NO_EFFECTS, command.id
        for syntax in (command.syntax, *command.aliases, *command.no_forms):
            assert parse_syntax(syntax), command.id


def test_values_of_settings_are_fields_of_their_objects() -> None:
    for command in CONFIG_COMMANDS:
        if command.does != "set":
            continue
        for mode in command.modes:
            names = getattr(CLASSES.get(mode), "__dataclass_fields__", None)
            if names is not None:
                assert set(command.fields) <= set(names), command.id


@pytest.mark.parametrize("text", ["a [b", "a ]", "{a | b", "a }"])
def test_a_malformed_syntax_is_refused(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse_syntax(text)


@pytest.mark.parametrize("command", CONFIG_COMMANDS, ids=lambda command: command.id)
def test_generated_lines_of_a_command_are_that_command(command: Command) -> None:
    generator = Generator(random.Random(command.id))
    for mode in command.modes:
        variant = command.variants[0] if command.variants else ""
        assert knows(command, mode, variant)
        for syntax in (command.syntax, *command.aliases):
            for _ in range(10):
                words = generator.line(command, syntax)[0].split()
                found = compiled_grammar(mode, variant, False).match(words, lambda i, w=words: " ".join(w[i:]))
                assert isinstance(found, Match), words
                assert found.command.id == command.id, words
    assert opening_of(command) or "global" in command.modes


def test_help_and_completion_come_from_the_grammar() -> None:
    assert dict(expected("global", ["tunnel", "ipsec", "t"])).keys() == {
        "<cr>", "economical", "on-demand", "manual",
    }  # fmt: skip
    assert "keepalive" in dict(expected("context", ["ike"]))
    assert dict(expected("interface", ["ip"])).keys() == {"address", "unnumbered"}
    assert "<300..99999999>" in dict(expected("ike-policy", ["lifetime", "sec"], "ikev2"))
    assert expected("ike-policy", ["lifetime"], "ikev1") == ()
    assert dict(expected("port", ["no"])).keys() >= {"shutdown", "bind"}
    assert expected("global", ["nonsense"]) == ()


def test_a_command_that_nothing_carries_out_is_not_called_emulated() -> None:
    """What is no line of a configuration is emulated where the CLI has every form of it."""
    idle = {command.id for command in OPERATIONS if command.does == "none" and command.standing == "emulated"}
    assert idle <= {row.id for row in EXEC_COMMANDS if row.guide}
    assert idle
