"""Read a lab file, or a single configuration file, into a `Lab`; report all errors at once (docs/labs.md).

Input: a path and changed values. Output: a `Lab` and warnings, or `LabError` with diagnostics.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, Literal

from chassis.config.diagnostics import Diagnostic, in_order
from chassis.config.secrets import secret_fault
from chassis.config.values import HIDDEN_VALUE
from chassis.model.ipsec import CIPHER_ENGINES
from chassis.net import units
from chassis.net.rate import Rate
from chassis.peers.spec import KEYS as PEERS_KEYS
from chassis.peers.spec import NESTED as PEERS_NESTED
from chassis.xcrp.settings import CAPACITIES, EXTENSIONS, IKE, SYSTEMS, IkeSetting, ike_setting_error
from launch.lab import ssh
from launch.lab.model import (
    Endpoint,
    FlowSpec,
    Lab,
    LabSettings,
    Link,
    LinuxNode,
    Node,
    PeersNode,
    RouterNode,
    SshSettings,
    TesterNode,
    TesterPort,
)
from launch.lab.peers_node import lacks_keys, read_values
from launch.lab.yaml_source import (
    MAX_VALUES,
    LabError,
    Marked,
    Reporter,
    YamlPosition,
    beside,
    is_there,
    read,
)

VALID_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z")
"""Valid names of labs, nodes and flows."""

_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,14}\Z")
_PORT = re.compile(r"([1-9]\d?)/([1-9]\d*)\Z")

MAX_INGRESS_HOLD = 0.05
"""Longest time (s) for which a port holds frames: far below the silence that makes a card dead."""

MAX_COUNT = 1000
"""Largest `count:` of a node."""

LINK_SIZE = 8
"""Values (as in `Marked.size`) that a link or a flow between counted nodes costs."""

_LAB_KEYS = ("name", "settings", "ssh", "refuse-errors", "topology", "flows", "scenario", "expect")
_SETTINGS_KEYS = (
    "restart-delay",
    "heartbeat-interval",
    "heartbeat-misses",
    "ingress-hold",
    "seed",
    "asp-rate",
    "cipher-engine",
    *(name for name, *_ in CAPACITIES),
    "refuse-errors",
    "os",
    *(setting.name for setting in IKE),
)
_NODE_KEYS: Mapping[str, tuple[str, ...]] = {
    "smartedge": (
        "kind",
        "count",
        "settings",
        "config",
        "discard-tunnel-routes",
        "flash",
        "extensions",
        "ssh",
        "secret",
    ),
    "tester": ("kind", "count", "settings", "ports"),
    "peers": ("kind", "count", "settings", "ports", *PEERS_KEYS),
    "linux": ("kind", "count", "settings", "addresses", "routes", "files", "exec", "wait-for"),
}
_FLOW_KEYS = (
    "from",
    "to",
    "rate",
    "size",
    "source",
    "destination",
    "destinations",
    "dscp",
    "trace",
    "start",
    "count",
)  # fmt: skip


def load(path: Path, changes: Mapping[str, Any] | None = None) -> tuple[Lab, tuple[Diagnostic, ...]]:
    """Read a lab file. Return the lab and its warnings. A `.cfg` is a lab of one router.

    `changes` are values that replace the file's own, such as `{"settings": {"restart-delay": "never"}}`; paths in
    the lab stay relative to the lab file.

    Raises:
        LabError: the file has errors.
    """
    if path.suffix == ".cfg" and not changes:
        return _single(path), ()
    reporter = Reporter(str(path))
    root = read(path, reporter).changed(changes or {})
    lab = _Parser(path, reporter).lab(root)
    diagnostics = in_order(reporter.diagnostics)
    if reporter.failed or lab is None:
        raise LabError(diagnostics)
    return lab, diagnostics


def _single(path: Path) -> Lab:
    """Make a lab of one router, named like its file."""
    if not path.is_file():
        reporter = Reporter(str(path))
        reporter.error(YamlPosition(1, 1), "lab-file", "file does not exist", path.name)
        reporter.stop()
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_")[:32] or "router"
    return Lab(name, path, {name: RouterNode(name, path.absolute())})


class _Parser:
    def __init__(self, path: Path, reporter: Reporter) -> None:
        self._path = path
        self._report = reporter
        self._counts: dict[str, int] = {}
        """Nodes with `count:`, by their name in the file."""
        self._made = 0
        """Values made from `count:` so far, as `Marked.size` counts."""
        self._ssh = SshSettings()
        """Settings of SSH of the whole lab."""
        self._broken: set[str] = set()
        """Nodes with an error: a link that names one is not reported again."""

    # the whole file

    def lab(self, root: Marked) -> Lab | None:
        fields = self._fields(root, "key of a lab", _LAB_KEYS)
        if fields is None:
            return None
        name = self._name(fields.get("name"), root.at)
        settings = LabSettings(refuse_errors=self._switch(fields.get("refuse-errors"), "refuse-errors"))
        settings = self._settings(fields.get("settings"), settings)
        self._ssh = ssh.read(fields.get("ssh"), SshSettings(), self._path, self._report, whole=True)
        topology_node = fields.get("topology")
        if topology_node is None:
            self._report.error(root.at, "lab-missing", "a lab needs 'topology:' with 'nodes:'", "topology")
            return None
        topology = self._fields(topology_node, "key of a topology", ("nodes", "links")) or {}
        nodes = self._nodes(topology.get("nodes"), topology_node.at, settings)
        links = self._links(topology.get("links"), nodes)
        flows = self._flows(fields.get("flows"), nodes)
        return Lab(
            name,
            self._path,
            nodes,
            links,
            flows,
            self._list(fields.get("scenario"), "scenario"),
            self._list(fields.get("expect"), "expect"),
        )

    def _name(self, value: Marked | None, at: YamlPosition) -> str:
        if value is None:
            self._report.error(at, "lab-missing", "a lab needs a name; begin it with 'name: my-lab'", "name")
            return ""
        if not isinstance(value.value, str) or not VALID_NAME.match(value.value):
            message = "a lab's name is up to 32 letters, digits, '-' and '_'"
            self._report.error(value.at, "lab-value", message, str(value.value))
            return ""
        return value.value

    def _settings(self, value: Marked | None, base: LabSettings) -> LabSettings:
        fields = self._fields(value, "setting", _SETTINGS_KEYS) if value is not None else None
        if not fields:
            return base
        changes: dict[str, Any] = {}
        if "restart-delay" in fields:
            delay = fields["restart-delay"]
            if delay.value == "never":
                changes["restart_delay"] = None
            else:
                changes["restart_delay"] = self._unit(delay, units.parse_duration, 1.0, "; or write never")
        if (interval := fields.get("heartbeat-interval")) is not None:
            changes["heartbeat_interval"] = self._unit(interval, units.parse_duration, 1.0)
            if changes["heartbeat_interval"] < 0.005:
                text = "'heartbeat-interval:' is 5ms or more"
                self._report.error(interval.at, "lab-value", text, str(interval.value))
        if (hold := fields.get("ingress-hold")) is not None:
            changes["ingress_hold"] = self._unit(hold, units.parse_duration, 0.002)
            if changes["ingress_hold"] > MAX_INGRESS_HOLD:
                text = "'ingress-hold:' is 50ms or less"
                self._report.error(hold.at, "lab-value", text, str(hold.value))
        for key, low, high in (("heartbeat-misses", 2, 1000), ("seed", 0, 2**32)):
            if key in fields:
                changes[key.replace("-", "_")] = self._integer(fields[key], key, low, high)
        most = {
            name: self._integer(fields[name], name, 1, high) for name, _, high, _ in CAPACITIES if name in fields
        }
        if "asp-rate" in fields:
            changes["asp_rate"] = self._rate(fields["asp-rate"])
        if "refuse-errors" in fields:
            changes["refuse_errors"] = self._switch(fields["refuse-errors"], "refuse-errors")
        if "os" in fields:
            changes["os"] = self._one_of(fields["os"], "os", SYSTEMS)
        if "cipher-engine" in fields:
            changes["cipher_engine"] = self._one_of(fields["cipher-engine"], "cipher-engine", CIPHER_ENGINES)
        ike = {one.name: self._ike(fields[one.name], one) for one in IKE if one.name in fields}
        return replace(base, **changes, capacity={**base.capacity, **most}, ike={**base.ike, **ike})

    def _switch(self, value: Marked | None, name: str) -> bool:
        """Read a key that is true or false; return False if it is missing or wrong."""
        if value is not None and not isinstance(value.value, bool):
            self._report.error(value.at, "lab-value", f"'{name}:' is true or false", str(value.value))
        return value is not None and value.value is True

    def _rate(self, value: Marked) -> str:
        """Read an ASP's rate in the form of its processes; "" is unlimited."""
        try:
            return str(value.value) if Rate.parse(value.value) else ""
        except ValueError as error:
            self._report.error(value.at, "lab-value", f"'asp-rate:' {error}", str(value.value))
            return ""

    def _one_of(self, value: Marked, name: str, names: Sequence[str]) -> str:
        """Read a key that is one of some names; return the first of them if it is wrong."""
        if value.value in names:
            return str(value.value)
        expected = f"{', '.join(names[:-1])} or {names[-1]}"
        self._report.error(value.at, "lab-value", f"'{name}:' is {expected}", str(value.value))
        return names[0]

    def _ike(self, value: Marked, setting: IkeSetting) -> float | int | bool:
        """Read one IKE setting; return its smallest value if it is wrong."""
        if setting.kind == "number":
            return self._integer(value, setting.name, int(setting.low), int(setting.high))
        given = value.value
        if setting.kind == "duration":
            given = self._unit(value, units.parse_duration, setting.low)
        fault = ike_setting_error(setting, given)
        if fault:
            self._report.error(value.at, "lab-value", f"'{setting.name}:' {fault}", str(value.value))
            return setting.low
        made: float | bool = given
        return made

    # nodes

    def _nodes(self, value: Marked | None, at: YamlPosition, settings: LabSettings) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        if value is None or not value.is_mapping or not value.value:
            at = value.at if value is not None else at
            self._report.error(at, "lab-missing", "'topology:' needs 'nodes:' with at least one node", "nodes")
            return nodes
        for name, node in value.items():
            if not VALID_NAME.match(name):
                message = f"{name!r} is not a node name; expected up to 32 letters, digits, '-' and '_'"
                self._report.error(node.key, "lab-value", message, name)
            elif not node.is_mapping:
                message = f"node {name!r} is a mapping such as {{kind: tester, ports: ...}}"
                self._report.error(node.at, "lab-value", message, name)
                self._broken.add(name)
            else:
                for made_name, made in self._counted(name, node):
                    if made_name in nodes:
                        self._report.error(node.key, "lab-value", f"there are two nodes {made_name!r}", name)
                        continue
                    parsed = self._node(made_name, made, settings)
                    if parsed is None:
                        self._broken.add(made_name)
                    else:
                        nodes[made_name] = parsed
        return nodes

    def _counted(self, name: str, node: Marked) -> Iterator[tuple[str, Marked]]:
        if "count" not in node.value:
            yield name, node
            return
        count = self._integer(node.value["count"], "count", 1, MAX_COUNT)
        if not self._affords(node.value["count"], count * node.size):
            return
        self._counts[name] = count
        for number in range(1, count + 1):
            yield f"{name}-{number}", node.filled(number)

    def _node(self, name: str, node: Marked, settings: LabSettings) -> Node | None:
        kind = node.value.get("kind")
        if kind is None:
            message = f"node {name!r} needs 'kind:', one of {', '.join(_NODE_KEYS)}"
            self._report.error(node.key, "lab-missing", message, name)
            return None
        if not isinstance(kind.value, str) or kind.value not in _NODE_KEYS:
            self._report.unknown("kind", str(kind.value), _NODE_KEYS, kind.at)
            return None
        fields = self._fields(node, f"key of a {kind.value} node", _NODE_KEYS[kind.value]) or {}
        settings = self._settings(fields.get("settings"), settings)
        if kind.value == "smartedge":
            return self._smartedge(name, node, fields, settings)
        if kind.value == "tester":
            return TesterNode(name, self._tester_ports(name, fields.get("ports")), settings, node.key)
        if kind.value == "peers":
            return self._peers(name, node, fields, settings)
        return LinuxNode(
            name,
            self._addresses(fields.get("addresses")),
            self._strings(fields.get("routes"), "routes"),
            self._files(fields.get("files")),
            self._strings(fields.get("exec"), "exec"),
            self._strings(fields.get("wait-for"), "wait-for"),
            settings,
            node.key,
        )

    def _smartedge(
        self, name: str, node: Marked, fields: Mapping[str, Marked], settings: LabSettings
    ) -> RouterNode | None:
        config = fields.get("config")
        if config is None:
            message = f"router {name!r} needs 'config:' with the file of its configuration"
            self._report.error(node.key, "lab-missing", message, name)
            return None
        if not isinstance(config.value, str):
            self._report.error(config.at, "lab-value", "'config:' is the name of a file", "config")
            return None
        file = beside(self._path, config.value)
        if not is_there(file):
            here = sorted(p.name for p in file.parent.glob("*.cfg")) if is_there(file.parent, folder=True) else []
            message = f"there is no file {config.value!r} beside the lab"
            if here:
                message += f"; there are {', '.join(here[:8])}"
            self._report.error(config.at, "lab-file", message, config.value)
            return None
        wanted = self._switch(fields.get("discard-tunnel-routes"), "discard-tunnel-routes")
        flash, modern = self._flash(fields.get("flash")), self._modern(fields.get("extensions"))
        secret = self._secret(fields.get("secret"))
        access = ssh.read(fields.get("ssh"), self._ssh, self._path, self._report)
        return RouterNode(name, file, wanted, settings, node.key, config.at, flash, modern, access, secret)

    def _secret(self, value: Marked | None) -> str:
        """Read the secret of a router. No message has it."""
        if value is None:
            return ""
        fault = secret_fault(value.value) if isinstance(value.value, str) else "is a text"
        if fault:
            self._report.error(value.at, "lab-value", f"'secret:' {fault}", HIDDEN_VALUE)
            return ""
        made: str = value.value
        return made

    def _flash(self, value: Marked | None) -> Path | None:
        """Read the folder of a router's PKI stores."""
        if value is None:
            return None
        if not isinstance(value.value, str):
            self._report.error(value.at, "lab-value", "'flash:' is the name of a folder", "flash")
            return None
        folder = beside(self._path, value.value)
        if not is_there(folder, folder=True):
            message = f"there is no folder {value.value!r} beside the lab"
            self._report.error(value.at, "lab-file", message, value.value)
        return folder

    def _modern(self, value: Marked | None) -> bool:
        """Return whether `extensions` allows the algorithms of today's peers."""
        modern = False
        for name in self._list(value, "extensions"):
            if name.value in EXTENSIONS:
                modern = True
            else:
                self._report.unknown("extension", str(name.value), EXTENSIONS, name.at)
        return modern

    def _tester_ports(self, name: str, value: Marked | None, kind: str = "tester") -> dict[str, TesterPort]:
        ports: dict[str, TesterPort] = {}
        if value is None or not value.is_mapping:
            at = value.at if value is not None else YamlPosition(1, 1)
            message = f"{kind} {name!r} needs 'ports:' such as {{\"1\": {{address: 10.0.0.1/24}}}}"
            self._report.error(at, "lab-missing", message, name)
            return ports
        for port, node in value.items():
            fields = self._fields(node, "key of a tester's port", ("address", "gateway")) or {}
            if not _DEVICE.match(port):
                self._report.error(
                    node.key, "lab-value", f"{port!r} is not a port; expected a number or a word", port
                )
            elif "address" not in fields:
                message = f"port {port!r} needs an address such as 10.0.0.1/24"
                self._report.error(node.at, "lab-missing", message, port)
            else:
                address = self._interface(fields["address"])
                gateway = self._address(fields["gateway"]) if "gateway" in fields else ""
                ports[port] = TesterPort(address, gateway)
        return ports

    def _peers(
        self, name: str, node: Marked, fields: Mapping[str, Marked], settings: LabSettings
    ) -> PeersNode | None:
        if lacks_keys(name, node, fields, self._report):
            return None
        ports = self._tester_ports(name, fields.get("ports"), "node of peers")
        if len(ports) > 1:
            self._report.error(fields["ports"].at, "lab-value", f"peers {name!r} have one port", name)
        for key, known in PEERS_NESTED.items():
            if key in fields and fields[key].is_mapping:
                self._fields(fields[key], f"key of {'an ' if key[0] == 'i' else ''}{key}", known)
        values = read_values(fields, self._path, self._report)
        return None if values is None or not ports else PeersNode(name, ports, values, settings, node.key)

    def _addresses(self, value: Marked | None) -> dict[str, tuple[str, ...]]:
        addresses: dict[str, tuple[str, ...]] = {}
        for device, node in self._mapping(value, "addresses"):
            if device != "lo" and not _DEVICE.match(device):
                message = f"{device!r} is not a device; expected up to 15 letters and digits"
                self._report.error(node.key, "lab-value", message, device)
            several = node.value if node.is_list else (node,)
            addresses[device] = tuple(self._interface(one) for one in several)
        return addresses

    def _files(self, value: Marked | None) -> dict[str, str]:
        files: dict[str, str] = {}
        for name, node in self._mapping(value, "files"):
            if not isinstance(node.value, str):
                self._report.error(node.at, "lab-value", f"file {name!r} is a text", name)
            elif ".." in Path(name).parts:
                self._report.error(node.key, "lab-value", "a file's path does not climb with '..'", name)
            else:
                files[name] = node.value
        return files

    # links

    def _links(self, value: Marked | None, nodes: Mapping[str, Node]) -> tuple[Link, ...]:
        links: list[Link] = []
        used: dict[Endpoint, YamlPosition] = {}
        for node in self._list(value, "links"):
            fields = self._fields(node, "key of a link", ("endpoints", "veth", "pause")) or {}
            veth, pause = fields.get("veth"), fields.get("pause")
            if veth is not None and not isinstance(veth.value, bool):
                self._report.error(veth.at, "lab-value", "veth is true or false", "veth")
            if pause is not None and pause.value not in ("on", "off"):
                self._report.error(pause.at, "lab-value", "pause is on or off", "pause")
            ends = fields.get("endpoints")
            if ends is None or not ends.is_list or len(ends.value) != 2:
                at = ends.at if ends is not None else node.at
                message = 'a link is endpoints: ["a:3/11", "b:3/12"], two of them'
                self._report.error(at, "lab-value", message, "endpoints")
                continue
            for number in self._numbers(*ends.value):
                pair = [self._endpoint(end, number, nodes) for end in ends.value]
                if pair[0] is None or pair[1] is None:
                    continue
                link = Link(
                    (pair[0], pair[1]),
                    veth is not None and veth.value is True,
                    pause is None or pause.value != "off",
                    node.at,
                )
                for end, mark in zip(link.ends, ends.value, strict=True):
                    if end in used:
                        message = f"{end} has a link already, in line {used[end].line}"
                        self._report.error(mark.at, "lab-value", message, str(end))
                    used[end] = mark.at
                links.append(link)
        return tuple(links)

    def _numbers(self, *ends: Marked) -> range:
        """Return the numbers for which a link or flow is made: those of the counted nodes that it names."""
        counts = {
            self._counts[name]: end
            for end in ends
            if isinstance(end.value, str) and (name := end.value.partition(":")[0]) in self._counts
        }
        if len(counts) > 1:
            message = f"its ends have {' and '.join(map(str, sorted(counts)))} nodes; the counts must be equal"
            self._report.error(ends[0].at, "lab-value", message, str(ends[0].value))
        count = min(counts, default=1)
        return range(1, count + 1) if count == 1 or self._affords(ends[0], count * LINK_SIZE) else range(0)

    def _affords(self, value: Marked, size: int) -> bool:
        """Return whether `size` more values may be made from `count:`."""
        self._made += size
        if self._made > MAX_VALUES:
            message = f"what is counted makes more than {MAX_VALUES} values"
            self._report.error(value.at, "lab-value", message, "count")
            return False
        return True

    def _endpoint(self, value: Marked, number: int, nodes: Mapping[str, Node]) -> Endpoint | None:
        text = value.filled(number).value
        name, colon, port = text.partition(":") if isinstance(text, str) else ("", "", "")
        if not colon or not name or not port:
            self._report.error(
                value.at,
                "lab-value",
                f"{text!r} is not a port of a node; expected NODE:PORT such as a:3/11",
                str(text),
            )
            return None
        if name in self._counts:
            name = f"{name}-{number}"
        node = nodes.get(name)
        if node is None:
            if name not in self._broken:
                self._report.unknown("node", name, [*nodes, *self._counts], value.at)
            return None
        if isinstance(node, RouterNode) and not _PORT.match(port):
            message = f"{port!r} is not a port of a router; expected slot/port such as {name}:3/11"
            self._report.error(value.at, "lab-value", message, port)
            return None
        if isinstance(node, TesterNode | PeersNode) and port not in node.ports:
            self._report.unknown(f"port of {node.kind} {name}", port, node.ports, value.at)
            return None
        if isinstance(node, LinuxNode) and not _DEVICE.match(port):
            message = f"{port!r} is not a device; expected up to 15 letters and digits, such as eth1"
            self._report.error(value.at, "lab-value", message, port)
            return None
        return Endpoint(name, port)

    # flows

    def _flows(self, value: Marked | None, nodes: Mapping[str, Node]) -> dict[str, FlowSpec]:
        flows: dict[str, FlowSpec] = {}
        for name, node in self._mapping(value, "flows"):
            fields = self._fields(node, "key of a flow", _FLOW_KEYS)
            if fields is None:
                continue
            missing = [key for key in ("from", "to") if key not in fields]
            if missing:
                message = f"flow {name!r} needs '{missing[0]}:', a tester's port such as t1:1"
                self._report.error(node.key, "lab-missing", message, name)
                continue
            if not VALID_NAME.match(name):
                message = f"{name!r} is not a flow name; expected up to 32 letters, digits, '-' and '_'"
                self._report.error(node.key, "lab-value", message, name)
                continue
            numbers = self._numbers(fields["from"], fields["to"])
            counted = any(str(fields[k].value).partition(":")[0] in self._counts for k in ("from", "to"))
            for number in numbers:
                made = f"{name}-{number}" if counted else name
                filled = {key: child.filled(number) if counted else child for key, child in fields.items()}
                flow = self._flow(made, node.key, filled, number, nodes)
                if flow is not None:
                    flows[made] = flow
        return flows

    def _flow(
        self, name: str, at: YamlPosition, fields: Mapping[str, Marked], number: int, nodes: Mapping[str, Node]
    ) -> FlowSpec | None:
        origin = self._endpoint(fields["from"], number, nodes)
        target = self._endpoint(fields["to"], number, nodes)
        if origin is None or target is None:
            return None
        ports: list[TesterPort] = []
        for key, end in (("from", origin), ("to", target)):
            node = nodes[end.node]
            if not isinstance(node, TesterNode):
                message = f"flow {name!r} begins and ends at testers; {end.node} is a {node.kind} node"
                self._report.error(fields[key].at, "lab-value", message, end.node)
                return None
            ports.append(node.ports[end.port])
        source = self._address(fields["source"]) if "source" in fields else ports[0].address.partition("/")[0]
        destination = (
            self._address(fields["destination"]) if "destination" in fields else ports[1].address.partition("/")[0]
        )
        start: Literal["auto", "manual"] = "auto"
        if "start" in fields and fields["start"].value != "auto":
            start = "manual"
            if fields["start"].value != "manual":
                word = str(fields["start"].value)
                self._report.unknown("start of a flow", word, ("auto", "manual"), fields["start"].at)
        return FlowSpec(
            name,
            origin,
            target,
            self._positive(fields.get("rate"), "rate", 100.0),
            self._integer(fields["size"], "size", 60, 65000) if "size" in fields else 200,
            source,
            destination,
            self._integer(fields["dscp"], "dscp", 0, 63) if "dscp" in fields else 0,
            self._unit(fields["trace"], units.parse_duration, 0.0) if "trace" in fields else 0.0,
            start,
            self._integer(fields["count"], "count", 0, 2**31) if "count" in fields else 0,
            self._integer(fields["destinations"], "destinations", 1, 4096) if "destinations" in fields else 1,
            at,
        )

    # values

    def _fields(self, value: Marked, what: str, known: tuple[str, ...]) -> dict[str, Marked] | None:
        if not value.is_mapping:
            self._report.error(value.at, "lab-value", f"a mapping is expected here: {', '.join(known)}")
            return None
        for key, child in value.items():
            if key not in known:
                self._report.unknown(what, key, known, child.key)
        fields: dict[str, Marked] = value.value
        return fields

    def _mapping(self, value: Marked | None, what: str) -> Iterator[tuple[str, Marked]]:
        if value is None or value.value is None:
            return
        if value.is_mapping:
            yield from value.items()
        else:
            self._report.error(value.at, "lab-value", f"'{what}:' is a mapping", what)

    def _list(self, value: Marked | None, what: str) -> tuple[Marked, ...]:
        if value is None or value.value is None:
            return ()
        if not value.is_list:
            self._report.error(value.at, "lab-value", f"'{what}:' is a list; begin each line with '- '", what)
            return ()
        items: tuple[Marked, ...] = value.value
        return items

    def _strings(self, value: Marked | None, what: str) -> tuple[str, ...]:
        if value is not None and isinstance(value.value, str):
            return (value.value,)
        texts = []
        for item in self._list(value, what):
            if not isinstance(item.value, str):
                self._report.error(item.at, "lab-value", f"'{what}:' is a list of texts", what)
            else:
                texts.append(item.value)
        return tuple(texts)

    def _unit(self, value: Marked, read_unit: Callable[[Any], float], default: float, more: str = "") -> float:
        try:
            return read_unit(value.value)
        except ValueError as error:
            self._report.error(value.at, "lab-value", f"{error}{more}", str(value.value))
            return default

    def _integer(self, value: Marked, what: str, low: int, high: int) -> int:
        number = value.value
        if isinstance(number, str) and number.isdecimal() and len(number) < 12:
            number = int(number)
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            message = f"'{what}:' is a whole number, {low} to {high}"
            self._report.error(value.at, "lab-value", message, str(value.value))
            return low
        return number

    def _positive(self, value: Marked | None, what: str, default: float) -> float:
        if value is None:
            return default
        number = value.value
        if number == "max":
            return inf
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number <= 10_000_000:
            message = f"'{what}:' is packets per second, more than 0, or max"
            self._report.error(value.at, "lab-value", message, str(value.value))
            return default
        return float(number)

    def _interface(self, value: Marked) -> str:
        try:
            if "/" not in str(value.value):
                raise ValueError
            return str(ipaddress.IPv4Interface(value.value))
        except ValueError:
            message = f"{value.value!r} is not an address with a prefix length; expected the form 10.0.0.1/24"
            self._report.error(value.at, "lab-value", message, str(value.value))
            return "0.0.0.0/0"

    def _address(self, value: Marked) -> str:
        try:
            return str(ipaddress.IPv4Address(value.value))
        except ValueError:
            self._report.error(value.at, "lab-value", f"{value.value!r} is not an IPv4 address", str(value.value))
            return "0.0.0.0"


def _plain(value: Marked) -> Any:
    """Return a value without positions."""
    if value.is_mapping:
        return {key: _plain(child) for key, child in value.items()}
    if value.is_list:
        return [_plain(child) for child in value.value]
    return value.value
