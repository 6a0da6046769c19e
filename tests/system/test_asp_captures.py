"""Captures at either side of an ASP of a running router, into files and live into another program."""

from __future__ import annotations

import os
import select
import shutil
import signal
import stat
import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from chassis.bus.capture import read
from launch.client.lab_client import LabClient
from launch.pytest_plugin import LabFactory
from tests.support.chassisctl import BACKGROUND, chassisctl, ending

pytestmark = pytest.mark.multiprocess

LAB = "configs/manual-keys/lab.yaml"
FLOWS = {
    name: {"start": "manual", "rate": 200}
    for name in ("circuit-forward", "circuit-reverse", "economical-forward", "economical-reverse")
}
DEADLINE = 60.0
MARK = b"CHASSIS\x01"
"""How the payload of a flow's packets begins."""


@pytest.fixture(scope="module")
def lab(shared_lab_factory: LabFactory) -> LabClient:
    lab = shared_lab_factory(LAB, flows=FLOWS)
    lab.wait_until("tunnels up")
    return lab


def run(lab: LabClient, tunnel: str, count: int) -> None:
    """So many packets each way by a tunnel."""
    flows = [f"{tunnel}-{way}" for way in ("forward", "reverse")]
    before = {flow: lab.report(flow)["received"] for flow in flows}
    for flow in flows:
        lab.start(flow, count=count)
    for flow in flows:
        lab.wait_until(f"flow {flow} received >= {before[flow] + count}")


