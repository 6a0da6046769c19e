"""ARP: the table, its timers, and the packets that wait."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chassis.bus.batch import Step
from chassis.bus.messages import NeighbourEvent, PortEvent, Reply
from chassis.bus.records import PortRecord
from chassis.linecard.arp import NEIGHBOUR, ArpAction, ArpEvent, NeighbourState
from chassis.net.address import BROADCAST_MAC, ZERO_MAC
from chassis.net.address import parse_address as ip
from chassis.net.arp import REPLY, REQUEST, Arp
from chassis.net.ethernet import header
from tests.support.linecard import CIRCUIT, GATEWAY, HOST, INNER, MAC, RECORDS, Rig, packet

OTHER = b"\2\0\0\0\0\x77"


@pytest.mark.parametrize("state", NeighbourState)
@pytest.mark.parametrize("event", ArpEvent)
def test_every_event_has_an_answer_in_every_state(state: NeighbourState, event: ArpEvent) -> None:
    after, actions = NEIGHBOUR.table[state][event]
    assert (ArpAction.STORE_ADDRESS in actions) == (event is ArpEvent.ADDRESS_HEARD)
    assert (ArpAction.ENQUEUE in actions) == (event is ArpEvent.PACKET)
    if event in (ArpEvent.PORT_DOWN, ArpEvent.EVICTED):
        assert after is NeighbourState.NONE
    if after is NeighbourState.NONE and state is not NeighbourState.NONE:
        assert ArpAction.REMOVE in actions
    if state is NeighbourState.INCOMPLETE and after is not NeighbourState.INCOMPLETE:
        assert {
            ArpAction.SEND_QUEUED,
            ArpAction.DROP_UNRESOLVED,
            ArpAction.DROP_PORT_DOWN,
            ArpAction.DROP_EVICTED,
        } & set(actions)  # nothing waits for ever


def test_packets_wait_for_the_answer_and_leave_in_order() -> None:
    rig = Rig()
    rig.frames("3/1", *(packet("10.9.0.1", identification=n) for n in range(3)))
    assert rig.arps() == [
        ("3/1", BROADCAST_MAC, Arp(REQUEST, MAC["3/1"], ip("10.0.0.1"), ZERO_MAC, ip("10.0.0.9")))
    ]
    rig.frames("3/1", packet("10.9.7.7", identification=3))
    assert rig.wire() == []
    rig.arp("3/1", REPLY, "10.0.0.9", GATEWAY, "10.0.0.1", target_mac=MAC["3/1"])
    assert [(link, p.identification) for _, link, p in rig.sent()] == [
        (header(GATEWAY, MAC["3/1"]), n) for n in range(4)
    ]
    assert rig.told(NeighbourEvent) == [NeighbourEvent("3/1", ip("10.0.0.9"), GATEWAY)]
    rig.frames("3/1", packet("10.9.0.1"))
    assert len(rig.sent()) == 1


def test_requests_are_repeated_each_second_three_times() -> None:
    rig = Rig().knows("3/1", "10.0.0.5", HOST)
    rig.frames("3/1", packet("10.9.0.1"))
    at = [0.0] * len(rig.arps())
    for tenth in range(1, 60):
        rig.after(0.1)
        at += [tenth / 10] * len(rig.arps())
    assert at == [0.0, pytest.approx(1.0, abs=0.11), pytest.approx(2.0, abs=0.11)]
    assert rig.drops() == {"neighbour unresolved": 1}
    assert [*rig.neighbours("3/1")] == [ip("10.0.0.5")]
    # The next packet starts anew.
    rig.frames("3/1", packet("10.9.0.1"))
    assert len(rig.arps()) == 1


def test_a_timer_that_an_answer_overtook_does_nothing() -> None:
    rig = Rig()
    rig.frames("3/1", packet("10.9.0.1"))
    rig.arp("3/1", REPLY, "10.0.0.9", GATEWAY, "10.0.0.1")
    rig.do(rig.card.on_timer(rig.now + 1.5))
    assert rig.wire() == []


def test_only_64_packets_wait_for_a_neighbour() -> None:
    rig = Rig()
    rig.frames("3/1", *(packet("10.9.0.1", identification=n) for n in range(70)))
    assert rig.drops() == {"neighbour queue full": 6}
    rig.arp("3/1", REPLY, "10.0.0.9", GATEWAY, "10.0.0.1")
    assert [p.identification for _, _, p in rig.sent()] == list(range(64))


def test_a_known_neighbour_is_asked_again_after_an_hour_and_used_meanwhile() -> None:
    rig = Rig().knows("3/1", "10.0.0.9", GATEWAY)
    rig.after(3599.0)
    assert rig.arps() == []
    rig.after(1.5)
    assert [(to, arp.operation) for _, to, arp in rig.arps()] == [(GATEWAY, REQUEST)]
    rig.frames("3/1", packet("10.9.0.1"))
    assert len(rig.sent()) == 1
    rig.arp("3/1", REPLY, "10.0.0.9", GATEWAY, "10.0.0.1")
    rig.after(3000.0)
    assert rig.arps() == []


def test_a_known_neighbour_that_no_longer_answers_is_forgotten() -> None:
    rig = Rig().knows("3/1", "10.0.0.9", GATEWAY)
    rig.after(3604.0)
    assert [to for _, to, _ in rig.arps()] == [GATEWAY, BROADCAST_MAC, BROADCAST_MAC]
    assert rig.told(NeighbourEvent) == [NeighbourEvent("3/1", ip("10.0.0.9"), b"")]
    rig.frames("3/1", packet("10.9.0.1"))
    assert rig.sent() == []


def test_a_request_for_our_address_is_answered_and_its_sender_learnt() -> None:
    rig = Rig()
    rig.arp("3/1", REQUEST, "10.0.0.5", HOST, "10.0.0.1")
    assert rig.arps() == [("3/1", HOST, Arp(REPLY, MAC["3/1"], ip("10.0.0.1"), HOST, ip("10.0.0.5")))]
    rig.frames("3/1", packet("10.0.0.5"))
    assert [link for _, link, _ in rig.sent()] == [header(HOST, MAC["3/1"])]


def test_gratuitous_arp_of_a_known_neighbour_moves_it() -> None:
    rig = Rig().knows("3/1", "10.0.0.9", GATEWAY)
    rig.arp("3/1", REQUEST, "10.0.0.9", OTHER, "10.0.0.9")
    rig.frames("3/1", packet("10.9.0.1"))
    assert [link for _, link, _ in rig.sent()] == [header(OTHER, MAC["3/1"])]


@pytest.mark.parametrize(("sender", "target", "answers"), [
    pytest.param("0.0.0.0", "10.0.0.1", 1, id="a probe"),
    pytest.param("77.0.0.9", "10.0.0.1", 1, id="from another network"),
    pytest.param("10.0.0.5", "10.0.0.6", 0, id="for another address"),
])  # fmt: skip
def test_who_is_not_learnt(sender: str, target: str, answers: int) -> None:
    rig = Rig()
    rig.arp("3/1", REQUEST, sender, HOST, target)
    assert len(rig.outputs) == len(rig.arps()) == answers
    assert rig.neighbours("3/1") == {}


@pytest.mark.parametrize(
    ("sender", "mac"),
    [("10.0.0.1", HOST), ("10.0.0.9", BROADCAST_MAC), ("10.0.0.9", ZERO_MAC), ("10.0.0.9", MAC["3/1"])],
)
def test_what_is_not_believed(sender: str, mac: bytes) -> None:
    rig = Rig()
    arp = Arp(REQUEST, mac, ip(sender), ZERO_MAC, ip("10.0.0.1"))
    rig.frames("3/1", header(BROADCAST_MAC, HOST, 0x0806) + arp.emit())
    assert rig.outputs == []
    assert rig.drops() == {"malformed arp": 1}


def test_a_broken_arp_packet_is_dropped() -> None:
    rig = Rig()
    rig.frames("3/1", header(BROADCAST_MAC, HOST, 0x0806) + bytes(40))
    assert rig.drops() == {"malformed arp": 1}


# ports


def test_a_port_that_comes_up_says_so_to_everyone() -> None:
    rig = Rig(carrier=False)
    assert {p.up for p in rig.card.ports.own.values()} == {False}
    rig.do(rig.card.on_carrier("3/1", True, rig.now))
    assert rig.arps() == [
        ("3/1", BROADCAST_MAC, Arp(REQUEST, MAC["3/1"], ip("10.0.0.1"), ZERO_MAC, ip("10.0.0.1")))
    ]
    assert rig.told(PortEvent) == [PortEvent("3/1", True, "", 1000, MAC["3/1"])]
    rig.do(rig.card.on_carrier("3/1", True, rig.now))
    assert rig.outputs == []


def test_a_port_that_goes_down_forgets_its_neighbours_and_drops_what_waits() -> None:
    rig = Rig().knows("3/1", "10.0.0.9", GATEWAY)
    rig.frames("3/1", packet("10.0.0.66"))
    rig.do(rig.card.on_carrier("3/1", False, rig.now))
    assert rig.told(PortEvent) == [PortEvent("3/1", False, "no carrier", 1000, MAC["3/1"])]
    assert rig.told(NeighbourEvent) == [NeighbourEvent("3/1", ip("10.0.0.9"), b"")]
    assert rig.drops() == {"port down": 1}
    rig.do(rig.card.on_carrier("3/1", True, rig.now))
    rig.batch(Step.CIRCUIT_IN, packet("10.9.0.1"), circuit=CIRCUIT, context=INNER)
    assert rig.sent() == []
    assert len(rig.arps()) == 1


def test_shutdown_and_a_new_address_and_removal() -> None:
    rig = Rig().knows("3/1", "10.0.0.9", GATEWAY)
    (record,) = [r for r in RECORDS if isinstance(r, PortRecord) and r.port == "3/1"]
    rig.delta(replace(record, enabled=False))
    assert [(e.up, e.reason) for e in rig.told(PortEvent)] == [(False, "shutdown")]
    assert rig.told(NeighbourEvent) == [NeighbourEvent("3/1", ip("10.0.0.9"), b"")]
    rig.delta(replace(record, address=ip("10.0.0.2")))
    assert [arp.sender_address for _, _, arp in rig.arps()] == [ip("10.0.0.2")]
    rig.knows("3/1", "10.0.0.9", GATEWAY)
    rig.delta(delete=(record.key,))
    assert rig.told(NeighbourEvent) == [NeighbourEvent("3/1", ip("10.0.0.9"), b"")]
    rig.frames("3/1", packet())
    assert rig.drops() == {"port down": 1}


def test_an_unchanged_record_changes_nothing() -> None:
    rig = Rig().knows("3/1", "10.0.0.9", GATEWAY)
    (record,) = [r for r in RECORDS if isinstance(r, PortRecord) and r.port == "3/1"]
    rig.delta(replace(record, mtu=1400))
    assert rig.outputs == []
    rig.frames("3/1", packet("10.9.0.1"))
    assert len(rig.sent()) == 1


def test_neighbours_can_be_asked_for() -> None:
    rig = Rig().knows("3/1", "10.0.0.9", GATEWAY)
    rig.request("neighbours")
    assert rig.told(Reply) == [
        Reply(77, {"neighbours": [{"port": "3/1", "address": "10.0.0.9", "mac": "02:00:00:00:00:99",
            "state": "reachable", "ttl": 3600}]}),
    ]  # fmt: skip
