"""Accounting: what a report says, that none is lost or told twice, and what is dropped on purpose."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from chassis.aaa import accounting
from chassis.aaa.accounting_record import AccountingRecord, Status, TerminateCause
from chassis.aaa.actions import AccountingAcknowledged, AccountingDropped, RadiusLog
from tests.support.radius import BOOKS, WALL, A, MemoryServer, RadiusRig, aaa, attributes_of, settings

OTHER_BOOKS = replace(BOOKS, address="10.0.0.6")
REPORTS = settings(A, accounting_servers=(BOOKS,), accounting=True)


def report(number: int = 1, status: Status = "start", **other: Any) -> AccountingRecord:
    values = {"user": "gw.example.com", "time": WALL, "peer": "192.0.2.1", "local": "198.51.100.1", **other}
    return AccountingRecord(f"7-{number}-{status}", f"7-{number}", status, "vpn", **values)


def books(*servers: MemoryServer, **other: Any) -> RadiusRig:
    listed = tuple(server.address for server in servers)
    return RadiusRig(aaa(replace(REPORTS, accounting_servers=listed, **other)), servers)


def test_a_start_says_who_and_since_when() -> None:
    rig = books(MemoryServer(BOOKS))
    record = report(address="10.50.0.7", profile="branch", classes=(b"0x4142", b"\0\xff"))
    assert rig.account(record) == [AccountingAcknowledged("7-1-start")]
    request = rig.servers[0].requests[0]
    assert attributes_of(request) == {
        "Acct-Status-Type": [1],
        "Acct-Session-Id": ["7-1"],
        "User-Name": ["gw.example.com"],
        "Acct-Authentic": [1],
        "Service-Type": [5],
        "NAS-Identifier": ["R1"],
        "NAS-IP-Address": ["10.0.0.254"],
        "NAS-Port-Type": [5],
        "Called-Station-Id": ["198.51.100.1"],
        "Calling-Station-Id": ["192.0.2.1"],
        "Framed-IP-Address": ["10.50.0.7"],
        "Security-Service": ["ipsec profile branch"],
        "Event-Timestamp": [int(WALL)],
        "Acct-Delay-Time": [0],
        "Class": [b"0x4142", b"\0\xff"],
    }


def test_a_stop_counts_in_64_bits() -> None:
    rig = books(MemoryServer(BOOKS))
    record = report(
        status="stop", seconds=90, input_octets=(5 << 32) + 7, output_octets=3, input_packets=(1 << 32) + 2,
        output_packets=9, cause=TerminateCause.LOST_SERVICE,
    )  # fmt: skip
    rig.account(record)
    request = rig.servers[0].requests[0]
    counters = attributes_of(request).items()
    assert {name: one for name, (one,) in counters if name.startswith(("Acct-In", "Acct-Out", "Acct-Ter"))} == {
        "Acct-Input-Octets": 7,
        "Acct-Input-Gigawords": 5,
        "Acct-Input-Packets": 2,
        "Acct-Input-Octets-64": (5 << 32) + 7,
        "Acct-Input-Packets-64": (1 << 32) + 2,
        "Acct-Output-Octets": 3,
        "Acct-Output-Gigawords": 0,
        "Acct-Output-Packets": 9,
        "Acct-Output-Octets-64": 3,
        "Acct-Output-Packets-64": 9,
        "Acct-Terminate-Cause": 3,
    }
    assert request["Acct-Session-Time"] == [90]


def test_another_delay_takes_another_identifier_and_an_early_reply_still_counts() -> None:
    rig = books(MemoryServer(BOOKS, alive=False))
    rig.account(report())
    rig.run_until(25)
    requests = rig.servers[0].requests
    assert [one["Acct-Delay-Time"] for one in requests] == [[0], [10], [20]]
    assert [one["Event-Timestamp"] for one in requests] == [[int(WALL)]] * 3
    assert len({one.id for one in requests}) == 3
    rig.servers[0].alive = True
    reply = rig.servers[0].reply_to(rig.servers[0].raw[0])
    assert reply is not None
    rig.receive(rig.sent[0][1], reply)
    assert rig.done == [AccountingAcknowledged("7-1-start")]
    assert rig.client.next_timer() == inf


def test_the_same_delay_takes_the_same_octets() -> None:
    rig = books(MemoryServer(BOOKS, alive=False), timeout=0.25)
    rig.account(report())
    rig.run_until(0.5)
    assert len(rig.servers[0].raw) == 3
    assert len(set(rig.servers[0].raw)) == 1


def test_a_record_goes_to_the_next_server() -> None:
    rig = books(MemoryServer(BOOKS, alive=False), MemoryServer(OTHER_BOOKS))
    rig.account(report())
    rig.run_until(40)
    assert rig.done[-1] == AccountingAcknowledged("7-1-start")
    assert rig.client.pending_accounting() == ()


def test_records_rest_while_no_server_replies_and_none_is_lost() -> None:
    rig = books(MemoryServer(BOOKS, alive=False), dead_time=30)
    rig.account(report(1))
    rig.account(report(2))
    rig.run_until(60)
    assert [one.id for one in rig.client.pending_accounting()] == ["7-1-start", "7-2-start"]
    where = "10.0.0.5 port 1813"
    assert [one.text for one in rig.done if isinstance(one, RadiusLog)] == [
        f"RADIUS accounting server {where} of context vpn does not reply: it is passed over for 30 seconds",
        f"accounting rests for 60 seconds: no reply from any RADIUS server of context vpn: {where}",
    ]
    rig.servers[0].alive = True
    rig.run_until(100)
    assert {one.id for one in rig.done if isinstance(one, AccountingAcknowledged)} == {"7-1-start", "7-2-start"}
    assert rig.client.next_timer() == inf


def test_the_stop_of_a_session_waits_for_its_start() -> None:
    rig = books(MemoryServer(BOOKS, alive=False))
    rig.account(report(1))
    rig.account(report(1, "stop", seconds=5))
    assert [one["Acct-Status-Type"] for one in rig.servers[0].requests] == [[1]]
    rig.servers[0].alive = True
    rig.run_until(10)
    assert [one["Acct-Status-Type"] for one in rig.servers[0].requests] == [[1], [1], [2]]


def test_a_later_record_takes_the_place_of_an_interim_update_that_waits() -> None:
    rig = books(MemoryServer(BOOKS, alive=False))
    rig.account(report(1))
    rig.account(replace(report(1, "interim"), id="u1"))
    assert rig.account(replace(report(1, "interim"), id="u2")) == [
        AccountingDropped("u1", "a later record of its session is there")
    ]
    assert [one.id for one in rig.account(report(1, "stop")) if isinstance(one, AccountingDropped)] == ["u2"]
    assert [one.status for one in rig.client.pending_accounting()] == ["start", "stop"]


def test_an_interim_update_is_dropped_where_no_server_replies() -> None:
    rig = books(MemoryServer(BOOKS, alive=False))
    rig.account(report(1, "interim"))
    rig.run_until(40)
    assert [one.id for one in rig.done if isinstance(one, AccountingDropped)] == ["7-1-interim"]
    rig.servers[0].alive = True
    rig.account(report(1, "stop"))
    rig.run_until(400)
    assert rig.done[-1] == AccountingAcknowledged("7-1-stop")


def test_a_context_that_reports_nothing_drops_records() -> None:
    rig = RadiusRig(aaa(replace(REPORTS, accounting=False)), (MemoryServer(BOOKS),))
    assert rig.account(report()) == [AccountingDropped("7-1-start", "context vpn does not report sessions")]
    rig = books(MemoryServer(BOOKS, alive=False))
    rig.account(report())
    rig.configure(aaa(settings(A)))
    assert rig.done == [AccountingDropped("7-1-start", "context vpn does not report sessions")]
    assert rig.client.next_timer() == inf


def test_a_new_server_is_tried_at_once() -> None:
    rig = books(MemoryServer(BOOKS, alive=False))
    rig.account(report())
    rig.run_until(45)
    rig.servers = (MemoryServer(OTHER_BOOKS),)
    rig.configure(aaa(replace(REPORTS, accounting_servers=(OTHER_BOOKS,))))
    assert rig.done[-1] == AccountingAcknowledged("7-1-start")


def test_too_many_records_are_dropped_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "MOST_RECORDS", 2)
    rig = books(MemoryServer(BOOKS, alive=False))
    rig.account(report(1))
    rig.account(report(2))
    log, dropped = rig.account(report(3))
    assert isinstance(log, RadiusLog)
    assert dropped == AccountingDropped("7-3-start", "too many accounting records wait")
    assert rig.account(report(4)) == [AccountingDropped("7-4-start", "too many accounting records wait")]


def test_records_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "WINDOW", 3)
    rig = books(MemoryServer(BOOKS, alive=False))
    for number in range(8):
        rig.account(report(number))
    assert len(rig.sent) == 3
    rig.servers[0].alive = True
    rig.run_to_the_end()
    assert len([one for one in rig.done if isinstance(one, AccountingAcknowledged)]) == 8


def test_a_record_is_what_its_json_says() -> None:
    record = report(
        status="stop", address="10.50.0.7", classes=(b"\0\xff",), seconds=3, cause=TerminateCause.USER_REQUEST
    )
    assert AccountingRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize(
    "change",
    [
        {"status": "begun"}, {"classes": ["zz"]}, {"classes": "00"}, {"cause": 99}, {"seconds": -1},
        {"input_octets": 1 << 64}, {"input_octets": "7"}, {"id": None}, {"more": 1}, {"time": "now"},
    ],
)  # fmt: skip
def test_a_wrong_record_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="accounting record"):
        AccountingRecord.from_json({**report().to_json(), **change})
    with pytest.raises(ValueError, match="is missing"):
        AccountingRecord.from_json({})


@profile(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32))
def test_books_balance_through_silence_and_restarts(seed: int) -> None:
    """Servers come and go, and the controller is killed: each session is started and stopped at a server, in that
    order, and nothing that a server acknowledged is told again by who kept it."""
    chance = random.Random(seed)
    servers = (MemoryServer(BOOKS), MemoryServer(OTHER_BOOKS))
    rig = books(*servers, dead_time=30)
    kept: dict[str, AccountingRecord] = {}
    open_sessions: list[int] = []

    def settle() -> None:
        for one in rig.done:
            if isinstance(one, AccountingAcknowledged | AccountingDropped):
                kept.pop(one.id, None)
        rig.done.clear()

    def tell(record: AccountingRecord) -> None:
        if record.status != "interim":
            kept[record.id] = record
        rig.account(record)

    sessions = 0
    for _ in range(40):
        act = chance.choice(["start", "start", "stop", "interim", "flip", "wait", "kill"])
        when = WALL + rig.now
        if act == "start":
            sessions += 1
            open_sessions.append(sessions)
            tell(report(sessions, time=when))
        elif act == "stop" and open_sessions:
            tell(report(open_sessions.pop(chance.randrange(len(open_sessions))), "stop", time=when))
        elif act == "interim" and open_sessions:
            record = report(chance.choice(open_sessions), "interim", time=when)
            tell(replace(record, id=f"{record.id}-{rig.now}"))
        elif act == "flip":
            server = chance.choice(servers)
            server.alive = not server.alive
        elif act == "wait":
            rig.run_until(rig.now + chance.choice([1, 15, 100]))
        elif act == "kill":
            settle()
            assert {one.id for one in rig.client.pending_accounting()} == set(kept)
            texts = [json.dumps(one.to_json()) for one in kept.values()]
            rig = RadiusRig(rig.config, servers, now=rig.now)
            for text in texts:
                rig.account(AccountingRecord.from_json(json.loads(text)))
        settle()
    for server in servers:
        server.alive = True
    for number in open_sessions:
        tell(report(number, "stop", time=WALL + rig.now))
    rig.run_to_the_end()
    settle()
    assert kept == {}
    told: dict[str, list[int]] = {}
    for server in servers:
        for request in server.requests:
            told.setdefault(request["Acct-Session-Id"][0], []).append(request["Acct-Status-Type"][0])
    assert len(told) == sessions
    assert all({1, 2} <= set(kinds) for kinds in told.values())
