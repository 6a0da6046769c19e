"""Peers of on-demand tunnels: who they are, what the controller is asked, and what becomes of them (guide 9.3)."""

from __future__ import annotations

import pytest

from tests.support.ike.on_demand import DialIn, Gateway, Offer, peer

VERSIONS = pytest.mark.parametrize("version", [1, 2])


@VERSIONS
def test_a_peer_dials_in_with_the_configured_key(version: int) -> None:
    ends = peer(identity="west.branch.example", version=version)
    rig = DialIn([ends], Gateway((Offer(version=version, remote_id="*.branch.example"),)))
    assert rig.until(lambda: rig.connected(rig.a, ends), 5), (rig.a.texts(), rig.b.texts(), rig.b.questions)
    (question,) = rig.asked()
    assert (question.step, question.identity, question.on_demand) == ("admit", "west.branch.example", 50)
