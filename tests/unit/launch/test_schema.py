"""The schema of lab files says what the parser says, and the page about lab files is true."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from launch.client.lab_client import LabClient, LabNode
from launch.lab import parser, scenario, scenario_syntax
from launch.lab.schema import schema
from launch.lab.yaml_source import LabError, Reporter, read
from launch.main import main
from launch.pytest_plugin import LabFactory
from launch.scenario.boot import load
from tests.support import ROOT

PAGE = (ROOT / "docs" / "labs.md").read_text()
LABS = sorted((ROOT / "configs").glob("**/*.yaml"))

SCHEMA = schema()
VALIDATOR = Draft202012Validator(SCHEMA)
DEFS = SCHEMA["$defs"]

BLOCKS = re.findall(r"^```([^\n]*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
"""(info line, text) of each fenced block: `yaml lab` is a whole lab, `yaml part` a part of the first."""

WHOLE = [text for info, text in BLOCKS if info == "yaml lab"]
PARTS = [text for info, text in BLOCKS if info == "yaml part"]


def plain(file: Path) -> Any:
    """A file's values as the parser has them, which is what an editor's YAML 1.2 parser makes of it too."""
    return read(file, Reporter(str(file))).plain()


def written(folder: Path, text: str) -> Path:
    """A lab file with the configurations that it names beside it."""
    for name in re.findall(r"[\w{}-]+\.cfg", text):
        for number in (1, 2, 3):
            (folder / name.replace("{i}", str(number))).write_text("context local\n")
    file = folder / "lab.yaml"
    file.write_text(text)
    return file


def with_part(folder: Path, part: str) -> Path:
    """The page's first lab with the part's keys in place of its own.

    A part with other flows or another scenario leaves out what was said about the first lab's.
    """
    (folder / "part.yaml").write_text(part)
    base, own = plain(written(folder, WHOLE[0])), plain(folder / "part.yaml")
    if own.keys() & {"flows", "scenario", "expect"}:
        del base["scenario"], base["expect"]
    changed = {**base, **own}
    return written(folder, yaml.safe_dump(changed, sort_keys=False))


def problems(value: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(value)]


# the page


def test_every_block_of_the_page_says_what_it_is() -> None:
    assert {info for info, _ in BLOCKS} == {"yaml lab", "yaml part", "python", ""}
    assert len(WHOLE) >= 3
    assert len(PARTS) >= 5
    assert not any("kind:" in text for info, text in BLOCKS if not info)


@pytest.mark.parametrize("text", WHOLE, ids=range(len(WHOLE)))
def test_labs_of_the_page(text: str, tmp_path: Path) -> None:
    file = written(tmp_path, text)
    load(file)
    assert problems(plain(file)) == []


@pytest.mark.parametrize("text", PARTS, ids=range(len(PARTS)))
def test_parts_of_the_page(text: str, tmp_path: Path) -> None:
    file = with_part(tmp_path, text)
    load(file)
    assert problems(plain(file)) == []


def test_python_of_the_page_is_python() -> None:
    for info, text in BLOCKS:
        if info == "python":
            compile(text, "docs/labs.md", "exec")


def test_the_page_has_every_key() -> None:
    keys = {key for _, known in TABLES for key in known}
    assert sorted(key for key in keys if f"`{key}`" not in PAGE) == []


@pytest.mark.parametrize("forms", [scenario.ACTIONS, scenario_syntax.FORMS, scenario_syntax.FLOW_STATES])
def test_the_page_has_every_form(forms: tuple[str, ...]) -> None:
    assert [form for form in forms if f"`{form}`" not in PAGE] == []


def test_the_page_has_every_fault_of_links() -> None:
    assert [name for name in scenario._FAULTS if not re.search(rf"`{name} \d", PAGE)] == []


@pytest.mark.parametrize(
    ("kind", "name"), [(LabClient, "lab"), (LabNode, "node"), (LabFactory, "lab_factory")], ids=lambda v: str(v)
)
def test_the_page_has_every_method_and_no_other(kind: type, name: str) -> None:
    methods = {key for key, _ in inspect.getmembers(kind, inspect.isfunction) if key[0] != "_"}
    told = set(re.findall(rf"`{name}\.(\w+)\(", PAGE))
    assert told - {"clock"} == methods


# the schema and the parser


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_every_reference_leads_somewhere_and_every_definition_is_used() -> None:
    used = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(SCHEMA)))
    assert used == DEFS.keys()


@pytest.mark.parametrize("file", LABS, ids=lambda file: file.parent.name)
def test_the_labs_that_come_with_the_project_are_valid(file: Path) -> None:
    load(file)
    assert problems(plain(file)) == []


def peers_of(lab: dict[str, Any]) -> dict[str, Any]:
    """A node of peers, added to a lab."""
    made: dict[str, Any] = {
        "kind": "peers", "ports": {"1": {"address": "10.1.0.1/24"}}, "peers": 2, "first-address": "10.2.0.1",
        "towards": "10.3.0.1", "pre-shared-key": "a key", "ike-proposal": {}, "ipsec-proposal": {},
        "first-network": "10.4.0.0/30", "remote-network": "10.5.0.0/16", "traffic": {"to": "10.5.0.1"},
    }  # fmt: skip
    return lab["topology"]["nodes"].setdefault("p", made)


KEYED: tuple[tuple[str, Callable[[dict[str, Any]], Any], str], ...] = (
    ("key of a lab", lambda lab: lab, ""),
    ("key of a topology", lambda lab: lab["topology"], "topology"),
    ("setting", lambda lab: lab["settings"], "settings"),
    ("key of ssh", lambda lab: lab.setdefault("ssh", {}), "ssh"),
    ("key of a smartedge node", lambda lab: lab["topology"]["nodes"]["a"], "smartedge"),
    ("key of a tester node", lambda lab: lab["topology"]["nodes"]["t1"], "tester"),
    ("key of a peers node", lambda lab: peers_of(lab), "peers"),
    ("key of an ike-proposal", lambda lab: peers_of(lab)["ike-proposal"], "peers.=ike-proposal"),
    ("key of an ipsec-proposal", lambda lab: peers_of(lab)["ipsec-proposal"], "peers.=ipsec-proposal"),
    ("key of traffic", lambda lab: peers_of(lab)["traffic"], "peers.=traffic"),
    ("key of a linux node", lambda lab: lab["topology"]["nodes"]["h"], "linux"),
    ("key of a tester's port", lambda lab: lab["topology"]["nodes"]["t1"]["ports"]["1"], "tester.ports"),
    ("key of a link", lambda lab: lab["topology"]["links"][0], "link"),
    ("key of a flow", lambda lab: lab["flows"]["forward"], "flow"),
    ("key of a step", lambda lab: lab["scenario"][0], "step.else"),
    ("key of a flow expectation", lambda lab: lab["expect"][0], "expect-flow"),
    ("key of a condition", lambda lab: lab["expect"].append({"condition": "tunnels up"}), "expect-condition"),
    *((f"key of a {kind} expectation", lambda lab, kind=kind: lab["expect"].append({kind: "0"}),
        f"expect-{kind}") for kind in scenario._FORMS if kind != "flow"),
)  # fmt: skip
"""What the parser calls a mapping's keys, where the first lab of the page has one (or is given one), and the
definition of the schema."""

SMALL = """\
name: small
settings: {heartbeat-misses: 4}
topology:
  nodes:
    a: {kind: smartedge, config: a.cfg}
    t1: {kind: tester, ports: {"1": {address: 50.1.0.1/16}}}
    t2: {kind: tester, ports: {"1": {address: 60.1.0.1/16}}}
    h: {kind: linux, addresses: {eth1: 10.0.0.1/24}}
  links:
    - endpoints: ["t1:1", "a:3/1"]
    - endpoints: ["t2:1", "a:3/2"]
    - endpoints: ["h:eth1", "a:3/3"]
