"""A running lab, as a scenario or a test has it in hand: act on it, ask it, wait for it.

Everything goes through operator sockets; the lab may have been started by anybody.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from chassis.bus import counters, endpoints
from chassis.bus.operator import OperatorClient, OperatorError
from chassis.tester.measurements import combine
from launch.client.accounting import PacketAccounting, for_lab
from launch.client.conditions import CHECKS
from launch.client.traces import Stamps
from launch.lab.model import Endpoint, FlowSpec, Lab, LinuxNode
from launch.lab.scenario_syntax import Condition, known_flow, parse_condition
from launch.run_folders import LAUNCHER_SOCKET

POLL_INTERVAL = 0.02
"""Seconds between two looks at a lab that is waited for."""

MAX_COMPLETE_TRACES = 100_000
"""Traced packets that are kept once they are known whole: more than all testers of a lab keep."""

LAUNCHER = ""
"""The launcher's name where a node's is asked for."""

Result = dict[str, Any]


class LabTimeout(AssertionError):
    """What was waited for did not come; the text says what was seen instead."""


class OperatorTransport(Protocol):
    """Puts a command to a node's operator socket, or to the launcher's. Raises OperatorError."""

    def __call__(self, node: str, command: str, arguments: Mapping[str, Any]) -> Result: ...


class SocketAsker:
    """Asks over the sockets of a lab's run folder; connections are kept, and made anew when one broke."""

    def __init__(self, run: Path, timeout: float = 30.0) -> None:
        self._run = run
        self._timeout = timeout
        self._clients: dict[str, OperatorClient] = {}

    def __call__(self, node: str, command: str, arguments: Mapping[str, Any]) -> Result:
        client = self._clients.get(node)
        if client is not None:
            try:
                return client.call(command, **arguments)
            except OperatorError as error:
                # Only a connection to a process that is gone is worth a second try.
                if not any(sign in str(error).lower() for sign in ("went away", "pipe", "reset")):
                    raise
                self._drop(node)
        path = self._run / LAUNCHER_SOCKET if node == LAUNCHER else endpoints.operator(self._run, node)
        client = self._clients[node] = OperatorClient(path, self._timeout)
        try:
            return client.call(command, **arguments)
        except OperatorError as error:
            if "went away" in str(error) or "no answer" in str(error):
                self._drop(node)
            raise

    def close(self) -> None:
        for node in list(self._clients):
            self._drop(node)

    def _drop(self, node: str) -> None:
        client = self._clients.pop(node, None)
        if client is not None:
            client.close()


@dataclass(frozen=True, slots=True)
class TracedPath:
    """One traced packet of a flow, from the source's port to where it was seen last. Times are monotonic.

    `complete`: every process has said what it stamped of it, but for those in `given_up`, by name and with the
    reason: where one of these was on the way, its stamps are missing.
    """

    number: int
    began: float
    steps: tuple[str, ...]
    arrived: bool
    complete: bool = False
    given_up: Mapping[str, str] = field(default_factory=dict)


class LabNode:
    """One node of a lab."""

    def __init__(self, lab: LabClient, name: str) -> None:
        self._lab = lab
        self.name = name

    def call(self, command: str, /, **arguments: Any) -> Result:
        """The answer of the node's controller or tester; OperatorError where it refuses or is not there."""
        return self._lab.ask(self.name, command, arguments)

    def status(self) -> Result:
        return self.call("status")

    def tunnel(self, name: str) -> Result:
        """A tunnel's row of the status; KeyError where the node has none of that name."""
        return next((row for row in self.status()["tunnels"] if row["name"] == name), None) or _no("tunnel", name)

    def card(self, name: str) -> Result:
        """A card's row of the status; KeyError where the node has none of that name."""
        return next((row for row in self.status()["cards"] if row["card"] == name), None) or _no("card", name)

    def counters(self, card: str) -> dict[str, int]:
        """A card's counters, read from its mapped file, also when the card is dead."""
        return self._lab.counters(self.name, card)


def _no(what: str, name: str) -> Result:
    raise KeyError(f"no {what} {name!r}")


