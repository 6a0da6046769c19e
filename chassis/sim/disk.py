"""The disk with a simulated router's state folder, which can be full at any time."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from types import MappingProxyType

from chassis.bus.engine import Append, FlashPath, Persist, ToFlash, WriteLog
from chassis.net.pki import new_key
from chassis.xcrp.flash import FlashFile, encrypted_pem
from chassis.xcrp.flash_operations import FlashAnswer, FlashEntry
from chassis.xcrp.flash_paths import PKI, written

FULL = "No space left on device"

BOOTS = "boots.json"
"""The launcher's file."""


class Disk:
    """Files by name. A write is complete and on disk, or fails and changes nothing.

    `room` is the number of writes that still succeed; infinity on a disk that never becomes full.
    """

    def __init__(self, flash: Mapping[FlashPath, bytes] = MappingProxyType({})) -> None:
        """`flash` has the first files of the router's flash."""
        self.files: dict[str, bytes] = {}
        self.flash = dict(flash)
        self.room = inf
        self.refused = 0
        """Writes that failed because the disk was full (count)."""

    @property
    def full(self) -> bool:
        return self.room <= 0

    def state(self) -> dict[str, bytes]:
        """Return the files that a starting controller reads: all but the launcher's file."""
        return {name: data for name, data in self.files.items() if name != BOOTS}

    def write(self, output: Persist | Append) -> str:
        """Carry out a write; return why it is not on disk, or empty."""
        if self.full:
            self.refused += 1
            return FULL
        self.room -= 1
        before = b"" if isinstance(output, Persist) else self.files.get(output.file, b"")
        self.files[output.file] = before + output.data
        return ""

    def write_log(self, output: WriteLog) -> str:
        """Write to the file of the log, which takes none of the room; return why it is not written, or empty."""
        if self.full:
            return FULL
        before = b"" if output.whole else self.files.get(output.file, b"")
        self.files[output.file] = before + output.data
        return ""

    def work(self, asked: ToFlash) -> FlashAnswer:
        """Carry out an operation on the flash."""
        held, path = self.flash, asked.path
        if asked.operation == "list":
            depth = len(path)
            inside = [name for name in held if name[:depth] == path and len(name) > depth]
            entries = {
                name[depth]: FlashEntry(name[depth], len(held[name]) if len(name) == depth + 1 else 0)
                for name in sorted(inside)
            }
            return FlashAnswer(entries=tuple(entries.values()))
        if asked.operation == "store":
            return FlashAnswer(store=self.store())
        if asked.operation not in ("write", "key-pair") and path not in held:
            return FlashAnswer(f"Can't open {written(path)}: No such file or directory", missing=True)
        if asked.operation == "read":
            return FlashAnswer(data=held[path])
        if asked.operation == "delete":
            del held[path]
            return FlashAnswer()
        target, data = (asked.target, held[path]) if asked.operation == "copy" else (path, asked.data)
        if asked.operation == "key-pair":
            data = encrypted_pem(new_key(asked.bits), asked.data)
        if target in held and not asked.overwrite:
            return FlashAnswer(exists=True)
        if self.full:
            self.refused += 1
            return FlashAnswer(f"Can't write {written(target)}: {FULL}")
        self.room -= 1
        held[target] = data
        return FlashAnswer()

    def store(self) -> tuple[FlashFile, ...]:
        """Return the files of the PKI stores."""
        return tuple(
            FlashFile("/".join(name), data) for name, data in sorted(self.flash.items()) if name[0] == PKI
        )

    def read(self, path: FlashPath) -> FlashAnswer:
        """Read a file of the flash, as a controller does when it starts."""
        return self.work(ToFlash(0, "read", path))
