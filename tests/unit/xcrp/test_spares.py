"""Which ASPs of groups work, which are spares, and who takes whose place (S-108)."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from chassis.model.router import Config
from chassis.xcrp.configuration import check
from chassis.xcrp.id_allocator import NUMBERS, IdAllocator
from chassis.xcrp.placement import place
from chassis.xcrp.spares import NO_SEATS, Seats, Takeovers, in_order, take_over, working


def read(pools: dict[str, str], groups: dict[str, tuple[str, int]], ends: Iterable[str] = ()) -> Config:
    """Make a configuration of pools, groups and a context for each group; `ends` are like "G 1.0.0.1"."""
    lines = [f"asp pool {name} service security\n" + "".join(f" asp {one}\n" for one in asps.split())
             for name, asps in pools.items()]  # fmt: skip
    lines += [f"asp group {name}\n" + "".join(f" pool {pool}\n" for pool in of.split()) + f" asp-count {count}\n"
              for name, (of, count) in groups.items()]  # fmt: skip
    lines += [f"context {name}\n asp-group {name} service security\n" for name in groups]
    lines += [f"tunnel ipsec t{number} manual\n"
              f" peer-end-point local {end.split()[1]} remote 9.9.9.9 context {end.split()[0]}\n"
              for number, end in enumerate(ends)]  # fmt: skip
    checked = check("".join(lines), "test")
    assert not checked.refused, checked.diagnostics
    return checked.config


def after(
    config: Config, seats: Seats, failed: str = "", ready: str = ""
) -> tuple[dict[str, tuple[str, ...]], Seats, Takeovers]:
    seats, taken = take_over(config, seats, failed.split().__contains__, ready.split().__contains__)
    return {name: working(config, name, seats) for name in config.groups}, seats, taken


ONE = read({"P": "1/1 1/2 2/1 2/2"}, {"G": ("P", 2)})


def test_a_ready_spare_takes_the_place_and_the_other_is_spare_from_then_on() -> None:
    works, seats, taken = after(ONE, NO_SEATS, failed="1/1", ready="1/2 2/2")
    assert works == {"G": ("2/2", "1/2")}
    assert taken == {("G", "1/1"): "2/2"}
    assert in_order(ONE, "G", seats) == ("2/2", "1/2", "2/1", "1/1")
    works, seats, taken = after(ONE, seats, ready="1/1 1/2 2/1 2/2")
    assert (works, taken) == ({"G": ("2/2", "1/2")}, {})
    works, seats, taken = after(ONE, seats, failed="1/2 2/1", ready="1/1 2/2")
    assert works == {"G": ("2/2", "1/1")}
    assert taken == {("G", "1/2"): "1/1"}


def test_without_a_ready_spare_nothing_changes() -> None:
    assert after(ONE, NO_SEATS, failed="1/1", ready="1/2") == ({"G": ("1/1", "1/2")}, {}, {})
    assert after(ONE, NO_SEATS, ready="1/1 1/2 2/1 2/2") == ({"G": ("1/1", "1/2")}, {}, {})
    assert after(ONE, NO_SEATS, failed="2/1", ready="1/1 1/2 2/2") == ({"G": ("1/1", "1/2")}, {}, {})


def test_of_two_that_failed_the_first_gets_the_only_spare() -> None:
    works, seats, taken = after(ONE, NO_SEATS, failed="1/1 1/2", ready="2/1")
    assert works == {"G": ("2/1", "1/2")}
    assert taken == {("G", "1/1"): "2/1"}
    # The next spare that is ready is for the other one: also the one that failed first, when it is back.
    assert after(ONE, seats, failed="1/2", ready="1/1 2/1")[0] == {"G": ("2/1", "1/1")}


def test_a_spare_takes_all_places_of_groups_that_share_a_pool() -> None:
    config = read({"P": "1/1 1/2", "Q": "1/1 2/1"}, {"G": ("P", 1), "H": ("P", 1), "K": ("Q", 1)})
    works, _, taken = after(config, NO_SEATS, failed="1/1", ready="1/2")
    assert works == {"G": ("1/2",), "H": ("1/2",), "K": ("1/1",)}
    assert set(taken) == {("G", "1/1"), ("H", "1/1")}
    # What works for another group is no spare.
    config = read({"P": "1/1 1/2", "Q": "1/2"}, {"G": ("P", 1), "H": ("Q", 1)})
    assert after(config, NO_SEATS, failed="1/1", ready="1/2")[2] == {}


def test_a_group_of_two_pools_has_its_spare_in_either() -> None:
    config = read({"P": "1/1", "Q": "1/2"}, {"G": ("P Q", 1)})
    assert after(config, NO_SEATS, failed="1/1", ready="1/2")[0] == {"G": ("1/2",)}


def test_all_local_ends_go_with_the_place() -> None:
    config = read({"P": "1/1 1/2 2/1"}, {"G": ("P", 2)}, [f"G 1.0.0.{number}" for number in range(1, 5)])
    placed = place(config, {})
    assert sorted(placed.values()) == ["asp 1/1", "asp 1/1", "asp 1/2", "asp 1/2"]
    seats, taken = take_over(config, NO_SEATS, "1/1".__eq__, "2/1".__eq__)
    moved = place(config, placed, seats, taken)
    assert moved == {at: "asp 2/1" if asp == "asp 1/1" else asp for at, asp in placed.items()}
    assert place(config, moved, seats) == moved


def test_what_a_commit_takes_away_leaves_the_places_of_the_others() -> None:
    _, seats, _ = after(ONE, NO_SEATS, failed="1/1", ready="2/1")
    _, seats, _ = after(ONE, seats, failed="2/1", ready="2/2")
    assert in_order(ONE, "G", seats) == ("2/2", "1/2", "1/1", "2/1")
    smaller = read({"P": "1/1 1/2 2/1"}, {"G": ("P", 2)})
    works, kept, _ = after(smaller, seats)
    assert works == {"G": ("2/1", "1/2")}
    assert after(read({"P": "1/1 1/2"}, {"G": ("P", 2)}), kept)[1] == {}
    assert after(read({"P": "1/1 1/2 2/1"}, {"H": ("P", 1)}), kept)[1] == {}


def test_places_are_stored() -> None:
    numbers = IdAllocator({}, 1)
    numbers.set_seats({"G": {"1/1": "1/2", "1/2": "1/1"}})
    files = {write.file: write.data for write in numbers.pending_writes()}
    numbers.set_seats({"G": {"1/1": "1/2", "1/2": "1/1"}})
    assert not numbers.pending_writes()
    assert IdAllocator(files, 2).seats == {"G": {"1/1": "1/2", "1/2": "1/1"}}
    # A file of a controller that knew no spares.
    older = json.loads(files[NUMBERS])
    del older["seats"]
    assert IdAllocator({NUMBERS: json.dumps(older).encode()}, 2).seats == {}


@pytest.mark.parametrize("seats", [{"1/1": "1/2"}, {"1/1": "1/2", "1/2": "1/2"}, ["1/1"], 3])
def test_places_that_cannot_be_are_a_problem_of_the_file(seats: object) -> None:
    numbers = IdAllocator({}, 1)
    numbers.set_placement({})
    numbers.allocate("context", ["local"])
    files = {write.file: write.data for write in numbers.pending_writes()}
    broken = json.loads(files[NUMBERS]) | {"seats": {"G": seats}}
    restored = IdAllocator({NUMBERS: json.dumps(broken).encode()}, 2)
    assert restored.seats == {}
    assert [one for one in restored.problems if one.startswith(f"{NUMBERS} can't be read")]
