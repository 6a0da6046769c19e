"""Tests with real processes in a run with several workers: how many run at once, and where in the run they are.

Labs that are crowded starve each other. So only as many workers as there are slots have a lab at the same time;
the others go on with tests that need none. Labs are given to as many workers, before their other tests, so that a
worker waits for a slot only near the end of a run.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

MARKER = "multiprocess"

SLOTS = max(2, len(os.sched_getaffinity(0)))
"""So many workers may have labs at once."""

FILE = "slots_file"
"""The file of a run's slots, in what xdist tells its workers."""

_PAUSE = 0.05
"""Time (s) between two looks for a free slot."""


class Slots:
    """The slots of a run, as locks on octets of a file: one is free again when its worker ends in any way."""

    def __init__(self, path: Path, slots: int = SLOTS) -> None:
        self._file = path.open("r+b")
        self._slots = slots
        self._held: int | None = None

    def take(self, wait: bool = True) -> bool:
        """Hold a slot: the one that this process has, or else a free one. False if none is and not to wait."""
        while self._held is None:
            for slot in range(self._slots):
                try:
                    fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
                except OSError:
                    continue
                self._held = slot
                return True
            if not wait:
                return False
            time.sleep(_PAUSE)
        return True

    def leave(self) -> None:
        """Give the slot back, if there is one."""
        if self._held is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._held)
            self._held = None


def _module(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _has_labs(item: pytest.Item) -> bool:
    return item.get_closest_marker(MARKER) is not None


class Limit:
    """The plugin: a worker has a slot from its first test with real processes to the last one of that file.

    So a lab that the tests of a file share has its slot as long as it lives.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        if _has_labs(item):
            self._slots.take()
        try:
            return (yield)
        finally:
            if nextitem is None or _module(nextitem) != _module(item):
                self._slots.leave()


def import_part(config: pytest.Config, part: int, parts: int) -> None:
    """Import the test files from a worker's part of them on, before they are collected.

    In a fresh clone each worker would rewrite the assertions of every file and compile it. So each begins
    elsewhere, and finds on disk what the others have done.
    """
    here = config.invocation_params.dir
    places = [here / place.partition("::")[0] for place in config.args]
    files = sorted(
        {file for place in places for file in (place.rglob("test_*.py") if place.is_dir() else [place])}
    )
    for file in files[part * len(files) // parts :]:
        # Whoever collects the file says what is wrong with it.
        with suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(file.relative_to(config.rootpath).with_suffix("").parts))


def placed(items: list[pytest.Item], workers: int, slots: int = SLOTS) -> list[pytest.Item]:
    """Order tests so that as many of `workers` equal parts as there are slots begin with files that have labs.

    With `--dist worksteal` a worker is given such a part and takes from the end of another's when it has done its
    own. The tests of a file stay together, in their order.
    """
    modules: dict[str, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(_module(item), []).append(item)
    labs = [module for module in modules.values() if any(_has_labs(item) for item in module)]
    others = [
        item for module in modules.values() if not any(_has_labs(item) for item in module) for item in module
    ]
    parts = min(slots, workers)
    order: list[pytest.Item] = []
    for part in range(parts):
        order += [item for module in labs[part::parts] for item in module]
        room = max(0, (part + 1) * len(items) // workers - len(order))
        order += others[:room]
        del others[:room]
    return order + others
