"""The log outlives its controller, which is killed at any of 40 moments; and a disk that is full."""

from __future__ import annotations

from random import Random
from typing import Any

from chassis.bus.messages import LogRecord
from chassis.sim.lab import Run
from chassis.xcrp.log_file import FLUSH_DELAY, LOG_FILE, RETRY_INTERVAL
from launch.simulate import model
from tests.support import CONFIGS

MODEL = model(CONFIGS / "simulate" / "lab.yaml")
MOMENTS = 40

NEXT_TURN = 0.02
"""Time (s) until the command has come to the controller."""


class Logging:
    """Router `b` of the lab of the simulator; its controller logs lines with a number."""

    def __init__(self) -> None:
        self.run = Run(MODEL, 7)
        self.world = self.run.world
        self.b = next(node for node in self.run.nodes if node.model.name == "b")
        self.run.boot()
        self.wait(4.0)
        self.said: list[tuple[float, str]] = []

    def wait(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def say(self) -> None:
        text = f"line {len(self.said)}"
        self.said.append((self.world.now, text))
        controller = self.b.controller
        assert controller is not None
        engine: Any = controller.engine
        engine.state.record(LogRecord(self.world.now, "error", "test", "", text, {}))
        # Whatever the controller does next, it sees when it has to do more.
        self.b.operate("status", {}, lambda result, error: None)

    def lines(self) -> list[str]:
        found: dict[str, Any] = {}
        self.b.operate("log", {"facility": "test"}, lambda result, error: found.update(result))
        self.wait(0.5)
        return [row["text"] for row in found["records"]]

    def kill(self) -> None:
        assert self.b.controller is not None
        self.b.controller.kill()


def test_a_kill_at_any_moment_loses_what_was_gathered_and_no_more() -> None:
    lab, chance = Logging(), Random(11)
    lost: set[str] = set()
    for _ in range(MOMENTS):
        for _ in range(chance.randrange(1, 8)):
            lab.say()
            lab.wait(chance.random() * 2 * FLUSH_DELAY)
        killed = lab.world.now
        if chance.random() < 0.5:
            # The last write is cut short.
            data = lab.b.disk.files[LOG_FILE]
            whole = data.rstrip(b"\n").rfind(b"\n") + 1
            cut = chance.randrange(whole, len(data))
            lab.b.disk.files[LOG_FILE] = data[:cut]
            torn = {text for _, text in lab.said if f'"{text}"'.encode() in data[whole:]}
        else:
            torn = set()
        lab.kill()
        lab.wait(4.0)
        kept = lab.lines()
        lost |= torn - set(kept)
        lost |= {text for at, text in lab.said if killed - at <= FLUSH_DELAY + NEXT_TURN and text not in kept}
        assert kept == [text for _, text in lab.said if text not in lost]
    assert len(lost) < len(lab.said) / 2


def test_a_full_disk_stops_the_file_and_not_the_log() -> None:
    lab = Logging()
    lab.say()
    lab.wait(1.0)
    lab.b.disk.room = 0
    for _ in range(5):
        lab.say()
        lab.wait(1.0)
    assert len(lab.lines()) == 6
    found: dict[str, Any] = {}
    lab.b.operate("log", {"facility": "log"}, lambda result, error: found.update(result))
    lab.wait(0.5)
    assert [row["text"] for row in found["records"]] == [
        "the log is kept in memory only: its file can't be written: No space left on device"
    ]
    lab.b.disk.room = float("inf")
    lab.wait(RETRY_INTERVAL + 1.0)
    lab.kill()
    lab.wait(4.0)
    assert lab.lines() == [f"line {number}" for number in range(6)]
