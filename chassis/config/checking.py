"""What the checks of a commit share: reporting at a word's place, undefined names, who holds an address."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import TypeVar

from chassis.config.affected import Affected
from chassis.config.diagnostics import Diagnostic, Severity
from chassis.config.drafts import Path, SourcePosition
from chassis.config.values import address_number
from chassis.model.router import Config, Context, Interface

_NOWHERE = SourcePosition(0, 1, "", "", 0)
_V = TypeVar("_V")

_MANY = 64
"""Number of names above which the nearest one is searched only among those with the same beginning."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the defined name that is most similar to an undefined one; "" if none is similar."""
    names = list(names)
    if len(names) > _MANY:
        # Comparing letter by letter is slow: of thousands of names, compare only those with the same beginning.
        alike = (other for other in names if other[:2] == name[:2] and abs(len(other) - len(name)) < 2)
        names = list(islice(alike, _MANY))
    near = difflib.get_close_matches(name, names, 1, 0.75)
    if near:
        return near[0]
    folded = {other.lower(): other for other in names}
    return folded.get(name.lower(), "")


class CommitChecks:
    """A configuration under its checks, what was found so far, and which objects were checked."""

    def __init__(
        self,
        config: Config,
        places: Mapping[Path, SourcePosition],
        broken: Collection[Path],
        file: str,
        affected: Affected | None = None,
    ) -> None:
        """`affected`: check only this; None for the whole."""
        self.config = config
        self.positions = places
        self.broken = broken
        self.file = file
        self.affected = affected
        self.found: list[Diagnostic] = []
        self.owners: set[Path] = set() if affected is None else affected.removed()
        """The objects that were checked, or are no longer there."""
        self.owner: Path = ()
        self.silent = False
        self._held: dict[str, dict[str, list[Interface]]] = {}
        self._networks: dict[str, dict[int, set[int]]] = {}

    # --- reporting ---

    def position(self, *path: str | int) -> SourcePosition:
        return self.positions.get(path, _NOWHERE)

    def report(
        self, severity: Severity, code: str, place: SourcePosition, name: str, message: str, repaired: str = ""
    ) -> None:
        """Add a diagnostic; `repaired` is the correct word, if known."""
        hint = place.repaired(repaired) if repaired and place.word else ""
        self.add(severity, code, place, name, message, hint)

    def add(
        self, severity: Severity, code: str, place: SourcePosition, name: str, message: str, hint: str
    ) -> None:
        if not self.silent:
            line, column = place.line, place.column
            self.found.append(Diagnostic(severity, code, name, self.file, line, column, message, hint, self.owner))

    def own(self, *path: str | int) -> None:
        """Begin the checks of an object."""
        self.owner = path
        self.owners.add(path)

    def refer(
        self, name: str, defined: Mapping[str, _V], path: Path, what: str, where: str = "", code: str = "S-039"
    ) -> _V | None:
        """Return the object of a name; warn and return None if it is not defined."""
        target = defined.get(name)
        if target is None:
            near = nearest(name, defined)
            also = f"; did you mean {near}?" if near else ""
            self.report("warning", code, self.position(*path), name, f"no {what} {name}{where}{also}", near)
        return target

    def holders(self, context: Context, address: str) -> list[Interface]:
        """Return the interfaces of a context with an address."""
        held = self._held.get(context.name)
        if held is None:
            held = self._held[context.name] = {}
            for interface in context.interfaces.values():
                for one, _ in interface.addresses:
                    held.setdefault(one, []).append(interface)
        return held.get(address, [])

    def networks(self, context: Context) -> dict[int, set[int]]:
        """Return the networks of a context's interfaces: the leading bits of each, by prefix length."""
        found = self._networks.get(context.name)
        if found is None:
            found = self._networks[context.name] = {}
            for interface in context.interfaces.values():
                for address, length in interface.addresses:
                    found.setdefault(length, set()).add((address_number(address) or 0) >> (32 - length))
        return found
