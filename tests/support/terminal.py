"""`chassisctl cli a` in a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Any

from tests.support.chassisctl import chassisctl

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient

DEADLINE = 60.0
"""Time (s) that the terminal has to show what is waited for."""

COLUMNS = 200


class TerminalRig:
    """A session at router `a`, without pages; its process ends with `exit`, or with the block of `ending`."""

    def __init__(self, lab: LabClient) -> None:
        self.screen, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 0, COLUMNS, 0, 0))
        self.process: subprocess.Popen[Any] = chassisctl(
            lab, "console", "a", stdin=terminal, stdout=terminal, stderr=terminal
        )
        os.close(terminal)
        self.text = ""

    def until(self, text: str) -> str:
        """Read until the terminal shows a text; return what came up to its end."""
        end = time.monotonic() + DEADLINE
        while text not in self.text:
            ready, _, _ = select.select([self.screen], [], [], max(end - time.monotonic(), 0.0))
            assert ready, f"the terminal does not show {text!r}: {self.text!r}"
            self.text += os.read(self.screen, 65_536).decode()
        said, self.text = self.text.split(text, 1)
        return said + text

    def type(self, keys: str) -> None:
        os.write(self.screen, keys.encode())
