"""Client of a running lab for scenarios and tests: act on it, query it, wait for conditions.

Input: a lab model and a transport to its operator sockets; any launcher may have started the lab. Output: answers
of nodes as dicts, and measurements.
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
from chassis.tester.results import combine
from launch.client.accounting import PacketAccounting, for_lab
from launch.client.conditions import CHECKS
from launch.client.traces import Stamps
from launch.lab.model import Endpoint, FlowSpec, Lab, LinuxNode
from launch.lab.scenario_syntax import Condition, known_flow, parse_condition
from launch.run_folders import LAUNCHER_SOCKET

POLL_INTERVAL = 0.02
"""Time (s) between two checks of an awaited condition."""

MAX_COMPLETE_TRACES = 100_000
"""Traced packets (count) that are kept once complete: more than all testers of a lab keep."""

LAUNCHER = ""
"""The launcher's name in `OperatorTransport` calls."""

Result = dict[str, Any]


class LabTimeout(AssertionError):
    """The condition did not hold in time; the text says what was seen."""


class OperatorTransport(Protocol):
    """Send a command to a node's operator socket or to the launcher's.

    Raises:
        OperatorError: the process refuses or does not answer.
    """

    def __call__(self, node: str, command: str, arguments: Mapping[str, Any]) -> Result: ...


class SocketAsker:
    """Send commands over the sockets of a lab's run folder; reuse connections and reconnect after a failure."""

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
                # Try again only if the connection led to a process that has ended.
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
    """One traced packet of a flow, from the source's port to its last stamp. Times are monotonic (s).

    `complete`: every process has reported its stamps, except those in `given_up` (name and reason). If one of
    these was on the path, its stamps are missing.
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
        """Return the answer of the node's controller or tester.

        Raises:
            OperatorError: the process refuses or does not answer.
        """
        return self._lab.ask(self.name, command, arguments)

    def status(self) -> Result:
        return self.call("status")

    def tunnel(self, name: str) -> Result:
        """Return a tunnel's row of the status.

        Raises:
            KeyError: the node has no tunnel of that name.
        """
        return next((row for row in self.status()["tunnels"] if row["name"] == name), None) or _no("tunnel", name)

    def card(self, name: str) -> Result:
        """Return a card's row of the status.

        Raises:
            KeyError: the node has no card of that name.
        """
        return next((row for row in self.status()["cards"] if row["card"] == name), None) or _no("card", name)

    def counters(self, card: str) -> dict[str, int]:
        """Return a card's counters from its mapped file, also after the card died."""
        return self._lab.counters(self.name, card)


def _no(what: str, name: str) -> Result:
    raise KeyError(f"no {what} {name!r}")


