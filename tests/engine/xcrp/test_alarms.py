"""Alarms of cards, ports and tunnels at a controller in memory: what is a fault, and that it is told once."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from chassis.bus.engine import ToController
from chassis.bus.messages import LogRecord, TunnelEvent
from chassis.net.address import parse_address
from chassis.xcrp.alarms import Alarm, AlarmTable
from chassis.xcrp.hardware_alarms import CARRIER_TIME, START_TIME
from chassis.xcrp.log import LogEntry
from chassis.xcrp.show_hardware import MAX_ALARMS
from chassis.xcrp.tunnel_alarms import RETURN_TIME
from tests.support.cli_node import run
from tests.support.xcrp import HIGH_AVAILABILITY, TWO_WAYS, Cut, Node, booted, sa
from tests.support.xcrp_ike import PORTS, STATIC

DOWN = "ipsecTunnelDown"


def alarms(node: Node) -> list[tuple[str, str]]:
    """(place, name) of those that stand."""
    return [(row["object"], row["alarm"]) for row in node.ask("alarms")["alarms"]]


def told(node: Node) -> list[str]:
    """What the log said of alarms, in order: place, name, and `cleared` or the severity."""
    records: list[Any] = node.ask("log", facility="alarm")["records"]
    return [f"{one['object']} {one['alarm']} {one['state']}" for one in (row["values"] for row in records)]


def negotiated(spare: bool = True) -> Node:
    """A node whose tunnel `T` is up, after the time that it has to come up again after its ASP's start. The other
    ASP is its spare, or shut down."""
    changed = (
        ("  asp 2/1\n", "  asp 2/1\n  asp 2/2\n") if spare else ("card ase 2\n", "card ase 2\n asp 2 shutdown\n")
    )
    node = Node(STATIC.replace(*changed))
    node.boot_all(*PORTS)
    report(node, True)
    node.run(RETURN_TIME)
    assert alarms(node) == []
    return node


def report(node: Node, up: bool, reason: str = "") -> None:
    """The ASP says of `T` that it is up, or why not."""
    assert node.controller is not None
    number = node.controller.node.plan.by_name["T"]
    node.card_does("asp 2/1", [ToController(TunnelEvent(number, up, reason, parse_address("40.0.0.2")))])
    node.run(0.01)


def restart(node: Node, down_for: float = 0.0) -> None:
    node.kill_controller()
    node.now += down_for
    node.start()
    node.run(4.0)


def test_a_dead_asp_raises_its_alarm_and_clears_it_once() -> None:
    node = booted()
    assert told(node) == []
    node.kill_card("asp 2/1")
    assert told(node) == ["asp 2/1 aseAsp1Down major"]
    (row,) = node.ask("alarms")["alarms"]
    assert row == {
        "severity": "major", "object": "asp 2/1", "alarm": "aseAsp1Down", "cause": "", "text": "died",
        "raised": node.now + node.wall_offset, "tunnels": 1,
    }  # fmt: skip
    node.run(5.0)
    assert node.ask("alarms")["alarms"] == [row]
    node.start_card("asp 2/1")
    node.run(0.5)
    assert node.ask("alarms") == {"alarms": [], "next": "", "total": {}}
    assert told(node) == ["asp 2/1 aseAsp1Down major", "asp 2/1 aseAsp1Down cleared"]


def test_the_log_has_lines_of_severities_and_contexts() -> None:
    node = booted(HIGH_AVAILABILITY.replace("  asp 2/2\n", ""))
    node.kill_card("lc 3")
    node.start_card("lc 3")
    node.run(0.5)
    rows = node.ask("log", facility="alarm")["records"]
    assert [(row["severity"], row["text"]) for row in rows] == [
        ("warning", "asp 2/2: alarm asp2MissingServiceAssoc (warning): in no pool"),
        ("error", "lc 3: alarm cardDown (major): died"),
        ("informational", "lc 3: alarm cardDown (cleared)"),
    ]
    node = negotiated()
    report(node, False, "the peer does not answer")
    (row,) = node.ask("log", facility="alarm")["records"]
    assert (row["values"]["tunnel"], row["values"]["context"]) == ("T", "inner")
    assert node.ask("log", tunnel="T", facility="alarm")["records"] == [row]


def test_a_hung_card_is_down_and_one_that_goes_on_is_not() -> None:
    node = booted()
    node.stop_card("asp 2/2")
    node.run(0.8)
    assert alarms(node) == [("asp 2/2", "aseAsp2Down")]
    node.continue_card("asp 2/2", 0.8)
    node.run(0.5)
    assert told(node) == ["asp 2/2 aseAsp2Down major", "asp 2/2 aseAsp2Down cleared"]


def test_a_card_that_never_came_up_has_time_to() -> None:
    node = Node(HIGH_AVAILABILITY)
    node.carrier = {"lc 3": {"3/1", "3/11"}}
    node.start()
    node.start_card("lc 3")
    node.run(START_TIME - 0.5)
    assert alarms(node) == []
    node.run(1.0)
    assert alarms(node) == [("lc 4", "cardDown"), ("asp 2/1", "aseAsp1Down"), ("asp 2/2", "aseAsp2Down")]
    assert node.ask("alarms")["alarms"][0]["text"] == "has not come up: absent"
    for card in ("lc 4", "asp 2/1", "asp 2/2"):
        node.start_card(card)
    node.run(1.0)
    assert alarms(node) == []


def test_a_port_without_carrier_is_down_after_a_moment() -> None:
    node = booted()
    node.carrier_event("4/1", False)
    node.run(CARRIER_TIME - 0.1)
    node.carrier_event("4/1", True)
    node.run(CARRIER_TIME)
    assert told(node) == []
    node.carrier_event("4/1", False)
    node.run(CARRIER_TIME + 0.1)
    (row,) = node.ask("alarms")["alarms"]
    assert (row["object"], row["alarm"], row["text"], row["tunnels"]) == ("port 4/1", "portDown", "no carrier", 1)
    # It goes on to stand while its card is down too, which has an alarm of its own.
    node.kill_card("lc 4")
    assert alarms(node) == [("lc 4", "cardDown"), ("port 4/1", "portDown")]
    node.start_card("lc 4")
    node.run(1.0)
    assert alarms(node) == [("port 4/1", "portDown")]
    node.carrier_event("4/1", True)
    node.run(0.1)
    assert alarms(node) == []
    assert told(node) == [
        "port 4/1 portDown major", "lc 4 cardDown major", "lc 4 cardDown cleared", "port 4/1 portDown cleared",
    ]  # fmt: skip


def test_ports_of_a_dead_card_have_no_alarm_of_their_own() -> None:
    node = booted()
    node.kill_card("lc 3")
    node.run(CARRIER_TIME + 1.0)
    (row,) = node.ask("alarms")["alarms"]
    assert (row["object"], row["tunnels"]) == ("lc 3", 1)
    assert run(node, "show alarms").splitlines()[1].endswith("died; 1 tunnel down with it")


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("the peer does not answer", "keepaliveFailure"),
        ("deleted by the peer", "downByPeer"),
        ("the lifetime of the IKE SA is over", "rekeyFailure"),
        ("cleared by the operator", "general"),
    ],
)
def test_a_tunnel_that_was_up_and_went_down_says_why(reason: str, cause: str) -> None:
    node = negotiated()
    report(node, False, reason)
    (row,) = node.ask("alarms")["alarms"]
    assert (row["severity"], row["object"], row["alarm"]) == ("major", "tunnel T", DOWN)
    assert (row["cause"], row["text"]) == (cause, f"IKE: {reason}")
    # The first reason stays, whatever fails on the way back.
    report(node, False, "negotiating with 40.0.0.2")
    assert node.ask("alarms")["alarms"] == [row]
    report(node, True)
    assert alarms(node) == []
    assert told(node) == [f"tunnel T {DOWN} major", f"tunnel T {DOWN} cleared"]


def test_a_tunnel_that_was_never_up_is_no_fault() -> None:
    node = Node(STATIC)
    node.boot_all(*PORTS)
    report(node, False, "the peer does not answer")
    node.run(2 * RETURN_TIME)
    assert not node.tunnel("T")["up"]
    assert [row for row in alarms(node) if row[1] == DOWN] == []


def test_a_tunnel_that_is_shut_down_is_no_fault_and_begins_anew() -> None:
    node = negotiated()
    shut = node.text.replace("tunnel ipsec T\n", "tunnel ipsec T\n  shutdown\n")
    report(node, False, "the peer does not answer")
    assert alarms(node) == [("tunnel T", DOWN)]
    node.ask("apply", text=shut)
    assert alarms(node) == []
    restart(node)
    node.ask("apply", text=STATIC)
    node.run(2 * RETURN_TIME)
    # It has not been up since.
    assert ("tunnel T", DOWN) not in alarms(node)


def test_a_tunnel_that_is_removed_has_no_alarm() -> None:
    node = negotiated()
    report(node, False, "the peer does not answer")
    lines = node.text.partition("tunnel ipsec T\n")
    rest = lines[2].partition("\ncard")
    node.ask("apply", text=lines[0] + "card" + rest[2])
    assert alarms(node) == []
    assert told(node)[-1] == f"tunnel T {DOWN} cleared"
    node.ask("apply", text=node.text)
    node.run(2 * RETURN_TIME)
    assert alarms(node) == [], "another tunnel of that name"


def test_a_commit_that_breaks_a_tunnel_is_a_fault_of_the_tunnel() -> None:
    node = booted()
    node.run(1.0)
    node.ask("apply", text=HIGH_AVAILABILITY.replace("  ip route 3.3.3.3/32 4.4.4.4\n", ""))
    (row,) = node.ask("alarms")["alarms"]
    assert (row["object"], row["cause"], row["text"]) == ("tunnel Tun-1", "noRoute", "no route to the peer")
    node.ask("apply", text=HIGH_AVAILABILITY.replace("  bind interface TI-1 C1\n", ""))
    assert node.ask("alarms")["alarms"] == [row]
    node.ask("apply", text=HIGH_AVAILABILITY)
    node.run(0.5)
    assert told(node) == [f"tunnel Tun-1 {DOWN} major", f"tunnel Tun-1 {DOWN} cleared"]


def test_a_tunnel_with_two_ways_is_down_with_the_last_of_them() -> None:
    node = booted(TWO_WAYS, "3/1", "3/11", "4/1", "4/2")
    node.carrier_event("3/11", False)
    node.run(3.0)
    assert [(row["object"], row["tunnels"]) for row in node.ask("alarms")["alarms"]] == [("port 3/11", 0)]
    node.kill_card("lc 4")
    node.run(3.0)
    rows = node.ask("alarms")["alarms"]
    assert [(row["object"], row["tunnels"]) for row in rows] == [("lc 4", 1), ("port 3/11", 1)]
    node.start_card("lc 4")
    node.run(3.0)
    assert alarms(node) == [("port 3/11", "portDown")]


@pytest.mark.parametrize("restarts", [False, True])
def test_what_stays_down_after_its_asp_came_back_is_a_fault(restarts: bool) -> None:
    node = negotiated(spare=False)
    node.kill_card("asp 2/1")
    node.run(5.0)
    node.start_card("asp 2/1")
    back = node.now
    if restarts:
        node.run(1.0)
        back = node.now
        restart(node)
    assert alarms(node) == []
    node.run(back + RETURN_TIME - 1.0 - node.now)
    assert alarms(node) == []
    node.run(2.0)
    assert alarms(node) == [("tunnel T", DOWN)]
    # A fault of its own stays when the ASP fails again, and is not told again.
    node.kill_card("asp 2/1")
    node.run(1.0)
    node.start_card("asp 2/1")
    node.run(2 * RETURN_TIME)
    assert alarms(node) == [("tunnel T", DOWN)]
    assert told(node).count(f"tunnel T {DOWN} major") == 1


def test_a_shut_card_has_no_alarm_and_neither_has_what_is_down_with_it() -> None:
    node = booted()
    node.ask("apply", text=HIGH_AVAILABILITY.replace("card ge-10-port 4\n", "card ge-10-port 4\n shutdown\n"))
    node.kill_card("lc 4")
    node.run(5.0)
    assert alarms(node) == []
    assert told(node) == []


# controllers that come and go


def test_a_later_controller_tells_no_alarm_again_and_loses_none() -> None:
    node = negotiated()
    node.carrier_event("3/1", False)
    report(node, False, "deleted by the peer")
    node.kill_card("asp 2/2")
    node.run(CARRIER_TIME + 0.2)
    rows, lines = node.ask("alarms")["alarms"], told(node)
    assert len(rows) == len(lines) == 3
    for down_for in (0.0, 3.0, 100.0):
        restart(node, down_for)
        assert node.ask("alarms")["alarms"] == rows
        assert told(node) == lines
    # What was mended while no controller was there is cleared by the next.
    node.kill_controller()
    node.start_card("asp 2/2")
    node.start()
    node.run(4.0)
    assert told(node) == [*lines, "asp 2/2 aseAsp2Down cleared"]


def test_what_fails_while_no_controller_is_there_is_told_by_the_next() -> None:
    node = booted()
    node.kill_controller()
    node.kill_card("asp 2/2")
    node.start()
    node.run(4.0)
    assert told(node) == ["asp 2/2 aseAsp2Down major"]
    # The tunnel was up: a later controller knows, though it never saw it so.
    node = negotiated()
    node.kill_controller()
    node.start()
    report(node, False, "the peer does not answer")
    node.run(RETURN_TIME - 1.0)
    assert alarms(node) == []
    node.run(4.0)
    assert alarms(node) == [("tunnel T", DOWN)]


def test_tunnels_that_a_spare_takes_over_have_time_to_come_up_there() -> None:
    # T is at the spare as soon as its ASP is dead.
    node = negotiated()
    node.kill_card("asp 2/1")
    assert node.controller is not None
    (plan,) = node.controller.node.plan.tunnels.values()
    assert plan.asp == "asp 2/2"
    node.run(RETURN_TIME - 1.0)
    (row,) = node.ask("alarms")["alarms"]
    assert (row["object"], row["tunnels"]) == ("asp 2/1", 0)
    node.run(2.0)
    assert alarms(node) == [("asp 2/1", "aseAsp1Down"), ("tunnel T", DOWN)]


def test_a_router_whose_processes_all_start_again_raises_nothing() -> None:
    node = booted()
    node.run(1.0)
    for _ in range(3):
        node.kill_controller()
        cards = list(node.cards)
        node.cards.clear()
        node.start()
        for card in cards:
            node.start_card(card, fresh=True)
        node.run(5.0)
    assert told(node) == []
    assert alarms(node) == []


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff", b"[]", b"{}", b'{"log":1,"alarms":[[1]],"up":[]}', b'{"log":"x","alarms":[],"up":[]}',
        b'{"log":1,"alarms":[["huge","asp 2/1","x","","",0]],"up":[]}', b'{"log":1,"alarms":[],"up":[[1,9e99]]}',
        b'{"log":1,"alarms":[],"up":[[1,99999999999]]}', b"[" * 100_000,
        b'{"log":1,"alarms":[],"up":[[0,99999999999],[99999999999,0]]}',
        b'{"log":1,"alarms":[["major","asp 2/1","x","","",NaN]],"up":[]}',
    ],
    ids=range(12),
)  # fmt: skip
def test_a_file_that_cannot_be_read_says_nothing(data: bytes) -> None:
    node = Node(HIGH_AVAILABILITY, state={"alarms.json": data})
    node.boot_all("3/1", "3/11", "4/1")
    node.kill_card("asp 2/1")
    assert told(node) == ["asp 2/1 aseAsp1Down major"]
    restart(node)
    assert told(node) == ["asp 2/1 aseAsp1Down major"]


def test_the_log_alone_says_what_stands() -> None:
    node = negotiated()
    report(node, False, "deleted by the peer")
    node.run(0.2)
    rows = node.ask("alarms")["alarms"]
    del node.state["alarms.json"]
    restart(node)
    assert node.ask("alarms")["alarms"] == rows
    assert told(node) == [f"tunnel T {DOWN} major"]


def test_lines_of_the_log_that_the_file_counts_do_not_count_again() -> None:
    def entry(number: int, state: str) -> LogEntry:
        alarm = Alarm(state, "asp 2/1", "aseAsp1Down", "died")
        return LogEntry(
            number, 50.0, LogRecord(50.0, alarm.logged_as, "alarm", "", alarm.line, dict(alarm.values))
        )

    table = AlarmTable()
    # That it was cleared, record 8, is no longer in the log.
    table.restore([], 9, [entry(7, "major")])
    assert table.standing == {}
    table.restore([], 9, [entry(7, "major"), entry(10, "major")])
    assert [(one.alarm.text, one.raised) for one in table.standing.values()] == [("died", 50.0)]
    table.restore([], 10, [entry(10, "major"), entry(11, "cleared")])
    assert table.standing == {}


def test_a_full_disk_only_puts_off_the_file() -> None:
    node = booted()
    node.run(1.0)
    node.full = True
    node.kill_card("asp 2/1")
    node.run(2.0)
    assert b"aseAsp1Down" not in node.state["alarms.json"]
    node.full = False
    node.run(40.0)
    assert b"aseAsp1Down" in node.state["alarms.json"]
    restart(node)
    assert told(node) == ["asp 2/1 aseAsp1Down major"]


def test_a_log_that_is_cleared_and_filtered_makes_nobody_tell_again() -> None:
    node = booted()
    node.kill_card("asp 2/1")
    node.run(1.0)
    node.ask("clear-log")
    restart(node)
    assert told(node) == []
    assert alarms(node) == [("asp 2/1", "aseAsp1Down")]


def test_kills_between_any_two_outputs_lose_no_alarm_and_tell_none_twice() -> None:
    rng, node = Random(5), booted()
    node.run(1.0)
    cards = [*node.cards]
    for _ in range(60):
        dead = [card for card in cards if card not in node.cards]
        assert node.controller is not None
        node.budget = rng.choice((1, 2, 4, 8, 1 << 20))
        try:
            card = rng.choice(cards)
            if card in dead:
                node.start_card(card, fresh=True)
            else:
                node.kill_card(card)
            node.run(rng.choice((0.0, 0.05, 0.12, 0.45, 0.55, 1.0)))
        except Cut:
            pass
        node.budget = 1 << 30
        restart(node, rng.choice((0.0, 1.0)))
        expected = {card for card in cards if card not in node.cards}
        assert {place for place, name in alarms(node) if name != DOWN} == expected
    standing: set[str] = set()
    for line in told(node):
        key, _, state = line.rpartition(" ")
        assert (key in standing) == (state == "cleared"), line
        (standing.discard if state == "cleared" else standing.add)(key)
    assert standing == {f"{place} {name}" for place, name in alarms(node)}
    assert len(told(node)) > 40


# many tunnels


def many(count: int) -> Node:
    text = HIGH_AVAILABILITY + "".join(
        f"context C1\n  interface X{i}\n    ip address 10.{i >> 8}.{i & 255}.1/30\n"
        f"tunnel ipsec x{i} manual\n  peer-end-point local 1.1.1.1 remote 3.3.3.3 context L1\n"
        f"  bind interface X{i} C1\n  seq 10 security-association m{i}\n" + sa(f"m{i}", 1000 + i)
        for i in range(count)
    )
    node = booted(text)
    assert node.ask("tunnels", limit=1)["tunnels"][0]["up"]
    node.run(1.0)
    return node


def test_a_thousand_tunnels_that_are_down_with_their_asp_cost_one_line() -> None:
    node = many(1000)
    assert json.loads(node.state["alarms.json"])["up"] == [[1, 1002]]
    node.kill_card("asp 2/1")
    node.run(1.0)
    (row,) = node.ask("alarms")["alarms"]
    assert (row["object"], row["tunnels"]) == ("asp 2/1", 1001)
    restart(node)
    assert node.ask("alarms")["alarms"] == [row]
    node.start_card("asp 2/1")
    node.run(1.0)
    assert told(node) == ["asp 2/1 aseAsp1Down major", "asp 2/1 aseAsp1Down cleared"]
    # A fault of their own is told of each, and is listed part by part.
    node.ask("commit", lines="context L1\n  no ip route 3.3.3.3/32 4.4.4.4\n")
    first = node.ask("alarms")
    assert len(first["alarms"]) == MAX_ALARMS
    assert "total" not in first
    rows, answer = first["alarms"], first
    while answer["next"]:
        answer = node.ask("alarms", after=answer["next"])
        rows += answer["alarms"]
    assert answer["total"] == {"major": 1001}
    assert [row["object"] for row in rows] == ["tunnel Tun-1", *(f"tunnel x{i}" for i in range(1000))]
    said = run(node, "show alarms").splitlines()
    assert len(said) == 1 + 1001 + 2
    assert json.loads(run(node, "show alarms | json")) == {"alarms": rows, "total": {"major": 1001}}
    # One that is cleared meanwhile ends no listing.
    assert node.ask("alarms", after="major ipsecTunnelDown tunnel x199b")["alarms"][0]["object"] == "tunnel x200"
    for wrong in ("x", "worst ipsecTunnelDown tunnel x1"):
        with pytest.raises(LookupError, match="is not the `next` of a part"):
            node.ask("alarms", after=wrong)
