"""What was said of a configuration, after commits of lines: as if the whole were checked each time."""

from __future__ import annotations

from collections import Counter

import pytest

from chassis.config.validate import check as check_whole
from chassis.xcrp.configuration import CheckedConfig, check, check_lines
from tests.support.edits import BASE, Edits


def said(checked: CheckedConfig) -> Counter[tuple[str, ...]]:
    return Counter(
        (*map(str, one.owner), one.severity, one.code, one.message) for one in checked.all_diagnostics if one.owner
    )


@pytest.mark.parametrize("seed", range(5))
def test_lines_leave_what_stands(seed: int) -> None:
    edits = Edits(1000 + seed)
    running, accepted = check(BASE, "base.cfg"), 0
    for _ in range(30):
        checked = check_lines(running, edits.text())
        if checked.refused:
            continue
        config, found = check_whole(checked.config)
        assert config == checked.config
        assert said(checked) == said(CheckedConfig(config, found))
        running, accepted = checked, accepted + 1
    assert accepted > 10


def test_errors_of_the_file_stay() -> None:
    """What the file in force had wrong is still told after commits of lines."""
    running = check(BASE + "asp pool P9 service security\n  asp 3/1\nnonsense ip\n", "base.cfg")
    assert [one.code for one in running.errors] == ["S-102"]
    later = check_lines(check_lines(running, "context A\n"), "context B\n")
    assert [one.code for one in later.errors] == ["S-102"]
    assert not later.diagnostics
