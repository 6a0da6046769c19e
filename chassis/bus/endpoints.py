"""Names of the bus's endpoints: Unix sockets in the lab's run folder.

The fabric endpoint of a card has its boot number, so that messages for a dead process do not reach the next one.
The path of a Unix socket has 107 octets at most, so the path of the run folder must be short.
"""

from __future__ import annotations

from pathlib import Path

MAX_PATH = 107


def compact(card: str) -> str:
    """Return a card's name as a part of a file name: `asp1-1` for `asp 1/1`."""
    return card.replace(" ", "").replace("/", "-")


def _ipc(path: Path) -> str:
    if len(str(path).encode()) > MAX_PATH:
        raise ValueError(
            f"{path}: longer than the {MAX_PATH} bytes of a Unix socket's path; use a shorter run folder"
        )
    return f"ipc://{path}"


def control(run: Path, node: str) -> str:
    """Return the endpoint of the controller's ROUTER socket."""
    return _ipc(run / f"{node}.c")


def fabric(run: Path, node: str, card: str, boot: int) -> str:
    """Return the endpoint of the fabric socket of one boot of a card."""
    return _ipc(run / f"{node}.{compact(card)}.{boot}")


def wire(run: Path, node: str, port: str) -> str:
    """Return the endpoint of the receiving end of a port's wire."""
    return _ipc(run / f"w.{node}.{port.replace('/', '-')}")


def operator(run: Path, node: str) -> Path:
    """Return the path of the operator socket of a controller or tester."""
    return run / f"{node}.sock"
