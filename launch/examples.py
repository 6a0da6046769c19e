"""The example labs of the project: list them, and copy one to a folder where a user can change it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

LAB = "lab.yaml"

_PLACES = (Path(__file__).parent / "example_labs", Path(__file__).parent.parent / "configs")
"""Folders of the examples in an installed wheel and in a clone."""


class ExampleError(Exception):
    """An example cannot be copied; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Example:
    """An example lab: its name, the first sentence of its file's comment, and its folder."""

    name: str
    about: str
    folder: Path


def examples() -> tuple[Example, ...]:
    """Return the example labs, by name."""
    place = next((place for place in _PLACES if place.is_dir()), None)
    folders = [] if place is None else sorted(folder for folder in place.iterdir() if (folder / LAB).is_file())
    return tuple(Example(folder.name, _about(folder / LAB), folder) for folder in folders)


def copy(name: str, to: Path) -> Path:
    """Copy an example into a folder that does not exist. Return its lab file.

    Raises:
        ExampleError: the example does not exist, or the folder exists or cannot be created.
    """
    known = {example.name: example for example in examples()}
    if name not in known:
        raise ExampleError(f"{name!r} is not an example; examples: {', '.join(known)}")
    if to.exists() or to.is_symlink():
        raise ExampleError(f"{to} already exists; give another folder")
    try:
        shutil.copytree(known[name].folder, to)
    except (OSError, shutil.Error) as error:
        raise ExampleError(f"{to}: {error}") from None
    return to / LAB


def _about(file: Path) -> str:
    """Return the first sentence of a lab file's first comment."""
    text = ""
    for line in file.read_text().splitlines():
        if not line.startswith("# "):
            break
        text = f"{text} {line[2:].strip()}".strip()
        if ". " in text or text.endswith("."):
            break
    return text.split(". ")[0].rstrip(".")
