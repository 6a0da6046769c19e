"""What benchmarks are held to: a bar that is missed is told in every way there is."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import bench.__main__ as bench
from bench.report import Report


def test_a_bar_is_told_beside_its_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    report.add("fast", [151.0, 149.0, 150.0], "packets/s")
    report.bar(150)
    report.add("slow", [149.0], "packets/s", "strongSwan", 100.0)
    report.bar(150)
    report.bar(1.5, "ratio")
    report.add("alone", [1.0], "packets/s", "strongSwan")
    report.bar(1.5, "ratio")
    said = capsys.readouterr().out
    assert said.count("bar 150 packets/s: reached") == said.count("bar 150 packets/s: MISSED") == 1
    assert said.count("bar 1.5 x strongSwan: MISSED") == 1
    report.write(tmp_path / "bench.json")
    kept = {figure["name"]: figure for figure in json.loads((tmp_path / "bench.json").read_text())}
    assert [kept[name]["reached"] for name in ("fast", "slow", "alone")] == [True, False, None]
    assert (kept["slow"]["bar"], kept["slow"]["of"]) == (1.5, "ratio")
    assert len(report.missed) == 2


@pytest.mark.parametrize("wrong", ["", "assertion", "bar"])
def test_all_run_and_are_written_before_one_that_fails_ends_them(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, report: Report) -> None:
        report.add(name, [1.0], "")
        if name == "one" and wrong == "bar":
            report.bar(2)
        assert name != "one" or wrong != "assertion", "not what it was"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "BENCHMARKS", ("one", "two"))
    monkeypatch.setattr(
        bench, "import_module", lambda name: SimpleNamespace(run=lambda report: run(name.split(".")[1], report))
    )
    assert bench.main([]) == bool(wrong)
    written = json.loads((tmp_path / "build/bench.json").read_text())
    assert [figure["name"] for figure in written] == ["one", "two"]
