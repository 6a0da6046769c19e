"""The operators' commands at a controller: check arguments, send requests to cards, collect the answers.

A request to cards is answered when each card has replied, died or exceeded its time. The engine does not have the
command `bus`: the shell shows the messages.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from chassis.bus import requests
from chassis.bus.arguments import ArgumentError, fault, given, named, read, refusal
from chassis.bus.engine import Output, ToCard, ToOperator
from chassis.bus.messages import Attributes, Reply, Request, Value
from chassis.config.portion import portion, render_portion, used_by
from chassis.config.render import render
from chassis.xcrp import show
from chassis.xcrp.commits import Commits
from chassis.xcrp.leaving_card import UnreachableError, leaving_card, usable_line_cards
from chassis.xcrp.state import ControllerState

CARD_REPLY_TIMEOUT = 10.0
"""Time that a card has for its reply (s)."""


Finish = Callable[[Mapping[str, Any], Mapping[str, str]], Attributes]
"""Makes an answer from the replies and the errors of cards, by card."""


@dataclass(slots=True)
class _PendingCommand:
    """A command that waits for cards. `waiting` maps the number of each open request to its card."""

    operator: int
    waiting: dict[int, str]
    deadline: float
    one_card: bool
    results: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    more: Attributes = field(default_factory=dict)
    """What the controller adds to the answer of one card."""
    finish: Finish | None = None
    """Returns the answer, if the replies are not the answer themselves."""


@dataclass(slots=True)
class _Capture:
    """A running capture: the card and its boot, and the request that started it there."""

    card: str
    arguments: Attributes
    boot: int
    request: int
    interrupted: int = 0
    """How often its card died and the capture continued in the next process (count)."""
    error: str = ""
    """Why the next process could not continue it."""


Method = Callable[["Operators", int, dict[str, Any], float], list[Output]]
"""Runs a command; the arguments are checked and complete."""

_COMMANDS: dict[str, Method] = {}


def _command(name: str) -> Callable[[Method], Method]:
    def add(method: Method) -> Method:
        _COMMANDS[name] = method
        return method

    return add


class Operators:
    """Runs commands, and keeps those that wait for cards."""

    def __init__(self, state: ControllerState, commits: Commits, more: Mapping[str, Method]) -> None:
        """`more` are the commands of other modules, beside those of this one."""
        self.state, self.commits = state, commits
        self._commands = {**_COMMANDS, **more}
        self._specs = {name: requests.CONTROLLER[name] for name in self._commands}
        self.node = state.node
        self._number = state.boot << 24
        self._asked: dict[int, _PendingCommand] = {}
        self._captures: dict[str, _Capture] = {}
        """By file."""
        self._trace = zlib.crc32(self.node.name.encode()) << 31 | (state.boot & 0xFFFF) << 15

    def command(self, number: int, name: Any, arguments: Any, now: float) -> list[Output]:
        try:
            spec = named(self._specs, name, "a controller")
            return self._commands[name](self, number, read(spec, arguments), now)
        except ArgumentError as error:
            return [ToOperator(number, {}, refusal(name, error))]
        except Exception as error:
            # A bug of this program: report it to the operator, and continue.
            text = f"{name}: {fault(error)}"
            self.state.log("error", "operator", text, now)
            return [ToOperator(number, {}, text)]

    def on_reply(self, card: str, message: Reply, now: float) -> list[Output]:
        outputs = self._on_capture_failed(message.number, message.error, now) if message.error else []
        asked = self._asked.get(message.number)
        if asked is None or asked.waiting.get(message.number) != card:
            return outputs
        if not message.last:
            asked.deadline = max(asked.deadline, now + CARD_REPLY_TIMEOUT)
            return [ToOperator(asked.operator, message.result, message.error, last=False), *outputs]
        del asked.waiting[message.number], self._asked[message.number]
        if message.error:
            asked.errors[card] = message.error
        elif card in asked.results:
            asked.results[card] = _together(asked.results[card], message.result)
        else:
            asked.results[card] = message.result
        return self._done(asked) + outputs

    def on_card_down(self, card: str, now: float) -> list[Output]:
        """Give up the requests to a card that failed."""
        return self._time_out(lambda asked, who: who == card, f"{card} is down", now)

    def on_card_up(self, card: str, now: float) -> list[Output]:
        """A card was admitted. If its process is not the one that captured, continue its captures."""
        outputs: list[Output] = []
        boot = self.node.cards[card].admitted_boot
        for file, running in self._captures.items():
            if running.card != card or running.boot == boot or running.error:
                continue
            self._number += 1
            running.boot, running.request = boot, self._number
            running.interrupted += 1
            arguments = {**running.arguments, "append": True}
            outputs.append(ToCard(card, Request(self._number, "capture", arguments)))
            outputs += self.state.event(f"{card}: boot {boot} goes on with the capture into {file}", now)
        return outputs

    def on_timer(self, now: float) -> list[Output]:
        return self._time_out(lambda asked, who: asked.deadline <= now, "no answer in time", now)

    def next_timer(self) -> float:
        return min((asked.deadline for asked in self._asked.values()), default=inf)

    # inside

    def _time_out(self, which: Callable[[_PendingCommand, str], bool], why: str, now: float) -> list[Output]:
        outputs: list[Output] = []
        for number, asked in list(self._asked.items()):
            card = asked.waiting[number]
            if which(asked, card):
                del asked.waiting[number], self._asked[number]
                asked.errors[card] = why
                outputs += self._on_capture_failed(number, why, now)
                outputs += self._done(asked)
        return outputs

    def _on_capture_failed(self, request: int, why: str, now: float) -> list[Output]:
        """A request failed. If it was to start or continue a capture, that capture has ended."""
        outputs: list[Output] = []
        for file, running in list(self._captures.items()):
            if running.request != request:
                continue
            if running.interrupted:
                running.error = why
                outputs += self.state.event(f"{running.card}: the capture into {file} has ended: {why}", now)
            else:
                del self._captures[file]
        return outputs

    def _done(self, asked: _PendingCommand) -> list[Output]:
        if asked.waiting:
            return []
        if asked.one_card:
            error = next((f"{card}: {text}" for card, text in asked.errors.items()), "")
            answer = {**next(iter(asked.results.values()), {}), **asked.more}
            if asked.finish is not None and not error:
                answer = asked.finish(asked.results, asked.errors)
            return [ToOperator(asked.operator, answer, error)]
        if asked.finish is not None:
            return [ToOperator(asked.operator, asked.finish(asked.results, asked.errors))]
        return [ToOperator(asked.operator, {"cards": asked.results, "errors": dict(asked.errors)})]

    def request_cards(
        self,
        operator: int,
        cards: Sequence[tuple[str, Attributes]],
        name: str,
        now: float,
        *,
        single: bool = False,
        patience: float = CARD_REPLY_TIMEOUT,
        more: Attributes | None = None,
        finish: Finish | None = None,
    ) -> list[Output]:
        """Send a request to each of these cards. When all have replied, answer the operator with the replies by
        card, for a `single` card with its reply and `more`, or with what `finish` makes of them. A card may be
        asked several times, about one tunnel each: its replies are put together."""
        asked = _PendingCommand(operator, {}, now + patience, single, more=more or {}, finish=finish)
        outputs: list[Output] = []
        for card, arguments in cards:
            self._number += 1
            asked.waiting[self._number] = card
            self._asked[self._number] = asked
            outputs.append(ToCard(card, Request(self._number, name, arguments)))
        if outputs:
            return outputs
        return [ToOperator(operator, finish({}, {}) if finish is not None else {"cards": {}, "errors": {}})]

    def usable(self, card: str) -> str:
        """Return the name of a card that takes requests.

        Raises:
            ArgumentError: there is no such card, or it is not admitted.
        """
        entry = self.node.cards.get(card)
        if entry is None:
            raise ArgumentError(f"no card {card!r}; there are: {', '.join(self.node.cards) or 'none'}")
        if not entry.expects_heartbeats:
            raise ArgumentError(f"{card} is {entry.state.value}")
        return card

    def _card_of_port(self, port: str) -> str:
        slot = port.partition("/")[0]
        if f"lc {slot}" not in self.node.cards:
            raise ArgumentError(f"no line card holds port {port!r}")
        return self.usable(f"lc {slot}")

    def line_cards(self) -> list[str]:
        return usable_line_cards(self.node)

    def context_number(self, name: str) -> int:
        number = self.node.plan.contexts.get(name)
        if number is None:
            known = ", ".join(self.node.plan.contexts)
            raise ArgumentError(f"no context {name!r}; there are: {known}")
        return number

    # commands

    @_command("status")
    def _status(self, number: int, arguments: dict[str, Any], now: float) -> list[Output]:
        return [ToOperator(number, show.status(self.state))]

    @_command("routes")
    def _routes(self, number: int, arguments: dict[str, Any], now: float) -> list[Output]:
        context = self.context_number(arguments["context"])
        answer: Attributes = {
            "routes": show.routes(self.node, context),
            "down": show.down_routes(self.node, arguments["context"]),
        }
        return [ToOperator(number, answer)]

    @_command("events")
    def _events(self, number: int, arguments: dict[str, Any], now: float) -> list[Output]:
        return [ToOperator(number, {"events": show.events(self.state.history, arguments["since"])})]

    @_command("config")
    def _config(self, number: int, arguments: dict[str, Any], now: float) -> list[Output]:
        config, keys, verbose = self.state.config, arguments["keys"], arguments["verbose"]
        if keys:
            self.state.log("warning", "configuration", "the configuration was printed with clear keys", now)
        part, context, name = arguments["part"], arguments["context"], arguments["name"]
        if part == "all":
            last = self.state.journal.last
            changed: dict[str, Value] = {"user": last.user, "time": last.time} if last is not None else {}
            return [ToOperator(number, {"text": render(config, verbose, keys), "changed": changed})]
        if context:
            self.context_number(context)
        if asp := arguments["asp"]:
            config = used_by(config, self._tunnels_on(f"asp {asp}"))
        text = render_portion(portion(config, part, context, name), verbose, keys)
        if name and not text:
            raise ArgumentError(f"no {part.replace('-', ' ')} {name!r}")
        return [ToOperator(number, {"text": text})]

    def _tunnels_on(self, asp: str) -> set[str]:
        """Return the names of the tunnels of an ASP.

        Raises:
            ArgumentError: there is no such ASP.
        """
        if asp not in self.node.cards:
            raise ArgumentError(f"no {asp}")
        return {plan.config.name for plan in self.node.plan.tunnels.values() if plan.asp == asp}

    @_command("trace")
    def _arm(self, number: int, arguments: dict[str, Any], now: float) -> list[Output]:
        count = arguments["count"]
        filters: Attributes = {
            name: arguments[name]
            for name in ("count", "source", "destination", "protocol")
            if arguments[name] is not None
        }
        asked: list[tuple[str, Attributes]] = []
        for card, port in self._trace_points(arguments["context"], arguments["port"]):
            asked.append((card, {**filters, "port": port, "number": self._traces_of(count)}))
        if not asked:
            raise ArgumentError("no port of a usable line card to trace at")
        return self.request_cards(number, asked, "trace", now)

    def _trace_points(self, context: str | None, port: str | None) -> list[tuple[str, str]]:
        """Return (card, port) of each place to arm a trace at; an empty port means every port of the card."""
        if port is not None:
            return [(self._card_of_port(port), port)]
        usable = self.line_cards()
        if context is None:
            return [(card, "") for card in usable]
        number = self.context_number(context)
        ports = self.node.plan.ports.values()
        return [
            (port_plan.card, port_plan.name)
            for port_plan in ports
            if port_plan.context == number and port_plan.card in usable and port_plan.enabled
        ]

    def _traces_of(self, count: int) -> int:
        """Reserve `count` trace numbers, unique in the lab; return the first."""
        first = self._trace + 1
        self._trace += count
        return first

    @_command("ping")
    def _ping(self, number: int, arguments: dict[str, Any], now: float) -> list[Output]:
        context = self.context_number(arguments["context"])
        count, timeout, interval = arguments["count"], arguments["timeout"], arguments["interval"]
        address = arguments["address"]
        ask: Attributes = {
            "context": context,
            "address": address,
            "count": count,
            "size": arguments["size"],
            "timeout": timeout,
            "interval": interval,
            "ttl": arguments["ttl"],
        }
        if arguments["source"] is not None:
            ask["source"] = arguments["source"]
        if arguments["trace"]:
            ask["trace"] = self._traces_of(1)
        card = self._pinging_card(context, address)
        patience = count * interval + timeout + CARD_REPLY_TIMEOUT
        return self.request_cards(number, [(card, ask)], "ping", now, single=True, patience=patience)

    def _pinging_card(self, context: int, address: int) -> str:
        """Return the line card by which a packet to the address leaves; any usable one if none can leave.

        Raises:
            ArgumentError: no line card is usable.
        """
        try:
            return leaving_card(self.node, context, address)
        except UnreachableError as error:
            usable = self.line_cards()
            if not usable:
                raise ArgumentError(str(error)) from None
            return usable[0]

    @_command("link")
    def _link(self, number: int, arguments: dict[str, Any], now: float) -> list[Output]:
        return self._to_port(number, "link", arguments, now)

    @_command("inject")
    def _inject(self, number: int, arguments: dict[str, Any], now: float) -> list[Output]:
        return self._to_port(number, "inject", arguments, now)

    def _to_port(self, number: int, name: str, arguments: dict[str, Any], now: float) -> list[Output]:
        card = self._card_of_port(arguments["port"])
        return self.request_cards(number, [(card, given(arguments))], name, now, single=True)

    @_command("capture")
    def _capture(self, number: int, arguments: dict[str, Any], now: float) -> list[Output]:
        card, point = self._captured(arguments["what"])
        ask: Attributes = {"what": point} | {name: arguments[name] for name in ("file", "snaplen", "clear")}
        if arguments["ring"]:
            ask["ring"] = arguments["ring"]
        outputs = self.request_cards(number, [(self.usable(card), ask)], "capture", now, single=True)
        # A card has one capture for each point: this one replaces another.
        self._captures = {
            file: running
            for file, running in self._captures.items()
            if (running.card, running.arguments["what"]) != (card, point)
        }
        self._captures[arguments["file"]] = _Capture(card, ask, self.node.cards[card].admitted_boot, self._number)
        return outputs

    @_command("capture-stop")
    def _capture_stop(self, number: int, arguments: dict[str, Any], now: float) -> list[Output]:
        file, what = arguments["file"], arguments["what"]
        more: Attributes = {}
        running = self._captures.get(file)
        if running is not None:
            card, point = running.card, str(running.arguments["what"])
        elif what:
            card, point = self._captured(what)
            found = (f for f, r in self._captures.items() if (r.card, r.arguments["what"]) == (card, point))
            file = next(found, file)
            running = self._captures.get(file)
        else:
            raise ArgumentError(f"no capture into {file!r}; name what is captured instead")
        if running is not None:
            # Remove it first, so that the card's next process does not continue it if the request fails.
            del self._captures[file]
            more = {"interrupted": running.interrupted, **({"error": running.error} if running.error else {})}
            entry = self.node.cards.get(card)
            if entry is None or not entry.expects_heartbeats:
                why = f"{card} is {entry.state.value if entry else 'no longer configured'}"
                return [ToOperator(number, {"stopped": False, "missed": 0, "error": why, **more})]
        ask: Attributes = {"what": point, "file": file}
        return self.request_cards(number, [(self.usable(card), ask)], "capture-stop", now, single=True, more=more)

    def _captured(self, what: str) -> tuple[str, str]:
        """Return card and point of `port 3/11`, `asp 1/1 inner`, `asp 1/1 outer`, `asp 1/1` and `fabric lc 3`."""
        if what.startswith("port "):
            return self._card_of_port(what.removeprefix("port ")), what
        card, _, side = what.rpartition(" ")
        if side in ("inner", "outer"):
            if not card.startswith("asp "):
                raise ArgumentError(f"{card!r} has no {side} side: an ASP has, as in 'asp 1/1 {side}'")
            return card, side
        return what.removeprefix("fabric "), "fabric"

    @_command("neighbours")
    def _neighbours(self, number: int, arguments: dict[str, Any], now: float) -> list[Output]:
        cards = self.line_cards() if arguments["card"] is None else [self.usable(arguments["card"])]
        return self.request_cards(number, [(card, {}) for card in cards], "neighbours", now)


_SUMS = frozenset({"cleared", "begun", "manual"})
"""Numbers of replies that count tunnels."""


def _together(one: Any, other: Any, name: str = "") -> Any:
    """Return two replies of a card about different tunnels as one: what each lists, and what only one has."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {
            key: _together(one[key], other[key], key) if key in one and key in other else {**one, **other}[key]
            for key in {**one, **other}
        }
    if isinstance(one, list) and isinstance(other, list):
        return [*one, *other]
    return one + other if name in _SUMS else other
