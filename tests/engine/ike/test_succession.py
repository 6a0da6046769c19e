"""SAs that are succeeded, deleted, used up or at their end, in both versions, with packets all the while."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace

import pytest

from chassis.ase.ike.host import Session
from chassis.ase.ike.payloads.numbers import Protocol
from chassis.ase.ike.payloads.v1 import DeleteV1
from chassis.ase.ike.v2.ike_sa import MESSAGE_ID_REKEY_THRESHOLD
from chassis.ase.ike_messages import SaExpire
from tests.support.ike.pair import TUNNEL, Ends, EnginePair, always, esp, other, proposal, settled


def established(version: int, *, both: bool = False, **more: object) -> EnginePair:
    """End a initiates, or both may."""
    ends = replace(Ends(version=version, connection="both" if both else "initiator-only"), **more)
    two = EnginePair(ends, replace(other(ends), connection="both" if both else "responder-only"))
    two.run(3)
    settled(two)
    return two


def serials(two: EnginePair) -> list[int]:
    return [serial for _, serial in two.a.pairs]


@pytest.mark.behaviour("B-046", "B-047")
@pytest.mark.parametrize("version", [1, 2])
def test_pairs_and_ike_sas_are_succeeded_before_they_end(version: int) -> None:
    two = established(
        version, suites=(esp(seconds=300),), lifetime=700, proposals=(proposal(version, lifetime=700),)
    )
    first = two.a.session
    always(two, 3000)
    installs = sorted([*two.b.gone.values(), *two.b.installs], key=lambda one: one.serial)
    assert 10 <= len(installs) <= 14
    assert [one.replaces for one in installs] == [0, *[one.serial for one in installs[:-1]]]
    if version == 1:
        assert not any(one.send for one in installs), "who answers sends when message 3 has come"
    assert first.closed
    assert two.a.count("IKE SAs rekeyed") >= 4
    two.run(40)
    settled(two)


def test_pairs_of_version_1_stay_when_phase_1_is_made_anew() -> None:
    two = established(1, lifetime=300, proposals=(proposal(1, lifetime=300),))
    (install,) = two.a.installs
    first = two.a.session
    always(two, 320)
    assert two.a.session is not first
    assert two.a.installs == [install]
    assert two.a.ike.ike_sa_manager.table.child_owner[TUNNEL, install.serial] is two.a.session


def test_the_older_sa_of_version_1_has_the_pairs_again_when_the_newer_one_goes() -> None:
    two = established(1)
    older = two.a.session
    two.ask(two.a, "rekey", what="ike")
    always(two, 1)
    newer = next(one for one in two.a.standing if one is not older)
    two.drive(two.a, newer.close, "by the test", two.now)
    always(two, 1)
    assert two.a.standing == [older]
    always(two, 50)
    settled(two)


@pytest.mark.parametrize("version", [1, 2])
def test_either_end_makes_the_next_one(version: int) -> None:
    two = established(version, both=True)
    for what in ("child", "ike"):
        two.ask(two.b, "rekey", what=what)
        always(two, 30)
    assert serials(two) == [2]
    assert two.b.installs[0].initiator
    assert two.b.session.initiator
    settled(two)


@pytest.mark.parametrize("version", [1, 2])
def test_what_cannot_be_succeeded_ends_when_its_time_is_over(version: int) -> None:
    """In version 1 pairs outlive their IKE SA, each by its own lifetime."""
    two = established(
        version, suites=(esp(seconds=900 if version == 1 else 300),), proposals=(proposal(version, lifetime=300),)
    )
    (install,) = two.b.installs
    two.trouble = lambda *_: []
    if version == 1:
        two.run(350)
        assert not two.b.standing
        assert two.b.installs == [install]
    two.run(650)
    for end in (two.a, two.b):
        assert not end.pairs
        assert not end.standing
    assert two.b.ike.ike_sa_manager.spis_held == 0


@pytest.mark.behaviour("B-111")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("says", ["a", "b"])
def test_a_pair_that_is_used_up_has_a_successor_or_ends(version: int, says: str) -> None:
    two = established(version, both=True, suites=(esp(kbytes=1000),))
    end = two.a if says == "a" else two.b
    two.give(end, SaExpire(TUNNEL, 1, False, "kilobytes"))
    always(two, 20)
    assert serials(two) == [2]
    two.give(end, SaExpire(TUNNEL, 2, True, "kilobytes"))
    two.run(30)
    assert serials(two) not in ([1], [2])
    settled(two)


def test_message_ids_of_version_2_do_not_run_out() -> None:
    two = established(2)
    first = two.a.session
    first.task_manager.next_message_id = MESSAGE_ID_REKEY_THRESHOLD
    two.b.session.task_manager.expected_message_id = MESSAGE_ID_REKEY_THRESHOLD
    two.run(1)
    two.drive(two.a, first.on_timer, two.now)
    two.run(5)
    settled(two)
    assert first.closed
    assert two.a.session.task_manager.next_message_id < 10


@pytest.mark.behaviour("B-193")
@pytest.mark.parametrize("version", [1, 2])
def test_another_suite_is_for_the_next_pair(version: int) -> None:
    two = established(version, suites=(esp(seconds=300),))
    ends = Ends(version=version, connection="initiator-only", suites=(esp(cipher="3des-cbc", seconds=300),))
    two.configure(two.a, ends.records(), whole=True)
    two.configure(two.b, replace(other(ends), connection="responder-only").records(), whole=True)
    always(two, 1)
    assert two.a.installs[0].inbound.esp_cipher == "aes-128-cbc"
    always(two, 300)
    sender = two.a.sender()
    assert sender is not None
    assert sender.inbound.esp_cipher == "3des-cbc"


# --- deletes ---


def test_a_pair_of_version_1_that_is_deleted_takes_its_spis_with_it() -> None:
    two = established(1, suites=(esp("hmac-sha1-96"),))
    (pair,) = two.a.installs
    two.drive(two.a, two.a.session.delete_child, pair.serial, "cleared", two.now)
    two.run(0.1)
    assert {"ikev1-delete-received-esp", "ikev1-delete-received-ah"} <= set(two.b.rows())
    assert two.b.deleted
    assert two.b.standing
    two.run(5)
    settled(two)


@pytest.mark.parametrize("mode", ["main", "aggressive"])
@pytest.mark.parametrize("by", ["initiator", "responder"])
def test_a_delete_of_the_isakmp_sa_leaves_the_pairs(mode: str, by: str) -> None:
    """They are SAs of their own (RFC 2408 3.15, RFC 2409 5.5); the next ISAKMP SA has them."""
    two = established(1, mode=mode)
    deleting, hears = (two.a, two.b) if by == "initiator" else (two.b, two.a)
    (install,) = hears.installs
    mine, session = deleting.session, hears.session
    two.drive(deleting, mine.send_informational, (mine.isakmp_sa_delete(),), two.now)
    two.run(0.1)
    assert hears.installs == [install]
    assert hears.says("IPsec SAs stay")
    assert not session.established
    two.run(6)
    assert session.closed or session.secrets() == [], "the keys are gone"
    two.drive(deleting, mine.close, "enough", two.now, tell=False, keep=True)
    two.run(20)
    assert session.closed
    assert hears.installs == [install]
    assert hears.ike.ike_sa_manager.table.child_owner[TUNNEL, install.serial] is hears.session
    settled(two)
    two.ask(two.a, "rekey", what="child")
    always(two, 30)
    assert hears.installs != [install]
    settled(two)


@pytest.mark.parametrize("how", ["one message", "the other way round"])
def test_pairs_that_the_peer_deletes_too_go_whatever_comes_first(how: str) -> None:
    """The ISAKMP SA is deleted first in the message, or by a message that overtook the other one."""
    two = established(1)
    (install,) = two.a.installs
    session = two.b.session
    both = (session.isakmp_sa_delete(), DeleteV1(Protocol.ESP, (install.outbound.esp_spi.to_bytes(4, "big"),)))
    if how == "one message":
        two.drive(two.b, session.send_informational, both, two.now)
    else:
        delays = [0.03, 0.01]
        two.trouble = lambda *_: [delays.pop(0) if delays else 0.01]
        two.drive(two.b, session.send_informational, both[1:], two.now)
        two.drive(two.b, session.send_informational, both[:1], two.now)
    two.run(0.05)
    assert not two.a.pairs
    assert not two.a.standing
    assert "ikev1-delete-received-esp" in two.a.rows()
    assert two.a.ike.ike_sa_manager.spis_held == 0


def test_a_peer_that_never_heard_of_the_old_pair_of_version_2() -> None:
    two = established(2)
    (theirs,) = two.b.session.child_sas.by_serial.values()
    two.drive(two.b, two.b.session.remove_child, theirs, "lost by the test", two.now)
    two.ask(two.a, "rekey", what="child")
    two.run(10)
    settled(two)
    assert not two.a.count("failed child not found")


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Nothing looks for cycles: what is freed is freed by its last reference."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def sessions_held() -> int:
    return sum(Session in type(one).__mro__ for one in gc.get_objects())


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(("version", "mode"), [(1, "main"), (1, "aggressive"), (2, "main")])
def test_a_session_that_ended_is_freed_at_once_with_its_keys(version: int, mode: str) -> None:
    before = sessions_held()
    two = established(version, mode=mode, lifetime=300, proposals=(proposal(version, lifetime=300),))
    assert sessions_held() == before + 2
    two.run(320)
    assert two.a.count("IKE SAs rekeyed") >= 1
    assert sessions_held() == before + 2
    two.configure(two.a, (), (("tunnel", TUNNEL),))
    two.run(40)
    assert sessions_held() == before