@pytest.mark.parametrize("tunnel", ["circuit", "economical"])
def test_inner_packets_on_the_inner_side_esp_on_the_outer(lab: LabClient, tunnel: str) -> None:
    assert lab.folder is not None
    asp = lab.node("a").tunnel(tunnel)["asp"]
    files = {side: lab.folder / f"{tunnel}-{side}.pcapng" for side in ("inner", "outer")}
    for side, file in files.items():
        lab.capture("a", f"{asp} {side}", file, snaplen=0 if side == "inner" else 60)
    run(lab, tunnel, 20)
    for side, file in files.items():
        lab.capture_stop("a", f"{asp} {side}", file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    run(lab, tunnel, 5)
    inner = list(read(files["inner"].read_bytes()))
    outer = list(read(files["outer"].read_bytes()))
    assert [name for name, *_ in inner].count(f"a {asp} inner encapsulate {tunnel}") == 20
    assert [name for name, *_ in inner].count(f"a {asp} inner decapsulate {tunnel}") == 20
    assert [name for name, *_ in outer].count(f"a {asp} outer encapsulate {tunnel}") == 20
    assert [name for name, *_ in outer].count(f"a {asp} outer decapsulate") == 20
    assert len(inner) == len(outer) == 40
    assert {(packet[9], len(packet)) for _, _, packet in inner} == {(17, 400)}
    assert all(MARK in packet for _, _, packet in inner)
    assert {(packet[9], len(packet)) for _, _, packet in outer} == {(50, 60)}
    assert not any(MARK in packet for _, _, packet in outer)
    if shutil.which("tshark") is None:
        return
    for side, layers in (("inner", "ip:udp:data"), ("outer", "ip:esp")):
        command = ["tshark", "-r", str(files[side]), "-T", "fields", "-e", "frame.protocols", "-e", "frame.len"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = {tuple(line.split("\t")) for line in done.stdout.splitlines()}
        assert {protocols.removeprefix("raw:") for protocols, _ in found} == {layers}
        # What was cut says how long it was.
        assert all(int(size) >= 400 for _, size in found)


def capturing(lab: LabClient, *words: str, **options: Any) -> AbstractContextManager[subprocess.Popen[Any]]:
    """`chassisctl capture` as a script starts it with `&`."""
    assert lab.run is not None
    return ending(chassisctl(lab, "--lab", lab.run.name, "capture", "a", *words, prefix=BACKGROUND, **options))


def test_a_live_capture_is_read_while_it_grows_and_ends_with_its_reader(lab: LabClient) -> None:
    asp = lab.node("a").tunnel("circuit")["asp"]
    assert lab.folder is not None
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with capturing(lab, *asp.split(), "inner", "-", **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        got = until(process.stdout.fileno(), b"", 0)
        run(lab, "circuit", 10)
        got = until(process.stdout.fileno(), got, 20)
        assert process.poll() is None
        process.stdout.close()
        # Without a packet more: it is the reader that it watches.
        assert process.wait(DEADLINE) == 0, process.stderr.read()
    assert {name for name, *_ in read(got)} == {
        f"a {asp} inner {way} circuit" for way in ("encapsulate", "decapsulate")
    }
    assert lab.ask("a", "capture-stop", {"what": f"{asp} inner"})["stopped"] is False
    run(lab, "circuit", 5)


def until(source: int, got: bytes, packets: int) -> bytes:
    """What a live capture has given once there are so many packets in it, or at least its header."""
    end = time.monotonic() + DEADLINE
    while len(got) < 28 or len(list(read(got))) < packets:
        assert select.select([source], [], [], max(end - time.monotonic(), 0))[0], f"{len(got)} bytes came"
        data = os.read(source, 1 << 16)
        assert data, "the capture ended"
        got += data
    return got


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_tshark_reads_a_live_capture(lab: LabClient, tmp_path: Path) -> None:
    asp = lab.node("a").tunnel("economical")["asp"]
    shown = tmp_path / "shown"
    with capturing(lab, *asp.split(), "outer", "-", stdout=subprocess.PIPE) as capture:
        # -l: each packet is printed as soon as it is there.
        reader = ["tshark", "-l", "-i", "-", "-T", "fields", "-e", "esp.spi"]
        with (
            shown.open("w") as file,
            ending(subprocess.Popen(reader, stdin=capture.stdout, stdout=file)) as tshark,
        ):
            lab.wait_until(lambda: begun(lab, asp))
            run(lab, "economical", 10)
            lab.wait_until(lambda: len(shown.read_text().split()) >= 20)
            capture.send_signal(signal.SIGINT)
            assert capture.wait(DEADLINE) == 0
            assert tshark.wait(DEADLINE) == 0
    spis = shown.read_text().split()
    assert {int(spi, 16): spis.count(spi) for spi in spis} == {8193: 10, 8194: 10}


def begun(lab: LabClient, asp: str) -> bool:
    """Whether the ASP's process has a pipe open to write to."""
    pid = next(row["pid"] for row in lab.node("a").status()["cards"] if row["card"] == asp)
    return any("/capture" in os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink())


def test_a_capture_goes_on_with_the_next_start_of_its_card(lab_factory: LabFactory) -> None:
    lab = lab_factory(LAB, flows=FLOWS)
    lab.wait_until("tunnels up")
    assert lab.folder is not None
    file, live = lab.folder / "wire.pcapng", lab.folder / "live.pcapng"
    pipes = {"stderr": subprocess.PIPE, "text": True}

    def esp() -> int:
        return sum(packet[23] == 50 for _, _, packet in read(file.read_bytes()) if len(packet) > 100)

    with (
        live.open("w") as packets,
        capturing(lab, "port", "3/11", str(file), **pipes) as process,
        capturing(lab, "port", "3/1", "-", stdout=packets, **pipes) as other,
    ):
        assert process.stderr is not None
        assert other.stderr is not None
        assert process.stderr.readline().startswith("capturing a port 3/11 into")
        assert other.stderr.readline().startswith("capturing a port 3/1;")
        run(lab, "circuit", 10)
        assert esp() == 20
        boot = lab.node("a").card("lc 3")["boot"]
        lab.kill("a", "lc 3")
        assert other.wait(DEADLINE) == 1
        assert "Error: " in other.stderr.read()
        lab.wait_until(lambda: lab.node("a").card("lc 3")["boot"] > boot)
        lab.wait_until("tunnels up")
        run(lab, "circuit", 20)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
        assert "the card of port 3/11 died 1 times: its next start went on with the file" in process.stderr.read()
    # Flows begin anew: ten more each way.
    assert esp() >= 30
    assert f"lc 3: boot {boot + 1} goes on with the capture into {file}" in [
        event["text"] for event in lab.ask("a", "events", {})["events"]
    ]
