"""What a process of the lab is told by the launcher that forked it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chassis.bus import counters, endpoints
from chassis.bus.storage import allocate, map_file


@dataclass(frozen=True, slots=True)
class WireSpec:
    """The far end of a port's link.

    `kind` is `wire` (another port of the lab: `node` and `port` name it) or `packet` (a Linux device: `fd` is a
    raw packet socket that was opened where the device is). `seed` makes the wire's faults repeatable, `far_seed`
    those of the other direction where the far end does not make them itself.
    """

    kind: str
    node: str = ""
    port: str = ""
    fd: int = -1
    seed: int = 0
    far_seed: int | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """One process: which card of which node of which lab it is, and where its folders are.

    `card` is `xcrp`, `lc 3`, `asp 1/1` or `tester`. `launcher` is this process's end of a stream socket to the
    launcher (the controller's only). `startup` is the start-up file, text and name (the controller's only).
    `flash` is the folder of the router's PKI stores (the controller's only).
    """

    lab: str
    node: str
    card: str
    boot: int
    run: Path
    state: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    wires: Mapping[str, WireSpec] = field(default_factory=dict)
    launcher: socket.socket | None = None
    startup: tuple[str, str] | None = None
    flash: Path | None = None
    ports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    flows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def counters(self) -> counters.Counters:
        """This card's counters, in a mapped file of the run folder that outlives the process."""
        path = self.run / f"{self.node}.{endpoints.compact(self.card)}.counters"
        return map_counters(path)


def map_counters(path: Path) -> counters.Counters:
    """The counters in a file, made if need be.

    Raises:
        OSError: there is no room for their first ones.
    """
    view, _ = map_file(path, counters.FILE_SIZE, counters.GROWTH_OCTETS)
    return counters.Counters(view, lambda room: allocate(path, room))
