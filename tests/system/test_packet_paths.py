"""A packet's way through each kind of tunnel: stamps of all processes, fabric captures, counters of circuits."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from chassis.bus.capture import read
from launch.client.lab_client import LabClient
from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

LAB = "configs/manual-keys/lab.yaml"
FAST = {
    name: {"trace": "50ms", "start": "manual", "rate": 200}
    for name in ("circuit-forward", "circuit-reverse", "economical-forward", "economical-reverse")
}


@pytest.fixture(scope="module")
def lab(shared_lab_factory: LabFactory) -> LabClient:
    lab = shared_lab_factory(LAB, flows=FAST)
    lab.wait_until("tunnels up")
    return lab


def sent(lab: LabClient, count: int, *flows: str) -> None:
    """So many packets of each flow, and all of them received."""
    before = {flow: lab.report(flow)["received"] for flow in flows}
    for flow in flows:
        lab.start(flow, count=count)
    for flow in flows:
        lab.wait_until(f"flow {flow} received >= {before[flow] + count}")


def way(lab: LabClient, flow: str) -> list[str]:
    """The path of a flow with the numbers of circuits left out."""
    lab.start(flow)
    lab.wait_until(lambda: len([path for path in lab.paths(flow) if path.arrived]) >= 3)
    lab.stop(flow)
    lab.drain(flow)
    ways = {path.steps for path in lab.paths(flow) if path.arrived}
    assert len(ways) == 1
    return [re.sub(r"circuit \d+", "circuit N", step) for step in ways.pop()]


@pytest.mark.parametrize(("tester", "peer", "near", "far"), [
    ("t1", "t2", ("a", "3/1", "3/11"), ("b", "3/12", "3/1")),
    ("t2", "t1", ("b", "3/1", "3/12"), ("a", "3/11", "3/1")),
])  # fmt: skip
@pytest.mark.parametrize(("tunnel", "circuit"), [
    pytest.param("circuit", ["3 circuit N"], marks=pytest.mark.behaviour("B-010")),
    pytest.param("economical", [], marks=pytest.mark.behaviour("B-011")),
])  # fmt: skip
def test_a_circuit_based_tunnel_goes_by_its_circuit_and_an_economical_one_by_none(
    lab: LabClient,
    tunnel: str,
    circuit: list[str],
    tester: str,
    peer: str,
    near: tuple[str, ...],
    far: tuple[str, ...],
) -> None:
    asps = {node: lab.node(node).tunnel(tunnel)["asp"].removeprefix("asp ") for node in ("a", "b")}
    steps = [f"{tester}:1 out"]
    for (node, entry, exit_), turn in ((near, "encapsulate"), (far, "decapsulate")):
        passed = (f"{entry} in", f"{asps[node]} {turn}", *circuit, f"{exit_} out")
        steps += [f"{node} {step}" for step in passed]
    assert way(lab, f"{tunnel}-{'forward' if tester == 't1' else 'reverse'}") == [*steps, f"{peer}:1 in"]


def test_captures_of_the_fabric_and_the_wire_confirm_both_ways(lab: LabClient) -> None:
    assert lab.folder is not None
    fabric = lab.capture("a", "fabric lc 3", lab.folder / "fabric.pcapng")
    wire = lab.capture("a", "port 3/11", lab.folder / "wire.pcapng")
    sent(lab, 20, "circuit-forward", "economical-forward")
    lab.capture_stop("a", "fabric lc 3", fabric)
    lab.capture_stop("a", "port 3/11", wire)
    rows = {name: lab.node("a").tunnel(name) for name in ("circuit", "economical")}
    seen: dict[str, int] = {}
    for name, _, _ in read(fabric.read_bytes()):
        seen[name] = seen.get(name, 0) + 1
    for name, row in rows.items():
        assert seen.pop(f"a lc 3 to {row['asp']} encapsulate") == 20, (name, seen)
        step = "circuit_out" if name == "circuit" else "egress"
        assert seen.pop(f"a lc 3 from {row['asp']} {step}") == 20, (name, seen)
    assert seen == {}
    spis = [packet[34:38].hex() for name, _, packet in read(wire.read_bytes()) if packet[23] == 50]
    assert {spi: spis.count(spi) for spi in spis} == {f"{4097:08x}": 20, f"{8193:08x}": 20}
    clear = [packet for _, _, packet in read(wire.read_bytes()) if b"CHASSIS" in packet]
    assert clear == []


@pytest.mark.behaviour("B-012", "B-013")
def test_only_a_circuit_based_tunnel_has_a_circuit_and_its_counters(lab: LabClient) -> None:
    sent(lab, 50, "circuit-forward", "economical-forward")
    for node in ("a", "b"):
        status = lab.node(node).status()
        tunnels = {row["name"]: row for row in status["tunnels"]}
        circuits = [row for row in status["circuits"] if row["kind"] == "tunnel"]
        assert [row["tunnel"] for row in circuits] == [tunnels["circuit"]["number"]]
        assert (tunnels["economical"]["circuit"], tunnels["economical"]["home"]) == (0, "")
        counted = {name: n for name, n in lab.counters(node, "lc 3").items() if "circuit" in name}
        number = str(circuits[0]["circuit"])
        way = "out" if node == "a" else "in"
        assert any(number in name.split() and way in name and n >= 50 for name, n in counted.items()), counted
        assert all(number in name.split() for name, n in counted.items() if n), counted


def security_associations(text: str) -> Iterator[tuple[int, str, str, str]]:
    """(SPI, direction, cipher key, integrity key) of each manual ESP SA in a configuration."""
    pattern = re.compile(
        r"^  (in|out)\n\s+esp encryption aes-\d+-cbc key (0x\w+)\n"
        r"\s+esp authentication hmac-sha1-96 key (0x\w+)\n\s+esp spi (\d+)",
        re.MULTILINE,
    )
    for way, cipher, integrity, spi in pattern.findall(text):
        yield int(spi), way, cipher, integrity


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_another_program_decrypts_what_is_on_the_wire(lab: LabClient) -> None:
    assert lab.folder is not None
    wire = lab.capture("a", "port 3/11", lab.folder / "wire.pcapng")
    flows = {
        "circuit-forward": 4097, "circuit-reverse": 4098, "economical-forward": 8193, "economical-reverse": 8194,
    }  # fmt: skip
    sent(lab, 10, *flows)
    lab.capture_stop("a", "port 3/11", wire)
    text = lab.file.routers()[0].config.read_text()
    options = ["-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"]
    found = list(security_associations(text))
    assert {spi for spi, *_ in found} == set(flows.values())
    for spi, _, cipher, integrity in found:
        row = ("IPv4", "*", "*", f"0x{spi:08x}", "AES-CBC [RFC3602]", cipher)
        row = (*row, "HMAC-SHA-1-96 [RFC2404]", integrity, "32-bit")
        options += ["-o", "uat:esp_sa:" + ",".join(f'"{value}"' for value in row)]
    fields = ("esp.spi", "esp.sequence", "esp.icv_good", "ip.src", "ip.dst", "udp.dstport", "data.data")
    command = ["tshark", "-r", str(wire), *options, "-Y", "esp", "-T", "fields"]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen: dict[int, list[int]] = {}
    for line in done.stdout.splitlines():
        spi, sequence, good, sources, destinations, port, payload = line.split("\t")
        flow = lab.flow(next(name for name, value in flows.items() if value == int(spi, 16)))
        assert (sources.split(",")[-1], destinations.split(",")[-1]) == (flow.source, flow.destination)
        assert good in ("1", "True")
        assert port == "40000"
        assert payload.startswith(b"CHASSIS\x01".hex())
        seen.setdefault(int(spi, 16), []).append(int(sequence))
    assert seen.keys() == set(flows.values())
    for numbers in seen.values():
        assert numbers == list(range(numbers[0], numbers[0] + 10))
