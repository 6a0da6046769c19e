"""Reader of the folder that is a router's flash."""

from __future__ import annotations

import os
from pathlib import Path

from chassis.bus import regular_files
from chassis.xcrp.flash import MAX_FLASH_FILES, MAX_PEM_OCTETS, FlashFile


def read_folder(folder: Path) -> tuple[FlashFile, ...]:
    """Return the files of a flash folder that belong to PKI stores, in order, unreadable ones with the error."""
    found: list[FlashFile] = []
    try:
        paths = sorted(path for path in (folder / "pki").rglob("*") if not path.is_dir())
    except OSError as error:
        return (FlashFile("pki", error=error.strerror or str(error)),)
    if not folder.is_dir():
        return (FlashFile(".", error="the folder does not exist"),)
    for path in paths[:MAX_FLASH_FILES]:
        name = path.relative_to(folder).as_posix()
        try:
            # Read one octet more than the limit, so that a larger file is recognised.
            with open(regular_files.open_regular(path), "rb") as file:
                data = file.read(MAX_PEM_OCTETS + 1)
                exposed = bool(os.fstat(file.fileno()).st_mode & 0o077)
        except OSError as error:
            found.append(FlashFile(name, error=error.strerror or str(error)))
        else:
            found.append(FlashFile(name, data, exposed))
    if len(paths) > MAX_FLASH_FILES:
        found.append(FlashFile("pki", error=f"more than {MAX_FLASH_FILES} files: the rest is not read"))
    return tuple(found)
