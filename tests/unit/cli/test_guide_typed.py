"""The guide's examples and procedures, typed line by line at a router: accepted, warned or refused as settled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis.config.drafts import SourceLine
from tests.support.cli import CliRig, of_node
from tests.support.xcrp import Node
from tests.unit.config.test_examples import FILES

SURPLUS = ("S-016", "S-051")
"""Codes of surplus words, which a session warns of as soon as they are typed."""

CARET = "% Invalid input at '^' marker"


class Typist:
    """Types lines at a router without a configuration of its own, and keeps what each commit says."""

    def __init__(self) -> None:
        self.node = running("")
        ask = of_node(self.node)

        def controller(command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
            answer = ask(command, arguments)
            if command == "commit":
                self.commits.append(answer)
            return answer

        self.commits: list[Mapping[str, Any]] = []
        self.rig = CliRig(controller, length=0)
        self.rig.start(named=True)

    def type(self, line: str) -> tuple[list[str], str]:
        """Return what a line prints, and the prompt after it."""
        *printed, prompt = self.rig.type(f"{line}\r").removeprefix(f"{line}\r\n").split("\r\n")
        return printed, prompt

    @property
    def config(self) -> str:
        return str(self.node.ask("config")["text"])


def running(text: str) -> Node:
    node = Node(text)
    node.start()
    node.run(1.0)
    return node


def expected(spec_dir: Path, file: str) -> list[dict[str, Any]]:
    wanted: dict[str, list[dict[str, Any]]] = yaml.safe_load((spec_dir / "diagnostics.yaml").read_text())
    return wanted[file]


FOLLOWS = {"07.cfg": [(8, "warning", "S-109", "2546")]}
"""What a commit says besides, of a block whose wrong line was refused before it: the SPI's key is missing then."""


@pytest.mark.parametrize("file", FILES)
def test_an_example_is_typed_row_by_row(spec_dir: Path, file: str) -> None:
    """Every diagnostic of the list comes, at its line and column: errors and surplus words as soon as they are
    typed, the others with the commit. What is in force then is what the file makes of a new router."""
    text = (spec_dir / "examples" / file).read_text()
    wanted = expected(spec_dir, file)
    typist = Typist()
    typist.type("configure")
    entered: list[int] = []
    for number, line in enumerate(text.split("\n"), 1):
        source = SourceLine(line, number)
        if not source.words or source.words == ["end"]:
            continue
        _, before = typist.type("")
        printed, _ = typist.type(source.body)
        errors = [row for row in wanted if row["line"] == number and row["severity"] == "error"]
        surplus = [row for row in wanted if row["line"] == number and row["code"] in SURPLUS]
        said = [one for one in printed if not one.startswith("% Note: ")]
        if not errors:
            entered += [number] if source.words != ["config"] else []
            assert [one for one in said if one.startswith("% ")] == [
                f"% Warning: surplus words after the policy name, ignored: {row['name']}" for row in surplus
            ], line
        for row in errors:
            assert sum(one.startswith("% Error: ") for one in said) == 1, line
            if CARET in said:
                at = len(before) + row["column"] - 1 - source.indent
                assert said[0] == f"{' ' * at}^", line
        hints = [one.removeprefix("  repaired: ") for one in said if one.startswith("  repaired: ")]
        assert hints == [row["repaired"] for row in errors + surplus if row["repaired"]], line
    printed, prompt = typist.type("end")
    assert printed[-1] == "Transaction committed"
    assert sum(one.startswith("% Warning: line ") for one in printed) == len(printed) - 1 - sum(
        one.startswith("  repaired: ") for one in printed
    )
    assert prompt.endswith("#")
    assert "(" not in prompt
    found = [one for one in typist.commits[-1]["diagnostics"] if one["severity"] != "note"]
    told = [(entered[one["line"] - 1], one["severity"], one["code"], one["name"]) for one in found]
    rows = [(row["line"], "warning", row["code"], row["name"]) for row in wanted if row["severity"] == "warning"]
    assert sorted(told) == sorted(rows + FOLLOWS.get(file, []))
    assert typist.config == running(text).ask("config")["text"]
    assert typist.config == running(typist.config).ask("config")["text"]


