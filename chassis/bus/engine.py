"""The interface of engines, and the closed set of outputs that they return to their shell.

An engine takes an event and the time, and returns outputs **in the order in which the shell must carry them out**:
the file of a `Persist` is on disk before a message after it is sent. An engine never touches a socket, a clock, a
file, a random source or a process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from chassis.bus.batch import Batch
from chassis.bus.messages import Attributes, FromCard, Heartbeat, Request, ToCardMessage

STALL_TIMEOUT = 0.05
"""Delay (s) of a shell's loop behind its schedule above which it calls `on_stall`."""

MAX_POLL_TIMEOUT = 0.1
"""Longest wait (s) of one poll of a shell's loop, so that it notices a stall whatever the timers say."""

MAX_IDLE_TIMEOUT = 60.0
"""Longest wait (s) of one poll of a process that no stall matters to."""


@dataclass(frozen=True, slots=True)
class ToController:
    """A card's message up."""

    message: FromCard


@dataclass(frozen=True, slots=True)
class ToCard:
    """The controller's message down to one card."""

    card: str
    message: ToCardMessage


# These two are made for each batch: frozen ones cost three times as much.


@dataclass(slots=True)
class ToFabric:
    """A batch for another card of the node; the shell never blocks on it, and drops what it cannot queue."""

    card: str
    batch: Batch


@dataclass(slots=True)
class ToWire:
    """Frames, complete with their Ethernet headers, out of a port."""

    port: str
    batch: Batch


@dataclass(frozen=True, slots=True)
class Connect:
    """Open the fabric connection to this boot of a card; close the one to an earlier boot."""

    card: str
    boot: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    card: str


@dataclass(frozen=True, slots=True)
class Perform:
    """A request that only the shell can carry out (impairment, capture): the shell sends the `Reply`."""

    request: Request


@dataclass(frozen=True, slots=True)
class Persist:
    """Replace a file of the node's state folder, atomically, readable by its owner only.

    The shell writes it, then carries out the outputs after it, then calls `on_stored` with why the file is not on
    disk, or nothing. If it is not, the shell sends no message to a card that comes after it in the outputs.
    """

    file: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Append:
    """Append lines to a journal of the node's state folder, and sync it; answered as a `Persist` is."""

    file: str
    data: bytes


@dataclass(frozen=True, slots=True)
class WriteLog:
    """Append to a file of the node's state folder, or write it anew if `whole`, readable by its owner only; do not
    wait for the disk. A failed append leaves the file as it was. Answered by `on_log_written`."""

    file: str
    data: bytes
    whole: bool


FlashPath = tuple[str, ...]
"""A file or folder of a router's flash, by the names from `/flash` down to it."""


@dataclass(frozen=True, slots=True)
class ToFlash:
    """Work on a file of the router's flash; the shell calls `on_flash` with this number and what came of it.

    `operation` is `list` a folder; `read` a file; `write` one with `data`, complete and on disk or not at all;
    `copy` one to `target`, in the same way; or `delete` one. An existing file is replaced if `overwrite`.
    `store` reads all files of the PKI stores. `key-pair` makes an RSA key of `bits` and writes it, encrypted under
    `data`; the shell goes on meanwhile.
    """

    number: int
    operation: str
    path: FlashPath
    data: bytes = field(default=b"", repr=False)
    target: FlashPath = ()
    overwrite: bool = False
    bits: int = 0


@dataclass(frozen=True, slots=True)
class ToIke:
    """A message of an ASP's data engine to its IKE process; the types are in `chassis.ase.ike_messages`."""

    message: object


@dataclass(frozen=True, slots=True)
class ToLauncher:
    """The controller's request to the launcher: `kill` a hung card, or add an `event` to the lab's history."""

    request: str
    values: Attributes


@dataclass(frozen=True, slots=True)
class ToOperator:
    """An answer to an operator's command; `last` closes it."""

    number: int
    result: Attributes
    error: str = ""
    last: bool = True


@dataclass(frozen=True, slots=True)
class Exit:
    """End the process; `reason` is for its log."""

    reason: str


Output = (
    ToController
    | ToCard
    | ToFabric
    | ToWire
    | Connect
    | Disconnect
    | Perform
    | Persist
    | Append
    | WriteLog
    | ToFlash
    | ToIke
    | ToLauncher
    | ToOperator
    | Exit
)


class CardEngine(Protocol):
    """A line card or an ASP, as its shell and the simulator drive it.

    `now` is in seconds, monotonic. `next_timer()` is the time at which `on_timer` wants to be called, or infinity.
    """

    card: str
    fenced: bool
    """Nothing may leave until the controller admits this process again."""
    aligned: bool
    """Whether heartbeats come at multiples of their interval."""

    def start(self, now: float) -> list[Output]: ...

    def on_connected(self, now: float) -> list[Output]:
        """The control connection to a controller is established, or established again."""

    def on_disconnected(self, now: float) -> list[Output]:
        """The control connection is lost: continue with the records that are held."""

    def receive(self, message: ToCardMessage, now: float) -> list[Output]: ...

    def receive_batch(self, batch: Batch, now: float) -> list[Output]:
        """A batch from another card."""

    def receive_frames(self, port: str, batch: Batch, now: float) -> list[Output]:
        """Frames that came in by a port."""

    def on_carrier(self, port: str, up: bool, now: float) -> list[Output]:
        """The carrier of a port came up or went down."""

    def on_fabric_peer(self, card: str, boot: int, up: bool, now: float) -> list[Output]:
        """The fabric connection to a boot of another card opened or closed."""

    def on_stall(self, seconds: float, now: float) -> list[Output]:
        """The shell's loop was behind its schedule by `seconds`."""

    def on_timer(self, now: float) -> list[Output]: ...

    def next_timer(self) -> float: ...

    def own_due(self) -> float:
        """Return when something of what all cards do is due; with `parts_due` it is `next_timer`."""

    def parts_due(self) -> float:
        """Return when something else is due. A call of `heartbeat` does not change it."""

    @property
    def beat_at(self) -> float:
        """When the next heartbeat is due."""

    def heartbeat(self, now: float) -> Heartbeat:
        """Return the heartbeat that is due, and do nothing else."""
