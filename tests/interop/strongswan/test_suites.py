"""A whole router and strongSwan with suites of different kinds: a null cipher, small blocks, XCBC, AES-GCM;
packets of all sizes between hosts behind both, in one piece and in fragments."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.interop.strongswan.test_router import LAB, LOAD, PEER, PSK, ROUTER, RULE, START, US, VICI, Swan
from tests.support.charon import CONFIGURATION, PLUGINS, PROGRAM, Auth, Conn, require, swanctl_conf

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess

FLOWS = """\
flows:
  forward: {{from: "t1:1", to: "t2:1", rate: 20, size: 9000, start: manual}}
  reverse: {{from: "t2:1", to: "t1:1", rate: 20, size: 9000, start: manual}}
  even: {{from: "t1:1", to: "t2:1", rate: 40, size: 1400, start: manual}}
  odd: {{from: "t2:1", to: "t1:1", rate: 40, size: 61, start: manual}}
"""
SIZES = (*range(28, 46), *range(1384, 1401))
"""Bytes of the pings with DF: every rest of a block."""

SUITES = {
    "null-sha1": ("null", "hmac-sha1-96"),
    "3des-md5": ("3des-cbc", "hmac-md5-96"),
    "aes192-aesxcbc": ("aes-192-cbc", "hmac-aes-xcbc"),
    "aes256gcm16": ("aes-256-gcm", ""),
}


def overflown(swan: Swan) -> int:
    """Datagrams and packets that the peer's own kernel dropped, so far.

    Its sockets' and devices' queues are short, and nobody reads them while its daemon waits for a processor.
    """
    heads, values = (
        line.split()[1:] for line in swan.run("cat /proc/net/snmp").splitlines() if line.startswith("Udp:")
    )
    sockets = int(dict(zip(heads, values, strict=True))["RcvbufErrors"])
    rows = [line.split(":")[1].split() for line in swan.run("cat /proc/net/dev").splitlines()[2:]]
    return sockets + sum(int(row[3]) + int(row[11]) for row in rows)


@pytest.mark.parametrize("theirs", SUITES)
def test_all_sizes_through_a_router(lab_factory: LabFactory, theirs: str) -> None:
    require(PROGRAM, "swanctl")
    cipher, integrity = SUITES[theirs]
    conf = CONFIGURATION.format(
        plugins=PLUGINS, tries=2, signatures="yes", vici=VICI, log="/run/charon.log", level=1
    )
    conn = Conn("t", 2, PEER, US, Auth(PEER), Auth(US), esp=theirs)
    texts = {
        "strongswan": json.dumps(conf),
        "swanctl": json.dumps(swanctl_conf([conn], {US: PSK})),
        "start": json.dumps(START),
        "load": json.dumps(LOAD),
    }
    router = ROUTER.format(us=US, peer=PEER, psk=PSK, ike="ike2", rules=RULE)
    router = router.replace("esp encryption aes-128-cbc", f"esp encryption {cipher}")
    authentication = "  esp authentication hmac-sha1-96\n"
    assert authentication in router
    router = router.replace(authentication, f"  esp authentication {integrity}\n" if integrity else "")
    lab_text = LAB[: LAB.index("flows:")] + FLOWS
    lab_text = lab_text.replace("config: a.cfg}}", "config: a.cfg, extensions: [modern]}}")
    lab = lab_factory.text(lab_text.format(peer=PEER, **texts), {"a.cfg": router})
    swan = Swan(lab)
    lab.wait_until("tunnels up", within=10)
    flows = ("forward", "reverse", "even", "odd")
    lab.start(*flows)
    for flow in flows:
        lab.wait_until(f"flow {flow} received >= 40", within=10)
    for size in SIZES:
        swan.run(f"ping -c 1 -W 2 -M do -s {size - 28} -I 10.2.0.1 10.1.0.9")
    lab.stop(*flows)
    lab.drain(*flows)
    reports = {flow: lab.report(flow, final=True) for flow in flows}
    for report in reports.values():
        assert report["corrupted"] == 0
        assert report["duplicated"] == 0
    lost = {flow: report["sent"] - report["received"] for flow, report in reports.items()}
    assert sum(lost.values()) <= overflown(swan), lost
