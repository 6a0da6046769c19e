"""What the views print is read by the templates that scripts use for such routers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent / "golden"


def parsed(command: str, golden: str) -> list[dict[str, str]]:
    parse: Any = pytest.importorskip(
        "ntc_templates.parse", reason="ntc-templates is not installed: pip install ntc-templates"
    )
    rows: list[dict[str, str]] = parse.parse_output("ericsson_ipos", command, (GOLDEN / golden).read_text())
    return rows


def test_the_version_of_the_successor_and_the_up_time() -> None:
    (row,) = parsed("show version", "version-ipos.txt")
    assert row["version"] == "20.3.1.803.142"
    assert row["uptime"] == "1 days 1 hours 1 minutes"


def test_arp_entries_of_a_context() -> None:
    rows = parsed("show arp", "arp.txt")
    assert [(row["host"], row["ttl"], row["type"], row["circuit"]) for row in rows] == [
        ("40.0.0.1", "-", "ARPA", "3/11"),
        ("40.0.0.2", "3502", "ARPA", "3/11"),
        ("40.0.0.3", "0", "ARPA", "3/11"),
    ]


@pytest.mark.parametrize("form", ["all-context", "summary", "interworking", "xcrp"])
def test_every_line_of_every_form_of_arp_is_known(form: str) -> None:
    rows = parsed("show arp", f"arp-{form}.txt")
    contexts = [(row["context"], row["context_id"]) for row in rows]
    assert contexts == ([("local", "0x40080001")] * 3 + [("lan", "0x40080002")] if form == "all-context" else [])
