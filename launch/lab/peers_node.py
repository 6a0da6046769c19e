"""A node of peers in a lab file: what is wrong with its keys, each where it is, and the values that they mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chassis.peers.spec import FILES, KEYS, NEEDED, NESTED, read_spec
from launch.lab.yaml_source import Marked, Reporter, text_beside

KEY_OR_CERTIFICATE = "'pre-shared-key:', or 'certificate:', 'private-key:' and 'authority:'"


def lacks_keys(name: str, node: Marked, fields: Mapping[str, Marked], reporter: Reporter) -> bool:
    """Return whether a node of peers has not all keys that it needs, and say the first one."""
    missing = [f"'{key}:'" for key in NEEDED if key not in fields]
    if "pre-shared-key" not in fields and "certificate" not in fields:
        missing.append(KEY_OR_CERTIFICATE)
    if missing:
        reporter.error(node.key, "lab-missing", f"peers {name!r} need {missing[0]}", name)
    return bool(missing)


def read_values(fields: Mapping[str, Marked], file: Path, reporter: Reporter) -> Mapping[str, Any] | None:
    """Return the values of a node's keys, in which files are their texts; None, with errors, if some are wrong.

    `file` is the lab file. A key that its mapping does not know is left to the caller.
    """
    values = {
        key: text_beside(file, fields[key], reporter) if key in FILES else fields[key].plain()
        for key in KEYS
        if key in fields
    }
    spec, problems = read_spec(values)
    for key, text in problems:
        outer, _, inner = key.partition(".")
        if inner and inner not in NESTED[outer]:
            continue
        place = fields[outer].value[inner] if inner else fields[outer]
        reporter.error(place.at, "lab-value", text, outer)
    return None if spec is None else values
