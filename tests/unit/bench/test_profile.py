"""`make profile`: samples of py-spy become flame graphs and a list of functions."""

from __future__ import annotations

from bench.profile import SAMPLES, read_stacks, speedscope, top

RAW = "run (a.py:1);poll (b.py:2) 3\nrun (a.py:1);work (c.py:3);poll (b.py:2) 2\nrun (a.py:1) 5\n"


def test_stacks_of_each_process_become_one_file_with_shared_frames() -> None:
    stacks = read_stacks(RAW)
    file = speedscope({"a lc 3": stacks, "b lc 3": read_stacks("run (a.py:1) 1\n")})
    assert file["shared"] == {
        "frames": [{"name": name} for name in ("run (a.py:1)", "poll (b.py:2)", "work (c.py:3)")]
    }
    first, second = file["profiles"]  # type: ignore[misc]
    assert first["samples"] == [[0, 1], [0, 2, 1], [0]]
    assert first["weights"] == [3 / SAMPLES, 2 / SAMPLES, 5 / SAMPLES]
    assert first["endValue"] == 10 / SAMPLES
    assert (second["name"], second["samples"]) == ("b lc 3", [[0]])


def test_functions_are_listed_by_their_own_time() -> None:
    assert top(read_stacks(RAW)) == [("poll (b.py:2)", 0.5), ("run (a.py:1)", 0.5)]
