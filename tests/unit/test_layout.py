"""Where things are: packages import one way, modules in no circle, engines are pure, a class name means one
class, files have one subject, and retired names stay retired.

Imports under `TYPE_CHECKING` and within functions count.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support import ROOT

HEIGHT = {
    "net": 0, "state_machine": 0, "model": 1, "config": 2, "bus": 2, "aaa": 2, "fwd": 3, "cli": 4, "ports": 4,
    "xcrp": 5, "linecard": 5, "ase": 5, "tester": 5, "mgmt": 5, "peers": 6, "sim": 6, "launch": 7,
}  # fmt: skip
"""Packages by height: one imports only lower ones, and itself."""

LONGEST = 700
"""Lines of the longest file."""

SHORTEST = 40
"""Lines of the shortest file that is there for one other file alone."""

RETIRED: dict[str, str] = {
    "class": """
        Answered Armed Arrivals Asp AspCause AuthError Blame Blueprint CardState Cutting Detector Doomed Fitted
        Forwarding Guard Handshake HeldSa Identification Jar Keeper Keeping Keyring LineCard Made Maybe Meter
        Negotiations Neighbours OpenResult Opener Opening Past Pings Policies Probe Protected Protector Proving
        Quick Refusal Refused Registry Resend Room SaState Sealed Smartedge Stop Tallies Tally TunnelState Turns
        Unkept Watch Whole World
    """,
    "function": """
        aside asked_again blame_silence card_consequences carried confine doom enclose fire hand_on hand_over
        heard_from in_the_open is_owed isakmp_deleted judge keys_may_differ may_speak natted news next_wake
        note_contact note_nat note_vendors open_batch open_packets pair_deleted peer_began_anew peer_is_dead
        policy_lines proof proof_answered protect protect_tunnel prove raise_epoch says_contact seal_fragments
        send_out strand stranded suppressed tally told tunnel_limits undecodable unseal used_up values_answered
        violated wake wanting was_used way_to worn
    """,
    "field": """
        CHOSEN CROWDED DOOMED ENCAPSULATION_MODE FENCE_LATE HALF_LEASE HELLO_HELD INIT_ANSWERED LEASE_USED
        OFFERED PROOF_SENT REMEMBERED VALUES_SENT aftermath balance dpd_tries fleeting half_open_most
        half_open_peer heir keepers leaks letting_go lookers nameless nat_keepalive riddles rivals stood
        stood_since tallies void with_process
    """,
}
"""Names that definitions no longer have, by the kind of the definition: a word of docs/glossary.md or of an
RFC took the place of each. None comes back for the same thing."""


IMPURE = {"zmq", "asyncio", "socket", "time", "secrets", "subprocess", "threading", "multiprocessing", "select"}
OUTSIDE_CALLS = {"os.urandom", "os.getrandom", "random.random", "random.randrange", "uuid.uuid4"}
BUS_ENGINE_SIDE = {
    "arguments", "backlog", "batch", "card", "codec", "counters", "engine", "coalesce", "log_lines", "messages",
    "priority", "records", "replication", "requests", "runs",
}  # fmt: skip
"""Modules of the bus that engines import; the others are the shells' side."""
PURE_PACKAGES = {"net", "model", "aaa", "config", "cli", "fwd", "xcrp", "linecard", "ase", "tester", "peers",
                 "sim"}  # fmt: skip
SHELLS = {"shell", "ike_process", "flash_folder", "background"}
"""Modules of these packages that own sockets, clocks and processes."""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def paths() -> dict[str, Path]:
    """The file of every module of the project's packages and of the helpers of the tests, by its name."""
    tops = (ROOT / "chassis", ROOT / "launch", ROOT / "tests" / "support")
    return {name_of(path): path for top in tops for path in sorted(top.rglob("*.py"))}


@cache
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text()) for name, path in paths().items()}


def installed() -> dict[str, ast.Module]:
    """The modules of `chassis` and `launch`."""
    return {name: tree for name, tree in trees().items() if not name.startswith("tests.")}


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


def is_pure(module: str) -> bool:
    """Whether a module is an engine's: everything but shells, port drivers and the launcher's side."""
    leaf = module.rpartition(".")[2]
    if package(module) == "bus":
        return leaf in BUS_ENGINE_SIDE
    return leaf in ("state_machine", "impairment") or (package(module) in PURE_PACKAGES and leaf not in SHELLS)


def height(module: str) -> int:
    """How high a module stands; -1 where the table does not say."""
    return 0 if module == "chassis" else HEIGHT.get(package(module), -1)


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
    offenders = [f"{name} is in no package of the table" for name in installed() if height(name) < 0]
    offenders += [
        f"{name} imports {other}"
        for name in installed()
        for other in sorted(imports()[name])
        if package(name) != package(other) and height(other) >= height(name)
    ]
    assert not offenders, "\n".join(offenders)


def test_engines_and_codecs_touch_no_socket_clock_or_randomness() -> None:
    """Time and randomness are arguments; sockets belong to shells."""
    offenders = []
    for name, tree in installed().items():
        if is_pure(name):
            touched = {found.split(".")[0] for found in imported(tree)} & IMPURE
            calls = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            offenders += [f"{name} has {one}" for one in sorted(touched | calls & OUTSIDE_CALLS)]
    assert not offenders, "\n".join(offenders)


def test_engines_import_pure_modules_only() -> None:
    offenders = [
        f"{name} imports {other}"
        for name, others in imports().items()
        if name in installed() and is_pure(name)
        for other in sorted(others)
        # A package itself holds nothing.
        if not is_pure(other) and not any(one.startswith(f"{other}.") for one in trees())
    ]
    assert not offenders, "\n".join(offenders)


def test_no_modules_import_each_other_in_a_circle() -> None:
    offenders = [" ".join(sorted(one)) for one in circles(imports())]
    assert not offenders, "\n".join(offenders)


def test_a_class_name_is_given_once() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for module, tree in installed().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(module)
    offenders = [f"{name} is in {', '.join(modules)}" for name, modules in found.items() if len(modules) > 1]
    assert not offenders, "\n".join(offenders)


def test_a_file_is_neither_a_sliver_nor_a_heap() -> None:
    importers: dict[str, set[str]] = defaultdict(set)
    for name, others in imports().items():
        for other in others:
            importers[other].add(name)
    offenders = []
    for module in installed():
        path = paths()[module]
        lines = len(path.read_text().splitlines())
        if lines > LONGEST:
            offenders.append(f"{module} has {lines} lines")
        if lines < SHORTEST and len(importers[module]) == 1 and path.name != "__init__.py":
            offenders.append(f"{module} has {lines} lines, and {importers[module].pop()} alone imports it")
    assert not offenders, "\n".join(offenders)


def test_retired_names_stay_retired() -> None:
    retired = {kind: set(names.split()) for kind, names in RETIRED.items()}
    offenders = [
        f"{kind} {name} in {module}"
        for module, tree in installed().items()
        for kind, name in definitions(tree)
        if name in retired[kind]
    ]
    assert not offenders, "\n".join(offenders)


def definitions(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(kind, name) of every class, function and field."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield "class", node.name
            for part in node.body:
                targets = part.targets if isinstance(part, ast.Assign) else []
                targets = [part.target] if isinstance(part, ast.AnnAssign) else targets
                yield from (("field", target.id) for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield "function", node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield "field", node.attr


def test_a_circle_is_found_however_long() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert circles(graph) == [{"a", "b", "c"}, {"d", "e"}]
