"""Lab files: what they mean, and that every mistake is said at its place with its fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.lab import model as kinds
from launch.lab.model import Endpoint, Lab, LinuxNode, RouterNode
from launch.lab.parser import load
from launch.lab.yaml_source import LabError

GOOD = """\
name: pair
settings: {restart-delay: 250ms, heartbeat-misses: 4}
topology:
  nodes:
    a: {kind: smartedge, config: a.cfg}
    b: {kind: smartedge, config: a.cfg, discard-tunnel-routes: true, settings: {restart-delay: never}}
    t1: {kind: tester, ports: {"1": {address: 50.1.0.1/8, gateway: 50.0.0.254}}}
    t2: {kind: tester, ports: {"1": {address: 60.1.0.1/8}}}
    h: {kind: linux, addresses: {eth1: 10.0.0.2/24}, routes: [default via 10.0.0.1], exec: "true"}
  links:
    - endpoints: ["a:3/11", "b:3/12"]
    - endpoints: ["t1:1", "a:3/1"]
    - endpoints: [h:eth1, b:3/2]
flows:
  forward: {from: t1:1, to: t2:1, rate: 2000, trace: 100ms}
scenario:
  - {at: 2s, do: kill a asp 1/1}
expect:
  - forward loss < 10
"""


def write(folder: Path, text: str) -> Path:
    (folder / "a.cfg").write_text("context local\n")
    file = folder / "lab.yaml"
    file.write_text(text)
    return file


def parse(folder: Path, text: str) -> Lab:
    return load(write(folder, text))[0]


def errors(folder: Path, text: str) -> list[tuple[int, int, str]]:
    with pytest.raises(LabError) as caught:
        parse(folder, text)
    assert all(str(folder / "lab.yaml") == d.file for d in caught.value.diagnostics)
    return [(d.line, d.column, d.message) for d in caught.value.diagnostics]


def test_a_whole_lab(tmp_path: Path) -> None:
    lab = parse(tmp_path, GOOD)
    a, b, h = lab.nodes["a"], lab.nodes["b"], lab.nodes["h"]
    assert isinstance(a, RouterNode)
    assert isinstance(b, RouterNode)
    assert isinstance(h, LinuxNode)
    assert a.config == tmp_path / "a.cfg"
    assert (a.settings.restart_delay, a.settings.heartbeat_misses) == (0.25, 4)
    assert (b.settings.restart_delay, b.settings.heartbeat_misses) == (None, 4)
    assert (a.discard_tunnel_routes, b.discard_tunnel_routes) == (False, True)
    assert h.addresses == {"eth1": ("10.0.0.2/24",)}
    assert h.routes == ("default via 10.0.0.1",)
    assert h.exec == ("true",)
    assert lab.far_end(Endpoint("a", "3/11")) == Endpoint("b", "3/12")
    assert lab.far_end(Endpoint("a", "3/7")) is None
    flow = lab.flows["forward"]
    assert flow.plain() == {
        "from": "t1:1", "to": "t2:1", "rate": 2000.0, "size": 200, "source": "50.1.0.1", "destination": "60.1.0.1",
        "destinations": 1, "dscp": 0, "trace": 0.1, "start": "auto", "count": 0,
    }  # fmt: skip
    step = lab.scenario[0]
    assert step.plain() == {"at": "2s", "do": "kill a asp 1/1"}
    assert step.value["do"].at.line == 17
    assert lab.expect[0].plain() == "forward loss < 10"


def test_count_makes_nodes_links_and_flows(tmp_path: Path) -> None:
    lab = parse(
        tmp_path,
        """\
name: star
topology:
  nodes:
    hub: {kind: smartedge, config: a.cfg}
    sink: {kind: tester, ports: {"1": {address: 9.0.0.1/24}}}
    t: {kind: tester, count: 3, ports: {"1": {address: "10.0.{i}.2/24", gateway: "10.0.{i}.1"}}}
  links:
    - endpoints: ["hub:3/{i}", "t:1"]
    - endpoints: ["hub:4/1", "sink:1"]
flows:
  up: {from: "t:1", to: "sink:1"}
  one: {from: "t-2:1", to: "sink:1"}
