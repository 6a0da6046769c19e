"""Labs of many remote peers in the simulator: a hub, and nodes of peers whose engines a test reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from chassis.bus.batch import Batch
from chassis.bus.counters import Counters
from chassis.bus.engine import Output, ToOperator, ToWire
from chassis.peers import shell as peers_shell
from chassis.peers.engine import PeersEngine
from chassis.peers.gateway import GatewayConfig
from chassis.peers.group import (
    MemberCarrier,
    MemberFrames,
    PeersGroup,
    ToMember,
    batch_of,
    frames_message,
    run_command,
)
from chassis.peers.spec import PeersSpec, read_spec
from chassis.sim import testers
from chassis.sim.lab import LabModel
from launch.lab.model import PeersNode
from launch.lab.parser import load
from tests.support.sim_shell import SimShell


class LoadShell(SimShell):
    """A lab file with peers, on a fake clock.

    The simulator knows no peers: a lab with testers in their places is read, and they are put back.
    """

    def __init__(
        self, file: Path, folder: Path, *, of: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any
    ) -> None:
        """`changes` are of the keys of every node of peers, with `_` for `-`; `of` has those of single nodes.
        `folder` takes a file."""
        self._of = of or {}
        self.engines: dict[str, PeersEngine] = {}
        self._nodes = load(file)[0].peers()
        self._changes = {name.replace("_", "-"): value for name, value in changes.items()}
        super().__init__(_standing(file, folder, self._nodes), change=self._with_peers)

    def _with_peers(self, lab: LabModel) -> LabModel:
        names = {node.name for node in self._nodes}
        others = tuple(tester for tester in lab.testers if tester.name not in names)
        return replace(lab, testers=(*others, *(self._model(node) for node in self._nodes)))

    def _model(self, node: PeersNode) -> testers.TesterModel:
        ports = {name: port.plain() for name, port in node.ports.items()}

        def make() -> PeersEngine | PeersInOneProcess:
            values = {**node.values, **self._changes, **self._of.get(node.name, {})}
            settings = {**node.settings.to_json()}
            if values.get("processes", 1) > 1:
                return PeersInOneProcess(node.name, ports, values, settings)
            made = self.engines[node.name] = PeersEngine(
                node.name, ports=ports, peers=values, random=Random(node.name).randbytes, settings=settings
            )
            return made

        return testers.TesterModel(node.name, make, tuple(ports), ())

    def command(self, node: str, command: str, **arguments: Any) -> dict[str, Any]:
        tester, now = self.testers[node], self.run.world.now
        outputs = tester.engine.on_operator_command(1, command, arguments, now)
        answer = outputs.pop()
        assert isinstance(answer, ToOperator)
        assert not answer.error, answer.error
        tester.finish_call(outputs)
        return answer.result

    def status(self, node: str) -> dict[str, Any]:
        return self.command(node, "status")

    def instances(self) -> set[str]:
        """The identities of all peers that the hub has."""
        rows = self.ask("hub", "tunnels", {"kind": "on-demand", "detail": True})["tunnels"]
        return {row["identity"] for row in rows if row.get("identity") and row["up"]}


class PeersInOneProcess:
    """The group and the members of a node of peers, without processes; messages pass the pipe's encoding."""

    def __init__(
        self, node: str, ports: Mapping[str, Any], values: Mapping[str, Any], settings: dict[str, Any]
    ) -> None:
        spec = read_spec(values)[0]
        assert spec is not None
        ((self._port, plain),) = ports.items()
        self.posted: list[tuple[int, ToMember]] = []
        self.counters = Counters()
        self.group = PeersGroup(
            self._port, plain, spec, self.counters, lambda member, message: self.posted.append((member, message))
        )
        self.members = [
            PeersEngine(
                node,
                ports=ports,
                peers=values,
                random=Random(f"{node} {part}").randbytes,
                settings=settings,
                part=part,
            )
            for part in range(len(self.group.parts))
        ]

    def start(self, now: float) -> list[Output]:
        return self._of_members(lambda engine: engine.start(now))

    def on_carrier(self, port: str, up: bool, now: float) -> list[Output]:
        return self._settled(self.group.on_carrier(port, up, now), now)

    def on_congestion(self, port: str, full: bool, now: float) -> None:
        pass

    def receive_frames(self, port: str, batch: Batch, now: float) -> list[Output]:
        return self._settled(self.group.receive_frames(port, batch, now), now)

    def on_operator_command(self, number: int, command: Any, arguments: Any, now: float) -> list[Output]:
        return self._settled(self.group.on_operator_command(number, command, arguments, now), now)

    def on_timer(self, now: float) -> list[Output]:
        return self._of_members(lambda engine: engine.on_timer(now) if engine.next_timer() <= now else [])

    def next_timer(self) -> float:
        return min(engine.next_timer() for engine in self.members)

    def _of_members(self, call: Callable[[PeersEngine], list[Output]]) -> list[Output]:
        return [output for each, engine in enumerate(self.members) for output in self._from(each, call(engine))]

    def _from(self, member: int, outputs: list[Output]) -> list[Output]:
        made: list[Output] = []
        for output in outputs:
            if isinstance(output, ToWire):
                message = peers_shell._decode_from(peers_shell._encode_from(frames_message(output.batch)))
                made += self.group.from_member(member, message)
        return made

    def _settled(self, outputs: list[Output], now: float) -> list[Output]:
        posted, self.posted = self.posted, []
        for member, sent in posted:
            message, engine = peers_shell._decode_to(peers_shell._encode_to(sent)), self.members[member]
            if isinstance(message, MemberFrames):
                outputs += self._from(member, engine.receive_frames(self._port, batch_of(message), now))
            elif isinstance(message, MemberCarrier):
                outputs += self._from(member, engine.on_carrier(self._port, message.up, now))
            else:
                done, answer = run_command(engine, message, now)
                outputs += self._from(member, done)
                answer = peers_shell._decode_from(peers_shell._encode_from(answer))
                outputs += self.group.from_member(member, answer)
        return outputs


