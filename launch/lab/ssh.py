"""Read `ssh:` of a lab file: where a router listens for SSH, and the lab's own login (docs/labs.md).

Input: marked values. Output: `SshSettings`; errors go to the reporter. A password is hashed here: neither it nor
its hash is in any message.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from chassis.bus import regular_files
from chassis.mgmt import passwords
from chassis.net.ssh_key import public_key
from launch.lab.model import SshSettings
from launch.lab.yaml_source import Marked, Reporter, beside, is_there

KEYS = ("listen", "port", "user", "password", "key", "published-password", "urls")

MAX_PASSWORD = 256
"""Length (octets) of the longest password."""

MAX_KEY_FILE = 65_536
"""Size (octets) of the largest file of public keys."""

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\Z")


def read(
    value: Marked | None, base: SshSettings, lab: Path, report: Reporter, *, whole: bool = False
) -> SshSettings:
    """Return `base` with what is given here; `whole`: it is that of the whole lab, where there is no port."""
    if value is None or value.value is None:
        return base
    if not value.is_mapping:
        report.error(value.at, "lab-value", f"'ssh:' is a mapping of {', '.join(KEYS)}", "ssh")
        return base
    for key, child in value.items():
        if key not in KEYS:
            report.unknown("key of ssh", key, KEYS, child.key)
    made: dict[str, Any] = {}
    given: dict[str, Marked] = value.value
    if (listen := given.get("listen")) is not None:
        try:
            made["listen"] = str(ipaddress.IPv4Address(listen.value))
        except ValueError:
            text = f"{listen.value!r} is not an IPv4 address; 127.0.0.1 is this machine alone"
            report.error(listen.at, "lab-value", text, str(listen.value))
    if (port := given.get("port")) is not None:
        made["port"] = _port(port, report, whole)
    if (user := given.get("user")) is not None:
        if isinstance(user.value, str) and _USER.match(user.value):
            made["user"] = user.value
        else:
            text = "'user:' is up to 32 letters, digits, '.', '-' and '_'"
            report.error(user.at, "lab-value", text, "user")
    if (password := given.get("password")) is not None:
        made["password_hash"] = _password(password, report)
    if (key_given := given.get("key")) is not None:
        made["keys"] = _keys(key_given, lab, report)
    for key, name in (("published-password", "published"), ("urls", "urls")):
        if (flag := given.get(key)) is not None:
            if isinstance(flag.value, bool):
                made[name] = flag.value
            else:
                report.error(flag.at, "lab-value", f"'{key}:' is true or false", key)
    settings = replace(base, **made)
    if (settings.password_hash or settings.keys) and not settings.user:
        report.error(value.at, "lab-missing", "a password or key needs the 'user:' that logs in with it", "user")
    if settings.user and not settings.password_hash and not settings.keys and not report.failed:
        report.error(value.at, "lab-missing", "a user needs a 'password:' or a 'key:' to log in with", "user")
    return settings


def _port(value: Marked, report: Reporter, whole: bool) -> int:
    number = value.value
    if isinstance(number, str) and number.isdecimal() and len(number) < 6:
        number = int(number)
    if whole:
        report.error(value.at, "lab-value", "each router needs a port of its own: give it there", "port")
    elif not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= 65535:
        report.error(value.at, "lab-value", "'port:' is a whole number, 1 to 65535", "port")
    else:
        return number
    return 0


def _password(value: Marked, report: Reporter) -> str:
    """Return the hash of a password."""
    text = value.value
    if not isinstance(text, str) or not 0 < len(text.encode()) <= MAX_PASSWORD:
        # A number would lose its leading zeros.
        wanted = f"'password:' is a text of up to {MAX_PASSWORD} octets; put digits in quotes"
        report.error(value.at, "lab-value", wanted, "password")
        return ""
    return passwords.hashed(text)


def _keys(value: Marked, lab: Path, report: Reporter) -> tuple[str, ...]:
    keys: list[str] = []
    for item in value.value if value.is_list else (value,):
        text = item.value
        if not isinstance(text, str):
            report.error(item.at, "lab-value", "'key:' is a public key or the file of one", "key")
        elif public_key(text):
            keys.append(text)
        elif "PRIVATE KEY" in text:
            report.error(item.at, "lab-value", "'key:' is the public key, not the private one", "key")
        elif not is_there(file := beside(lab, text)):
            report.error(item.at, "lab-file", "'key:' is neither a public key nor a file beside the lab", "key")
        else:
            keys += _from_file(file, item, report)
    return tuple(keys)


def _from_file(file: Path, at: Marked, report: Reporter) -> list[str]:
    try:
        lines = [line.strip() for line in regular_files.read_text(file, MAX_KEY_FILE).splitlines()]
    except (OSError, UnicodeDecodeError):
        lines = []
    keys = [line for line in lines if public_key(line)]
    if not keys:
        report.error(at.at, "lab-file", f"{file.name} has no public key such as 'ssh-ed25519 AAAA...'", file.name)
    return keys
