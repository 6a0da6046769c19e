"""`chassis-launch load` with real processes: peers come up, are measured and go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from launch.main import main
from tests.support import CONFIGS

pytestmark = pytest.mark.multiprocess


def test_fifty_peers_come_up_and_go(tmp_path: Path) -> None:
    for file in (CONFIGS / "load").iterdir():
        (tmp_path / file.name).write_text(file.read_text().replace("peers: 100", "peers: 25"))
    options = ["--json", "--rate", "50", "--hold", "2s", "--churn", "5", "--processes", "2"]
    result = CliRunner().invoke(main, ["load", str(tmp_path / "lab.yaml"), *options])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["passed"] is True
    for node in report["peers"].values():
        assert (node["processes"], node["up"], node["lost"]) == (2, 25, 0)
        assert node["left"] > 0
        assert node["setups"] == 25 + node["left"]
        assert node["latency"]["max_ms"] > 0
    assert {node["setups"] for node in report["came_up"].values()} == {25}
    traffic = report["peers"]["branches"]["traffic"]
    assert traffic["sending"] == 10
    assert traffic["received"] > 0
