"""The launcher's own process: start a lab's processes, supervise them, serve operators, end everything.

Input: a lab, its run folder, its start-up files; later signals, pidfds and operator requests. Output: processes,
events and answers. This process never opens a ZeroMQ context (a fork would share it), and its loop never blocks.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import signal
import sys
import time
import traceback
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from itertools import count
from math import inf
from typing import Any

from chassis.bus import endpoints, requests
from chassis.bus.arguments import ArgumentError, fault, named, read, refusal
from chassis.bus.environment import WireSpec
from chassis.bus.loop import Loop
from chassis.bus.operator_loop import OperatorSocket
from launch.lab.model import Lab, LinuxNode, Node, PeersNode, RouterNode, TesterNode
from launch.run_folders import LAUNCHER_SOCKET, Folders
from launch.supervisor.access import Access
from launch.supervisor.active_config import Committed, now
from launch.supervisor.channel import Channel, ChannelRequest
from launch.supervisor.fork import ForkedProcess, fork
from launch.supervisor.namespaces import NamespaceError, RootNamespace, plan
from launch.supervisor.processes import (
    CONTROLLER,
    FORK_RETRY_DELAY,
    MANAGEMENT,
    EntryPoint,
    Processes,
    ProcessSlot,
    ProcessTemplate,
    usage,
)

MAX_EVENTS = 10_000
STATUS_TIMEOUT = 1.0
"""Time (s) that a node has to answer with its part of the lab's status."""

BOOT_TIMEOUT = 60.0
"""Time (s) after which a lab that is not up counts as not booted."""

MAX_FAILURES, FAILURES_WITHIN = 20, 10.0
"""Errors of the machine (count) within this time (s) that end the lab."""

BOOT_POLL_INTERVAL = 0.02

Cards = Mapping[str, tuple[tuple[str, str], ...]]
"""(card, kind) of every process beside the controller, by router."""


MAX_WAIT = 0.5
"""Longest wait (s) of the launcher's loop, well below the silence after which it takes a controller for hung."""


