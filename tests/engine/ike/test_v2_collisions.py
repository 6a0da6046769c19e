"""Everything that both ends may begin at the same time, with packets flowing (RFC 7296 2.8.1, 2.8.2, 2.25)."""

from __future__ import annotations

from itertools import product

import pytest

from chassis.ase.ike.host import IkeSettings
from chassis.ase.ike.payloads.header import Header
from tests.support.ike.v2_pair import End, Net, both, established, line, rule, suite

OFFSETS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.045)
"""Seconds by which the second end begins later; a message takes 0.01."""


def rekey_child(end: End) -> None:
    one = end.connections[0].lines[0]
    if end.pairs:
        end.session.negotiate(one, max(end.pairs), end.net.now)


def rekey_ike(end: End) -> None:
    end.session.rekey(end.net.now)


def delete_child(end: End) -> None:
    if end.pairs:
        end.session.drop(max(end.pairs), "by the test", end.net.now)


def delete_ike(end: End) -> None:
    end.session.close("by the test", end.net.now)


class Lose:
    """Loses the first message of an exchange type and direction that an end sends, as often as it is told."""

    def __init__(self, name: str, response: bool, times: int = 1) -> None:
        self.name, self.response, self.left = name, response, times

    def __call__(self, sender: End, data: bytes, header: Header) -> float | None:
        if self.left and sender.name == self.name and header.is_response == self.response:
            self.left -= 1
            return None
        return 0.0


LOSSES: tuple[tuple[str, bool] | None, ...] = (None, ("a", False), ("a", True), ("b", False), ("b", True))


def stage(seed: int, loss: tuple[str, bool] | None, *lines: object) -> Net:
    net = established(*(lines or (line(10, suite(group=2)),)), net={"seed": seed})  # type: ignore[arg-type]
    if loss is not None:
        net.hook = Lose(*loss)
    return net


def together(net: Net, first: object, second: object, offset: float) -> None:
    """Have a do one thing and b the other, with packets going; then enough time for retransmissions."""
    first(net.a)  # type: ignore[operator]
    net.flow(offset, 0.005)
    if [one for one in net.b.live if one.established]:
        second(net.b)  # type: ignore[operator]
    net.flow(3.0, 0.005)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize(
    ("first", "second"), [(rekey_child, rekey_child), (rekey_ike, rekey_ike), (rekey_child, rekey_ike)]
)
def test_rekeys_that_meet_lose_no_packet(
    first: object, second: object, offset: float, loss: tuple[str, bool] | None
) -> None:
    for seed in (1, 2):
        net = stage(seed, loss)
        together(net, first, second, offset)
        assert not net.lost[:5]
        net.run(60)
        net.agree()
        assert not net.a.failures
        assert not net.b.failures
        assert net.a.counts["integrity failures"] == net.b.counts["integrity failures"] == 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("offset", OFFSETS)
def test_a_child_that_is_rekeyed_here_and_deleted_there(offset: float, loss: tuple[str, bool] | None) -> None:
    """Whichever comes first, both ends hold the same afterwards: a successor, or nothing."""
    net = stage(1, loss)
    together(net, rekey_child, delete_child, offset)
    net.run(60)
    net.agree(len(net.a.pairs))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("first", [rekey_child, rekey_ike, delete_child, delete_ike])
def test_an_ike_sa_that_is_deleted_meanwhile_leaves_nothing_behind(
    first: object, offset: float, loss: tuple[str, bool] | None
) -> None:
    net = stage(1, loss)
    together(net, first, delete_ike, offset)
    net.run(60)
    if first is rekey_ike and net.a.live:
        net.agree()
    else:
        net.nothing()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("second", [rekey_ike, delete_child])
def test_a_delete_that_meets_something(second: object, offset: float, loss: tuple[str, bool] | None) -> None:
    net = stage(1, loss)
    together(net, delete_child, second, offset)
    net.run(60)
    net.agree(0)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("seed", range(6))
def test_the_same_line_made_by_both_ends_at_once_is_held_once(seed: int, offset: float) -> None:
    net = stage(seed, None)
    delete_child(net.a)
    net.run(2)
    net.agree(0)
    one, other = net.a.connections[0].lines[0], net.b.connections[0].lines[0]
    net.a.session.negotiate(one, 0, net.now)
    net.run(offset)
    net.b.session.negotiate(other, 0, net.now)
    net.run(60)
    net.agree()


@pytest.mark.parametrize("seed", range(40))
def test_anything_at_any_time_with_loss_doubling_and_reordering(seed: int) -> None:
    """Rekeys of every kind by both ends for a while: no pair leaks, both agree, and packets get through after."""
    lines = [line(seq, suite(group=2), rules=(rule(seq << 16, (seq + 100) << 16),)) for seq in (10, 20)]
    net = established(*lines, net={"seed": seed, "settings": IkeSettings(retransmit=0.1)})
    chance = net.random

    def hook(sender: End, data: bytes, header: Header) -> float | None:
        draw = chance.random()
        if draw < 0.1:
            return None
        if draw < 0.2:
            target = net.b if sender is net.a else net.a
            path = net.a.session.path if target is net.a and net.a.live else None
            if path is not None:
                net.at(net.now + chance.random() / 10, lambda: target.receive(path, data))
        return chance.random() / 20

    net.hook = hook
    for _ in range(25):
        end = chance.choice((net.a, net.b))
        standing = [one for one in end.live if one.established]
        if standing:
            session = standing[-1]
            if chance.random() < 0.3:
                session.rekey(net.now)
            elif end.pairs:
                serial = chance.choice(sorted(end.pairs))
                entry = end.pairs[serial].install.entry
                wanted = end.connections[0].line(entry)
                assert wanted is not None
                session.negotiate(wanted, serial, net.now)
        net.run(chance.random() / 5)
    net.hook = None
    net.run(120)
    net.agree(2)
    net.lost.clear()
    net.flow(0.2)
    assert not net.lost


@pytest.mark.parametrize(("first", "second"), [*product((rekey_child, rekey_ike), repeat=2)])
def test_collisions_do_happen_here(first: object, second: object) -> None:
    """The tests above would show nothing if the ends never met."""
    net = stage(1, None)
    together(net, first, second, 0.0)
    lost = net.a.counts["rekey collisions lost"] + net.b.counts["rekey collisions lost"]
    refused = net.a.counts["refused temporary failure"] + net.b.counts["refused temporary failure"]
    assert lost == (1 if first is second else 0)
    assert bool(refused) == (first is not second)


def test_a_peer_that_never_heard_of_the_old_pair() -> None:
    net = stage(1, None)
    (theirs,) = net.b.session.child_sas.by_serial.values()
    net.b.session.remove_child(theirs, "lost by the test", net.now)
    rekey_child(net.a)
    net.run(5)
    net.agree()
    assert not net.a.failures


def test_both_ends_begin_the_same_ike_sa_once_each() -> None:
    """Two IKE SAs are two: which one stays is decided above the sessions."""
    net = Net(*both())
    net.a.begin()
    net.b.begin()
    net.run(1)
    assert len([one for one in net.a.live if one.established]) == 2
