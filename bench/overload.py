"""A minute at twice the highest load: what arrives, and whether IKE, DPD and heartbeats are unharmed.

The site-to-site lab is offered more than it carries, in one direction. Meanwhile its CHILD SAs and IKE SAs are
rekeyed, from both ends, and the end that receives nothing probes its peer. The accounting must balance in the end.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bench.report import Report
from bench.search import STRIDE
from bench.site import BAR_AT, NAME, site
from bench.stream import GUESS, sized, stream_of
from launch.client.lab_client import LabTimeout
from launch.scenario.boot import boot

if TYPE_CHECKING:
    from launch.client.accounting import PacketAccounting
    from launch.client.lab_client import LabClient

SUITE, SIZE = BAR_AT
SECONDS = 60.0
FACTOR = 2.0
"""Offered load, as a multiple of the highest one that is carried."""
BAR = 0.9
"""Least share of the highest load that must arrive."""
SETTINGS = {"dpd-interval": "1s"}
"""`ike keepalive`, which both configurations have, gives no interval."""
TUNNELS = {"a": "rec_1_1", "b": "rec_2_1"}
SILENT = "a"
"""The end that receives no packets of the flow, so that it probes its peer."""
REKEY_EVERY = 10.0
REKEYS = (("a", ""), ("b", ""), ("a", "ike"), ("b", "ike"))
"""Rekeys in turn: which end begins, and what the command names: the CHILD SAs of the tunnel, or its IKE SA."""
REKEYED_WITHIN = 10.0
LOOKS = 10
"""Looks at the counters of IKE, the least of which has no message under way."""
LOOK = 0.05
UNDER_WAY = 5.0
"""Time (s) in which the accounting must balance after the flow has stopped."""


@dataclass(slots=True)
class Overloaded:
    """Result of the minute. `rate` (packets/s) arrived; `rekeys` are the times (s) that rekeys took.

    `harm` has every event of the lab: there is none while all goes well. `lag` (s) is the largest lateness of a
    card's loop that heartbeats reported.
    """

    rate: float
    rekeys: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Rekeys that did not succeed, with the reason."""
    probes: int = 0
    """DPD messages that the silent end sent."""
    messages: int = 0
    """IKE messages that both ends received."""
    lost: int = 0
    """IKE messages, also DPD's, that were sent and not received."""
    retransmissions: int = 0
    fenced: int = 0
    """Packets dropped by cards that fenced themselves, because they were stalled for too long."""
    lag: float = 0.0
    harm: list[str] = field(default_factory=list)
    ledger: PacketAccounting | None = None


def overload(lab: LabClient, name: str, rate: float, seconds: float = SECONDS) -> Overloaded:
    """Offer a flow of a booted lab at `rate` (packets/s, more than it carries) for `seconds`, with rekeys."""
    lost, counted, fenced, boots = _lost(lab), _counted(lab), _fenced(lab), _boots(lab)
    target = lab.flow(name).target.node
    started = lab.start(name, rate=rate)
    lab.wait(1.0)
    result = Overloaded(0.0)
    begin, first = lab.clock(), lab.counters(target)[f"flow {name} received"]
    rekey_at = begin
    while (now := lab.clock()) < begin + seconds:
        result.lag = max(result.lag, *_lags(lab))
        if now >= rekey_at:
            rekey_at += REKEY_EVERY
            _rekey(lab, result)
        lab.wait(min(1.0, max(begin + seconds - lab.clock(), 0.0)))
    end, last = lab.clock(), lab.counters(target)[f"flow {name} received"]
    result.rate = (last - first) / (end - begin)
    lab.stop(name)
    lab.drain(name)
    result.lost = _lost(lab) - lost
    after = _counted(lab)
    probes, received, again = "DPD probes sent", "messages received", "retransmissions"
    result.probes = after[SILENT][probes] - counted[SILENT][probes]
    result.messages = sum(after[node][received] - counted[node][received] for node in TUNNELS)
    result.retransmissions = sum(after[node][again] - counted[node][again] for node in TUNNELS)
    result.fenced = _fenced(lab) - fenced
    result.harm = [f"{event['node']}: {event['text']}" for event in lab.events(started)]
    if (new := _boots(lab)) != boots:
        result.harm.append(f"other processes: {sorted(dict(new.items() ^ boots.items()))}")
    # A probe may be under way.
    with suppress(LabTimeout):
        lab.wait_until(lambda: not lab.accounting().unexplained, UNDER_WAY)
    result.ledger = lab.accounting()
    return result


def _rekey(lab: LabClient, result: Overloaded) -> None:
    node, what = REKEYS[(len(result.rekeys) + len(result.failed)) % len(REKEYS)]
    before = _newest(lab, what)
    began = lab.clock()

    def done() -> bool:
        """Return whether both ends have the same new SA."""
        now = _newest(lab, what)
        return bool(now["a"] == now["b"] != before[node])

    try:
        lab.node(node).call("rekey", tunnel=TUNNELS[node], **({"what": what} if what else {}))
        lab.wait_until(done, REKEYED_WITHIN)
    except LabTimeout as error:
        result.failed.append(f"{what or 'CHILD SA'} rekey from {node}: {error}")
    else:
        result.rekeys.append(lab.clock() - began)