def _standing(file: Path, folder: Path, nodes: Iterable[PeersNode]) -> Path:
    """Write the lab with testers where the peers are."""
    import yaml

    values = yaml.safe_load(file.read_text())
    for name, node in values["topology"]["nodes"].items():
        if "config" in node:
            node["config"] = str(file.parent / node["config"])
        if name in {peers.name for peers in nodes}:
            values["topology"]["nodes"][name] = {"kind": "tester", "ports": node["ports"]}
    path = folder / "standing.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


STATIC_HUB = """\
asp pool P service security
  asp 2/1
  asp 2/2
asp group G
  pool P
  asp-count 2
context private
  interface lan
    ip address 10.100.0.1/16
context public
  interface end-1 loopback
    ip address 10.255.0.1/32
  interface end-2 loopback
    ip address 10.255.0.2/32
  interface to-peers
    ip address 172.16.1.1/24
  ip route 10.9.0.0/16 172.16.1.2
  asp-group G service security
card ase 2
card ether-12-port 3
port ethernet 3/1
  no shutdown
  bind interface to-peers public
port ethernet 3/12
  no shutdown
  bind interface lan private
"""
"""A hub without its tunnels: it dials from two addresses on two ASPs; 10.9.0.0/16 is where its peers are."""

STATIC_PEERS: Mapping[str, Any] = {
    "peers": 8,
    "first-address": "10.9.0.1",
    "towards": ["10.255.0.1", "10.255.0.2"],
    "version": "both",
    "pre-shared-key": "key-of-{number}",
    "first-network": "10.112.0.0/30",
    "remote-network": "10.100.0.0/16",
    "rate": 50,
}


def static_lab(folder: Path, **changes: Any) -> Path:
    """Write a lab of a hub that has a static tunnel for each of its peers; return the lab file.

    `changes` are of the peers' keys, with `_` for `-`.
    """
    import yaml

    peers = {**STATIC_PEERS, **{name.replace("_", "-"): value for name, value in changes.items()}}
    spec, problems = read_spec(peers)
    assert isinstance(spec, PeersSpec), problems
    lines = GatewayConfig("peers", "public", "private").lines(spec)
    (folder / "hub.cfg").write_text(STATIC_HUB + "".join(f"{line}\n" for line in lines))
    lab = {
        "name": "static",
        "topology": {
            "nodes": {
                "hub": {"kind": "smartedge", "config": "hub.cfg"},
                "peers": {
                    "kind": "peers",
                    "ports": {"1": {"address": "172.16.1.2/24", "gateway": "172.16.1.1"}},
                    **peers,
                },
                "lan": {"kind": "tester", "ports": {"1": {"address": "10.100.0.2/16", "gateway": "10.100.0.1"}}},
            },
            "links": [{"endpoints": ["peers:1", "hub:3/1"]}, {"endpoints": ["lan:1", "hub:3/12"]}],
        },
    }
    path = folder / "lab.yaml"
    path.write_text(yaml.safe_dump(lab))
    return path
