"""The log lines of tables 5 and 6."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from chassis.ase.ike.log import INFORMATIONAL, TEMPLATES, text


def test_every_line_is_the_guides(spec_dir: Path) -> None:
    rows = [
        row
        for row in yaml.safe_load((spec_dir / "messages.yaml").read_text())["messages"]
        if row["table"] in (5, 6)
    ]
    assert {row["id"] for row in rows} == set(TEMPLATES)
    for row in rows:
        printed = row.get("settled_text", row["text"])
        assert TEMPLATES[row["id"]] == row.get("template", printed)
        assert text(row["id"], row.get("sample", {})) == printed
    assert {row["id"] for row in rows if row.get("type") == "informational"} == INFORMATIONAL


def test_text_fills_in_what_the_cause_says() -> None:
    line = text("ikev1-p1-dh-group-mismatch", {"received": 14, "configured": 2, "more": "is ignored"})
    assert line == "Mismatching DH Group(14) detected, configured is (2) in IKE phase-I 1st message"


def test_a_missing_value_is_a_bug_that_shows() -> None:
    with pytest.raises(KeyError):
        text("ikev1-p1-dh-group-mismatch", {"received": 14})


def test_no_line_asks_for_a_key() -> None:
    assert not [template for template in TEMPLATES.values() if "key}" in template or "secret" in template]
