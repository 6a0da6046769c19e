"""The labs that come with the project: listed, and copied to where they can be changed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

LAB = "lab.yaml"

_PLACES = (Path(__file__).parent / "example_labs", Path(__file__).parent.parent / "configs")
"""In an installed wheel, and in a clone."""


class ExampleError(Exception):
    """An example cannot be copied; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Example:
    """A lab's folder: its name, what its file says of itself first, and where it is."""

    name: str
    about: str
    folder: Path


def examples() -> tuple[Example, ...]:
    """The labs that come with the project, by name."""
    place = next((place for place in _PLACES if place.is_dir()), None)
    folders = [] if place is None else sorted(folder for folder in place.iterdir() if (folder / LAB).is_file())
    return tuple(Example(folder.name, _about(folder / LAB), folder) for folder in folders)


def copy(name: str, to: Path) -> Path:
    """Copy an example into a folder that is not there yet; its lab file.

    Raises:
        ExampleError: there is no such example, or the folder is there, or cannot be made.
    """
    known = {example.name: example for example in examples()}
    if name not in known:
        raise ExampleError(f"no example {name!r}; there are: {', '.join(known)}")
    if to.exists() or to.is_symlink():
        raise ExampleError(f"{to} is there already: name another folder")
    try:
        shutil.copytree(known[name].folder, to)
    except (OSError, shutil.Error) as error:
        raise ExampleError(f"{to}: {error}") from None
    return to / LAB


def _about(file: Path) -> str:
    """The first sentence of the comment that a lab file begins with."""
    text = ""
    for line in file.read_text().splitlines():
        if not line.startswith("# "):
            break
        text = f"{text} {line[2:].strip()}".strip()
        if ". " in text or text.endswith("."):
            break
    return text.split(". ")[0].rstrip(".")
