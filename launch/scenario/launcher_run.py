"""Runs of `chassis-launch`, each forked by a process that has imported all of it: `launch.warm_launcher`.

Input: the arguments and the environment of a run. Output: its exit status and what it printed. Tests boot lab
after lab, and a new interpreter takes longer for its imports than a launcher for all else. The process starts with
the first run and ends with the process that asks it.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence

_COMMAND = "import sys; from launch.warm_launcher import serve; serve(int(sys.argv[1]))"


class LauncherRun:
    """A run of `chassis-launch`. A run that is closed before its end is killed."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        # A file takes any amount of output while nobody reads.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._end, theirs = socket.socketpair()
        with theirs:
            request = json.dumps([list(arguments), dict(environment), os.getcwd()])
            with tempfile.TemporaryFile("w+") as file:
                file.write(request)
                file.seek(0)
                _launcher.ask([file.fileno(), self._output.fileno(), theirs.fileno()])

    def wait(self, within: float) -> int | None:
        """Return the exit status, or None if the run has not ended after `within` (s)."""
        ready = select.poll()
        ready.register(self._end, select.POLLIN)
        if not ready.poll(within * 1e3):
            return None
        # Without an answer the serving process was killed.
        return int(self._end.recv(16) or b"-1")

    def output(self) -> str:
        """What the run has printed, errors too."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    def close(self) -> None:
        self._end.close()
        self._output.close()


class _WarmLauncher:
    """The serving process of this process: started when it is needed, and anew if it was killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._requests: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, run: list[int]) -> None:
        """Have a run begin: descriptors of its request, of its output and of what is told its end."""
        with self._lock:
            # A fork of this process has the socket too, but is not the one that the serving process ends with.
            if self._requests is None or self._owner != os.getpid():
                self._start()
            assert self._requests is not None
            try:
                socket.send_fds(self._requests, [b"run"], run)
            except (BrokenPipeError, ConnectionResetError):
                self.close()
                self._start()
                socket.send_fds(self._requests, [b"run"], run)

    def _start(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._owner = os.getpid()
        with theirs:
            self._process = subprocess.Popen(
                (sys.executable, "-c", _COMMAND, str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )

    def close(self) -> None:
        """End the serving process, if this process has one."""
        if self._requests is not None and self._process is not None and self._owner == os.getpid():
            self._requests.close()
            self._process.wait()
            self._requests = None


_launcher = _WarmLauncher()
atexit.register(_launcher.close)
