"""A process that has imported all of `chassis-launch` and forks a child for each run of it.

Input: a socket with requests. Output: runs, and their ends to who asked (`launch.scenario.launcher_run`).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
from dataclasses import dataclass

from launch.main import main
from launch.supervisor.fork import ForkedProcess, fork

_LAZY = ("launch.run_folders", "launch.supervisor.start", "launch.supervisor.supervisor")
"""What commands of `chassis-launch` import when they need it."""


@dataclass(frozen=True)
class _BegunRun:
    process: ForkedProcess
    end: int
    """Socket that is told the exit status; its other end is closed if the run is given up."""


def serve(requests: int) -> None:
    """Fork a child for each run that is asked for at the socket `requests`, until that is closed."""
    # A terminal's Ctrl-C is for the runs and for the process that asks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in _LAZY:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    asked = socket.socket(fileno=requests)
    with selectors.DefaultSelector() as selector:
        selector.register(asked, selectors.EVENT_READ)
        while True:
            ready = [key.data for key, _ in selector.select()]
            # A run's process and whoever asked for it may both have ended.
            for run in {run for run in ready if run is not None}:
                _end(run, selector)
            if None in ready:
                _, descriptors, _, _ = socket.recv_fds(asked, 16, 3)
                if not descriptors:
                    return
                run = _begin(*descriptors)
                for fd in (run.end, run.process.pidfd):
                    selector.register(fd, selectors.EVENT_READ, run)


def _begin(request: int, output: int, end: int) -> _BegunRun:
    with open(request) as file:
        arguments, environment, folder = json.load(file)

    def run() -> int:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        main(arguments, prog_name="chassis-launch")
        return 0

    process = fork(run, f"chassis-launch {' '.join(arguments)}", None, (output,))
    os.close(output)
    return _BegunRun(process, end)


def _end(run: _BegunRun, selector: selectors.BaseSelector) -> None:
    for fd in (run.end, run.process.pidfd):
        selector.unregister(fd)
    # It has ended, or nobody waits for it.
    os.kill(run.process.pid, signal.SIGKILL)
    _, status = os.waitpid(run.process.pid, 0)
    os.close(run.process.pidfd)
    with socket.socket(fileno=run.end) as told, contextlib.suppress(BrokenPipeError):
        told.send(str(os.waitstatus_to_exitcode(status)).encode())