class Supervisor:
    """One running lab. Call `run` once.

    `entry_points` gives by kind what a forked process runs; `cards` the processes that each router's configuration
    needs; `startup` each configuration's text and file name; `committed` the commit that replaces it, if any;
    `access` holds the SSH ports of the routers: without it none is served.
    """

    def __init__(
        self,
        lab: Lab,
        folders: Folders,
        entry_points: Mapping[str, EntryPoint],
        cards: Cards,
        startup: Mapping[str, tuple[str, str]],
        committed: Mapping[str, Committed | None] | None = None,
        access: Access | None = None,
    ) -> None:
        self.lab, self.folders = lab, folders
        self._access = access
        self._committed = committed or {}
        self._cards, self._startup = cards, startup
        self._loop = Loop(longest_wait=MAX_WAIT)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count(1)
        self._events: deque[dict[str, Any]] = deque(maxlen=MAX_EVENTS)
        self._status = 0
        self._delete_state = False
        self._facts_due = self._facts_failed = False
        self._ground: RootNamespace | None = None
        self._ground_channel: Channel | None = None
        self._linux: dict[str, dict[str, Any]] = {}
        self._executing: dict[int, int] = {}
        self._helpers: list[ForkedProcess] = []
        self._wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.booted_at = 0.0
        self.on_started: Callable[[], None] = lambda: None
        """Called when the processes are started and the operator socket listens."""
        self._began = time.monotonic()
        blueprints = {
            node.name: ProcessTemplate(
                lambda card, node=node: self._environment(node, card),  # type: ignore[misc]
                node.settings.restart_delay,
                lambda card, node=node: self._inherited(node, card),  # type: ignore[misc]
            )
            for node in lab.nodes.values()
        }
        self.processes = Processes(
            self._loop, lab.name, folders, entry_points, blueprints, self._event, self._on_report
        )
        self._server: OperatorSocket | None = None
        self._commands: dict[str, Callable[[int, dict[str, Any]], None]] = {
            "ps": self._ps,
            "status": self._lab_status,
            "events": self._list_events,
            "kill": self._act(self.processes.kill, alive=True),
            "stop": self._act(self.processes.stop, alive=True),
            "continue": self._act(self.processes.resume, alive=True),
            "restart": self._act(self.processes.restart, alive=False),
            "exec": self._exec,
            "destroy": self._destroy,
        }

    # start and end

    def run(
        self,
        on_booted: Callable[[str], None] = lambda problem: None,
        *,
        with_pid: int | None = None,
        must_boot: bool = False,
    ) -> int:
        """Start everything and supervise it until the lab ends. Return the exit status.

        Call `on_booted` once: with "" when every card is admitted, or after `BOOT_TIMEOUT` with what is missing
        and the ends of the logs; with `must_boot` the lab ends then. With `with_pid` the lab ends when that
        process does.

        Raises:
                NamespaceError: the lab's Linux nodes cannot be created.
        """
        before = self._take_signals()
        try:
            self._start()
            if with_pid is not None:
                self._end_with(with_pid)
            self.on_started()
            self._check_booted(on_booted, must_boot)
            self._watch()
        except NamespaceError:
            raise
        except Exception:
            kept = self.folders.keep_log(traceback.format_exc())
            if kept is not None:
                print(f"the launcher's log is {kept}", file=sys.stderr)
            raise
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._status

    def _watch(self) -> None:
        """Run until the lab ends. Report an error of the machine as an event and go on without that action."""
        failures: deque[float] = deque(maxlen=MAX_FAILURES)
        while True:
            try:
                self._loop.run(self._next_timer, self._on_timer)
                return
            except OSError as error:
                at = time.monotonic()
                if len(failures) == MAX_FAILURES and at - failures[0] < FAILURES_WITHIN:
                    # The error is permanent.
                    raise
                failures.append(at)
                self._event("", "", "failed", f"the launcher: {error}")

    def stop(self, status: int = 0) -> None:
        """End the lab, so that `run` returns this status."""
        self._status = self._status or status
        self._loop.stop()

    def helper(self, run: Callable[[], int], title: str) -> None:
        """Run a child process on this terminal. End the lab with the child's status when the child ends."""
        child = fork(run, title, None)
        self._helpers.append(child)

        def gone(now: float) -> None:
            self._loop.remove(child.pidfd)
            os.close(child.pidfd)
            self._helpers.remove(child)
            _, status = os.waitpid(child.pid, 0)
            self.stop(os.waitstatus_to_exitcode(status) & 0xFF)

        self._loop.add(child.pidfd, gone)

    def _take_signals(self) -> dict[int, Any]:
        def on_signal(number: int, frame: object) -> None:
            self._loop.stop()

        signals = [signal.SIGTERM, signal.SIGINT]
        # nohup ignores SIGHUP so that the lab outlives the terminal: keep that.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signals.append(signal.SIGHUP)
        before: dict[int, Any] = {number: signal.signal(number, on_signal) for number in signals}
        # Without a wakeup descriptor the poll would continue until its timeout after a signal.
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        self._loop.add(self._wakeup[0], lambda now: _drain(self._wakeup[0]))
        return before

    def _start(self) -> None:
        self._loop.on_stall = lambda seconds, now: self.processes.on_stall(seconds)
        if any(plan(self.lab)) or self.lab.linux():
            self._ground = RootNamespace(self.lab, self.folders.run)
            self._linux = {
                name: {"pid": pid, "ready": False, "error": ""} for name, pid in self._ground.pids.items()
            }
        self._server = OperatorSocket(self._loop, self.folders.run / LAUNCHER_SOCKET, self._command)
        for router in self.lab.routers():
            self.processes.add(router.name, CONTROLLER, CONTROLLER)
            self.processes.set_cards(router.name, self._cards[router.name])
            if self._access is not None and router.name in self._access.sockets:
                self.processes.add(router.name, MANAGEMENT, MANAGEMENT)
        for tester in self.lab.testers():
            self.processes.add(tester.name, tester.kind, tester.kind)
        for peers in self.lab.peers():
            self.processes.add(peers.name, peers.kind, peers.kind)
        if self._ground is not None:
            self._ground_channel = Channel(
                self._loop, self._ground.channel, self._on_namespace_report, self._on_namespaces_ended
            )
            self._ground_channel.send(what="go")
        self._write_facts()

    def _end(self) -> None:
        for child in self._helpers:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(child.pidfd, signal.SIGTERM)
            os.waitpid(child.pid, 0)
            os.close(child.pidfd)
        self.processes.end_all()
        if self._ground_channel is not None:
            self._ground_channel.close()
        if self._ground is not None:
            self._ground.close()
        if self._server is not None:
            self._server.close()
        if self._access is not None:
            self._access.close()
        signal.set_wakeup_fd(-1)
        for fd in self._wakeup:
            os.close(fd)
        self.folders.close(delete_state=self._delete_state)

    def _end_with(self, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            self.stop()
            return
        self._loop.add(pidfd, lambda now: self.stop())

    # timers

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), act))

    def _next_timer(self) -> float:
        return min(self._timers[0][0] if self._timers else inf, self.processes.next_timer())

    def _on_timer(self, now: float) -> None:
        self.processes.on_timer(now)
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    # what a process gets

    def _environment(self, node: Node, card: str) -> dict[str, Any]:
        settings = node.settings.to_json()
        told: dict[str, Any] = {"settings": settings, "wires": self._wires(node, card)}
        if isinstance(node, RouterNode):
            settings.update(node.to_settings())
            if card == CONTROLLER:
                told["startup"] = self._startup[node.name]
                told["flash"] = node.flash
            elif card == MANAGEMENT and self._access is not None:
                settings["ssh"] = self._access.settings(node.name)
                told["listener"] = self._access.sockets[node.name].fileno()
        elif isinstance(node, TesterNode):
            settings["tester-id"] = list(self.lab.nodes).index(node.name) + 1
            told["ports"] = {name: port.plain() for name, port in node.ports.items()}
            told["flows"] = {flow.name: flow.plain() for flow in self.lab.flows.values()}
        elif isinstance(node, PeersNode):
            told["ports"] = {name: port.plain() for name, port in node.ports.items()}
            told["peers"] = node.values
        return told

    def _wires(self, node: Node, card: str) -> dict[str, WireSpec]:
        """Return the far ends of the ports that this card holds."""
        slot = card.removeprefix("lc ") + "/" if card.startswith("lc ") else ""
        if not slot and not isinstance(node, TesterNode | PeersNode):
            return {}
        wires = {}
        for link in self.lab.links:
            for end, far in (link.ends, link.ends[::-1]):
                if end.node == node.name and end.port.startswith(slot):
                    seed, far_seed = (zlib.crc32(f"{node.settings.seed} {one}".encode()) for one in (end, far))
                    if self._ground is not None and end in self._ground.sockets:
                        linux = isinstance(self.lab.nodes[far.node], LinuxNode)
                        wires[end.port] = WireSpec(
                            "packet",
                            fd=self._ground.sockets[end],
                            ring=end in self._ground.ringed,
                            seed=seed,
                            far_seed=far_seed if linux else None,
                        )
                    else:
                        wires[end.port] = WireSpec("wire", far.node, far.port, pause=link.pause, seed=seed)
        return wires

    def _inherited(self, node: Node, card: str) -> list[int]:
        if card == MANAGEMENT and self._access is not None:
            return [self._access.sockets[node.name].fileno()]
        return [wire.fd for wire in self._wires(node, card).values() if wire.fd >= 0]

    # what processes report

    def _event(self, node: str, card: str, what: str, text: str) -> None:
        named = f"{card} {what}: {text}" if card else f"{what}: {text}"
        self._events.append({"time": time.monotonic(), "node": node, "card": card, "what": what, "text": named})
        if not self._facts_due:
            self._facts_due = True
            self._after(0.0, self._write_facts)

    def _on_report(self, slot: ProcessSlot, message: dict[str, Any]) -> None:
        """Handle a controller's report that does not concern a process."""
        if message.get("what") == "cards" and isinstance(message.get("cards"), dict):
            self.processes.set_cards(
                slot.node, [(str(card), str(kind)) for card, kind in message["cards"].items()]
            )
        elif message.get("what") == "event":
            text, at = str(message.get("text", "")), message.get("time", time.monotonic())
            self._events.append({"time": at, "node": slot.node, "card": CONTROLLER, "what": "event", "text": text})

    def _on_namespace_report(self, message: dict[str, Any]) -> None:
        if message.get("what") == "node":
            entry = self._linux[message["node"]]
            entry["error"] = message["error"]
            entry["ready"] = not message["error"]
            self._event(message["node"], "", "ready" if entry["ready"] else "failed", message["error"] or "set up")
        elif message.get("what") == "exec" and self._server is not None:
            number = self._executing.pop(message["number"], None)
            if number is not None:
                self._server.answer(number, {"code": message["code"], "output": message["output"]})

    def _on_namespaces_ended(self) -> None:
        for name, entry in self._linux.items():
            entry.update(ready=False, error="its namespace is gone; see linux.log")
            self._event(name, "", "died", "its namespace is gone; see linux.log")

    # facts

    def _write_facts(self) -> None:
        """Write `lab.json`; try again later if it cannot be written."""
        self._facts_due = False
        try:
            self._write_lab_file()
        except OSError as error:
            self._facts_due = True
            if not self._facts_failed:
                self._facts_failed = True
                self._event("", "", "failed", f"lab.json cannot be written ({error.strerror}); trying again")
            self._after(FORK_RETRY_DELAY, self._write_facts)
        else:
            self._facts_failed = False

    def _write_lab_file(self) -> None:
        nodes: dict[str, Any] = {}
        for node in self.lab.nodes.values():
            facts: dict[str, Any] = {"kind": node.kind}
            if isinstance(node, LinuxNode):
                facts.update(self._linux.get(node.name, {}))
            else:
                facts["cards"] = {slot.card: slot.facts() for slot in self.processes.of(node.name)}
                if self._access is not None and node.name in self._access.sockets:
                    facts["ssh"] = self._access.facts(node.name)
            nodes[node.name] = facts
        self.folders.write_facts(
            {
                "name": self.lab.name,
                "file": str(self.lab.file.absolute()),
                "launcher": os.getpid(),
                "state": str(self.folders.state),
                "nodes": nodes,
                "links": [[str(end) for end in link.ends] for link in self.lab.links],
            }
        )

    def _check_booted(self, on_booted: Callable[[str], None], must_boot: bool) -> None:
        """Poll the nodes until all of their cards are usable."""

        def seen(nodes: dict[str, Any]) -> None:
            for name, node in nodes.items():
                if node["kind"] == "smartedge" and not node["error"]:
                    # A controller that found a journal uses that and not the start-up file, so its cards may
                    # differ.
                    self.processes.set_cards(
                        name, [(card["card"], card["kind"]) for card in node["status"]["cards"]]
                    )
            missing = _missing(nodes)
            failed = any(entry["error"] for entry in self._linux.values())
            if not missing:
                self.booted_at = time.monotonic()
                on_booted("")
            elif failed or time.monotonic() - self._began > BOOT_TIMEOUT:
                on_booted("\n".join([*missing, *self.folders.log_ends()]))
                if must_boot:
                    self.stop(1)
            else:
                self._after(BOOT_POLL_INTERVAL, lambda: self._collect_status(seen))

        self._collect_status(seen)

    def _collect_status(self, done: Callable[[dict[str, Any]], None]) -> None:
        """Request the status of every node; pass {name: {kind, status, error}} to `done`."""
        nodes: dict[str, Any] = {}
        asked: list[ChannelRequest] = []
        waiting = {node.name for node in self.lab.nodes.values() if not isinstance(node, LinuxNode)}

        def answered(name: str, result: dict[str, Any], error: str) -> None:
            nodes[name] = {"kind": self.lab.nodes[name].kind, "status": result, "error": error}
            waiting.discard(name)
            if not waiting:
                waiting.add("")  # ignore later answers
                finish()

        def finish() -> None:
            # Read the Linux nodes last: their state may have changed during the wait for the other nodes.
            for name, entry in self._linux.items():
                nodes[name] = {"kind": "linux", "status": dict(entry), "error": entry["error"]}
            done({name: nodes[name] for name in self.lab.nodes})

        if not waiting:
            finish()
            return
        for name in list(waiting):
            path = endpoints.operator(self.folders.run, name)
            tell = lambda result, error, name=name: answered(name, result, error)  # noqa: E731
            asked.append(ChannelRequest(self._loop, path, "status", tell))

        def give_up() -> None:
            for ask in asked:
                ask.give_up()

        self._after(STATUS_TIMEOUT, give_up)

    # operators

    def _command(self, number: int, command: str, arguments: dict[str, Any]) -> None:
        try:
            values = read(named(requests.LAUNCHER, command, "the launcher"), arguments)
            self._commands[command](number, values)
        except ArgumentError as error:
            self._refuse(number, refusal(command, error))
        except Exception as error:
            # A bug of this program: report it to the operator and keep the lab running.
            text = f"{command}: {fault(error)}"
            self._event("", "", "fault", text)
            self._refuse(number, text)

    def _answer(self, number: int, result: Mapping[str, Any]) -> None:
        if self._server is not None:
            self._server.answer(number, result)

    def _refuse(self, number: int, why: str) -> None:
        if self._server is not None:
            self._server.answer(number, {}, why)

    def _rows(self) -> list[dict[str, Any]]:
        now = time.monotonic()
        rows = []
        for slot in self.processes.slots.values():
            row = {
                "node": slot.node,
                "card": slot.card,
                **slot.facts(),
                "starts": slot.starts,
                "ended": slot.ended,
            }
            row["seconds"] = now - slot.started
            if slot.card == MANAGEMENT and self._access is not None:
                row["ssh"] = self._access.facts(slot.node)
            rows.append({**row, **(usage(slot.pid) if slot.alive else {})})
        for name, entry in self._linux.items():
            state = "running" if not entry["error"] else "dead"
            rows.append(
                {"node": name, "card": "", "kind": "linux", "pid": entry["pid"], "boot": 1, "state": state}
            )
        return rows

    def _ps(self, number: int, arguments: dict[str, Any]) -> None:
        self._answer(number, {"lab": self.lab.name, "launcher": os.getpid(), "processes": self._rows()})

    def _lab_status(self, number: int, arguments: dict[str, Any]) -> None:
        def done(nodes: dict[str, Any]) -> None:
            self._answer(
                number,
                {
                    "lab": self.lab.name,
                    "file": str(self.lab.file),
                    "now": time.monotonic(),
                    "seconds": time.monotonic() - self._began,
                    "boot_seconds": self.booted_at - self._began if self.booted_at else None,
                    "missing": _missing(nodes),
                    "not_in_force": self._not_in_force(nodes),
                    "nodes": nodes,
                    "processes": self._rows(),
                    "links": [[str(end) for end in link.ends] for link in self.lab.links],
                    "flows": {flow.name: flow.plain() for flow in self.lab.flows.values()},
                    "events": list(self._events)[-50:],
                },
            )

        self._collect_status(done)

    def _not_in_force(self, nodes: Mapping[str, Any]) -> list[str]:
        """Return notes on start-up files that are not in force: the difference and the commands to change that."""
        lines: list[str] = []
        for router in self.lab.routers():
            status = nodes[router.name]["status"]
            file = self._startup[router.name][1]
            lines += now(self.lab.name, router.name, file, self._committed.get(router.name), status)
        return lines

    def _list_events(self, number: int, arguments: dict[str, Any]) -> None:
        since = arguments["since"]
        self._answer(number, {"events": [event for event in self._events if event["time"] >= since]})

    def _act(self, act: Callable[[ProcessSlot], None], alive: bool) -> Callable[[int, dict[str, Any]], None]:
        def handler(number: int, arguments: dict[str, Any]) -> None:
            node = arguments["node"]
            slots = self.processes.of(node)
            card = arguments["card"] or (slots[0].card if len(slots) == 1 else "")
            slot = self.processes.find(node, card)
            if node not in self.lab.nodes:
                self._refuse(number, f"{node!r} is not a node of this lab; nodes: {', '.join(self.lab.nodes)}")
            elif slot is None:
                known = ", ".join(slot.card for slot in slots) or "none"
                self._refuse(number, f"{card!r} is not a card of {node}; cards: {known}")
            elif alive and not slot.alive:
                self._refuse(number, f"{slot.name} is already dead ({slot.ended})")
            else:
                before = {"node": node, "card": card, "pid": slot.pid, "boot": slot.boot}
                act(slot)
                self._answer(number, before)

        return handler

    def _exec(self, number: int, arguments: dict[str, Any]) -> None:
        node = arguments["node"]
        if node not in self._linux or self._ground_channel is None:
            known = ", ".join(self._linux) or "none"
            self._refuse(number, f"{node!r} is not a Linux node; Linux nodes: {known}")
            return
        if not arguments["command"]:
            self._refuse(
                number,
                "command is not valid; expected a shell text or a list of a program and its arguments",
            )
            return
        own = next(self._numbers)
        self._executing[own] = number
        self._ground_channel.send(
            what="exec",
            node=node,
            number=own,
            command=arguments["command"],
            timeout=arguments["timeout"],
        )

    def _destroy(self, number: int, arguments: dict[str, Any]) -> None:
        self._delete_state = not arguments["keep_state"]
        self._answer(number, {"destroyed": self.lab.name})
        self.stop()


def _missing(nodes: Mapping[str, Any]) -> list[str]:
    """Describe what is missing for the lab to be up."""
    missing = []
    for name, node in nodes.items():
        if node["error"]:
            missing.append(f"{name}: {node['error']}")
        elif node["kind"] == "linux" and not node["status"]["ready"]:
            missing.append(f"{name}: not ready")
        elif node["kind"] == "smartedge":
            cards = node["status"].get("cards", [])
            late = [card["card"] for card in cards if not card.get("usable") and card["card"] != CONTROLLER]
            missing += [f"{name} {card}: not up" for card in late]
    return missing


def _drain(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(fd, 4096)
