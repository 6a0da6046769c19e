"""Configurations in the style of real routers boot: every card up, nothing worse than a warning, now and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis.xcrp.journal import JOURNAL, Journal
from tests.support import REAL
from tests.support.xcrp import Node

FILES = sorted((REAL).glob("*.cfg"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_real_configuration_boots(file: Path) -> None:
    text = file.read_bytes().decode()
    node = Node(text)
    node.boot_all()
    for _ in range(2):
        status = node.ask("status")
        assert status["cards"]
        assert all(card["usable"] for card in status["cards"])
        assert status["diagnostics"]["error"] == 0
        assert status["diagnostics"]["warning"] >= 3
        printed = node.ask("config")["text"]
        node.kill_controller()
        node.start()
        node.run(0.5)
    assert [commit.text for commit in Journal(node.state[JOURNAL]).commits] == [text]
    # What it prints is the same configuration: applied, it changes nothing.
    answer = node.ask("apply", text=printed, file="again.cfg", dry=True)
    assert answer["changes"] == []
    assert not [found for found in answer["diagnostics"] if found["severity"] == "error"]
    assert node.ask("apply", text=printed, file="again.cfg")["applied"]
    assert node.ask("config")["text"] == printed