class LabClient:
    """A running lab. `file` is its model, `run` its run folder if it is on this machine."""

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
        """Folder for files of the test that are kept with the logs of a failed run."""
        self.boot_ms = 0.0
        self.clock = clock
        self._ask = ask
        self._pause = pause
        self._whole: dict[int, TracedPath] = {}

    def ask(self, node: str, command: str, arguments: Mapping[str, Any]) -> Result:
        return self._ask(node, command, arguments)

    def node(self, name: str) -> LabNode:
        if name not in self.file.nodes:
            raise KeyError(f"{name!r} is not a node of the lab; nodes: {', '.join(self.file.nodes)}")
        return LabNode(self, name)

    # cards and links

    def kill(self, node: str, card: str) -> float:
        """Send SIGKILL. Return the time of the request (s). The launcher restarts the card after the lab's
        delay."""
        return self.card_action("kill", node, card)

    def stop_card(self, node: str, card: str) -> float:
        """Send SIGSTOP, so that the card hangs. Return the time (s)."""
        return self.card_action("stop", node, card)

    def continue_card(self, node: str, card: str) -> float:
        """Send SIGCONT. Return the time (s)."""
        return self.card_action("continue", node, card)

    def restart(self, node: str, card: str) -> float:
        """Kill a card and start it again at once. Return the time (s)."""
        return self.card_action("restart", node, card)

    def card_action(self, verb: str, node: str, card: str) -> float:
        began = self.clock()
        self.ask(LAUNCHER, verb, {"node": node, "card": card})
        return began

    def link(self, end: str | Endpoint, **faults: Any) -> float:
        """Set faults at a link's sending end: `down=True`, `loss="1%"`, `delay="20ms"`, `clear=True`.

        For an end at a Linux device, set them at the port at the other end. Return the time (s).

        Raises:
            OperatorError: neither end is a port of a router or tester, or the fault is refused.
        """
        node, _, port = str(end).partition(":")
        if isinstance(self.file.nodes.get(node), LinuxNode):
            far = self.file.far_end(Endpoint(node, port))
            if far is None or isinstance(self.file.nodes[far.node], LinuxNode):
                raise OperatorError(f"link {end}: no end is a port of a router or tester; cannot set faults")
            node, port, faults = far.node, far.port, {**faults, "far": True}
        began = self.clock()
        self.ask(node, "link", {"port": port, **faults})
        return began

    def link_down(self, end: str, down: bool = True) -> float:
        """Take a link down, or up again, in both directions. Return the time (s)."""
        node, _, port = end.partition(":")
        far = self.file.far_end(Endpoint(node, port))
        began = self.link(end, down=down)
        if far is not None:
            self.link(far, down=down)
        return began

    def apply(self, node: str, text: str, file: str = "") -> Result:
        """Commit a configuration at a router.

        Raises:
            OperatorError: the router refuses it; the text has the diagnostics.
        """
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
        """Capture `port 3/11`, `asp 1/1 inner`, `asp 1/1 outer`, `asp 1/1` or `fabric lc 3` into a pcapng file.

        The capture runs until `capture_stop`; a new capture of the same point replaces it. `snaplen` limits the
        octets of each packet (0: all). `clear`, for a port, captures only packets other than ESP, AH, IKE and ARP.
        `ring` keeps the last so many octets in two files (0: everything)."""
        arguments = {"what": what, "file": str(file.absolute()), "snaplen": snaplen, "clear": clear}
        self.ask(node, "capture", {**arguments, **({"ring": ring} if ring else {})})
        return file

    def capture_stop(self, node: str, what: str, file: Path) -> None:
        self.ask(node, "capture-stop", {"what": what, "file": str(file.absolute())})

    def inject(self, end: str | Endpoint, file: Path, seconds: float = 0.0) -> int:
        """Inject the packets of a capture that it received at this port. Return their number."""
        node, _, port = str(end).partition(":")
        return int(
            self.ask(node, "inject", {"port": port, "file": str(file), "seconds": seconds}).get("injected", 0)
        )

    # flows

    def start(self, *flows: str, **options: Any) -> float:
        """Start the named flows, or all of them. Options: `rate`, `count`. Return the time (s)."""
        began = self.clock()
        for flow in self._flows(flows):
            self.ask(flow.origin.node, "start", {"flow": flow.name, **options})
        return began

    def stop(self, *flows: str) -> float:
        """Stop the named flows, or all of them. Return the time (s)."""
        began = self.clock()
        for flow in self._flows(flows):
            self.ask(flow.origin.node, "stop", {"flow": flow.name})
        return began

    def report(self, flow: str, *, since: float = 0.0, until: float = float("inf"), final: bool = False) -> Result:
        """Return the measurements of a flow: see `chassis.tester.results.combine`. `window_lost` and
        `window_gap_ms` cover [since, until), monotonic time (s) as `kill` and the like return it."""
        made = self.flow(flow)
        window: Result = {"flow": flow}
        if since > 0:
            window["since"] = since
        if until < float("inf"):
            window["until"] = until
        source = self.ask(made.origin.node, "flows", window)["flows"][flow]
        # Query the source first, so that the sink can have received everything that the source counts.
        sink = source
        if made.target.node != made.origin.node:
            sink = self.ask(made.target.node, "flows", window)["flows"][flow]
        auto = source["flow"].get("start") == "auto"
        return combine(source["source"], sink["sink"], auto=auto, final=final, begin=since, end=until)

    def drain(self, *flows: str, within: float = 5.0) -> None:
        """Wait until no more packets of stopped flows arrive."""
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
        """Return the traced packets of a flow sent in [since, until), in order; steps in order of time.

        A step is printed as `t1:1 out` at a tester, `a 3/1 in` or `a 1/1 encapsulate` at a router. A packet that
        arrived is complete: every process has reported its stamps, or was given up.
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
        """Return the last traced packet that arrived, or None."""
        return next((path for path in reversed(self.paths(flow, since, until)) if path.arrived), None)

    def path(self, flow: str, since: float = 0.0, until: float = float("inf")) -> tuple[str, ...]:
        """Return the steps of the last traced packet that arrived; `()` if none did."""
        found = self.last_path(flow, since, until)
        return found.steps if found is not None else ()

    # waiting

    def check(self, condition: str | Condition) -> tuple[bool, str]:
        """Return whether a condition holds now, and what was seen."""
        if isinstance(condition, str):
            condition = parse_condition(condition, self.file)
        try:
            return CHECKS[condition.kind](self, condition)
        except OperatorError as error:
            return False, str(error)

    def wait_until(self, condition: str | Condition | Callable[[], Any], within: float = 60.0) -> float:
        """Wait until a condition holds (see `launch.lab.scenario_syntax.FORMS`) or a function's result is true.

        Return the time that it took (s).

        Raises:
            LabTimeout: the condition did not hold within `within` (s); the text says what was seen.
        """
        began = self.clock()
        if isinstance(condition, str):
            condition = parse_condition(condition, self.file)
        while True:
            if isinstance(condition, Condition):
                held, seen = self.check(condition)
            else:
                # The condition may query a process that was just killed.
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
        """Wait `seconds` on the lab's clock."""
        end = self.clock() + seconds
        while (left := end - self.clock()) > 0:
            self._pause(min(left, 1.0))

    # counters, events, shell

    def counters(self, node: str, card: str = "") -> dict[str, int]:
        """Return the counters of a card, or the sums of all of a node's cards, from their mapped files.

        Raises:
            OperatorError: the node never had such a card, or the run folder is unknown.
        """
        if self.run is None:
            raise OperatorError("the run folder of the lab is unknown")
        name = f"{node}.{endpoints.compact(card)}.counters" if card else f"{node}.*.counters"
        total: dict[str, int] = {}
        paths = list(self.run.glob(name))
        if not paths:
            having = ", ".join(sorted(path.name.split(".")[1] for path in self.run.glob(f"{node}.*.counters")))
            raise OperatorError(f"{node} has no counters of {card or 'any card'}; cards: {having or 'none'}")
        for path in paths:
            for key, value in counters.read(path).items():
                total[key] = total.get(key, 0) + value
        return total

    def accounting(self) -> PacketAccounting:
        """Return the packet accounting of the lab. Call after flows have stopped and no packet is under way."""
        if self.run is None:
            raise OperatorError("the run folder of the lab is unknown")
        kinds = {node.name: node.kind for node in self.file.nodes.values()}
        links = [[str(end) for end in link.ends] for link in self.file.links]
        return for_lab(self.run, kinds, links, self.ask("", "ps", {})["processes"])

    def unexpected(self, node: str = "") -> dict[str, int]:
        """Return the packets that testers received and no flow sent, by cause; ICMP errors are not counted."""
        found: dict[str, int] = {}
        for tester in self.file.testers():
            if node in ("", tester.name):
                for cause, count in self.ask(tester.name, "flows", {})["unexpected"].items():
                    if not cause.startswith("icmp "):
                        found[f"{tester.name}: {cause}"] = count
        return found

    def events(self, since: float = 0.0) -> list[Result]:
        """Return the events of the launcher and the controllers, `{time, node, text}` in order of time."""
        found: dict[tuple[float, str, str], None] = {}
        # Controllers report to the launcher too: an event in both histories counts once.
        for node in (LAUNCHER, *(router.name for router in self.file.routers())):
            with contextlib.suppress(OperatorError):
                for event in self.ask(node, "events", {"since": since}).get("events", []):
                    if event.get("time", 0.0) >= since:
                        where = event.get("node") or node or "launcher"
                        found[float(event["time"]), where, event["text"]] = None
        return [{"time": at, "node": node, "text": text} for at, node, text in sorted(found)]

    def shell(self, command: str, within: float = 60.0) -> tuple[int, str]:
        """Run a shell command in the lab file's folder, with `$CHASSIS_LAB` and `$CHASSIS_RUN`. Return status,
        output."""
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
