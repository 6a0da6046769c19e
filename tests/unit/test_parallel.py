"""A run with several workers has only so many labs at once, and gives each worker's slot back when it ends."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.parallel import Limit, Slots, import_part, placed

NAMED = """
import pytest

@pytest.mark.multiprocess
def test_lab(): pass
@pytest.mark.multiprocess
def test_lab_too(): pass
"""
PLAIN = "def test_one(): pass\ndef test_two(): pass\n"


HOLDS = """
import sys
from pathlib import Path
from tests.support import ROOT
from tests.support.parallel import Slots
slots = Slots(Path(sys.argv[1]), 1)
print(slots.take(wait=False), flush=True)
sys.stdin.read()
"""


def test_a_slot_is_held_by_one_and_free_again_when_that_one_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "slots"
    file.touch()
    pipe = subprocess.PIPE
    with subprocess.Popen((sys.executable, "-c", HOLDS, str(file)), cwd=ROOT, stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        slots = Slots(file, 1)
        assert not slots.take(wait=False)
        assert Slots(file, 2).take(wait=False)
        other.kill()
        other.wait()
        assert slots.take(wait=False)


class Seen(Slots):
    """Slots that say what is done with them."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def take(self, wait: bool = True) -> bool:
        self.said.append("take")
        return True

    def leave(self) -> None:
        self.said.append("leave")


class Between:
    """A plugin that says which test runs."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def pytest_runtest_call(self, item: pytest.Item) -> None:
        self._said.append(item.name)


def test_a_slot_is_held_from_the_first_to_the_last_test_of_a_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmarkers = multiprocess")
    pytester.makepyfile(test_a=NAMED, test_b=PLAIN)
    slots = Seen()
    pytester.inline_run("-p", "no:xdist", plugins=[Limit(slots), Between(slots.said)])
    assert slots.said == [
        *("take", "test_lab", "take", "test_lab_too", "leave"),
        *("test_one", "test_two", "leave"),
    ]


def test_labs_are_at_the_heads_of_as_many_parts_as_there_are_slots(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmarkers = multiprocess")
    pytester.makepyfile(test_a=PLAIN, test_b=NAMED, test_c=PLAIN, test_d=PLAIN, test_e=NAMED, test_f=PLAIN)
    items, _ = pytester.inline_genitems()
    files = [item.nodeid[5] for item in placed(items, workers=3, slots=2)]
    assert "".join(files) == "bbaa" + "eecc" + "ddff"


@pytest.mark.parametrize(("part", "imported"), [(0, "abc"), (1, "bc"), (2, "c")])
def test_a_worker_imports_from_its_own_part_on(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, part: int, imported: str
) -> None:
    monkeypatch.syspath_prepend(pytester.path)
    pytester.makepyfile(**{f"test_part_{name}": "raise AssertionError" if name == "b" else "" for name in "abc"})
    config = pytester.parseconfig(str(pytester.path))
    tried: list[str] = []
    usual = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda name: (tried.append(name[-1]), usual(name)))
    import_part(config, part, 3)
    assert "".join(tried) == imported
