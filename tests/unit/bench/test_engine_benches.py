"""Benchmarks of engines and of the bus run to their end, with little of everything. No figure is judged."""

from __future__ import annotations

from importlib import import_module

import pytest

from bench.report import Report

SHORT: dict[str, dict[str, object]] = {
    "bus_hop": {"SECONDS": 0.05, "RUNS": 1},
    "line_card": {"SECONDS": 0.005, "RUNS": 1},
    "asp": {"SECONDS": 0.01, "RUNS": 1, "arithmetic": lambda suite, octets: None},
    "asp_work": {"TUNNELS": 500, "RUNS": 1, "BATCHES": 50},
    "ciphers": {"ROUNDS": 1, "PACKETS": 1, "BATCHES": (16,)},
    "commits": {"TUNNELS": 4, "COMMITS": 2, "PART": 1},
}
"""What makes each of them short: constants of its module."""


@pytest.mark.parametrize("name", SHORT)
def test_a_benchmark_of_an_engine_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module(f"bench.{name}")
    for constant, value in SHORT[name].items():
        assert hasattr(module, constant)
        monkeypatch.setattr(module, constant, value)
    report = Report()
    module.run(report)
    assert report.figures
    assert all(figure.value and not figure.failed for figure in report.figures)
