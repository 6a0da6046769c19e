"""A hub whose peers are not known, and spokes that begin, in the simulator: deaths of the hub's processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.sim_shell import SimShell

LAB = Path(__file__).parents[2] / "configs/on-demand/lab.yaml"
PEERS = {"lyon.branch.example", "bonn.branch.example", "10.255.3.1"}


def peers_up(shell: SimShell) -> bool:
    """Whether every tunnel is up, and every spoke has one at the hub."""
    if not shell.tunnels_up():
        return False
    rows = shell.ask("hub", "tunnels", {"kind": "on-demand", "detail": True})["tunnels"]
    return {row["identity"] for row in rows if "identity" in row} == PEERS


def lost(shell: SimShell) -> dict[str, int]:
    return {name: flow["lost"] for name, flow in shell.flows().items() if flow["lost"]}


@pytest.mark.behaviour("B-155", "B-156", "B-158", "B-164", "B-171", "B-172", "B-181")
def test_peers_outlive_the_controller_and_come_again_after_their_asp() -> None:
    shell = SimShell(LAB)
    shell.wait_until(lambda: peers_up(shell), 60.0)
    hub = shell.routers["hub"]
    routes = {
        row["prefix"]: row["next_hops"] for row in shell.ask("hub", "routes", {"context": "private"})["routes"]
    }
    assert routes["10.102.0.0/16"][0]["tunnel"] == "branches (bonn.branch.example)"
    rows = {row["name"]: row for row in shell.ask("hub", "status", {})["tunnels"]}
    assert [rows[name]["instances_up"] for name in ("lyon", "branches", "nomads")] == [1, 1, 1]
    assert rows["lyon"]["asp"] == rows["branches"]["asp"] != rows["nomads"]["asp"]
    shell.send(100)
    assert lost(shell) == {}

    numbers = {row["number"] for row in shell.ask("hub", "tunnels", {"kind": "on-demand"})["tunnels"]}
    assert hub.controller is not None
    hub.controller.kill()
    shell.send(400)
    assert lost(shell) == {}
    assert {row["number"] for row in shell.ask("hub", "tunnels", {"kind": "on-demand"})["tunnels"]} == numbers
    said = [event["text"] for event in shell.ask("hub", "events", {})["events"]]
    assert said[-1] == "3 cards met, 3 of 3 tunnels up"

    hub.cards[rows["lyon"]["asp"]].kill()
    shell.wait_until(lambda: not peers_up(shell), 20.0)
    shell.wait_until(lambda: peers_up(shell), 120.0)
    shell.send(100)
    assert lost(shell) == {}
    assert numbers.isdisjoint(
        row["number"]
        for row in shell.ask("hub", "tunnels", {"kind": "on-demand"})["tunnels"]
        if row["name"] != "nomads" and row.get("remote")
    )


def test_commands_about_an_on_demand_tunnel_are_about_its_peers() -> None:
    shell = SimShell(LAB)
    shell.wait_until(lambda: peers_up(shell), 60.0)
    shell.send(50)
    said = shell.show("hub", "show tunnel ipsec lyon on-demand statistics")
    assert said.startswith("Tunnel lyon of lyon.branch.example on ASP 2/1\n")
    assert "tunnel 'hub' is not on-demand" in shell.show("spoke-1", "show tunnel ipsec hub on-demand statistics")
    detail = shell.show("hub", "show tunnel ipsec name branches detail")
    assert ": 1, up: 1\n" in detail
    assert ": branches\n" in next(part for part in detail.split("IPsec profile")[1:])
    before = shell.ask("hub", "ike", {"tunnel": "branches", "what": "sas"})["cards"]["asp 2/1"]["tunnels"]
    assert len(before) == 1
    shell.ask("hub", "clear", {"tunnel": "branches"})
    shell.wait_until(lambda: not peers_up(shell), 20.0)
    shell.wait_until(lambda: peers_up(shell), 60.0)
    with pytest.raises(LookupError, match="no tunnel 'none'"):
        shell.ask("hub", "clear", {"tunnel": "none"})
