"""Find a running lab for `chassisctl` and connect to its operator sockets.

Input: the lab's name, or none if only one lab runs. Output: answers of the launcher and of nodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chassis.bus import endpoints
from chassis.bus.operator import OperatorClient, OperatorError
from launch.lab.yaml_source import nearest
from launch.run_folders import FolderError, Running, running


class RunningLab:
    """Operator sockets of one lab.

    Raises:
        OperatorError: from every method; the text says what is wrong.
    """

    def __init__(self, lab: Running) -> None:
        self._lab = lab
        self.name = lab.name
        self.run = lab.run
        self.nodes: dict[str, dict[str, Any]] = lab.facts["nodes"]
        self.links: list[list[str]] = lab.facts["links"]

    @classmethod
    def find(cls, name: str | None) -> RunningLab:
        """Find the lab of this name; without a name, the only running lab."""
        try:
            labs = running()
        except FolderError as error:
            raise OperatorError(str(error)) from None
        if name is not None:
            for lab in labs:
                if lab.name == name:
                    return cls(lab)
            raise OperatorError(f"no lab {name!r} runs; running: {', '.join(lab.name for lab in labs) or 'none'}")
        if len(labs) != 1:
            what = f"several labs run ({', '.join(lab.name for lab in labs)}); give one with --lab"
            raise OperatorError(what if labs else "no lab runs; start one with chassis-launch FILE")
        return cls(labs[0])

    def launcher(self, command: str, /, **arguments: Any) -> dict[str, Any]:
        with OperatorClient(self._lab.socket) as client:
            return client.call(command, **arguments)

    def node(self, name: str, command: str, /, **arguments: Any) -> dict[str, Any]:
        with OperatorClient(self.socket(name)) as client:
            return client.call(command, **arguments)

    def open(self, name: str) -> OperatorClient:
        """Connect to a node without a timeout for answers; OperatorGone if the process does not listen."""
        return OperatorClient(self.socket(name), None)

    def runs(self) -> bool:
        """Return whether the lab still runs."""
        return self._lab.lives()

    def routers(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node["kind"] == "smartedge"]

    def far_end(self, end: str) -> str:
        """Return the port at the other end of this port's link.

        Raises:
            OperatorError: the port has no link.
        """
        for one, other in self.links:
            if end in (one, other):
                return other if end == one else one
        ends = [end for link in self.links for end in link]
        raise OperatorError(f"{end} has no link; linked ports: {', '.join(ends) or 'none'}")

    def split(self, end: str) -> tuple[str, str]:
        """Split `a:3/11` into node and port."""
        node, colon, port = end.partition(":")
        if not colon or not port:
            raise OperatorError(f"{end!r} is not a port of a node; expected NODE:PORT such as a:3/11")
        self._known(node)
        return node, port

    def _known(self, name: str) -> str:
        if name not in self.nodes:
            close = nearest(name, self.nodes)
            hint = f"did you mean {close!r}?" if close else f"nodes: {', '.join(self.nodes)}"
            raise OperatorError(f"lab {self.name} has no node {name!r}; {hint}")
        return name

    def socket(self, name: str) -> Path:
        """The operator socket of a node."""
        if self.nodes[self._known(name)]["kind"] == "linux":
            raise OperatorError(f"{name} is a Linux node; run commands in it with chassisctl exec")
        return endpoints.operator(self.run, name)
