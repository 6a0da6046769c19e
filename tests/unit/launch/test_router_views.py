"""`chassisctl` prints what the router's own CLI does, from the same answers; as JSON the answers themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from click.testing import CliRunner

from launch.client.running_lab import RunningLab
from launch.ctl.main import main as chassisctl
from tests.support.cli_answers import QUEUES
from tests.unit.cli.test_views import GOLDEN, LOG, PING, SAS

RECORDS = LOG["records"]
OF_TUNNEL = {"records": [{**RECORDS[0], "values": {"tunnel": "t1", "peer": "20.0.0.1"}}, *RECORDS[1:]]}
DROPPED = {
    "cards": {"asp 1/1": {**SAS["cards"]["asp 1/1"], "drops": {"no tunnel": 4}}},
    "errors": {"asp 2/1": "away"},
}


class Lab:
    """Answers one request as a controller would."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.answer = answer

    def node(self, name: str, command: str, **arguments: Any) -> Any:
        return self.answer


def run(monkeypatch: pytest.MonkeyPatch, answer: Mapping[str, Any], *words: str) -> tuple[int, str]:
    monkeypatch.setattr(RunningLab, "find", classmethod(lambda cls, name: Lab(answer)))
    result = CliRunner().invoke(chassisctl, list(words))
    return result.exit_code, result.stdout


def golden(name: str) -> str:
    return (GOLDEN / f"{name}.txt").read_text()


def test_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("ping", "a", "60.0.0.1", "--size", "36", "--timeout", "2s")
    assert run(monkeypatch, PING, *words) == (0, golden("ping"))
    assert json.loads(run(monkeypatch, PING, *words, "--json")[1]) == PING
    lost = {**PING, "received": 0, "replies": [], "errors": []}
    status, said = run(monkeypatch, lost, "ping", "a", "60.0.0.1")
    assert status == 1
    assert said.splitlines()[1:] == [
        "timeout is 1 second",
        ".....",
        "",
        "----60.0.0.1 PING Statistics----",
        "5 packets transmitted, 0 packets received, 100.0% packet loss",
    ]


def test_sas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, SAS, "sas", "a") == (0, golden("statistics-detail").rstrip("\n") + "\n")
    status, said = run(monkeypatch, DROPPED, "sas", "a")
    assert status == 1
    assert said.splitlines()[-2:] == ["ASP 1/1 in all", "  dropped: 4 no tunnel"]
    assert json.loads(run(monkeypatch, DROPPED, "sas", "a", "--json")[1].partition("\nasp ")[0]) == DROPPED


def test_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, QUEUES, "queues", "a") == (0, golden("ipsec-queues"))
    status, said = run(monkeypatch, {**QUEUES, "errors": {"asp 2/1": "away"}}, "queues", "a")
    assert (status, said) == (1, golden("ipsec-queues"))
    assert json.loads(run(monkeypatch, QUEUES, "queues", "a", "--json")[1]) == QUEUES


@pytest.mark.parametrize(("words", "name"), [((), "log"), (("--explain",), "log-explained")])
def test_log(words: tuple[str, ...], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, LOG, "log", "a", *words) == (0, golden(name))
    first, *rest = run(monkeypatch, OF_TUNNEL, "log", "a", *words)[1].splitlines(keepends=True)
    assert first.endswith(" [tunnel t1, peer 20.0.0.1]\n")
    assert "".join(rest) == "".join(golden(name).splitlines(keepends=True)[1:])
    rows = [json.loads(line) for line in run(monkeypatch, LOG, "log", "a", *words, "--json")[1].splitlines()]
    assert [{key: value for key, value in row.items() if key != "action"} for row in rows] == RECORDS
    assert all("action" in row for row in rows) == bool(words)
    assert run(monkeypatch, {"records": []}, "log", "a", *words)[1] == "nothing is logged\n"
