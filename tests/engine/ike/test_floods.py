"""Forged first messages from a peer's address: whom they may not shut out, how little they are answered with."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from chassis.ase.ike.host import NetworkPath
from chassis.ase.ike.receiver import MAX_REFUSED, REFUSED_TIME, RefusedMessages
from chassis.ase.ike_messages import IkePacket
from chassis.bus.records import CertificateRecord
from tests.support.ike import pki
from tests.support.ike.pair import CONTEXT, WALL, A, B, Ends, EnginePair, first_message, other

ELSEWHERE = 0x0A000003
"""Address of another peer of the end that is flooded."""

MODES = pytest.mark.parametrize(
    ("version", "mode"), [(2, "main"), (1, "main"), (1, "aggressive")], ids=["v2", "v1-main", "v1-aggressive"]
)


class Flooded:
    """An end B with two honest peers that have not begun yet, and someone who forges the address of the first."""

    def __init__(self, version: int, mode: str) -> None:
        self.ends = Ends(version=version, mode=mode)
        self.second = replace(self.ends, local=ELSEWHERE, tunnel=6)
        self.two = EnginePair(
            replace(self.ends, wanted=False), replace(other(self.ends), connection="responder-only")
        )
        self.two.ends[ELSEWHERE] = self.two.a
        self.two.configure(self.two.b, replace(other(self.second), connection="responder-only").records())
        self.first = first_message(self.ends)
        self._spis = count(1)

    def forge(self, number: int) -> None:
        for _ in range(number):
            data = next(self._spis).to_bytes(8, "big") + self.first[8:]
            self.two.give(self.two.b, IkePacket(CONTEXT, B, 500, A, 500, data))

    def begin(self, ends: Ends) -> None:
        self.two.configure(self.two.a, ends.records())

    def counts(self) -> dict[str, int]:
        total = self.two.ask(self.two.b, "statistics").result["total"]
        return {name.removeprefix("v1 ").removeprefix("v2 "): number for name, number in total.items()}


@MODES
@pytest.mark.parametrize("spoofed", [True, False])
def test_forged_first_messages_shut_out_nobody(version: int, mode: str, spoofed: bool) -> None:
    flooded = Flooded(version, mode)
    two = flooded.two
    flooded.forge(400)
    ends = flooded.ends if spoofed else flooded.second
    flooded.begin(ends)
    # What a message of aggressive mode costs is bounded, too: there a flood makes the peer ask more than once.
    number, steps = (10, 500) if mode == "aggressive" else (4, 100)
    for _ in range(steps):
        flooded.forge(number)
        two.run(0.01)
        if two.packet(two.a, tunnel=ends.tunnel) and two.packet(two.b, tunnel=ends.tunnel):
            break
    assert two.a.up(ends.tunnel)
    assert two.b.up(ends.tunnel)
    assert two.b.ike.ike_sa_manager.table.half_open <= 201
    assert flooded.counts()["cookies requested" if version == 2 else "half-open evicted"] > 0


def test_a_first_message_that_comes_again_is_taken_before_new_ones() -> None:
    flooded = Flooded(1, "aggressive")
    two, first = flooded.two, flooded.first
    limit = two.b.ike.ike_sa_manager.settings.cookie_threshold

    def evicted() -> int:
        return two.b.count("half-open evicted")

    flooded.forge(limit)
    assert evicted() == 0
    taken = []
    for number in range(20):
        # New ones take what there is for them; then one is refused, and comes again when others still are.
        flooded.forge(40)
        before = evicted()
        late = IkePacket(CONTEXT, B, 500, A, 500, (1 << 40 | number).to_bytes(8, "big") + first[8:])
        two.give(two.b, late)
        refused = evicted() == before
        two.give(two.b, late)
        assert evicted() == before + 1
        taken.append(refused)
        two.run(0.05)
    assert taken.count(True) > 15


def test_what_is_known_of_refused_messages_is_bounded() -> None:
    path = NetworkPath(CONTEXT, B, 500, A, 500)
    refused = RefusedMessages()
    for number in range(MAX_REFUSED + 10):
        refused.remember(path, b"%d" % number, 0.001 * number)
    assert len(refused) == MAX_REFUSED
    last = b"%d" % (MAX_REFUSED + 9)
    assert refused.comes_again(path, last, 20.0)
    assert not refused.comes_again(path, b"0", 20.0)
    assert not refused.comes_again(replace(path, remote_port=501), last, 20.0)
    refused.forget(path, last)
    assert not refused.comes_again(path, last, 20.0)
    assert not refused.comes_again(path, b"%d" % MAX_REFUSED, 0.001 * MAX_REFUSED + REFUSED_TIME)
    assert len(refused) == 8


@pytest.fixture(scope="module")
def certified() -> tuple[CertificateRecord, ...]:
    """A PKI store for b.example."""
    root = pki.root("Root of all")
    leaf = root.issue("b.example", dns=["b.example"], begins=WALL - pki.YEAR, ends=WALL + pki.YEAR)
    return (
        CertificateRecord(CONTEXT, "root", "trusted", pki.pem(root.certificate)),
        CertificateRecord(CONTEXT, "me", "self", pki.pem(leaf)),
        CertificateRecord(CONTEXT, "me", "key", pki.key_pem(pki.key("b.example"))),
    )


@pytest.mark.parametrize(
    ("version", "mode", "how", "most"),
    [
        (2, "main", "pre-shared-key", 1.2),
        (2, "main", "rsa-signature", 1.2),
        (1, "main", "pre-shared-key", 1.0),
        (1, "main", "rsa-signature", 1.0),
        # An identity and its proof go with the first answer of aggressive mode, which comes twice at most.
        (1, "aggressive", "pre-shared-key", 2.7),
        (1, "aggressive", "rsa-signature", 9.5),
    ],
)
def test_a_forged_first_message_is_answered_with_few_octets(
    version: int, mode: str, how: str, most: float, certified: tuple[CertificateRecord, ...]
) -> None:
    ends = Ends(version=version, mode=mode, authentication=how, certificates=certified)
    ends = replace(ends, identity_local="a.example", identity_remote="b.example")
    first = first_message(ends)
    two = EnginePair(replace(ends, wanted=False), replace(other(ends), connection="responder-only"))
    two.trouble = lambda sender, packet, now: ()
    two.give(two.b, IkePacket(CONTEXT, B, 500, A, 500, first))
    two.run(60)
    octets = sum(len(packet.data) for packet in two.b.sent)
    assert 0.3 * len(first) <= octets <= most * len(first)
    # Asked again, it answers once for each time, and not for ever.
    for _ in range(100):
        two.give(two.b, IkePacket(CONTEXT, B, 500, A, 500, b"\1" * 8 + first[8:]))
    two.run(60)
    octets = sum(len(packet.data) for packet in two.b.sent)
    assert octets <= most * 100 * len(first)
