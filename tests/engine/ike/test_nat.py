"""Two ends with a NAT between them: encapsulation, keepalives, and ports that the NAT changes.

RFC 3947 (IKEv1), RFC 7296 section 2.23 (IKEv2), RFC 3948.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from chassis.ase.ike_messages import IkePacket, UdpEncapsulation
from tests.support.ike.pair import NAT, SHIFT, B, Ends, EnginePair, esp, other, settled

MODES = [(1, "main"), (1, "aggressive"), (2, "main")]
MOVED = SHIFT + 7
AH_ONLY = (esp("hmac-sha1-96", "", ""),)


def behind_a_nat(version: int, mode: str = "main", *, psk: bytes = b"secret of two", **more: object) -> EnginePair:
    """End a initiates from behind a NAT, and is known by a name."""
    ends = replace(
        Ends(version=version, mode=mode, connection="initiator-only", identity_local="a.example"), **more
    )
    return EnginePair(ends, replace(other(ends), remote=NAT, connection="responder-only", psk=psk), nat=True)


def established(version: int, mode: str = "main") -> EnginePair:
    two = behind_a_nat(version, mode)
    two.run(3)
    settled(two)
    return two


@pytest.mark.parametrize(("version", "mode"), MODES)
def test_encapsulation_and_keepalives(version: int, mode: str) -> None:
    two = established(version, mode)
    (ours,), (theirs,) = two.a.installs, two.b.installs
    assert ours.encapsulation == (UdpEncapsulation(4500, B, 4500),)
    assert theirs.encapsulation == (UdpEncapsulation(4500, NAT, 4500 + SHIFT),)
    before = two.keepalives
    two.run(100)
    assert two.keepalives == before + 5, "of the end behind the NAT alone"
    two.run(40_000)
    settled(two)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("asks", ["a", "b"])
def test_a_new_port_is_followed_with_the_pairs(version: int, asks: str) -> None:
    """The NAT forgets the port of a, which makes a successor of the pair, or answers to one."""
    two = established(version)
    if asks == "a":
        two.shift = MOVED
    else:

        def trouble(sender: int, packet: IkePacket, now: float) -> Iterable[float]:
            if sender == B:
                two.shift = MOVED
            return [0.005]

        two.trouble = trouble
    two.ask(two.a if asks == "a" else two.b, "rekey", what="child")
    two.run(1)
    assert two.b.session.path.remote_port == 4500 + MOVED
    assert all(one.encapsulation == (UdpEncapsulation(4500, NAT, 4500 + MOVED),) for one in two.b.installs)
    assert len(two.b.moves) == 1, "said once, of what was there"
    two.run(60)
    settled(two)


@pytest.mark.parametrize(
    ("mode", "lost"), [*(("main", n) for n in (1, 2, 3, 4)), ("aggressive", 1), ("aggressive", 2)]
)
def test_a_repeated_message_from_another_port_is_answered_there(mode: str, lost: int) -> None:
    """An answer of b's gets lost with the mapping of the NAT: what a sends again brings a new one."""
    two = behind_a_nat(1, mode)
    answers = 0

    def trouble(sender: int, packet: IkePacket, now: float) -> Iterable[float]:
        nonlocal answers
        if sender == B:
            answers += 1
            if answers == lost:
                two.shift = MOVED
                return []
        return [0.005]

    two.trouble = trouble
    two.run(3)
    settled(two)
    assert two.b.session.path.remote_port == 4500 + MOVED


def test_the_refusal_of_a_proof_goes_where_the_proof_came_from() -> None:
    """The proof comes by port 4500, and what was said before came by another."""
    two = behind_a_nat(1, psk=b"another one")
    two.run(0.2)
    ports = [(one.local_port, one.remote_port) for one in two.b.sent]
    assert ports == [(500, 500 + SHIFT)] * 2 + [(4500, 4500 + SHIFT)]


@pytest.mark.parametrize("version", [1, 2])
def test_ah_does_not_pass(version: int) -> None:
    two = behind_a_nat(version, suites=AH_ONLY)
    two.run(3)
    assert not two.a.pairs
    assert not two.b.pairs
    assert two.a.says("AH does not pass" if version == 1 else "AH cannot pass the NAT")
