"""Which peers an on-demand tunnel admits: profiles, max-tunnels, identities that come again, many of them."""

from __future__ import annotations

import pytest

from chassis.bus.engine import Output, ToCard
from chassis.bus.messages import Delta, PeerQuestion
from chassis.net.address import parse_address
from chassis.xcrp.id_allocator import BLOCK
from tests.support.on_demand import ASP, HUB, hub

LIMITED = HUB.replace("  ike-policy pol\n", "  ike-policy pol\n  max-tunnels 2\n")
TWO = (
    HUB.replace("  ipsec profile T\n", "  ipsec profile U\n    seq 10 ipsec-policy ipsec-pol\n  ipsec profile T\n")
    + """
tunnel ipsec U on-demand
  peer-end-point local 40.0.0.1 context outer
  bind interface TI inner
  ike-policy pol
"""
)


@pytest.mark.behaviour("B-101", "B-178")
def test_without_a_profile_of_its_name_a_peer_is_refused() -> None:
    node = hub(HUB.replace("ipsec profile T\n", "ipsec profile t\n"))
    assert node.on_demand().wanted
    why = "no IPsec profile T in context inner"
    assert node.refused("one.example") == why
    assert not node.instances()
    (line,) = [one for one in node.ask("log")["records"] if one["values"].get("identity")]
    assert line["text"] == f"tunnel T: peer one.example at 50.0.0.1 refused: {why}"
    assert line["severity"] == "error"


@pytest.mark.behaviour("B-179")
@pytest.mark.parametrize(("old", "new", "why"), [
    ("access-group acl\n\n", "access-group nope\n\n", "access list: nope"),
    ("ipsec-policy ipsec-pol access", "ipsec-policy nope access", "IPsec policy: nope"),
    ("  seq 1 proposal ipsec-p\n", "", "IPsec proposal: policy ipsec-pol names none"),
    ("    seq 10 ipsec-policy ipsec-pol access-group acl\n", "", "IPsec policy"),
])  # fmt: skip
def test_a_profile_that_lacks_something_refuses_its_peers(old: str, new: str, why: str) -> None:
    text = HUB.replace("access-group acl\n", "access-group acl\n\n")
    assert old in text or old in HUB
    node = hub((text if old in text else HUB).replace(old, new))
    assert node.refused("one.example") == why


@pytest.mark.behaviour("B-156", "B-180")
def test_max_tunnels_refuses_the_next_and_leaves_the_others() -> None:
    node = hub(LIMITED)
    first = node.admit("one.example", "50.0.0.1")
    second = node.admit("two.example", "50.0.0.2")
    node.comes_up(first)
    node.comes_up(second)
    assert node.refused("three.example", "50.0.0.3") == "max-tunnels: 2 of profile T are active"
    assert node.tunnel("T")["instances_up"] == 2
    # One that is there already takes no other place, wherever it comes from.
    assert node.admit("two.example", "50.0.0.9") > second
    node.goes(first)
    node.admit("three.example", "50.0.0.3")
    assert set(node.instances()) == {"two.example", "three.example"}
    # A lower limit lets those that are active be.
    node.ask("apply", text=LIMITED.replace("max-tunnels 2", "max-tunnels 1"))
    assert len(node.instances()) == 2
    assert node.refused("four.example", "50.0.0.4") == "max-tunnels: 1 of profile T are active"


@pytest.mark.behaviour("B-158", "B-159")
def test_one_tunnel_for_an_identity() -> None:
    node = hub()
    first = node.admit("one.example", "50.0.0.1")
    node.comes_up(first, "10.2.0.0/24")
    # The same peer again: a new IKE SA of the same session.
    assert node.admit("one.example", "50.0.0.1") == first
    assert node.admit("ONE.Example", "50.0.0.1", wants_address=True) == first
    # It moved: the newest authenticated one has the tunnel.
    second = node.admit("one.example", "50.0.0.2")
    assert second > first
    assert node.instances("lc 3") == {"one.example": second}
    assert node.hops("lc 3", "inner", "10.2.0.0/24") == []
    assert "tunnel T (one.example) ended: its peer came anew" in node.events()
    # The end of the old IKE SA is no news.
    node.goes(first)
    assert node.instances() == {"one.example": second}
    # Two peers at one address, as behind a NAT, are two.
    assert node.admit("two.example", "50.0.0.2") > second
    assert len(node.instances()) == 2


