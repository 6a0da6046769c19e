"""Collects which of the guide's statements the tests prove, by their marker `behaviour("B-113")`.

A run of the whole suite fails where `docs/fidelity.md` calls a statement emulated that no passed test carries, or
does not call one emulated that a passed test carries. Part of the suite judges nothing.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from chassis.config.fidelity import emulated
from chassis.config.statements import STATEMENTS

MARKER = "behaviour"
LEAST = 140
"""As many statements are emulated at least."""


def names_of(item: pytest.Item) -> list[str]:
    """The statements that a test's markers name; an unknown one ends the run before the first test."""
    names = [str(name) for marker in item.iter_markers(MARKER) for name in marker.args]
    if unknown := [name for name in names if name not in STATEMENTS]:
        raise pytest.UsageError(f"{item.nodeid}: no statement of the guide is called {', '.join(unknown)}")
    return names


def complaints(page: frozenset[str], outcomes: dict[str, set[str]], least: int) -> list[str]:
    """What is wrong with the page's emulated statements, by the outcomes of each statement's tests.

    A statement whose tests were all skipped, for want of a peer or of the guide's own files, is not judged.
    """
    passed = {name for name, seen in outcomes.items() if "passed" in seen and "failed" not in seen}
    skipped = {name for name, seen in outcomes.items() if seen == {"skipped"}}
    said = []
    if unproven := sorted(page - passed - skipped):
        said.append(f"docs/fidelity.md calls emulated what no passed test proves: {', '.join(unproven)}")
    if unsaid := sorted(passed - page):
        said.append(f"docs/fidelity.md does not say that tests prove {', '.join(unsaid)}: run `make docs`")
    if len(page) < least:
        said.append(f"docs/fidelity.md calls {len(page)} statements emulated, {least} is the least")
    return said


class Statements:
    """The plugin: hands markers along with reports, and judges the page after a run of the whole suite."""

    def __init__(self, config: pytest.Config, least: int = LEAST) -> None:
        self._least = least
        self._config = config
        self._outcomes: defaultdict[str, set[str]] = defaultdict(set)
        self._complaints: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        collected = set()
        for item in items:
            for name in names_of(item):
                item.user_properties.append((MARKER, name))
                collected.add(name)
        out: Path | None = self._config.getoption("--write-statements")
        if out is not None:
            out.write_text("".join(f"{name}\n" for name in sorted(collected)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            for key, name in report.user_properties:
                if key == MARKER:
                    self._outcomes[str(name)].add(report.outcome)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(self._config, "workerinput") or not self._is_whole(session):
            return
        page = self._config.rootpath / "docs" / "fidelity.md"
        self._complaints = complaints(emulated(page.read_text()), self._outcomes, self._least)
        if self._complaints and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._complaints:
            terminalreporter.section("statements of the guide", red=True)
            for line in self._complaints:
                terminalreporter.write_line(line)

    def _is_whole(self, session: pytest.Session) -> bool:
        config = self._config
        everything = [Path(argument).resolve() for argument in config.args] == [config.rootpath / "tests"]
        chosen = config.option.keyword or config.option.markexpr or config.option.collectonly
        return everything and not chosen and not session.shouldstop and not session.shouldfail
