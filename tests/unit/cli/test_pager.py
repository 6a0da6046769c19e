"""Pages of lines."""

from __future__ import annotations

from chassis.cli.pager import MORE, Pager

ERASED = f"\r{' ' * len(MORE)}\r"
LINES = [f"line {number}" for number in range(10)]


def page(first: int, last: int) -> str:
    return "".join(f"{line}\r\n" for line in LINES[first:last])


def test_what_fits_is_shown_at_once() -> None:
    pager = Pager(LINES[:4], 5, 80)
    assert pager.start().decode() == page(0, 4)
    assert not pager.waits


def test_a_length_of_zero_never_waits() -> None:
    pager = Pager(LINES, 0, 80)
    assert pager.start().decode() == page(0, 10)
    assert not pager.waits


def test_space_shows_a_page_and_return_a_line() -> None:
    pager = Pager(LINES, 5, 80)
    assert pager.start().decode() == page(0, 4) + MORE
    assert pager.key(ord("x")) == b""
    assert pager.key(0x0D).decode() == ERASED + page(4, 5) + MORE
    assert pager.key(0x20).decode() == ERASED + page(5, 9) + MORE
    assert pager.waits
    assert pager.key(0x20).decode() == ERASED + page(9, 10)
    assert not pager.waits


def test_q_and_interrupt_end_the_listing() -> None:
    for key in b"qQ\x03":
        pager = Pager(LINES, 5, 80)
        pager.start()
        assert pager.key(key).decode() == ERASED
        assert not pager.waits


def test_a_long_line_takes_the_rows_that_it_needs() -> None:
    pager = Pager(["x" * 25, "y", "z"], 4, 10)
    assert pager.start().decode() == "x" * 25 + f"\r\n{MORE}"
    pager = Pager(["x" * 200, "y"], 4, 10)
    assert pager.start().decode() == "x" * 200 + f"\r\n{MORE}"


def test_nothing_is_a_page_too() -> None:
    pager = Pager([], 24, 80)
    assert pager.start() == b""
    assert not pager.waits
