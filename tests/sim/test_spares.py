"""A spare ASP takes the place of one that dies or hangs, and keeps it (S-108)."""

from __future__ import annotations

import pytest

from tests.sim.test_manual_sa_moves import TEXT, Moving


def one_works() -> Moving:
    """The lab of the simulator; at `b` the ASP 1/1 works for both tunnels, and 1/2 is its spare."""
    moving = Moving()
    assert TEXT.count("asp-count 2") == 1
    moving.apply(TEXT.replace("asp-count 2", "asp-count 1"))
    assert moving.homes() == {"asp 1/1"}
    moving.traffic()
    return moving


def test_a_spare_takes_the_place_of_a_dead_asp_and_keeps_it() -> None:
    moving = one_works()
    moving.b.cards["asp 1/1"].kill()
    moving.wait(0.3)
    assert moving.homes() == {"asp 1/2"}
    moving.traffic()
    moving.wait(3.0)
    moving.run.expect_recovered()
    assert moving.homes() == {"asp 1/2"}
    assert moving.replay() == ""
    moving.traffic()
