"""A whole chassis whose ASP gets twice what it can do: classes, by the packets that arrive and by the queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from chassis.ase.queues import MAX_QUEUE_PACKETS
from chassis.bus.batch import MAX_PACKETS
from tests.support import ROOT

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

LAB = "configs/priority/lab.yaml"
FLOWS = ("control", "voice", "data", "rest")
"""One for each queue, 0 to 3."""

PATIENT = {"heartbeat-misses": 100}
"""A machine with too much to do must not make a card look dead: here packets are counted, not deaths."""

CLASS = """
  num-queues 4
"""


def seen(lab: LabClient) -> dict[str, Any]:
    answer = lab.ask("a", "queues", {"tunnel": "office"})
    assert answer["errors"] == {}
    return dict(answer["cards"]["asp 1/1"])


def rest(lab: LabClient) -> None:
    """Nothing is under way any more."""
    lab.stop()
    lab.wait_until(lambda: seen(lab)["depth"] == 0)
    lab.drain()


@pytest.mark.behaviour("B-137")
def test_what_is_urgent_does_not_notice_that_there_is_too_much(lab_factory: LabFactory) -> None:
    lab = lab_factory(LAB, settings=PATIENT)
    lab.wait_until("tunnels up")
    lab.wait_until("flow control received >= 1000", within=60)
    rest(lab)
    rows = seen(lab)["sas"]
    assert [(row["name"], row["entry"]) for row in rows] == [("office", 10)]
    of = rows[0]["queues"]
    for number, flow in enumerate(FLOWS):
        report, row = lab.report(flow, final=True), of[str(number)]
        print(
            f"queue {number}: {row['dequeued']} dequeued, {row['dropped']} dropped, peak {row['peak_depth']},",
            end=" ",
        )
        print(
            f"99 % within {row['latency']['p99_ms']} ms; {flow}: {report['received']} of {report['sent']}", end=" "
        )
        print(f"arrived, 99 % within {report['latency']['p99_ms']} ms")
        assert row["dequeued"] + row["dropped"] <= report["sent"]
        assert 0 < report["received"] <= row["dequeued"]
        assert report["reordered"] == report["duplicated"] == 0
    # A machine too crowded for three eighths of the ASP's rate leaves the least urgent behind, in their order.
    # That only the last loses any is for the simulator.
    dropped = [of[number]["dropped"] for number in "0123"]
    assert (dropped[0], dropped) == (0, sorted(dropped))
    assert dropped[3] > 1000
    assert of["3"]["peak_depth"] == MAX_QUEUE_PACKETS
    # By how much is for make bench: a crowded machine makes all of them wait.
    assert of["0"]["latency"]["p99_ms"] < of["3"]["latency"]["p99_ms"]
    counters = lab.counters("a", "asp 1/1")
    assert counters["drop queue 3 full"] == of["3"]["dropped"]
    assert counters["queue 0 dequeued"] == of["0"]["dequeued"]
    # Whatever overtook whatever, sequence numbers were in order: the peer refused nothing.
    assert not [
        name for name in ("drop outside replay window", "drop replayed") if lab.counters("b", "asp 1/1").get(name)
    ]
    ledger = lab.accounting()
    assert (ledger.residual, ledger.unexplained) == (0, {})
    assert ledger.dropped["a asp 1/1"]["queue 3 full"] == of["3"]["dropped"]


def test_the_number_of_queues_changes_in_a_running_router(lab_factory: LabFactory) -> None:
    lab = lab_factory(LAB, settings=PATIENT)
    lab.wait_until("tunnels up")
    lab.wait_until("flow control received >= 100", within=60)
    text = (ROOT / "configs/priority/a.cfg").read_text()
    assert CLASS in text
    lab.apply("a", text.replace(CLASS, "\n  num-queues 1\n"))
    lab.wait_until(lambda: seen(lab)["queues"].get("single", {}).get("dropped", 0) > 100)
    # With one queue what is urgent waits as long as all the rest.
    passed = seen(lab)["queues"]["0"]["dequeued"]
    lab.wait_until(lambda: seen(lab)["queues"]["single"]["dequeued"] > 1000)
    assert seen(lab)["queues"]["0"]["dequeued"] == passed
    rest(lab)
    assert lab.report("control", final=True)["lost"] > 0
    ledger = lab.accounting()
    assert (ledger.residual, ledger.unexplained) == (0, {})


@pytest.mark.behaviour("B-136", "B-137")
def test_a_rate_and_a_mark_come_by_a_commit(lab_factory: LabFactory) -> None:
    lab = lab_factory(LAB, settings=PATIENT)
    lab.wait_until("tunnels up")
    lab.wait_until("flow control received >= 100", within=60)
    assert seen(lab)["rate"] == "1000 packets/s", "the lab's word"
    text = (ROOT / "configs/priority/a.cfg").read_text()
    paced = text.replace("  asp 1/1\n", "  asp 1/1\n  rate 5kpps\n")
    marked = paced.replace(
        "  bind interface private lan\n", "  bind interface private lan\n  qos policy policing low\n"
    )
    assert len(text) < len(paced) < len(marked)
    lab.apply("a", f"{marked}\nqos policy low policing\n  mark dscp af21\n")
    lab.wait_until(lambda: seen(lab)["rate"] == "5000 packets/s")
    before: list[dict[str, int]] = []

    def all_in_queue_2() -> bool:
        """Whether since the look before some hundred packets passed, all by queue 2, whatever they say."""
        before.append({number: row["dequeued"] for number, row in seen(lab)["queues"].items()})
        if len(before) == 1 or before[-1]["2"] < before[0]["2"] + 500:
            before[1:] = []
            return False
        first, last = before.pop(0), before[-1]
        return {number for number in last if last[number] != first[number]} == {"2"}

    lab.wait_until(all_in_queue_2)
    rest(lab)
    ledger = lab.accounting()
    assert (ledger.residual, ledger.unexplained) == (0, {})


def test_what_waits_goes_with_a_killed_asp_and_no_more(lab_factory: LabFactory) -> None:
    lab = lab_factory(LAB, settings=PATIENT)
    lab.wait_until("tunnels up")
    lab.wait_until(lambda: seen(lab)["queues"].get("3", {}).get("depth", 0) > 400)
    killed = lab.kill("a", "asp 1/1")
    lab.wait_until("a asp 1/1 down")
    lab.wait_until("tunnels up")
    received = lab.report("control")["received"]
    lab.wait_until(lambda: lab.report("control")["received"] > received + 100)
    rest(lab)
    ledger = lab.accounting()
    assert (ledger.residual, ledger.unexplained) == (0, {})
    print(f"killed at {killed:.3f}: {ledger.lost_in_crash} packets went with the process")
    assert 100 < ledger.lost_in_crash["a asp 1/1"] <= 4 * MAX_QUEUE_PACKETS + MAX_PACKETS, "its queues full"
