"""The tables of version 2: every state and event, and real messages bent inside and outside their protection."""

from __future__ import annotations

import pytest

from chassis.ase.ike.crypto import ikev2 as protect
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.v2 import child_sas, ike_sa
from chassis.model.ike import IkeProposal
from tests.support.ike.v2_pair import End, both, line, rule, suite
from tests.support.ike.v2_pair import Net as Way

FAST = (IkeProposal("p", 2, dh_group=1),)


def test_every_state_can_end() -> None:
    for machine, last in (
        (ike_sa.IKE_SA, ike_sa.IkeSaState.CLOSED),
        (child_sas.CHILD_SA, child_sas.ChildSaState.DELETED),
    ):
        assert machine.table[last] == {}
        for state, row in machine.table.items():
            assert state is last or last in {after for after, _ in row.values()}, state


def exercise(net: Way) -> None:
    """Everything that sessions say to each other: set-up, two lines, rekeys by both, deletes, close."""
    a, b = net.a, net.b
    a.begin()
    net.run(0.5)
    for end, other in ((a, b), (b, a)):
        for one in [one for one in end.live if one.established][:1]:
            for serial, pair in list(end.pairs.items()):
                wanted = end.connections[0].line(pair.install.entry)
                assert wanted is not None
                one.negotiate(wanted, serial, net.now)
            net.run(0.3)
            one.rekey(net.now)
            if other.pairs:
                for session in [session for session in other.live if session.established][:1]:
                    session.drop(max(other.pairs), "by the test", net.now)
            net.run(0.5)
    for one in a.live:
        one.close("by the test", net.now)
    net.run(100)


def lines() -> tuple[object, ...]:
    return (
        line(10, suite(group=1), rules=(rule(1 << 16, 2 << 16),)),
        line(20, suite("hmac-md5-96", ip_comp=True, esn=True), rules=(rule(3 << 16, 4 << 16),)),
    )


def bent(data: bytes, net: Way) -> bytes:
    """A message with one thing wrong: an octet, a piece cut out, doubled or blanked."""
    choose = net.random
    at = choose.randrange(len(data)) if data else 0
    size = choose.choice((1, 2, 4, 8))
    kind = choose.randrange(5)
    if kind == 0:
        return data[:at] + choose.randbytes(1) + data[at + 1 :]
    if kind == 1:
        return data[:at] + data[at + size :]
    if kind == 2:
        return data[:at] + data[at : at + size] + data[at:]
    if kind == 3:
        return data[:at] + bytes(size) + data[at + size :]
    return data[:at] + b"\xff" * size + data[at + size :]


@pytest.mark.parametrize("seed", range(150))
def test_what_is_bent_inside_the_protection_raises_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Authentic nonsense: at most the peer's own SAs suffer, no exception escapes, and all comes to an end."""
    net = Way(*both(*lines(), proposals=FAST), seed=seed)  # type: ignore[arg-type]
    true = protect.emit_payloads

    def emit(payloads: object) -> tuple[int, bytes]:
        first, plain = true(payloads)  # type: ignore[arg-type]
        if net.random.random() < 0.2:
            plain = bent(plain, net)
        return first, plain

    monkeypatch.setattr(protect, "emit_payloads", emit)
    exercise(net)
    for end in (net.a, net.b):
        held = {
            spi for one in end.live for child in one.child_sas.by_serial.values() for spi in child.spis_in.values()
        }
        assert end.taken == held
        assert set(end.owners) == set(end.pairs)


@pytest.mark.parametrize("seed", range(150))
def test_what_is_bent_on_the_way_harms_nothing_that_stands(seed: int) -> None:
    net = Way(*both(*lines(), proposals=FAST), seed=seed)  # type: ignore[arg-type]

    def hook(sender: End, data: bytes, header: Header) -> float | bytes:
        if header.exchange != 34 and net.random.random() < 0.2:
            changed = bent(data, net)
            return changed[:24] + len(changed).to_bytes(4, "big") + changed[28:] if len(changed) > 28 else data
        return 0.0

    net.hook = hook
    net.a.begin()
    net.run(20)
    net.agree(2)
    net.hook = None
    net.flow(0.05)
    assert not net.lost
