"""Twenty commits at a running router under traffic: untouched tunnels lose no packet, and no SA is made anew."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import lab_files

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

TUNNELS = 40
USED = (0, 1, 38, 39)
"""Tunnels with traffic, circuit-based and economical; the commits touch the others."""

COMMITS = 20


def lines_of(lab: LabClient, number: int) -> str:
    """What one tunnel of `a` has alone, as the router prints it: keys encrypted."""
    parts = ["context lan\n", f"ip route {lab_files.address(12, number, 0)}/24 tun{number}\n"]
    for path in (
        ["context", "lan", "interface", f"tun{number}"],
        ["security-association", f"sa{number}"],
        ["tunnel", f"t{number}"],
    ):
        found = lab.ask("a", "object", {"path": path})
        assert found["exists"]
        parts.append(found["text"])
    return "".join(parts)


def sas(lab: LabClient, names: set[str]) -> dict[str, list[tuple[Any, ...]]]:
    """Of each of these tunnels of `a` its SAs: serial, direction, SPI."""
    answer = lab.ask("a", "sas", {})
    rows = [row for card in answer["cards"].values() for row in card["tunnels"] if row["name"] in names]
    return {row["name"]: [(sa["serial"], sa["direction"], sa["spi"]) for sa in row["sas"]] for row in rows}


def test_commits_under_traffic(lab_factory: LabFactory, tmp_path: Path) -> None:
    draw = Random(7)
    lab = lab_factory(lab_files.written(tmp_path, TUNNELS, [*USED], rate=100))
    lab.wait_until("tunnels up")
    flows = [f"{way}{number}" for number in USED for way in ("forward", "reverse")]
    lab.start(*flows)
    for flow in flows:
        lab.wait_until(f"flow {flow} received >= 100")
    began = lab.clock()
    untouched = {f"t{number}" for number in USED}
    before = sas(lab, untouched)
    assert all(before.values())
    others = [number for number in range(TUNNELS) if number not in USED]
    absent: dict[int, str] = {}
    """Lines of tunnels that were removed."""
    for count in range(COMMITS):
        number = draw.choice(others)
        if number in absent:
            lines = absent.pop(number)
        elif count % 2:
            absent[number] = lines_of(lab, number)
            lines = (
                f"no tunnel ipsec t{number}\nno ipsec security-association sa{number}\ncontext lan\n"
                f"no ip route {lab_files.address(12, number, 0)}/24 tun{number}\nno interface tun{number}\n"
            )
        else:
            lines = (
                f"tunnel ipsec t{number}\nmtu {1300 + count}\ncontext lan\ninterface tun{number}\ndescription x\n"
            )
        version = lab.ask("a", "identity", {})["version"]
        done = lab.ask("a", "commit", {"lines": lines, "base": version, "user": "ann"})
        assert done["applied"], done
        wrong = lab.ask("a", "commit", {"lines": f"{lines}nonsense\n", "user": "ann"})
        assert not wrong["applied"]
    assert absent
    for lines in absent.values():
        assert lab.ask("a", "commit", {"lines": lines, "user": "ann"})["applied"]
    lab.wait_until("tunnels up")
    lab.stop(*flows)
    lab.drain(*flows)
    for flow in flows:
        report = lab.report(flow, final=True, since=began)
        assert (report["window_lost"], report["duplicated"], report["reordered"]) == (0, 0, 0), flow
    assert sas(lab, untouched) == before
    assert {row["name"] for row in lab.ask("a", "status", {})["tunnels"]} == {f"t{n}" for n in range(TUNNELS)}
