"""Numbers that outlive the controller. They are on disk before they are used, and never used for anything else.

Files of the state folder hold them, each replaced as a whole: `leases.json` and a copy of it (sequence numbers of
manual SAs, and which ASP had which SA), `numbers.json` (contexts, circuits, tunnels, placement, the places that
spare ASPs took) and `cards.json`
(boot and epoch of each card). They are written in this order: a lease must be on disk before the admission of the
ASP that made it necessary.

If neither file of leases can be read, the sequence numbers in use are not known and are not guessed: a lease that
begins at 0 says so, and an ASP continues from its mapped state or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any, Final

from chassis.bus.engine import Persist
from chassis.xcrp.placement import Place
from chassis.xcrp.spares import NO_SEATS, Seats

LEASE_SIZE = 1 << 20
"""Sequence numbers of one lease (count)."""

SEQUENCE_LIMIT = 1 << 32
"""One more than the last sequence number that a lease can hold."""

LEASES, COPY, NUMBERS, CARDS = "leases.json", "leases.copy.json", "numbers.json", "cards.json"

CONTEXT, CIRCUIT, TUNNEL = "context", "circuit", "tunnel"

BLOCK = 1024
"""Numbers that one write sets aside for instances of on-demand tunnels (count). What a controller does not use of
them is lost with it."""


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """The sequence numbers `start` to `end` - 1, for one ASP and the (destination, protocol, SPI)s in `uses`.

    `start` 0 means that the numbers in use are not known. `place` and `spis` (direction, protocol, SPI) identify
    the SA and where it is. `assignment` is the number of its assignment to this ASP, and is never used again.
    `closed`: the process of the ASP before may not have ended.
    """

    asp: str
    start: int
    end: int
    uses: tuple[str, ...]
    place: str = ""
    spis: tuple[str, ...] = ()
    assignment: int = 0
    closed: bool = False


_VALUES: Final = attrgetter(*(one.name for one in fields(LeaseGrant)))


@dataclass(frozen=True, slots=True)
class Admitted:
    """The newest admitted boot of a card, the card's epoch, and whether the card was ever in service."""

    boot: int
    epoch: int
    served: bool = False


