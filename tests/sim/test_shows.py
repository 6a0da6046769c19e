"""Every show command at routers of shipped labs in the simulator: text, JSON, and figures that are the testers'.

`RENEW_VIEWS=1` writes the text anew; look at the difference then.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli_shows import GOLDEN, LABS, ShownLab, transcript
from tests.support.sim_shell import SimShell

PACKETS = 300


@pytest.fixture(scope="module", params=LABS, ids=lambda lab: lab.name)
def booted(request: pytest.FixtureRequest) -> tuple[ShownLab, SimShell]:
    """A lab whose tunnels are up and have carried a burst each way."""
    shown: ShownLab = request.param
    shell = SimShell(shown.path)
    shell.wait_until(shell.tunnels_up)
    shell.send(PACKETS)
    return shown, shell


def commands(lab: ShownLab) -> Iterator[str]:
    return chain(lab.of_guide(), lab.beside_them())


@pytest.mark.behaviour("B-187", "B-188", "B-192")
def test_the_text_of_every_command(booted: tuple[ShownLab, SimShell]) -> None:
    lab, shell = booted
    text = transcript(commands(lab), lab.context, lambda line: shell.show(lab.node, line, lab.context))
    if os.environ.get("RENEW_VIEWS"):
        lab.golden.write_text(text)
    assert text == lab.golden.read_text()


def test_every_command_has_json(booted: tuple[ShownLab, SimShell]) -> None:
    lab, shell = booted
    for line in commands(lab):
        plain, said = (shell.show(lab.node, text, lab.context) for text in (line, f"{line} | json"))
        assert said == plain if plain.startswith("% ") else json.loads(said) is not None, line


def keys(value: Any, path: str = "") -> Iterator[str]:
    """Where each value of JSON stands; names of counters and of contexts are data."""
    if isinstance(value, list):
        for one in value:
            yield from keys(one, f"{path}[]")
    elif isinstance(value, dict) and value:
        for name, one in value.items():
            yield from keys(one, f"{path}.*" if path.endswith((".drops.in", ".drops.out")) else f"{path}.{name}")
    else:
        yield path


def test_json_has_the_same_keys_always() -> None:
    """Of each command without its names; what a script reads today is there tomorrow."""
    found: dict[str, set[str]] = {}
    for lab in LABS:
        shell = SimShell(lab.path)
        shell.wait_until(shell.tunnels_up)
        names = {value for field, value in asdict(lab).items() if field not in ("name", "node", "version")}
        for line in commands(lab):
            said = shell.show(lab.node, f"{line} | json", lab.context)
            if not said.startswith("% "):
                form = " ".join("NAME" if word in names else word for word in line.split())
                found.setdefault(form, set()).update(keys(json.loads(said)))
    text = json.dumps({form: sorted(paths) for form, paths in sorted(found.items())}, indent=1) + "\n"
    file = GOLDEN / "keys.json"
    if os.environ.get("RENEW_VIEWS"):
        file.write_text(text)
    assert text == file.read_text()


def test_statistics_count_what_the_testers_count(booted: tuple[ShownLab, SimShell]) -> None:
    """By tunnel, by ASP and context, and by circuit: three counts of the same packets."""
    lab, shell = booted
    flows = shell.flows()
    assert {name: (flow["sent"], flow["received"]) for name, flow in flows.items()} == {
        "forward": (PACKETS, PACKETS),
        "reverse": (PACKETS, PACKETS),
    }
    (tunnel,) = shell.data(lab.node, f"show tunnel ipsec {lab.tunnel} statistics", lab.context)
    assert tunnel["encapsulated"]["packets"] == flows["forward"]["sent"]
    assert tunnel["decapsulated"]["packets"] == flows["reverse"]["received"]
    for context in {lab.context, lab.outer}:
        total = shell.data(lab.node, f"show ipsec card {lab.carried} statistics global context {context}")
        assert total["encapsulated"] == tunnel["encapsulated"]
        assert total["decapsulated"] == tunnel["decapsulated"]
        assert (total["tunnels"], total["up"]) == (1, 1)
        assert total["sas"] == len(tunnel["sas"])
    rows = {row["name"]: row for row in shell.data(lab.node, "show circuit counters")["circuits"]}
    if lab.tunnel in rows:
        counted = rows[lab.tunnel]["counters"]
        assert counted["packets_out"] == tunnel["encapsulated"]["packets"]
        assert counted["packets_in"] == tunnel["decapsulated"]["packets"]
        assert counted["octets_in"] == tunnel["decapsulated"]["octets"]
        assert counted["octets_out"] == sum(sa["octets"] for sa in tunnel["sas"] if sa["direction"] == "out")


@pytest.mark.behaviour("B-190")
def test_statistics_of_another_asp_or_context_count_nothing(booted: tuple[ShownLab, SimShell]) -> None:
    lab, shell = booted
    asps = {row["asp"] for row in shell.data(lab.node, "show asp")}
    contexts = [row["context"] for row in shell.data(lab.node, "show context all")]
    counted = {
        (asp, context): shell.data(lab.node, f"show ipsec card {asp} statistics global context {context}")
        for asp in asps
        for context in contexts
    }
    busy = {place for place, total in counted.items() if total["encapsulated"]["packets"]}
    assert busy == {(lab.carried, context) for context in (lab.context, lab.outer)}


@pytest.mark.behaviour("B-191")
def test_statistics_tell_the_versions_of_ike_apart(booted: tuple[ShownLab, SimShell]) -> None:
    lab, shell = booted
    line = f"show ike card {lab.carried} statistics global"
    other = shell.data(lab.node, f"{line} {'ike2' if lab.version == 'ike1' else 'ike1'}")
    assert (other["ike_sas"], other["statistics"]) == (0, {})
    before = shell.data(lab.node, f"{line} {lab.version}")
    assert before["ike_sas"] == before["statistics"]["IKE SAs established"] == 1
    tunnel = shell.data(lab.node, f"show tunnel ipsec name {lab.tunnel} statistics ike")["statistics"]
    after = shell.data(lab.node, f"{line} {lab.version}")
    # The only tunnel of its ASP: what it has counted in between is all that its ASP has.
    assert between(before["statistics"], tunnel, after["statistics"])
    said = shell.show(lab.node, f"show tunnel ipsec name {lab.tunnel} statistics ike detail")
    assert re.search(r"^  octets received +: [1-9]", said, re.MULTILINE)


def between(low: dict[str, int], counts: dict[str, int], high: dict[str, int]) -> bool:
    """Whether counts that go on were taken between two others."""
    names = {"messages sent", "messages received", "octets sent", "octets received"}
    return all(0 < low[name] <= counts[name] <= high[name] for name in names) and low.keys() == counts.keys()


SECOND = """ike2 proposal second
  authentication algorithm hmac-md5-96
  encryption algorithm 3des-cbc

