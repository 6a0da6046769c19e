"""The router's own UDP at the controller: by which line card it leaves, what is unreachable, and who listens."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.bus.engine import Output, ToController
from chassis.bus.messages import MAX_DATAGRAM, MAX_DATAGRAMS, Datagram, Datagrams
from chassis.bus.records import UdpPeer, UdpPortRecord
from chassis.net.address import parse_address as ip
from chassis.xcrp.leaving_card import UnreachableError
from tests.support.xcrp import HIGH_AVAILABILITY, FakeLineCard, Node, booted

PORT = 1812
NEAR, THROUGH_TUNNEL = "172.168.2.9", "172.168.3.9"
PEER_ON_4 = "5.5.5.9"


class Service:
    """Listens, and keeps what it heard."""

    def __init__(self) -> None:
        self.heard: list[Datagram] = []

    def take(self, datagram: Datagram, now: float) -> list[Output]:
        self.heard.append(datagram)
        return []


@pytest.fixture
def node() -> Node:
    return booted()


def line_card(node: Node, name: str) -> FakeLineCard:
    card = node.cards[name]
    assert isinstance(card, FakeLineCard)
    return card


def send(node: Node, to: str, context: str = "C1", payloads: tuple[bytes, ...] = (b"ask",)) -> dict[str, int]:
    """Send; return how many datagrams each line card was given."""
    assert node.controller is not None
    before = {name: len(line_card(node, name).datagrams) for name in node.cards if name.startswith("lc")}
    number = node.controller.node.plan.contexts[context]
    node.perform(node.controller.state.udp.send(number, ip(to), PORT, PORT, payloads, node.now))
    given = {name: len(line_card(node, name).datagrams) - count for name, count in before.items()}
    return {name: count for name, count in given.items() if count}


def why_not(node: Node, to: str, context: str = "C1") -> str:
    with pytest.raises(UnreachableError) as error:
        send(node, to, context)
    return str(error.value)


def listen(node: Node, **more: Any) -> Service:
    assert node.controller is not None
    service = Service()
    node.controller.state.udp.listen(PORT, service.take, **more)
    node.perform(node.controller.state.publish())
    return service


def arrives(node: Node, card: str = "lc 3", **fields: Any) -> None:
    values: dict[str, Any] = {"destination_port": PORT, "payload": b"answer", **fields}
    datagram = Datagram(1, ip(NEAR), ip("172.168.2.1"), PORT, **values)
    node.card_does(card, [ToController(Datagrams((datagram,)))])


def opened(node: Node, card: str) -> list[UdpPortRecord]:
    return [record for record in node.cards[card].replica.records.values() if isinstance(record, UdpPortRecord)]


def ignored(node: Node) -> dict[str, int]:
    assert node.controller is not None
    return node.controller.state.ignored


# by which card


def test_datagrams_leave_by_the_card_of_the_port_with_all_that_the_card_needs(node: Node) -> None:
    assert send(node, NEAR) == {"lc 3": 1}
    assert send(node, PEER_ON_4, "L2") == {"lc 4": 1}
    (sent,) = line_card(node, "lc 4").datagrams
    assert node.controller is not None
    number = node.controller.node.plan.contexts["L2"]
    assert sent == Datagram(number, 0, ip(PEER_ON_4), PORT, PORT, b"ask")
    assert "ask" not in repr(sent)


def test_datagrams_into_a_circuit_based_tunnel_leave_by_its_home(node: Node) -> None:
    home = node.card("lc 3")["card"]
    assert node.circuits(home)
    assert send(node, THROUGH_TUNNEL) == {home: 1}


def test_datagrams_into_an_economical_tunnel_leave_by_any_usable_card(node: Node) -> None:
    node.kill_card("asp 2/1")
    # Only the economical tunnel is left.
    assert node.hops("lc 3", "C1", "172.168.3.0/24") == ["Tun-2"]
    assert send(node, THROUGH_TUNNEL) == {"lc 3": 1}
    node.kill_card("lc 3")
    assert send(node, THROUGH_TUNNEL) == {"lc 4": 1}


def test_many_datagrams_are_few_messages(node: Node) -> None:
    assert node.controller is not None
    messages: list[Any] = []
    node.watch = lambda output: messages.append(output.message)
    assert send(node, NEAR, payloads=(b"x",) * (2 * MAX_DATAGRAMS + 1)) == {"lc 3": 2 * MAX_DATAGRAMS + 1}
    assert [len(message.datagrams) for message in messages] == [MAX_DATAGRAMS, MAX_DATAGRAMS, 1]


# what is unreachable


def test_without_a_route_the_destination_is_unreachable(node: Node) -> None:
    assert why_not(node, "9.9.9.9") == "no route"
    assert why_not(node, "224.0.0.1") == "the address is not that of one host"


def test_behind_tunnels_that_are_down_it_is_unreachable_until_one_is_up(node: Node) -> None:
    node.kill_card("asp 2/1")
    node.kill_card("asp 2/2")
    assert why_not(node, THROUGH_TUNNEL) in ("no route", "the tunnel is down")
    node.start_card("asp 2/1")
    node.run(0.2)
    assert send(node, THROUGH_TUNNEL) == {"lc 3": 1}


def test_behind_a_card_that_died_it_is_unreachable_until_the_next_is_up(node: Node) -> None:
    node.kill_card("lc 4")
    assert why_not(node, PEER_ON_4, "L2") in ("no route", "no usable next hop")
    assert send(node, NEAR) == {"lc 3": 1}
    node.kill_card("lc 3")
    assert why_not(node, NEAR) == "no line card is usable"
    node.start_card("lc 4")
    node.run(0.2)
    assert send(node, PEER_ON_4, "L2") == {"lc 4": 1}


def test_a_discard_route_makes_it_unreachable() -> None:
    node = booted(HIGH_AVAILABILITY.replace("context L1\n", "context L1\n  ip route 8.0.0.0/8 null0\n", 1))
    assert why_not(node, "8.8.8.8", "L1") == "the route discards"


def test_a_datagram_that_is_too_long_is_a_bug_of_the_caller(node: Node) -> None:
    with pytest.raises(ValueError, match="longer than 4096 octets"):
        send(node, NEAR, payloads=(bytes(MAX_DATAGRAM + 1),))


# who listens


def test_line_cards_learn_which_ports_are_open(node: Node) -> None:
    peer = (1, ip(NEAR), PORT)
    listen(node, peers=[peer])
    expected = UdpPortRecord(PORT, (UdpPeer(*peer),))
    assert opened(node, "lc 3") == opened(node, "lc 4") == [expected]
    assert opened(node, "asp 2/1") == []
    listen(node)
    assert opened(node, "lc 3") == [UdpPortRecord(PORT)]
    node.kill_card("lc 3")
    node.start_card("lc 3")
    assert opened(node, "lc 3") == [UdpPortRecord(PORT)]
    listen(node, peers=[])
    assert opened(node, "lc 3") == opened(node, "lc 4") == []


def test_an_open_port_outlives_a_commit(node: Node) -> None:
    service = listen(node)
    node.ask("apply", text=HIGH_AVAILABILITY.replace("card ge-10-port 4", "card ge-10-port 4\ncard ge-10-port 5"))
    assert opened(node, "lc 3") == [UdpPortRecord(PORT)]
    arrives(node, "lc 4")
    assert [datagram.payload for datagram in service.heard] == [b"answer"]


def test_the_next_controller_opens_its_ports_itself(node: Node) -> None:
    listen(node)
    node.kill_controller()
    node.stop_card("lc 3")
    node.start()
    assert node.controller is not None
    service = Service()
    # A service does so when it is made, while the controller waits for the cards.
    node.controller.state.udp.listen(PORT + 1, service.take)
    node.continue_card("lc 3", 0.0)
    node.run(0.2)
    assert opened(node, "lc 3") == [UdpPortRecord(PORT + 1)]
    arrives(node, "lc 3")
    assert service.heard == []
    arrives(node, "lc 3", destination_port=PORT + 1)
    assert [datagram.payload for datagram in service.heard] == [b"answer"]


def test_an_answer_may_come_in_by_any_card(node: Node) -> None:
    service = listen(node)
    arrives(node, "lc 3")
    arrives(node, "lc 4", payload=b"second")
    assert [datagram.payload for datagram in service.heard] == [b"answer", b"second"]


@pytest.mark.parametrize(("card", "fields", "why"), [
    ("lc 3", {"destination_port": 99}, "datagram that no service takes"),
    ("lc 3", {"payload": bytes(MAX_DATAGRAM + 1)}, "datagram that no service takes"),
    ("asp 2/1", {}, "datagrams of a card that is no admitted line card"),
])  # fmt: skip
def test_what_nobody_listens_to_is_counted(node: Node, card: str, fields: dict[str, Any], why: str) -> None:
    service = listen(node)
    arrives(node, card, **fields)
    assert service.heard == []
    assert ignored(node) == {why: 1}


def test_a_card_that_was_given_up_is_not_heard(node: Node) -> None:
    service = listen(node)
    node.stop_card("lc 4")
    node.run(0.8)
    arrives(node, "lc 4")
    assert service.heard == []
    assert ignored(node) == {"datagrams of a card that is no admitted line card": 1}


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_a_port_that_cannot_be(node: Node, port: int) -> None:
    assert node.controller is not None
    with pytest.raises(ValueError, match="expected 1 to 65535"):
        node.controller.state.udp.listen(port, Service().take)