CHAPTERS = {
    "6.2": 12,
    "6.3": 2,
    "6.4": 19,
    "8.1": 8,
    "8.2": 5,
    "8.3": 10,
    "8.4": 5,
    "8.5": 2,
    "9.2": 11,
    "9.3": 17,
    "9.4": 9,
    "13": 76,
}
"""Chapters of the guide with lines after a prompt, and how many."""


def transcript(guide: str, wanted: str) -> list[str]:
    """The lines that the guide prints after the prompt of a router in a chapter, prompts included; lines that the
    page has wrapped are joined."""
    lines: list[str] = []
    inside = here = False
    for line in guide.split("\n"):
        if found := re.match(r"#+ (\d+(?:\.\d+)*) ", line):
            here = f"{found[1]}.".startswith(f"{wanted}.")
        if line.startswith("```"):
            inside = not inside
            lines.append("")
        elif here and inside and re.match(r"\[local\] ?Redback", line):
            lines.append(line.rstrip())
        elif here and inside and lines[-1] and line.strip():
            lines[-1] = join(lines[-1], line.strip())
    return [line for line in lines if line]


def join(first: str, second: str) -> str:
    """Two parts of a line that the page has wrapped, at a blank or within a word."""
    return f"{first}{second}" if first.endswith("-") or second.startswith("-") else f"{first} {second}"


REPAIRED = {"ipsec_mb se_1": "ipsec_mb_se_1"}
"""A word that lost an underscore in the page."""

REFUSED = {
    "authentication rsa-signature": "% Error: `authentication` is valid only in an IKEv2 policy",
    "address-allocation aaa": "% Error: `address-allocation aaa` is valid only in an IKEv2 policy",
    "lifetime 43200": "% Error: `lifetime seconds` is valid only in an IKEv2 policy",
    "ah hmac-md5-96 hex 0fa20fa20fa20fa2": "% Error: this key has 8 bytes, hmac-md5-96 needs 16",
    "ip address 172.168.3.0/24": "% Error: 172.168.3.0 is the address of the network itself",
}
"""Lines that are refused wherever they are printed, with what is said."""

IN_CONTEXT = ("config-ctx", "config-if", "config-ike-policy", "config-ipsec-acl", "cfg-ipsec-profile")

UNDIRECTED = ("esp encryption des-cbc key 12345678", "esp spi 65535")
"""Lines that are refused where they are printed first, before `both`, and taken after it."""


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_is_typed_as_it_is_printed(spec_dir: Path, chapter: str) -> None:
    """Every line, with its prompt, in the order of the guide; `context local` is typed where a line stands at the
    prompt of a context and none is open."""
    typist = Typist()
    typist.type("configure")
    _, prompt = typist.type("")
    undirected, taken = list(UNDIRECTED if chapter == "8.3" else ()), []
    lines = transcript((spec_dir / "guide.md").read_text(), chapter)
    assert len(lines) == CHAPTERS[chapter]
    for line in lines:
        for damaged, whole in REPAIRED.items():
            line = line.replace(damaged, whole)
        body = SourceLine(line, 1).body
        assert not re.search(r"[\[#]", body)
        if "(config-ctx)" in line and not any(f"({mode})" in prompt for mode in IN_CONTEXT):
            taken.append("context local")
            typist.type("context local")
        printed, prompt = typist.type(line)
        said = [one for one in printed if one.startswith("% ") and not one.startswith("% Note")]
        if body in REFUSED or body in undirected:
            why = REFUSED.get(body, "% Error: no direction chosen yet: choose both, in or out first")
            assert said[-1].startswith(why), line
            assert len(said) <= 2, line
            undirected = [one for one in undirected if one != body]
            continue
        if body == "commit":
            check_commit(printed)
        else:
            surplus = ["% Warning: surplus words after the policy name, ignored: sa1"] if " sa1 " in body else []
            assert said == surplus, line
        taken.append(body)
    assert not undirected
    printed, prompt = typist.type("end")
    if taken[-2:] != ["commit", "exit"]:
        check_commit(printed)
    assert prompt == "[local]a#"
    assert typist.config == running("\n".join(taken)).ask("config")["text"]


def check_commit(printed: list[str]) -> None:
    """A commit is done, and says nothing but what is doubtful in which line."""
    assert printed[-1] == "Transaction committed", printed
    assert all(one.startswith(("% Warning: line ", "  repaired: ")) for one in printed[:-1]), printed
