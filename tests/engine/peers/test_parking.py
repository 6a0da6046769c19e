"""Peers at rest are parked: what they cost, and that nobody sees it."""

from __future__ import annotations

import gc
import tracemalloc

from tests.support.peers_gateway import PeersAndGateway

MOST_OCTETS = 4000
"""What a resting peer may cost."""
MOST_OCTETS_OF_GATEWAY = 12_000
"""What a tunnel may cost the gateway's IKE (docs/capacity.md)."""


def at_rest(count: int, **peers: object) -> PeersAndGateway:
    """Peers of both versions, all up and parked."""
    two = PeersAndGateway(peers=count, settings={"dpd-interval": "5s"}, **peers)
    two.serve(range(1, count + 1))
    two.command("start", rate=1000)
    assert two.until(lambda: two.status()["up"] == count)
    assert two.until(lambda: two.status()["parked"] == count, 5.0)
    return two


def test_a_resting_peer_costs_at_most_four_kilobytes_and_its_gateway_twelve() -> None:
    fewer, more = 20, 120

    def footprint(count: int) -> tuple[int, int]:
        """Octets of the peers, and of the gateway's IKE."""
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        two = at_rest(count)
        gc.collect()
        both = tracemalloc.get_traced_memory()[0]
        two.serve(())
        gc.collect()
        peers = tracemalloc.get_traced_memory()[0]
        return peers - before, both - peers

    tracemalloc.start()
    try:
        footprint(fewer)
        small, large = footprint(fewer), footprint(more)
    finally:
        tracemalloc.stop()
    peer, gateway = ((large[which] - small[which]) / (more - fewer) for which in (0, 1))
    assert peer < MOST_OCTETS, f"{peer:.0f} octets"
    assert gateway < MOST_OCTETS_OF_GATEWAY, f"{gateway:.0f} octets"


def test_parked_peers_live_on_and_go() -> None:
    """Probes of both ends, new keys, an ended tunnel: a parked peer answers, and is parked again."""
    count = 6
    two = at_rest(count, ipsec_proposal={"lifetime": 120}, ike_proposal={"dh-group": 1, "lifetime": 300})
    assert not two.peers._ike.ike_sa_manager.table.by_spi
    assert not two.peers._ike._connections.by_tunnel
    two.run(100)
    two.ask("rekey", what="ike")  # Of version 2: those of version 1 end by their lifetime.
    two.run(400)
    report = two.status()
    assert (report["up"], report["setups"], report["lost"]) == (count, count, 0)
    for version in ("v1", "v2"):
        done = {
            name.removeprefix(f"{version} "): number for name, number in report["ike"].items() if version in name
        }
        assert done["CHILD SAs rekeyed"] >= count
        assert done["IKE SAs rekeyed"] >= count // 2
        assert done["DPD probes sent"] > 50
    assert report["parked"] > 0
    two.until(lambda: two.status()["parked"] == count, 200.0)

    # The gateway ends the tunnels: they are lost, come again, and rest again.
    two.ask("clear")
    two.run(0.1)
    assert two.status()["lost"] == count
    assert two.until(lambda: two.status()["parked"] == count, 150.0)
    assert two.status()["setups"] == 2 * count

    # A Delete of each parked peer reaches the gateway.
    two.command("down")
    assert two.until(lambda: not two.gateway.sessions, 5.0)
    report = two.status()
    assert (report["state"], report["up"], report["parked"], report["ike_sas"]) == ("stopped", 0, 0, 0)
    assert not two.peers._parked._awake
