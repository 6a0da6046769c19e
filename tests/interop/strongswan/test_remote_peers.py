"""strongSwan as the remote peer of on-demand tunnels: a hub that knows no addresses of peers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.charon import PROGRAM, require
from tests.support.remote_peers import (
    AGGRESSIVE,
    EXACT,
    FAR,
    LEFT,
    LIMITED,
    MOST,
    NAT,
    OTHER_NAT,
    PARTIAL,
    RIGHT,
    ROUTER,
    SINK,
    WILDCARD,
    Field,
    behind_nat,
    caller,
    lab_text,
)

if TYPE_CHECKING:
    from launch.pytest_plugin import LabFactory

pytestmark = pytest.mark.multiprocess


@pytest.fixture(scope="module")
def whole_field(shared_lab_factory: LabFactory) -> Field:
    require(PROGRAM, "swanctl", "nft")
    return Field(shared_lab_factory.text(lab_text(*behind_nat()), {"hub.cfg": ROUTER}))


@pytest.fixture
def field(whole_field: Field) -> Iterator[Field]:
    """The lab without a peer that is up, before and after."""
    yield whole_field
    whole_field.reset()


@pytest.mark.behaviour("B-155", "B-156", "B-158", "B-160", "B-161", "B-164")
def test_the_identity_decides_which_tunnel_a_peer_has(field: Field) -> None:
    """Three tunnels at one address, each with its own key: exact before partial before any address."""
    exact = caller("exact", EXACT, "one.branch.example", "10.2.1.1/32", FAR[0])
    partial = caller("partial", PARTIAL, "Two.Branch.example", "10.2.2.1/32", FAR[1])
    address = caller("address", WILDCARD, FAR[2], "10.2.3.1/32", FAR[2])
    nobody = caller("nobody", PARTIAL, "a.two.branch.example", "10.2.4.1/32", FAR[3])
    field.far.load(exact, partial, address, nobody)
    field.up(field.far, exact, partial, address)
    assert "AUTHENTICATION_FAILED" in field.far.refused(nobody)
    rows = field.hub.instances()
    assert rows.keys() == {exact.identity, partial.identity, address.identity}
    for one in (exact, partial, address):
        row = rows[one.identity]
        assert (row["remote"], row["mode"]) == (
            one.conn.local,
            "circuit-based" if one is partial else "economical",
        )
        field.far.ping(one.source, size=1400)
    # Its route goes with each, the others stay.
    field.end(field.far, partial, exact, address)
    assert field.hub.routes() == set()


@pytest.mark.behaviour("B-157")
def test_peers_of_version_1_come_by_aggressive_mode_alone(field: Field) -> None:
    one, other = (
        caller(name, AGGRESSIVE, f"{name}.v1.example", f"10.2.{11 + number}.0/24", FAR[number], version=1)
        for number, name in enumerate(("a", "b"))
    )
    main = one.but(name="main", aggressive=False)
    field.far.load(one, other, main)
    field.up(field.far, one, other)
    field.far.refused(main)
    assert field.hub.logged("Mismatching Xchange Type (MAIN_MODE)")
    field.far.ping(one.source)
    field.end(field.far, one, other)


@pytest.mark.behaviour("B-159")
def test_a_peer_that_comes_from_elsewhere_has_one_tunnel(field: Field) -> None:
    here = caller("here", PARTIAL, "moves.branch.example", "10.2.5.1/32", FAR[0])
    there = here.but(name="there", local=FAR[1], unique="never")
    field.far.load(here, there)
    field.up(field.far, here)
    first = field.hub.instances()[here.identity]
    field.far.initiate(there)
    field.lab.wait_until(lambda: field.hub.instances().get(here.identity, first)["remote"] == FAR[1])
    field.stands(there)
    (row,) = field.hub.instances().values()
    assert row["number"] != first["number"]
    field.far.ping(there.source)
    field.end(field.far, there)


@pytest.mark.behaviour("B-180")
def test_one_peer_more_than_max_tunnels_is_refused_and_the_others_stay(field: Field) -> None:
    *first, last = (
        caller(f"l{number}", LIMITED, f"l{number}.any.example", f"10.2.{20 + number}.1/32", FAR[number])
        for number in range(MOST + 1)
    )
    field.far.load(*first, last)
    field.up(field.far, *first)
    field.far.refused(last)
    assert field.hub.logged(f"peer {last.identity} at {last.conn.local} refused: max-tunnels: {MOST}")
    assert field.hub.instances().keys() == {one.identity for one in first}
    for one in first:
        field.far.ping(one.source)
    field.end(field.far, first[0])
    field.up(field.far, last)
    field.end(field.far, *first[1:], last)


def test_two_peers_behind_one_nat_that_moves(field: Field) -> None:
    """The hub sees both at one address; when the NAT gets another one, both go on with the SAs that they have."""
    peers = {
        caller("left", PARTIAL, "left.branch.example", "10.3.1.1/32", LEFT): field.peers["left"],
        caller("right", PARTIAL, "right.branch.example", "10.3.2.1/32", RIGHT): field.peers["right"],
    }
    for one, peer in peers.items():
        peer.load(one)
        field.up(peer, one)
    before = field.hub.instances()
    assert {row["remote"] for row in before.values()} == {NAT}
    # The hub learns of the move by what a peer sends, and takes one that sends nothing for dead a second later.
    for one, peer in peers.items():
        peer.run(f"ping -c 100 -i 0.05 -W 1 -I {one.source} {SINK} > /dev/null 2>&1 &")
    field.peers["nat"].run(
        f"ip address del {NAT}/24 dev eth0 && ip address add {OTHER_NAT}/24 dev eth0 "
        "&& ip route replace default via 50.0.1.254"
    )
    for one, peer in peers.items():
        field.lab.wait_until(lambda peer=peer, source=one.source: peer.reaches(source))
        peer.ping(one.source)
    after = field.hub.instances()
    assert {name: row["number"] for name, row in after.items()} == {
        name: row["number"] for name, row in before.items()
    }
    for one, peer in peers.items():
        field.end(peer, one)


def test_a_peer_that_died_is_gone_by_dead_peer_detection(field: Field) -> None:
    dies = caller("dies", EXACT, "one.branch.example", "10.2.1.1/32", FAR[0])
    field.far.load(dies)
    field.up(field.far, dies)
    field.far.run("kill -9 $(cat pid); rm -f /run/charon.pid")
    field.gone(dies)
    field.far.run("./start")
    field.lab.wait_until(lambda: field.far.attempt("./load")[0] == 0)
    field.up(field.far, dies)
    field.end(field.far, dies)
