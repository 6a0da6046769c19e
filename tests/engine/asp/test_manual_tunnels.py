"""From records to SAs: what is reported, what a change touches, what a new process goes on with."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest

from chassis.ase.engine import AspEngine
from chassis.ase.ipsec.state import octets_for
from chassis.ase.tunnels import MAX_TUNNELS_PER_SLICE
from chassis.bus.batch import Batch
from chassis.bus.messages import FromCard, Heartbeat, LogRecord, Request, SaEvent, TunnelEvent
from chassis.bus.records import PolicyRecord, TunnelRecord
from chassis.bus.replication import MAX_RECORDS_PER_SLICE
from chassis.model.acl import Acl, AclRule
from chassis.model.ipsec import TunnelEntry
from tests.support.asp import (
    ASP,
    CIRCUIT,
    ECONOMICAL,
    INNER,
    SPARE,
    Controller,
    altered,
    ip,
    manual_sa,
    packets_of,
    pair,
    records,
    thousands,
    udp_packet,
    with_keys,
)

LAST = (1 << 32) - 1


def tunnel_events(said: list[FromCard]) -> list[tuple[int, bool, str]]:
    return [(event.tunnel, event.up, event.reason) for event in said if isinstance(event, TunnelEvent)]


def sequence_numbers(batch: Batch) -> list[int]:
    """Of ESP packets."""
    return [int.from_bytes(packet[24:28], "big") for packet in packets_of(batch)]


def send(end: Controller, count: int = 1) -> list[int]:
    [(_, out)] = end.protect(CIRCUIT, [udp_packet(number=i) for i in range(count)])
    return sequence_numbers(out)


LEASE = ("lease_start", "lease_end", "hold")


def with_entry(end: Controller, number: int = CIRCUIT, **fields: Any) -> TunnelRecord:
    tunnel = end.tunnel(number)
    lease = {name.removeprefix("lease_"): fields.pop(name) for name in list(fields) if name in LEASE}
    (entry,) = tunnel.config.entries
    if lease:
        tunnel = replace(tunnel, leases=(replace(tunnel.lease(entry.seq), **lease),))
    return altered(tunnel, entries=(replace(entry, **fields),))


def acl(destination: str, length: int = 8, name: str = "filter") -> PolicyRecord:
    return PolicyRecord(INNER, Acl(name, rules=(AclRule(10, destination=(ip(destination), length)),)))


def test_installed_tunnels_are_reported_with_their_sas_and_never_their_keys() -> None:
    a = Controller(records(kind="bundle"))
    events = [event for event in a.said if isinstance(event, TunnelEvent)]
    assert [(event.tunnel, event.up, event.reason, event.peer) for event in events] == [
        (CIRCUIT, True, "", ip("40.0.0.2")),
        (ECONOMICAL, True, "", ip("40.0.0.2")),
    ]
    assert [(sa.serial, sa.direction, sa.protocol, sa.spi, sa.algorithms, sa.window) for sa in events[0].sas] == [
        (10, "out", "ah", 1001, "hmac-md5-96", 0),
        (10, "out", "esp", 1000, "aes-128-cbc hmac-sha1-96", 0),
        (10, "in", "ah", 1011, "hmac-md5-96", 64),
        (10, "in", "esp", 1010, "aes-128-cbc hmac-sha1-96", 64),
    ]
    assert a.hello().sas == ()
    a.take(a.asp.on_connected(a.now))
    assert len(a.hello().sas) == 8
    assert "iiii" not in repr(a.said)


@pytest.mark.parametrize(("change", "reason"), [
    ({"entries": ()}, "tunnel without sa"),
    ({"entries": (TunnelEntry(10, policy="p"),)}, "seq 10 names no security association"),
    ({"entries": (TunnelEntry(10, sa="x"),)}, "security association x does not exist"),
    ({"entries": (TunnelEntry(10, sa="sa1", acl="x"),)}, "access list x does not exist"),
    ({"df_bit": "odd"}, "df-bit odd is not valid; expected propagate, set or clear"),
])  # fmt: skip
def test_an_incomplete_tunnel_says_why_and_drops(change: dict[str, object], reason: str) -> None:
    a, _ = pair()
    said = a.put(altered(a.tunnel(CIRCUIT), **change))  # type: ignore[arg-type]
    assert tunnel_events(said) == [(CIRCUIT, False, reason)]
    assert a.protect(CIRCUIT, [udp_packet()]) == []
    assert a.drops() == {"tunnel without sa": 1}
    # It is said again to a controller that comes back; what is up is in the hello.
    before = len(a.said)
    a.take(a.asp.on_connected(a.now))
    a.admit()
    assert tunnel_events(a.said[before:]) == [(CIRCUIT, False, reason)]


def test_a_wrong_key_is_a_reason_not_a_crash() -> None:
    a, _ = pair()
    sa = a.record("manual-sa", "sa1")
    assert isinstance(sa, PolicyRecord)
    said = a.put(with_keys(sa, "out", esp_cipher_key=b"short"))
    assert tunnel_events(said) == [
        (CIRCUIT, False, "security association sa1: key has 5 bytes, aes-128-cbc needs 16")
    ]
    said = a.put(with_keys(sa, "in", esp_spi=0))
    assert tunnel_events(said) == [(CIRCUIT, False, "security association sa1: an SA needs ESP, AH or both")]
    assert tunnel_events(a.put(sa)) == [(CIRCUIT, True, "")]


@pytest.mark.behaviour("B-130", "B-194")
def test_an_access_list_change_acts_at_once_both_ways_and_keeps_the_numbers() -> None:
    a, b = pair()
    for end, allowed in ((a, "60.0.0.0"), (b, "50.0.0.0")):
        end.put(acl(allowed), with_entry(end, acl="filter"))
    assert send(a) == [1]
    assert a.protect(CIRCUIT, [udp_packet(destination="61.0.0.1")]) == []
    [(_, old)] = a.protect(CIRCUIT, [udp_packet()])
    assert len(b.open(old)) == 1
    a.put(acl("61.0.0.0"))
    assert a.protect(CIRCUIT, [udp_packet()]) == []
    [(_, out)] = a.protect(CIRCUIT, [udp_packet(destination="61.0.0.1")])
    assert sequence_numbers(out) == [3]
    assert len(b.open(out)) == 1
    # The other end's list is the mirror: it looks at where packets come from.
    b.put(acl("51.0.0.0"))
    [(_, out)] = a.protect(CIRCUIT, [udp_packet(destination="61.0.0.1")])
    assert b.open(out) == []
    assert b.open(old) == []
    assert a.drops() == {"no policy": 2}
    assert b.drops() == {"selector mismatch": 1, "replayed": 1}


@pytest.mark.behaviour("B-127")
def test_only_the_first_rule_of_a_list_filters() -> None:
    a, _ = pair()
    rules = (AclRule(10, destination=(ip("60.0.0.0"), 8)), AclRule(20))
    a.put(PolicyRecord(INNER, Acl("filter", rules=rules)), with_entry(a, acl="filter"))
    assert a.protect(CIRCUIT, [udp_packet(destination="99.0.0.1")]) == []
    assert send(a) == [1]


@pytest.mark.behaviour("B-195")
def test_a_change_of_one_tunnel_touches_no_other() -> None:
    a, b = pair()
    held = a.asp.sadb.outbound[ECONOMICAL, 10], a.asp.sadb.inbound[ECONOMICAL, 10]
    send(a, 5)
    sa = a.record("manual-sa", "sa1")
    assert isinstance(sa, PolicyRecord)
    said = a.put(with_keys(sa, "out", esp_cipher_key=b"d" * 16))
    assert said == [] or tunnel_events(said) == [(CIRCUIT, True, "")]
    assert (a.asp.sadb.outbound[ECONOMICAL, 10], a.asp.sadb.inbound[ECONOMICAL, 10]) == held
    # New keys under the same SPI go on where the old ones stopped.
    clear(a, CIRCUIT)
    assert (a.asp.sadb.outbound[ECONOMICAL, 10], a.asp.sadb.inbound[ECONOMICAL, 10]) == held
    assert send(a) == [6]
    circuit = a.asp.sadb.outbound[CIRCUIT, 10]
    a.put(altered(a.tunnel(CIRCUIT), circuit=99, home="lc 4", up=False, reason="no route", mtu=300))
    assert a.asp.sadb.outbound[CIRCUIT, 10] is circuit
    assert b.drops() == {}


@pytest.mark.behaviour("B-193", "B-195", "B-197")
def test_changed_keys_wait_for_a_clear_of_their_tunnel() -> None:
    """Keys, algorithms and window of a manual SA are those that it began with until it is cleared (guide 11)."""
    a, b = pair()
    sa, there = a.record("manual-sa", "sa1"), b.record("manual-sa", "sa1")
    assert isinstance(sa, PolicyRecord)
    assert isinstance(there, PolicyRecord)
    a.put(with_keys(sa, "out", esp_integrity_key=b"d" * 20))
    [(_, out)] = a.protect(CIRCUIT, [udp_packet()])
    assert len(b.open(out)) == 1
    # Something else of the tunnel acts at once, and takes the new keys along no more than before.
    a.put(acl("60.0.0.0"), with_entry(a, acl="filter"))
    assert a.protect(CIRCUIT, [udp_packet(destination="99.0.0.1")]) == []
    [(_, out)] = a.protect(CIRCUIT, [udp_packet()])
    assert len(b.open(out)) == 1
    clear(a, ECONOMICAL)
    [(_, out)] = a.protect(CIRCUIT, [udp_packet()])
    assert len(b.open(out)) == 1
    clear(a, CIRCUIT)
    [(_, new)] = a.protect(CIRCUIT, [udp_packet()])
    assert sequence_numbers(new) == [4]
    assert b.open(new) == []
    assert b.drops() == {"esp integrity": 1}
    # The other end has the same change, and needs the same command.
    b.put(with_keys(there, "in", esp_integrity_key=b"d" * 20))
    assert b.open(a.protect(CIRCUIT, [udp_packet()])[0][1]) == []
    clear(b, CIRCUIT)
    assert len(b.open(a.protect(CIRCUIT, [udp_packet()])[0][1])) == 1


def clear(end: Controller, tunnel: int) -> None:
    end.take(end.asp.receive(Request(1, "clear", {"tunnel": tunnel}), end.now))


@pytest.mark.behaviour("B-211")
def test_deleting_a_tunnel_removes_its_sas_and_bringing_it_back_goes_on() -> None:
    a, b = pair()
    [(_, out)] = a.protect(CIRCUIT, [udp_packet()])
    b.open(out)
    tunnel, there = a.tunnel(CIRCUIT), b.tunnel(CIRCUIT)
    a.put(delete=[tunnel.key])
    b.put(delete=[there.key])
    assert a.protect(CIRCUIT, [udp_packet()]) == []
    assert b.open(out) == []
    assert b.drops() == {"no inbound sa": 1}
    assert tunnel_events(a.put(tunnel)) == [(CIRCUIT, True, "")]
    b.put(there)
    assert send(a) == [2]
    assert b.open(out) == []
    assert b.drops() == {"no inbound sa": 1, "replayed": 1}


def test_a_tunnel_of_another_asp_is_not_installed() -> None:
    a, _ = pair()
    assert a.put(replace(a.tunnel(CIRCUIT), asp=SPARE)) == []
    assert a.protect(CIRCUIT, [udp_packet()]) == []
    assert a.drops() == {"no tunnel": 1}
    assert tunnel_events(a.put(replace(a.tunnel(CIRCUIT), asp=ASP))) == [(CIRCUIT, True, "")]


def test_tunnels_that_swap_their_security_associations_in_one_change() -> None:
    a, _ = pair()
    swapped = [with_entry(a, 1, sa="sa2"), with_entry(a, 2, sa="sa1")]
    said = a.put(*swapped)
    assert sorted(tunnel_events(said)) == [(1, True, ""), (2, True, "")]
    [(_, out)] = a.protect(CIRCUIT, [udp_packet()])
    assert packets_of(out)[0][20:24] == (2000).to_bytes(4, "big")


def test_a_conflict_is_a_reason_that_ends_with_the_other_tunnel() -> None:
    a, _ = pair()
    said = a.put(with_entry(a, ECONOMICAL, sa="sa1"))
    [(number, up, reason)] = tunnel_events(said)
    assert (number, up) == (ECONOMICAL, False)
    assert "SPI 1000" in reason
    said = a.put(delete=[("tunnel", CIRCUIT)])
    assert tunnel_events(said) == [(ECONOMICAL, True, "")]


def test_a_lease_is_asked_for_at_half_and_again_after_the_controller_was_away() -> None:
    a, _ = pair()
    a.put(with_entry(a, lease_start=1, lease_end=101))
    a.said.clear()
    assert send(a, 60) == list(range(1, 61))
    [event] = [message for message in a.said if isinstance(message, SaEvent)]
    assert (event.event, event.sa.tunnel, event.sa.serial, event.sa.spi, event.next_sequence) == (
        "lease", CIRCUIT, 10, 1000, 61,
    )  # fmt: skip
    a.said.clear()
    send(a, 10)
    assert a.said == []
    a.asp.on_disconnected(a.now)
    a.take(a.asp.on_connected(a.now))
    a.admit()
    assert [message.event for message in a.said if isinstance(message, SaEvent)] == ["lease"]
    [(_, out)] = a.protect(CIRCUIT, [udp_packet()] * 40)
    assert sequence_numbers(out) == list(range(71, 101))
    assert a.drops() == {"no lease": 10}
    a.said.clear()
    a.put(with_entry(a, lease_start=1, lease_end=1101))
    assert send(a) == [101]
    a.take(a.asp.on_connected(a.now))
    a.admit()
    assert not [message for message in a.said if isinstance(message, SaEvent)]


def test_at_the_last_number_the_sa_stops_and_says_so_even_after_a_restart() -> None:
    a, _ = pair()
    a.put(with_entry(a, lease_start=LAST - 1, lease_end=LAST + 1))
    a.said.clear()
    [(_, out)] = a.protect(CIRCUIT, [udp_packet()] * 3)
    assert sequence_numbers(out) == [LAST - 1, LAST]
    assert a.drops() == {"sequence exhausted": 1}
    assert [message.event for message in a.said if isinstance(message, SaEvent)] == ["exhausted"]
    assert tunnel_events(a.said) == [(CIRCUIT, False, "sequence numbers used up")]
    a.said.clear()
    a.start()
    assert (CIRCUIT, False, "sequence numbers used up") in tunnel_events(a.said)
    assert a.protect(CIRCUIT, [udp_packet()]) == []
    # Another SPI is another SA.
    said = a.put(replace(manual_sa("sa1", 5000)), with_entry(a, lease_start=1, lease_end=100))
    assert tunnel_events(said) == [(CIRCUIT, True, "")]
    assert send(a) == [1]


@pytest.mark.parametrize("kind", ["esp", "ah", "bundle"])
def test_a_window_made_wider_lets_nothing_in_again(kind: str) -> None:
    a, b = pair(kind=kind)
    captured = []
    for i in range(200):
        [(_, out)] = a.protect(CIRCUIT, [udp_packet(number=i)])
        captured.append(out)
        assert len(b.open(out)) == 1
    for window in (128, 1024, 64, 256):
        b.put(manual_sa("sa1", 1000, kind, there=True, window=window))
        clear(b, CIRCUIT)
        assert next(sa.window for sa in b.asp.tunnels.local[CIRCUIT].sas if sa.direction == "in") == window
        for out in captured:
            assert b.open(out) == []
        [(_, out)] = a.protect(CIRCUIT, [udp_packet()])
        captured.append(out)
        assert len(b.open(out)) == 1


def test_a_new_process_uses_no_number_twice_and_accepts_no_replay() -> None:
    a, b = pair(kind="bundle")
    used: set[int] = set()
    captured: list[Batch] = []
    for round_number in range(6):
        for _ in range(3):
            [(_, out)] = a.protect(CIRCUIT, [udp_packet(number=i) for i in range(7)])
            numbers = {int.from_bytes(packet[28:32], "big") for packet in packets_of(out)}
            assert len(numbers) == 7
            assert not numbers & used
            used |= numbers
            captured.append(out)
            [(_, opened)] = b.open(out)
            assert len(opened) == 7
        (a, b)[round_number % 2].start()
        for batch in captured:
            assert b.open(batch) == []
    assert not a.hello().fresh


def test_fresh_until_the_first_snapshot_even_if_a_process_died_before_it() -> None:
    a, _ = pair()
    assert a.hello().fresh
    a.take(a.asp.on_connected(a.now))
    assert not a.hello().fresh
    a.start()
    assert not a.hello().fresh
    state = memoryview(bytearray(octets_for(8)))
    for boot in (1, 2):
        asp = AspEngine(ASP, pid=1, boot=boot, state=state, fresh=boot == 1, random=a.random.randbytes)
        a.take(asp.on_connected(a.now))
        assert a.hello().boot == boot
        assert a.hello().fresh


def test_damaged_state_is_begun_anew_and_said() -> None:
    a, _ = pair()
    send(a, 5)
    a.state[0:4] = b"\xff" * 4
    a.said.clear()
    # The controller answers the hello with a lease beyond all that was used.
    a.publisher.put(with_entry(a, lease_start=1 << 20, lease_end=2 << 20))
    a.start()
    assert a.hello().fresh
    [record] = [message for message in a.said if isinstance(message, LogRecord)]
    assert record.severity == "error"
    assert "magic" in record.text
    assert send(a) == [1 << 20]


def test_full_state_is_a_reason() -> None:
    a = Controller(records(), slots=3)
    [first, second] = tunnel_events(a.said)
    assert first == (CIRCUIT, True, "")
    assert second[:2] == (ECONOMICAL, False)
    assert "full" in second[2]


def test_thousands_of_tunnels_are_installed_in_slices_between_heartbeats() -> None:
    a, made = thousands(1000)
    for part in a.publisher.snapshot(ASP):
        a.take(a.asp.receive(part, a.now))
    assert len(a.asp.replica.records) <= MAX_RECORDS_PER_SLICE
    # What changes meanwhile comes behind the slices of the snapshot.
    last = made[-1]
    assert isinstance(last, TunnelRecord)
    a.publisher.put(altered(last, entries=()))
    a.publisher.delete(("tunnel", 999))
    for _, delta in a.publisher.flush():
        a.take(a.asp.receive(delta, a.now))
    while a.asp.next_timer() == -inf:
        a.now += 0.1
        held, told = len(a.asp.replica.records), len(tunnel_events(a.said))
        a.take(a.asp.on_timer(a.now))
        assert len(a.asp.replica.records) - held <= MAX_RECORDS_PER_SLICE
        # Those of the slice, and those of slices before it.
        assert len(tunnel_events(a.said)) - told <= 2 * MAX_TUNNELS_PER_SLICE
    events = tunnel_events(a.said)
    assert list(dict.fromkeys(number for number, _, _ in events)) == list(range(1, 1001))
    assert [number for number, up, _ in events if not up] == [1000]
    assert list(a.asp.tunnels.local) == [*range(1, 999), 1000]
    beats = [message.version for message in a.said if isinstance(message, Heartbeat)]
    # The snapshot counts as held when all of it is in force, which is said at once.
    assert set(beats[:-1]) == {1}
    assert beats[-1] == a.publisher.version


def test_an_sa_that_is_held_back_is_down_and_says_why() -> None:
    a, b = pair()
    a.said.clear()
    a.put(with_entry(a, hold="not let go of by asp 1/2 yet"))
    assert tunnel_events(a.said) == [(CIRCUIT, False, "not let go of by asp 1/2 yet")]
    assert a.protect(CIRCUIT, [udp_packet()]) == []
    a.put(with_entry(a, hold=""))
    assert len(b.open(a.protect(CIRCUIT, [udp_packet()])[0][1])) == 1


def test_where_the_count_of_numbers_is_lost_the_mapped_state_says_where_to_go_on() -> None:
    a, _ = pair()
    assert send(a, 20)[-1] == 20
    a.publisher.put(with_entry(a, lease_start=0, lease_end=0))
    a.said.clear()
    a.start()
    assert tunnel_events(a.said)[0][:2] == (CIRCUIT, True)
    # No number is used before the controller has given some, which it is asked for with the next one.
    assert a.protect(CIRCUIT, [udp_packet()]) == []
    asked = {(said.event, said.next_sequence) for said in a.said if isinstance(said, SaEvent)}
    assert asked == {("lease", 21)}
    a.put(with_entry(a, lease_start=21, lease_end=1000))
    assert send(a) == [21]


def test_where_nobody_knows_the_count_the_sa_is_stopped() -> None:
    a = Controller(records())
    # Its mapped state is another one, and the controller can't read its leases.
    a.state[:] = bytes(a.state.nbytes)
    a.publisher.put(with_entry(a, lease_start=0, lease_end=0))
    a.said.clear()
    a.start()
    why = "next sequence number is unknown; configure another SPI"
    assert (CIRCUIT, False, why) in tunnel_events(a.said)
    assert a.protect(CIRCUIT, [udp_packet()]) == []
