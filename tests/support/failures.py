"""What a death costs a lab under traffic: rounds of a kill or a hang, and what was lost in each.

Tests take a few rounds and judge what must hold on any machine; `make bench` takes ten and holds times and losses
to their bounds. Losses are milliseconds of a flow, times too.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from launch.client.lab_client import LabTimeout

if TYPE_CHECKING:
    from launch.client.accounting import PacketAccounting
    from launch.client.lab_client import LabClient

REST = 10.0
"""Seconds in which what is under way must have come to rest."""


def took(lab: LabClient, flow: str, step: str, since: float) -> bool:
    """Whether a traced packet of a flow that was sent since then arrived by way of this step."""
    return any(step in path.steps for path in lab.paths(flow, since) if path.arrived)


def stands(lab: LabClient, node: str, card: str, boot: int) -> bool:
    """Whether a later start of a card than this one is admitted and usable."""
    row = lab.node(node).card(card)
    return bool(row["boot"] > boot and row["usable"])


def at_rest(lab: LabClient) -> PacketAccounting:
    """The books of a lab whose flows have stopped, at a moment when nothing is under way: not even IKE or ARP."""
    lab.stop()
    lab.drain()
    ledgers: list[PacketAccounting] = []

    def rests() -> bool:
        ledgers.append(lab.accounting())
        return not ledgers[-1].unexplained

    with suppress(LabTimeout):
        lab.wait_until(rests, REST)
    return ledgers[-1]


def has_names(ledger: PacketAccounting) -> bool:
    """Whether every packet that was lost went with a process that died or was dropped for a cause with a name."""
    return not (ledger.unexplained or ledger.residual or ledger.overflowed)


def flowing(lab: LabClient) -> None:
    """Both flows of `configs/high-availability*` run, the forward one by the preferred tunnel."""
    lab.wait_until("tunnels up")
    lab.start("forward", "reverse")
    lab.wait_until("flow forward via ha asp 2/1")
    lab.wait_until("flow reverse received >= 100")


def _settle(lab: LabClient, seconds: float) -> None:
    began = lab.clock()
    lab.wait_until(lambda: lab.clock() > began + seconds)


@dataclass(slots=True)
class Killed:
    """Rounds in which the preferred ASP of two was killed, each of them until its own start was back in use.

    `moved` is what the forward flow lost until the second ASP had it; `lost` and `overtaken` are its packets on
    the way back; `reverse` is what the other direction lost, less the time until all was back; `back` is the time
    from the new start's admission until it was in use.
    """

    moved: list[float] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    overtaken: list[int] = field(default_factory=list)
    reverse: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)


def asp_killed(lab: LabClient, rounds: int, restart: float) -> Killed:
    """Manual keys: `restart` is the lab's delay of a dead card's next start, in seconds."""
    found = Killed()
    for _ in range(rounds):
        reordered = lab.report("forward")["reordered"]
        boot = lab.node("ha").card("asp 2/1")["boot"]
        killed = lab.kill("ha", "asp 2/1")
        lab.wait_until(partial(took, lab, "forward", "ha 2/2 encapsulate", killed))
        lab.wait_until(partial(stands, lab, "ha", "asp 2/1", boot))
        lab.wait_until("tunnel Tun-1 of ha up")
        back = lab.clock()
        lab.wait_until(partial(took, lab, "forward", "ha 2/1 encapsulate", back))
        settled = lab.clock()
        found.back.append((settled - back) * 1e3)
        lab.wait_until(partial(_received, lab, "forward", settled))
        _settle(lab, 0.3)
        half = killed + restart / 2
        found.moved.append(lab.report("forward", since=killed - 0.05, until=half)["window_loss_ms"])
        after = lab.report("forward", since=half)
        found.lost.append(after["window_lost"])
        found.overtaken.append(after["reordered"] - reordered)
        lost = lab.report("reverse", since=killed - 0.05)["window_loss_ms"]
        found.reverse.append(lost - (settled - killed) * 1e3)
    return found


def _received(lab: LabClient, flow: str, since: float) -> bool:
    return bool(lab.report(flow, since=since)["received"])


def _booted(lab: LabClient, node: str, boot: int) -> bool:
    return bool(lab.node(node).status()["boot"] == boot)


def negotiated_asp_killed(lab: LabClient, rounds: int, restart: float) -> Killed:
    """Tunnels that IKE makes anew: `reverse` is the whole loss until the peer knows."""
    found = Killed()
    for _ in range(rounds):
        boot = lab.node("ha").card("asp 2/1")["boot"]
        killed = lab.kill("ha", "asp 2/1")
        lab.wait_until(partial(took, lab, "forward", "ha 2/2 encapsulate", killed))
        lab.wait_until(partial(stands, lab, "ha", "asp 2/1", boot))
        started = lab.clock()
        lab.wait_until("tunnel Tun-1 of ha up")
        lab.wait_until(partial(took, lab, "forward", "ha 2/1 encapsulate", started))
        found.back.append((lab.clock() - started) * 1e3)
        lab.wait_until(partial(took, lab, "reverse", "ha 2/1 decapsulate", started))
        settled = lab.clock()
        _settle(lab, 0.3)
        until = killed + restart / 2
        found.moved.append(lab.report("forward", since=killed - 0.05, until=until)["window_loss_ms"])
        found.reverse.append(lab.report("reverse", since=killed - 0.05, until=settled)["window_loss_ms"])
    return found


def asp_hung(lab: LabClient, rounds: int) -> list[float]:
    """The forward flow's losses until the preferred ASP, given up while it hung, was killed and started again."""
    lost = []
    for _ in range(rounds):
        boot = lab.node("ha").card("asp 2/1")["boot"]
        stopped = lab.stop_card("ha", "asp 2/1")
        lab.wait_until(partial(took, lab, "forward", "ha 2/2 encapsulate", stopped))
        # One that stays hung is killed and started again.
        lab.wait_until(partial(stands, lab, "ha", "asp 2/1", boot))
        lab.wait_until("tunnel Tun-1 of ha up")
        back = lab.clock()
        lab.wait_until(partial(took, lab, "forward", "ha 2/1 encapsulate", back))
        lost.append(lab.report("forward", since=stopped - 0.05, until=back)["window_loss_ms"])
    return lost


