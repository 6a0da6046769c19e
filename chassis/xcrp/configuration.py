"""The running configuration: texts and lines that are read and checked, and what a commit changes.

A commit is on disk, in the journal (`chassis.xcrp.journal`), before it takes effect and before it is acknowledged.
A controller that ends at any moment therefore restarts with the complete old or the complete new configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import lru_cache
from typing import Any

from chassis.config import validate
from chassis.config.diagnostics import Diagnostic, has_errors, in_order
from chassis.config.difference import ConfigChange, difference
from chassis.config.drafts import field_names
from chassis.config.parser import parse
from chassis.config.render import render
from chassis.config.secrets import RouterSecret
from chassis.model.router import Config, Tunnel
from chassis.xcrp.journal import Commit


@dataclass(frozen=True, slots=True)
class CheckedConfig:
    """A configuration that was read and checked. `config` is without the lines in error.

    `diagnostics` are those of the text or of the lines that were read last. `standing` are older ones that still
    hold: those of the text that the lines changed, and of objects that the lines did not touch.

    An operator's `apply` or `commit` with an error is refused. A start-up file, also as the journal has it, is put
    into force without those lines (rule 2 of docs/decisions.md).
    """

    config: Config
    diagnostics: tuple[Diagnostic, ...]
    standing: tuple[Diagnostic, ...] = ()

    @property
    def refused(self) -> bool:
        return has_errors(self.diagnostics)

    @property
    def all_diagnostics(self) -> tuple[Diagnostic, ...]:
        return (*self.standing, *self.diagnostics)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """Return the diagnostics of the lines in error, whose text is in force without them."""
        return tuple(found for found in self.all_diagnostics if found.severity == "error")


@lru_cache(maxsize=4)
def check(text: str, file: str, *, modern: bool = False, secret: RouterSecret | None = None) -> CheckedConfig:
    """Parse a configuration and check it. Errors in the text do not raise; they are in the diagnostics.

    `modern`: accept the algorithms that the guide does not have. `secret`: that of the router; None where it is
    not known, and the configuration not for a router. The last few results are cached, because a text is checked
    before it is applied and again when it is put into force, which takes 1 s for thousands of tunnels.
    """
    parsed = parse(text, file, modern=modern, secret=secret)
    return CheckedConfig(parsed.config, parsed.diagnostics)


def check_lines(
    running: CheckedConfig,
    lines: str,
    file: str = "",
    *,
    modern: bool = False,
    secret: RouterSecret | None = None,
    typed: bool = False,
) -> CheckedConfig:
    """Apply lines, with those of their modes, to a configuration, and check what they affect.

    `typed`: a line that no mode knows is an error (rule 8 of docs/decisions.md). What the check says of objects
    that it also said before is not of these lines: it stands.
    """
    parsed = parse(lines, file, running.config, modern=modern, secret=secret, typed=typed)
    old = {_said(found) for found in running.all_diagnostics}
    checks = {id(found) for found in parsed.checks}
    fresh: list[Diagnostic] = []
    standing: list[Diagnostic] = []
    for found in parsed.diagnostics:
        older = id(found) in checks and not found.line and _said(found) in old
        (standing if older else fresh).append(found)
    checked = parsed.checked or frozenset()
    for found in running.all_diagnostics:
        # What was said of the text when it was read still holds, and of objects that the lines do not affect.
        of_text = found.line and found.severity == "error"
        if of_text or (found.severity != "error" and found.owner and found.owner not in checked):
            standing.append(found)
    return CheckedConfig(parsed.config, tuple(fresh), in_order(standing))


def refuse_surplus(
    checked: CheckedConfig, was: Config, file: str, surplus: Iterable[tuple[Tunnel, str]]
) -> CheckedConfig:
    """Return a configuration without the tunnels for which there is no room, each an error at its line. One that
    `was` has stays as it was."""
    tunnels = dict(checked.config.tunnels)
    found = []
    for tunnel, why in surplus:
        before = was.tunnels.get(tunnel.name)
        if before is None:
            del tunnels[tunnel.name]
        else:
            tunnels[tunnel.name] = before
        owner = ("tunnel", tunnel.name)
        message = f"tunnel {tunnel.name} finds no room: {why}"
        found.append(Diagnostic("error", "capacity", tunnel.name, file, tunnel.line, 1, message, owner=owner))
    if not found:
        return checked
    return CheckedConfig(
        replace(checked.config, tunnels=tunnels), in_order((*checked.diagnostics, *found)), checked.standing
    )


def _said(found: Diagnostic) -> tuple[str, str, str, str]:
    """Return what a diagnostic says, without the place."""
    return found.severity, found.code, found.name, found.message


def replay(steps: Sequence[Commit], *, modern: bool = False, secret: RouterSecret | None = None) -> CheckedConfig:
    """Return the configuration of the last of these commits, of which the first has a whole one.

    Each was checked when it was made, so the whole is checked once, at the end.
    """
    first = steps[0]
    start = check(first.text or "", first.file, modern=modern, secret=secret)
    config, held = start.config, {first.number: start.config}
    wrong: list[Diagnostic] = []
    for commit in steps[1:]:
        if commit.back is not None:
            config = held.get(commit.back, config)
        elif commit.lines:
            parsed = parse(commit.lines, commit.file, config, modern=modern, secret=secret, whole=False)
            # A program of another version, or with other settings, may take a line for wrong.
            wrong += (found for found in parsed.diagnostics if found.severity == "error")
            config = parsed.config
        held[commit.number] = config
    if len(steps) == 1:
        return start
    last, found = validate.check(config)
    # What was wrong with the first text is left out still.
    return CheckedConfig(last, (), in_order((*(one for one in start.errors if one.line), *wrong, *found)))


def diagnostics_of(checked: CheckedConfig) -> list[dict[str, str | int | float | bool | bytes | None]]:
    """Return the diagnostics as in an operator's answer."""
    return [
        {
            "severity": found.severity,
            "code": found.code,
            "name": found.name,
            "file": found.file,
            "line": found.line,
            "column": found.column,
            "message": found.message,
            "hint": found.hint,
        }
        for found in checked.diagnostics
    ]


def identical(old: Any, new: Any) -> bool:
    """Return whether two configurations, or parts of them, are the same in all that is printed, and in its order.

    Unlike their equality, this includes which settings with their default value were typed. Parts that both share
    cost nothing.
    """
    if old is new:
        return True
    if type(old) is not type(new):
        return False
    if isinstance(old, Mapping):
        return len(old) == len(new) and all(
            one == two and identical(old[one], new[two]) for one, two in zip(old, new, strict=True)
        )
    if isinstance(old, tuple):
        return len(old) == len(new) and all(map(identical, old, new))
    if is_dataclass(old):
        return all(
            identical(getattr(old, name), getattr(new, name)) for name in field_names(type(old)) if name != "line"
        )
    return bool(old == new)


def changes(old: Config, new: Config) -> list[dict[str, Any]]:
    """Return the changes of a commit as in an operator's answer, without keys."""
    return changes_of(difference(old, new))


def changes_of(found: Iterable[ConfigChange]) -> list[dict[str, Any]]:
    """Return these changes as in an operator's answer, without keys."""
    return [
        {"kind": change.kind, "path": [str(part) for part in change.path], "lines": list(change.lines)}
        for change in found
    ]


def text_of(config: Config) -> str:
    """Return the configuration as commands, as in a saved file, including keys."""
    return render(config)
