"""A lab on disks of its own that get full: run as a program in a mount namespace, see `test_full_disk`.

    python -m tests.support.full_disk FOLDER CONFIGURATION

Mounts a small tmpfs for states and one for run folders below FOLDER, and fills them at launch, at a commit and at
restarts. An assertion that does not hold ends it; at the end it prints what was told each time, as JSON.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chassis.bus import endpoints
from chassis.bus.operator import OperatorClient, OperatorError

DEADLINE = 60.0
SIZES = {"s": 32 << 20, "r": 16 << 20}
FULL = "No space left on device"


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Wait until the condition's result is true, and return it."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except OperatorError:
            pass
        select.select([], [], [], 0.02)
    raise AssertionError(f"not within {DEADLINE:g} s: {what}")


class Filling:
    """The lab `d` with one router, `a`."""

    def __init__(self, folder: Path, configuration: Path) -> None:
        self.folder, self.text = folder, configuration.read_text()
        for name, size in SIZES.items():
            (folder / name).mkdir()
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder / name],
                check=True,
                timeout=DEADLINE,
            )
        os.environ |= {"CHASSIS_RUN": str(folder / "r"), "CHASSIS_STATE": str(folder / "s")}
        self.config = folder / "a.cfg"
        self.config.write_text(self.text)
        self.run = folder / "r" / "d"

    def fill(self, *disks: str, room: int = 0) -> None:
        for disk in disks:
            there = os.statvfs(self.folder / disk)
            with (self.folder / disk / "filler").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, there.f_bavail * there.f_frsize - room)

    def get_room(self) -> None:
        for disk in SIZES:
            (self.folder / disk / "filler").unlink(missing_ok=True)

    def launcher(self, command: str, /, **arguments: Any) -> dict[str, Any]:
        with OperatorClient(self.run / "launcher.sock", DEADLINE) as client:
            return client.call(command, **arguments)

    def router(self, command: str, /, **arguments: Any) -> dict[str, Any]:
        with OperatorClient(endpoints.operator(self.run, "a"), DEADLINE) as client:
            return client.call(command, **arguments)

    def told(self, since: float, *words: str) -> list[str]:
        """What the lab's events say since then with one of these words."""
        texts = [event["text"] for event in self.launcher("events", since=since)["events"]]
        return [text for text in texts if any(word in text for word in words)]

    def well(self) -> bool:
        return all(card["usable"] for card in self.router("status")["cards"])

    def commit(self, mtu: int) -> dict[str, Any]:
        """Too long for what may be left of the journal's last page."""
        comments = "! A long configuration.\n" * 1000
        return self.router("apply", text=comments + self.changed(mtu), file=f"{mtu}.cfg")

    def changed(self, mtu: int) -> str:
        assert self.text.count("\ntunnel ipsec ") > 0
        head, _, tail = self.text.partition("\ntunnel ipsec ")
        first, _, rest = tail.partition("\n")
        return f"{head}\ntunnel ipsec {first}\n  mtu {mtu}\n{rest}"

    def mtus(self) -> list[str]:
        return [
            line.strip() for line in self.router("config")["text"].splitlines() if line.strip().startswith("mtu")
        ]

    def kill(self, *cards: str) -> None:
        for card in cards:
            self.launcher("kill", node="a", card=card)

    # the moments

    def at_launch(self) -> list[str]:
        self.fill("s", room=256 << 10)
        self.fill("r", room=128 << 10)
        command = [sys.executable, "-c", "from launch.main import main; main()", str(self.config), "--detach"]
        launched = subprocess.Popen([*command, "--name", "d"], stdout=subprocess.PIPE, text=True)
        eventually(
            lambda: all(self.told(0.0, f"{card} died") for card in ("asp 1/1", "asp 1/2")), "ASPs find no room"
        )
        died = self.told(0.0, "no space left on device")
        assert launched.poll() is None
        self.get_room()
        said, _ = launched.communicate(timeout=DEADLINE)
        assert launched.returncode == 0, said
        eventually(self.well, "everything is up")
        return died

    def at_commit(self) -> list[str]:
        since, before = time.monotonic(), self.mtus()
        assert self.commit(1300)["applied"]
        assert self.mtus() == ["mtu 1300", *before]
        self.fill("s")
        try:
            answer: Any = self.commit(1200)
        except OperatorError as error:
            answer = str(error)
        assert FULL in str(answer), f"acknowledged: {answer}"
        assert self.mtus() == ["mtu 1300", *before], "refused, and in force"
        told = self.told(since, "refused")
        self.kill("xcrp")
        told += eventually(
            lambda: self.told(since, f"cannot be started ({FULL})"), "the controller can't be started"
        )
        self.get_room()
        eventually(self.well, "the controller is back")
        assert self.mtus() == ["mtu 1300", *before], "an acknowledged commit is lost"
        assert self.commit(1250)["applied"]
        self.kill("xcrp")
        eventually(lambda: self.told(since, "xcrp started: boot 3") and self.well(), "another controller")
        assert self.mtus() == ["mtu 1250", *before], "an acknowledged commit is lost"
        return told

    def at_restart(self) -> list[str]:
        since = time.monotonic()
        self.fill("s", "r")
        self.kill("lc 3", "asp 1/1")
        told = eventually(
            lambda: two if len(two := self.told(since, f"cannot be started ({FULL})")) == 2 else [],
            "both can't be started",
        )
        told += self.told(since, "lab.json cannot be written")
        self.get_room()
        eventually(
            lambda: self.told(since, "lc 3 admitted") and self.told(since, "asp 1/1 admitted"), "both are back"
        )
        eventually(self.well, "both are usable")
        return list(told)


def main() -> None:
    filling = Filling(Path(sys.argv[1]), Path(sys.argv[2]))
    told = {"launch": filling.at_launch()}
    pid = filling.launcher("ps")["launcher"]
    try:
        told |= {"commit": filling.at_commit(), "restart": filling.at_restart()}
        assert filling.launcher("ps")["launcher"] == pid, "the lab ended"
    finally:
        filling.get_room()
        filling.launcher("destroy")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
