"""SA state: what it keeps, what it refuses to read, and kills between any two writes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.ipsec.state import FILE_SIZE, Direction, SaSlot, SaStateFile, SlotKey, StateError, octets_for
from tests.support.ipsec import (
    RIGHT,
    ah,
    batch,
    esp,
    inner,
    packets_of,
    protected,
    random_octets,
    receiver,
    sender,
)

KEY = SlotKey(Direction.OUTBOUND, 0, 50, 0x1001, RIGHT)
OTHER = SlotKey(Direction.INBOUND, 0, 50, 0x1001, RIGHT)


class KilledError(Exception):
    """The process is gone at this write."""


class Budget:
    """Writes left until the kill."""

    def __init__(self, writes: int) -> None:
        self.writes = writes
        self.used = 0

    def spend(self) -> None:
        if self.used == self.writes:
            raise KilledError
        self.used += 1


class KillableView:
    """A memoryview that is killed after so many words; a longer write is torn in between."""

    readonly = False
    c_contiguous = True

    def __init__(self, view: memoryview, budget: Budget) -> None:
        self.view = view
        self.budget = budget

    def cast(self, kind: str) -> KillableView:
        return KillableView(self.view.cast(kind), self.budget)  # type: ignore[call-overload]

    def tolist(self) -> list[int]:
        return self.view.tolist()

    def __len__(self) -> int:
        return len(self.view)

    def __bytes__(self) -> bytes:
        return bytes(self.view)

    def __getitem__(self, where: Any) -> Any:
        found = self.view[where]
        return KillableView(found, self.budget) if isinstance(where, slice) else found

    def __setitem__(self, where: Any, value: Any) -> None:
        if not isinstance(where, slice):
            self.budget.spend()
            self.view[where] = value
            return
        for at in range(0, len(value), 8):
            self.budget.spend()
            start = where.start + at
            self.view[start : start + 8] = value[at : at + 8]


def killable(memory: bytearray, writes: int) -> tuple[Any, Budget]:
    budget = Budget(writes)
    return KillableView(memoryview(memory), budget), budget


def test_a_fresh_buffer_is_formatted_once() -> None:
    memory = bytearray(octets_for(3))
    assert SaStateFile(memoryview(memory)).is_fresh
    again = SaStateFile(memoryview(memory))
    assert not again.is_fresh
    assert again.slots == 3


def test_numbers_and_windows_are_kept() -> None:
    memory = bytearray(octets_for(3))
    slot = SaStateFile(memoryview(memory)).claim(KEY)
    assert slot.is_new
    assert slot.next_number == 0
    assert slot.window() == (0, 0)
    slot.store_next(77)
    for edge in range(1, 6):
        slot.store_window(edge, 1 << 1023 | edge)
    kept = SaStateFile(memoryview(memory)).claim(KEY)
    assert not kept.is_new
    assert kept.next_number == 77
    assert kept.window() == (5, 1 << 1023 | 5)


def test_keys_have_slots_of_their_own() -> None:
    state = SaStateFile(memoryview(bytearray(octets_for(8))))
    keys = [
        KEY,
        OTHER,
        SlotKey(Direction.OUTBOUND, 1, 50, 0x1001, RIGHT),
        SlotKey(Direction.OUTBOUND, 0, 51, 0x1001, RIGHT),
        SlotKey(Direction.OUTBOUND, 0, 50, 0x1002, RIGHT),
        SlotKey(Direction.OUTBOUND, 0, 50, 0x1001, RIGHT + 1),
    ]
    assert len({state.claim(key).number for key in keys}) == len(keys)


def test_a_released_slot_is_revived_with_its_numbers() -> None:
    memory = bytearray(octets_for(2))
    state = SaStateFile(memoryview(memory))
    state.claim(KEY).store_next(500)
    state.release(KEY)
    assert state.claim(KEY).next_number == 500
    state.release(KEY)
    assert SaStateFile(memoryview(memory)).claim(KEY).next_number == 500


def test_a_released_slot_is_reused_only_when_no_other_is_free() -> None:
    state = SaStateFile(memoryview(bytearray(octets_for(2))))
    state.claim(KEY).store_next(500)
    state.release(KEY)
    first = state.claim(OTHER)
    assert first.is_new
    third = state.claim(SlotKey(Direction.INBOUND, 5, 51, 300, 1))
    assert third.is_new
    assert third.next_number == 0
    with pytest.raises(StateError, match="full: all 2 slots"):
        state.claim(KEY)
    state.release(OTHER)
    assert state.claim(KEY).is_new, "its old numbers are gone with its slot"


def test_slots_of_a_dead_process_are_reused_last() -> None:
    memory = bytearray(octets_for(3))
    state = SaStateFile(memoryview(memory))
    third = SlotKey(Direction.INBOUND, 5, 51, 300, 1)
    for number, key in enumerate((KEY, OTHER, third), start=100):
        state.claim(key).store_next(number)
    state.release(third)
    state = SaStateFile(memoryview(memory))
    assert state.claim(KEY).next_number == 100
    new = [SlotKey(Direction.OUTBOUND, 9, 50, 400 + number, 1) for number in range(3)]
    assert [state.claim(key).number for key in new[:2]] == [2, 1], "the released one goes first"
    assert state.claim(KEY).next_number == 100
    with pytest.raises(StateError, match="full"):
        state.claim(new[2])


@pytest.mark.parametrize(("word", "value", "text"), [
    (0, 123, "magic"),
    (1, 2, "version 2"),
    (2, 1, "damaged header"),
    (3, 41, "damaged header"),
    (4, 5, "damaged header"),
    (8, 3, "damaged in slot 0"),
    (8 + 4, 2, "damaged in slot 0"),
    (8 + 3, 2**32 + 1, "damaged in slot 0"),
])  # fmt: skip
def test_damage_is_named(word: int, value: int, text: str) -> None:
    memory = bytearray(octets_for(2))
    SaStateFile(memoryview(memory)).claim(KEY)
    memoryview(memory).cast("Q")[word] = value
    with pytest.raises(StateError, match=text):
        SaStateFile(memoryview(memory))


def test_a_lost_header_over_slots_in_use_is_no_fresh_file() -> None:
    memory = bytearray(octets_for(2))
    SaStateFile(memoryview(memory)).claim(KEY)
    memoryview(memory)[:64] = bytes(64)
    with pytest.raises(StateError, match="not empty"):
        SaStateFile(memoryview(memory))


def test_a_cut_file_and_a_bad_buffer_are_named() -> None:
    memory = bytearray(octets_for(4))
    SaStateFile(memoryview(memory))
    with pytest.raises(StateError, match="truncated"):
        SaStateFile(memoryview(memory)[: octets_for(3)])
    with pytest.raises(StateError, match="at least"):
        SaStateFile(memoryview(bytearray(20)))
    with pytest.raises(StateError, match="writable"):
        SaStateFile(memoryview(bytes(octets_for(1))))


def test_the_file_of_an_asp_holds_the_tunnels_of_a_card() -> None:
    assert SaStateFile(memoryview(bytearray(FILE_SIZE))).slots >= 2 * 2 * 8000


def test_a_kill_while_formatting_leaves_a_fresh_or_a_whole_file() -> None:
    for writes in range(6):
        memory = bytearray(octets_for(2))
        view, _ = killable(memory, writes)
        try:
            SaStateFile(view)
            killed = False
        except KilledError:
            killed = True
        assert SaStateFile(memoryview(memory)).is_fresh is killed


PROTOCOLS = [
    pytest.param(esp(), None, id="esp"),
    pytest.param(None, ah(), id="ah"),
    pytest.param(esp(), ah(), id="bundle"),
]


@pytest.mark.parametrize(("use_esp", "use_ah"), PROTOCOLS)
def test_no_number_is_used_twice_across_a_kill_at_any_write(use_esp: Any, use_ah: Any) -> None:
    def run(memory: bytearray, writes: int, sent: list[bytes]) -> bool:
        view, _ = killable(memory, writes)
        try:
            sadb = sender(use_esp, use_ah, into=Sadb(SaStateFile(view)))
            for size in (3, 1, 2):
                sent += protected(sadb, [inner(40)] * size)
        except KilledError:
            return False
        return True

    for writes in range(200):
        memory = bytearray(octets_for(4))
        sent: list[bytes] = []
        whole = run(memory, writes, sent)
        assert run(memory, 10_000, sent)
        numbers = [packet[24:32] for packet in sent] if use_ah else [packet[20:28] for packet in sent]
        assert len(set(numbers)) == len(numbers)
        if use_ah and use_esp:
            inside = [packet[44:52] for packet in sent]
            assert len(set(inside)) == len(inside)
        if whole:
            break
    else:
        pytest.fail("never ran to its end")
    assert writes > 3


@pytest.mark.parametrize(("use_esp", "use_ah"), PROTOCOLS)
def test_no_replay_is_delivered_across_a_kill_at_any_write(use_esp: Any, use_ah: Any) -> None:
    peer = sender(use_esp, use_ah)
    wire = [protected(peer, [inner(60, seed=number) for number in range(size)]) for size in (4, 1, 40, 3)]
    wire[1], wire[2] = wire[2], wire[1]
    later = protected(peer, [inner(60)] * 3)

    def run(memory: bytearray, writes: int, batches: list[list[bytes]], out: list[bytes]) -> bool:
        view, _ = killable(memory, writes)
        try:
            sadb = receiver(use_esp, use_ah, into=Sadb(SaStateFile(view)))
            for packets in batches:
                result = sadb.decapsulate_batch(*batch(packets))
                for group in result.groups:
                    out += [packets[index] for index in group.origins]
        except KilledError:
            return False
        return True

    for writes in range(400):
        memory = bytearray(octets_for(4))
        delivered: list[bytes] = []
        whole = run(memory, writes, wire, delivered)
        before = len(delivered)
        assert run(memory, 10_000, [*wire, *wire], delivered)
        assert len(set(delivered)) == len(delivered), "delivered twice"
        assert run(memory, 10_000, [later], delivered)
        assert delivered[-3:] == later, "good packets go on"
        if whole:
            assert len(delivered) == before + 3
            break
    else:
        pytest.fail("never ran to its end")
    assert writes > 20


def test_random_kills_and_restarts() -> None:
    """Both ends are killed again and again; the wire keeps every packet and plays it again."""
    chance = random.Random(11)
    left, right = bytearray(octets_for(2)), bytearray(octets_for(2))
    wire: list[bytes] = []
    delivered: list[bytes] = []
    for _ in range(150):
        try:
            view, _ = killable(left, chance.randrange(60))
            sadb = sender(esp(), into=Sadb(SaStateFile(view)))
            for _ in range(chance.randrange(1, 8)):
                wire += protected(sadb, [inner(40)] * chance.randrange(1, 5), seed=len(wire))
        except KilledError:
            pass
        try:
            view, _ = killable(right, chance.randrange(60))
            sadb = receiver(esp(), into=Sadb(SaStateFile(view)))
            for _ in range(chance.randrange(1, 4)):
                chosen = chance.choices(wire[-100:], k=20) if wire else []
                result = sadb.decapsulate_batch(*batch(chosen))
                delivered += [chosen[index] for group in result.groups for index in group.origins]
        except KilledError:
            pass
    numbers = [packet[24:28] for packet in wire]
    assert len(set(numbers)) == len(numbers) > 300
    assert len(set(delivered)) == len(delivered) > 200


def test_the_next_number_is_stored_before_the_batch_is_returned() -> None:
    memory = bytearray(octets_for(2))
    sadb = sender(esp(), into=Sadb(SaStateFile(memoryview(memory))))
    stored: list[int] = []
    source = random_octets()

    def spying(octets: int) -> bytes:
        stored.append(SaStateFile(memoryview(bytearray(memory))).claim(KEY).next_number)
        return source(octets)

    result = sadb.encapsulate_tunnel(1, *batch([inner(40)] * 5), spying)
    assert len(packets_of(result.body, result.lengths)) == 5
    assert stored == [6], "stored before any cipher runs"


@pytest.mark.parametrize(("use_esp", "use_ah"), [(True, False), (False, True), (True, True)])
def test_a_window_made_wider_while_the_process_was_dead_accepts_no_replay(use_esp: bool, use_ah: bool) -> None:
    sas = (esp() if use_esp else None, ah() if use_ah else None)
    buffer = bytearray(octets_for(8))
    sent = protected(sender(*sas), [inner(30)] * 300)
    for first, window in ((0, 64), (100, 128), (200, 1024)):
        sadb = receiver(*sas, window=window, into=Sadb(SaStateFile(memoryview(buffer))))
        assert not sadb.decapsulate_batch(*batch(sent[:first])).groups
        assert len(sadb.decapsulate_batch(*batch(sent[first : first + 100])).groups[0].lengths) == 100


AT = {"protocol": 50, "spi": 0x1001, "destination": RIGHT, "key": b"k" * 20}


def came_to(edge: int, *, context: int = 0, memory: bytearray | None = None) -> bytearray:
    """The state of an ASP whose SAs came so far, and that has let go of them."""
    memory = bytearray(octets_for(4)) if memory is None else memory
    state = SaStateFile(memoryview(memory), salt=5)
    for direction in Direction:
        slot = state.claim(SlotKey(direction, context, **AT), 1)  # type: ignore[arg-type]
        slot.store_next(edge)
        slot.store_window(edge, 0b101)
        state.release(SlotKey(direction, context, **AT))  # type: ignore[arg-type]
    return memory


def elsewhere(*others: bytearray) -> SaStateFile:
    """The state of another ASP of the node, which has nothing yet."""
    return SaStateFile(
        memoryview(bytearray(octets_for(4))), 9, lambda: [memoryview(bytes(held)) for held in others]
    )


def test_an_sa_goes_on_at_another_asp_where_it_stopped() -> None:
    state = elsewhere(came_to(700), came_to(900), came_to(800))
    inbound = state.claim(SlotKey(Direction.INBOUND, 0, **AT), 2)  # type: ignore[arg-type]
    assert inbound.window() == (900, 0b101), "as it was: what is late may still come"
    assert state.claim(SlotKey(Direction.OUTBOUND, 0, **AT), 2).next_number == 900  # type: ignore[arg-type]


def test_where_the_other_asp_may_still_run_the_window_begins_closed() -> None:
    memory, other = bytearray(octets_for(4)), came_to(700)

    def window() -> SaSlot:
        state = SaStateFile(memoryview(memory), 9, lambda: [memoryview(other)])
        return state.claim(SlotKey(Direction.INBOUND, 0, **AT), 2, closed=True)  # type: ignore[arg-type]

    inbound = window()
    assert inbound.window() == (700, (1 << 1024) - 1)
    # What it takes itself from then on is its own, also for its next start.
    inbound.store_window(701, 0b1)
    assert window().window() == (701, 0b1)


@pytest.mark.parametrize("change", [{"destination": RIGHT + 1}, {"context": 9}])
def test_at_another_place_it_refuses_all_up_to_the_highest_edge_of_its_keys(change: dict[str, Any]) -> None:
    memory = came_to(700)
    for state in (elsewhere(memory, came_to(650)), SaStateFile(memoryview(memory))):
        place = {"context": 0, **AT, **change}
        edge, bitmap = state.claim(SlotKey(Direction.INBOUND, **place), 2).window()
        assert (edge, bitmap) == (700, (1 << 1024) - 1)
        assert state.claim(SlotKey(Direction.OUTBOUND, **place), 2).next_number == 700


@pytest.mark.parametrize("change", [{"key": b"l" * 20}, {"spi": 0x1002}, {"protocol": 51}])
def test_other_keys_are_another_sa(change: dict[str, Any]) -> None:
    place = {"context": 3, **AT, **change}
    assert elsewhere(came_to(700)).claim(SlotKey(Direction.INBOUND, **place), 2).window() == (0, 0)


def test_an_sa_with_an_edge_of_its_own_keeps_it_while_others_with_its_keys_go_on() -> None:
    memory = came_to(100)
    state = SaStateFile(memoryview(memory), 0, lambda: [memoryview(bytes(came_to(700, context=4)))])
    assert state.claim(SlotKey(Direction.INBOUND, 0, **AT), 1).window() == (100, 0b101)  # type: ignore[arg-type]
    # Given to somebody else and back again it has none.
    state.release(SlotKey(Direction.INBOUND, 0, **AT))  # type: ignore[arg-type]
    assert state.claim(SlotKey(Direction.INBOUND, 0, **AT), 3).window()[0] == 700  # type: ignore[arg-type]


def test_what_can_not_be_read_elsewhere_keeps_an_sa_from_being_used() -> None:
    damaged = came_to(700)
    memoryview(damaged).cast("Q")[4] = 1
    with pytest.raises(StateError, match="another ASP is damaged"):
        elsewhere(damaged).claim(SlotKey(Direction.INBOUND, 0, **AT), 2)  # type: ignore[arg-type]
    # One that its process has not made yet holds nothing.
    empty = elsewhere(bytearray(octets_for(4)))
    assert empty.claim(SlotKey(Direction.INBOUND, 0, **AT), 2).is_new  # type: ignore[arg-type]


def test_no_key_and_no_equal_digest_of_one_is_in_two_states() -> None:
    words = []
    for salt in (3, 4):
        memory = bytearray(octets_for(2))
        SaStateFile(memoryview(memory), salt).claim(SlotKey(Direction.INBOUND, 0, **AT))  # type: ignore[arg-type]
        assert b"k" * 4 not in memory
        words.append(memoryview(memory).cast("Q")[8 + 39])
    assert 0 not in words
    assert len(set(words)) == 2
