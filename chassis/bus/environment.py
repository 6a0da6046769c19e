"""Environment of a process of a lab, given by the launcher that forked it: names, folders, sockets, wires."""

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

    `kind` is `wire` (another port of the lab, named by `node` and `port`) or `packet` (a Linux device: `fd` is a
    raw packet socket that was opened in its network namespace, with a receive ring if `ring`). With `pause` a far
    end that takes nothing holds this one back. `seed` makes the faults of this direction repeatable, `far_seed`
    those of the other direction if the far end cannot make them.
    """

    kind: str
    node: str = ""
    port: str = ""
    fd: int = -1
    ring: bool = False
    pause: bool = True
    seed: int = 0
    far_seed: int | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """One process: its lab, node and card, and its folders.

    `card` is `xcrp`, `lc 3`, `asp 1/1`, `mgmt`, `tester` or `peers`. `launcher` is this process's end of a stream
    socket to the launcher (the controller's only). `startup` is the start-up file, text and name (the
    controller's only).
    `flash` is the folder of the router's PKI stores (the controller's only). `listener` is the descriptor of the
    socket that listens for SSH (of `mgmt` only). `peers` are the keys of a node of peers, one secret.
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
    listener: int | None = None
    ports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    flows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    peers: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def counters(self) -> counters.Counters:
        """Return this card's counters, in a mapped file of the run folder that stays after the process."""
        path = self.run / f"{self.node}.{endpoints.compact(self.card)}.counters"
        return map_counters(path)


def map_counters(path: Path) -> counters.Counters:
    """Return the counters in a file, which is made if it does not exist.

    Raises:
        OSError: the disk has no room for the first counters.
    """
    view, _ = map_file(path, counters.FILE_SIZE, counters.GROWTH_OCTETS)
    return counters.Counters(view, lambda room: allocate(path, room))
