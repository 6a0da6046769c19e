"""A session over SSH with a channel in memory: bounds, waiting, its ends."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from chassis.cli.session import CliSession
from chassis.mgmt import ssh_session
from tests.support.mgmt import session, until


def test_a_command_runs_without_a_terminal_and_with_one(tmp_path: Path) -> None:
    async def run() -> None:
        async with session(tmp_path, command="show clock", terminal=False) as rig:
            assert await rig.ended() == 0
            assert rig.channel.text.endswith(b" UTC\n")
            assert b"\r" not in rig.channel.text
        async with session(tmp_path, command="show foo") as rig:
            assert await rig.ended() == 1
            assert rig.channel.text == b"     ^\r\n% Invalid input at '^' marker\r\n"

    asyncio.run(run())


def test_only_requests_of_the_cli_are_sent(tmp_path: Path) -> None:
    async def run() -> None:
        async with session(tmp_path, requests=frozenset({"identity"})) as rig:
            await rig.shows("[local]a#")
            rig.type("show log\r")
            await rig.shows("% Error: no request of a session")
            assert [request["command"] for request in rig.controller.asked] == ["identity"]

    asyncio.run(run())


def test_keys_wait_while_an_answer_does_and_none_is_lost(tmp_path: Path) -> None:
    async def run() -> None:
        async with session(tmp_path) as rig:
            await rig.shows("[local]a#")
            rig.controller.held = {"log"}
            rig.type("show log\r")
            await until(lambda: rig.controller.asked[-1]["command"] == "log")
            rig.type("".join(f"!{number}\r" for number in range(15_000)))
            rig.type("show foo\r")
            assert not rig.channel.reading
            rig.controller.release()
            await rig.shows("% Invalid input")
            assert rig.channel.reading
            assert re.findall(rb"!(\d+)", rig.channel.text) == [b"%d" % number for number in range(15_000)]

    asyncio.run(run())


def test_lines_of_the_log_come_while_nothing_is_typed_and_hold_no_key_back(tmp_path: Path) -> None:
    row = {"wall": 0.0, "severity": "error", "facility": "ike", "context_id": 0, "circuit": "", "text": "said"}

    async def run() -> None:
        async with session(tmp_path) as rig:
            await rig.shows("[local]a#")
            rig.type("terminal monitor\r")
            await until(lambda: rig.controller.asked[-1]["command"] == "log")
            rig.controller.log.append(row)
            await rig.shows("terminal monitor\r\n[local]a#Jan 01 00:00:00: %IKE-3-ERR: said\r\n")
            rig.controller.held = {"log"}
            before = len(rig.controller.asked)
            await until(lambda: len(rig.controller.asked) > before)
            rig.type("show foo\r")
            await rig.shows("% Invalid input")

    asyncio.run(run())


def test_an_interrupt_is_not_kept_waiting(tmp_path: Path) -> None:
    async def run() -> None:
        async with session(tmp_path) as rig:
            await rig.shows("[local]a#")
            rig.controller.held = {"log"}
            rig.type("show log\r")
            await until(lambda: rig.controller.asked[-1]["command"] == "log")
            rig.type("lost\x03show foo\r")
            await rig.shows("^C\r\n[local]a#show foo\r\n")
            await rig.shows("% Invalid input")
            assert b"lost" not in rig.channel.text
            # The answer that comes late is nobody's.
            rig.controller.release()
            rig.type("show log | count\r")
            await rig.shows("| count\r\n0\r\n")
            for wanted in (lambda: rig.session.break_received(0), lambda: rig.session.signal_received("INT")):
                rig.controller.held = {"log"}
                before = len(rig.controller.asked)
                rig.type("show log\r")
                await until(lambda before=before: len(rig.controller.asked) > before)  # type: ignore[misc]
                shown = rig.channel.text.count(b"^C")
                wanted()
                await until(lambda shown=shown: rig.channel.text.count(b"^C") > shown)  # type: ignore[misc]

    asyncio.run(run())


def test_an_idle_session_ends_and_says_why(tmp_path: Path) -> None:
    async def run() -> None:
        async with session(tmp_path, idle=0.05) as rig:
            await rig.ended()
            assert rig.channel.text.endswith(b"% the session was idle for 0.000833333 minutes\r\n")
            assert rig.session.closing

    asyncio.run(run())


def test_a_command_is_never_idle(tmp_path: Path) -> None:
    async def run() -> None:
        async with session(tmp_path, command="show log", idle=0.0) as rig:
            assert await rig.ended() == 0
            assert not rig.session.closing

    asyncio.run(run())


def test_a_client_that_does_not_read_is_cut_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with session(tmp_path) as rig:
            await rig.shows("[local]a#")
            rig.session.pause_writing()
            rig.type("show clock\r")
            await until(lambda: rig.channel.aborted)
            assert rig.channel.status is None

    monkeypatch.setattr(ssh_session, "WRITE_TIMEOUT", 0.05)
    asyncio.run(run())


def test_output_goes_on_when_the_client_reads_again(tmp_path: Path) -> None:
    async def run() -> None:
        async with session(tmp_path) as rig:
            await rig.shows("[local]a#")
            rig.session.pause_writing()
            rig.type("show clock\rshow clock\r")
            await rig.shows("show clock")
            rig.session.resume_writing()
            await until(lambda: rig.channel.text.count(b" UTC\r\n") == 2)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("typed", "shown"), [("show clock", " UTC\r\n"), ("show clock\n", " UTC\r\n"), ("", "#"), ("configure\n", "#")]
)
def test_the_end_of_input_ends_the_session(tmp_path: Path, typed: str, shown: str) -> None:
    async def run() -> None:
        async with session(tmp_path, terminal=False) as rig:
            rig.type(typed)
            rig.session.eof_received()
            assert await rig.ended() == 0
            assert shown in rig.channel.text.decode()

    asyncio.run(run())


def test_a_fault_of_ours_ends_one_session_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any) -> None:
        raise KeyError("the secret")

    async def run() -> None:
        async with session(tmp_path) as rig:
            await rig.shows("[local]a#")
            monkeypatch.setattr(CliSession, "receive", fails)
            rig.type("show clock\r")
            assert await rig.ended() == 1
            assert rig.channel.text.endswith(b"% Error: internal error\r\n")

    asyncio.run(run())
    said = capsys.readouterr().err
    assert "KeyError" in said
    assert "secret" not in said


def test_the_terminal_can_change_its_size(tmp_path: Path) -> None:
    async def run() -> None:
        async with session(tmp_path) as rig:
            await rig.shows("[local]a#")
            rig.session.terminal_size_changed(80, 3, 0, 0)
            rig.type("show version\r")
            await rig.shows("---(more)---")
            rig.type("q")
            for size in ((0, 0), (100_000, 100_000), (1, 1), (0, 0)):
                rig.session.terminal_size_changed(*size, 0, 0)
            rig.type("show foo\r")
            await rig.shows("% Invalid input")

    asyncio.run(run())


def test_enable_waits_for_the_check_of_its_password(tmp_path: Path) -> None:
    async def run() -> None:
        async with session(tmp_path, privilege=6) as rig:
            await rig.shows("[local]a>")
            rig.type("enable\rwrong\r")
            await rig.shows("% Error: wrong password\r\n[local]a>")
            rig.type("enable\rright\r")
            await rig.shows("[local]a#")
            assert b"right" not in rig.channel.text

    asyncio.run(run())
