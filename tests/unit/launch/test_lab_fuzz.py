"""Generated lab files: every key with odd values of every type. Only diagnostics with their places come out."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest

from launch import checking
from launch.lab.parser import load
from launch.lab.yaml_source import LabError
from launch.supervisor.start import StartError, prepare
from tests.support import odd

CONFIGURATION = (
    "context local\n interface one\n  ip address 10.0.0.254/24\n"
    "card ge-10-port 3\nport ethernet 3/1\n no shutdown\n bind interface one local\n"
)

LAB: dict[str, Any] = {
    "name": "odd",
    "settings": {"restart-delay": "1s", "heartbeat-interval": "100ms", "heartbeat-misses": 5, "seed": 1,
        "asp-rate": "100kpps", "dpd-interval": "10s"},
    "topology": {
        "nodes": {
            "a": {"kind": "smartedge", "config": "a.cfg", "discard-tunnel-routes": True, "flash": ".",
                "extensions": ["modern"], "settings": {"heartbeat-misses": 7}},
            "t": {"kind": "tester", "count": 2,
                "ports": {"1": {"address": "10.{i}.0.1/16", "gateway": "10.{i}.0.9"}}},
            "h": {"kind": "linux", "addresses": {"eth1": ["10.0.0.3/24"]}, "routes": ["default via 10.0.0.254"],
                "files": {"etc/x": "y"}, "exec": ["true"], "wait-for": ["true"]},
        },
        "links": [{"endpoints": ["h:eth1", "a:3/1"], "veth": True}, {"endpoints": ["t:1", "a:3/{i}"]}],
    },
    "flows": {"f": {"from": "t-1:1", "to": "t-2:1", "rate": 100, "size": 200, "source": "10.1.0.1",
        "destination": "10.2.0.1", "dscp": 0, "trace": "1s", "start": "manual", "count": 5}},
    "scenario": [
        {"when": "cards up", "within": "5s", "do": ["start f", "link a:3/1 loss 1%", "kill a lc 3", "run true"]},
        {"at": "1s", "do": "apply a a.cfg", "as": "x", "expect": ["asp 1/1 of a down"]},
        {"after": "1s", "do": "wait until flow f done within 2s"},
        "inject a:3/1 x.pcapng last 5s",
    ],
    "expect": [
        {"flow": "f", "lost": "<= 5", "gap": "< 50ms", "since": "x", "via": ["a lc 3"]},
        {"tunnel": "t1", "of": "a", "state": "up", "within": "2s"},
        {"counter": "port 3/1 frames sent", "of": "a", "card": "lc 3", "is": "> 0"},
        {"unexpected": 0},
        {"run": "true", "status": 0, "output": "x"},
        {"condition": "cards up", "within": "1s"},
    ],
}  # fmt: skip


VALUES = (*[value for value in odd.ODD if value is not odd.DEEP], odd.deep(60))


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value in a tree."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(pairs):
        yield value, key
        yield from places(child)


def mutated(random: Random) -> dict[str, Any]:
    lab = deepcopy(LAB)
    for _ in range(random.choice((1, 1, 2, 3))):
        container, key = random.choice(list(places(lab)))
        chance = random.random()
        if chance < 0.7:
            container[key] = deepcopy(random.choice(VALUES))
        elif chance < 0.8 and isinstance(container, dict):
            container[random.choice(odd.TEXTS)] = container.pop(key)
        elif chance < 0.9:
            other, place = random.choice(list(places(lab)))
            container[key] = deepcopy(other[place])
        else:
            del container[key]
    return lab


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.cfg").write_text(CONFIGURATION)
    return tmp_path


def check(path: Path, about: object = "") -> list[Any]:
    """What there is to say of a lab: diagnostics with places, within the time that a case may take."""
    began = time.process_time()
    found: list[Any] = odd.survived(checking.check, path, about=about)
    assert time.process_time() - began < 10, about
    for diagnostic in found:
        assert diagnostic.line >= 1, diagnostic
        assert diagnostic.column >= 1, diagnostic
        assert diagnostic.message
        assert len(str(diagnostic).encode()) < 10_000
    return found


def errors(path: Path) -> str:
    return "\n".join(str(found) for found in check(path) if found.severity == "error")


def test_the_lab_that_is_mutated_is_nearly_right(folder: Path) -> None:
    (folder / "lab.yaml").write_text(json.dumps(LAB))
    assert len(check(folder / "lab.yaml")) < 12, check(folder / "lab.yaml")


@pytest.mark.parametrize("seed", range(4))
def test_generated_labs(folder: Path, seed: int) -> None:
    random = Random(seed)
    for _ in range(100):
        lab = mutated(random)
        path = folder / "lab.yaml"
        path.write_text(json.dumps(lab, indent=1 if random.random() < 0.1 else None))
        if not any(found.severity == "error" for found in check(path, lab)):
            made, _ = odd.survived(load, path, about=lab)
            odd.survived(json.dumps, [node.settings.plain() for node in made.nodes.values()], about=lab)


@pytest.mark.parametrize("seed", range(2))
def test_generated_texts(folder: Path, seed: int) -> None:
    random = Random(seed)
    text = json.dumps(LAB, indent=1)
    for _ in range(100):
        made = list(text)
        for _ in range(random.choice((1, 2, 5))):
            at = random.randrange(len(made))
            made[at] = random.choice(PIECES)
        (folder / "lab.yaml").write_text("".join(made))
        check(folder / "lab.yaml", "".join(made))


PIECES = (*'"{}[]:,!#|', "&a ", "*a ", "<<: ", "\t", "\n", "- ", "")
HEAD = "name: odd\ntopology:\n  nodes:\n"
BOMB = "".join(f"    x{n}: &x{n} [{f'*x{n - 1}, *x{n - 1}' if n else 'a'}]\n" for n in range(31))


@pytest.mark.parametrize(("text", "says"), [
    (f"{HEAD}    t:\n      kind: tester\n      count: 2\n      ports:\n{BOMB.replace('    ', '        ')}",
        "aliases"),
    (f"x:\n{BOMB}{HEAD}    a: {{kind: *x30}}\n", "aliases"),
    (f"{HEAD}    a: {{kind: [{{}}]}}\n", "unknown kind"),
    (f"{HEAD}    a: {{kind: {{{{ kind }}}}}}\n", "a key must be a scalar"),
    (f"{HEAD}    a: {{kind: {{b: c}}}}\n", "unknown kind"),
    (f'{HEAD}    a: {{kind: smartedge, config: "a\\0.cfg"}}\n', "U+0000"),
    (f'{HEAD}    a: {{kind: smartedge, config: "\\ud800.cfg"}}\n', "U+D800"),
    (f'{HEAD}    a: {{kind: smartedge, config: a.cfg, flash: "\\0"}}\n', "U+0000"),
    (f'{HEAD}    "a\\0": {{kind: tester}}\n', "U+0000"),
    (f"{HEAD}    a: {'[' * 500}\n", "nested too deep"),
    (f"{HEAD}    a: {'{b: ' * 60}x{'}' * 60}\n", "nested too deep"),
    (f"{HEAD}    a: [" + "1, " * 31_000 + "]\n", "more than 30000 values"),
    (f"{HEAD}    a: {{kind: tester, count: 1000, ports: {{'1': {{address: '{{i}}{'x' * 100_000}'}}}}}}\n",
        "counted"),
    (f"{HEAD}" + "".join(f"    n{n}: {{kind: tester, count: 1000, ports: {{}}}}\n" for n in range(100)),
        "counted"),
    (f"{HEAD}    t: {{kind: tester, count: 1000, ports: {{'1': {{address: 10.0.0.1/8}}}}}}\n"
        "  links:\n" + '    - {endpoints: ["t:1", "t:1"]}\n' * 500, "problems"),
    ("m: &m {" + ", ".join(f"k{n}: 1" for n in range(2000)) + "}\nx:\n" + "  - {<<: [" + "*m, " * 5000 + "]}\n",
        "aliases"),
    ("x: " + "y" * (1 << 20), "at most 1048576 are read"),
], ids=lambda value: value[-60:] if len(value) > 60 else value)  # fmt: skip
def test_bombs_and_odd_names_are_diagnostics(folder: Path, text: str, says: str) -> None:
    path = folder / "lab.yaml"
    path.write_text(text)
    assert says in errors(path)
    with pytest.raises((StartError, LabError)):
        prepare(path, None, False, lambda said: None)


@pytest.mark.parametrize("name", ["lab.yaml", "a.cfg"])
def test_a_pipe_or_a_device_in_place_of_a_file_is_refused(folder: Path, name: str) -> None:
    (folder / "lab.yaml").write_text(f"{HEAD}    a: {{kind: smartedge, config: a.cfg}}\n")
    for kind in ("pipe", "device", "folder"):
        (folder / name).unlink() if (folder / name).exists() else None
        if kind == "pipe":
            os.mkfifo(folder / name)
        elif kind == "device":
            (folder / name).symlink_to("/dev/zero")
        else:
            (folder / name).mkdir()
        assert "regular file" in errors(folder / "lab.yaml") or "there is no" in errors(folder / "lab.yaml")