def _newest(lab: LabClient, what: str) -> dict[str, Any]:
    """Return by node what identifies its newest IKE SA, or its newest pair of SAs: the SPI to end b, and to a."""
    found: dict[str, Any] = {}
    for node, tunnel in TUNNELS.items():
        (card,) = lab.node(node).call("ike" if what else "sas", tunnel=tunnel)["cards"].values()
        (row,) = card["tunnels"]
        if what:
            established = [sa for sa in row["ike"] if sa["state"] == "established"]
            found[node] = max(((sa["ends"], sa["cookie_i"]) for sa in established), default=(0.0, ""))[1]
        else:
            newest = max((sa["serial"] for sa in row["sas"]), default=0)
            spis = {sa["direction"]: sa["spi"] for sa in row["sas"] if sa["serial"] == newest}
            found[node] = [spis.get(way) for way in (("out", "in") if node == "a" else ("in", "out"))]
    return found


def _counted(lab: LabClient) -> dict[str, dict[str, int]]:
    """Return by node the counters of IKE version 1."""
    names = ("DPD probes sent", "messages sent", "messages received", "retransmissions")
    counters = {node: lab.counters(node) for node in TUNNELS}
    return {node: {name: counters[node].get(f"ike v1 {name}", 0) for name in names} for node in TUNNELS}


def _lost(lab: LabClient) -> int:
    """Return the IKE messages that were sent and not received since the boot of the lab."""
    looks = []
    for _ in range(LOOKS):
        counted = _counted(lab).values()
        looks.append(sum(node["messages sent"] - node["messages received"] for node in counted))
        lab.wait(LOOK)
    return min(looks)


def _fenced(lab: LabClient) -> int:
    return sum(lab.counters(node).get("drop fenced", 0) for node in TUNNELS)


def _lags(lab: LabClient) -> list[float]:
    return [card["loop_lag"] for node in TUNNELS for card in lab.node(node).status()["cards"]]


def _boots(lab: LabClient) -> dict[str, int]:
    """Return the boot of every process of the lab."""
    return {f"{row['node']} {row['card']}": row["boot"] for row in lab.ask("", "ps", {})["processes"]}


def judged(result: Overloaded) -> list[str]:
    """Return the errors of the result; `[]` if there are none."""
    ledger = result.ledger
    assert ledger is not None
    wrong = [f"while too much was offered: {text}" for text in (*result.harm, *result.failed)]
    if ledger.unexplained or ledger.residual or ledger.overflowed or ledger.lost_in_crash:
        wrong.append(f"the accounting does not balance: {ledger.to_json()}")
    if result.fenced:
        wrong.append(f"a card was stalled until it fenced itself: it dropped {result.fenced} packets")
    if result.lost:
        wrong.append(f"IKE lost {result.lost} messages, of {result.messages} and {result.probes} probes")
    if not ledger.lost:
        wrong.append(f"too little was offered: all {ledger.sent:,} packets arrived")
    if not result.probes or not result.rekeys:
        wrong.append(f"part did not run: {len(result.rekeys)} rekeys, {result.probes} probes")
    return wrong


def run(report: Report) -> None:
    """Offer twice the best load for a minute, between two measurements of the best load.

    AssertionError, after all figures were printed, if there is an error.
    """
    with TemporaryDirectory() as folder:
        lab = boot(site(Path(folder), SUITE, economical=True, veth=False, settings=SETTINGS))
        try:
            lab.client.wait_until("tunnels up", 60)
            stream, flows = stream_of(lab.client), sized(NAME, SIZE)
            (name,) = flows
            best = [run.rate for run in stream.best(flows, guess=GUESS, stride=STRIDE)]
            result = overload(lab.client, name, FACTOR * median(best))
            best += [run.rate for run in stream.best(flows, guess=median(best), stride=2)]
        finally:
            lab.close()
    ledger = result.ledger
    assert ledger is not None
    what = f"overload, {SIZE} bytes"
    highest = report.add(f"{what}: best load, before and after", best, "packets/s")
    text = f"{what}: goodput in {SECONDS:.0f} s at {FACTOR:g} times the best"
    report.add(text, [result.rate], "packets/s", "its best", highest)
    report.bar(BAR, "ratio")
    for place, causes in ledger.dropped.items():
        report.keep(f"  dropped by {place}:", {cause: float(count) for cause, count in causes.items()}, "packets")
        print(f"  dropped by {place}: " + ", ".join(f"{cause} {count:,}" for cause, count in causes.items()))
    report.add("  packets that the accounting does not explain", [float(_unexplained(ledger))], "packets")
    report.add("  rekeys", [len(result.rekeys)], "")
    report.add("  seconds until both ends had the new SA", result.rekeys or [0.0], "s")
    report.add("  DPD probes", [result.probes], "")
    report.add("  IKE messages received", [result.messages], "")
    report.add("  IKE messages lost", [result.lost], "")
    report.add("  IKE messages sent again", [result.retransmissions], "")
    report.add("  largest lateness of a card's loop", [1e3 * result.lag], "ms")
    wrong = judged(result)
    for text in wrong:
        print(f"  WRONG: {text}")
    report.add("  overload judged: things that are wrong", [len(wrong)], "")
    assert not wrong, "; ".join(wrong)


def _unexplained(ledger: PacketAccounting) -> int:
    parts = (*ledger.unexplained.values(), *ledger.lost_in_crash.values(), ledger.residual)
    return sum(map(abs, parts))
