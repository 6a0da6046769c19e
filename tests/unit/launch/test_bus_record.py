"""`chassisctl bus`: a record printed, filtered, and given to a new engine; a watch that is ended."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

from chassis.bus import recording, records
from chassis.bus.engine import Output, ToController
from chassis.bus.messages import Delta, Message, NeighbourEvent, Request, Snapshot, TunnelEvent, Welcome
from chassis.linecard.engine import LineCardEngine
from chassis.model.router import Tunnel
from launch.ctl import bus_commands, main

PORT = records.PortRecord(
    port="3/1", card="lc 3", enabled=True, context=1, interface="i", address=0x0A000001, prefix_length=24,
    mac=b"\2\0\0\0\0\1",
)  # fmt: skip
STATE = records.CardStateRecord("lc 3", "linecard", 4, 2, True)
TUNNEL = records.TunnelRecord(
    number=7,
    config=Tunnel("t1", kind="manual", economical=True, df_bit="clear"),
    asp="asp 1/1",
    circuit=0,
    home="",
    context=1,
    outer_context=1,
    local=1,
    remote=2,
    queues=4,
    up=True,
)


class Recorder:
    """A line card whose messages both ways go into a record."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = [recording.header()]
        self.card = LineCardEngine("lc 3", pid=10, boot=4)
        self.now = 100.0
        self._said(self.card.start(self.now))
        self._said(self.card.on_carrier("3/1", True, self.now))
        self._said(self.card.on_connected(self.now))

    def add(self, way: str, message: Message, card: str = "lc 3", node: str = "a") -> None:
        # The engine's clock is not that of the record.
        self.lines.append(recording.describe_message(1e9 + self.now, node, card, way, message))

    def down(self, message: Any) -> None:
        self.add("to-card", message)
        self._said(self.card.receive(message, self.now))

    def let_pass(self, seconds: float) -> None:
        end = self.now + seconds
        while self.card.next_timer() <= end:
            self.now = max(self.now, self.card.next_timer())
            self._said(self.card.on_timer(self.now))
        self.now = end

    def _said(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if isinstance(output, ToController):
                self.add("to-controller", output.message)

    def write(self, path: Path) -> Path:
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return path


@pytest.fixture
def recorder() -> Recorder:
    recorder = Recorder()
    recorder.down(Welcome(2, 1, 0.1, 5, {}))
    recorder.down(Snapshot(1, 1, 1, (records.ContextRecord(1, "c"), STATE, PORT)))
    recorder.let_pass(0.35)
    recorder.down(Request(1, "neighbours", {}))
    recorder.down(Delta(1, 2, (replace(PORT, enabled=False),), ()))
    recorder.down(Request(2, "dance", {}))
    return recorder


def bus(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main.main, ["bus", *map(str, arguments)])


def test_a_record_is_printed_without_any_lab(recorder: Recorder, tmp_path: Path) -> None:
    file = recorder.write(tmp_path / "seen.jsonl")
    result = bus("--replay", file)
    assert (result.exit_code, len(result.output.splitlines())) == (0, len(recorder.lines) - 1)
    assert result.output.splitlines()[0].startswith("a lc 3     -> Hello(protocol=3, card='lc 3'")
    result = bus("--replay", file, "--type", "Reply", "--json")
    assert [json.loads(line)["type"] for line in result.output.splitlines()] == ["Reply", "Reply"]
    assert len(bus("--replay", file, "--count", "2").output.splitlines()) == 2


def test_a_tunnel_is_found_by_its_number_too(recorder: Recorder, tmp_path: Path) -> None:
    recorder.add("to-controller", TunnelEvent(7, True, "", 2), "asp 1/1")
    recorder.add("to-card", Snapshot(1, 1, 1, (TUNNEL,)), "asp 1/1")
    recorder.add("to-controller", TunnelEvent(7, False, "dead", 2), "asp 1/1")
    recorder.add("to-controller", TunnelEvent(8, False, "", 2), "asp 1/1")
    # Another router has numbers of its own.
    recorder.add("to-controller", TunnelEvent(7, False, "", 2), "asp 1/1", "b")
    recorder.add("to-card", Delta(1, 2, (), (("tunnel", 7),)), "asp 1/1")
    recorder.add("to-card", Delta(1, 2, (), (("tunnel", 8),)), "asp 1/1")
    recorder.add("to-card", Request(1, "rekey", {"tunnel": 7}), "asp 1/1")
    file = recorder.write(tmp_path / "seen.jsonl")
    shown = [json.loads(line) for line in bus("--replay", file, "--tunnel", "t1", "--json").output.splitlines()]
    # What passed before the record of its name can't be known to be about it.
    assert [line["type"] for line in shown] == ["Snapshot", "TunnelEvent", "Delta", "Request"]
    by_number = bus("--replay", file, "a", "--tunnel", "7").output.splitlines()
    assert len(by_number) == 5


@pytest.mark.parametrize(("options", "status", "said"), [
    (["--type", "Nix"], 2, "'Nix' is not a message type; types: Hello, "),
    (["--type", "Heartbeet"], 2, "did you mean Heartbeat?"),
    (["--count", "0"], 2, "0 is not in the range"),
    (["--card", "lc 9"], 1, "no message of the record matches; it has a: lc 3"),
    (["--engine"], 2, "--engine needs a card"),
    (["--engine", "--card", "xcrp"], 2, "'xcrp' is not a card for --engine"),
    (["--engine", "--card", "lc 9"], 1, "no lc 9 in it; it has a: lc 3"),
    (["--record", "x"], 2, "--record and --replay exclude"),
])  # fmt: skip
def test_what_cannot_be_is_refused(
    recorder: Recorder, tmp_path: Path, options: list[str], status: int, said: str
) -> None:
    result = bus("--replay", recorder.write(tmp_path / "seen.jsonl"), *options)
    assert (result.exit_code, said in result.output) == (status, True), result.output


def test_a_record_that_was_cut_short_is_shown_up_to_there(recorder: Recorder, tmp_path: Path) -> None:
    file = recorder.write(tmp_path / "seen.jsonl")
    file.write_text(file.read_text()[:-20])
    result = bus("--replay", file)
    assert result.exit_code == 1
    assert f"Error: {file}: line {len(recorder.lines)}: not a complete JSON object" in result.output
    assert "Request(number=1, name='neighbours'" in result.output


def test_an_engine_answers_as_its_card_did(recorder: Recorder, tmp_path: Path) -> None:
    file = recorder.write(tmp_path / "seen.jsonl")
    result = bus("--replay", file, "--card", "lc 3", "--engine", "--json")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.output.splitlines() if line.startswith("{")]
    answers = [(line["what"], line["type"]) for line in lines if line["what"] != "in"]
    assert answers == [("same", kind) for kind in ("Hello", "PortEvent", "Reply", "PortEvent", "Reply")]
    assert sum(line["what"] == "in" for line in lines) == 5


