"""The life of a tunnel with strongSwan: made, made anew from either side, deleted, lost and found again.

After each step packets pass both ways.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.charon import Auth, Conn
from tests.support.charon_rig import PSK, SIZES, Rig
from tests.support.ike.udp_end import PEER, US, rule

pytestmark = pytest.mark.multiprocess

ROLES = ["initiator", "responder"]
KINDS = [
    pytest.param(1, {}, id="1-main-psk"),
    pytest.param(1, {"auth": "rsa"}, id="1-main-rsa"),
    pytest.param(1, {"mode": "aggressive"}, id="1-aggressive-psk"),
    pytest.param(1, {"mode": "aggressive", "auth": "rsa"}, id="1-aggressive-rsa"),
    pytest.param(2, {}, id="2-psk"),
    pytest.param(2, {"auth": "rsa"}, id="2-rsa"),
]


def ike_ids(rig: Rig) -> set[str]:
    """The peer's numbers of the IKE SAs that stand."""
    return {sa["uniqueid"] for sa in rig.peer.sas("t") if sa["state"] == "ESTABLISHED"}


def anew(rig: Rig, step: Callable[[], object], what: str) -> None:
    """Do something after which both ends send by a new pair, and packets pass."""
    before, serial = rig.spis(), rig.sender()
    step()
    rig.until(lambda: rig.spis() - before and rig.sender() not in (serial, 0), what)
    rig.traffic()


def ike_anew(rig: Rig, step: Callable[[], object], what: str) -> None:
    """Do something after which another IKE SA stands, and packets pass; version 1 keeps the old one a while."""
    before = ike_ids(rig)
    step()
    rig.until(lambda: ike_ids(rig) - before, what)
    rig.until(lambda: rig.us.up() and rig.sender() and rig.peer.up("t"), f"{what}, and the tunnel is up")
    rig.traffic()


def newest(rig: Rig) -> str:
    return max(ike_ids(rig), key=int)


def back(rig: Rig, role: str, conn: Conn) -> None:
    """The tunnel comes back: by itself where we begin, else the peer is told to."""
    if role == "responder":
        rig.until(lambda: not rig.sender(), "our end knows that it is gone")
        rig.until(lambda: not rig.peer.children("t"), "the peer knows that it is gone")
        rig.peer.initiate(conn)
    rig.stands()
    rig.traffic()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("version", "how"), KINDS)
def test_it_is_made_anew_from_each_side(rig: Rig, version: int, how: dict[str, Any], role: str) -> None:
    with rig.tunnel(version, role, **how) as conn:
        rig.traffic(*SIZES)
        anew(rig, lambda: rig.us.ask("rekey", tunnel=5), "we rekey the pair")
        anew(rig, lambda: rig.peer.rekey(conn), "the peer rekeys the pair")
        if version == 2 or role == "initiator":
            # In version 1 that is a phase 1 of its own, which a responder does not begin.
            ike_anew(rig, lambda: rig.us.ask("rekey", tunnel=5, what="ike"), "we rekey the IKE SA")
        ike_anew(rig, lambda: rig.peer.rekey_ike(newest(rig)), "the peer rekeys the IKE SA")
        anew(rig, lambda: rig.us.ask("rekey", tunnel=5), "we rekey the pair in the new IKE SA")
        anew(rig, lambda: rig.peer.rekey(conn), "the peer rekeys the pair in the new IKE SA")
        if version == 2:
            rig.until(lambda: len(ike_ids(rig)) == len(rig.spis()) == 1, "one IKE SA and one pair are left")
            rig.until(lambda: len(rig.us.pairs) == 1, "one pair is left here")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("version", "how"), KINDS)
def test_it_is_deleted_from_each_side(rig: Rig, version: int, how: dict[str, Any], role: str) -> None:
    with rig.tunnel(version, role, **how) as conn:
        serial = rig.sender()
        rig.peer.terminate(conn)
        rig.until(lambda: (5, serial) not in rig.us.pairs, "our end forgets the pair that the peer deletes")
        back(rig, role, conn)
        serial = rig.sender()
        rig.peer.terminate(conn, ike=True)
        rig.until(lambda: (5, serial) not in rig.us.pairs, "our end forgets the pair with the peer's IKE SA")
        back(rig, role, conn)
        before = rig.spis()
        rig.us.ask("clear", tunnel=5)
        rig.until(lambda: not rig.spis() & before, "the peer forgets what we clear")
        back(rig, role, conn)


def test_clearing_the_ike_sa_of_version_1_leaves_the_pair_that_carries(rig: Rig) -> None:
    """The peer drops its pairs with their last IKE SA: the new one stands in time to have them."""
    with rig.tunnel(1, "initiator"):
        serial, spis = rig.sender(), rig.spis()
        ike_anew(rig, lambda: rig.us.ask("clear", tunnel=5, what="ike"), "we clear the IKE SA")
        rig.until(lambda: len(ike_ids(rig)) == 1, "the cleared IKE SA is gone")
        rig.traffic()
        assert (rig.sender(), rig.spis()) == (serial, spis)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("version", [1, 2])
