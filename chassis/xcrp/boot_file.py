"""The boot file: the configuration in the flash that a start without commits reads, and `reload` (S-113).

The configuration in force names it with `boot configuration`; at the first start the lab's file does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chassis.bus.engine import FlashPath
from chassis.xcrp import configuration, flash_paths
from chassis.xcrp.flash_operations import FlashAnswer
from chassis.xcrp.flash_paths import FlashPathError, written
from chassis.xcrp.state import ControllerState

PRIVATE: Final = b"PRIVATE KEY-----"
"""A file that holds this is not read: it has a private key."""

ReadFlash = Callable[[FlashPath], FlashAnswer]
"""Reads a file of the flash."""


def text_of(path: FlashPath, answer: FlashAnswer) -> tuple[str, str]:
    """Return the text of a file that was read, and why it can't be used."""
    if answer.error:
        return "", answer.error
    if PRIVATE in answer.data:
        return "", f"{written(path)} holds a private key"
    try:
        return answer.data.decode().replace("\r\n", "\n"), ""
    except UnicodeDecodeError:
        return "", f"{written(path)} is not a text file"


def start_file(state: ControllerState, read: ReadFlash, now: float) -> tuple[str, str] | None:
    """Return text and name of the boot file that the lab's file names, or of the lab's file if there is none."""
    if state.startup is None:
        return None
    text, file = state.startup
    config = configuration.check(text, file, modern=state.settings.modern, secret=state.secret).config
    try:
        path = flash_paths.resolve_file(flash_paths.boot_file(config))
    except FlashPathError as error:
        state.log("warning", "configuration", f"the boot file is not read: {error}", now)
        return state.startup
    answer = read(path)
    if answer.missing:
        return state.startup
    saved, why = text_of(path, answer)
    if why:
        state.log("error", "configuration", f"the boot file is not read: {why}", now)
        return state.startup
    return saved, written(path)