@pytest.mark.behaviour("B-162")
def test_an_identity_has_one_of_several_on_demand_tunnels() -> None:
    node = hub(TWO)
    first = node.admit("one.example", "50.0.0.1", name="T")
    second = node.admit("one.example", "50.0.0.1", name="U")
    assert node.instances("lc 3") == {"one.example": second}
    assert node.record(second).config.name == "U"
    assert not node.record(second).config.entries[0].acl
    assert first not in node.instances().values()


@pytest.mark.behaviour("B-175")
def test_one_interface_carries_the_peers_of_several_tunnels() -> None:
    node = hub(TWO)
    numbers = [node.admit(f"{name}.example", f"50.0.0.{at}", name=name) for at, name in enumerate("TU", 1)]
    assert {node.record(number).config.interface for number in numbers} == {"TI"}
    assert {node.record(number).up for number in numbers} == {True}


@pytest.mark.behaviour("B-173")
def test_the_capacity_of_a_card_refuses_the_surplus() -> None:
    node = hub(**{"card-capacity": 3})
    for at in range(3):
        node.admit(f"{at}.example", f"50.0.0.{at}")
    assert node.refused("3.example", "50.0.0.3") == "capacity: card 2 holds 3 tunnels"
    assert node.admit("2.example", "50.0.0.77")
    assert len(node.instances()) == 3


def test_a_question_about_what_is_not_there_is_refused() -> None:
    node = hub(HUB.replace("  ip route traffic", "  shutdown\n  ip route traffic"))
    assert node.refused("one.example") == "shutdown"
    record = node.on_demand()
    assert not record.wanted


def test_questions_before_the_plan_wait_for_it() -> None:
    node = hub()
    node.stop_card("lc 3")
    node.kill_controller()
    node.start()
    assert node.ask_about("one.example") is None
    node.run(3.0)
    assert node.instances() == {"one.example": node.asp.answers[-1].tunnel}


def test_a_thousand_peers() -> None:
    """The last one costs what the second one does: its own records, one answer, and no write of a file."""
    node = hub()
    assert node.controller is not None
    state, template = node.controller.node, node.on_demand()
    costs: list[list[str]] = []
    for at in range(1000):
        peer = parse_address(f"50.0.{at >> 8}.{at & 255}")
        question = PeerQuestion(at + 1, "admit", template.number, f"peer-{at}", template.local, peer, 500)
        # The cards of the test are not told: what they do with it is not asked here.
        outputs = node.controller.receive(ASP, question, node.now)
        costs.append([_kind(output) for output in outputs])
    assert costs[0] == ["Persist", "Delta 2", "Delta 2", "PeerAnswer"]
    assert all(cost == costs[0][1:] for cost in costs[1:])
    assert len(state.tunnels) == len(state.plan.tunnels) == 1000 < BLOCK
    numbers = list(state.plan.tunnels)
    circuits = {tunnel.circuit for tunnel in state.tunnels.values()}
    assert len(circuits) == len(set(numbers)) == 1000
    state.end_instances(numbers, "test", node.now)
    assert not state.tunnels
    assert not state.plan.tunnels_by_peer
    assert not state.plan.tunnels_by_asp
    assert not state._peer_routes
    assert not state.instances._by_identity
    assert not state.instances._counts


def _kind(output: Output) -> str:
    message = output.message if isinstance(output, ToCard) else output
    return f"{type(message).__name__} {len(message.put)}" if isinstance(message, Delta) else type(message).__name__
