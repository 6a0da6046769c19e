"""`chassisctl` as a process beside a lab, and processes that end with the test that started them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient

BACKGROUND = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
"""What a shell without job control makes of a command with `&`: it ignores Ctrl-C."""


def chassisctl(
    lab: LabClient, *words: str | Path, prefix: tuple[str, ...] = (), **options: Any
) -> subprocess.Popen[Any]:
    assert lab.run is not None
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", "from launch.ctl.main import main; main()", *map(str, words)],
        env={**os.environ, "CHASSIS_RUN": str(lab.run.parent)},
        **options,
    )


@contextmanager
def ending(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """A process, waited for at the end, or killed where the test fails: it might never end."""
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
