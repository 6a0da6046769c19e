"""Host keys of a router's SSH: made once, kept in a folder of the state folder that only its owner can read.

The launcher makes the Ed25519 key, so that clients can be told of it before anybody connects; the process that
serves makes the RSA key, for old clients, at its first connection. Private keys are in OpenSSH's form.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from chassis.bus import storage

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.serialization import SSHPrivateKeyTypes

FOLDER: Final = "ssh"
"""The folder of host keys in a node's state folder."""

KNOWN_HOSTS: Final = "known_hosts"
"""The file of public host keys in a lab's run folder, for OpenSSH's client."""

RSA_BITS: Final = 2048

Kind = Literal["ed25519", "rsa"]


class HostKeyError(Exception):
    """The file of a host key can't be read or is none. It is not replaced: clients have been told of it."""


def host_key(state: Path, kind: Kind) -> Path:
    """Return the file of a node's host key; make it if there is none.

    Raises:
        HostKeyError: the file is no key.
        OSError: it cannot be read or written.
    """
    file = _file(state, kind)
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        if file.exists():
            _load(file)
            return file
        made: SSHPrivateKeyTypes
        if kind == "rsa":
            made = rsa.generate_private_key(65537, RSA_BITS)
        else:
            made = ed25519.Ed25519PrivateKey.generate()
        octets = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        storage.replace(file, octets)
    except ValueError:
        raise HostKeyError(f"{file} is no host key; remove it, and a new one is made") from None
    return file


def public_keys(state: Path) -> list[str]:
    """Return the public parts of the host keys that are there, each as `ALGORITHM KEY`."""
    found: list[str] = []
    for kind in ("ed25519", "rsa"):
        file = _file(state, kind)
        if os.path.exists(file):
            public = _load(file).public_key()
            encoding, form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
            found.append(public.public_bytes(encoding, form).decode())
    return found


def _file(state: Path, kind: str) -> Path:
    return state / FOLDER / f"ssh_host_{kind}_key"


def _load(file: Path) -> SSHPrivateKeyTypes:
    try:
        return serialization.load_ssh_private_key(file.read_bytes(), None)
    except (ValueError, UnsupportedAlgorithm):
        raise HostKeyError(f"{file} is no host key; remove it, and a new one is made") from None
