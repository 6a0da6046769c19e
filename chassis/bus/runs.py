"""Runs of packets in one batch as tables: what the bus carries, without a tuple for each run.

A table is a sequence of tuples for those who go through its runs one by one, and equal to them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any, Final, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Run: TypeAlias = tuple[int, int, int]
"""(packets, tunnel, circuit): so many packets in a row are of this tunnel and circuit."""

HopRun: TypeAlias = tuple[int, str, int]
"""(packets, port, address): so many packets in a row are for this next hop."""

MIN_ROWS = 16
"""Runs (count) from which on a table is faster than tuples."""

ROW: Final = np.dtype([("packets", "<u2"), ("first", "<u4"), ("second", "<u4")])
"""A run on the bus: packets; tunnel and circuit, or place of the port and address."""

Column: TypeAlias = NDArray[Any]


class _Table(Sequence[Any]):
    """Rows (`ROW`), of which nobody changes any."""

    __slots__ = ("_tuples", "rows")

    def __init__(self, rows: NDArray[np.void]) -> None:
        self.rows = rows
        self._tuples: tuple[Any, ...] | None = None

    @property
    def packets(self) -> Column:
        """Return the packets of each run."""
        column: Column = self.rows["packets"]
        return column

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tuples())

    def __getitem__(self, index: Any) -> Any:
        return self.tuples()[index]

    def __eq__(self, other: object) -> bool:
        return self.tuples() == (other.tuples() if isinstance(other, _Table) else other)

    def __hash__(self) -> int:
        return hash(self.tuples())

    def __repr__(self) -> str:
        return repr(self.tuples())

    def tuples(self) -> tuple[Any, ...]:
        """Return the runs as tuples."""
        if self._tuples is None:
            self._tuples = self._made()
        return self._tuples

    @abstractmethod
    def _made(self) -> tuple[Any, ...]: ...


@final
class Runs(_Table):
    """Runs by tunnel and circuit."""

    __slots__ = ()

    @classmethod
    def of(cls, packets: ArrayLike, tunnels: ArrayLike, circuits: ArrayLike) -> Runs:
        """Return a table of these columns; one number may be given for a whole column, but not for `packets`."""
        return cls(_rows(packets, tunnels, circuits))

    @property
    def tunnels(self) -> Column:
        column: Column = self.rows["first"]
        return column

    @property
    def circuits(self) -> Column:
        column: Column = self.rows["second"]
        return column

    def _made(self) -> tuple[Run, ...]:
        rows = self.rows
        return tuple(zip(rows["packets"].tolist(), rows["first"].tolist(), rows["second"].tolist(), strict=True))


@final
class Hops(_Table):
    """Runs by next hop. `ports` are the names of the ports; a row has the place of one among them."""

    __slots__ = ("ports",)

    def __init__(self, rows: NDArray[np.void], ports: tuple[str, ...]) -> None:
        super().__init__(rows)
        self.ports = ports

    @classmethod
    def of(cls, packets: ArrayLike, ports: Sequence[str], addresses: ArrayLike) -> Hops:
        """Return a table of these columns; one port may be given for all."""
        places: dict[str, int] = {}
        column = [places.setdefault(port, len(places)) for port in ports]
        return cls(_rows(packets, column if len(column) > 1 else 0, addresses), tuple(places))

    @property
    def places(self) -> Column:
        """Return the place in `ports` of the port of each run."""
        column: Column = self.rows["first"]
        return column

    @property
    def addresses(self) -> Column:
        column: Column = self.rows["second"]
        return column

    def _made(self) -> tuple[HopRun, ...]:
        rows, ports = self.rows, self.ports
        names: Iterable[str] = (
            repeat(ports[0], len(rows)) if len(ports) == 1 else [ports[place] for place in rows["first"].tolist()]
        )
        return tuple(zip(rows["packets"].tolist(), names, rows["second"].tolist(), strict=True))


def _rows(packets: ArrayLike, first: ArrayLike, second: ArrayLike) -> NDArray[np.void]:
    rows: NDArray[np.void] = np.empty(len(np.atleast_1d(packets)), ROW)
    rows["packets"], rows["first"], rows["second"] = packets, first, second
    return rows


def run_table(runs: Sequence[Run]) -> Runs:
    """Return runs as a table, which they may be."""
    return runs if type(runs) is Runs else Runs(np.array(list(runs), ROW))


def hop_table(hops: Sequence[HopRun]) -> Hops:
    """Return runs of next hops as a table, which they may be."""
    if type(hops) is Hops:
        return hops
    places: dict[str, int] = {}
    rows = np.array([(packets, places.setdefault(port, len(places)), to) for packets, port, to in hops], ROW)
    return Hops(rows, tuple(places))


def joined_run_table(parts: Iterable[Sequence[Run]]) -> Runs:
    """Return these runs, one after the other, as one table in which those in a row that are alike are one."""
    return Runs(_joined(np.concatenate([run_table(part).rows for part in parts])))


def joined_hop_table(parts: Iterable[Sequence[HopRun]]) -> Hops:
    """Do the same as `joined_run_table` with runs of next hops."""
    tables = [hop_table(part) for part in parts]
    ports = tables[0].ports
    if any(table.ports != ports for table in tables):
        ports = tuple(dict.fromkeys(chain.from_iterable([table.ports for table in tables])))
        moved = []
        for table in tables:
            rows = table.rows.copy()
            rows["first"] = np.array([ports.index(port) for port in table.ports])[table.places]
            moved.append(rows)
        return Hops(_joined(np.concatenate(moved)), ports)
    return Hops(_joined(np.concatenate([table.rows for table in tables])), ports)


def _joined(rows: NDArray[np.void]) -> NDArray[np.void]:
    first, second = rows["first"], rows["second"]
    changes = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    if changes.all():
        return rows
    begins = np.concatenate(([0], changes.nonzero()[0] + 1))
    joined: NDArray[np.void] = rows[begins]
    joined["packets"] = np.add.reduceat(rows["packets"], begins)
    return joined
