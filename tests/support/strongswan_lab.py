"""A lab of a whole router and strongSwan on a Linux node, with hosts behind both."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.support.charon import PROGRAM

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient


US, PEER = "40.0.0.1", "40.0.0.2"
PSK = "a-key-of-the-lab"


VICI = "/run/charon.vici"


RULE = "seq 10 10.1.0.0/16 10.2.0.0/16"


RULES = {
    1: (("10.1.0.0/16", "10.2.0.0/17"), ("10.1.0.0/16", "10.2.128.0/17")),
    2: (("10.1.0.0/16", "10.2.0.0/16"),),
}
"""The router's access list by version: with version 1 each rule is a CHILD SA of the peer."""


HOSTS = ("10.2.0.1", "10.2.128.1")
"""Addresses of the peer; each is in a rule of its own where there are two."""


SIZES = (28, 100, 576, 1399, 1400)
"""Bytes of the pings with DF."""


ROUTER = """\
asp pool P service security
  asp 2/1
asp group G
  pool P
  asp-count 1

context inner
  interface TI
    ip address 10.9.0.1/30
  interface lan
    ip address 10.1.0.1/16
  ipsec access-list acl
    {rules}
  ip route 10.2.0.0/16 TI

context outer
  interface wan
    ip address {us}/24
  asp-group G service security
  ike keepalive
  {ike} policy pol
    connection-type both
    pre-shared-key {psk}
    seq 1 proposal ike-p

{ike} proposal ike-p
  authentication algorithm hmac-sha1-96
  encryption algorithm aes-128-cbc
  dh-group 2

ipsec proposal ipsec-p
  esp encryption aes-128-cbc
  esp authentication hmac-sha1-96
  lifetime seconds 86400
ipsec policy ipsec-pol
  seq 1 proposal ipsec-p

tunnel ipsec T
  peer-end-point local {us} remote {peer} context outer
  bind interface TI inner
  remote-id {peer}
  ike-policy pol
  seq 10 ipsec-policy ipsec-pol access-group acl

card ase 2
card ether-12-port 3
port ethernet 3/1
  no shutdown
  bind interface lan inner
port ethernet 3/11
  no shutdown
  bind interface wan outer
"""


LAB = """\
name: strongswan
settings: {{restart-delay: 200ms, dpd-interval: 300ms, dpd-retries: 3, ike-retry-delay: 200ms}}
topology:
  nodes:
    a: {{kind: smartedge, config: a.cfg}}
    t1: {{kind: tester, ports: {{"1": {{address: 10.1.0.9/16, gateway: 10.1.0.1}}}}}}
    t2: {{kind: tester, ports: {{"1": {{address: 10.2.0.9/16, gateway: 10.2.0.1}}}}}}
    peer:
      kind: linux
      addresses: {{eth1: {peer}/24, eth2: 10.2.0.1/16}}
      files:
        strongswan.conf: {strongswan}
        swanctl.conf: {swanctl}
        start: {start}
        load: {load}
      exec: [echo 1 > /proc/sys/net/ipv4/ip_forward, ip address add 10.2.128.1/32 dev eth2, ./start]
      wait-for: ./load
  links:
    - endpoints: ["t1:1", "a:3/1"]
    - endpoints: ["a:3/11", "peer:eth1"]
    - endpoints: ["t2:1", "peer:eth2"]
flows:
  forward: {{from: "t1:1", to: "t2:1", rate: 200, size: 1400, start: manual}}
  reverse: {{from: "t2:1", to: "t1:1", rate: 200, size: 60, start: manual}}
"""


START = f"#!/bin/sh\nSTRONGSWAN_CONF=$PWD/strongswan.conf {PROGRAM} >> charon.out 2>&1 & echo $! > pid\n"


LOAD = (
    "#!/bin/sh\nSTRONGSWAN_CONF=$PWD/strongswan.conf SWANCTL_DIR=$PWD "
    f"swanctl --load-all --file $PWD/swanctl.conf --uri unix://{VICI}\n"
)


class Swan:
    """The lab and the daemon in its Linux node."""

    def __init__(self, lab: LabClient) -> None:
        self.lab = lab

    def run(self, command: str) -> str:
        """A shell command in the peer's namespace; AssertionError with its output when it fails."""
        answer = self.lab.ask("", "exec", {"node": "peer", "command": command})
        assert answer["code"] == 0, f"{command}: {answer['output']}\n{self.log()}"
        return str(answer["output"])

    def swanctl(self, words: str) -> str:
        return self.run(f"STRONGSWAN_CONF=$PWD/strongswan.conf swanctl {words} --uri unix://{VICI}")

    def log(self) -> str:
        answer = self.lab.ask("", "exec", {"node": "peer", "command": "tail -n 30 /run/charon.log"})
        return str(answer["output"])

    def spis(self, child: str = "") -> set[str]:
        """SPIs by which the peer receives; of one CHILD SA only where it is named."""
        wanted = f"  {child}: #" if child else ""
        found = re.findall(r"(  \S+: #)[^#]*?\bin +([0-9a-f]{8})", self.swanctl("--list-sas"))
        return {spi for name, spi in found if wanted in name}

    def traffic(self) -> None:
        """Both flows arrive, nothing leaks, and pings with DF of all sizes pass."""
        self.lab.wait_until("tunnels up")
        seen = {flow: self.lab.report(flow).get("received", 0) for flow in ("forward", "reverse")}
        for flow, before in seen.items():
            self.lab.wait_until(f"flow {flow} received >= {before + 20}")
        for size in SIZES:
            self.ping(HOSTS[0], size)
        self.ping(HOSTS[1], SIZES[-1])

    def ping(self, source: str, size: int) -> None:
        self.run(f"ping -c 2 -i 0.05 -W 2 -M do -s {size - 28} -I {source} 10.1.0.9")

    def anew(self, step: Callable[[], object]) -> None:
        """Do something after which the peer has another pair, and packets pass."""
        before = self.spis()
        step()
        self.lab.wait_until(lambda: self.spis() - before)
        self.traffic()
