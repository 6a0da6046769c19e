"""The load maker against another gateway: a node of peers, on a veth pair, with a real strongSwan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.charon import PROGRAM, require
from tests.support.strongswan_lab import LOAD, START, Swan

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

KEY = "a-key-of-the-lab"

STRONGSWAN = """\
charon {
  load = random nonce aes sha1 hmac kdf gmp openssl kernel-libipsec kernel-netlink socket-default vici
  plugins {
    vici {
      socket = unix:///run/charon.vici
    }
    kernel-libipsec {
      allow_peer_ts = yes
    }
  }
  filelog {
    all {
      path = /run/charon.log
      flush_line = yes
      default = 1
    }
  }
}
"""
"""strongSwan carries ESP itself, in UDP alone."""

SWANCTL = f"""\
connections {{
  all {{
    version = 0
    local_addrs = 172.16.1.1
    proposals = aes128-sha1-modp1024
    unique = never
    local {{
      auth = psk
      id = 172.16.1.1
    }}
    remote {{
      auth = psk
    }}
    children {{
      networks {{
        local_ts = 10.100.0.0/16
        remote_ts = 10.112.0.0/16
        esp_proposals = aes128-sha1
      }}
    }}
  }}
}}
secrets {{
  ike-all {{
    secret = "{KEY}"
  }}
}}
"""

LAB = {
    "name": "load",
    "topology": {
        "nodes": {
            "peer": {
                "kind": "linux",
                "addresses": {"eth1": "172.16.1.1/24", "lo": "10.100.0.1/32"},
                "routes": "10.9.0.0/24 via 172.16.1.2",
                "files": {"strongswan.conf": STRONGSWAN, "swanctl.conf": SWANCTL, "start": START, "load": LOAD},
                "exec": ["echo 1 > /proc/sys/net/ipv4/ip_forward", "./start"],
                "wait-for": "./load",
            },
            "callers": {
                "kind": "peers",
                "ports": {"1": {"address": "172.16.1.2/24", "gateway": "172.16.1.1"}},
                "peers": 8,
                "nat": 4,
                "first-address": "10.9.0.1",
                "towards": "172.16.1.1",
                "version": "both",
                "pre-shared-key": KEY,
                "first-network": "10.112.0.0/30",
                "remote-network": "10.100.0.0/16",
                "ike-proposal": {"dh-group": 2},
                "ipsec-proposal": {"encryption": "aes-128-cbc", "authentication": "hmac-sha1-96"},
                "traffic": {"peers": 4, "to": "10.100.0.1", "rate": 10},
                "rate": 20,
                "start": "manual",
            },
        },
        "links": [{"endpoints": ["callers:1", "peer:eth1"]}],
    },
}


def test_strongswan_takes_peers_of_both_versions_behind_nat(lab_factory: LabFactory) -> None:
    require(PROGRAM, "swanctl")
    lab = lab_factory.text(yaml.safe_dump(LAB))
    swan = Swan(lab)

    def report(command: str = "status", **arguments: float) -> dict[str, Any]:
        return lab.ask("callers", command, arguments)

    report("start")
    lab.wait_until(lambda: report()["up"] == 8, 30)
    assert swan.swanctl("--list-sas").count("ESTABLISHED") == 8
    lab.wait_until(lambda: report()["traffic"]["received"] >= 40, 30)
    report("churn", rate=4)
    lab.wait_until(lambda: report()["left"] >= 4, 30)
    report("start")
    lab.wait_until(lambda: report()["up"] == 8, 30)
    found = report()
    assert (found["lost"], found["failures"]) == (0, {})
    assert found["traffic"]["drops"] == {}
    report("down")
    lab.wait_until(lambda: "ESTABLISHED" not in swan.swanctl("--list-sas"), 30)