LINE_CARD_FLOWS = ("economical", "circuit", "other")


@dataclass(slots=True)
class LineCardKilled:
    """Rounds in which a line card of `configs/line-cards` was killed: the economical tunnel's loss, the time until
    the circuit-based tunnel had a circuit on another line card, packets of the flow that neither uses."""

    economical: list[float] = field(default_factory=list)
    circuit: list[float] = field(default_factory=list)
    other: list[int] = field(default_factory=list)


def line_card_killed(lab: LabClient, rounds: int) -> LineCardKilled:
    """AssertionError where the circuit did not move, or nobody noted that it did."""
    lab.wait_until("tunnels up")
    lab.start(*LINE_CARD_FLOWS)
    for flow in LINE_CARD_FLOWS:
        lab.wait_until(f"flow {flow} received >= 100")
    found = LineCardKilled()
    for _ in range(rounds):
        before = lab.node("a").tunnel("circuit")
        assert before["home"] == "lc 4"
        killed = lab.kill("a", "lc 4")
        lab.wait_until(lambda: lab.node("a").tunnel("circuit")["home"] == "lc 5")
        lab.wait_until("tunnel circuit of a up")
        after = lab.node("a").tunnel("circuit")
        assert after["circuit"] not in (0, before["circuit"])
        found.circuit.append((lab.clock() - killed) * 1e3)
        half = lab.clock()
        found.economical.append(lab.report("economical", since=killed - 0.05, until=half)["window_loss_ms"])
        lab.wait_until(lambda: lab.node("a").tunnel("circuit")["home"] == "lc 4")
        lab.wait_until("tunnels up")
        received = {flow: lab.report(flow)["received"] for flow in LINE_CARD_FLOWS}
        for flow, packets in received.items():
            lab.wait_until(f"flow {flow} received >= {packets + 200}")
        found.other.append(lab.report("other", since=killed - 0.05)["window_lost"])
        said = [event["text"] for event in lab.events(killed)]
        moved = f"circuit {after['circuit']} on lc 5 in place of {before['circuit']} on lc 4"
        assert f"tunnel circuit: {moved}" in said, said
    return found


def standing(lab: LabClient, node: str) -> dict[str, Any]:
    """What a controller's death must not change."""
    status = lab.node(node).status()
    return {
        "cards": {row["card"]: (row["boot"], row["epoch"], row["usable"]) for row in status["cards"]},
        "circuits": sorted(map(str, status["circuits"])),
        "tunnels": {row["name"]: (row["number"], row["circuit"], row["home"], row["asp"],
            row["up"]) for row in status["tunnels"]},
    }  # fmt: skip


def controller_killed(lab: LabClient, node: str, rounds: int) -> list[float]:
    """Seconds in each round until the new controller knew everything again; AssertionError where it took a tunnel
    for another."""
    before = standing(lab, node)
    boot = lab.node(node).status()["boot"]
    times = []
    for number in range(rounds):
        killed = lab.kill(node, "xcrp")
        lab.wait_until(partial(_booted, lab, node, boot + number + 1))
        lab.wait_until(lambda: standing(lab, node) == before)
        times.append(lab.clock() - killed)
        events = [event["text"] for event in lab.node(node).status()["events"]]
        assert not [text for text in events if text.startswith("tunnel")], events
    return times
