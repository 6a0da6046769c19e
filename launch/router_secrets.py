"""The secret of each router: given by the lab, else made at the first start; kept in the router's state folder.

Input: a lab, and the state folders. Output: what makes and reads the encrypted forms of a router's keys. The file
has one secret a line, the one in use first: after the lab gave another one, earlier forms are still read. Only its
owner can read it. The controller reads it at each start; no other process gets it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from chassis.bus import regular_files, storage
from chassis.config.secrets import SECRET_FILE, RouterSecret
from launch.lab.model import Lab, RouterNode
from launch.run_folders import FolderError, Folders, node_state

MADE_OCTETS = 32
"""Random octets of a secret that is made."""


def known(lab: str, router: RouterNode) -> RouterSecret | None:
    """Return the secrets of a router that are kept or given; None if none is yet.

    Raises:
        FolderError: the file cannot be read.
    """
    kept = _kept(node_state(lab, router.name) / SECRET_FILE)
    if router.secret:
        return (kept or RouterSecret()).with_first(router.secret)
    return kept


def _kept(path: Path) -> RouterSecret | None:
    try:
        return RouterSecret.read(regular_files.read_text(path, errors="replace").encode())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FolderError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise FolderError(
            f"{path}: {error}; repair it, or delete it and give the router the secret of before with 'secret:'"
        ) from None


def of(lab: Lab) -> dict[str, RouterSecret]:
    """Return the secrets of each router, with one that is new where it has none. `keep` writes them.

    Raises:
        FolderError: a file cannot be read.
    """
    return {
        router.name: known(lab.name, router) or RouterSecret((secrets.token_urlsafe(MADE_OCTETS),))
        for router in lab.routers()
    }


def keep(folders: Folders, found: Mapping[str, RouterSecret]) -> None:
    """Write the secrets of routers into their state folders if they differ.

    Raises:
        OSError: a file cannot be written.
        FolderError: a file cannot be read.
    """
    for name, secret in found.items():
        path = folders.node_state(name) / SECRET_FILE
        if _kept(path) != secret:
            storage.replace(path, secret.write())
