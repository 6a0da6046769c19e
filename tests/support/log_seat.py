"""The seat of an operator who watches the log of a simulated router: commands, the console, a syslog server behind
a line card, and the file of the log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from chassis.ase.ike.log import FACILITY as IKE
from chassis.ase.ike_messages import IkeLog
from chassis.bus.engine import ToController
from chassis.bus.messages import LogRecord, Value
from chassis.cli.log_monitor import INTERVAL
from chassis.xcrp.log_file import FLUSH_DELAY, LOG_FILE
from tests.support.cli import CliRig
from tests.support.ike.pair import CONTEXT as CONTEXT_NUMBER
from tests.support.log_rows import CONTEXT, MANUAL, TUNNEL
from tests.support.sim_shell import SimShell

ASP = "asp 1/1"
SERVER = "10.9.0.9"

CONFIG = f"""\
system hostname edge
card ase 1
card ether-12-port 3
asp pool P service security
  asp 1/1
asp group G
  pool P
ike proposal ike
ipsec proposal child
ipsec policy ipsec
  seq 1 proposal child
context local
  logging console
  logging syslog {SERVER} facility local3
  interface lan
    ip address 10.9.0.1/24
context {CONTEXT}
  logging console
  interface wan
    ip address 10.0.0.2/30
  asp-group G service security
  ike policy policy5
    connection-type responder-only
    pre-shared-key 1234567890123456
    seq 1 proposal ike
context inner
  logging console
  interface tunnel ipsec
    ip address 90.0.0.1/30
  interface manual ipsec
    ip address 91.0.0.1/30
tunnel ipsec {TUNNEL}
  peer-end-point local 10.0.0.2 remote 10.0.0.1 context {CONTEXT}
  bind interface tunnel inner
  ike-policy policy5
  seq 10 ipsec-policy ipsec
ipsec security-association sa1
  both
    esp spi 1000
    esp encryption aes-128-cbc key 0x00112233445566778899aabbccddeeff
    esp authentication hmac-sha1-96 key 0x00112233445566778899aabbccddeeff00112233
tunnel ipsec {MANUAL} manual
  peer-end-point local 10.0.0.2 remote 10.0.0.1 context {CONTEXT}
  bind interface manual inner
  seq 10 security-association sa1
port ethernet 3/1
  no shutdown
  bind interface lan local
port ethernet 3/2
  no shutdown
  bind interface wan {CONTEXT}
"""

LAB = f"""\
name: seat
topology:
  nodes:
    a: {{kind: smartedge, config: a.cfg}}
    log: {{kind: tester, ports: {{"1": {{address: {SERVER}/24, gateway: 10.9.0.1}}}}}}
    peer: {{kind: tester, ports: {{"1": {{address: 10.0.0.1/30, gateway: 10.0.0.2}}}}}}
  links:
    - endpoints: ["log:1", "a:3/1"]
    - endpoints: ["peer:1", "a:3/2"]
"""

WITH_CODEC = 8
"""Seed of a run in which every message on the bus is encoded and decoded."""


@dataclass
class Seen:
    """What came of some records at each place."""

    explained: list[str]
    """Lines of `show log explain`: those of the records, under each what is recommended, if anything is."""
    shown: list[str]
    """Lines of `show log`."""
    console: list[str]
    datagrams: list[str]
    """What came to the syslog server."""
    file: list[list[Any]]
    """The lines of JSON."""


class LogSeat:
    """A router whose ASP logs what it is given."""

    def __init__(self, folder: Path) -> None:
        (folder / "lab.yaml").write_text(LAB)
        (folder / "a.cfg").write_text(CONFIG)
        self.shell = SimShell(folder / "lab.yaml", WITH_CODEC)
        self._datagrams: list[str] = []
        server = self.shell.testers["log"].engine
        server.receive_frames = partial(self._at_server, server.receive_frames)
        self.shell.pass_time(2.0)
        self._console = CliRig(partial(self.shell.ask, "a"))
        self._console.start()
        self._console.sleeps = True
        self._console._do(self._console.session.watch_console(self._console.now))
        self._console.timer()

    def _at_server(self, receive: Any, port: str, batch: Any, now: float) -> Any:
        for frame in batch.packets():
            packet = Ether(bytes(frame))
            if UDP in packet and packet[UDP].dport == 514:
                assert (packet[IP].src, packet[IP].dst, packet[UDP].sport) == ("10.9.0.1", SERVER, 514)
                self._datagrams.append(bytes(packet[UDP].payload).decode())
        return receive(port, batch, now)

    def _known_here(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The values of a record with this router's number of the context, where they have a number."""
        if values.get("context") != CONTEXT_NUMBER:
            return dict(values)
        controller = self.shell.routers["a"].controller
        assert controller is not None
        return {**values, "context": controller.engine.node.plan.contexts[CONTEXT]}

    def log(self, records: list[LogRecord]) -> Seen:
        """Have the ASP log these records now: those of IKE by way of its IKE process."""
        router = self.shell.routers["a"]
        asp = router.cards[ASP]
        assert asp.ike_process is not None
        self._datagrams.clear()
        before = len(router.disk.files.get(LOG_FILE, b""))
        for record in records:
            now = replace(record, time=self.shell.run.world.now, values=self._known_here(record.values))
            if record.facility == IKE:
                asp.ike_process.perform([IkeLog(now)])
            else:
                asp.perform([ToController(now)])
        self.shell.pass_time(2 * FLUSH_DELAY)
        last = f"last {len(records)}"
        self._console.now += INTERVAL
        return Seen(
            explained=self.shell.show("a", f"show log {last} explain").splitlines(),
            shown=self.shell.show("a", f"show log {last}").splitlines(),
            console=self._console.timer().split("\r\n")[:-1],
            datagrams=list(self._datagrams),
            file=[json.loads(line) for line in router.disk.files[LOG_FILE][before:].splitlines()],
        )