class IdAllocator:
    """Allocates numbers, and reads and writes the files that hold them.

    `problems` names the files that could not be read. Numbering then continues above what `boot` starts of the
    controller can have used.
    """

    def __init__(self, files: Mapping[str, bytes], boot: int) -> None:
        self.contexts: dict[str, int] = {}
        self.tunnels: dict[str, int] = {}
        self.port_circuits: dict[str, int] = {}
        self.tunnel_circuits: dict[str, tuple[int, str]] = {}
        """Tunnel to (circuit number, home card)."""
        self.placement: dict[Place, str] = {}
        self.seats: Seats = NO_SEATS
        self.leases: dict[tuple[int, int], LeaseGrant] = {}
        self.cards: dict[str, Admitted] = {}
        self.problems: list[str] = []
        self._used: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._floor: dict[str, int] = {}
        self._block: dict[str, range] = {}
        """Numbers set aside and not used yet, by kind."""
        self._dirty: set[str] = set()
        self._assigned = boot << 24
        self._leased = False
        """Whether there ever was a lease."""
        self._uncounted: set[str] = set()
        """Uses whose sequence numbers in use are not known."""
        self._lost: dict[str, str] = {}
        """(direction, protocol, SPI) of SAs that must no longer be used, and why."""
        self._owed: dict[str, dict[str, tuple[int, int]]] = {}
        """(direction, protocol, SPI) to the ASPs that had such an SA and may still have it: to each the boot
        number of its process, and the last assignment that need not wait for it."""
        self._mark = self._assigned
        for name, read, floor in (
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
        self._count_lost = not self._find_leases(files)
        """Whether unknown uses are uncounted: those of the first plan after the files were lost."""

    def _find_leases(self, files: Mapping[str, bytes]) -> bool:
        """Read the leases or their copy. Return True if one could be read, or if there never were leases."""
        found = False
        for name in (LEASES, COPY):
            if name not in files:
                continue
            found = True
            try:
                self._read_leases(json.loads(files[name]))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                self.problems.append(f"{name} can't be read ({type(error).__name__})")
                self._dirty.add(LEASES)
            else:
                return True
        if not found and not self._leased:
            return True
        self.problems.append("no lease is known: manual SAs go on from the state of the ASPs, or not at all")
        return False

    def begin(self) -> None:
        """Begin a new plan: an ASP that gets an SA in it waits for all ASPs that lose that SA in it."""
        self._mark = self._assigned

    # contexts, tunnels, circuits

    def allocate(self, kind: str, names: Iterable[str]) -> dict[str, int]:
        """Return numbers for exactly these names. A name keeps its number; a removed one never gets it back."""
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
        """Return the circuit of a tunnel on card `home`, a new one if it was on another; 0 if `home` is empty."""
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

    def temporary(self, kind: str) -> int:
        """Return a number for what ends with its peer or its ASP. It has no name and is in no file, but the file
        says that the block of numbers that it is from is used."""
        block = self._block.get(kind) or range(0)
        if not block:
            first = self._new(kind)
            self._last[kind] = first + BLOCK - 1
            block = range(first, first + BLOCK)
        self._block[kind] = block[1:]
        return block[0]

    def set_placement(self, placement: dict[Place, str]) -> None:
        if placement != self.placement:
            self.placement = placement
            self._dirty.add(NUMBERS)

    def set_seats(self, seats: Seats) -> None:
        if seats != self.seats:
            self.seats = seats
            self._dirty.add(NUMBERS)

    def _new(self, kind: str) -> int:
        number = max(self._last.get(kind, 0), self._floor.get(NUMBERS, 0)) + 1
        self._last[kind] = number
        self._dirty.add(NUMBERS)
        return number

    # leases

    def lease(
        self,
        tunnel: int,
        seq: int,
        asp: str,
        uses: tuple[str, ...],
        place: str = "",
        spis: tuple[str, ...] = (),
    ) -> LeaseGrant:
        """Return the lease of a tunnel's entry; a new one if the ASP, place, SPIs or destinations changed."""
        held = self.leases.get((tunnel, seq))
        if held is not None and (held.asp, held.uses, held.place, held.spis) == (asp, uses, place, spis):
            return held
        if held is not None:
            self._owe(held, spis if held.asp == asp else ())
        self._assigned += 1
        return self._grant(tunnel, seq, LeaseGrant(asp, 0, 0, uses, place, spis, self._assigned))

    def renew_lease(self, tunnel: int, seq: int) -> LeaseGrant | None:
        """Renew a lease above every number that can have been used; None if the entry has no lease."""
        held = self.leases.get((tunnel, seq))
        return None if held is None else self._grant(tunnel, seq, held)

    def extend_lease(self, tunnel: int, seq: int, reached: int = 0) -> LeaseGrant | None:
        """Extend a lease for an ASP that continues with its numbers; `reached` is the next one that it uses."""
        held = self.leases.get((tunnel, seq))
        if held is None:
            return None
        if held.start == 0:
            if reached <= 1:
                return held
            # The ASP's mapped state tells which numbers are in use: every later lease is above them.
            self._uncounted.difference_update(held.uses)
            for use in held.uses:
                self._used[use] = max(self._used.get(use, 1), min(reached, SEQUENCE_LIMIT))
            return self._grant(tunnel, seq, held)
        if any(self._used.get(use, 0) != held.end for use in held.uses):
            return self._grant(tunnel, seq, held)
        return self._hold(tunnel, seq, replace(held, end=min(max(held.end, reached) + LEASE_SIZE, SEQUENCE_LIMIT)))

    def drop_leases(self, wanted: set[tuple[int, int]]) -> None:
        """Remove the leases of entries that no longer exist; remember which numbers they used."""
        for key in [key for key in self.leases if key not in wanted]:
            self._owe(self.leases.pop(key), ())
            self._dirty.add(LEASES)
        self._count_lost = False

    def _grant(self, tunnel: int, seq: int, wanted: LeaseGrant) -> LeaseGrant:
        if self._count_lost:
            self._uncounted.update(use for use in wanted.uses if use not in self._used)
        if not self._uncounted.isdisjoint(wanted.uses):
            return self._hold(tunnel, seq, replace(wanted, start=0, end=0))
        start = max([1, *(self._used.get(use, 1) for use in wanted.uses)])
        return self._hold(tunnel, seq, replace(wanted, start=start, end=min(start + LEASE_SIZE, SEQUENCE_LIMIT)))

    def _hold(self, tunnel: int, seq: int, lease: LeaseGrant) -> LeaseGrant:
        if self.leases.get((tunnel, seq)) != lease:
            self.leases[tunnel, seq] = lease
            for use in lease.uses if lease.start else ():
                self._used[use] = lease.end
            self._dirty.add(LEASES)
            if not self._leased:
                self._leased = True
                self._dirty.add(NUMBERS)
        return lease

    # SAs that come and go

    def hold(self, tunnel: int, seq: int) -> str:
        """Return why the SA of an entry must not be used where it is now; empty if it may be used."""
        lease = self.leases.get((tunnel, seq))
        if lease is None:
            return ""
        for spi in lease.spis:
            if spi in self._lost:
                return self._lost[spi]
        holders = {
            asp
            for spi in lease.spis
            for asp, (_, mark) in self._owed.get(spi, {}).items()
            if asp != lease.asp and lease.assignment > mark
        }
        return f"not let go of by {', '.join(sorted(holders))} yet" if holders else ""

    def asps_holding_moved_sas(self) -> dict[str, int]:
        """Return the ASPs that may still hold SAs that are no longer theirs, with the boot of their process."""
        return {asp: boot for asps in self._owed.values() for asp, (boot, _) in asps.items()}

    def release_moved_sas(self, asp: str, *, ended: bool = True) -> set[int]:
        """An ASP has released the SAs that are no longer its own, or has ended. Return the tunnels concerned.

        `ended` False: whether it has is not known, but what it still sends reaches nobody.
        """
        freed = {spi for spi, asps in self._owed.items() if asps.pop(asp, None) is not None}
        if not freed:
            return set()
        self._owed = {spi: asps for spi, asps in self._owed.items() if asps}
        self._dirty.add(LEASES)
        concerned = {key: lease for key, lease in self.leases.items() if not freed.isdisjoint(lease.spis)}
        if not ended:
            self.leases |= {
                key: replace(lease, closed=True) for key, lease in concerned.items() if lease.asp != asp
            }
        return {key[0] for key in concerned}

    def hold_back_sas(self, asp: str) -> set[int]:
        """An ASP lost the replay windows of its SAs: hold back their SPIs. Return their tunnels."""
        tunnels = set()
        for key, lease in self.leases.items():
            if lease.asp == asp:
                tunnels.add(key[0])
                why = f"replay window lost with the state of {asp}: another SPI is needed"
                self._lost.update((spi, why) for spi in lease.spis if spi.startswith("in "))
                self._dirty.add(LEASES)
        return tunnels

    def _owe(self, lease: LeaseGrant, kept: tuple[str, ...]) -> None:
        """End a lease: until it reports otherwise, its ASP may still hold the SAs that are not in `kept`."""
        card = self.cards.get(lease.asp)
        for spi in lease.spis:
            if card is not None and spi not in kept:
                self._owed.setdefault(spi, {})[lease.asp] = (card.boot, self._mark)

    # cards

    def epoch(self, card: str) -> int:
        held = self.cards.get(card)
        return 0 if held is None else held.epoch

    def increment_epoch(self, card: str, boot: int, above: int = 0) -> int:
        """Return a new epoch for a card, higher than any before and than `above`."""
        epoch = max(self.epoch(card), above, self._floor.get(CARDS, 0)) + 1
        self.cards[card] = Admitted(boot, epoch, card in self.cards and self.cards[card].served)
        self._dirty.add(CARDS)
        return epoch

    def admit(self, card: str, boot: int) -> None:
        """This boot of the card holds the card's current epoch."""
        held = self.cards[card]
        if held.boot != boot:
            self.cards[card] = Admitted(boot, held.epoch, held.served)
            self._dirty.add(CARDS)

    def another_boot_admitted(self, card: str, boot: int) -> bool:
        """Return whether another boot of the card was admitted before; True if that is not known."""
        held = self.cards.get(card)
        return held.boot != boot if held is not None else CARDS in self._floor

    def served(self, card: str) -> bool:
        """Return whether a card was ever in service; True if that is not known."""
        held = self.cards.get(card)
        return held.served if held is not None else CARDS in self._floor

    def serve(self, card: str) -> None:
        """The card is in service."""
        held = self.cards[card]
        if not held.served:
            self.cards[card] = replace(held, served=True)
            self._dirty.add(CARDS)

    # files

    def pending_writes(self) -> list[Persist]:
        """Return the writes of all changed files. They must be on disk before the new numbers are used."""
        dirty, self._dirty = self._dirty, set()
        if LEASES in dirty or COPY in dirty:
            dirty |= {LEASES, COPY}
        writers = {LEASES: self._leases, COPY: self._leases, NUMBERS: self._numbers, CARDS: self._cards}
        return [
            Persist(name, json.dumps(write(), separators=(",", ":")).encode())
            for name, write in writers.items()
            if name in dirty
        ]

    def unstored(self, file: str) -> None:
        """The last write of this file failed; `pending_writes` returns it again."""
        self._dirty.add(file)

    def _leases(self) -> Any:
        return {
            "used": self._used,
            "leases": [[*key, *_VALUES(held)] for key, held in self.leases.items()],
            "assigned": self._assigned,
            "uncounted": sorted(self._uncounted),
            "lost": self._lost,
            "owed": self._owed,
        }

    def _numbers(self) -> Any:
        return {
            "last": self._last,
            "contexts": self.contexts,
            "tunnels": self.tunnels,
            "ports": self.port_circuits,
            "circuits": self.tunnel_circuits,
            "placement": [[*at, asp] for at, asp in self.placement.items()],
            "seats": self.seats,
            "leased": self._leased,
        }

    def _cards(self) -> Any:
        return {card: [held.boot, held.epoch, held.served] for card, held in self.cards.items()}

    def _read_leases(self, data: Any) -> None:
        used = _counts(data["used"])
        leases = {(int(tunnel), int(seq)): _lease(*rest) for tunnel, seq, *rest in data["leases"]}
        uncounted = {str(use) for use in data.get("uncounted", ())}
        lost = {str(spi): str(why) for spi, why in data.get("lost", {}).items()}
        owed = {
            str(spi): {str(asp): (int(boot), int(mark)) for asp, (boot, mark) in asps.items()}
            for spi, asps in data.get("owed", {}).items()
        }
        self._assigned = max(self._assigned, int(data.get("assigned", 0)))
        self._used, self.leases, self._leased = used, leases, True
        self._uncounted, self._lost, self._owed = uncounted, lost, owed

    def _read_numbers(self, data: Any) -> None:
        last, contexts = _counts(data["last"]), _counts(data["contexts"])
        tunnels, ports = _counts(data["tunnels"]), _counts(data["ports"])
        circuits = {str(name): (int(number), str(home)) for name, (number, home) in data["circuits"].items()}
        placement = {(str(context), str(local)): str(asp) for context, local, asp in data["placement"]}
        seats = {str(group): _permutation(held) for group, held in data.get("seats", {}).items()}
        self._leased = bool(data.get("leased", False))
        self._last, self.contexts, self.tunnels, self.port_circuits = last, contexts, tunnels, ports
        self.tunnel_circuits, self.placement, self.seats = circuits, placement, seats

    def _read_cards(self, data: Any) -> None:
        self.cards = {
            str(card): Admitted(int(boot), int(epoch), bool(served and served[0]))
            for card, (boot, epoch, *served) in data.items()
        }


def _lease(
    asp: Any,
    start: Any,
    end: Any,
    uses: Any,
    place: Any = "",
    spis: Any = (),
    assignment: Any = 0,
    closed: Any = False,
) -> LeaseGrant:
    given = tuple(str(use) for use in uses), str(place), tuple(str(spi) for spi in spis)
    return LeaseGrant(str(asp), int(start), int(end), *given, int(assignment), bool(closed))


def _permutation(data: Any) -> dict[str, str]:
    found = {str(seat): str(name) for seat, name in data.items()}
    if sorted(found) != sorted(found.values()):
        raise ValueError("not a permutation")
    return found


def _counts(data: Any) -> dict[str, int]:
    return {str(name): int(number) for name, number in data.items()}
