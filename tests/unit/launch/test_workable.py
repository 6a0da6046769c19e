"""What `check` says of a lab whose lines are all well formed, and that cannot work as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis.config.diagnostics import Diagnostic
from launch import checking
from launch.supervisor.start import StartError, prepare

CONFIG = """\
context local
  interface lan
    ip address 10.0.0.254/24
    ip address 10.5.0.254/24 secondary
  interface borrowed
    ip unnumbered lan
  interface bare
card ether-12-port 3
card ase 1
port ethernet 3/1
  no shutdown
  bind interface lan local
port ethernet 3/2
  no shutdown
  bind interface borrowed local
port ethernet 3/3
  no shutdown
  bind interface bare local
port ethernet 3/4
"""

LAB = """\
name: n
topology:
  nodes:
    a: {kind: smartedge, config: a.cfg}
    t:
      kind: tester
      ports:
        "1": {address: 10.0.0.1/24, gateway: 10.0.0.254}
        "2": {address: 10.0.0.2/24}
    h:
      kind: linux
      addresses: {eth1: 10.0.0.3/24, lo: 10.9.9.9/32}
  links:
    - endpoints: ["t:1", "a:3/1"]
    - endpoints: ["t:2", "a:3/2"]
    - endpoints: ["h:eth1", "a:3/3"]
flows:
  f: {from: t:1, to: t:2}
"""


def write(folder: Path, lab: str = LAB) -> Path:
    (folder / "a.cfg").write_text(CONFIG)
    file = folder / "lab.yaml"
    file.write_text(lab)
    return file


def check(folder: Path, lab: str = LAB) -> list[Diagnostic]:
    """What is said about the lab's own file."""
    file = write(folder, lab)
    return [one for one in checking.check(file) if one.file == str(file)]


def test_a_lab_that_can_work(tmp_path: Path) -> None:
    assert check(tmp_path) == []


LAST = '    - endpoints: ["h:eth1", "a:3/3"]\n'
MORE = LAST + '    - endpoints: ["h:{}", "a:3/4"]\n'
GATEWAY = "gateway: 10.0.0.254"


@pytest.mark.parametrize(("old", "new", "severity", "word", "said"), [
    (LAST, MORE.format("lo"), "error", '"h:lo"', "lo is the node's own loopback"),
    (LAST, MORE.format("all"), "error", '"h:all"', "all is not a device name"),
    ("a:3/3", "a:3/77", "warning", '"a:3/77"', "3/77 of a is not one of the 12 ports of card ether-12-port"),
    ("a:3/3", "a:3/13", "warning", '"a:3/13"', "3/13 of a is not one of the 12 ports"),
    ("a:3/3", "a:3/12", "warning", '"a:3/12"', "3/12 of a is not configured in a.cfg"),
    ("a:3/3", "a:4/3", "warning", '"a:4/3"', "4/3 of a is in a slot without a port card"),
    ("a:3/3", "a:1/1", "warning", '"a:1/1"', "1/1 of a is in a slot without a port card"),
    ("a:3/3", "a:7/1", "warning", '"a:7/1"', "7/1 of a is the controller's own"),
    ("eth1: 10", "eth7: 10", "error", "eth7:",
        "device eth7 of h does not exist, because it has no link; linked devices: eth1"),
    ("10.0.0.1/24", "10.0.0.0/24", "error", "10.0.0.0/24", "is the address of the network 10.0.0.0/24 itself"),
    ("10.0.0.1/24", "10.0.0.255/24", "error", "10.0.0.255/24", "is the broadcast address of the network"),
    ("10.0.0.1/24", "0.0.0.0/0", "error", "0.0.0.0/0", "is not a host address"),
    ("10.0.0.1/24", "127.0.0.1/8", "error", "127.0.0.1/8", "is not a host address"),
    ("10.0.0.1/24", "224.0.0.5/24", "error", "224.0.0.5/24", "is not a host address"),
    (GATEWAY, "gateway: 10.0.1.254", "warning", "10.0.1.254", "is not in the network of the port, 10.0.0.0/24"),
    (GATEWAY, "gateway: 10.0.0.0", "warning", "10.0.0.0}", "is the address of the network 10.0.0.0/24 itself"),
    (GATEWAY, "gateway: 10.0.0.255", "warning", "10.0.0.255", "is the broadcast address of the network"),
    (GATEWAY, "gateway: 10.0.0.1", "warning", "10.0.0.1}", "is the port's own address"),
    (GATEWAY, "gateway: 10.0.0.9", "warning", "10.0.0.9", "is not assigned: port 3/1 of a has 10.0.0.254"),
    ("10.0.0.2/24", "10.0.0.2/24, gateway: 10.0.0.9", "warning", "10.0.0.9", "port 3/2 of a has 10.0.0.254"),
    ('"a:3/1"', '"a:3/4"', "warning", "10.0.0.254", "is not assigned: port 3/4 of a has no address"),
])  # fmt: skip
def test_what_cannot_work_is_said_at_its_place(
    tmp_path: Path, old: str, new: str, severity: str, word: str, said: str
) -> None:
    assert old in LAB
    lab = LAB.replace(old, new)
    found = check(tmp_path, lab)
    assert [one.severity for one in found] == [severity], found
    assert said in found[0].message
    assert lab.splitlines()[found[0].line - 1][found[0].column - 1 :].startswith(word)


