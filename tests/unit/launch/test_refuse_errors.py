"""A start-up file with an error: loudly put in force without those lines, or refused where a lab wants that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from chassis.xcrp.settings import ControllerSettings
from launch.client.status_view import render
from launch.lab.parser import load
from launch.lab.schema import schema
from launch.lab.yaml_source import LabError
from launch.supervisor.start import StartError, prepare

CONFIG = "card ge-10-port 3\nipsec policy x y\nrouter ospf 1\ncard ge-10-port 4\n"

NODES = "topology: {nodes: {a: {kind: smartedge, config: a.cfg%s}, b: {kind: smartedge, config: b.cfg}}}\n"


def lab(folder: Path, more: str = "", of_a: str = "") -> Path:
    (folder / "a.cfg").write_text(CONFIG)
    (folder / "b.cfg").write_text("card ge-10-port 3\n")
    file = folder / "lab.yaml"
    file.write_text(f"name: n\n{more}\n{NODES % of_a}")
    return file


@pytest.fixture(autouse=True)
def folders(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHASSIS_RUN", str(short_folder / "run"))
    monkeypatch.setenv("CHASSIS_STATE", str(short_folder / "state"))


@pytest.mark.parametrize("of_a", ["", ", settings: {refuse-errors: false}"])
def test_a_lab_starts_without_the_lines_that_are_errors_and_says_how_many(tmp_path: Path, of_a: str) -> None:
    said: list[str] = []
    more = "settings: {refuse-errors: true}" if of_a else ""
    made, startup = prepare(lab(tmp_path, more, of_a), None, False, said.append)
    assert f"a: {tmp_path / 'a.cfg'} has 1 error: its line has no effect" in said
    assert not [line for line in said if line.startswith("b: ")]
    assert [line.split(" ")[1] for line in said if line.startswith(f"{tmp_path / 'a.cfg'}:")] == [
        "error",
        "warning",
    ]
    assert list(startup["a"].config.cards) == [3, 4]
    told, problems = ControllerSettings.read(made.routers()[0].to_settings())
    assert not problems
    assert "refuse=False" in repr(told)


@pytest.mark.parametrize(("more", "of_a"), [
    ("refuse-errors: true", ""),
    ("settings: {refuse-errors: true}", ""),
    ("", ", settings: {refuse-errors: true}"),
])  # fmt: skip
def test_a_lab_that_refuses_errors_does_not_start(tmp_path: Path, more: str, of_a: str) -> None:
    said: list[str] = []
    file = lab(tmp_path, more, of_a)
    with pytest.raises(StartError, match="errors in the configuration of a; not started because of refuse-errors"):
        prepare(file, None, False, said.append)
    assert any("a.cfg:2:16: error surplus" in line for line in said)
    a, _ = load(file)[0].routers()
    assert "refuse=True" in repr(ControllerSettings.read(a.to_settings())[0])


def test_refuse_errors_is_true_or_false(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="'refuse-errors:' is true or false"):
        load(lab(tmp_path, "refuse-errors: maybe"))
    assert schema()["properties"]["refuse-errors"]["type"] == "boolean"


def test_the_status_says_how_many_lines_have_no_effect() -> None:
    node = {"cards": [], "tunnels": [], "events": [], "diagnostics": {"error": 2, "warning": 1, "note": 0}}
    status: dict[str, Any] = {
        "lab": "n", "seconds": 1.0, "boot_seconds": 1.0, "missing": [], "processes": [], "flows": {}, "events": [],
        "nodes": {"a": {"status": node}, "b": {"status": {**node, "diagnostics": {"error": 0}}},
                  "t": {"status": {}}},
    }  # fmt: skip
    console = Console(width=120)
    with console.capture() as captured:
        console.print(render(status))
    text = captured.get()
    assert "a: its configuration has 2 errors: their lines have no effect" in text
    assert "b: its configuration" not in text
