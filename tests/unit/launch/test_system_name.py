"""The setting `os` of a lab: what a router's system is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis.xcrp.settings import ControllerSettings
from launch.lab.model import RouterNode
from launch.lab.parser import load
from launch.lab.schema import schema
from launch.lab.yaml_source import LabError


def settings(folder: Path, of_lab: str, of_node: str = "") -> ControllerSettings:
    (folder / "a.cfg").write_text("")
    (folder / "lab.yaml").write_text(
        f"name: names\n{of_lab}\ntopology: {{nodes: {{a: {{kind: smartedge, config: a.cfg{of_node}}}}}}}\n"
    )
    node = load(folder / "lab.yaml")[0].nodes["a"]
    assert isinstance(node, RouterNode)
    read, problems = ControllerSettings.read(node.to_settings())
    assert problems == []
    return read


@pytest.mark.parametrize(
    ("of_lab", "of_node", "name"),
    [
        ("", "", "seos"),
        ("settings: {os: ipos}", "", "ipos"),
        ("settings: {os: ipos}", ", settings: {os: seos}", "seos"),
        ("", ", settings: {os: ipos}", "ipos"),
    ],
)
def test_a_lab_or_a_node_says_it(tmp_path: Path, of_lab: str, of_node: str, name: str) -> None:
    assert settings(tmp_path, of_lab, of_node).os == name


def test_another_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="'os:' is seos or ipos"):
        settings(tmp_path, "settings: {os: junos}")
    read, problems = ControllerSettings.read({"os": ["ipos"]})
    assert (read.os, problems) == ("seos", ["setting os: ['ipos'] is none of seos, ipos"])


def test_editors_know_the_names() -> None:
    assert schema()["$defs"]["settings"]["properties"]["os"]["enum"] == ["seos", "ipos"]
