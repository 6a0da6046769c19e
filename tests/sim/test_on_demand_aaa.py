"""A hub whose peers' keys RADIUS has, in the simulator: IKE of both versions, and the books of the server."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyrad.packet import AccountingRequest

from chassis.aaa.settings import ServerAddress
from chassis.bus.engine import Output
from chassis.bus.messages import Datagram
from chassis.sim.lab import LabModel
from chassis.sim.node import ControllerStart, NodeModel
from chassis.xcrp.engine import ControllerEngine
from tests.sim.test_on_demand import LAB, lost, peers_up
from tests.support.radius import MemoryServer, attributes_of
from tests.support.sim_shell import SimShell

KEYS = {"bonn.branch.example": "the-key-of-branches", "10.255.3.1": "the-key-of-nomads"}

HUB = """
context private
  aaa authentication subscriber radius
  aaa accounting subscriber radius
  radius server 10.200.0.9 key sesame
  radius accounting server 10.200.0.9 key sesame
  radius timeout 1
  interface servers
    ip address 10.200.0.1/24
port ethernet 3/4
  no shutdown
  bind interface servers private
"""

BOOKS = """
context local
  interface wire
    ip address 10.200.0.9/24
card ether-12-port 3
port ethernet 3/1
  no shutdown
  bind interface wire local
"""


class RadiusLab:
    """The lab of the hub, with a router beside it in whose controller a RADIUS server runs."""

    def __init__(self, folder: Path) -> None:
        users: dict[str, dict[str, Any]] = {
            name: {"Security-Service": f"ike pre-shared-key {key}"} for name, key in KEYS.items()
        }
        users["bonn.branch.example"]["Security-Service"] += "; ipsec profile lyon"
        self.server = MemoryServer(ServerAddress("10.200.0.9", 1812, b"sesame"), users)
        self.books = MemoryServer(ServerAddress("10.200.0.9", 1813, b"sesame"))
        shutil.copytree(LAB.parent, folder, dirs_exist_ok=True)
        hub = (folder / "hub.cfg").read_text()
        for key in KEYS.values():
            assert key in hub
            hub = hub.replace(f"pre-shared-key {key}", "pre-shared-key use-aaa")
        (folder / "hub.cfg").write_text(hub + HUB)
        (folder / "books.cfg").write_text(BOOKS)
        lab = (folder / "lab.yaml").read_text().partition("scenario:")[0]
        lab = lab.replace("    t: {", "    books: {kind: smartedge, config: books.cfg}\n    t: {")
        lab = lab.replace("  links:\n", '  links:\n    - endpoints: ["books:3/1", "hub:3/4"]\n')
        (folder / "lab.yaml").write_text(lab)
        self.shell = SimShell(folder / "lab.yaml", change=self._with_server)

    def _with_server(self, made: LabModel) -> LabModel:
        return replace(made, nodes=tuple(map(self._serving, made.nodes)))

    def _serving(self, node: NodeModel) -> NodeModel:
        if node.name != "books":
            return node
        make = node.controller

        def controller(start: ControllerStart) -> ControllerEngine:
            engine: ControllerEngine = make(start)
            for server in (self.server, self.books):
                engine.state.udp.listen(server.address.port, partial(self._reply, engine, server))
            return engine

        return replace(node, controller=controller)

    def _reply(self, engine: ControllerEngine, server: MemoryServer, asked: Datagram, now: float) -> list[Output]:
        reply = server.reply_to(asked.payload)
        if reply is None:
            return []
        back = (asked.context, asked.source, asked.source_port, asked.destination_port)
        return engine.state.udp.send(*back, [reply], now, source=asked.destination)

    def reports(self, identity: str) -> list[dict[str, list[Any]]]:
        """What was reported of a peer."""
        found = [attributes_of(one) for one in self.books.requests if one.code == AccountingRequest]
        return [one for one in found if one["User-Name"] == [identity]]


@pytest.mark.behaviour("B-092", "B-093", "B-094", "B-097", "B-102", "B-157")
def test_keys_of_both_versions_come_from_radius(tmp_path: Path) -> None:
    lab = RadiusLab(tmp_path)
    shell = lab.shell
    shell.wait_until(lambda: peers_up(shell), 60.0)
    shell.send(100)
    assert lost(shell) == {}
    assert {request["User-Name"][0] for request in lab.server.requests} == set(KEYS)
    rows = shell.ask("hub", "tunnels", {"kind": "on-demand", "detail": True})["tunnels"]
    profiles = {row["identity"]: row["profile"] for row in rows if "identity" in row}
    assert profiles == {"lyon.branch.example": "lyon", "bonn.branch.example": "lyon", "10.255.3.1": "nomads"}
    asked = len(lab.server.requests)

    hub = shell.routers["hub"]
    assert hub.controller is not None
    shell.pass_time(2.0)
    hub.controller.kill()
    shell.send(100)
    assert lost(shell) == {}
    assert [one["Acct-Status-Type"] for one in lab.reports("bonn.branch.example")] == [[1]]
    assert len(lab.server.requests) == asked

    shell.ask("spoke-2", "commit", {"lines": "tunnel ipsec hub\n shutdown\n", "base": -1, "user": "x"})
    shell.wait_until(lambda: len(lab.reports("bonn.branch.example")) == 2, 30.0)
    stop = lab.reports("bonn.branch.example")[-1]
    assert (stop["Acct-Status-Type"], stop["Acct-Terminate-Cause"]) == ([2], [1])
    sent = shell.flows()
    assert stop["Acct-Input-Packets"] == [sent["up-2"]["received"]]
    assert stop["Acct-Output-Packets"] == [sent["down-2"]["received"] + sent["across"]["received"]]


@pytest.mark.behaviour("B-093", "B-099")
def test_a_peer_whose_key_radius_does_not_give_stays_out(tmp_path: Path) -> None:
    lab = RadiusLab(tmp_path)
    del lab.server.users["bonn.branch.example"]
    shell = lab.shell
    shell.pass_time(10.0)
    rows = {row["name"]: row for row in shell.ask("hub", "status", {})["tunnels"]}
    assert (rows["branches"]["instances"], rows["nomads"]["instances_up"]) == (0, 1)
    assert any("bonn.branch.example" in one["text"] and "rejected" in one["text"] for one in records(shell))
    assert not any(key in one["text"] for one in records(shell) for key in KEYS.values())


def records(shell: SimShell) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shell.ask("hub", "log", {})["records"]
    return found
