"""One simulated run of a lab: the real engines in one process, with a simulated clock.

In: a lab, a seed and a number of minutes. Out: the result, with the first violated rule of `chassis.sim.checks`.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from math import inf

from chassis.sim.faults import MIN_RUN_TIME, Faults, Schedule
from chassis.sim.lab import LabModel, Run, Trace
from chassis.sim.world import Violation


@dataclass(frozen=True, slots=True)
class SimOutcome:
    """The result of a run. `rule` is empty if no rule was violated; `time` is the time of the violation (simulated
    s).

    `down` are tunnels that were down before the first fault, with the reason: they are not checked.
    `fingerprint` is equal for two runs with the same events in the same order.
    """

    seed: int
    rule: str
    what: str
    time: float
    kills: int
    stops: int
    restarts: int
    sent: int
    delivered: int
    protected: int
    events: int
    commits: int
    fingerprint: str
    details: str = ""
    down: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.rule


def simulate(
    lab: LabModel,
    seed: int,
    minutes: float = 5.0,
    faults: Faults | None = None,
    trace: Trace | None = None,
) -> SimOutcome:
    """Run a lab for a number of simulated minutes, with faults drawn from a seed.

    The run ends at the first violation. `trace(seconds, line)`, if given, is called for every event.

    Raises:
        ValueError: the minutes are too few for boot, faults and recovery.
    """
    if not MIN_RUN_TIME <= minutes * 60 < inf:
        raise ValueError(f"a run takes {MIN_RUN_TIME / 60:g} simulated minutes or more, not {minutes:g}")
    run = Run(lab, seed, trace)
    world, checks = run.world, run.checks
    seconds = minutes * 60
    schedule = Schedule(run, faults or Faults(), seconds)
    rule = what = details = ""
    time = seconds
    try:
        run.boot()
        schedule.plan()
        world.run(world.now + seconds)
    except Violation as violation:
        rule, what, time = violation.rule, violation.what, violation.time
    except Exception as error:
        rule, what, time = "no exception escapes", f"{type(error).__name__}: {error}", world.elapsed
        details = traceback.format_exc()
    return SimOutcome(
        seed=seed,
        rule=rule,
        what=what,
        time=time,
        kills=schedule.kills,
        stops=schedule.stops,
        restarts=sum(node.restarts for node in run.nodes),
        sent=len(checks.traffic.sent),
        delivered=len(checks.traffic.delivered),
        protected=checks.protected,
        events=world.events,
        commits=run.commits,
        fingerprint=world.fingerprint(),
        details=details,
        down=tuple(f"{tunnel} ({why})" for tunnel, why in run.down.items()),
    )
