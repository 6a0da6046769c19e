"""Two testers in memory, joined by a wire or by a hop that does what a router does to packets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chassis.bus.batch import Batch
from chassis.bus.engine import Output, ToOperator, ToWire
from chassis.tester.engine import TesterEngine as Engine

Wire = Callable[[Batch, float], list[Batch]]

FLOW = {
    "from": "t1:1", "to": "t2:1", "rate": 1000.0, "size": 200, "source": "10.0.0.1", "destination": "10.0.0.2",
    "trace": 0.0, "start": "manual",
}  # fmt: skip


class Pair:
    """t1 and t2 on one network. `wire` sees what t1 sends and returns what t2 gets; time is `now`, from 100."""

    def __init__(self, wire: Wire = lambda batch, now: [batch], **flow: Any) -> None:
        flows = {"forward": {**FLOW, **flow}}
        self.t1 = Engine("t1", ports={"1": {"address": "10.0.0.1/24"}}, flows=flows)
        self.t2 = Engine("t2", ports={"1": {"address": "10.0.0.2/24"}}, flows=flows)
        self.now = 100.0
        self.wire = wire
        self.sent: list[Batch] = []
        for tester in (self.t1, self.t2):
            self._do(tester, tester.on_carrier("1", True, self.now))
        for tester in (self.t1, self.t2):
            self._do(tester, tester.start(self.now))

    def _do(self, tester: Engine, outputs: list[Output]) -> None:
        for output in outputs:
            if not isinstance(output, ToWire):
                continue
            if tester is self.t1:
                self.sent.append(output.batch)
                for batch in self.wire(output.batch, self.now):
                    self.deliver(batch)
            else:
                self._do(self.t1, self.t1.receive_frames("1", output.batch, self.now))

    def deliver(self, batch: Batch) -> None:
        self._do(self.t2, self.t2.receive_frames("1", batch, self.now))

    def run(self, seconds: float) -> None:
        """Let time pass, in the steps that the testers ask for."""
        end = self.now + seconds
        while True:
            next_timer = min(self.t1.next_timer(), self.t2.next_timer())
            if next_timer > end:
                break
            self.now = max(self.now, next_timer)
            for tester in (self.t1, self.t2):
                if tester.next_timer() <= self.now:
                    self._do(tester, tester.on_timer(self.now))
        self.now = end

    def call(self, tester: Engine, command: str, **arguments: Any) -> dict[str, Any]:
        outputs = tester.on_operator_command(1, command, arguments, self.now)
        self._do(tester, outputs)
        answer = next(output for output in outputs if isinstance(output, ToOperator))
        if answer.error:
            raise ValueError(answer.error)
        return dict(answer.result)

    def ends(self, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        source = self.call(self.t1, "flows", **arguments)["flows"]["forward"]["source"]
        sink = self.call(self.t2, "flows", **arguments)["flows"]["forward"]["sink"]
        return source, sink
