"""What is captured while a scenario runs has a bound, however long that is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from launch.client.lab_client import LabClient
from launch.lab.parser import load
from launch.scenario import command
from tests.support import CONFIGS

CONFIGS = CONFIGS


@pytest.mark.parametrize("name", ["manual-keys", "high-availability"])
def test_the_wires_of_a_lab_share_a_bound(name: str, tmp_path: Path) -> None:
    lab, _ = load(CONFIGS / name / "lab.yaml")
    asked: list[dict[str, Any]] = []

    def ask(node: str, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        asked.append(arguments)
        return {}

    booted = SimpleNamespace(lab=lab, folder=tmp_path, client=LabClient(lab, cast(Any, ask), tmp_path))
    command._capture(cast(Any, booted))
    assert len(asked) == len(lab.links)
    assert all(arguments.get("ring", 0) > 0 for arguments in asked)
    assert sum(arguments["ring"] for arguments in asked) <= 64 << 20
