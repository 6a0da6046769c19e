"""How much of the decoders wrong messages reach, counted in a process where nothing of them was loaded before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

DECODERS = ("*/chassis/ase/ike/payloads/*",)
MESSAGES = 8_000
LEAST = 95.0
"""Part of the decoders' lines that has to be reached, in percent."""

COUNT = """
import json, sys
import coverage
reach = coverage.Coverage(data_file=None, config_file=False, include=json.loads(sys.argv[2]))
reach.start()
from tests.support.ike import mutation
mutation.hammer(1, int(sys.argv[1]))
reach.stop()
with open(sys.argv[3], "w") as page:
    print(reach.report(file=page, show_missing=True, skip_covered=True))
"""


def reached(folder: Path, messages: int) -> tuple[float, str]:
    """(percent of the lines that so many messages reach, the page that names those that were missed)."""
    page = folder / "missed"
    run = subprocess.run(
        [sys.executable, "-c", COUNT, str(messages), json.dumps(DECODERS), str(page)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    return float(run.stdout), page.read_text()


def test_wrong_messages_reach_the_decoders(tmp_path: Path) -> None:
    percent, missed = reached(tmp_path, MESSAGES)
    print(f"{percent:.1f} % of the decoders' lines")
    assert percent > LEAST, missed


def test_lines_that_nothing_reaches_are_seen(tmp_path: Path) -> None:
    percent, missed = reached(tmp_path, 12)
    assert percent < LEAST
    assert "v2_sa.py" in missed
