"""Which lab a word means where one is to be ended: its name, its file, or the folder of its file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from launch.lab import parser
from launch.lab.yaml_source import LabError
from launch.run_folders import Running, has_state

LAB_FILES = ("lab.yaml", "lab.yml")
PATTERNS = ("*.yaml", "*.yml", "*.cfg")


class Unclear(Exception):
    """The word means no lab, or several; the text says which there are."""


def meant(word: str, running: Mapping[str, Running]) -> str:
    """The name of a lab; `running` are those that run, by name.

    Raises:
        Unclear: it is neither a name nor a lab file nor a folder with one.
    """
    path = Path(word)
    if parser.VALID_NAME.match(word) and (word in running or has_state(word) or not path.exists()):
        return word
    if not path.exists():
        raise Unclear(f"{word!r} is neither a lab's name nor a file")
    file = _file_in(path) if path.is_dir() else path
    started = [lab.name for lab in running.values() if _same(file, lab.facts.get("file"))]
    if len(started) > 1:
        raise Unclear(f"{file} runs as {' and as '.join(started)}: say which by its name")
    if started:
        return started[0]
    try:
        name = parser.load(file)[0].name
    except LabError as error:
        raise Unclear(f"{word!r} means no lab: {error}") from None
    if name in running:
        raise Unclear(
            f"lab {name} of {file} runs from another file, {running[name].facts.get('file')}: say its name"
        )
    return name


def _file_in(folder: Path) -> Path:
    for name in LAB_FILES:
        if (folder / name).is_file():
            return folder / name
    for pattern in PATTERNS:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if len(found) == 1:
            return found[0]
        if found:
            raise Unclear(f"{folder} has several files: {', '.join(path.name for path in found)}; say which")
    raise Unclear(f"{folder} is a folder without a lab file, and no lab's name")


def _same(file: Path, other: object) -> bool:
    try:
        return isinstance(other, str) and os.path.samefile(file, other)
    except OSError:
        return False
