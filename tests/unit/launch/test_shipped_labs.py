"""The labs that come with the project can be listed, copied and checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from launch.examples import ExampleError, copy, examples
from launch.lab.parser import load
from launch.main import main
from tests.support import CONFIGS

CONFIGS = CONFIGS


def test_every_shipped_lab_is_listed_with_what_it_is() -> None:
    done = CliRunner().invoke(main, ["examples", "--json"])
    listed = {row["name"]: row["about"] for row in json.loads(done.output)}
    assert set(listed) == {file.parent.name for file in CONFIGS.glob("*/lab.yaml")}
    assert all(10 < len(about) < 250 for about in listed.values())
    plain = CliRunner().invoke(main, ["examples"]).output
    assert all(f"{name} " in plain and about in plain for name, about in listed.items())


def test_a_copy_is_a_whole_lab(tmp_path: Path) -> None:
    for example in examples():
        lab, _ = load(copy(example.name, tmp_path / example.name))
        assert lab.nodes
    done = CliRunner().invoke(main, ["examples", "ikev2", str(tmp_path / "mine")])
    assert done.exit_code == 0
    assert (tmp_path / "mine" / "a.cfg").read_text() == (CONFIGS / "ikev2" / "a.cfg").read_text()


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for there in ("file", "link", "."):
        with pytest.raises(ExampleError, match="already exists"):
            copy("ikev2", tmp_path / there)
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_what_is_no_example_is_named_with_those_that_are() -> None:
    done = CliRunner().invoke(main, ["examples", "ikev3"])
    assert done.exit_code == 1
    assert "'ikev3' is not an example; examples: asp-spares, high-availability, " in done.output
