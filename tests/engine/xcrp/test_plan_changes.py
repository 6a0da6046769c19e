"""Plans and records by difference: after random commits they are those that are made of the whole from nothing."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from chassis.aaa.settings import aaa_config
from chassis.bus.messages import Delta
from chassis.bus.records import UdpPeer, UdpPortRecord
from chassis.bus.replication import Publisher
from chassis.net.address import parse_address
from chassis.xcrp import instance_plans, record_builder
from chassis.xcrp.node import NodeState
from chassis.xcrp.plan import Plan
from chassis.xcrp.planner import make_plan
from tests.support.edits import BASE, PORTS, Edits
from tests.support.xcrp import Node, booted

START = BASE + "context vpn-A\n asp-group G1 service security\ncontext vpn-B\n asp-group G2 service security\n"


def told(plan: Plan) -> dict[str, Any]:
    """A plan, with the order of what has none in no matter."""
    values = {item.name: getattr(plan, item.name) for item in fields(plan)}
    values["local"] = dict(sorted(plan.local.items()))
    return values


def controller(node: Node) -> NodeState:
    assert node.controller is not None
    return node.controller.node


def records_from_nothing(state: NodeState) -> dict[Any, Any]:
    """All records of a node's present state, made without anything that was made before."""
    numbers = copy.deepcopy(state.numbers)
    change = make_plan(
        state.plan.config, numbers, state.name, state.plan.flash, more=instance_plans.instances(state.plan)
    )
    assert told(state.plan) == told(change.plan)
    assert numbers._numbers() == state.numbers._numbers()
    made: list[record_builder.Change] = [
        (record.key, record) for record in map(record_builder.card_state, state.cards.values()) if record.epoch
    ]
    made += record_builder.fixed(change, discard=state.settings.discard, esn=state.settings.esn)
    for number, tunnel_plan in change.plan.tunnels.items():
        at = state.tunnels[number]
        unmet = state._first_unmet(tunnel_plan)[0]
        assert at.unmet_condition == unmet
        assert at.conditions_met == state._conditions_met(tunnel_plan, at)
        made += record_builder.of_tunnel(tunnel_plan, at, numbers)
    for key in {*change.plan.prefixes, *state.selectors.prefixes()}:
        route = state._route(key)
        made.append((route.key, route if route.next_hops else None))
    made += ((record.key, record) for record in radius_ports(state))
    return {key: record for key, record in made if record is not None}


def radius_ports(state: NodeState) -> Iterator[UdpPortRecord]:
    """The ports from which the RADIUS servers of the configuration are asked."""
    peers: dict[int, set[UdpPeer]] = {}
    for context, settings in aaa_config(state.configured).contexts.items():
        for server in (*settings.servers, *settings.accounting_servers):
            port = settings.source_port or server.port
            peer = UdpPeer(state.plan.contexts[context], parse_address(server.address), server.port)
            peers.setdefault(port, set()).add(peer)
    for port, far in peers.items():
        yield UdpPortRecord(port, tuple(sorted(far, key=lambda one: (one.context, one.address, one.port))))


def needed(publisher: Publisher, card: str) -> dict[Any, Any]:
    return {key: record for key, record in publisher.records.items() if publisher._wants(card, record)}


def check(node: Node) -> None:
    state = controller(node)
    assert state.tunnels.keys() == state.plan.tunnels.keys()
    peers = {(context, remote) for context, remotes in state.plan.tunnels_by_peer.items() for remote in remotes}
    assert {at: state._route_to_peer(*at) for at in peers} == state._peer_routes
    assert state.publisher.records == records_from_nothing(state)
    for asp, numbers in state.plan.tunnels_by_asp.items():
        assert state.tunnels_up(asp) == sum(state.tunnels[number].up for number in numbers)
    for name, card in node.cards.items():
        assert card.replica.records == needed(state.publisher, name)


@pytest.mark.parametrize("seed", range(16))
def test_random_commits(seed: int) -> None:
    """Commits of lines, cards and ports that come and go: every card holds what a fresh controller would send."""
    chance, edits = random.Random(seed), Edits(seed)
    node = booted(START, *(port for port in PORTS if not port.endswith("30")))
    applied = 0
    for _ in range(40):
        text = edits.text()
        result = node.ask("commit", lines=text, base=-1, user="x")
        applied += bool(result["applied"] and result["changes"])
        for card, _ in controller(node).plan.cards:
            if card not in node.cards:
                node.start_card(card)
        if chance.random() < 0.3:
            port = chance.choice(PORTS)
            if f"lc {port.split('/')[0]}" in node.cards:
                node.carrier_event(port, chance.random() < 0.6)
        if chance.random() < 0.1:
            # The same text, read anew: other objects, nothing else.
            assert not node.ask("apply", text=node.ask("config", keys=True)["text"])["changes"]
        node.run(0.05)
        check(node)
    assert applied > 15
    node.kill_controller()
    node.start()
    node.run(2.5)
    check(node)


@pytest.mark.behaviour("B-019")
def test_one_interface_one_tunnel() -> None:
    """The second tunnel on an interface stays down and says why; it comes up when the first one is gone."""
    node = booted()
    node.ask("commit", lines="tunnel ipsec Tun-2 manual economical\n bind interface TI-1 C1\n", base=-1, user="x")
    second = node.tunnel("Tun-2")
    assert (second["up"], second["reason"]) == (False, "interface: TI-1 carries tunnel Tun-1 already")
    assert node.tunnel("Tun-1")["up"]
    node.ask("commit", lines="no tunnel ipsec Tun-1\n", base=-1, user="x")
    node.run(0.2)
    assert node.tunnel("Tun-2")["up"]
    check(node)


def test_other_tunnels_see_nothing() -> None:
    """One tunnel more is one tunnel's records for the cards: nothing of another tunnel is sent again."""
    node = booted()
    sent: list[Delta] = []
    node.watch = lambda output: sent.append(output.message) if isinstance(output.message, Delta) else None
    lines = """
context C1
 interface TI-3
  ip address 192.168.4.1/30
 ip route 172.168.4.0/24 TI-3
tunnel ipsec Tun-3 manual
 peer-end-point local 1.1.1.1 remote 3.3.3.5 context L1
 bind interface TI-3 C1
 seq 10 security-association sa-2 access-group acl-C1
"""
    assert node.ask("commit", lines=lines, base=-1, user="x")["applied"]
    names = controller(node).plan.by_name
    put = {record.key for delta in sent for record in delta.put}
    assert {key[1] for key in put if key[0] in ("tunnel", "tunnel-hop")} == {names["Tun-3"]}
    assert {key[0] for key in put} <= {
        "tunnel",
        "tunnel-hop",
        "interface",
        "route",
        "local",
        "circuit",
        "manual-sa",
    }
    # The ASP of Tun-1 gets the SA of Tun-3; the list that Tun-1 uses too it has already.
    assert [key for key in put if key[0] in ("manual-sa", "acl")] == [("manual-sa", "sa-2")]
    assert not any(delta.delete for delta in sent)
