"""The page about certificates does what it says: its lines are typed at two routers, its commands are run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import CONFIGS, ROOT
from tests.support.cli import CliRig, of_node
from tests.support.xcrp import Node

PAGE = ROOT / "docs" / "certificates.md"
BLOCK = re.compile(r"^```(sh|a|b)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"^\[\w+\][ab](\([\w-]+\))?#")
QUESTION = re.compile(r"^(?:Enter the |Do you want |\w+ \(y/n\)).*?:")
LACKS = "certificate: context vpn has no trusted certificate"


class Reader:
    """Someone who does what the page says, in a folder and at routers in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes = {name: Node((CONFIGS / "ikev2" / f"{name}.cfg").read_text()) for name in "ab"}
        self.rigs: dict[str, CliRig] = {}
        for name, node in self.nodes.items():
            node.boot_all("3/1", "3/11")
            self.rigs[name] = CliRig(of_node(node))
            self.rigs[name].start()

    def run(self, text: str) -> None:
        for line in text.splitlines():
            subprocess.run(shlex.split(line), cwd=self.folder, check=True, capture_output=True, timeout=60)

    def type(self, router: str, text: str) -> str:
        """Type what stands behind prompts and questions; `<FILE>` pastes a file."""
        said = ""
        for line in text.splitlines():
            found = PROMPT.match(line) or QUESTION.match(line)
            if line.startswith("<"):
                lines = [*(self.folder / line[1:-1]).read_text().splitlines(), ""]
            elif found:
                lines = [line.removeprefix(found[0]).strip()]
            else:
                continue
            answer = "".join(self.rigs[router].type(f"{one}\r") for one in lines)
            assert "% Error" not in answer, (line, answer)
            assert "% Invalid" not in answer, (line, answer)
            if lines[0].startswith("more "):
                # What the reader copies.
                request = answer[answer.index("-----BEGIN") :].rpartition("[")[0].replace("\r", "")
                (self.folder / lines[0].split()[1]).write_text(request)
            said += answer
        return said


def test_the_page_leads_from_nothing_to_certificates(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    reader = Reader(tmp_path)
    said = ""
    blocks = BLOCK.findall(PAGE.read_text())
    assert [kind for kind, _ in blocks] == ["sh", "a", "a", "sh", "a", "b", "sh", "b"]
    for kind, text in blocks:
        if kind == "sh":
            reader.run(text)
        else:
            said += reader.type(kind, text)
    # The prompts of the page are those that the routers print; both sessions here are called a.
    shown = {found[0] for _, text in blocks for line in text.splitlines() if (found := PROMPT.match(line))}
    assert not [prompt for prompt in shown if prompt.replace("]b", "]a") not in f"[local]a#{said}"]
    assert LACKS in said
    for node in reader.nodes.values():
        assert node.tunnel("ipsec_tunnel")["reason"] == "IKE: not negotiated yet"
    for name in "ab":
        words = ["openssl", "verify", "-CAfile", "ca.pem", f"{name}.pem"]
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, timeout=60)
