"""The networks that an on-demand tunnel's peers have for traffic-selector routes: what each has negotiated."""

from __future__ import annotations

import pytest

from chassis.model.acl import AclRule
from tests.support.ike.on_demand import DialIn, Gateway, Offer, peer
from tests.support.ike.pair import A

INSIDE = (0x0B000000, 24)
"""Behind the gateway."""
BEHIND = {A + number: (0x0A000000 + (number << 8), 24) for number in (0, 8)}
"""Behind each peer, by its address."""


@pytest.mark.behaviour("B-147")
@pytest.mark.parametrize("version", [1, 2])
def test_peers_that_share_a_list_have_the_networks_that_each_negotiated(version: int) -> None:
    """With version 1 each rule is negotiated by itself, and each peer of a profile has one of its own."""
    shared = tuple(
        AclRule(10 * seq, source=INSIDE, destination=network) for seq, network in enumerate(BEHIND.values(), 1)
    )
    peers = [
        peer(
            address,
            identity=f"p{address & 15}.example",
            version=version,
            rules=((AclRule(10, source=network, destination=INSIDE),),),
        )
        for address, network in BEHIND.items()
    ]
    rig = DialIn(peers, Gateway((Offer(version=version, rules=(shared,)),)))
    assert rig.until(lambda: len(rig.peers) == 2 and all(map(rig.b.up, rig.peers.values())), 5), rig.b.texts()
    for ends in peers:
        number = rig.peers[ends.identity_local or ""]
        assert rig.b.states[number].selectors == BEHIND[ends.local]
