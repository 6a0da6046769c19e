"""Statements of the guide are emulated where tests that carry their numbers pass."""

from __future__ import annotations

import pytest

from chassis.config.fidelity import describe, emulated
from chassis.config.statements import GROUPS, STATEMENTS
from tests.support.statements import complaints

PROVEN = frozenset({"B-009", "B-113"})


def outcomes(**seen: str) -> dict[str, set[str]]:
    return {name.replace("_", "-"): set(words.split()) for name, words in seen.items()}


def test_statements_are_numbered_from_1_to_227() -> None:
    assert [each.number for _, group in GROUPS for each in group] == list(range(1, 228))
    assert next(iter(STATEMENTS)) == "B-001"


def test_the_page_is_read_as_it_was_written() -> None:
    assert emulated(describe(PROVEN)) == PROVEN


def test_nothing_is_wrong_where_page_and_tests_agree() -> None:
    assert complaints(PROVEN, outcomes(B_009="passed", B_113="passed skipped"), least=2) == []


@pytest.mark.parametrize(("seen", "complaint"), [
    (outcomes(B_009="passed"), "no passed test proves: B-113"),
    (outcomes(B_009="passed", B_113="passed failed"), "no passed test proves: B-113"),
    (outcomes(B_009="passed", B_113="passed", B_114="passed"), "does not say that tests prove B-114"),
])  # fmt: skip
def test_a_page_that_tests_contradict_is_named(seen: dict[str, set[str]], complaint: str) -> None:
    (said,) = complaints(PROVEN, seen, least=2)
    assert complaint in said


def test_statements_without_a_peer_to_try_them_are_not_judged() -> None:
    assert complaints(PROVEN, outcomes(B_009="passed", B_113="skipped"), least=2) == []


def test_too_few_emulated_statements_are_named() -> None:
    (said,) = complaints(PROVEN, outcomes(B_009="passed", B_113="passed"), least=3)
    assert "2 statements emulated, 3 is the least" in said


CONFTEST = """
from tests.conftest import pytest_addoption
from tests.support.statements import MARKER, Statements


def pytest_configure(config):
    config.addinivalue_line("markers", f"{MARKER}(*names)")
    config.pluginmanager.register(Statements(config, least=1))
"""


def run_suite(pytester: pytest.Pytester, test: str, *arguments: str) -> pytest.RunResult:
    """Runs a suite of one file that has this project's plugin, beside a page that calls B-009 emulated."""
    pytester.mkdir("docs").joinpath("fidelity.md").write_text(describe(frozenset({"B-009"})))
    folder = pytester.mkdir("tests")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_one.py").write_text(f"import pytest\n\n{test}\ndef test_other(): pass\n")
    return pytester.runpytest_inprocess("tests", "--rootdir", str(pytester.path), *arguments)


@pytest.mark.parametrize(("body", "arguments", "said", "code"), [
    ("pass", [], "*2 passed*", 0),
    ("assert False", ["-n", "2"], "*no passed test proves: B-009*", 1),
    ("assert False", ["-k", "other"], "*1 passed*", 0),
])  # fmt: skip
def test_a_whole_run_fails_by_a_statement_that_no_test_proves(
    pytester: pytest.Pytester, body: str, arguments: list[str], said: str, code: int
) -> None:
    done = run_suite(pytester, f"@pytest.mark.behaviour('B-009')\ndef test_it():\n    {body}\n", *arguments)
    done.stdout.fnmatch_lines(said)
    assert done.ret == code


def test_a_whole_run_fails_without_a_test_of_an_emulated_statement(pytester: pytest.Pytester) -> None:
    done = run_suite(pytester, "def test_it(): pass\n")
    done.stdout.fnmatch_lines("*no passed test proves: B-009*")
    assert done.ret == pytest.ExitCode.TESTS_FAILED


def test_a_marker_with_an_unknown_name_ends_the_run(pytester: pytest.Pytester) -> None:
    done = run_suite(pytester, "@pytest.mark.behaviour('B-999')\ndef test_it(): pass\n")
    assert "no statement of the guide is called B-999" in f"{done.stdout}{done.stderr}"
