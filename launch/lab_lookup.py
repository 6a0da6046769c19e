"""Find the lab to end from an operator's argument: its name, its file, or the folder of its file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from launch.lab import parser
from launch.lab.yaml_source import LabError
from launch.run_folders import Running, has_state

LAB_FILES = ("lab.yaml", "lab.yml")
PATTERNS = ("*.yaml", "*.yml", "*.cfg")


class LabLookupError(Exception):
    """The argument names no lab or several; the text lists the candidates."""


def find_lab_name(word: str, running: Mapping[str, Running]) -> str:
    """Return the name of the lab that `word` means; `running` are the running labs by name.

    Raises:
        LabLookupError: the word is neither a name nor a lab file nor a folder with one, or several labs match.
    """
    path = Path(word)
    if parser.VALID_NAME.match(word) and (word in running or has_state(word) or not path.exists()):
        return word
    if not path.exists():
        raise LabLookupError(f"{word!r} is neither a lab's name nor a file")
    file = _file_in(path) if path.is_dir() else path
    started = [lab.name for lab in running.values() if _same(file, lab.facts.get("file"))]
    if len(started) > 1:
        raise LabLookupError(f"{file} runs as {' and as '.join(started)}: give one of these names")
    if started:
        return started[0]
    try:
        name = parser.load(file)[0].name
    except LabError as error:
        raise LabLookupError(f"{word!r} is not a lab: {error}") from None
    if name in running:
        raise LabLookupError(
            f"lab {name} of {file} runs from another file, {running[name].facts.get('file')}: give its name"
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
            raise LabLookupError(
                f"{folder} has several files: {', '.join(path.name for path in found)}; give one of them"
            )
    raise LabLookupError(f"{folder} is a folder without a lab file and not a lab's name")


def _same(file: Path, other: object) -> bool:
    try:
        return isinstance(other, str) and os.path.samefile(file, other)
    except OSError:
        return False