class LabClient:
    """A running lab. `file` is what it was made from; `run` its run folder, where it is on this machine."""

    def __init__(
        self,
        file: Lab,
        ask: OperatorTransport,
        run: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.file = file
        self.run = run
        self.folder = run
        """Where files of the test may go that are kept with the logs when it fails."""
        self.boot_ms = 0.0
        self.clock = clock
        self._ask = ask
        self._pause = pause
        self._whole: dict[int, TracedPath] = {}

    def ask(self, node: str, command: str, arguments: Mapping[str, Any]) -> Result:
        return self._ask(node, command, arguments)

    def node(self, name: str) -> LabNode:
        if name not in self.file.nodes:
            raise KeyError(f"the lab has no node {name!r}: it has {', '.join(self.file.nodes)}")
        return LabNode(self, name)

    # cards and links

    def kill(self, node: str, card: str) -> float:
        """SIGKILL; when it was asked for. The launcher starts the card again after the lab's delay."""
        return self.card_action("kill", node, card)

    def stop_card(self, node: str, card: str) -> float:
        """SIGSTOP: the card hangs."""
        return self.card_action("stop", node, card)

    def continue_card(self, node: str, card: str) -> float:
        """SIGCONT."""
        return self.card_action("continue", node, card)

    def restart(self, node: str, card: str) -> float:
        """Kill a card and start it again at once."""
        return self.card_action("restart", node, card)

    def card_action(self, verb: str, node: str, card: str) -> float:
        began = self.clock()
        self.ask(LAUNCHER, verb, {"node": node, "card": card})
        return began

    def link(self, end: str | Endpoint, **faults: Any) -> float:
        """Set faults of a link's sending end: `down=True`, `loss="1%"`, `delay="20ms"`, `clear=True`.

        Those of what a Linux device sends are made by the port at its other end.
        """
        node, _, port = str(end).partition(":")
        if isinstance(self.file.nodes.get(node), LinuxNode):
            far = self.file.far_end(Endpoint(node, port))
            if far is None or isinstance(self.file.nodes[far.node], LinuxNode):
                raise OperatorError(f"link {end}: no port of a router or tester is there to make its faults")
            node, port, faults = far.node, far.port, {**faults, "far": True}
        began = self.clock()
        self.ask(node, "link", {"port": port, **faults})
        return began

    def link_down(self, end: str, down: bool = True) -> float:
        """Take a link down, or up again, in both directions."""
        node, _, port = end.partition(":")
        far = self.file.far_end(Endpoint(node, port))
        began = self.link(end, down=down)
        if far is not None:
            self.link(far, down=down)
        return began

    def apply(self, node: str, text: str, file: str = "") -> Result:
        """Put a configuration into force. Raises OperatorError with the diagnostics where it is refused."""
        answer = self.ask(node, "apply", {"text": text, "file": file, "dry": False})
        if not answer.get("applied", False):
            said = "; ".join(
                str(d.get("message", d)) if isinstance(d, dict) else str(d) for d in answer["diagnostics"]
            )
            raise OperatorError(f"apply {node}: refused: {said}")
        return answer

    def capture(
        self, node: str, what: str, file: Path, *, snaplen: int = 0, clear: bool = False, ring: int = 0
    ) -> Path:
        """Capture `port 3/11`, `asp 1/1 inner`, `asp 1/1 outer`, `asp 1/1` or `fabric lc 3` into a pcapng file
        until `capture_stop`; of each packet `snaplen` octets, or all of it; with `clear`, of a port, only what is
        neither protected nor IKE's nor ARP; with `ring` the last so many octets alone, in two files. A capture
        that there is of the same point ends where it begins."""
        arguments = {"what": what, "file": str(file.absolute()), "snaplen": snaplen, "clear": clear}
        self.ask(node, "capture", {**arguments, **({"ring": ring} if ring else {})})
        return file

    def capture_stop(self, node: str, what: str, file: Path) -> None:
        self.ask(node, "capture-stop", {"what": what, "file": str(file.absolute())})

    def inject(self, end: str | Endpoint, file: Path, seconds: float = 0.0) -> int:
        """Give a port the packets of a capture again that it received; how many those were."""
        node, _, port = str(end).partition(":")
        return int(
            self.ask(node, "inject", {"port": port, "file": str(file), "seconds": seconds}).get("injected", 0)
        )

    # flows

    def start(self, *flows: str, **options: Any) -> float:
        """Start flows, all of them where none is named. Options: `rate`, `count`."""
        began = self.clock()
        for flow in self._flows(flows):
            self.ask(flow.origin.node, "start", {"flow": flow.name, **options})
        return began

    def stop(self, *flows: str) -> float:
        """Stop flows, all of them where none is named."""
        began = self.clock()
        for flow in self._flows(flows):
            self.ask(flow.origin.node, "stop", {"flow": flow.name})
        return began

    def report(self, flow: str, *, since: float = 0.0, until: float = float("inf"), final: bool = False) -> Result:
        """What happened to a flow: see `chassis.tester.measurements.combine`. `window_lost` and `window_gap_ms`
        are about [since, until), seconds of the monotonic clock as `kill` and the like return them."""
        made = self.flow(flow)
        window: Result = {"flow": flow}
        if since > 0:
            window["since"] = since
        if until < float("inf"):
            window["until"] = until
        source = self.ask(made.origin.node, "flows", window)["flows"][flow]
        # The source first: what it had sent by then, the sink can have received.
        sink = source
        if made.target.node != made.origin.node:
            sink = self.ask(made.target.node, "flows", window)["flows"][flow]
        auto = source["flow"].get("start") == "auto"
        return combine(source["source"], sink["sink"], auto=auto, final=final, begin=since, end=until)

    def drain(self, *flows: str, within: float = 5.0) -> None:
        """Wait until nothing more arrives of stopped flows."""
        names = [flow.name for flow in self._flows(flows)]
        deadline = self.clock() + within
        before, quiet = None, self.clock()
        while self.clock() < deadline:
            reports = [self.report(name) for name in names]
            now = [(report["received"], report["duplicated"], report["corrupted"]) for report in reports]
            if now != before:
                before, quiet = now, self.clock()
            done = all(report["received"] + report["lost_before_first"] >= report["sent"] for report in reports)
            if self.clock() - quiet >= (0.1 if done else 0.5):
                return
            self._pause(POLL_INTERVAL)

    def flow(self, name: str) -> FlowSpec:
        known_flow(name, self.file)
        return self.file.flows[name]

    def _flows(self, names: tuple[str, ...]) -> list[FlowSpec]:
        return [self.flow(name) for name in names] if names else list(self.file.flows.values())

    # traces

    def paths(self, flow: str, since: float = 0.0, until: float = float("inf")) -> list[TracedPath]:
        """The traced packets of a flow that were sent in [since, until), in order; steps in order of time.

        A step is printed as `t1:1 out` at a tester, `a 3/1 in` or `a 1/1 encapsulate` at a router. A packet that
        arrived is complete: every process on its way has said what it stamped, or was given up.
        """
        made = self.flow(flow)
        last = f"{made.target} in"
        told = Stamps()
        for tester in self.file.testers():
            with contextlib.suppress(OperatorError):
                told.tester(tester.name, self.ask(tester.name, "traces", {}))
        here = (made.origin.node, flow)
        sent = {number: at for number, (*where, at) in told.flows.items() if tuple(where) == here}
        arrived = {number for number in sent if last in told.steps(number)}
        asked = {"settled": True} if arrived - self._whole.keys() else {}
        for router in self.file.routers():
            try:
                told.router(router.name, self.ask(router.name, "traces", asked))
            except OperatorError as error:
                told.silent(router.name, str(error))
        for number in arrived - self._whole.keys():
            given_up = told.given_up(sent[number])
            self._whole[number] = TracedPath(number, sent[number], told.steps(number), True, True, given_up)
        while len(self._whole) > MAX_COMPLETE_TRACES:
            del self._whole[next(iter(self._whole))]
        return [
            self._whole.get(number) or TracedPath(number, began, told.steps(number), number in arrived)
            for number, began in sorted(sent.items(), key=lambda item: item[1])
            if since <= began < until
        ]

    def last_path(self, flow: str, since: float = 0.0, until: float = float("inf")) -> TracedPath | None:
        """The last traced packet that arrived."""
        return next((path for path in reversed(self.paths(flow, since, until)) if path.arrived), None)

    def path(self, flow: str, since: float = 0.0, until: float = float("inf")) -> tuple[str, ...]:
        """The way of the last traced packet that arrived; empty where none did."""
        found = self.last_path(flow, since, until)
        return found.steps if found is not None else ()

    # waiting

    def check(self, condition: str | Condition) -> tuple[bool, str]:
        """Whether a condition holds now, and what was seen."""
        if isinstance(condition, str):
            condition = parse_condition(condition, self.file)
        try:
            return CHECKS[condition.kind](self, condition)
        except OperatorError as error:
            return False, str(error)

    def wait_until(self, condition: str | Condition | Callable[[], Any], within: float = 30.0) -> float:
        """Wait until a condition holds (see `launch.scenario_words.FORMS`) or a function's result is true.

        Returns the seconds that it took. Raises LabTimeout, which says what was seen, after `within` seconds.
        """
        began = self.clock()
        if isinstance(condition, str):
            condition = parse_condition(condition, self.file)
        while True:
            if isinstance(condition, Condition):
                held, seen = self.check(condition)
            else:
                # Whoever is asked may be the one that was just killed.
                try:
                    value = condition()
                    held, seen = bool(value), repr(value)
                except OperatorError as error:
                    held, seen = False, str(error)
            took = self.clock() - began
            if held:
                return took
            if took > within:
                what = condition.text if isinstance(condition, Condition) else "the condition"
                raise LabTimeout(f"{what}: not within {within:g} s; seen: {seen}")
            self._pause(POLL_INTERVAL)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        end = self.clock() + seconds
        while (left := end - self.clock()) > 0:
            self._pause(min(left, 1.0))

    # the rest

    def counters(self, node: str, card: str = "") -> dict[str, int]:
        """The counters of a card, or the sums of all of a node's, from their mapped files.

        Raises OperatorError where the node never had such a card.
        """
        if self.run is None:
            raise OperatorError("the lab's run folder is not known")
        name = f"{node}.{endpoints.compact(card)}.counters" if card else f"{node}.*.counters"
        total: dict[str, int] = {}
        paths = list(self.run.glob(name))
        if not paths:
            having = ", ".join(sorted(path.name.split(".")[1] for path in self.run.glob(f"{node}.*.counters")))
            raise OperatorError(f"{node} has no counters of {card or 'any card'}; there are {having or 'none'}")
        for path in paths:
            for key, value in counters.read(path).items():
                total[key] = total.get(key, 0) + value
        return total

    def accounting(self) -> PacketAccounting:
        """Where every packet of the lab is, once flows have stopped and nothing is under way any more."""
        if self.run is None:
            raise OperatorError("the lab's run folder is not known")
        kinds = {node.name: node.kind for node in self.file.nodes.values()}
        links = [[str(end) for end in link.ends] for link in self.file.links]
        return for_lab(self.run, kinds, links, self.ask("", "ps", {})["processes"])

    def unexpected(self, node: str = "") -> dict[str, int]:
        """What testers got that no flow sent, by cause; ICMP errors are none."""
        found: dict[str, int] = {}
        for tester in self.file.testers():
            if node in ("", tester.name):
                for cause, count in self.ask(tester.name, "flows", {})["unexpected"].items():
                    if not cause.startswith("icmp "):
                        found[f"{tester.name}: {cause}"] = count
        return found

    def events(self, since: float = 0.0) -> list[Result]:
        """What the launcher and the controllers noted, `{time, node, text}` in order of time."""
        found: dict[tuple[float, str, str], None] = {}
        # Controllers tell the launcher too: what is in both histories is one event.
        for node in (LAUNCHER, *(router.name for router in self.file.routers())):
            with contextlib.suppress(OperatorError):
                for event in self.ask(node, "events", {"since": since}).get("events", []):
                    if event.get("time", 0.0) >= since:
                        where = event.get("node") or node or "launcher"
                        found[float(event["time"]), where, event["text"]] = None
        return [{"time": at, "node": node, "text": text} for at, node, text in sorted(found)]

    def shell(self, command: str, within: float = 60.0) -> tuple[int, str]:
        """A shell command beside the lab's file, `$CHASSIS_LAB` and `$CHASSIS_RUN` set; status and output."""
        environment = {**os.environ, "CHASSIS_LAB": self.file.name}
        if self.run is not None:
            environment["CHASSIS_RUN"] = str(self.run.parent)
        try:
            done = subprocess.run(
                command,
                shell=True,
                cwd=self.file.file.absolute().parent,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=within,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return -1, f"not done within {within:g} s"
        return done.returncode, done.stdout.decode(errors="replace")
