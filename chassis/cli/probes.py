"""`ping` and `traceroute`: echo requests one after another, shown as the answers come.

The questions of `ping` and what it prints are the box's (docs/fidelity.md). A traceroute sends echo requests whose
time to live grows, three for each hop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chassis.bus.requests import MAX_PING
from chassis.cli.dialogue import (
    Conversation,
    Inquiry,
    InquiryReply,
    Outcome,
    Question,
    Saying,
    Seat,
    agreed,
    refused,
)
from chassis.cli.views import probes
from chassis.net.address import parse_address
from chassis.net.icmp import TIME_EXCEEDED

COUNT: Final = 5
"""Echo requests of a ping (count)."""

SIZE: Final = 36
"""Octets of data of an echo request."""

TIMEOUT: Final = 1
"""Time (s) that an answer has."""

MAX_COUNT: Final = 10_000
MAX_TIMEOUT: Final = 60

MAX_HOPS: Final = 30
"""Largest time to live that a traceroute tries."""

PROBES: Final = 3
"""Echo requests of a traceroute for each hop (count)."""

Values = Mapping[str, Any]


def ping(values: Values, seat: Seat) -> Conversation:
    """Send echo requests to an address; without one, ask for it and for the rest."""
    if "address" not in values:
        values = yield from _asked()
    count, size, timeout = values.get("count", COUNT), values.get("size", SIZE), values.get("timeout", TIMEOUT)
    result: dict[str, Any] = {
        "size": size,
        "timeout": timeout,
        "sent": 0,
        "received": 0,
        "replies": [],
        "errors": [],
    }
    for number in range(1, count + 1):
        reply: InquiryReply = yield _echo(values, seat, size=size, timeout=timeout)
        if number == 1:
            first = reply.unless_refused()
            result |= {"source": first["source"], "address": first["address"]}
            if seat.live:
                yield Saying("".join(f"{line}\n" for line in probes.ping_head(result)))
        result["sent"] = number
        # A card that fails in between has lost this one; the next may go another way.
        answers = reply.result.get("replies", ())
        result["replies"] += [{**answer, "sequence": number} for answer in answers]
        result["received"] = len(result["replies"])
        result["errors"] += [one for one in reply.result.get("errors", ()) if one not in result["errors"]]
        if seat.live:
            yield Saying("!" if answers else ".")
    if not seat.live:
        return Outcome(result)
    yield Saying("\n")
    return Outcome(result, said=len(probes.ping_head(result)) + 1)


def _echo(values: Values, seat: Seat, **more: Any) -> Inquiry:
    """One echo request."""
    arguments: dict[str, Any] = {"context": seat.context, "address": values["address"], "count": 1, **more}
    if "source" in values:
        arguments["source"] = values["source"]
    return Inquiry("ping", arguments)


def _asked() -> Any:
    """Ask for the arguments of a ping; return them."""
    values: dict[str, Any] = {"address": _address((yield Question("Target IP address: ")))}
    for name, text, default, least, most in (
        ("count", "Repeat count", COUNT, 1, MAX_COUNT),
        ("size", "ICMP datagram size", SIZE, 0, MAX_PING),
        ("timeout", "Timeout in seconds", TIMEOUT, 1, MAX_TIMEOUT),
    ):
        values[name] = _number((yield Question(f"{text} [{default}]: ", str(default))), least, most)
    if agreed((yield Question("Extended commands [n]: ", "n"))):
        source = yield Question("Source address: ")
        if source:
            values["source"] = _address(source)
    return values


def _address(text: str) -> str:
    try:
        parse_address(text)
    except ValueError:
        refused(f"{text!r} is not an IPv4 address" if text else "an IPv4 address is needed")
    return text


def _number(text: str, least: int, most: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else -1
    if not least <= number <= most:
        refused(f"{text!r} is not a number from {least} to {most}")
    return number


def traceroute(values: Values, seat: Seat) -> Conversation:
    """Find the hops on the way to an address by the time to live of echo requests."""
    timeout, most = values.get("timeout", TIMEOUT), values.get("hops", MAX_HOPS)
    result: dict[str, Any] = {"address": values["address"], "most": most, "size": SIZE, "hops": []}
    said = 0
    for ttl in range(1, most + 1):
        hop: dict[str, Any] = {"ttl": ttl, "probes": []}
        over = False
        for _ in range(PROBES):
            reply: InquiryReply = yield _echo(values, seat, size=SIZE, timeout=timeout, ttl=ttl)
            answer = reply.result if reply.error and (hop["probes"] or result["hops"]) else reply.unless_refused()
            probe, last = _probe(answer)
            hop["probes"].append(probe)
            over = over or last
        result["hops"].append(hop)
        if seat.live:
            lines = probes.traceroute_lines(result)
            yield Saying("".join(f"{line}\n" for line in lines[said:]))
            said = len(lines)
        if over:
            break
    return Outcome(result, said)


def _probe(answer: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return who answered an echo request, and whether the way ends there."""
    for reply in answer.get("replies", ()):
        return {"address": answer["address"], "ms": reply["ms"], "mark": ""}, True
    for error in answer.get("refusals", ()):
        expired = error["type"] == TIME_EXCEEDED
        mark = "" if expired else probes.MARKS.get(error["code"], f"!{error['code']}")
        return {"address": error["address"], "ms": error["ms"], "mark": mark}, not expired
    return {"address": "", "ms": 0.0, "mark": ""}, False
