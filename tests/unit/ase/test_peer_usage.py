"""What an ASP reports of its peers for accounting: changes now and then, and the last figures at the end."""

from __future__ import annotations

from math import inf

from chassis.ase.counters import DECAPSULATED, ENCAPSULATED, AspCounters
from chassis.ase.peer_usage import MAX_USAGES, USAGE_INTERVAL, UsageReports
from chassis.bus.counters import Counters
from chassis.bus.engine import Output, ToController
from chassis.bus.messages import PeerUsage, TunnelUsage
from chassis.bus.records import Instance, TunnelRecord
from chassis.bus.replication import RecordChange
from chassis.model.router import Tunnel

ASP = "asp 1/1"


def record(number: int, session: str = "S", asp: str = ASP) -> TunnelRecord:
    return TunnelRecord(
        number=number,
        config=Tunnel("T", "on-demand"),
        asp=asp,
        circuit=0,
        home="",
        context=1,
        outer_context=1,
        local=1,
        remote=2,
        queues=1,
        up=True,
        instance=Instance(on_demand=1, identity="x", profile="T", session=session),
    )


def usages(outputs: list[Output]) -> list[TunnelUsage]:
    found: list[TunnelUsage] = []
    for output in outputs:
        assert isinstance(output, ToController)
        assert isinstance(output.message, PeerUsage)
        assert len(output.message.tunnels) <= MAX_USAGES
        found += output.message.tunnels
    return found


def test_sessions_are_reported_when_they_have_used_something() -> None:
    counts = AspCounters(Counters())
    reports = UsageReports(ASP, counts)
    assert reports.next_timer() == inf
    put = (record(1), record(2), record(3, session=""), record(4, asp="asp 1/2"))
    assert reports.apply_records(RecordChange(put, ()), 5.0) == []
    assert reports.next_timer() == 5.0 + USAGE_INTERVAL
    for number in (1, 3, 4):
        counts.count_tunnel(number, DECAPSULATED, 3, 300)
        counts.count_tunnel(number, ENCAPSULATED, 2, 200)
    assert reports.on_timer(14.0) == []
    assert usages(reports.on_timer(15.0)) == [TunnelUsage(1, 3, 300, 2, 200)]
    assert usages(reports.on_timer(25.0)) == []
    assert [one.tunnel for one in usages(reports.repeat())] == [1, 2]
    counts.count_tunnel(1, DECAPSULATED, 1, 100)
    assert usages(reports.apply_records(RecordChange((), put), 26.0)) == [
        TunnelUsage(1, 4, 400, 2, 200),
        TunnelUsage(2, 0, 0, 0, 0),
    ]
    assert usages(reports.on_timer(35.0)) == []
    assert reports.next_timer() == inf


def test_a_message_has_a_bound() -> None:
    reports = UsageReports(ASP, AspCounters(Counters()))
    reports.apply_records(RecordChange(tuple(record(number) for number in range(1, 1102)), ()), 0.0)
    outputs = reports.repeat()
    assert len(outputs) == 3
    assert len(usages(outputs)) == 1101