""",
    )
    assert list(lab.nodes) == ["hub", "sink", "t-1", "t-2", "t-3"]
    third = lab.nodes["t-3"]
    assert isinstance(third, kinds.TesterNode)
    assert third.ports["1"].address == "10.0.3.2/24"
    assert [str(link) for link in lab.links] == [
        "hub:3/1 - t-1:1", "hub:3/2 - t-2:1", "hub:3/3 - t-3:1", "hub:4/1 - sink:1",
    ]  # fmt: skip
    assert {name: flow.source for name, flow in lab.flows.items()} == {
        "up-1": "10.0.1.2", "up-2": "10.0.2.2", "up-3": "10.0.3.2", "one": "10.0.2.2",
    }  # fmt: skip


@pytest.mark.parametrize(("old", "new", "word", "said"), [
    ("name: pair", "nmae: pair", "nmae", "did you mean 'name'?"),
    ("restart-delay: 250ms", "restart-delay: soon", "soon", "expected 2s, 100ms or 5m"),
    ("heartbeat-misses: 4", "heartbeat-misses: 1", "1", "2 to 1000"),
    ("topology:", "toplogy:", "toplogy", "did you mean 'topology'?"),
    ("a: {kind: smartedge", "a: {kind: smartegde", "smartegde", "did you mean 'smartedge'?"),
    ("config: a.cfg}", "config: b.cfg}", "b.cfg", "there are a.cfg"),
    ("a: {kind: smartedge, config: a.cfg}", "a: {kind: smartedge}", "a:", "needs 'config:'"),
    ("routes: true", "routes: yes", "yes", "true or false"),
    ("50.1.0.1/8", "50.1.0.1", "50.1.0.1", "expected the form 10.0.0.1/24"),
    ("50.0.0.254", "50.0.0.256", "50.0.0.256", "not an IPv4 address"),
    ("eth1: 10", "a-very-long-device: 10", "a-very-long-device", "up to 15 letters"),
    ('"a:3/11"', '"a:11"', '"a:11"', "a:3/11"),
    ('"b:3/12"]', '"c:3/12"]', '"c:3/12"', "unknown node 'c'"),
    ('"t1:1", "a:3/1"', '"t1:2", "a:3/1"', '"t1:2"', "unknown port of tester t1"),
    ("b:3/2]", "b:3/12]", "b:3/12]", "has a link already, in line 11"),
    ("from: t1:1", "from: h:eth1", "h:eth1", "begins and ends at testers"),
    ("rate: 2000", "rate: fast", "fast", "packets per second"),
    ("trace: 100ms", "tarce: 100ms", "tarce", "did you mean 'trace'?"),
])  # fmt: skip
def test_mistakes_are_said_where_they_stand(tmp_path: Path, old: str, new: str, word: str, said: str) -> None:
    at = GOOD.index(old)
    text = GOOD.replace(old, new, 1)
    line = text.count("\n", 0, at) + 1
    column = text.index(word, at) - text.rfind("\n", 0, at)
    found = errors(tmp_path, text)
    assert any((a, b) == (line, column) and said in message for a, b, message in found), (line, column, found)


def test_one_mistake_is_said_once(tmp_path: Path) -> None:
    assert len(errors(tmp_path, GOOD.replace("a: {kind: smartedge", "a: {kind: smartegde"))) == 1


def test_all_mistakes_are_said_at_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace("heartbeat-misses: 4", "heartbeat-misses: x")
        .replace("size", "sice")
        .replace("b:3/12", "x:3/12")
    )
    assert [line for line, _, _ in errors(tmp_path, text)] == [2, 11]


@pytest.mark.parametrize(("text", "line", "said"), [
    ("", 1, "empty"),
    ("- a\n- b\n", 1, "a lab is a mapping"),
    ("name: x\n  bad: y\n", 2, "not YAML"),
    ("name: x\nname: y\ntopology: {}\n", 2, "duplicate key 'name'; first defined in line 1"),
    ("name: &a [*a]\n", 1, "leads back into itself"),
    ("name: x\ntopology: {nodes: {}}\n", 2, "at least one node"),
    ("[" * 5000, 1, "not YAML"),
    ("name: x\n? [a]\n: b\n", 2, "a key must be a scalar"),
    ("name: \x01\n", 1, "not YAML"),
])  # fmt: skip
def test_what_is_no_lab_at_all(tmp_path: Path, text: str, line: int, said: str) -> None:
    found = errors(tmp_path, text)
    assert any(at == line and said in message for at, _, message in found), found


def test_a_link_may_be_a_pair_of_linux_devices(tmp_path: Path) -> None:
    text = """\
name: x
topology:
  nodes:
    t: {{kind: tester, count: 2, ports: {{"1": {{address: "10.0.0.{{i}}/24"}}}}}}
  links:
    - {{endpoints: ["t-1:1", "t-2:1"], veth: {}, pause: on}}
"""
    assert [link.veth for link in parse(tmp_path, text.format("true")).links] == [True]
    assert [link.veth for link in parse(tmp_path, text.format("false")).links] == [False]
    assert errors(tmp_path, text.format("maybe")) == [(6, 45, "veth is true or false")]


def test_a_wire_may_be_without_pauses(tmp_path: Path) -> None:
    text = """\
name: x
topology:
  nodes:
    t: {{kind: tester, count: 2, ports: {{"1": {{address: "10.0.0.{{i}}/24"}}}}}}
  links:
    - {{endpoints: ["t-1:1", "t-2:1"]{}}}
"""
    assert [link.pause for link in parse(tmp_path, text.format("")).links] == [True]
    assert [link.pause for link in parse(tmp_path, text.format(", pause: off")).links] == [False]
    assert errors(tmp_path, text.format(", pause: 5")) == [(6, 46, "pause is on or off")]


def test_counts_of_a_links_ends_must_agree(tmp_path: Path) -> None:
    found = errors(
        tmp_path,
        """\
name: x
topology:
  nodes:
    t: {kind: tester, count: 2, ports: {"1": {address: 10.0.0.1/24}}}
    u: {kind: tester, count: 3, ports: {"1": {address: 10.0.0.2/24}}}
  links:
    - endpoints: ["t:1", "u:1"]
""",
    )
    assert found == [(7, 19, "its ends have 2 and 3 nodes; the counts must be equal")]


def test_merging_and_words_that_yaml_1_1_would_turn_into_something_else(tmp_path: Path) -> None:
    lab = parse(
        tmp_path,
        """\
name: on
topology:
  nodes:
    no: &t {kind: tester, ports: {1: {address: 10.0.0.1/24}}}
    off: {<<: *t}
  links:
    - endpoints: [no:1, off:1]
""",
    )
    assert (lab.name, list(lab.nodes), str(lab.links[0])) == ("on", ["no", "off"], "no:1 - off:1")


def test_a_configuration_alone_is_a_lab_of_one_router(tmp_path: Path) -> None:
    file = tmp_path / "end A.cfg"
    file.write_text("context local\n")
    lab, _ = load(file)
    assert (lab.name, list(lab.nodes)) == ("end-A", ["end-A"])
    with pytest.raises(LabError, match="file does not exist"):
        load(tmp_path / "none.cfg")
