"""Names of the bus's endpoints: Unix sockets in the lab's run folder.

The fabric endpoint of a card carries its boot number, so that nothing meant for a dead process can reach its
successor. A Unix socket's path ends at 107 bytes, which is why the run folder must be short.
"""

from __future__ import annotations

from pathlib import Path

MAX_PATH = 107


def compact(card: str) -> str:
    """`asp 1/1` as part of a file's name: `asp1-1`."""
    return card.replace(" ", "").replace("/", "-")


def _ipc(path: Path) -> str:
    if len(str(path).encode()) > MAX_PATH:
        raise ValueError(
            f"{path}: longer than the {MAX_PATH} bytes of a Unix socket's path; use a shorter run folder"
        )
    return f"ipc://{path}"


def control(run: Path, node: str) -> str:
    """The controller's ROUTER."""
    return _ipc(run / f"{node}.c")


def fabric(run: Path, node: str, card: str, boot: int) -> str:
    """The data socket of one start of a card."""
    return _ipc(run / f"{node}.{compact(card)}.{boot}")


def wire(run: Path, node: str, port: str) -> str:
    """The receiving end of a port's wire."""
    return _ipc(run / f"w.{node}.{port.replace('/', '-')}")


def operator(run: Path, node: str) -> Path:
    """The operator socket of a controller or tester."""
    return run / f"{node}.sock"
