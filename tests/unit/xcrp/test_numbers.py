"""Numbers: stored before use, never used for anything else, kept over restarts."""

from __future__ import annotations

import json

from chassis.xcrp.id_allocator import (
    CARDS,
    CIRCUIT,
    LEASE_SIZE,
    LEASES,
    NUMBERS,
    SEQUENCE_LIMIT,
    TUNNEL,
    IdAllocator,
)


def again(numbers: IdAllocator, files: dict[str, bytes], boot: int = 2) -> IdAllocator:
    """What a controller finds that starts after everything was stored."""
    for persist in numbers.pending_writes():
        files[persist.file] = persist.data
    return IdAllocator(files, boot)


def test_a_number_given_up_is_never_given_again() -> None:
    files: dict[str, bytes] = {}
    numbers = IdAllocator(files, 1)
    assert numbers.allocate(TUNNEL, ["t1", "t2"]) == {"t1": 1, "t2": 2}
    assert numbers.allocate(TUNNEL, ["t2"]) == {"t2": 2}
    numbers = again(numbers, files)
    assert numbers.allocate(TUNNEL, ["t1", "t2"]) == {"t2": 2, "t1": 3}


def test_circuits_of_ports_and_tunnels_are_one_sequence() -> None:
    files: dict[str, bytes] = {}
    numbers = IdAllocator(files, 1)
    assert numbers.allocate(CIRCUIT, ["3/1"]) == {"3/1": 1}
    assert numbers.circuit("t1", "lc 4") == 2
    assert numbers.circuit("t1", "lc 4") == 2
    assert numbers.circuit("t1", "lc 5") == 3
    assert numbers.circuit("t1", "") == 0
    numbers = again(numbers, files)
    assert numbers.circuit("t1", "lc 4") == 4
    assert not numbers.problems


def test_nothing_is_stored_when_nothing_changed() -> None:
    numbers = IdAllocator({}, 1)
    numbers.allocate(TUNNEL, ["t1"])
    assert [persist.file for persist in numbers.pending_writes()] == [NUMBERS]
    numbers.allocate(TUNNEL, ["t1"])
    assert numbers.pending_writes() == []


def test_leases_come_to_disk_before_the_admission_that_needs_them() -> None:
    numbers = IdAllocator({}, 1)
    numbers.increment_epoch("asp 1/1", 1)
    numbers.allocate(TUNNEL, ["t1"])
    numbers.lease(1, 10, "asp 1/1", ("3.3.3.3 esp 300",))
    assert [persist.file for persist in numbers.pending_writes()] == [LEASES, "leases.copy.json", NUMBERS, CARDS]


def test_leases_never_overlap_for_one_destination_and_spi() -> None:
    files: dict[str, bytes] = {}
    numbers = IdAllocator(files, 1)
    use = ("3.3.3.3 esp 300",)
    first = numbers.lease(1, 10, "asp 1/1", use)
    assert (first.start, first.end) == (1, LEASE_SIZE + 1)
    assert numbers.lease(1, 10, "asp 1/1", use) == first
    extended = numbers.extend_lease(1, 10)
    assert extended is not None
    assert (extended.start, extended.end) == (1, 2 * LEASE_SIZE + 1)
    numbers = again(numbers, files)
    renewed = numbers.renew_lease(1, 10)
    assert renewed is not None
    assert renewed.start == extended.end
    # Another tunnel with the same SA to the same peer, and the first one on another ASP.
    other = numbers.lease(2, 10, "asp 1/2", use)
    assert other.start == renewed.end
    moved = numbers.lease(1, 10, "asp 1/2", use)
    assert moved.start == other.end
    # The other one can't go on where its own numbers end: somebody else has them.
    beyond = numbers.extend_lease(2, 10)
    assert beyond is not None
    assert beyond.start == moved.end
    numbers.drop_leases(set())
    numbers = again(numbers, files)
    assert numbers.lease(9, 10, "asp 1/1", use).start == beyond.end


def test_a_lease_ends_with_the_last_sequence_number() -> None:
    numbers = IdAllocator({}, 1)
    use = ("3.3.3.3 ah 300",)
    numbers.lease(1, 10, "asp 1/1", use)
    for _ in range(5000):
        numbers.extend_lease(1, 10)
    assert numbers.leases[1, 10].end == SEQUENCE_LIMIT
    renewed = numbers.renew_lease(1, 10)
    assert renewed is not None
    assert renewed.start == renewed.end == SEQUENCE_LIMIT


