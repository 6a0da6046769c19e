"""The real engines under the simulator: nothing goes wrong, and each planted bug is found and replayed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from chassis.ase.ipsec.state import SaSlot
from chassis.bus.card import CardBase
from chassis.fwd.decision import Decider
from chassis.fwd.drop_causes import DropCause
from chassis.sim.lab import Run
from chassis.sim.run import simulate
from chassis.xcrp import cards
from chassis.xcrp.commits import Commits
from chassis.xcrp.journal import Commit
from launch.simulate import campaign, command, model
from tests.support import CONFIGS

LAB = CONFIGS / "simulate" / "lab.yaml"


@pytest.mark.parametrize("first", range(1, 5, 2))
def test_a_few_schedules_pass(first: int) -> None:
    """Of the two hundred that `make bench` runs; two in each case, so that they go to different workers."""
    for outcome in campaign(model(LAB), range(first, first + 2), workers=1):
        assert outcome.passed, outcome
        assert outcome.kills + outcome.stops >= 20
        assert outcome.sent >= 10_000
        assert outcome.protected > outcome.sent // 2
        assert outcome.commits >= 4


def test_a_controller_that_comes_back_keeps_the_routes_of_traffic_selectors() -> None:
    """No other route leads to a network behind a spoke: one that is withdrawn for a moment costs packets. In this
    schedule it did."""
    outcome = simulate(model(LAB.parents[1] / "hub-and-spoke" / "lab.yaml"), 2, 2.0)
    assert outcome.passed, outcome
    assert outcome.kills >= 5


@pytest.mark.parametrize("seed", [3, 17])
def test_peers_of_on_demand_tunnels_come_back(seed: int) -> None:
    """In these schedules an ASP asks about a peer while its controller is away."""
    outcome = simulate(model(LAB.parents[1] / "on-demand" / "lab.yaml"), seed, 1.0)
    assert outcome.passed, outcome
    assert outcome.kills >= 10


def test_a_run_does_not_depend_on_the_process_that_it_runs_in() -> None:
    script = (
        "import sys; from pathlib import Path; from launch.simulate import model, simulate\n"
        "print(simulate(model(Path(sys.argv[1])), 3, 0.75))"
    )
    seen = set()
    for hashing in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", script, str(LAB)],
            env={**os.environ, "PYTHONHASHSEED": hashing, "PYTHONPATH": str(LAB.parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
        seen.add(done.stdout)
    assert len(seen) == 1


def save_windows_late(patch: pytest.MonkeyPatch) -> None:
    """A window is stored when the next one is to be: what was delivered last is not in the file."""
    store, pending = SaSlot.store_window, {}

    def late(self: SaSlot, edge: int, bitmap: int) -> None:
        if self in pending:
            store(self, *pending[self])
        pending[self] = (edge, bitmap)

    patch.setattr(SaSlot, "store_window", late)


def accept_any_epoch(patch: pytest.MonkeyPatch) -> None:
    """A batch of an epoch that is over is taken."""

    def is_current_sender(self: CardBase, batch: Any) -> bool:
        return not self.fenced

    patch.setattr(CardBase, "is_current_sender", is_current_sender)


def flush_on_reconcile(patch: pytest.MonkeyPatch) -> None:
    """A controller that comes back admits every card anew."""
    row = cards.ADMISSION.table[cards.AdmissionState.RESTORED]
    for event in (cards.AdmissionEvent.HELLO_RESUMED, cards.AdmissionEvent.HELLO_AGAIN):
        patch.setitem(row, event, (cards.AdmissionState.ADMITTED, cards.AdmissionAction.ADMIT))


def save_numbers_late(patch: pytest.MonkeyPatch) -> None:
    """The next sequence number is stored when the one after it is to be."""
    store, pending = SaSlot.store_next, {}

    def late(self: SaSlot, number: int) -> None:
        if self in pending:
            store(self, pending[self])
        pending[self] = number

    patch.setattr(SaSlot, "store_next", late)


def never_fence(patch: pytest.MonkeyPatch) -> None:
    """A process that stood still goes on as if nothing had happened."""
    patch.setattr(CardBase, "on_stall", lambda self, seconds, now: [])


def fall_back_in_clear(patch: pytest.MonkeyPatch) -> None:
    """Where a tunnel cannot be used, a less specific route is."""
    usual = Decider.decide_destination

    def to(self: Decider, context: int, destination: int) -> Any:
        decision = usual(self, context, destination)
        if decision.cause in (DropCause.TUNNEL_DOWN, DropCause.DISCARD):
            return usual(self, context, destination & 0xFF000000 | 0xFF0001)
        return decision

    patch.setattr(Decider, "decide_destination", to)


def act_before_the_journal(patch: pytest.MonkeyPatch) -> None:
    """A commit is written down after it was acted on and acknowledged."""

    def commit(self: Commits, commit: Commit, checked: Any, answer: Any, now: float) -> list[Any]:
        commit = replace(commit, number=self.journal.version + 1)
        return [*self._force(checked, "", now), *answer(""), self.journal.append(commit)]

    patch.setattr(Commits, "commit", commit)


@pytest.mark.parametrize(("plant", "rules", "start"), [
    (save_numbers_late, {"no number twice"}, 1),
    (never_fence, {"stale epoch"}, 1),
    (fall_back_in_clear, {"nothing in clear"}, 1),
    # One schedule in twenty finds it, this one among others.
    (act_before_the_journal, {"a commit is whole"}, 57),
    (save_windows_late, {"no replay"}, 1),
    (accept_any_epoch, {"stale epoch"}, 1),
    (flush_on_reconcile, {"nothing is flushed", "flows run"}, 1),
])  # fmt: skip
def test_a_planted_bug_is_found_and_the_printed_seed_replays_it(
    plant: Callable[[pytest.MonkeyPatch], None], rules: set[str], start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    run = CliRunner()
    found = run.invoke(command, [str(LAB), "--seeds", "200", "--from", str(start), "--first", "--workers", "1"])
    assert found.exit_code == 1, found.output
    told = re.match(r"seed (\d+): ([^:]+): (.*)\n  after ([\d.]+) s; again: (.*)\n", found.output)
    assert told is not None, found.output
    seed, rule, what, at, again = told.groups()
    assert rule in rules
    assert again == f"chassis-launch simulate {LAB} --minutes 5 --seed {seed} --trace"
    replayed = simulate(model(LAB), int(seed))
    assert (replayed.rule, replayed.what, f"{replayed.time:.6f}") == (rule, what, at)


def test_a_replay_shows_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(command, [str(LAB), "--minutes", "0.5", "--seed", "2", "--trace"])
    assert done.exit_code == 0, done.output
    assert re.search(r"^ +\d+\.\d+ fault: ", done.output, re.M)
    assert "a lc 3 to xcrp: Heartbeat(" in done.output


def test_a_window_made_wider_while_its_asp_is_dead_lets_no_replay_in() -> None:
    run = Run(model(LAB), 1)
    world = run.world
    node = next(node for node in run.nodes if node.model.name == "b")
    begin = world.now
    run.boot()
    for seconds, count in ((3, 3), (4, 200)):
        world.run(begin + seconds)
        for tester in run.testers:
            for flow in tester.model.flows:
                tester.burst(flow, 20_000.0, count)
    world.run(begin + 5)
    assert len(run.checks.traffic.delivered) >= 800
    for card in ("asp 1/1", "asp 1/2"):
        node.cards[card].kill()
    world.run(begin + 5.2)
    run.commit(node)
    world.run(begin + 9)
    assert sum(end.replay(5.0) for end in run.between) >= 800
    world.run(begin + 10)


def test_a_router_without_its_peers_is_healthy_and_what_was_not_looked_at_is_told() -> None:
    alone = LAB.parents[1] / "manual-keys" / "a.cfg"
    done = CliRunner().invoke(command, [str(alone), "--minutes", "0.5", "--seeds", "2", "--workers", "1"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].endswith("; none went wrong")
    assert lines[1:] == [
        f"not checked, because it was down before the first fault: tunnel {name} of a (no route to the peer)"
        for name in ("circuit", "economical")
    ]


def test_a_tunnel_that_was_up_must_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Run.remember_up

    def note_more(run: Run) -> None:
        asked(run)
        run._up["a"].add("t9")

    monkeypatch.setattr(Run, "remember_up", note_more)
    outcome = simulate(model(LAB), 2, 0.5)
    assert outcome.rule == "everything comes back"
    assert "tunnel t9 is down: it is not there" in outcome.what


@pytest.mark.parametrize("options", [
    *(["--seeds", n] for n in ("0", "-5")),
    *(["--minutes", n] for n in ("0", "-1", "nan", "inf")),
    ["--workers", "0"],
])  # fmt: skip
def test_a_campaign_of_nothing_is_refused(options: list[str]) -> None:
    done = CliRunner().invoke(command, [str(LAB), *options])
    assert (done.exit_code, "Invalid value" in done.output) == (2, True)
