"""Find what in a well-formed lab cannot work: links to missing ports, addresses that are not those of hosts.

Input: a lab and its routers' configurations. Output: diagnostics with positions. Errors would stop the start or
block every packet; a later commit or a command of a Linux node can repair what a warning reports.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path

from chassis.config.diagnostics import Diagnostic, Severity
from chassis.model.router import Config
from chassis.model.router import Port as ConfiguredPort
from chassis.xcrp import inventory
from launch.lab.model import Endpoint, Lab, Link, LinuxNode, PeersNode, RouterNode, TesterNode, TesterPort
from launch.lab.yaml_source import LabError, Marked, Reporter, YamlPosition, read

RESERVED_DEVICES = {
    "lo": "is the node's own loopback and cannot have a link",
    "all": "is not a device name: Linux uses it for settings of all devices",
    "default": "is not a device name: Linux uses it for settings of new devices",
}


def faults(lab: Lab, configs: Mapping[Path, Config]) -> Iterator[Diagnostic]:
    """Yield all diagnostics; `configs` has the configurations of the lab's routers by file."""
    return _Faults(lab, configs).found()


class _Places:
    """Positions of a lab's values in its file, which is read again for the first diagnostic."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    @cached_property
    def _root(self) -> Marked:
        try:
            return read(self._lab.file, Reporter(str(self._lab.file)))
        except LabError:
            return Marked({}, YamlPosition(1, 1))

    def of(self, *path: str, key: bool = False) -> YamlPosition:
        """Return the position of a value or its key; of its parent if the file does not have it (a changed
        lab)."""
        here = self._root
        for word in path:
            if not here.is_mapping:
                break
            found = here.value.get(word)
            if found is None:
                # One of the nodes or flows that `count:` made.
                found = here.value.get(word.rpartition("-")[0])
            if found is None:
                break
            here = found
        return here.key if key and here.key.line else here.at

    def of_end(self, link: Link, number: int) -> YamlPosition:
        """Return the position of one end of a link."""
        links = self._root.value.get("topology", self._root).value.get("links")
        for item in links.value if links is not None and links.is_list else ():
            ends = item.value.get("endpoints") if item.is_mapping and item.at == link.at else None
            if ends is not None and ends.is_list:
                end: Marked = ends.value[number]
                return end.at
        return link.at


class _Faults:
    def __init__(self, lab: Lab, configs: Mapping[Path, Config]) -> None:
        self._lab = lab
        self._configs = configs
        self._places = _Places(lab)
        self._linked = {end for link in lab.links for end in link.ends}

    def found(self) -> Iterator[Diagnostic]:
        for link in self._lab.links:
            for number, end in enumerate(link.ends):
                yield from self._end(link, number, end)
        for linux in self._lab.linux():
            yield from self._devices(linux)
        ended: list[TesterNode | PeersNode] = [*self._lab.testers(), *self._lab.peers()]
        for tester in ended:
            for name, port in tester.ports.items():
                yield from self._tester_port(tester, name, port)
        for flow in self._lab.flows.values():
            for word, end in (("from", flow.origin), ("to", flow.target)):
                if end not in self._linked:
                    place = self._places.of("flows", flow.name, word)
                    yield self._say("warning", "lab-flow", end, place, f"port {end} of this flow has no link")

    def _say(
        self, severity: Severity, code: str, name: object, at: YamlPosition, message: str, hint: str = ""
    ) -> Diagnostic:
        return Diagnostic(severity, code, str(name), str(self._lab.file), at.line, at.column, message, hint)

    # links

    def _end(self, link: Link, number: int, end: Endpoint) -> Iterator[Diagnostic]:
        node = self._lab.nodes[end.node]
        if isinstance(node, RouterNode):
            why = self._missing(node, end.port)
            if why:
                message = f"port {end.port} of {end.node} {why}: this link stays down"
                yield self._say("warning", "lab-link", end, self._places.of_end(link, number), message)
        elif isinstance(node, LinuxNode) and end.port in RESERVED_DEVICES:
            message = f"{end.port} {RESERVED_DEVICES[end.port]}; a device is called eth1 or the like"
            yield self._say("error", "lab-link", end, self._places.of_end(link, number), message)

    def _missing(self, router: RouterNode, port: str) -> str:
        """Return why a port of a router never comes up; empty if it can."""
        config = self._configs[router.config]
        held = inventory.card_of_port(config, port)
        if not held.startswith("lc "):
            return "is the controller's own" if held else "is in a slot without a port card"
        slot, _, number = port.partition("/")
        card = config.cards[int(slot)]
        if int(number) > card.ports:
            return f"is not one of the {card.ports} ports of card {card.type}"
        if port not in config.ports:
            return f"is not configured in {router.config.name}"
        return ""

    # Linux nodes

    def _devices(self, node: LinuxNode) -> Iterator[Diagnostic]:
        linked = sorted(end.port for end in self._linked if end.node == node.name)
        for device in node.addresses:
            if device != "lo" and device not in linked:
                place = self._places.of("topology", "nodes", node.name, "addresses", device, key=True)
                message = f"device {device} of {node.name} does not exist, because it has no link"
                if linked:
                    message += f"; linked devices: {', '.join(linked)}"
                yield self._say("error", "lab-address", device, place, message)

    # testers

    def _tester_port(self, tester: TesterNode | PeersNode, name: str, port: TesterPort) -> Iterator[Diagnostic]:
        path = ("topology", "nodes", tester.name, "ports", name)
        own = ipaddress.IPv4Interface(port.address)
        why = _no_host(own.ip, own)
        if why:
            place = self._places.of(*path, "address")
            yield self._say("error", "lab-address", port.address, place, f"{port.address} {why}")
            return
        if not port.gateway:
            return
        gateway = IPv4Address(port.gateway)
        why, hint = _no_host(gateway, own), ""
        if gateway == own.ip:
            why = "is the port's own address"
        elif gateway not in own.network:
            why = f"is not in the network of the port, {own.network}"
        elif not why:
            why, hint = self._nobody(Endpoint(tester.name, name), gateway)
        if why:
            place = self._places.of(*path, "gateway")
            yield self._say("warning", "lab-gateway", gateway, place, f"gateway {gateway} {why}", hint)

    def _nobody(self, end: Endpoint, gateway: IPv4Address) -> tuple[str, str]:
        """Return why the far end of a tester's link does not have the gateway's address, and the far end's
        address."""
        far = self._lab.far_end(end)
        node = self._lab.nodes[far.node] if far is not None else None
        if far is None:
            return "is not assigned: this port has no link", ""
        if not isinstance(node, RouterNode) or self._missing(node, far.port):
            # Commands of a Linux node may add addresses; a missing port has its own diagnostic.
            return "", ""
        config = self._configs[node.config]
        has = _addresses(config, config.ports[far.port])
        if str(gateway) in has:
            return "", ""
        there = f"port {far.port} of {far.node} has {' and '.join(has) or 'no address'}"
        return f"is not assigned: {there}", has[0] if has else ""


def _no_host(address: IPv4Address, own: ipaddress.IPv4Interface) -> str:
    """Return why an address cannot be a host's on a network; empty if it can."""
    if address.is_multicast or address.is_loopback or address.is_reserved or int(address) >> 24 == 0:
        return "is not a host address"
    if own.network.prefixlen < 31:
        if address == own.network.network_address:
            return f"is the address of the network {own.network} itself"
        if address == own.network.broadcast_address:
            return f"is the broadcast address of the network {own.network}"
    return ""


def _addresses(config: Config, port: ConfiguredPort) -> tuple[str, ...]:
    """Return the addresses for which a router answers at a port."""
    context = config.contexts.get(port.context or "")
    interface = context.interfaces.get(port.interface or "") if context is not None else None
    if context is not None and interface is not None and interface.unnumbered is not None:
        interface = context.interfaces.get(interface.unnumbered)
    return tuple(address for address, _ in interface.addresses) if interface is not None else ()
