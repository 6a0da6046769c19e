"""`make flake` says what failed, by name and how often, and ends with 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import flake

TESTS = """
from pathlib import Path

SEEN = Path(__file__).with_name("seen")


def test_steady():
    pass


def test_now_and_then():
    with SEEN.open("a") as seen:
        seen.write("x")
    assert SEEN.stat().st_size % 2
"""


def test_what_failed_is_told_with_how_often(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    options = ["--rounds", "2", "--workers", "0", "--crowd", "0", "--build", str(tmp_path / "build")]
    assert flake.main([*options, "--rootdir", str(tmp_path), str(tmp_path)]) == 1
    first, last = capsys.readouterr().out.splitlines()
    ran, failed = flake.outcomes(tmp_path / "build" / "flake.jsonl")
    assert (ran.total(), failed) == (4, {"test_some.py::test_now_and_then": 1})
    assert first == "1 of 2 failed: test_some.py::test_now_and_then"
    assert last.startswith("4 runs of 2 tests in 2 rounds, 1 failed; see ")


def test_what_has_not_begun_when_the_time_is_over_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text("def test_steady(): pass")
    options = ["--minutes", "0.0001", "--workers", "0", "--crowd", "0", "--build", str(tmp_path / "build")]
    assert flake.main([*options, "--rootdir", str(tmp_path), str(tmp_path)]) == 1
    assert flake.outcomes(tmp_path / "build" / "flake.jsonl") == ({}, {})


@pytest.mark.parametrize(("text", "status"), [("def test_steady(): pass", 0), ("", 1)])
def test_steady_tests_end_with_0_and_none_at_all_with_1(text: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(text)
    options = ["--rounds", "1", "--workers", "0", "--crowd", "0", "--build", str(tmp_path / "build")]
    assert flake.main([*options, "--rootdir", str(tmp_path), str(tmp_path)]) == status
