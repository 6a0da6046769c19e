"""Lines to syslog servers: their form (RFC 3164), who gets which, and that floods are bounded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf
from typing import Any

from chassis.bus.engine import Output
from chassis.bus.messages import LogRecord
from chassis.config.parser import parse
from chassis.net.address import parse_address
from chassis.xcrp.leaving_card import UnreachableError
from chassis.xcrp.log import LogEntry
from chassis.xcrp.syslog import INTERVAL, MAX_AT_ONCE, MAX_OCTETS, MAX_WAITING, SyslogSender, datagram

WALL = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC).timestamp()
CONTEXTS = {"local": 1, "lan": 2}
CONFIG = parse(
    "system hostname edge\ncontext local\n logging syslog 10.0.0.9\n!\n"
    "context lan\n logging syslog 10.1.0.9 facility local3\n!\nlogging filter syslog 5\nend\n",
    "x",
).config


def entry(text: str = "said", severity: str = "error", time: float = 1.0, **values: Any) -> LogEntry:
    return LogEntry(1, WALL, LogRecord(time, severity, "ike", "", text, values), 0x40080002, "")


class Router:
    def __init__(self) -> None:
        self.sender = SyslogSender()
        self.unreachable = False
        self.sent: list[tuple[int, int, list[str]]] = []

    def turn(self, now: float, config: Any = CONFIG) -> list[tuple[int, int, list[str]]]:
        """Return context, address and lines of what leaves."""
        self.sent = []
        assert self.sender.on_timer(config, CONTEXTS, self.send, now, WALL) == []
        return self.sent

    def send(
        self, context: int, address: int, port: int, source_port: int, lines: Sequence[bytes], now: float
    ) -> list[Output]:
        if self.unreachable:
            raise UnreachableError("no line card is usable")
        assert (source_port, port) == (514, 514)
        self.sent.append((context, address, [line.decode() for line in lines]))
        return []


def test_a_line_has_priority_date_and_name() -> None:
    assert datagram(entry(), "local7", "edge") == b"<187>Mar  4 05:06:07 edge [0002]: %IKE-3-ERR: said"
    assert datagram(entry(severity="informational"), "daemon", "edge").startswith(b"<30>Mar  4 05:06:07 edge ")


def test_a_line_is_one_line_of_bounded_length() -> None:
    sent = datagram(entry("a\nb\x1b[2J" + "x" * 5000), "local7", "edge")
    assert len(sent) == MAX_OCTETS
    assert b"a b [2J" in sent


def test_a_server_gets_the_lines_of_its_context_and_that_of_local_all() -> None:
    router = Router()
    for name in ("lan", "wan", ""):
        router.sender.add(CONFIG, entry(name or "none", **({"context": name} if name else {})))
    router.sender.add(CONFIG, entry("too small", "informational"))
    assert router.sender.next_timer() == 1.0 + INTERVAL
    assert router.turn(1.0) == []
    sent = {context: (address, lines) for context, address, lines in router.turn(1.2)}
    assert sent[1][0] == parse_address("10.0.0.9")
    assert [line.rpartition(" ")[2] for line in sent[1][1]] == ["lan", "wan", "none"]
    assert sent[2] == (parse_address("10.1.0.9"), ["<155>Mar  4 05:06:07 edge [0002]: %IKE-3-ERR: lan"])
    assert router.sender.next_timer() == inf


def test_a_flood_is_bounded_and_the_server_is_told() -> None:
    router, now, lines = Router(), 1.0, []
    for number in range(MAX_WAITING + 500):
        router.sender.add(CONFIG, entry(f"line {number}"))
    while router.sender.next_timer() < inf:
        now += INTERVAL
        ((_, _, some),) = router.turn(now)
        assert len(some) <= MAX_AT_ONCE + 1
        lines += some
    assert len(lines) == MAX_WAITING + 1
    assert "500 lines of the log were not sent" in lines[-1]


def test_lines_wait_for_a_way_to_the_server() -> None:
    router = Router()
    router.unreachable = True
    for number in range(MAX_AT_ONCE + 1):
        router.sender.add(CONFIG, entry(f"line {number}"))
    assert router.turn(2.0) == []
    router.unreachable = False
    said = [lines for now in (1, 2) for _, _, lines in router.turn(2.0 + now * INTERVAL)]
    assert [len(lines) for lines in said] == [MAX_AT_ONCE, 1]
    assert said[1][0].endswith(f"line {MAX_AT_ONCE}")


def test_what_waits_for_a_server_that_is_removed_is_forgotten() -> None:
    router = Router()
    router.sender.add(CONFIG, entry())
    assert router.turn(2.0, parse("", "x").config) == []
    assert router.sender.next_timer() == inf


def test_what_waits_for_a_server_goes_to_no_other() -> None:
    router = Router()
    router.sender.add(CONFIG, entry())
    other = parse("context local\n logging syslog 10.0.0.8\n!\n", "x").config
    assert router.turn(2.0, other) == []
    assert router.sender.next_timer() == inf
