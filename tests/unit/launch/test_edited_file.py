"""A start-up file that was edited after the last run: what is said at launch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.run_folders import Folders
from launch.supervisor import start

CONFIGURATION = """\
context c
  interface left
    ip address ADDRESS/24
tunnel ipsec t manual
  peer-end-point local ADDRESS remote 10.0.0.9 context c
"""


@pytest.fixture(autouse=True)
def roots(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHASSIS_RUN", str(short_folder / "r"))
    monkeypatch.setenv("CHASSIS_STATE", str(short_folder / "s"))


def commit(lab: str, node: str, text: str, number: int = 3) -> None:
    """What a controller leaves in its state folder."""
    folders = Folders(lab, [node])
    line = json.dumps({"number": number, "file": "before.cfg", "text": text})
    (folders.state / node / "journal").write_text(line + "\n")
    folders.close()


def said(file: Path) -> str:
    lines: list[str] = []
    start.prepare(file, None, False, lines.append)
    return "\n".join(lines)


def test_an_edited_file_is_said_not_to_be_in_force_and_how_to_go_by_it(short_folder: Path) -> None:
    file = short_folder / "a.cfg"
    file.write_text(CONFIGURATION.replace("ADDRESS", "10.0.0.1"))
    assert "not in force" not in said(file)
    commit("a", "a", file.read_text())
    assert "not in force" not in said(file)
    file.write_text(CONFIGURATION.replace("ADDRESS", "10.0.0.2"))
    text = said(file)
    assert f"note: a: {file} is not in force: commit 3 of before.cfg is" in text
    assert "- ip address 10.0.0.1/24" in text
    assert "+ ip address 10.0.0.2/24" in text
    assert f"to use the file: chassisctl apply a {file}" in text
    assert "chassis-launch destroy a" in text


def test_a_file_that_means_the_same_needs_no_word(short_folder: Path) -> None:
    file = short_folder / "a.cfg"
    file.write_text(CONFIGURATION.replace("ADDRESS", "10.0.0.1"))
    commit("a", "a", "! a comment\n" + file.read_text().replace("  ", " "))
    assert "not in force" not in said(file)


def test_keys_are_hidden_and_long_differences_cut(short_folder: Path) -> None:
    file = short_folder / "a.cfg"
    policy = "context c\n  ike policy p\n    pre-shared-key KEY\n"
    interfaces = "".join(f"  interface i{number}\n" for number in range(40))
    file.write_text(policy.replace("KEY", "old5ecret") + interfaces)
    commit("a", "a", policy.replace("KEY", "new5ecret"))
    text = said(file)
    assert "is not in force" in text
    assert "5ecret" not in text
    assert " lines more" in text
    assert len(text.splitlines()) < 32


def test_a_journal_that_cannot_be_read_is_no_reason_not_to_start(short_folder: Path) -> None:
    file = short_folder / "a.cfg"
    file.write_text(CONFIGURATION.replace("ADDRESS", "10.0.0.1"))
    commit("a", "a", "x")
    (short_folder / "s" / "a" / "a" / "journal").write_bytes(b"\xff\0{]\n")
    assert "not in force" not in said(file)
