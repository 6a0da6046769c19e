"""Queues, marks and rates by configuration alone, through whole routers in the simulator (guide 8.5, table 3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chassis.model.qos import DSCPS
from tests.support.qos_lab import KINDS, PORTS, QosLab, burst, queues_of
from tests.support.sim_shell import SimShell

RATE = 200
"""Packets a second of the ASP."""

EACH = 150
"""Packets a second of each class: four of them are three times the rate."""

SECONDS = 6

CLASSES = {f"class{port - 1}": {"port": port} for port in PORTS}
"""A flow for each port; nothing of its packets says which class it is."""

MARKED = {1: "mark dscp cs6", 2: "mark dscp ef", 3: "mark priority 4", 4: "mark dscp df"}
"""Marks of the ports: queues 0 to 3."""

SELECTORS = {f"cs{number}": queue for number, queue in enumerate((3, 3, 2, 2, 1, 1, 0, 0))}
ASSURED = {f"af{group}{drop}": 3 - group // 2 for group in (1, 2, 3) for drop in (1, 2, 3)}
ASSURED = {name: 3 if name[2] == "1" else 2 for name in ASSURED}
ASSURED |= {"af41": 1, "af42": 1, "af43": 1, "ef": 1}


def received(shell: SimShell) -> dict[str, int]:
    return {name: flow["received"] for name, flow in shell.flows().items()}


def applied(shell: SimShell, text: str) -> bool:
    """Put a configuration of router a in force; return whether it was taken."""
    return bool(shell.ask("a", "apply", {"text": text, "file": "a.cfg"})["applied"])


def overload(shell: SimShell) -> dict[str, int]:
    """Send all classes at once; what has arrived at the moment when the senders end."""
    burst(shell, EACH, EACH * SECONDS, *CLASSES)
    shell.pass_time(SECONDS)
    return received(shell)


@pytest.mark.behaviour("B-133", "B-136", "B-137")
@pytest.mark.parametrize("kind", KINDS)
def test_the_marks_of_ports_show_in_what_passes(tmp_path: Path, kind: str) -> None:
    shell = QosLab(kind, f"{RATE}pps", marks=MARKED).boot(tmp_path, CLASSES)
    passed = overload(shell)
    whole = EACH * SECONDS
    assert passed["class0"] >= whole - 5, "nothing is before it"
    assert passed["class1"] == pytest.approx((RATE - EACH) * SECONDS, abs=25), "it gets what the first leaves"
    # The one packet of each queue that went first, before anything waited, and what the first burst let through.
    assert passed["class2"] <= 5
    assert passed["class3"] <= 5
    shell.pass_time(30)
    (line,) = queues_of(shell)
    flows = shell.flows()
    for number, name in enumerate(CLASSES):
        assert line[str(number)]["dequeued"] == flows[name]["received"], "each class waits in its queue alone"
        assert line[str(number)]["dropped"] == flows[name]["sent"] - flows[name]["received"]
    assert [line[str(number)]["dropped"] for number in range(2)] == [0, pytest.approx(88, abs=25)]
    assert f"rate: {RATE} packets/s" in shell.show("a", "show ipsec queues")


@pytest.mark.behaviour("B-131")
@pytest.mark.parametrize("kind", ["manual", "manual economical"])
def test_without_a_policy_all_traffic_has_one_priority(tmp_path: Path, kind: str) -> None:
    shell = QosLab(kind, f"{RATE}pps", queues=None, marks=MARKED).boot(tmp_path, CLASSES)
    passed = overload(shell)
    for name in CLASSES:
        assert passed[name] == pytest.approx(RATE * SECONDS / len(CLASSES), rel=0.25), passed
    (line,) = queues_of(shell)
    assert line.keys() == {"line", "single"}


@pytest.mark.behaviour("B-132")
def test_the_number_of_queues_is_one_or_four(tmp_path: Path) -> None:
    lab = QosLab("manual", f"{RATE}pps", queues="num-queues 1", marks=MARKED)
    shell = lab.boot(tmp_path, CLASSES)
    burst(shell, 10, 5, *CLASSES)
    shell.pass_time(2)
    (line,) = queues_of(shell)
    assert line.keys() == {"line", "single"}
    text = lab.router(first=True)
    for number in (0, 2, 3, 5, 8):
        assert not applied(shell, text.replace("num-queues 1", f"num-queues {number}"))
    assert applied(shell, text.replace("num-queues 1", "num-queues 4"))
    burst(shell, 10, 5, *CLASSES)
    shell.pass_time(2)
    (line,) = queues_of(shell)
    assert line.keys() == {"line", "single", "0", "1", "2", "3"}
    assert {line[str(number)]["dequeued"] for number in range(4)} == {5}


def test_every_name_is_in_one_of_the_tables() -> None:
    assert {*SELECTORS, *ASSURED, "df"} == {*DSCPS}


@pytest.mark.parametrize("kind", ["manual", "manual economical"])
@pytest.mark.parametrize(
    "table",
    [
        pytest.param(SELECTORS, id="selectors", marks=pytest.mark.behaviour("B-134")),
        pytest.param(ASSURED, id="assured", marks=pytest.mark.behaviour("B-135")),
    ],
)
def test_the_dscp_of_a_packet_chooses_its_queue(tmp_path: Path, kind: str, table: dict[str, int]) -> None:
    flows: dict[str, dict[str, Any]] = {name: {"port": 1, "dscp": DSCPS[name]} for name in table}
    shell = QosLab(kind, "10kpps").boot(tmp_path, flows)
    expected = dict.fromkeys(range(4), 0)
    for name, number in table.items():
        burst(shell, 100, 3, name)
        shell.pass_time(0.5)
        expected[number] += 3
        (line,) = queues_of(shell)
        assert {queue: line.get(str(queue), {"dequeued": 0})["dequeued"] for queue in range(4)} == expected, name
    assert set(received(shell).values()) == {3}


@pytest.mark.behaviour("B-134", "B-135", "B-136")
def test_a_mark_goes_before_the_dscp_and_follows_each_commit(tmp_path: Path) -> None:
    lab = QosLab("manual", "10kpps", marks={1: "mark dscp df"})
    shell = lab.boot(tmp_path, {"urgent": {"port": 1, "dscp": 48}, "other": {"port": 2, "dscp": 48}})
    text = lab.router(first=True)
    priorities = {f"priority {number}": number // 2 for number in range(8)}
    names = {f"dscp {name}": number for name, number in (SELECTORS | ASSURED).items()}
    passed = dict.fromkeys(range(4), 0)
    for mark, number in {**names, **priorities}.items():
        assert applied(shell, text.replace("mark dscp df", f"mark {mark}"))
        burst(shell, 100, 2, "urgent")
        shell.pass_time(0.5)
        passed[number] += 2
        (line,) = queues_of(shell)
        assert {queue: line.get(str(queue), {"dequeued": 0})["dequeued"] for queue in range(4)} == passed, mark
    assert "Mark          : 0, queue 3" in shell.show("a", "show port 3/1 detail")
    # A port without a policy, and one whose policy marks nothing any more, leave it to the DSCP.
    assert applied(shell, text.replace(" mark dscp df\n", ""))
    burst(shell, 100, 2, "urgent", "other")
    shell.pass_time(0.5)
    (line,) = queues_of(shell)
    assert line["0"]["dequeued"] == passed[0] + 4


@pytest.mark.behaviour("B-138")
@pytest.mark.parametrize("kind", ["manual", "manual economical"])
def test_each_sa_of_a_tunnel_has_queues_of_its_own(tmp_path: Path, kind: str) -> None:
    flows = {"full": {"port": 1, "destination": "60.1.1.1"}, "few": {"port": 2, "destination": "60.2.1.1"}}
    lab = QosLab(kind, f"{RATE}pps", marks=MARKED | {2: "mark dscp cs6"}, lists=("60.1.0.0/16", "60.2.0.0/16"))
    shell = lab.boot(tmp_path, flows)
    burst(shell, 600, 1800, "full")
    burst(shell, 50, 150, "few")
    shell.pass_time(3)
    first, second = queues_of(shell)
    assert (first["line"], second["line"]) == (10, 20)
    assert first["0"]["dropped"] > 100
    assert first["0"]["depth"] > 400
    # The same class of the other SA: it has its own queue, and its turns.
    assert second["0"]["dropped"] == 0
    assert second["0"]["dequeued"] >= 140


@pytest.mark.behaviour("B-139")
@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_is_of_its_tunnel_whatever_the_kind(tmp_path: Path, kind: str) -> None:
    lab = QosLab(kind, f"{RATE}pps", marks=MARKED)
    shell = lab.boot(tmp_path, CLASSES)
    text = lab.router(first=True)
    for line, wanted in ((" qos policy queuing four\n", {"0", "1", "2", "3"}), ("", {"single"})):
        assert applied(shell, text.replace(" qos policy queuing four\n", line))
        shell.wait_until(shell.tunnels_up)
        before = queues_of(shell)
        burst(shell, 10, 5, *CLASSES)
        shell.pass_time(2)
        (now,) = queues_of(shell)
        old = before[0] if before else {}
        moved = {name for name, row in now.items() if row != old.get(name) and name != "line"}
        assert moved == wanted


def test_a_rate_by_configuration_goes_before_the_labs_word(tmp_path: Path) -> None:
    lab = QosLab("manual", "1M")
    shell = lab.boot(tmp_path, CLASSES)
    assert "1000000 bit/s" in shell.show("a", "show asp 1/1")
    for line, said in ((" rate 20kpps\n", "20000 packets/s"), (" rate 50000\n", "50000 bit/s"), ("", "none")):
        text = lab.router(first=True).replace(" rate 1M\n", line)
        assert applied(shell, text)
        shell.wait_until(lambda said=said: f"rate: {said}" in shell.show("a", "show ipsec queues"))  # type: ignore[misc]
        assert (said if line else " -  ") in shell.show("a", "show asp 1/1")
