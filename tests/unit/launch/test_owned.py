"""Folders of labs: whose they are, who holds them, and what is never removed."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from launch.ctl.main import main as chassisctl
from launch.lab.yaml_source import LabError
from launch.main import main
from launch.run_folders import FolderError, Folders, delete_state, running, sweep
from launch.scenario.boot import boot

STARTS = 200

LAB = "name: mine\ntopology:\n  nodes:\n    a: {kind: smartedge, config: a.cfg}\n"


@pytest.fixture(autouse=True)
def roots(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHASSIS_RUN", str(short_folder / "r"))
    monkeypatch.setenv("CHASSIS_STATE", str(short_folder / "s"))


def destroy(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["destroy", *map(str, words)])


def left_state(lab: str) -> Path:
    """The state folder of a lab that ran and ended."""
    folders = Folders(lab, ["a"])
    (folders.state / "a" / "journal").write_text("kept")
    folders.close()
    return folders.state


def lab_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "lab.yaml").write_text(LAB)
    (folder / "a.cfg").write_text("context c\n")
    return folder


# what destroy removes


@pytest.mark.parametrize("form", ["{}", "{}/", "../{}", "./{}", "/{}", "{}/.", "."])
def test_destroy_never_removes_a_folder_that_it_is_pointed_at(
    short_folder: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = short_folder / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("years of work")
    held = left_state("other")
    monkeypatch.chdir(precious if form == "." else short_folder)
    names = {"/{}": f"{short_folder}/precious"[1:], "../{}": f"{short_folder.name}/precious"}
    word = form.format(names.get(form, "precious"))
    result = destroy(word)
    assert (precious / "thesis").exists()
    assert (held / "a" / "journal").exists()
    assert (result.exit_code, "without a lab file" in result.output) == (1, True), result.output


@pytest.mark.parametrize("name", ["..", "../s/other", "other/a", "x y", "", "other\n"])
def test_a_name_that_is_none_removes_nothing(name: str) -> None:
    held = left_state("other")
    assert destroy(name).exit_code == 1
    assert (held / "a" / "journal").exists()


def test_a_lab_file_or_its_folder_means_the_lab_of_that_file(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lab_folder(short_folder / "labs")
    other = left_state("other")
    for word in (folder / "lab.yaml", folder, "."):
        state = left_state("mine")
        monkeypatch.chdir(folder)
        result = destroy(word)
        assert result.output == "mine: was not running; its state is deleted\n"
        assert not state.exists()
    assert (folder / "lab.yaml").exists()
    assert (other / "a" / "journal").exists()


def test_a_folder_with_several_files_is_asked_about(short_folder: Path) -> None:
    folder = lab_folder(short_folder / "labs")
    (folder / "lab.yaml").rename(folder / "one.yaml")
    shutil.copy(folder / "one.yaml", folder / "two.yaml")
    held = left_state("mine")
    result = destroy(folder)
    assert "one.yaml, two.yaml; give one of them" in result.output
    assert held.exists()


def test_state_that_we_did_not_make_stays(short_folder: Path) -> None:
    foreign = short_folder / "s" / "photos"
    foreign.mkdir(parents=True)
    (foreign / "one.jpg").write_text("smile")
    result = destroy("photos")
    assert (foreign / "one.jpg").exists()
    assert (result.exit_code, "was not made by chassis" in result.output) == (1, True)
    with pytest.raises(FolderError, match="was not made by chassis"):
        Folders("photos", ["a"])
    assert os.listdir(foreign) == ["one.jpg"]


def test_links_are_not_followed(short_folder: Path) -> None:
    precious = short_folder / "precious"
    (precious / "deep").mkdir(parents=True)
    (precious / "thesis").write_text("years of work")
    state = left_state("mine")
    (state / "a" / "link").symlink_to(precious)
    (state / "linked").symlink_to(precious)
    assert destroy("mine").exit_code == 0
    assert not state.exists()
    assert (precious / "thesis").exists()
    # The whole folder is a link, to one of ours even.
    other = left_state("other")
    state.symlink_to(other)
    assert destroy("mine").exit_code == 1
    assert (other / "a" / "journal").exists()
    with pytest.raises(FolderError, match="is not a folder, or is a link"):
        Folders("mine", ["a"])


# folders that we are given


def test_a_run_folder_that_stood_before_is_neither_changed_nor_swept(short_folder: Path) -> None:
    given = short_folder / "r"
    given.mkdir()
    given.chmod(0o1777)
    (given / "mail").mkdir()
    (given / "mail" / "lock").write_text("")
    (given / "mail" / "inbox").write_text("letters")
    folders = Folders("mine", ["a"])
    assert stat.S_IMODE(given.stat().st_mode) == 0o1777
    assert (given / "mail" / "inbox").exists()
    assert stat.S_IMODE(folders.run.stat().st_mode) == 0o700
    folders.close()
    assert os.listdir(given) == ["mail"]


def test_a_folder_of_the_labs_name_that_stood_before_is_refused(short_folder: Path) -> None:
    standing = short_folder / "r" / "mine"
    standing.mkdir(parents=True, mode=0o755)
    standing.chmod(0o755)
    (standing / "notes").write_text("mine")
    with pytest.raises(FolderError, match="was not made by chassis"):
        Folders("mine", ["a"])
    assert stat.S_IMODE(standing.stat().st_mode) == 0o755
    assert os.listdir(standing) == ["notes"]


def test_state_that_lies_among_run_folders_is_not_swept(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHASSIS_STATE", str(short_folder / "r"))
    monkeypatch.setenv("CHASSIS_RUN", str(short_folder / "q"))
    state = left_state("mine")
    (state / "lock").write_text("")
    monkeypatch.setenv("CHASSIS_RUN", str(short_folder / "r"))
    assert sweep(short_folder / "r") == []
    with pytest.raises(FolderError, match="was not made by chassis"):
        Folders("mine", ["a"])
    assert (state / "a" / "journal").exists()


def test_what_tests_left_is_swept_only_where_it_is_ours() -> None:
    foreign = Path(tempfile.mkdtemp(prefix="ch999999999-", dir="/tmp"))
    try:
        (foreign / "thesis").write_text("years of work")
        with pytest.raises(LabError):
            boot(foreign / "thesis")
        assert (foreign / "thesis").exists()
    finally:
        shutil.rmtree(foreign, ignore_errors=True)


# who holds them


def test_two_launchers_never_share_a_state_folder(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Folders("mine", ["a"])
    (first.state / "a" / "journal").write_text("kept")
    monkeypatch.setenv("CHASSIS_RUN", str(short_folder / "q"))
    with pytest.raises(FolderError, match="with another run folder"):
        Folders("mine", ["a"])
    assert not (short_folder / "q" / "mine").exists()
    result = destroy("mine")
    assert (result.exit_code, "with another run folder" in result.output) == (1, True)
    with pytest.raises(FolderError, match="with another run folder"):
        delete_state("mine")
    assert (first.state / "a" / "journal").exists()
    first.close()
    second = Folders("mine", ["a"])
    second.close(delete_state=True)
    assert not second.state.exists()


def test_starters_and_a_prober_do_not_hinder_each_other(short_folder: Path) -> None:
    def start(name: str) -> None:
        for _ in range(STARTS):
            folders = Folders(name, ["a"])
            (folders.run / "socket").write_text("")
            if not (folders.run / "socket").exists():
                raise AssertionError("swept while it was held")
            folders.close()

    children = {}
    for name in ("one", "two"):
        pid = os.fork()
        if not pid:
            try:
                start(name)
            except BaseException as error:
                (short_folder / f"{name}.wrong").write_text(f"{type(error).__name__}: {error}")
            os._exit(0)
        children[name] = pid
    while children:
        running()
        for name, pid in list(children.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del children[name]
    assert [file.read_text() for file in short_folder.glob("*.wrong")] == []


# whose they are


def test_folders_of_somebody_else_are_neither_used_nor_looked_into(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = Folders("mine", ["a"])
    folders.write_facts({"name": "mine", "nodes": {}, "links": [], "launcher": os.getpid(), "file": "x"})
    assert [lab.name for lab in running()] == ["mine"]
    if os.geteuid() == 0:
        os.chown(short_folder / "r", 12345, -1)
    else:
        for name in ("geteuid", "getuid"):
            monkeypatch.setattr(os, name, lambda: 12345)
    result = CliRunner().invoke(chassisctl, ["ps"])
    assert "belongs to another user" in result.output
    with pytest.raises(FolderError, match="belongs to another user"):
        Folders("other", ["a"])
    monkeypatch.undo()
    folders.close()


def test_a_run_folder_that_others_may_change_is_not_spoken_to(short_folder: Path) -> None:
    folders = Folders("mine", ["a"])
    folders.write_facts({"name": "mine", "nodes": {}, "links": [], "launcher": os.getpid(), "file": "x"})
    folders.run.chmod(0o770)
    result = CliRunner().invoke(chassisctl, ["ps"])
    assert "is accessible to other users: its mode is 770" in result.output
    assert folders.run.stat().st_mode & 0o777 == 0o770
    folders.close()


def test_a_place_that_anybody_may_change_is_refused(short_folder: Path) -> None:
    open_to_all = short_folder / "r"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(FolderError, match="is writable for all users"):
        Folders("mine", ["a"])
    assert stat.S_IMODE(open_to_all.stat().st_mode) == 0o777
