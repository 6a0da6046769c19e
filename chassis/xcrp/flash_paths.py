"""Names of files in a router's flash: where each is, or why it can't be one.

A bare name is a file of `/flash` (S-100), and `/flash/NAME` is the same file. There is no other local file system,
no way out of `/flash`, and no hidden file. The PKI stores are in `/flash/pki`, which is listed and no more.
"""

from __future__ import annotations

import re
from typing import Final

from chassis.bus.engine import FlashPath
from chassis.model.router import Config

FLASH: Final = "flash"

ABSENT: Final = ("md", "pcmcia0", "pcmcia1")
"""Devices of the box that this one does not have."""

PKI: Final = "pki"

MAX_DEPTH: Final = 6
"""Most folders and file of a path below `/flash` (count)."""

MAX_NAME: Final = 128
"""Most characters of a name."""

DEFAULT_FILE: Final = "redback.cfg"
"""The configuration file of a router whose configuration names none."""

_NAME: Final = re.compile(rf"(?!\.)[!-.0-~]{{1,{MAX_NAME}}}", re.ASCII)
_BOOT: Final = "boot configuration "


class FlashPathError(ValueError):
    """A text names no file of the flash; the text says why."""


def resolve(text: str) -> FlashPath:
    """Return the place of a file or folder below `/flash`; empty for `/flash` itself.

    Raises:
        FlashPathError: the text is no path, or leads elsewhere.
    """
    first, *rest = text.removesuffix("/").split("/") if text else ["", FLASH]
    if first:
        rest = [first, *rest]
    elif rest[:1] == [FLASH]:
        del rest[0]
    elif rest and rest[0] in ABSENT:
        raise FlashPathError(f"/{rest[0]}: No such device")
    else:
        raise FlashPathError(f"{_shown(text)} is not a valid path on a local file system")
    if len(rest) > MAX_DEPTH or not all(map(_NAME.fullmatch, rest)):
        raise FlashPathError(f"{_shown(text)} is not a valid path on a local file system")
    return tuple(rest)


def resolve_file(text: str) -> FlashPath:
    """Return the place of a file that may be read and written.

    Raises:
        FlashPathError: as `resolve`, or the text names a folder or a file of the PKI stores.
    """
    path = resolve(text)
    if not path or text.endswith("/"):
        raise FlashPathError(f"{_shown(text or '/flash')} is a folder")
    if path[0] == PKI:
        raise FlashPathError(f"{written(path)} belongs to the PKI stores")
    return path


def written(path: FlashPath) -> str:
    """Return the path as it is shown."""
    return "/".join(("", FLASH, *path))


def boot_file(config: Config) -> str:
    """Return the name of the file that a start without commits and `reload` read."""
    found = (line.removeprefix(_BOOT) for line in config.accepted if line.startswith(_BOOT))
    return next(found, DEFAULT_FILE)


def _shown(text: str) -> str:
    return text if text.isascii() and text.isprintable() else ascii(text)
