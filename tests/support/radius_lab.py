"""FreeRADIUS in a Linux node of a lab, asked by the hub of `tests.support.remote_peers` about its remote peers.

One process answers at three addresses: two servers of the context in which peers arrive, that of context local.
Each has users of its own, so that an answer tells which one gave it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.support.freeradius import PROGRAM
from tests.support.remote_peers import ASSIGNED, ROUTER, on_demand_tunnel

if TYPE_CHECKING:
    from tests.support.remote_peers import RemotePeer

FIRST, SECOND, GLOBAL = "10.99.0.2", "10.99.0.3", "10.98.0.2"
"""Addresses of the servers."""
SECRET = "s3cret-of-both"
POOL = "10.50.1.0/24"
SPECIAL = "special"
"""The profile that RADIUS names for one peer."""

USERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    FIRST: {
        "one": ('Security-Service = "ike pre-shared-key key-one"', "Framed-IP-Address = 10.50.0.7"),
        "two": (
            'Security-Service = "ike pre-shared-key hex 6b65792d74776f;ipsec profile special"',
            'Framed-Pool = "clients"',
        ),
        "lost": ('Security-Service = "ike pre-shared-key key-lost;ipsec profile nowhere"',),
        "keyless": ("Framed-IP-Address = 10.50.0.8",),
    },
    SECOND: {"spare": ('Security-Service = "ike pre-shared-key of-second"', "Framed-IP-Address = 10.50.0.20")},
    GLOBAL: {"spare": ('Security-Service = "ike pre-shared-key of-local"', "Framed-IP-Address = 10.50.0.30")},
}
"""What each server says of the peers that it knows, by the first label of their names."""

CLOSED = "closed"
"""A peer that the first server rejects, with a reason."""

_HEAD = f"""\
prefix = /usr
raddbdir = @DIR@
logdir = @DIR@
run_dir = @DIR@
libdir = /usr/lib/freeradius
pidfile = @DIR@/pid
max_request_time = 5
security {{
  max_attributes = 200
  status_server = yes
}}
client hub {{
  ipaddr = 10.0.0.0/8
  secret = {SECRET}
  require_message_authenticator = yes
}}
modules {{
  pap {{
  }}
  detail {{
    filename = @DIR@/detail
  }}
"""

_SERVER = """\
server {name} {{
  listen {{
    type = auth
    ipaddr = {address}
    port = 1812
  }}
  listen {{
    type = acct
    ipaddr = {address}
    port = 1813
  }}
  authorize {{
    {name}
    pap
  }}
  authenticate {{
    Auth-Type PAP {{
      pap
    }}
  }}
  accounting {{
    detail
  }}
}}
"""

_START = f"""\
#!/bin/sh
sed -i "s|@DIR@|$PWD|" radiusd.conf
{PROGRAM} -f -l stdout -d $PWD -n radiusd > radius.log 2>&1 & echo $! > radius.pid
nft add table ip away
nft add chain ip away in '{{ type filter hook input priority 0 ; }}'
"""


def _users(users: Mapping[str, tuple[str, ...]]) -> str:
    text = ""
    for name, replies in users.items():
        said = ",\n    ".join((*replies, "Message-Authenticator = 0x00"))
        text += f'{name}.dial.example Cleartext-Password := "Redback"\n    {said}\n\n'
    said = 'Reply-Message = "account closed",\n    Message-Authenticator = 0x00'
    text += f"{CLOSED}.dial.example Auth-Type := Reject\n    {said}\n\n"
    return text + "DEFAULT Auth-Type := Reject\n    Message-Authenticator = 0x00\n"


def aaa_node() -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The node of the servers, and its links to the hub."""
    names = {address: f"at-{number}" for number, address in enumerate(USERS)}
    modules = "".join(f"  files {name} {{\n    filename = @DIR@/users-{name}\n  }}\n" for name in names.values())
    servers = "".join(_SERVER.format(name=name, address=address) for address, name in names.items())
    node = {
        "kind": "linux",
        "addresses": {"eth0": [f"{FIRST}/24", f"{SECOND}/24"], "eth1": f"{GLOBAL}/24"},
        "files": {
            "radiusd.conf": f"{_HEAD}{modules}}}\n{servers}",
            "start": _START,
            **{f"users-{name}": _users(USERS[address]) for address, name in names.items()},
        },
        "exec": ["./start"],
        "wait-for": 'grep -q "Ready to process requests" radius.log',
    }
    return {"aaa": node}, [("aaa:eth0", "hub:3/2"), ("aaa:eth1", "hub:3/3")]


def asking_router(*, fallback: bool = True) -> str:
    """The hub with an on-demand tunnel whose peers RADIUS knows; `fallback`: also that of context local."""
    return (
        ROUTER
        + f"""
context local
  interface central
    ip address 10.98.0.1/24
  radius server {GLOBAL} key {SECRET}
  radius timeout 1
  radius max-retries 0
  radius deadtime 0
context inner
  aaa authentication subscriber radius{" global" if fallback else ""}
  aaa accounting subscriber radius
  radius server {FIRST} key {SECRET}
  radius server {SECOND} key {SECRET}
  radius accounting server {FIRST} key {SECRET}
  radius timeout 1
  radius max-retries 0
  radius deadtime 0
  ip pool clients {POOL}
  ipsec profile {ASSIGNED}
    seq 10 ipsec-policy ipsec-pol access-group ours
  ipsec profile {SPECIAL}
    mtu 1300
    seq 10 ipsec-policy ipsec-pol access-group ours
context outer
  ike2 policy {ASSIGNED}
    pre-shared-key use-aaa
    address-allocation aaa
{on_demand_tunnel(ASSIGNED, "")}
port ethernet 3/3
  no shutdown
  bind interface central local
"""
    )


class Radius:
    """The servers of the node."""

    def __init__(self, node: RemotePeer) -> None:
        self._node = node

    def hide(self, *addresses: str, port: int = 1812) -> None:
        """Questions to these servers get no answer from now on; with port 1813 their accounting does not."""
        rules = "".join(
            f"; nft add rule ip away in ip daddr {address} udp dport {port} drop" for address in addresses
        )
        self._node.run(f"nft flush chain ip away in{rules}")

    def restart(self) -> None:
        """Read the users anew."""
        gone = "while kill -0 $(cat radius.pid) 2> /dev/null; do sleep 0.02; done"
        self._node.run(f"kill $(cat radius.pid); {gone}; ./start")
        self._node.run('until grep -q "Ready to process requests" radius.log; do sleep 0.02; done')

    def books(self) -> list[dict[str, str]]:
        """The accounting requests that were written, each as names and values."""
        entries = self._node.run("cat detail 2> /dev/null || true").strip().split("\n\n")
        return [
            dict(line.strip().split(" = ", 1) for line in entry.splitlines() if " = " in line)
            for entry in entries
            if entry
        ]
