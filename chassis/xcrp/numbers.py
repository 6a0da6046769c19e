"""Numbers that outlive the controller: they are stored before they are used, and never used for anything else.

Three files of the node's state folder hold them, each replaced whole: `leases.json` (sequence numbers of manual
SAs), `numbers.json` (contexts, circuits, tunnels, placement) and `cards.json` (boot and epoch of each card). They
are stored in this order: a lease must be on disk before the admission of the ASP that made it necessary.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chassis.bus.engine import Persist
from chassis.xcrp.placement import Place

LEASE = 1 << 20
"""Sequence numbers of one lease."""

LAST = 1 << 32
"""No lease goes beyond: the last sequence number is one less."""

LEASES, NUMBERS, CARDS = "leases.json", "numbers.json", "cards.json"

CONTEXT, CIRCUIT, TUNNEL = "context", "circuit", "tunnel"


@dataclass(frozen=True, slots=True)
class Lease:
    """The sequence numbers `start` to `end` - 1, for one ASP and the (destination, protocol, SPI)s in `uses`."""

    asp: str
    start: int
    end: int
    uses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Admitted:
    """The newest start of a card that was ever admitted, and the card's epoch."""

    boot: int
    epoch: int


class Numbers:
    """Everything numbered, with the files that it came from and goes to.

    `problems` says which stored files could not be read; numbering then goes on far above what `boot` starts of
    this controller can have used.
    """

    def __init__(self, files: Mapping[str, bytes], boot: int) -> None:
        self.contexts: dict[str, int] = {}
        self.tunnels: dict[str, int] = {}
        self.port_circuits: dict[str, int] = {}
        self.tunnel_circuits: dict[str, tuple[int, str]] = {}
        """Tunnel to (circuit number, home card)."""
        self.placement: dict[Place, str] = {}
        self.leases: dict[tuple[int, int], Lease] = {}
        self.cards: dict[str, Admitted] = {}
        self.problems: list[str] = []
        self._used: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._floor: dict[str, int] = {}
        self._dirty: set[str] = set()
        for name, read, floor in (
            (LEASES, self._read_leases, min(boot * LEASE * 4 + 1, LAST)),
            (NUMBERS, self._read_numbers, boot << 16),
            (CARDS, self._read_cards, boot << 16),
        ):
            if name not in files:
                continue
            try:
                read(json.loads(files[name]))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                self.problems.append(f"{name} can't be read ({type(error).__name__}): numbering starts at {floor}")
                self._floor[name] = floor

    # contexts, tunnels, circuits

    def keep(self, kind: str, names: Iterable[str]) -> dict[str, int]:
        """Have numbers for exactly these names: who has one keeps it, who is gone never gets it back."""
        table = {CONTEXT: self.contexts, TUNNEL: self.tunnels, CIRCUIT: self.port_circuits}[kind]
        wanted = dict.fromkeys(names)
        for name in [name for name in table if name not in wanted]:
            del table[name]
            self._dirty.add(NUMBERS)
        for name in wanted:
            if name not in table:
                table[name] = self._new(kind)
        return table

    def circuit(self, tunnel: str, home: str) -> int:
        """The circuit of a tunnel on this line card, made anew where it was on another; 0 for no home."""
        held = self.tunnel_circuits.get(tunnel)
        if held is not None and held[1] == home:
            return held[0]
        if held is not None:
            del self.tunnel_circuits[tunnel]
            self._dirty.add(NUMBERS)
        if not home:
            return 0
        number = self._new(CIRCUIT)
        self.tunnel_circuits[tunnel] = (number, home)
        return number

    def place(self, placement: dict[Place, str]) -> None:
        if placement != self.placement:
            self.placement = placement
            self._dirty.add(NUMBERS)

    def _new(self, kind: str) -> int:
        number = max(self._last.get(kind, 0), self._floor.get(NUMBERS, 0)) + 1
        self._last[kind] = number
        self._dirty.add(NUMBERS)
        return number

    # leases

    def lease(self, tunnel: int, seq: int, asp: str, uses: tuple[str, ...]) -> Lease:
        """The lease of one entry of a tunnel: a new one for another ASP, or for other SPIs or destinations."""
        held = self.leases.get((tunnel, seq))
        if held is not None and held.asp == asp and held.uses == uses:
            return held
        return self._grant(tunnel, seq, asp, uses)

    def renew(self, tunnel: int, seq: int) -> Lease | None:
        """A lease that begins where every number that can have been used ends."""
        held = self.leases.get((tunnel, seq))
        return None if held is None else self._grant(tunnel, seq, held.asp, held.uses)

    def extend(self, tunnel: int, seq: int) -> Lease | None:
        """More numbers for the ASP that goes on with the ones that it has."""
        held = self.leases.get((tunnel, seq))
        if held is None:
            return None
        if any(self._used.get(use, 0) != held.end for use in held.uses):
            return self._grant(tunnel, seq, held.asp, held.uses)
        return self._hold(tunnel, seq, Lease(held.asp, held.start, min(held.end + LEASE, LAST), held.uses))

    def drop_leases(self, wanted: set[tuple[int, int]]) -> None:
        """Forget the leases of entries that are no more; what they used up stays known."""
        for key in [key for key in self.leases if key not in wanted]:
            del self.leases[key]
            self._dirty.add(LEASES)

    def _grant(self, tunnel: int, seq: int, asp: str, uses: tuple[str, ...]) -> Lease:
        first = max(1, self._floor.get(LEASES, 1))
        start = max([first, *(self._used.get(use, 1) for use in uses)])
        return self._hold(tunnel, seq, Lease(asp, start, min(start + LEASE, LAST), uses))

    def _hold(self, tunnel: int, seq: int, lease: Lease) -> Lease:
        if self.leases.get((tunnel, seq)) != lease:
            self.leases[tunnel, seq] = lease
            for use in lease.uses:
                self._used[use] = lease.end
            self._dirty.add(LEASES)
        return lease

    # cards

    def epoch(self, card: str) -> int:
        held = self.cards.get(card)
        return 0 if held is None else held.epoch

    def raise_epoch(self, card: str, boot: int, above: int = 0) -> int:
        """A new epoch for this card, higher than any that it had and than `above`."""
        epoch = max(self.epoch(card), above, self._floor.get(CARDS, 0)) + 1
        self.cards[card] = Admitted(boot, epoch)
        self._dirty.add(CARDS)
        return epoch

    def admit(self, card: str, boot: int) -> None:
        """Note that this start of the card holds its current epoch."""
        held = self.cards[card]
        if held.boot != boot:
            self.cards[card] = Admitted(boot, held.epoch)
            self._dirty.add(CARDS)

    # files

    def stores(self) -> list[Persist]:
        """The files that must be on disk before anything that was numbered since is used."""
        dirty, self._dirty = self._dirty, set()
        writers = {LEASES: self._leases, NUMBERS: self._numbers, CARDS: self._cards}
        return [
            Persist(name, json.dumps(write(), separators=(",", ":")).encode())
            for name, write in writers.items()
            if name in dirty
        ]

    def unstored(self, file: str) -> None:
        """What `stores` gave for this file did not get to disk."""
        self._dirty.add(file)

    def _leases(self) -> Any:
        leases = [[*key, held.asp, held.start, held.end, held.uses] for key, held in self.leases.items()]
        return {"used": self._used, "leases": leases}

    def _numbers(self) -> Any:
        return {
            "last": self._last,
            "contexts": self.contexts,
            "tunnels": self.tunnels,
            "ports": self.port_circuits,
            "circuits": self.tunnel_circuits,
            "placement": [[*at, asp] for at, asp in self.placement.items()],
        }

    def _cards(self) -> Any:
        return {card: [held.boot, held.epoch] for card, held in self.cards.items()}

    def _read_leases(self, data: Any) -> None:
        used = _counts(data["used"])
        leases = {
            (int(tunnel), int(seq)): Lease(str(asp), int(start), int(end), tuple(str(use) for use in uses))
            for tunnel, seq, asp, start, end, uses in data["leases"]
        }
        self._used, self.leases = used, leases

    def _read_numbers(self, data: Any) -> None:
        last, contexts = _counts(data["last"]), _counts(data["contexts"])
        tunnels, ports = _counts(data["tunnels"]), _counts(data["ports"])
        circuits = {str(name): (int(number), str(home)) for name, (number, home) in data["circuits"].items()}
        placement = {(str(context), str(local)): str(asp) for context, local, asp in data["placement"]}
        self._last, self.contexts, self.tunnels, self.port_circuits = last, contexts, tunnels, ports
        self.tunnel_circuits, self.placement = circuits, placement

    def _read_cards(self, data: Any) -> None:
        self.cards = {str(card): Admitted(int(boot), int(epoch)) for card, (boot, epoch) in data.items()}


def _counts(data: Any) -> dict[str, int]:
    return {str(name): int(number) for name, number in data.items()}