def test_epochs_rise_over_restarts_and_above_what_a_card_says() -> None:
    files: dict[str, bytes] = {}
    numbers = IdAllocator(files, 1)
    assert numbers.increment_epoch("lc 3", 1) == 1
    assert numbers.increment_epoch("lc 3", 1) == 2
    assert numbers.increment_epoch("lc 3", 2, above=40) == 41
    numbers = again(numbers, files)
    assert numbers.cards["lc 3"].boot == 2
    assert numbers.increment_epoch("lc 3", 3) == 42


def test_damaged_files_are_said_and_numbering_goes_on_above() -> None:
    for data in (b"", b"{", b"[]", b'{"last": 1}', b"\xff\xfe", json.dumps({"a": [1]}).encode()):
        numbers = IdAllocator({CARDS: data, NUMBERS: data}, 7)
        assert len(numbers.problems) == 2, data
        assert numbers.allocate(TUNNEL, ["t1"])["t1"] > 7 << 16
        assert numbers.increment_epoch("lc 3", 1) > 7 << 16


def used_up(leases: int) -> dict[str, bytes]:
    """The files of a node that ran for long: one SA used so many leases."""
    files: dict[str, bytes] = {}
    numbers = IdAllocator(files, 1)
    numbers.lease(1, 10, "asp 1/1", ("3.3.3.3 esp 300",))
    for _ in range(leases - 1):
        numbers.extend_lease(1, 10)
    again(numbers, files)
    return files


def test_a_cut_file_of_leases_is_made_up_for_by_its_copy() -> None:
    files = used_up(61)
    files[LEASES] = files[LEASES][:40]
    numbers = IdAllocator(files, 2)
    assert any("leases.json can't be read" in problem for problem in numbers.problems)
    renewed = numbers.lease(1, 10, "asp 1/2", ("3.3.3.3 esp 300",))
    assert renewed.start == 61 * LEASE_SIZE + 1, "numbers are used twice"
    assert LEASES in [persist.file for persist in numbers.pending_writes()]


def test_where_no_lease_is_known_none_is_guessed() -> None:
    use = ("3.3.3.3 esp 300",)
    for lost in (b"", b"{", None):
        files = used_up(61)
        for name in (LEASES, "leases.copy.json"):
            if lost is None:
                files.pop(name, None)
            else:
                files[name] = lost
        numbers = IdAllocator(files, 2)
        assert any("no lease is known" in problem for problem in numbers.problems), lost
        assert numbers.lease(1, 10, "asp 1/1", use).start == 0
        numbers.drop_leases({(1, 10)})
        numbers = again(numbers, files, 3)
        assert numbers.leases[1, 10].start == 0
        # Another tunnel with it knows no more, an SA that is new is not concerned.
        assert numbers.lease(2, 10, "asp 1/1", use).start == 0
        assert numbers.lease(3, 10, "asp 1/1", ("3.3.3.3 esp 301",)).start == 1
        # The ASP's mapped state is the floor.
        known = numbers.extend_lease(1, 10, 63_900_000)
        assert known is not None
        assert (known.start, known.end) == (63_900_000, 63_900_000 + LEASE_SIZE)
        assert numbers.lease(2, 20, "asp 1/1", use).start == known.end


def test_an_sa_whose_asp_may_not_have_ended_goes_on_above_its_numbers_with_a_closed_window() -> None:
    files: dict[str, bytes] = {}
    numbers = IdAllocator(files, 1)
    numbers.increment_epoch("asp 1/1", 4)
    sa = (("3.3.3.3 esp 300",), "place", ("in esp 301", "out esp 300"))
    for ended in (True, False):
        numbers.begin()
        held = numbers.lease(1, 10, "asp 1/1", *sa)
        numbers.begin()
        moved = numbers.lease(1, 10, "asp 1/2", *sa)
        assert moved.start >= held.end
        assert numbers.hold(1, 10) == "not let go of by asp 1/1 yet"
        assert numbers.release_moved_sas("asp 1/1", ended=ended) == {1}
        assert numbers.hold(1, 10) == ""
        assert numbers.leases[1, 10].closed is not ended
        numbers = again(numbers, files)
        assert numbers.leases[1, 10].closed is not ended
    numbers.extend_lease(1, 10)
    assert numbers.leases[1, 10].closed
    # At the next ASP it is another matter.
    assert not numbers.lease(1, 10, "asp 2/1", *sa).closed
