"""`make bench BENCH_ARGS=--loads`: what a packet costs, by process and load, of one side or two."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import bench.__main__ as main
from bench import loads
from bench.loads import Costs, costs
from bench.side import Side, SideError
from bench.stream import Carried, Stream
from tests.support import ROOT

CORES = {
    "a asp 1/1": 0.2, "a asp 1/2": 0.01, "a asp 1/1 ike": 0.9, "b asp 1/1": 0.02, "b asp 1/2": 0.3,
    "a lc 3": 0.1, "b lc 3": 0.3, "t1 tester": 0.05, "t2 tester": 0.15,
}  # fmt: skip
BATCHES = {"a asp 1/1": 20.0, "a asp 1/2": 1.0, "b asp 1/2": 30.0, "a lc 3": 15.0}


def test_costs_are_of_each_packet_that_arrived_and_of_the_asps_that_worked() -> None:
    found = costs(Carried(10_000.0, 0.0, CORES, batches=BATCHES))
    assert found.chain == pytest.approx(203)
    assert found.asps == pytest.approx((20, 30))
    assert (found.line_card, found.tester) == pytest.approx((20, 10))
    assert found.batches == (20.0, 30.0)


def test_a_side_may_not_count_batches() -> None:
    assert costs(Carried(10_000.0, 0.0, CORES)).batches is None


def test_nothing_that_arrives_costs_no_division() -> None:
    assert isinstance(costs(Carried(0.0, 1.0, CORES)), Costs)


class FakeLab:
    """Carries 30,000 packets/s."""

    def __init__(self, counts: bool) -> None:
        self._counts = counts

    def offer(self, rates: dict[str, float | str], batches: bool, **options: Any) -> dict[str, Any]:
        ((name, rate),) = rates.items()
        assert name == ("max-1400" if rate == "max" else "forward-1400")
        rate = min(1e6 if rate == "max" else float(rate), 30_000.0)
        return {"rate": rate, "lost": 0.25, "cores": CORES, "batches": BATCHES if batches and self._counts else {}}


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The sides whose labs were booted, in order."""
    booted: list[str] = []

    @contextmanager
    def of(commit: str) -> Iterator[Side]:
        yield Side(f"commit {commit}", ROOT, Path(sys.executable))

    @contextmanager
    def boot(self: Side, file: Path) -> Iterator[Stream]:
        booted.append(self.name)
        if booted == ["commit old", "this tree", "this tree"]:
            raise SideError("this tree: a lc 3 does not come up")
        yield Stream(FakeLab(self.name != "commit old").offer)

    monkeypatch.setattr(loads, "side_of", of)
    monkeypatch.setattr(loads, "here", lambda: Side("this tree", ROOT, Path(sys.executable)))
    monkeypatch.setattr(Side, "booted", boot)
    monkeypatch.chdir(tmp_path)
    return booted


def rows(said: str) -> dict[tuple[str, str], list[str]]:
    """Return the rows of the table by side and offered load."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line[:1] == "|"
    ]
    assert cells[0] == list(loads.HEADINGS)
    return {(row[0], row[1]): row[2:] for row in cells[2:]}


def test_one_tree_has_a_row_for_each_load(boots: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--loads", "--rounds", "1"]) == 0
    found = rows(capsys.readouterr().out)
    assert boots == ["this tree"]
    assert [load for _, load in found] == ["15,000/s", "25,000/s", "35,000/s", "max"]
    expected = ["15,000/s", "25.0%", "20 / 30", "135.3 us", "13.3 / 20.0", "13.3", "6.7"]
    assert found["this tree", "15,000/s"] == expected
    assert found["this tree", "max"][0] == "30,000/s"
    kept = {row["name"]: row["value"] for row in json.loads(Path("build/bench.json").read_text())}
    assert kept["this tree, 15,000/s offered: whole chain"] == pytest.approx(135.333)


def test_two_sides_take_turns_and_one_that_fails_is_a_row(
    boots: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["--loads", "--base", "old", "--here", "--rounds", "3"]) == 1
    said = capsys.readouterr().out
    assert boots == ["commit old", "this tree", "this tree", "commit old", "commit old", "this tree"]
    assert "MISSED: this tree, round 2: SideError: this tree: a lc 3 does not come up" in said
    found = rows(said)
    assert len(found) == 8
    assert found["commit old", "25,000/s"][2] == "not counted"
    assert found["this tree", "25,000/s"][2] == "20 / 30"
