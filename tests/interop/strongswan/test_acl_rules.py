"""IKEv1 and an access list of two rules with strongSwan, which has one CHILD SA a pair of selectors: two pairs of
SAs, packets by both, and what becomes of one leaves the other alone.
"""

from __future__ import annotations

import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chassis.ase.ike_messages import SaInstall
from tests.support.charon import PROGRAM, Conn, require
from tests.support.charon_rig import Rig
from tests.support.ike.udp_end import ECHO, OUR_HOST, PEER_HOST, PEER_OTHER, clear_packet, rule

pytestmark = pytest.mark.multiprocess

OURS = "10.1.0.0/16"
LOW, HIGH = "10.2.0.0/17", "10.2.128.0/17"
"""Both in what the peer's host is; together they are the one network that a covering range would say."""
RULES = (rule(10, OURS, LOW), rule(20, OURS, HIGH))
HOSTS = {10: PEER_HOST, 20: PEER_OTHER}
"""An address of the peer's host for each rule."""


@pytest.fixture(scope="module")
def rules_rig() -> Iterator[Rig]:
    require(PROGRAM)
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig.build(Path(folder), reuse=True)
        yield rig
        rig.close()


class TwoRules:
    """A tunnel of two rules; `far` are sockets of the peer's host."""

    def __init__(self, rig: Rig, conn: Conn) -> None:
        self.rig, self.us, self.conn = rig, rig.us, conn
        self.far = {10: rig.us.far, 20: rig.namespaces.udp("peer", HOSTS[20], ECHO)}
        self.children = dict(zip((10, 20), conn.children, strict=True))
        self._sent = 0

    def pairs(self) -> dict[int, SaInstall]:
        """The pair that sends for each rule."""
        found = {seq: self.us.sends(rule=seq) for seq in (10, 20)}
        return {seq: self.us.pairs[5, serial] for seq, serial in found.items() if serial}

    def both_stand(self) -> None:
        def so() -> bool:
            installed = [child["name"] for child in self.rig.peer.children("t")]
            return (
                self.us.up()
                and sorted(self.pairs()) == [10, 20]
                and sorted(installed) == sorted(self.conn.children)
            )

        self.rig.until(so, "both CHILD SAs stand")

    def carries(self, *rules: int) -> None:
        """Packets of these rules go both ways by the pair of their rule."""
        for seq in rules:
            before = self._counted(seq)
            self._sent += 1
            mark, far = struct.pack("!II", seq, self._sent), self.far[seq]
            got: list[bytes] = []
            self.us.both_ways(
                [clear_packet(HOSTS[seq], 28 + len(mark), mark, 0)],
                lambda far=far, mark=mark: far.sendto(mark, (OUR_HOST, ECHO)),
                lambda far=far, mark=mark, got=got: received(far, got) and mark in got,
                lambda mark=mark: any(packet[28:] == mark for packet in self.us.opened),
            )
            assert self._counted(seq) == (before[0] + 1, before[1] + 1)
        assert self.us.drops == []

    def _counted(self, seq: int) -> tuple[int, int]:
        """Packets that left and came by pairs of a rule."""
        sadb = self.us.sadb
        mine = [name for name, pair in self.us.pairs.items() if pair.rules[0].seq == seq]
        return sum(sadb.outbound[name].packets for name in mine), sum(sadb.inbound[name].packets for name in mine)


def received(far: socket.socket, got: list[bytes]) -> list[bytes]:
    with suppress(BlockingIOError):
        got.append(far.recv(65536))
    return got


@contextmanager
def two_rules(rig: Rig, role: str, **ours: Any) -> Iterator[TwoRules]:
    """The tunnel stands by one CHILD SA at least."""
    theirs = {"local_ts": LOW, "further": ((HIGH, OURS),)}
    with rig.tunnel(1, role, ours={"rules": RULES, **ours}, theirs=theirs) as conn:
        tunnel = TwoRules(rig, conn)
        try:
            yield tunnel
        finally:
            tunnel.far[20].close()


def test_we_begin_and_each_rule_has_its_child(rules_rig: Rig) -> None:
    with two_rules(rules_rig, "initiator") as tunnel:
        tunnel.both_stand()
        before = tunnel.pairs()
        assert {seq: pair.rules for seq, pair in before.items()} == {10: RULES[:1], 20: RULES[1:]}
        tunnel.carries(10, 20)
        # The peer ends one: it is made anew, and the other stays as it is.
        rules_rig.peer.terminate(tunnel.conn, tunnel.children[20])
        rules_rig.until(lambda: (5, before[20].serial) not in tunnel.us.pairs, "the peer's delete")
        assert tunnel.us.up()
        tunnel.carries(10)
        tunnel.both_stand()
        after = tunnel.pairs()
        assert after[10] == before[10]
        assert after[20].serial > before[20].serial
        tunnel.carries(10, 20)
        # Each is succeeded by itself.
        assert tunnel.us.ask("rekey", tunnel=5) == {"begun": 2}
        rules_rig.until(
            lambda: all(pair.serial > after[20].serial for pair in tunnel.pairs().values()), "successors of both"
        )
        # The peer has them when our last message of each quick mode has come.
        rules_rig.until(
            lambda: ({pair.outbound.esp_spi for pair in tunnel.pairs().values()} <= {int(child["spi-in"],
                16) for child in rules_rig.peer.children("t")}),
            "the peer's successors",
        )  # fmt: skip
        tunnel.carries(10, 20)


def test_the_peer_begins_a_child_for_each_rule_and_ends_one(rules_rig: Rig) -> None:
    with two_rules(rules_rig, "responder") as tunnel:
        tunnel.carries(10)
        rules_rig.peer.initiate(tunnel.conn, tunnel.children[20])
        tunnel.both_stand()
        before = tunnel.pairs()
        assert {seq: pair.rules for seq, pair in before.items()} == {10: RULES[:1], 20: RULES[1:]}
        tunnel.carries(10, 20)
        # The peer ends one: the tunnel is up for the other, and packets of this one are dropped.
        rules_rig.peer.terminate(tunnel.conn, tunnel.children[10])
        rules_rig.until(lambda: list(tunnel.pairs()) == [20], "the peer's delete")
        assert tunnel.us.up()
        assert tunnel.pairs()[20] == before[20]
        tunnel.carries(20)
        # It begins it again.
        rules_rig.peer.initiate(tunnel.conn, tunnel.children[10])
        tunnel.both_stand()
        tunnel.carries(10, 20)
        assert tunnel.pairs()[20] == before[20]
        assert len({sa["uniqueid"] for sa in rules_rig.peer.sas("t")}) == 1


def test_a_child_for_both_networks_at_once_has_no_rule(rules_rig: Rig) -> None:
    with two_rules(rules_rig, "responder") as tunnel:
        peer = rules_rig.peer
        covering = replace(tunnel.conn, further=(("10.2.0.0/16", OURS),))
        peer.load(covering)
        peer.initiate(covering, tunnel.children[20])
        rules_rig.until(
            lambda: any(record.id == "ikev1-p2-selectors-no-match" for record in tunnel.us.seen.logs),
            "our refusal",
        )
        assert len(tunnel.us.pairs) == 1
        tunnel.carries(10)