def test_a_dead_peer_is_found_out_and_met_again(rig: Rig, version: int, role: str) -> None:
    with rig.tunnel(version, role, ours={"keepalive": True}) as conn:
        rig.traffic()
        rig.peer.end(signal.SIGKILL)
        rig.until(lambda: not rig.us.up(), "dead peer detection takes the tunnel down")
        assert not rig.us.pairs
        rig.peer.begin()
        rig.teach()
        rig.peer.load(conn)
        if role == "responder":
            rig.peer.initiate(conn)
        rig.stands()
        rig.traffic()


@pytest.mark.parametrize("version", [1, 2])
def test_a_peer_that_ends_in_order_says_so(rig: Rig, version: int) -> None:
    with rig.tunnel(version, "initiator") as conn:
        rig.peer.end(signal.SIGTERM)
        rig.until(lambda: not rig.us.up() and not rig.us.pairs, "the peer's deletion is heard")
        rig.peer.begin()
        rig.teach()
        rig.peer.load(conn)
        rig.stands()
        rig.traffic()


@pytest.mark.parametrize("version", [1, 2])
def test_after_a_kill_of_ours_the_peer_drops_what_was_before(rig: Rig, version: int) -> None:
    with rig.tunnel(version, "initiator"):
        before, stood = rig.spis(), ike_ids(rig)
        rig.us.reset()
        rig.us.drain()
        rig.us.configure(rig.ours, **rig.settings)
        rig.stands()
        rig.until(lambda: not rig.spis() & before and not ike_ids(rig) & stood, "INITIAL-CONTACT voids the old")
        rig.traffic()


@pytest.mark.parametrize("version", [1, 2])
def test_the_peer_finds_out_about_a_kill_of_ours(rig: Rig, version: int) -> None:
    how = {"dpd": 1, "dpd_timeout": 3, "dpd_action": "restart"}
    with rig.tunnel(version, "responder", theirs=how):
        before = rig.spis()
        rig.us.reset()
        rig.us.drain()
        rig.us.configure(rig.ours, **rig.settings)
        rig.until(lambda: not rig.spis() & before, "the peer's detection of dead peers")
        rig.stands()
        rig.traffic()


@pytest.mark.parametrize("role", ROLES)
def test_selectors_are_narrowed_to_what_both_want(rig: Rig, role: str) -> None:
    wide = {"local_ts": "10.2.0.0/15", "remote_ts": "10.0.0.0/15"}
    if role == "initiator":
        how: dict[str, Any] = {"ours": {"rules": (rule(10, "10.0.0.0/15", "10.2.0.0/15"),)}}
    else:
        how = {"theirs": wide}
    with rig.tunnel(2, role, **how):
        rig.traffic(*SIZES)
        (pair,) = rig.us.pairs.values()
        (narrowed,) = pair.rules
        assert narrowed == rule(narrowed.seq)
        (child,) = rig.peer.children("t")
        assert (child["local-ts"], child["remote-ts"]) == (["10.2.0.0/16"], ["10.1.0.0/16"])


def test_a_tunnel_for_everything_is_narrowed_by_the_peer(rig: Rig) -> None:
    with rig.tunnel(2, "initiator", ours={"rules": ()}):
        rig.traffic()
        assert rig.us.seen.states[5].selectors == (0x0A020000, 16)


@pytest.mark.parametrize("role", ROLES)
def test_each_end_proves_itself_in_its_own_way(rig: Rig, role: str) -> None:
    ours = {"certificates": rig.our_certificates}
    theirs = {"us": Auth(PEER, "pubkey", rig.their_certificate), "peer": Auth(US, "psk")}
    _, conn = rig.plan(2, role)
    assert conn.us.method == "psk"
    with rig.tunnel(2, role, ours=ours, theirs=theirs):
        rig.traffic()


@pytest.mark.parametrize("role", ROLES)
def test_long_messages_go_in_fragments(rig: Rig, role: str) -> None:
    theirs = {"more": {"fragmentation": "force"}}
    with rig.tunnel(2, role, auth="rsa", theirs=theirs, settings={"ike_fragment_size": 576}):
        rig.traffic()
    assert "parsed IKE_AUTH" in rig.peer.log()
    assert "EF(1/" in rig.peer.log()


@pytest.mark.parametrize("role", ROLES)
def test_signatures_of_rfc_7296_are_taken_where_the_peer_has_no_others(rig: Rig, role: str) -> None:
    rig.peer.end()
    rig.peer.set_up(signatures=False)
    rig.peer.begin()
    rig.teach()
    try:
        with rig.tunnel(2, role, auth="rsa"):
            rig.traffic()
    finally:
        rig.peer.end()
        rig.peer.set_up(signatures=True)
        rig.peer.begin()
        rig.teach()


@pytest.mark.parametrize(("version", "role"), [(1, "responder"), (2, "initiator"), (2, "responder")])
def test_a_wrong_preshared_key_is_said_and_nothing_is_installed(rig: Rig, version: int, role: str) -> None:
    ours, conn = rig.plan(version, role, ours={"psk": PSK.encode() + b"!"})
    rig.us.reset()
    rig.us.drain()
    rig.peer.load(conn)
    try:
        rig.us.configure(ours)
        if role == "responder":
            rig.peer.initiate(conn)
        rig.until(lambda: any(one.severity == "error" for one in rig.us.seen.logs), "our end says what is wrong")
        assert not rig.us.pairs
        assert not rig.peer.children("t")
    finally:
        rig.us.clear()
        rig.peer.unload(conn)
        rig.until(lambda: not rig.peer.sas("t"), "the peer has forgotten it")
