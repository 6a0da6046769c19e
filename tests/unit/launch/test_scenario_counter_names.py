"""Expectations of counters: names and cards that are none can't be met by a counter that nobody counts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import chassis
from chassis.bus.counters import FILE_SIZE, Counters
from launch.lab import counter_names
from launch.lab.yaml_source import LabError
from launch.main import main
from launch.scenario import command
from launch.scenario.boot import load as load_scenario
from launch.scenario.runner import Runner, ScenarioOutcome
from tests.support.fake_lab import FakeLab, write_lab

CODE = Path(chassis.__file__).parent


def counted(folder: Path, *values: str) -> Path:
    """A lab's file in a folder where `a lc 3` has counted a packet by each of these names."""
    buffer = memoryview(bytearray(FILE_SIZE))
    counters = Counters(buffer)
    for name in values:
        counters.add(name)
    (folder / "a.lc3.counters").write_bytes(buffer)
    return folder


def checked(folder: Path, expectation: str) -> tuple[bool, str]:
    path = write_lab(folder, f"expect:\n  - {expectation}\n")
    fake = FakeLab(path)
    fake.tunnels["a"][0].update(number=7, circuit=4)
    fake.client.run = counted(folder, "drop ttl exceeded", "port 3/11 frames sent")
    outcome = Runner(fake.client, load_scenario(path)[1]).run()
    (one,) = outcome.expectations
    return one.passed, one.seen


@pytest.mark.parametrize(("expectation", "passed", "seen"), [
    ("{counter: drop ttl exceeded, of: a, card: lc 3, is: 1}", True, "drop ttl exceeded: 1"),
    ("{counter: drop stale epoch, of: a, card: lc 3, is: 0}", True, "drop stale epoch: 0"),
    ("{counter: drop stale epoch, of: a, is: 0}", True, "drop stale epoch: 0"),
    ("{counter: drop stale epoch, of: a, card: lc 4, is: 0}", False, "a has no counters of lc 4; cards: lc3"),
    ("{counter: drop stale epoch, of: b, is: 0}", False, "b has no counters of any card; cards: none"),
    ("{counter: port 3/11 drop down, of: a, is: 0}", True, "port 3/11 drop down: 0"),
    ("{counter: port 3/12 drop down, of: a, is: 0}", False, "a has no port 3/12"),
    ("{counter: circuit 4 packets in, of: a, card: lc 3, is: 0}", True, "circuit 4 packets in: 0"),
    ("{counter: circuit 5 packets in, of: a, card: lc 3, is: 0}", False, "nothing to do with circuit 5"),
    ("{counter: tunnel 7 decapsulated packets, of: a, is: 0}", True, "tunnel 7 decapsulated packets: 0"),
    ("{counter: tunnel 8 decapsulated packets, of: a, is: 0}", False, "nothing to do with tunnel 8"),
    ("{counter: drop no connection to asp 1/1, of: a, is: 0}", True, "asp 1/1: 0"),
    ("{counter: drop no connection to asp 9/9, of: a, is: 0}", False, "nothing to do with card asp 9/9"),
])  # fmt: skip
def test_a_counter_that_is_not_there_is_0_only_where_it_could_be(
    tmp_path: Path, expectation: str, passed: bool, seen: str
) -> None:
    held, said = checked(tmp_path, expectation)
    assert (held, seen in said) == (passed, True), said


@pytest.mark.parametrize(("expectation", "says"), [
    ("{counter: drop old epok, of: a, card: lc 3, is: 0}",
        "lc 3 has no counter 'drop old epok'.*'drop stale epoch'"),
    ("{counter: drop outside replay window, of: a, card: lc 3, is: 0}",
        "lc 3 has no counter 'drop outside replay window'"),
    ("{counter: port 3/1 frames sent, of: a, card: asp 1/1, is: 0}", "asp 1/1 has no counter"),
    ("{counter: drop replayde, of: a, is: 0}", "no card has a counter .*'drop replayed'"),
    ("{counter: ike v3 negotiations initiated, of: a, is: 0}", "'ike v2 negotiations initiated'"),
    ("{counter: drop stale epoch, of: a, card: lc3, is: 0}", "'lc3' is not a card with counters"),
    ("{counter: drop stale epoch, of: a, card: xcrp, is: 0}", "'xcrp' is not a card with counters"),
])  # fmt: skip
def test_a_name_that_no_card_counts_by_is_refused_before_anything_runs(
    tmp_path: Path, expectation: str, says: str
) -> None:
    with pytest.raises(LabError, match=says) as raised:
        load_scenario(write_lab(tmp_path, f"expect:\n  - {expectation}\n"))
    assert raised.value.diagnostics[0].line == 15


def _counting(room: str, methods: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """What is counted in a room of the code, by names that are written there, values in them as `.+`."""
    for file in sorted((CODE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called not in methods:
                continue
            first = node.args[0]
            for name in (first.body, first.orelse) if isinstance(first, ast.IfExp) else (first,):
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield file, re.escape(name.value)
                elif isinstance(name, ast.JoinedStr):
                    parts = [re.escape(p.value) if isinstance(p, ast.Constant) else ".+" for p in name.values]
                    yield file, "".join(parts)


@pytest.mark.parametrize(("room", "methods", "known", "least"), [
    *((room, ("slot", "add"), counter_names.names(""), 3) for room in ("bus", "ports", "linecard", "ase")),
    ("ase/ike", ("count",), counter_names.IKE, 40),
])  # fmt: skip
def test_every_name_that_the_code_counts_by_is_known(
    room: str, methods: tuple[str, ...], known: tuple[str, ...], least: int
) -> None:
    found = list(_counting(room, methods))
    assert len(found) >= least
    missing = [
        (file.name, pattern)
        for file, pattern in found
        if not any(re.fullmatch(pattern, name) for name in known) and pattern not in ("circuit", ".+")
    ]
    assert missing == []


def test_every_name_that_ike_is_known_by_is_counted_by_the_code() -> None:
    patterns = [pattern for _, pattern in _counting("ase/ike", ("count",))]
    unused = [name for name in counter_names.IKE if not any(re.fullmatch(p, name) for p in patterns)]
    assert unused == []


def test_a_lab_that_expects_nothing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run ends with 0 all the same: it did start."""

    class Booted:
        lab = FakeLab(write_lab(tmp_path)).lab
        boot_ms = 1.0
        client = scenario = None

        def close(self) -> None:
            pass

    class Ran:
        def __init__(self, *_: object) -> None:
            pass

        def run(self) -> ScenarioOutcome:
            return ScenarioOutcome()

    monkeypatch.setattr(command, "boot", lambda path: Booted())
    monkeypatch.setattr(command, "_capture", lambda booted: None)
    monkeypatch.setattr(command, "Runner", Ran)
    result = CliRunner().invoke(main, ["test", str(tmp_path / "lab.yaml")])
    assert result.exit_code == 0, result.output
    assert "has no expectations: only its start was checked" in result.stderr