"""
WITH_BOTH = (
    (r"ike (policy ike-policy2\n(?:    .*\n)*?    seq 10 proposal) ike-proposal", r"ike2 \1 second"),
    (r"(?m)^(?=ike proposal)", SECOND),
)
"""Makes the second tunnel of the high-availability lab one of IKEv2."""


@pytest.mark.behaviour("B-191")
def test_an_asp_with_both_versions_counts_each_by_itself(tmp_path: Path) -> None:
    for file in LABS[2].path.parent.iterdir():
        text = file.read_text()
        for pattern, instead in WITH_BOTH if file.suffix == ".cfg" else ():
            text, made = re.subn(pattern, instead, text)
            assert made == 1
        (tmp_path / file.name).write_text(text)
    shell = SimShell(tmp_path / "lab.yaml")
    shell.wait_until(shell.tunnels_up)
    shell.pass_time(2.0)

    def counted(node: str, asp: str, version: str) -> dict[str, int]:
        found = shell.data(node, f"show ike card {asp} statistics global {version}")
        assert found["ike_sas"] == 1
        counts: dict[str, int] = found["statistics"]
        return counts

    for version, tunnel, asp in (("ike1", "Tun-1", "2/1"), ("ike2", "Tun-2", "2/2")):
        before = counted("gateway", "2/1", version)
        own = shell.data("gateway", f"show tunnel ipsec {tunnel} statistics ike")["statistics"]
        far = counted("ha", asp, version)
        after = counted("gateway", "2/1", version)
        assert between(before, own, after)
        # What the gateway's one ASP receives by a version, the ASP at the other end of that tunnel has sent.
        assert before["messages received"] <= far["messages sent"] <= after["messages received"] + 1
        assert before["octets received"] <= far["octets sent"]
    shell.send(PACKETS)
    assert {flow["lost"] for flow in shell.flows().values()} == {0}
