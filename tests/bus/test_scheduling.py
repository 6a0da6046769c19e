"""Slices of the scheduler: those who carry packets have short ones, and their forks and threads too."""

from __future__ import annotations

import json
import os
import platform
import threading
from pathlib import Path

import pytest

from chassis.bus.scheduling import LONG, SHORT, ask_for_slice


def slice_of(task: str) -> int | None:
    """Nanoseconds; None where the kernel does not tell."""
    try:
        lines = Path(f"/proc/{task}/sched").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[-1]) for line in lines if line.startswith("se.slice")), None)


def test_a_process_has_the_slice_that_it_asked_for_and_its_threads_have_it() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        asked = ask_for_slice(SHORT)
        found = [slice_of("self")]
        thread = threading.Thread(target=lambda: found.append(slice_of("thread-self")))
        thread.start()
        thread.join()
        os.write(writing, json.dumps((asked, found, ask_for_slice(LONG), slice_of("self"), os.nice(0))).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    asked, found, again, last, nice = json.loads(os.read(reading, 1000))
    assert asked == again == (platform.machine() in ("x86_64", "aarch64"))
    assert nice == os.nice(0)
    # Where the kernel has slices of one's own and tells of them.
    release = [int(part) for part in platform.release().split(".")[:2]]
    if release >= [6, 12] and None not in found:
        assert (found, last) == ([200_000, 200_000], 4_000_000)


def test_another_machine_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "another")
    assert not ask_for_slice(SHORT)
