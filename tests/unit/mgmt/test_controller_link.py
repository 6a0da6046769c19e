"""Requests at an operator socket in an event loop: also of a controller that goes away and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chassis.bus.operator import AWAY, OperatorError
from chassis.mgmt.controller_link import MAX_OPEN, SHORT_ANSWER, ControllerClient, ControllerLink
from tests.support.mgmt import Controller, until

Answers = dict[int, tuple[Mapping[str, Any], str]]


EMPTY_LOG = {"records": [], "left_out": 0, "number": 0}


def link(path: Path, answers: Answers) -> ControllerLink:
    def take(number: int, result: Mapping[str, Any], error: str) -> None:
        assert number not in answers
        answers[number] = (result, error)

    return ControllerLink(path, take, ThreadPoolExecutor(1))


def test_each_request_has_one_answer(tmp_path: Path) -> None:
    async def run() -> None:
        controller, answers = Controller(tmp_path / "a.sock"), Answers()
        made = link(controller.path, answers)
        made.ask(1, "log", {})
        await until(lambda: answers)
        assert answers == {1: ({}, AWAY)}
        await controller.open()
        made.ask(2, "log", {})
        made.ask(3, "identity", {})
        await until(lambda: len(answers) == 3)
        assert answers[2] == (EMPTY_LOG, "")
        assert answers[3][0]["hostname"] == "a"
        made.close()
        await controller.close()

    asyncio.run(run())


def test_a_controller_that_goes_away_answers_with_an_error_and_its_successor_is_found(tmp_path: Path) -> None:
    async def run() -> None:
        controller, answers = Controller(tmp_path / "a.sock"), Answers()
        await controller.open()
        made, gone = link(controller.path, answers), []
        made.on_gone = lambda: gone.append(True)
        controller.held = {"log"}
        made.ask(1, "log", {})
        made.ask(2, "log", {})
        await until(lambda: len(controller.asked) == 2)
        await controller.close()
        await until(lambda: len(answers) == 2)
        assert answers == {1: ({}, AWAY), 2: ({}, AWAY)}
        assert gone
        controller.held.clear()
        await controller.open()
        made.ask(3, "log", {})
        await until(lambda: 3 in answers)
        assert answers[3] == (EMPTY_LOG, "")
        made.close()
        await controller.close()

    asyncio.run(run())


def test_a_session_has_so_many_requests_open_and_no_more(tmp_path: Path) -> None:
    async def run() -> None:
        controller, answers = Controller(tmp_path / "a.sock"), Answers()
        await controller.open()
        made = link(controller.path, answers)
        controller.held = {"log"}
        for number in range(MAX_OPEN + 1):
            made.ask(number, "log", {})
        await until(lambda: answers)
        assert answers == {MAX_OPEN: ({}, f"{MAX_OPEN} requests wait for their answers already")}
        await until(lambda: len(controller.asked) == MAX_OPEN)
        controller.release()
        await until(lambda: len(answers) == MAX_OPEN + 1)
        made.close()
        await controller.close()

    asyncio.run(run())


def test_a_long_answer_comes_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = {"text": "x" * (4 * SHORT_ANSWER)}

    class Talker(Controller):
        def _answer(self, writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
            writer.write(b'{"id": %d, "result": {"text": "%s"}}\n' % (request["id"], long["text"].encode()))

    async def run() -> None:
        controller, answers = Talker(tmp_path / "a.sock"), Answers()
        await controller.open()
        made = link(controller.path, answers)
        made.ask(7, "log", {})
        await until(lambda: answers)
        assert answers == {7: (long, "")}
        made.close()
        await controller.close()

    asyncio.run(run())


def test_a_call_waits_for_the_controllers_return(tmp_path: Path) -> None:
    async def run() -> None:
        controller = Controller(tmp_path / "a.sock")
        client = ControllerClient(controller.path, ThreadPoolExecutor(1))
        with pytest.raises(OperatorError, match="away"):
            await client.call("log")
        waiting = asyncio.create_task(client.call("log", 20.0))
        await asyncio.sleep(0)
        await controller.open()
        assert await waiting == EMPTY_LOG
        client.close()
        await controller.close()

    asyncio.run(run())
