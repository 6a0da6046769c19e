"""`terminal monitor`: lines of the log come into the session at its prompt, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chassis.cli.log_monitor import INTERVAL, LATEST, MOST
from tests.support.cli import CliRig

PROMPT = "[local]a#"


class LogOfRouter:
    """Answers `log` from the records that it holds; `away` like a controller that is not there."""

    def __init__(self) -> None:
        self.count, self.away = 7, False
        self.asked: list[Mapping[str, Any]] = []

    def __call__(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if self.away or command != "log":
            raise LookupError(f"{command}: the controller is away")
        if "shown" in arguments:
            self.asked.append(arguments)
        numbers = range(int(arguments.get("after", 0)) + 1, self.count + 1)
        shown = numbers[-int(arguments.get("last", 0)) :]
        row = {"wall": 0.0, "severity": "error", "facility": "ike", "context_id": 0, "circuit": ""}
        return {
            "records": [{**row, "text": f"line {number}"} for number in shown],
            "left_out": len(numbers) - len(shown),
            "number": self.count,
        }


def shown(*numbers: int) -> str:
    return "".join(f"Jan 01 00:00:00: %IKE-3-ERR: line {number}\r\n" for number in numbers)


def monitored() -> tuple[CliRig, LogOfRouter]:
    log = LogOfRouter()
    rig = CliRig(log, length=24)
    rig.sleeps = True
    rig.start()
    assert rig.type("terminal monitor\r").endswith(f"\r\n{PROMPT}")
    assert rig.timer() == ""
    return rig, log


def later(rig: CliRig) -> str:
    rig.now += INTERVAL
    return rig.timer()


def test_new_lines_stand_straight_after_the_prompt() -> None:
    rig, log = monitored()
    assert log.asked == [{"after": LATEST, "last": MOST, "shown": "monitor"}]
    assert later(rig) == ""
    log.count = 9
    assert later(rig) == shown(8, 9)
    assert later(rig) == ""
    assert rig.type("exit") == "exit"


def test_no_terminal_monitor_ends_it() -> None:
    rig, log = monitored()
    assert rig.type("no terminal monitor\r").endswith(f"\r\n{PROMPT}")
    log.count = 9
    assert later(rig) == ""
    assert len(log.asked) == 1


def test_lines_wait_for_the_prompt_while_a_page_is_read() -> None:
    rig, log = monitored()
    log.count = 60
    assert rig.type("show log\r").endswith("---(more)---")
    log.count = 61
    assert later(rig) == ""
    assert rig.type("q").endswith(f"\r{PROMPT}{shown(*range(8, 62))}")


def test_of_many_lines_the_first_are_left_out_and_it_is_said() -> None:
    rig, log = monitored()
    log.count = 7 + MOST + 30
    told = later(rig)
    assert told == "% 30 lines of the log are left out here\r\n" + shown(*range(38, 8 + MOST + 30))


def test_a_controller_that_is_away_is_asked_again_and_one_with_fewer_lines_is_followed() -> None:
    rig, log = monitored()
    log.away = True
    assert later(rig) == ""
    log.away = False
    # The controller that came back had lost its last lines.
    log.count = 5
    assert later(rig) == ""
    log.count = 6
    assert later(rig) == shown(6)


def test_a_console_is_told_what_the_configuration_sends_there() -> None:
    log = LogOfRouter()
    rig = CliRig(log)
    rig.sleeps = True
    rig.start()
    rig.session.watch_console(rig.now)
    assert rig.timer() == ""
    assert log.asked == [{"after": LATEST, "last": MOST, "shown": "console"}]