flows:
  forward: {from: "t1:1", to: "t2:1"}
scenario:
  - {at: 1s, as: here}
  - {when: tunnels up, do: kill a asp 1/1}
expect:
  - {flow: forward, lost: 0}
"""


def _properties(name: str) -> set[str]:
    """The keys of a definition, or of the whole; `x.else` and `x.ports` are mappings within."""
    first, _, then = name.partition(".")
    found = DEFS[first] if first else SCHEMA
    if then == "else":
        found = found["else"]
    elif then.startswith("="):
        found = found["properties"][then[1:]]
    elif then:
        found = found["properties"][then]["additionalProperties"]
    assert found["additionalProperties"] is False
    return set(found["properties"])


def _told(folder: Path, what: str, place: Callable[[dict[str, Any]], Any]) -> set[str]:
    """The keys that a mapping may have, by what is said about one that it may not have."""
    lab = plain(written(folder, SMALL))
    mapping = place(lab)
    (lab["expect"][-1] if mapping is None else mapping)["zzzzzzzz"] = 1
    with pytest.raises(LabError) as caught:
        load(written(folder, yaml.safe_dump(lab, sort_keys=False)))
    said = [d.message for d in caught.value.diagnostics if d.message.startswith(f"unknown {what} 'zzzzzzzz'")]
    assert len(said) == 1
    return set(said[0].partition("known: ")[2].split(", "))


TABLES: list[tuple[str, set[str]]] = [(name, _properties(name)) for _, _, name in KEYED]


@pytest.mark.parametrize(("what", "place", "name"), KEYED, ids=[what for what, _, _ in KEYED])
def test_the_schema_has_the_keys_of_the_parser_and_no_other(
    what: str, place: Callable[[dict[str, Any]], Any], name: str, tmp_path: Path
) -> None:
    assert _properties(name) == _told(tmp_path, what, place)


def test_every_mapping_of_the_schema_is_compared() -> None:
    def closed(value: Any) -> Iterator[frozenset[str]]:
        if isinstance(value, dict):
            if value.get("additionalProperties") is False:
                yield frozenset(value["properties"])
            for child in value.values():
                yield from closed(child)
        elif isinstance(value, list):
            for child in value:
                yield from closed(child)

    assert set(closed(SCHEMA)) == {frozenset(keys) for _, keys in TABLES}
    assert {name for name in DEFS if name in parser._NODE_KEYS} == set(parser._NODE_KEYS)


def _pattern(name: str) -> Draft202012Validator:
    return Draft202012Validator({**DEFS[name], "$defs": DEFS})


def test_forms_of_actions_and_conditions_are_valid() -> None:
    for text in (*scenario.ACTIONS, "  run  x", "kill   a asp 1/1"):
        assert _pattern("action").is_valid(text), text
    for text in (*scenario_syntax.FORMS, "  tunnels\tof a   up ", "a asp 1/1 down"):
        assert _pattern("condition").is_valid(text), text


# one change to the small lab each, as "old -> new", that both accept or both refuse
ACCEPTED = (
    "{heartbeat-misses: 4} -> {heartbeat-misses: '4', heartbeat-interval: 5ms, restart-delay: never, seed: 0}",
    "{heartbeat-misses: 4} -> {restart-delay: 0.5, dpd-interval: 1.5 s, dpd-retries: 1}",
    "to: 't2:1' -> to: 't2:1', rate: max, size: '60', trace: 1m, start: manual, count: 0",
    "{heartbeat-misses: 4} -> {strict-lifetime: false, ike-retransmit-tries: '3', rekey-margin-factor: 0.2}",
    "{heartbeat-misses: 4} -> {extended-sequence-numbers: true}",
    "config: a.cfg -> config: a.cfg, extensions: [modern]",
    "config: a.cfg -> config: a.cfg, extensions: []",
    "config: a.cfg -> config: a.cfg, flash: .",
    "config: a.cfg -> config: a.cfg, secret: sixteen-signs-ok",
    "{flow: forward, lost: 0} -> tunnels of a up",
    "{flow: forward, lost: 0} -> {flow: forward, loss: < 50ms, since: here}",
    "{flow: forward, lost: 0} -> {flow: forward, latency-max: 1ms..2s, via: [a lc 3]}",
    "{flow: forward, lost: 0} -> {counter: packets originated, of: a, card: lc 3}",
    "{flow: forward, lost: 0} -> {tunnel: t1, asp: asp 1/1, state: up}",
    "{flow: forward, lost: 0} -> {unexpected: 0, of: t1, within: 2}",
    "{flow: forward, lost: 0} -> {run: 'ls -l', status: 0, output: lab}",
    "do: kill a asp 1/1 -> do: [kill a xcrp, wait 2s], within: 5",
    "{at: 1s, as: here} -> start all",
    "{at: 1s, as: here} -> wait until tunnels up within 2s",
    "kind: linux, -> kind: linux, count: 1, exec: ls, routes: [default via 10.0.0.2], files: {x: y},",
    "{address: 60.1.0.1/16} -> {address: 60.1.0.1/16, gateway: 60.1.0.2}",
)
REFUSED = (
    "name: small -> name: 'two words'",
    "name: small -> x-name: small",
    "{heartbeat-misses: 4} -> {heartbeat-misses: 1}",
    "{heartbeat-misses: 4} -> {heartbeat-misses: true}",
    "{heartbeat-misses: 4} -> {heartbeat-interval: 5 weeks}",
    "{heartbeat-misses: 4} -> {strict-lifetime: 'no'}",
    "{heartbeat-misses: 4} -> {ike-retransmit-tries: 0}",
    "{heartbeat-misses: 4} -> {rekey-margin-factor: 1.5}",
    "{heartbeat-misses: 4} -> {rekey-jitter-factor: often}",
    "{heartbeat-misses: 4} -> {ike-retry-delay: slowly}",
    "config: a.cfg -> config: a.cfg, extensions: [ancient]",
    "config: a.cfg -> config: a.cfg, flash: [x]",
    "config: a.cfg -> config: a.cfg, secret: too-short",
    "config: a.cfg -> config: a.cfg, secret: 'sixteen signs and blanks'",
    "config: a.cfg -> config: a.cfg, secret: [sixteen-signs-ok]",
    "{heartbeat-misses: 4} -> ",
    "kind: linux -> kind: windows",
    "kind: linux, -> ",
    "kind: linux -> kind: linux, config: a.cfg",
    "kind: linux -> kind: linux, count: 0",
    "config: a.cfg -> discard-tunnel-routes: true",
    "config: a.cfg -> config: a.cfg, discard-tunnel-routes: 'true'",
    "10.0.0.1/24 -> 10.0.0.1",
    "'a:3/3' -> 'a'",
    "['h:eth1', 'a:3/3'] -> ['h:eth1']",
    "to: 't2:1' -> dscp: 1",
    "to: 't2:1' -> to: 't2:1', rate: 0",
    "to: 't2:1' -> to: 't2:1', rate: fast",
    "to: 't2:1' -> to: 't2:1', size: 59",
    "to: 't2:1' -> to: 't2:1', start: later",
    "{at: 1s, as: here} -> {as: here}",
    "{at: 1s, as: here} -> {at: 1s, after: 1s}",
    "{at: 1s, as: here} -> {at: 1s, within: 1s}",
    "{at: 1s, as: here} -> {at: soon}",
    "{at: 1s, as: here} -> kill",
    "{at: 1s, as: here} -> explode a asp 1/1",
    "when: tunnels up -> when: tunnels upwards",
    "{flow: forward, lost: 0} -> {flow: forward}",
    "{flow: forward, lost: 0} -> {flow: forward, lost: few}",
    "{flow: forward, lost: 0} -> {flow: forward, sent: 1, since: here}",
    "{flow: forward, lost: 0} -> {lost: 0}",
    "{flow: forward, lost: 0} -> {tunnel: t1}",
    "{flow: forward, lost: 0} -> {tunnel: t1, state: sideways}",
    "{flow: forward, lost: 0} -> {card: asp 1/1, state: up}",
    "{flow: forward, lost: 0} -> {condition: never}",
    "{flow: forward, lost: 0} -> 7",
)


def _changed(folder: Path, change: str) -> Path:
    old, _, new = change.replace("'", '"').partition(" -> ")
    assert SMALL.count(old) == 1, old
    return written(folder, SMALL.replace(old, new))


@pytest.mark.parametrize("change", ACCEPTED)
def test_what_the_parser_accepts_is_valid(change: str, tmp_path: Path) -> None:
    file = _changed(tmp_path, change)
    load(file)
    assert problems(plain(file)) == []


@pytest.mark.parametrize("change", REFUSED)
def test_what_is_wrong_in_itself_is_refused_by_both(change: str, tmp_path: Path) -> None:
    file = _changed(tmp_path, change)
    with pytest.raises(LabError):
        load(file)
    assert problems(plain(file))


def test_the_command_prints_it() -> None:
    printed = CliRunner().invoke(main, ["schema"])
    assert printed.exit_code == 0
    assert json.loads(printed.output) == SCHEMA
