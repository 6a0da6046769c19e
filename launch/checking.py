"""`chassis-launch check`: check a configuration or a lab without starting it (docs/labs.md).

Input: a file. Output: diagnostics with file, line and column.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from chassis.bus import regular_files
from chassis.config.diagnostics import Diagnostic, Severity, in_order
from chassis.config.parser import Parsed, parse
from chassis.config.secrets import RouterSecret
from chassis.model.router import Config
from chassis.xcrp.flash import read_store
from chassis.xcrp.flash_folder import read_folder
from launch import router_secrets
from launch.lab import consistency
from launch.lab.model import Lab
from launch.lab.parser import load
from launch.lab.yaml_source import LabError
from launch.run_folders import FolderError


def read_config(path: Path, modern: bool = False, secret: RouterSecret | None = None) -> Parsed:
    """Read a configuration file. Return it with its diagnostics, also if it cannot be read.

    Replace octets that are not UTF-8 by U+FFFD and report an error in their line. `modern` allows the algorithms
    of today's peers. `secret` is that of the router; None: its encrypted keys are taken for right.
    """
    try:
        text = regular_files.read_text(path, errors="replace")
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        return Parsed(Config(), (Diagnostic("error", "file", path.name, str(path), 1, 1, problem),))
    return parse(text, str(path), modern=modern, secret=secret)


def check(path: Path) -> list[Diagnostic]:
    """Return the diagnostics of a file; for a lab, also those of its configurations."""
    try:
        lab, found = load(path)
    except LabError as error:
        return list(error.diagnostics)
    diagnostics = list(found)
    configs: dict[Path, Config] = {}
    read: set[tuple[Path, RouterSecret | None]] = set()
    for router in lab.routers():
        try:
            secret = router_secrets.known(lab.name, router)
        except FolderError as error:
            diagnostics.append(Diagnostic("error", "secret", router.name, str(path), 1, 1, str(error)))
            continue
        if (router.config, secret) not in read:
            read.add((router.config, secret))
            parsed = read_config(router.config, router.modern, secret)
            configs[router.config] = parsed.config
            diagnostics += in_order(set(parsed.diagnostics) - set(diagnostics))
    if path.suffix != ".cfg":
        diagnostics += in_order(consistency.faults(lab, configs))
        diagnostics += flashes(lab)
        from launch.scenario.boot import check as check_scenario

        diagnostics += check_scenario(lab)
    return diagnostics


def flashes(lab: Lab) -> Iterator[Diagnostic]:
    """Check the files in the routers' flash, each folder once."""
    for folder in dict.fromkeys(router.flash for router in lab.routers() if router.flash is not None):
        for problem in read_store(read_folder(folder)).problems:
            severity: Severity = "error" if problem.severity == "error" else "warning"
            yield Diagnostic(severity, "pki", problem.path, str(folder / problem.path), 1, 1, problem.text)


def strict(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Turn warnings into errors; notes stay notes (rule 5 of docs/decisions.md)."""
    return [replace(d, severity="error") if d.severity == "warning" else d for d in diagnostics]


def as_json(diagnostics: Iterable[Diagnostic]) -> str:
    # A diagnostic's owner is for commits, which look only at what they touch.
    rows = [asdict(d) for d in diagnostics]
    return json.dumps([{name: row[name] for name in row if name != "owner"} for row in rows], indent=2)


def summary(diagnostics: Iterable[Diagnostic]) -> str:
    """Return the counts as text: `1 error, 2 warnings, no notes`."""
    severities: list[str] = [d.severity for d in diagnostics]
    parts = []
    for severity in ("error", "warning", "note"):
        count = severities.count(severity)
        parts.append(f"{count or 'no'} {severity}{'' if count == 1 else 's'}")
    return ", ".join(parts)
