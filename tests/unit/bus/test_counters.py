"""Counters in a mapped file."""

from __future__ import annotations

import re
from pathlib import Path

from chassis.ase.counters import CAUSES, DECAPSULATED, ENCAPSULATED, TUNNEL_COUNTERS, AspCounters
from chassis.bus import records
from chassis.bus.counters import (
    FILE_SIZE,
    GROWTH_OCTETS,
    HEADER_SIZE,
    MAGIC,
    NAME_SIZE,
    OVERFLOW_NAME,
    RESERVED_SLOTS,
    SLOT_SIZE,
    SLOTS,
    Counters,
    read,
    used,
)
from chassis.bus.environment import map_counters
from chassis.bus.replication import RecordChange
from chassis.bus.storage import map_file
from chassis.linecard.circuits import Circuit, Circuits

TUNNELS = 8000


def test_they_outlive_whoever_counted(tmp_path: Path) -> None:
    view, fresh = map_file(tmp_path / "x.counters", FILE_SIZE)
    counters = Counters(view)
    counters.add("drop no route", 3)
    counters.values[counters.slot("sent")] += 5
    again, still_fresh = map_file(tmp_path / "x.counters", FILE_SIZE)
    assert fresh
    assert not still_fresh
    assert dict(Counters(again).items()) == {"drop no route": 3, "sent": 5}
    assert read(tmp_path / "x.counters") == {"drop no route": 3, "sent": 5}
    assert (tmp_path / "x.counters").stat().st_mode & 0o777 == 0o600


def test_all_tunnels_of_an_asp_and_its_causes_have_a_counter_each(tmp_path: Path) -> None:
    """One ASP has all of its card's when the other one is dead. What comes late is counted by its name too."""
    path = tmp_path / "asp-1-1.counters"
    counters = Counters(map_file(path, FILE_SIZE)[0])
    asp = AspCounters(counters)
    for number in range(1, TUNNELS + 1):
        asp.count_tunnel(number, ENCAPSULATED, number, 100 * number)
        asp.count_tunnel(number, DECAPSULATED, 2, 200)
    counters.add("drop no connection to lc 3", 7)
    assert asp.tunnel_total(TUNNELS, ENCAPSULATED) == (TUNNELS, 100 * TUNNELS)
    found = read(path)
    assert OVERFLOW_NAME not in found
    for number in range(1, TUNNELS + 1):
        counts = [found[f"tunnel {number} {name}"] for name in TUNNEL_COUNTERS]
        assert counts == [number, 100 * number, 2, 200]
    assert found["drop no connection to lc 3"] == 7
    assert not any(found["drop " + cause] for cause in CAUSES)
    # The next process of the card goes on from there.
    after = AspCounters(Counters(map_file(path, FILE_SIZE)[0]))
    after.count_tunnel(TUNNELS, DECAPSULATED, 1, 100)
    assert after.tunnel_total(TUNNELS, DECAPSULATED) == (3, 300)
    assert read(path).keys() == found.keys()


def test_what_is_not_in_use_is_neither_stored_nor_read(tmp_path: Path) -> None:
    path = tmp_path / "x.counters"
    counters = map_counters(path)
    for number in range(3000):
        counters.add(f"circuit {number} packets in", number)
        # A store into a hole of a file on a full disk would end the process.
        assert path.stat().st_blocks * 512 >= len(used(path)) + SLOT_SIZE
    assert len(used(path)) == HEADER_SIZE + 3000 * SLOT_SIZE
    assert path.stat().st_blocks * 512 < 3 * len(used(path))
    copy = tmp_path / "copy"
    copy.write_bytes(used(path))
    assert read(copy) == read(path) == dict(counters.items())


def test_on_a_full_disk_what_is_new_is_counted_in_one_place(tmp_path: Path) -> None:
    view = map_file(tmp_path / "x.counters", FILE_SIZE, GROWTH_OCTETS)[0]
    asked: list[int] = []
    counters = Counters(view, lambda room: bool(asked.append(room)))
    for number in range(2000):
        counters.add(f"circuit {number}")
    assert len(used(tmp_path / "x.counters")) <= GROWTH_OCTETS
    assert counters.get(OVERFLOW_NAME) > 900
    assert min(asked) > GROWTH_OCTETS
    counters.add("circuit 0", 2)
    assert counters.get("circuit 0") == 3


def test_a_full_table_counts_on_in_one_place_and_causes_by_their_names() -> None:
    counters = Counters()
    room = SLOTS - 1 - RESERVED_SLOTS
    for number in range(room + 20):
        counters.values[counters.slot(f"tunnel {number}", numbered=True)] += 1
    assert counters.get(f"tunnel {room - 1}") == 1
    assert counters.get(OVERFLOW_NAME) == 20
    # The place for what finds none is one of the reserved ones.
    for number in range(RESERVED_SLOTS - 1):
        counters.add(f"drop {number}", 2)
    assert counters.get(f"drop {RESERVED_SLOTS - 2}") == 2
    assert counters.get(OVERFLOW_NAME) == 20
    for number in range(10):
        counters.add(f"more {number}", 3)
    assert counters.get(OVERFLOW_NAME) == 20 + 3 * 10


