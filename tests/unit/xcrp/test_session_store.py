"""The file of accounting sessions: what is read back, when it is written, and what a damaged one costs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chassis.aaa.accounting_record import AccountingRecord, TerminateCause
from chassis.bus.engine import Append, Output, Persist
from chassis.xcrp.peer_sessions import MIN_DUE, drop_stale, terminate_cause
from chassis.xcrp.session_store import MIN_LINES, WRITE_DELAY, SessionStore


def start(session: str) -> AccountingRecord:
    return AccountingRecord(
        f"{session} start", session, "start", "inner", "one.example", 1000.0, classes=(b"\0gold",), profile="T"
    )


def stop(session: str) -> AccountingRecord:
    return replace(start(session), id=f"{session} stop", status="stop", cause=TerminateCause.LOST_CARRIER)


def written(outputs: list[Output], before: bytes = b"") -> bytes:
    for output in outputs:
        assert isinstance(output, Append | Persist)
        before = output.data if isinstance(output, Persist) else before + output.data
    return before


def read(data: bytes) -> SessionStore:
    store = SessionStore()
    assert store.read(data) == ""
    return store


def test_what_is_open_or_not_acknowledged_is_read_back() -> None:
    store = SessionStore()
    for session in ("A", "B", "C", "D"):
        store.begin(start(session), 0.0)
    store.done("A", "start", 0.1)
    store.end(stop("B"), 0.1)
    store.end(stop("C"), 0.1)
    store.done("C", "stop", 0.2)
    store.done("D", "interim", 0.2)
    store.end(stop("unknown"), 0.2)
    again = read(written(store.write()))
    assert again.sessions == store.sessions
    assert list(again.sessions) == ["A", "B", "D"]
    assert (again.sessions["A"].started, again.sessions["A"].stop) == (True, None)
    assert again.sessions["B"].stop == stop("B")
    assert again.sessions["D"].start == start("D")


def test_a_second_is_one_write() -> None:
    store = SessionStore()
    store.begin(start("A"), 5.0)
    store.begin(start("B"), 5.5)
    assert store.next_timer() == 5.0 + WRITE_DELAY
    assert store.flush(5.9) == []
    (output,) = store.flush(6.0)
    assert isinstance(output, Append)
    assert output.data.count(b"\n") == 2
    assert store.flush(100.0) == []


def test_the_past_is_cut_off() -> None:
    store, data, wholes = SessionStore(), b"", 0
    for at in range(MIN_LINES):
        store.begin(start(f"{at}"), 0.0)
        store.end(stop(f"{at}"), 0.0)
        store.done(f"{at}", "stop", 0.0)
        outputs = store.write()
        wholes += isinstance(outputs[0], Persist)
        data = written(outputs, data)
        assert data.count(b"\n") <= MIN_LINES
    assert wholes == 2
    assert read(data).sessions == {}


def test_a_failed_write_is_made_again_as_a_whole() -> None:
    store = SessionStore()
    store.begin(start("A"), 0.0)
    store.write()
    store.on_unwritten(1.0)
    assert store.next_timer() == 1.0 + WRITE_DELAY
    (output,) = store.flush(2.0)
    assert isinstance(output, Persist)
    assert list(read(output.data).sessions) == ["A"]


def test_damaged_lines_cost_themselves_alone() -> None:
    store = SessionStore()
    store.begin(start("A"), 0.0)
    store.begin(start("B"), 0.0)
    data = written(store.write())
    bad = b'{"stop": 7}\n{"done": "Z", "status": "stop"}\n[]\n\xff\n' + data + b'{"start": {"id"'
    again = SessionStore()
    assert again.read(bad) == "sessions.jsonl: 5 lines can't be read"
    assert list(again.sessions) == ["A", "B"]
    assert isinstance(again.write()[0], Persist)


def test_causes_of_an_end() -> None:
    causes = {
        "session timeout": TerminateCause.SESSION_TIMEOUT,
        "deleted by the peer": TerminateCause.USER_REQUEST,
        "cleared by the operator": TerminateCause.ADMIN_RESET,
        "asp 2/1 died": TerminateCause.NAS_ERROR,
        "no answer from 50.0.0.1": TerminateCause.LOST_CARRIER,
        "something else": TerminateCause.LOST_SERVICE,
    }
    assert {reason: terminate_cause(reason, by_commit=False) for reason in causes} == causes
    assert terminate_cause("shutdown", by_commit=True) is TerminateCause.ADMIN_RESET


def test_a_last_line_without_its_end_is_not_joined_with_the_next() -> None:
    store = SessionStore()
    store.begin(start("A"), 0.0)
    cut = written(store.write())[:-1]
    store = read(cut)
    store.begin(start("B"), 1.0)
    assert list(read(written(store.write(), cut)).sessions) == ["A", "B"]


@pytest.mark.parametrize(("name", "value"), [("time", float("nan")), ("time", float("inf")), ("address", "x")])
def test_a_record_that_no_packet_can_carry_is_not_read(name: str, value: object) -> None:
    line = json.dumps({"start": {**start("A").to_json(), name: value}})
    store = SessionStore()
    assert store.read(f"{line}\n".encode()) == "sessions.jsonl: 1 lines can't be read"
    assert store.sessions == {}


def test_times_of_what_has_ended_are_dropped() -> None:
    live = dict.fromkeys(range(10))
    due = [(float(1000 - number), number) for number in range(2 * len(live) + MIN_DUE)]
    drop_stale(due, live)
    assert len(due) == 2 * len(live) + MIN_DUE
    due.append((5.0, 77))
    drop_stale(due, live)
    assert sorted(number for _, number in due) == list(live)
    assert due[0] == (991.0, 9)
