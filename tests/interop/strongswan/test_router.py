"""A whole router and strongSwan: packets between hosts behind both, through each step of a tunnel's life.

t1 -- 3/1 [ a ] 3/11 ===== tunnel ===== [ peer: charon ] -- t2
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.charon import CONFIGURATION, PLUGINS, PROGRAM, Auth, Conn, require, swanctl_conf
from tests.support.strongswan_lab import LAB, LOAD, PEER, PSK, ROUTER, RULES, START, US, VICI, Swan

if TYPE_CHECKING:
    from launch.client.lab_client import LabClient
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess


def rules_of(lab: LabClient) -> set[int]:
    """Rules of the tunnel's line that have SAs of their own, by their sequence numbers."""
    (reply,) = lab.ask("a", "sas", {"tunnel": "T"})["cards"].values()
    (tunnel,) = reply["tunnels"]
    return {sa.get("rule", 0) for sa in tunnel["sas"]}


@pytest.mark.parametrize("version", [1, 2])
def test_hosts_behind_both_reach_each_other_whatever_happens(lab_factory: LabFactory, version: int) -> None:
    require(PROGRAM, "swanctl")
    (ours, theirs), *further = RULES[version]
    conn = Conn("t", version, PEER, US, Auth(PEER), Auth(US), local_ts=theirs, remote_ts=ours)
    conn = replace(conn, further=tuple((theirs, ours) for ours, theirs in further))
    conf = CONFIGURATION.format(
        plugins=PLUGINS, tries=2, signatures="yes", vici=VICI, log="/run/charon.log", level=1
    )
    # JSON's texts are YAML's too.
    texts = {
        "strongswan": json.dumps(conf),
        "swanctl": json.dumps(swanctl_conf([conn], {US: PSK})),
        "start": json.dumps(START),
        "load": json.dumps(LOAD),
    }
    rules = "\n    ".join(f"seq {seq}0 {ours} {theirs}" for seq, (ours, theirs) in enumerate(RULES[version], 1))
    router = ROUTER.format(us=US, peer=PEER, psk=PSK, ike="ike" if version == 1 else "ike2", rules=rules)
    lab = lab_factory.text(LAB.format(peer=PEER, **texts), {"a.cfg": router})
    swan = Swan(lab)
    lab.wait_until("tunnels up")
    lab.start("forward", "reverse")
    swan.traffic()

    children = list(conn.children)
    lab.wait_until(lambda: len(swan.spis()) == len(children))
    if len(children) > 1:
        # The peer ends one CHILD SA: it is made anew, and the other stays.
        assert rules_of(lab) == {10, 20}
        kept, ended = [swan.spis(child) for child in children]
        swan.anew(lambda: swan.swanctl(f"--terminate --child {children[1]}"))
        assert [swan.spis(children[0]), swan.spis(children[1]) & ended] == [kept, set()]
        assert rules_of(lab) == {10, 20}

    swan.anew(lambda: lab.ask("a", "rekey", {"tunnel": "T", "what": "ipsec"}))
    swan.anew(lambda: swan.swanctl("--rekey --child t-c"))
    lab.ask("a", "rekey", {"tunnel": "T", "what": "ike"})
    swan.traffic()
    swan.swanctl("--rekey --ike t")
    swan.traffic()
    swan.anew(lambda: lab.ask("a", "clear", {"tunnel": "T", "what": "all"}))
    swan.anew(lambda: swan.swanctl("--terminate --ike t"))

    # kill -9 of our ASP: it comes back, says INITIAL-CONTACT, and what the peer had before is void.
    swan.anew(lambda: lab.kill("a", "asp 2/1"))

    # kill -9 of the peer: dead peer detection takes the tunnel down; it is up again once the peer is.
    swan.run("kill -9 $(cat pid)")
    lab.wait_until("tunnel T down")
    swan.run("rm -f /run/charon.pid; ./start")
    lab.wait_until(lambda: lab.ask("", "exec", {"node": "peer", "command": "./load"})["code"] == 0)
    swan.traffic()

    lab.stop("forward", "reverse")
    lab.drain("forward", "reverse")
    for flow in ("forward", "reverse"):
        report = lab.report(flow, final=True)
        assert report["corrupted"] == 0
        assert report["duplicated"] == 0
    assert not lab.unexpected()
