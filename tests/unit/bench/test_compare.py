"""`make bench BASE=COMMIT`: two sides take turns, each with its own lab; what fails is a row of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import bench.__main__ as main
from bench import compare, side, site
from bench.compare import HALF_BAR
from bench.report import Report
from bench.side import Side, SideError
from bench.stream import Stream
from tests.support import ROOT


class FakeLab:
    """Carries `capacity` packets/s, and half of that under more."""

    def __init__(self, capacity: float) -> None:
        self._capacity = capacity

    def offer(
        self, rates: dict[str, float | str], warm_up: float, seconds: float, latency: bool, batches: bool
    ) -> dict[str, Any]:
        offered = sum(1e6 if rate == "max" else float(rate) for rate in rates.values())
        rate = offered if offered <= self._capacity else self._capacity / 2
        values = {"p50_ms": 1.0, "p99_ms": 2.0 if offered < self._capacity / 3 else 2 * HALF_BAR}
        return {
            "rate": rate,
            "lost": 1 - rate / offered,
            "cores": {"a lc 3": 0.3, "t1 tester": 0.1},
            "latency": dict.fromkeys(rates, values) if latency else {},
        }


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The sides whose labs were booted, in order. The other commit's second boot fails."""
    booted: list[str] = []

    @contextmanager
    def of(commit: str) -> Iterator[Side]:
        yield Side(f"commit {commit}", ROOT, Path(sys.executable))

    @contextmanager
    def boot(self: Side, file: Path) -> Iterator[Stream]:
        booted.append(self.name)
        assert "economical" in (file.parent / "a.cfg").read_text() or booted.count(self.name) > 3
        if booted.count(self.name) == 2 and self.name == "commit old":
            raise SideError("commit old: BootError: a lc 3 does not come up")
        # The machine is three times slower in the last round, for both.
        slow = 1 / 3 if booted.count(self.name) % 3 == 0 else 1
        yield Stream(FakeLab(slow * (20_000.0 if self.name == "commit old" else 50_000.0)).offer)

    monkeypatch.setattr(compare, "side_of", of)
    monkeypatch.setattr(Side, "booted", boot)
    monkeypatch.setattr(compare, "arithmetic", lambda suite, size: 100_000.0)
    monkeypatch.setattr(compare, "beside", lambda *arguments, **options: None)
    monkeypatch.chdir(tmp_path)
    return booted


def test_sides_take_turns_and_each_figure_has_its_ratio(
    boots: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["--base", "old"]) == 1
    one, other = "commit old", "commit HEAD"
    assert boots == 2 * [one, other, other, one, one, other]
    rows = json.loads(Path("build/bench.json").read_text())
    figures = {row["name"].partition(", loss")[0]: row for row in rows if not row["failed"]}
    best = figures["site to site, economical, 1400, this: best"]
    assert (best["peer"], best["bar"], best["reached"]) == (one, 1.7, True)
    assert best["ratio"] == pytest.approx(2.5, rel=0.06)
    goodput = figures["site to site, circuit, 64, this: goodput at rate: max"]
    assert (goodput["peer"], goodput["reached"]) == ("its best", False)
    assert figures["site to site, circuit, 64, latency at 1,000/s, 99 %, this"]["ratio"] == 1
    failed = [(row["name"], row["failed"]) for row in rows if row["failed"]]
    assert failed == [(f"{one}, economical, round 2", f"SideError: {one}: BootError: a lc 3 does not come up")]
    said = capsys.readouterr().out
    assert "latency at half the best, 99 %: 10.00 ms, bar 5 ms at most: MISSED" in said
    assert "50% of openssl speed on one core, the testers" in said
    assert "the testers' share of the CPU 25%" in said


def test_a_base_that_is_no_commit_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["--base", "no-such-commit"]) == 1
    (row,) = json.loads(Path("build/bench.json").read_text())
    assert row["failed"].startswith("SideError: git rev-parse")


OTHER_TREE = {
    "launch/__init__.py": "",
    "launch/scenario_boot.py": """
import types
class Lab:
    file = types.SimpleNamespace(flows={"f": types.SimpleNamespace(
        name="f", origin=types.SimpleNamespace(node="t1"), target=types.SimpleNamespace(node="t2"))}, nodes={})
    sent = 0
    now = 0.0
    def start(self, name, rate): self.rate = rate
    def stop(self, *names): pass
    def drain(self, *names): pass
    def wait(self, seconds): self.now += seconds; self.sent += int(self.rate * seconds)
    def clock(self): return self.now
    def counters(self, node): return {"flow f sent": self.sent, "flow f received": self.sent * 3 // 4}
    def report(self, name): return {"latency": {"p50_ms": 1.5}}
    def ask(self, *arguments): return {"processes": []}
class Booted:
    client = Lab()
    def close(self): open("closed", "w").close()
def boot(file):
    print("what a tree prints is no answer")
    if file.name != "lab.yaml": raise ValueError(f"{file.name} is no lab")
    return Booted()
""",
}
"""An older tree: its module has another name, and its boot prints."""


def test_a_driver_speaks_to_the_modules_of_its_own_tree(tmp_path: Path) -> None:
    for name, text in OTHER_TREE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    other = Side("commit old", tmp_path, Path(sys.executable))
    with other.booted(tmp_path / "lab.yaml") as stream:
        carried = stream.offer({"f": 1}, 1000.0, 2.0, latency=True, batches=True)
    assert (carried.rate, carried.lost) == (750.0, 0.25)
    assert carried.latency == {"f": {"p50_ms": 1.5}}
    assert carried.batches == {}, "what the older tree does not count"
    assert (tmp_path / "closed").exists()
    with (
        pytest.raises(SideError, match=r"commit old: ValueError: wrong\.yaml is no lab"),
        other.booted(tmp_path / "wrong.yaml"),
    ):
        pass


def test_the_bench_of_peers_takes_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    turns: list[bool] = []

    @contextmanager
    def boot(file: Path) -> Iterator[Stream]:
        turns.append("smartedge" in file.read_text())
        yield Stream(FakeLab(30_000.0 if turns[-1] else 12_000.0).offer)

    monkeypatch.setattr(site, "SITE", ROOT / site.SITE)
    monkeypatch.setattr(site, "CHARON", tmp_path)
    report = Report()
    site.beside(report, "AES-128-CBC/SHA1", 2, boot)
    assert turns == [False, True, True, False]
    bars = [figure for figure in report.figures if figure.bar is not None]
    assert [figure.bar for figure in bars] == [2.0, 1.7, 2.0, 1.7]
    assert all(figure.ratio == pytest.approx(2.5, rel=0.06) for figure in bars)


def test_a_side_is_removed_when_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*command: str) -> str:
        if "pip" in command:
            raise SideError("pip: no network")
        return "abc1234\n"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(side, "_run", run)
    with pytest.raises(SideError, match="no network"), side.side_of("old"):
        pass
    assert not list((tmp_path / "build/bench").iterdir())
