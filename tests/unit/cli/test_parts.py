"""Listings that come in parts: pages over their borders, giving up in the middle, filters, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from chassis.cli.pager import MORE
from tests.support.cli import CliRig

NAMES = [f"t{number}" for number in range(23)]
PART = 5
BEGIN = "\r" + " " * len(MORE) + "\r"


def controller(command: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Tunnels in parts of five, as a controller lists them."""
    if command != "tunnels":
        return {"hostname": "a", "contexts": ["local"], "version": 1, "modern": False}
    begin = NAMES.index(given["after"]) + 1 if "after" in given else 0
    rows = [{"name": name, "kind": "manual", "up": True} for name in NAMES[begin : begin + PART]]
    if begin + PART < len(NAMES):
        return {"tunnels": rows, "next": rows[-1]["name"]}
    return {"tunnels": rows, "next": "", "total": len(NAMES), "up": len(NAMES)}


def session(**settings: Any) -> CliRig:
    rig = CliRig(controller, **settings)
    rig.start()
    return rig


def named(text: str) -> list[str]:
    return [line.split()[0] for line in text.replace(BEGIN, "").split("\r\n") if line.startswith("t")]


def test_without_pages_all_parts_follow_each_other() -> None:
    said = session(length=0).type("show tunnel\r")
    assert named(said) == NAMES
    assert said.count("Tunnel  ") == 1
    assert said.endswith("Tunnels: 23, up: 23, down: 0\r\n[local]a#")


@pytest.mark.parametrize("length", range(2, 30))
def test_pages_go_over_the_borders_of_parts(length: int) -> None:
    """Each page fills the screen but for the line that waits, wherever a part ends."""
    rig = session(length=length)
    text = rig.type("show tunnel\r").removeprefix("show tunnel\r\n")
    pages = [text]
    while pages[-1].endswith(MORE):
        assert pages[-1].removeprefix(BEGIN).count("\r\n") == length - 1
        assert rig.asked == []
        pages.append(rig.type(" "))
        assert pages[-1].startswith(BEGIN)
    whole = "".join(page.removeprefix(BEGIN).removesuffix(MORE) for page in pages)
    assert named(whole) == NAMES
    assert whole.count("Tunnels: 23") == 1
    assert whole.endswith("[local]a#")


def test_a_part_is_asked_for_when_it_is_needed() -> None:
    rig = session(length=4)
    rig.type("show tunnel\r")
    assert len([ask for ask in rig.requests if ask.command == "tunnels"]) == 1
    rig.type("\r\r\r\r")
    assert [ask.arguments.get("after") for ask in rig.requests if ask.command == "tunnels"] == [None, "t4"]


def test_q_ends_the_listing_between_two_parts() -> None:
    rig = session(length=7)
    assert rig.type("show tunnel\r").endswith(f"{MORE}")
    assert rig.type("q") == f"{BEGIN}[local]a#"
    assert rig.type("show clock | count\r").endswith("% Error: this session has no clock\r\n[local]a#")
    assert len([ask for ask in rig.requests if ask.command == "tunnels"]) == 1


def test_an_interrupt_ends_it_while_a_part_is_awaited() -> None:
    rig = session(length=0)
    rig.hold = True
    rig.type("show tunnel\r")
    first = controller("tunnels", {})
    assert named(rig.reply(first)) == NAMES[:5]
    assert rig.type("\x03") == "^C\r\n[local]a#"
    # The answer comes too late.
    assert rig.reply(controller("tunnels", {"after": "t4"})) == ""
    rig.hold = False
    assert named(rig.type("show tunnel\r")) == NAMES


def test_an_error_in_the_middle_ends_it_with_its_text() -> None:
    rig = session(length=0)
    rig.hold = True
    rig.type("show tunnel\r")
    rig.reply(controller("tunnels", {}))
    assert rig.reply({}, "tunnels: the controller is away") == "% Error: the controller is away\r\n[local]a#"


def test_filters_and_json_see_the_whole() -> None:
    rig = session(length=0)
    assert rig.type("show tunnel | include t2\r").split("\r\n")[1:-1] == [
        line for line in session(length=0).type("show tunnel\r").split("\r\n") if line.startswith("t2")
    ]
    found = json.loads(CliRig(controller).run("show tunnel | json"))
    assert [row["name"] for row in found["tunnels"]] == NAMES
    assert {key: value for key, value in found.items() if key != "tunnels"} == {"total": 23, "up": 23}


def test_one_command_without_a_terminal_prints_all_of_it() -> None:
    rig = CliRig(controller)
    assert named(rig.run("show tunnel").replace("\n", "\r\n")) == NAMES
    assert rig.status == 0