def test_tunnels_and_circuits_leave_room_for_causes() -> None:
    counters = Counters()
    for number in range(SLOTS - 1 - RESERVED_SLOTS):
        counters.slot(f"tunnel {number}", numbered=True)
    AspCounters(counters).count_tunnel(SLOTS, ENCAPSULATED, 1, 100)
    circuit = Circuit(
        records.CircuitRecord(number=SLOTS, kind="tunnel", card="lc 3", context=1, interface="if", tunnel=1),
        counters,
    )
    circuit.count_in(1, 100)
    circuit.count_out(1, 100)
    assert counters.get(OVERFLOW_NAME) == 3 * (1 + 100)
    counters.add("drop no connection to lc 3", 7)
    assert counters.get("drop no connection to lc 3") == 7


def test_names_that_are_too_long_are_one_counter_before_and_after(tmp_path: Path) -> None:
    view = map_file(tmp_path / "x.counters", FILE_SIZE)[0]
    Counters(view).add("y" * (NAME_SIZE + 9), 2)
    again = Counters(view)
    again.add("y" * (NAME_SIZE + 9), 3)
    again.add("next")
    assert read(tmp_path / "x.counters") == {"y" * NAME_SIZE: 5, "next": 1}


def test_a_slot_is_in_use_when_it_has_its_name(tmp_path: Path) -> None:
    """Killed in between, a process leaves a name that no reader sees and its successor writes over."""
    path = tmp_path / "x.counters"
    view = map_file(path, FILE_SIZE)[0]
    Counters(view).add("sent", 5)
    second = HEADER_SIZE + SLOT_SIZE
    view[second : second + 8] = b"half a n"
    assert read(path) == {"sent": 5}
    Counters(view).add("lost")
    assert read(path) == {"sent": 5, "lost": 1}


def test_a_file_that_is_none_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.counters"
    for data in (b"", bytes(HEADER_SIZE), b"else" * 64, MAGIC):
        path.write_bytes(data)
        assert read(path) == {}
    # A file of something else's is made a new one, one that was cut has what is whole in it.
    path.write_bytes(b"\x07" * FILE_SIZE)
    counters = Counters(map_file(path, FILE_SIZE)[0])
    counters.add("sent", 5)
    counters.add("received", 4)
    path.write_bytes(path.read_bytes()[: HEADER_SIZE + 2 * SLOT_SIZE - 3])
    assert read(path) == {"sent": 5}


def test_counters_of_instances_that_ended_while_their_asp_was_dead_go(tmp_path: Path) -> None:
    path = tmp_path / "asp-1-1.counters"
    asp = AspCounters(Counters(map_file(path, FILE_SIZE)[0]))
    asp.add_instance(8)
    for number in (7, 8):
        asp.count_tunnel(number, ENCAPSULATED, number, 100)
        assert asp.tunnel_total(number, ENCAPSULATED) == (number, 100)
    assert tunnels_in(path) == {"tunnel 7", "instance 8"}
    AspCounters(Counters(map_file(path, FILE_SIZE)[0]))
    assert tunnels_in(path) == {"tunnel 7"}
    assert read(path)["tunnel 7 encapsulated packets"] == 7


def test_counters_of_instances_that_ended_while_their_line_card_was_dead_go(tmp_path: Path) -> None:
    path = tmp_path / "lc-3.counters"

    def card(*numbers: int) -> Circuits:
        """A process of the card, with these circuits in its snapshot: 17 is that of a static tunnel."""
        made = Circuits("lc 3", Counters(map_file(path, FILE_SIZE)[0]))
        made.apply(RecordChange(tuple(circuit(number) for number in numbers), ()))
        return made

    for one in card(17, 18, 19, 20).own.values():
        one.count_in(1, 100)
    assert tunnels_in(path) == {"circuit 17", *(f"instance circuit {number}" for number in (18, 19, 20))}
    after = card(19, 20)
    assert tunnels_in(path) == {"circuit 17", "instance circuit 19", "instance circuit 20"}
    assert after.own[19].totals()["packets_in"] == 1
    after.apply(RecordChange((), (circuit(19),)))
    assert tunnels_in(path) == {"circuit 17", "instance circuit 20"}
    after.apply(RecordChange((circuit(20, card="lc 4"),), ()))
    assert tunnels_in(path) == {"circuit 17"}


def circuit(number: int, card: str = "lc 3") -> records.CircuitRecord:
    return records.CircuitRecord(
        number=number, kind="tunnel", card=card, context=1, interface="if", tunnel=number, temporary=number > 17
    )


def tunnels_in(path: Path) -> set[str]:
    """What has counters in a file, as `tunnel 7`."""
    named = (re.match(r"(?:tunnel|circuit|instance|instance circuit) \d+", name) for name in read(path))
    return {one[0] for one in named if one is not None}


def test_released_slots_are_used_again(tmp_path: Path) -> None:
    """On-demand peers come and go; a slot that was given back begins at 0 under its new name."""
    path = tmp_path / "x.counters"
    counters = Counters(map_file(path, FILE_SIZE)[0])
    counters.add("sent", 5)
    for number in range(1000):
        counters.add(f"tunnel {number} packets", number)
        counters.release(f"tunnel {number} packets")
    counters.release("nobody")
    counters.add("tunnel 1000 packets", 1)
    assert len(used(path)) == HEADER_SIZE + 2 * SLOT_SIZE
    assert read(path) == dict(counters.items()) == {"sent": 5, "tunnel 1000 packets": 1}
    counters.release("sent")
    assert read(path) == {"tunnel 1000 packets": 1}
    # A process that is new finds the free slot.
    again = Counters(map_file(path, FILE_SIZE)[0])
    assert again.get("sent") == 0
    again.add("received", 2)
    assert len(used(path)) == HEADER_SIZE + 2 * SLOT_SIZE
    assert read(path) == {"received": 2, "tunnel 1000 packets": 1}
