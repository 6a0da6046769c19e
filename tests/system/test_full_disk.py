"""Disks that get full under a running lab, with real processes: state and run folder, each a small tmpfs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.multiprocess


def test_full_at_launch_at_a_commit_and_at_restarts(tmp_path_factory: pytest.TempPathFactory) -> None:
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--user", "--map-root-user"]
    may = subprocess.run([*unshare, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True)
    if may.returncode:
        pytest.skip(f"no mount namespace of our own: {may.stderr.strip()}")
    done = subprocess.run(
        [*unshare, sys.executable, "-m", "tests.support.full_disk", tmp_path_factory.mktemp("f"),
            ROOT / "configs" / "manual-keys" / "a.cfg"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert list(told) == ["launch", "commit", "restart"]
    assert all(told.values()), told
