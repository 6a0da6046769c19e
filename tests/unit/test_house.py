"""Engines are pure: they touch no socket, clock or file, and what they import is pure too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

IMPURE = {"zmq", "asyncio", "socket", "time", "secrets", "subprocess", "threading", "multiprocessing", "select"}
OUTSIDE_CALLS = {
    ("os", "urandom"),
    ("os", "getrandom"),
    ("random", "random"),
    ("random", "randrange"),
    ("uuid", "uuid4"),
}

BUS_ENGINE_SIDE = {
    "arguments",
    "backlog",
    "batch",
    "card",
    "codec",
    "counters",
    "engine",
    "coalesce",
    "messages",
    "priority",
    "records",
    "replication",
    "requests",
}
"""Modules of the bus that engines import; the others are the shells' side."""

SHELLS = {"shell", "ike_shell", "pipe", "flash_folder"}
"""Modules of the other rooms that own sockets, clocks and processes."""


def modules() -> Iterator[Path]:
    for top in ("chassis", "launch"):
        yield from sorted((ROOT / top).rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "chassis" and len(parts) > 2 else parts[0]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_pure(path: Path) -> bool:
    """Whether a module is an engine's: everything but shells, port drivers and the launcher's side."""
    where = room(path)
    if where == "bus":
        return path.stem in BUS_ENGINE_SIDE
    if path.stem in ("state_machine", "impairment"):
        return True
    pure = ("net", "model", "config", "fwd", "xcrp", "linecard", "ase", "tester", "sim")
    return where in pure and path.stem not in SHELLS


PURE = [path for path in modules() if is_pure(path)]


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT)))
def test_engines_and_codecs_touch_nothing_outside(path: Path) -> None:
    touched = {name.split(".")[0] for name in imports(path)} & IMPURE
    assert not touched, f"imports {touched}: time and randomness are arguments, sockets belong to shells"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in OUTSIDE_CALLS, (
                f"line {node.lineno}: randomness is an argument"
            )


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_an_engine_imports_is_pure_too(path: Path) -> None:
    for name in imports(path):
        if name.startswith(("chassis.", "launch.")):
            target = ROOT / Path(*name.split(".")).with_suffix(".py")
            if target.exists():
                assert is_pure(target), f"imports {name}, which is a shell's"