@pytest.mark.parametrize(("old", "new"), [
    # Every address of a short network is that of a host.
    ("10.0.0.1/24, gateway: 10.0.0.254", "10.0.0.254/31"),
    ("10.0.0.2/24", "10.0.0.2/24, gateway: 10.0.0.254"),
    ("10.0.0.1/24, gateway: 10.0.0.254", "10.5.0.1/24, gateway: 10.5.0.254"),
    # What else a Linux node has, its commands may add.
    ('["t:2", "a:3/2"]', '["t:2", "h:eth2"]'),
])  # fmt: skip
def test_what_may_work(tmp_path: Path, old: str, new: str) -> None:
    assert old in LAB
    assert check(tmp_path, LAB.replace(old, new)) == []


def test_a_repaired_gateway_is_named(tmp_path: Path) -> None:
    (found,) = check(tmp_path, LAB.replace("gateway: 10.0.0.254", "gateway: 10.0.0.9"))
    assert found.hint == "10.0.0.254"


def test_a_flow_from_a_port_without_a_link(tmp_path: Path) -> None:
    lab = LAB.replace('    - endpoints: ["t:2", "a:3/2"]\n', "")
    (found,) = check(tmp_path, lab)
    assert (found.severity, found.message) == ("warning", "port t:2 of this flow has no link")
    assert lab.splitlines()[found.line - 1][found.column - 1 :].startswith("t:2")


def test_nodes_that_a_count_made_have_the_place_of_their_line(tmp_path: Path) -> None:
    lab = """\
name: n
topology:
  nodes:
    a: {kind: smartedge, config: a.cfg, count: 2}
    t: {kind: tester, count: 2, ports: {"1": {address: 10.0.0.1/24, gateway: "10.0.0.{i}"}}}
    h: {kind: linux, count: 2, addresses: {eth2: 10.0.0.3/24}}
  links:
    - endpoints: ["t:1", "a:3/1"]
    - endpoints: ["h:eth1", "a:3/77"]
"""
    found = check(tmp_path, lab)
    assert [(one.line, one.severity, one.name) for one in found] == [
        (5, "warning", "10.0.0.1"),
        (5, "warning", "10.0.0.2"),
        (6, "error", "eth2"),
        (6, "error", "eth2"),
        (9, "warning", "a-1:3/77"),
        (9, "warning", "a-2:3/77"),
    ]
    assert {one.column for one in found[4:]} == {lab.splitlines()[8].index('"a:3/77"') + 1}


@pytest.mark.parametrize(("old", "new"), [(LAST, MORE.format("lo")), ("10.0.0.1/24", "10.0.0.0/24")])
def test_a_lab_with_such_an_error_is_not_started(tmp_path: Path, old: str, new: str) -> None:
    said: list[str] = []
    lab = LAB.replace(old, new)
    with pytest.raises(StartError, match="1 error"):
        prepare(write(tmp_path, lab), None, False, said.append)
    assert len([line for line in said if "error lab-" in line]) == 1
