"""Where things are: packages import one way, modules in no circle, engines are pure, a class name is given once.

Imports under `TYPE_CHECKING` and within functions count. The two lists of what there is against it only shrink: a
new entry is an offence, and so is one that is no longer true.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support import ROOT

HEIGHT = {
    "net": 0,
    "state_machine": 0,
    "model": 1,
    "config": 2,
    "bus": 2,
    "fwd": 3,
    "ports": 4,
    "xcrp": 5,
    "linecard": 5,
    "ase": 5,
    "tester": 5,
    "sim": 6,
    "launch": 7,
}
"""Packages by height: one imports only lower ones, and itself."""

CIRCLES: list[set[str]] = []
"""Modules of which each imports all others, by some way round. Each circle is to go; none grows."""

SHARED: dict[str, int] = {
    "Identity": 2,
}
"""Names of more than one class, and how many there are of each."""


IMPURE = {"zmq", "asyncio", "socket", "time", "secrets", "subprocess", "threading", "multiprocessing", "select"}
OUTSIDE_CALLS = {"os.urandom", "os.getrandom", "random.random", "random.randrange", "uuid.uuid4"}
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
PURE_PACKAGES = {"net", "model", "config", "fwd", "xcrp", "linecard", "ase", "tester", "sim"}
SHELLS = {"shell", "ike_shell", "pipe", "flash_folder"}
"""Modules of these packages that own sockets, clocks and processes."""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def trees() -> dict[str, ast.Module]:
    """Every module of `chassis` and `launch`, by its name."""
    paths = [path for top in ("chassis", "launch") for path in sorted((ROOT / top).rglob("*.py"))]
    return {name_of(path): ast.parse(path.read_text()) for path in paths}


@cache
def imports() -> dict[str, set[str]]:
    """The modules that each module imports."""
    return {name: set(imported(tree)) & trees().keys() - {name} for name, tree in trees().items()}


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in trees() else str(node.module)


def package(module: str) -> str:
    top, *rest = module.split(".")
    return rest[0] if top == "chassis" and rest else top


def height(module: str) -> int:
    """How high a module stands; -1 where the table does not say."""
    return 0 if module == "chassis" else HEIGHT.get(package(module), -1)


def is_pure(module: str) -> bool:
    """Whether a module is an engine's: everything but shells, port drivers and the launcher's side."""
    leaf = module.rpartition(".")[2]
    if package(module) == "bus":
        return leaf in BUS_ENGINE_SIDE
    return leaf in ("state_machine", "impairment") or (package(module) in PURE_PACKAGES and leaf not in SHELLS)


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The largest sets of modules of which each reaches all others."""
    found: list[set[str]] = []
    reached = {name: reach(graph, name) for name in graph}
    for name in graph:
        circle = {other for other in reached[name] if name in reached[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def reach(graph: dict[str, set[str]], start: str) -> set[str]:
    """What can be got to from a module in one step or more."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        new = graph[todo.pop()] - seen
        seen |= new
        todo += new
    return seen


def test_packages_import_lower_ones_only() -> None:
    offenders = [f"{name} is in no package of the table" for name in trees() if height(name) < 0]
    offenders += [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in sorted(others)
        if package(name) != package(other) and height(other) >= height(name)
    ]
    assert not offenders, "\n".join(offenders)


def test_no_modules_import_each_other_in_a_circle() -> None:
    found = circles(imports())
    offenders = [f"new: {sorted(one)}" for one in found if not any(one <= known for known in CIRCLES)]
    offenders += [f"no longer so, correct the list: {sorted(one)}" for one in CIRCLES if one not in found]
    assert not offenders, "\n".join(offenders)


def test_a_class_name_is_given_once() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for module, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(module)
    offenders = [
        f"{name} is in {', '.join(modules)}"
        for name, modules in found.items()
        if len(modules) > SHARED.get(name, 1)
    ]
    offenders += [
        f"{len(found[name])} of the name {name}, not {count}: correct the list"
        for name, count in SHARED.items()
        if len(found[name]) < count
    ]
    assert not offenders, "\n".join(offenders)


def test_engines_and_codecs_touch_no_socket_clock_or_randomness() -> None:
    """Time and randomness are arguments; sockets belong to shells."""
    offenders = []
    for name, tree in trees().items():
        if is_pure(name):
            touched = {found.split(".")[0] for found in imported(tree)} & IMPURE
            calls = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            offenders += [f"{name} has {one}" for one in sorted(touched | calls & OUTSIDE_CALLS)]
    assert not offenders, "\n".join(offenders)


def test_engines_import_pure_modules_only() -> None:
    offenders = [
        f"{name} imports {other}"
        for name, others in imports().items()
        if is_pure(name)
        for other in sorted(others)
        # A package itself holds nothing.
        if not is_pure(other) and not any(one.startswith(f"{other}.") for one in trees())
    ]
    assert not offenders, "\n".join(offenders)


def test_a_circle_is_found_however_long() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert circles(graph) == [{"a", "b", "c"}, {"d", "e"}]