def test_what_differs_is_shown_from_both_sides(recorder: Recorder, tmp_path: Path) -> None:
    recorder.add("to-controller", NeighbourEvent("3/1", 0x0A000002, b"\2\0\0\0\0\2"))
    for line in recorder.lines:
        # As if the card had answered otherwise then.
        if line.get("type") == "Reply" and "dance" in line["text"]:
            message = recording.entry(line).message
            line.update(
                recording.describe_message(
                    line["time"], "a", "lc 3", "to-controller", replace(message, error="no idea")
                )
            )
    file = recorder.write(tmp_path / "seen.jsonl")
    output = bus("--replay", file, "--card", "lc 3", "--engine").output.splitlines()
    differing = [line.split(None, 1)[1].split("(")[0] for line in output[:-1] if line.split()[1] in "+-"]
    assert differing == ["+  Reply", "-  Reply", "-  NeighbourEvent"]
    assert "of its answers 4 are the same, 2 in the record only, 1 from the engine only" in output[-1]


def test_a_record_that_begins_too_late_says_so(recorder: Recorder, tmp_path: Path) -> None:
    del recorder.lines[1:4]
    output = bus("--replay", recorder.write(tmp_path / "x"), "--card", "lc 3", "--engine").output
    assert "begins when this card was admitted already" in output
    assert " 0 from the engine only" in output


def test_ctrl_c_ends_a_watch_between_two_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(lab: Any, node: str, chosen: Any, lines: Any) -> None:
        for number in range(3):
            lines.put(number)

    monkeypatch.setattr(bus_commands, "_watch", watch)
    before = signal.getsignal(signal.SIGINT)
    passing: Any = bus_commands._passing(cast(Any, None), ("a",), cast(Any, None))
    assert next(passing) == 0
    # In the midst of what is done with a message: it is done whole.
    signal.raise_signal(signal.SIGINT)
    assert list(passing) == []
    assert signal.getsignal(signal.SIGINT) is before
