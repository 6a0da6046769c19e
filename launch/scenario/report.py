"""Print the result of a scenario as text, as JSON and as JUnit XML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from chassis.bus import regular_files
from launch.scenario.runner import ScenarioOutcome

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_json(outcome: ScenarioOutcome) -> str:
    return json.dumps(outcome.to_json(), indent=1)


def as_text(outcome: ScenarioOutcome) -> Iterator[str]:
    """Yield lines: the flows, then each expectation, with what was seen if it failed."""
    for name, flow in outcome.flows.items():
        if "error" in flow:
            yield f"flow {name}: {flow['error']}"
            continue
        yield (
            f"flow {name}: {flow['sent']} sent, {flow['received']} received, {flow['lost']} lost "
            f"({flow['loss_ms']:g} ms), longest gap {flow['longest_gap_ms']:g} ms, "
            f"{flow['duplicated']} duplicated, {flow['reordered']} reordered"
        )
        for path in flow["paths"]:
            yield f"    via {', '.join(path)}"
    for checked in outcome.expectations:
        if checked.passed:
            yield f"  ok    {checked.expect}: {checked.seen}"
        else:
            yield f"  FAIL  {checked.expect}"
            yield f"        seen: {checked.seen}"
    failed = sum(not checked.passed for checked in outcome.expectations)
    total = len(outcome.expectations)
    yield f"{failed} of {total} expectations failed" if failed else f"passed: {total} expectations held"


def write_junit(outcome: ScenarioOutcome, name: str, file: str, seconds: float, path: Path) -> None:
    """Write a JUnit file with one test case for each expectation."""
    failed = sum(not checked.passed for checked in outcome.expectations)
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        tests=str(len(outcome.expectations)),
        failures=str(failed),
        errors="0",
        skipped="0",
        time=f"{seconds:.3f}",
    )
    for checked in outcome.expectations:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=name,
            name=_legal(checked.expect),
            file=file,
            line=str(checked.place.line),
            time="0",
        )
        if not checked.passed:
            failure = ElementTree.SubElement(case, "failure", message=_legal(f"seen: {checked.seen}"))
            failure.text = _legal(f"{file}:{checked.place.line}: expected {checked.expect}; seen: {checked.seen}")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    path.parent.mkdir(parents=True, exist_ok=True)
    regular_files.write(
        path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True), regular_files.PLAIN
    )


def _legal(text: str) -> str:
    """Remove the characters that XML 1.0 does not allow."""
    return _ILLEGAL.sub("", text)
