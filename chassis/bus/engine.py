"""What every engine looks like from outside, and the closed set of things that it can ask its shell to do.

An engine is a state machine. Each call takes what happened and the time, and returns outputs **in the order in
which they must be done**: a `Persist` that stands before a message is on disk before that message leaves. An
engine never touches a socket, a clock, a file, a random source or a process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from chassis.bus.batch import Batch
from chassis.bus.messages import Attributes, FromCard, Request, ToCardMessage


@dataclass(frozen=True, slots=True)
class ToController:
    """A card's message up."""

    message: FromCard


@dataclass(frozen=True, slots=True)
class ToCard:
    """The controller's message down to one card."""

    card: str
    message: ToCardMessage


@dataclass(frozen=True, slots=True)
class ToFabric:
    """A batch for another card of the node; the shell never blocks on it."""

    card: str
    batch: Batch


@dataclass(frozen=True, slots=True)
class ToWire:
    """Frames, complete with their Ethernet headers, out of a port."""

    port: str
    batch: Batch


@dataclass(frozen=True, slots=True)
class Connect:
    """Open the fabric connection to this start of a card; an older start of the same card is forgotten."""

    card: str
    boot: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    card: str


@dataclass(frozen=True, slots=True)
class Perform:
    """A request that only the shell can do (a port's wire fault, a capture): the shell sends the `Reply`."""

    request: Request


@dataclass(frozen=True, slots=True)
class Persist:
    """Replace a file of the node's state folder, atomically, readable by its owner only.

    The shell does it, then what stands after it in the same outputs, then tells the engine with `stored` whether
    the file is on disk. Where it is not, no message to a card that stands after it is sent.
    """

    file: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Append:
    """Append lines to a journal of the node's state folder, and sync it; answered as a `Persist` is."""

    file: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ToIke:
    """A message of an ASP's data engine to its IKE process; `chassis.ase.link.ToIke` is the set of them."""

    message: object


@dataclass(frozen=True, slots=True)
class ToLauncher:
    """The controller's word to the launcher: `kill` a hung card, or an `event` for the lab's history."""

    what: str
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
    """The process ends; `reason` is for its log."""

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
    """Nothing may leave until the controller admits this process anew."""

    def start(self, now: float) -> list[Output]: ...

    def on_connected(self, now: float) -> list[Output]:
        """The control connection to a controller stands (again)."""

    def on_disconnected(self, now: float) -> list[Output]:
        """The control connection is lost: go on with what is held."""

    def receive(self, message: ToCardMessage, now: float) -> list[Output]: ...

    def receive_batch(self, batch: Batch, now: float) -> list[Output]:
        """A batch from another card."""

    def receive_frames(self, port: str, batch: Batch, now: float) -> list[Output]:
        """Frames that came in by a port."""

    def on_carrier(self, port: str, up: bool, now: float) -> list[Output]:
        """The wire of a port gained or lost its far end."""

    def on_fabric_peer(self, card: str, boot: int, up: bool, now: float) -> list[Output]:
        """The fabric connection to a start of another card opened or closed."""

    def on_stall(self, seconds: float, now: float) -> list[Output]:
        """The shell's own loop stood still for that long."""

    def on_timer(self, now: float) -> list[Output]: ...

    def next_timer(self) -> float: ...
