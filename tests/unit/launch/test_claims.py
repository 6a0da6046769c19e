"""A folder of our own as one process holds it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from launch.folder_ownership import Claim, FolderError, Held, holder, is_ours, remove_idle, sweep


def test_a_claim_makes_holds_and_removes(tmp_path: Path) -> None:
    path = tmp_path / "held"
    claim = Claim(path, "state")
    assert holder(path, "state") == os.getpid()
    assert holder(path, "run") is None
    with pytest.raises(Held, match=f"in use by process {os.getpid()}"):
        Claim(path, "state")
    with pytest.raises(Held):
        remove_idle(path, "state")
    assert sweep(tmp_path, "state") == []
    claim.remove()
    assert not path.exists()


def test_a_folder_that_was_let_go_stays_and_is_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "held"
    Claim(path, "state").close()
    (path / "left").write_text("x")
    assert holder(path, "state") is None
    assert is_ours(path, "state")
    Claim(path, "state").close()
    assert (path / "left").exists()
    claim = Claim(path, "state", clean=True)
    assert os.listdir(path) == [".chassis-state"]
    claim.close()
    assert remove_idle(path, "state")
    assert not remove_idle(path, "state")


def test_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "held"
    pid = os.fork()
    if not pid:
        Claim(path, "state")
        os._exit(0)
    os.waitpid(pid, 0)
    assert path.exists()
    assert holder(path, "state") is None
    assert sweep(tmp_path, "run") == []
    assert sweep(tmp_path, "state") == ["held"]
    assert not path.exists()


def test_what_cannot_be_removed_keeps_the_marker_and_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "held"
    claim = Claim(path, "run")
    (path / "stuck").mkdir()
    for name in ("a", "z"):
        (path / name).write_text("x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    claim.remove()
    assert sorted(os.listdir(path)) == [".chassis-run", "stuck"]
    with pytest.raises(FolderError, match="Permission denied"):
        remove_idle(path, "run")
    again = Claim(path, "run", clean=True)
    monkeypatch.undo()
    again.remove()
    assert not path.exists()


def test_a_marker_that_is_a_link_is_none(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("1\n")
    path = tmp_path / "folder"
    path.mkdir()
    (path / ".chassis-state").symlink_to(tmp_path / "elsewhere")
    assert not is_ours(path, "state")
    with pytest.raises(FolderError):
        Claim(path, "state")
    with pytest.raises(FolderError, match="was not made by chassis"):
        remove_idle(path, "state")
    assert (tmp_path / "elsewhere").read_text() == "1\n"


def test_an_empty_folder_of_ours_may_be_taken(tmp_path: Path) -> None:
    # A process that was killed between the two steps leaves one.
    (tmp_path / "empty").mkdir(mode=0o755)
    claim = Claim(tmp_path / "empty", "run")
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o700
    claim.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    path.mkdir()
    (path / ".chassis-state").write_text("")
    os.chown(path, 12345, 12345)
    with pytest.raises(FolderError, match="belongs to another user"):
        Claim(path, "state")
    with pytest.raises(FolderError, match="belongs to another user"):
        remove_idle(path, "state")
    assert (holder(path, "state"), is_ours(path, "state"), sweep(tmp_path, "state")) == (None, False, [])
