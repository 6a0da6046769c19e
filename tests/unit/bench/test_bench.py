"""What benchmarks are held to: a bar that is missed is told in every way there is."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import bench.__main__ as bench
from bench import bus_hop, lab, site, stream
from bench.report import Report
from launch.scenario.boot import BootError
from tests.support import ROOT


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
    assert [figure["name"] for figure in written if not figure["failed"]] == ["one", "two"]
    reasons = [figure["failed"].splitlines()[0] for figure in written if figure["failed"]]
    assert reasons == ["not what it was"] * (wrong == "assertion")


def test_a_lab_that_does_not_boot_is_a_row_with_its_reason_and_all_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two benchmarks with labs, none of which boots, and one without."""

    def no_lab(*arguments: object, **options: object) -> None:
        raise BootError("a lc 3 does not come up\nits log")

    def without(report: Report) -> None:
        report.add("without a lab", [1.0], "")

    monkeypatch.chdir(tmp_path)
    for module in (lab, stream):
        monkeypatch.setattr(module, "boot", no_lab)
    monkeypatch.setattr(site, "SITE", ROOT / site.SITE)
    monkeypatch.setattr(site, "CHARON", tmp_path)
    monkeypatch.setattr(bus_hop, "run", without)
    try:
        status = bench.main(["lab", "site", "bus_hop"])
    except BootError as error:
        pytest.fail(f"the first lab ended all of them: {error}")
    assert status == 1
    rows = json.loads((tmp_path / "build/bench.json").read_text())
    failed = [row for row in rows if row["failed"]]
    # A row for every lab: four of one, then each cipher with both kinds of tunnels, beside its peer.
    assert len(failed) == 4 + 2 * 3 + 2 * 3
    assert len({row["name"] for row in failed}) == len(failed)
    assert {row["failed"] for row in failed} == {"BootError: a lc 3 does not come up\nits log"}
    assert [(row["name"], row["value"]) for row in rows if not row["failed"]] == [("without a lab", 1.0)]
    said = capsys.readouterr().out
    assert said.count("FAILED: BootError: a lc 3 does not come up") == len(failed)


def test_an_upper_bound_holds_the_median_and_the_worst(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    report.within("quick", [10.0, 20.0, 60.0], 20)
    report.within("slow", [10.0, 21.0, 30.0], 20)
    report.within("once", [10.0, 20.0, 61.0], 20)
    assert [figure.reached for figure in report.figures] == [True, False, False]
    assert len(report.missed) == 2
    assert capsys.readouterr().out.count("MISSED") == 2
