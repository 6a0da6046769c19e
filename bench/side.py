"""A side of a comparison: a commit in a git worktree and an environment of its own, driven by its own client."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.stream import Stream

DRIVER = Path(__file__).with_name("driver.py")
FOLDER = Path("build/bench")
"""Parent of the sides' folders."""
ANSWER = 150.0
"""Time (s) in which a driver must answer: a boot and its tunnels have 90."""
END = 30.0


class SideError(Exception):
    """A side cannot be made, or its lab cannot be driven; the text says why."""


@dataclass(frozen=True, slots=True)
class Side:
    """A source tree and the Python that runs it. `name` is for people."""

    name: str
    root: Path
    python: Path

    @contextmanager
    def booted(self, file: Path) -> Iterator[Stream]:
        """Boot a lab file with this side's launcher; yield its flows. The lab ends with the context.

        Raises:
            SideError: the lab does not boot, or stops answering.
        """
        driver = _Driver(self)
        try:
            driver.call({"boot": str(file.absolute())})
            yield Stream(lambda **arguments: driver.call(arguments))
        finally:
            driver.close()


class _Driver:
    """A process that runs `bench/driver.py` in a side's environment."""

    def __init__(self, side: Side) -> None:
        self._name = side.name
        self._process = subprocess.Popen(
            # Without the driver's own folder in the path: its modules belong to this tree.
            [side.python, "-P", DRIVER],
            cwd=side.root,
            env={**os.environ, "PYTHONPATH": str(side.root), "PYTHONSAFEPATH": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def call(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideError(f"{self._name}: its driver has ended") from None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            self._process.kill()
            raise SideError(f"{self._name}: {'its driver has ended' if ready else f'no answer in {ANSWER:g} s'}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SideError(f"{self._name}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the lab and the driver."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END)
        except subprocess.TimeoutExpired:
            # The lab ends with the driver.
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def here() -> Side:
    """Return this tree, as it is, with this Python."""
    return Side("this tree", Path.cwd(), Path(sys.executable))


@contextmanager
def side_of(commit: str) -> Iterator[Side]:
    """Make a worktree of a commit and an environment with what it needs; remove both at the end.

    Raises:
        SideError: there is no such commit, or its environment cannot be made.
    """
    name = _run("git", "rev-parse", "--short", f"{commit}^{{commit}}").strip()
    folder = (FOLDER / f"{name}-{os.getpid()}").absolute()
    tree, environment = folder / "tree", folder / "venv"
    folder.mkdir(parents=True)
    try:
        _run("git", "worktree", "add", "--detach", str(tree), name)
        _run(sys.executable, "-m", "venv", str(environment))
        python = environment / "bin" / "python"
        _run(
            str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", str(tree)
        )
        yield Side(f"commit {name}", tree, python)
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SideError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
