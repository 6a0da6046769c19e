"""CLI sessions at a controller in memory: real requests, real answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.cli import CliRig
from tests.support.xcrp import Node


class NodeRig(CliRig):
    """A session at the controller of a node."""

    def __init__(self, node: Node, **settings: Any) -> None:
        self.node = node
        super().__init__(self.request, **settings)
        self.now = node.now

    def request(self, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.node.ask(command, **arguments)


def run(node: Node, line: str, **settings: Any) -> str:
    """Run one command at a node without a terminal; its status says whether it was refused."""
    rig = NodeRig(node, **settings)
    said = rig.run(line)
    assert rig.status == (1 if said.startswith("% ") or "\n% " in said else 0)
    return said
