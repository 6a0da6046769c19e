"""The forwarding table: longest prefix match for each context, built from replicated records.

An entry holds its next hops ordered by cost. Which of them is used is not part of the entry: it is chosen
when a flow is first seen in a generation (`chassis.fwd.decision`), so the death of a card changes no entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from chassis.bus.records import LocalAddressRecord, NextHop, Record, RouteRecord
from chassis.net.address import MASKS

Usable = Callable[[NextHop], bool]


class ContextFib:
    """The routes and own addresses of one context: one dict a prefix length, longest first."""

    __slots__ = ("_lengths", "_tables", "local")

    def __init__(self) -> None:
        self._tables: dict[int, dict[int, RouteRecord]] = {}
        self._lengths: list[tuple[int, dict[int, RouteRecord]]] = []
        self.local: dict[int, LocalAddressRecord] = {}

    def put(self, route: RouteRecord) -> None:
        table = self._tables.get(route.length)
        if table is None:
            table = self._tables[route.length] = {}
            self._order()
        table[route.prefix] = route

    def delete(self, route: RouteRecord) -> None:
        table = self._tables.get(route.length, {})
        table.pop(route.prefix, None)
        if not table and self._tables.pop(route.length, None) is not None:
            self._order()

    def lookup(self, address: int) -> RouteRecord | None:
        """Return the route with the longest prefix that holds the address; None: there is none."""
        for mask, table in self._lengths:
            route = table.get(address & mask)
            if route is not None:
                return route
        return None

    def routes(self) -> Iterator[RouteRecord]:
        """Yield all routes, longest prefixes first."""
        for _, table in self._lengths:
            yield from table.values()

    def __bool__(self) -> bool:
        return bool(self._tables or self.local)

    def _order(self) -> None:
        self._lengths = [(MASKS[length], self._tables[length]) for length in sorted(self._tables, reverse=True)]


class Fib:
    """The table of every context. `generation` grows with each change."""

    def __init__(self) -> None:
        self.generation = 0
        self.contexts: dict[int, ContextFib] = {}

    def apply(self, put: Iterable[Record], deleted: Iterable[Record]) -> bool:
        """Apply what a snapshot or delta changed; records of other kinds are ignored.

        Returns whether anything here changed. A route without next hops is not put into the table.
        """
        touched = False
        for record in deleted:
            if isinstance(record, (RouteRecord, LocalAddressRecord)):
                self._remove(record)
                touched = True
        for record in put:
            if isinstance(record, RouteRecord):
                if record.next_hops:
                    self._context(record.context).put(record)
                else:
                    self._remove(record)
                touched = True
            elif isinstance(record, LocalAddressRecord):
                self._context(record.context).local[record.address] = record
                touched = True
        if touched:
            self.generation += 1
        return touched

    def lookup(self, context: int, address: int) -> RouteRecord | None:
        fib = self.contexts.get(context)
        return None if fib is None else fib.lookup(address)

    def local(self, context: int, address: int) -> LocalAddressRecord | None:
        """Return the record of an address of the router in this context; None: it is not one."""
        fib = self.contexts.get(context)
        return None if fib is None else fib.local.get(address)

    def _context(self, number: int) -> ContextFib:
        fib = self.contexts.get(number)
        if fib is None:
            fib = self.contexts[number] = ContextFib()
        return fib

    def _remove(self, record: RouteRecord | LocalAddressRecord) -> None:
        fib = self.contexts.get(record.context)
        if fib is None:
            return
        if isinstance(record, RouteRecord):
            fib.delete(record)
        else:
            fib.local.pop(record.address, None)
        if not fib:
            del self.contexts[record.context]


def choose_next_hop(hops: Iterable[NextHop], usable: Usable) -> tuple[NextHop | None, bool]:
    """Return the first usable next hop (None: there is none), and whether a tunnel was passed over before it.

    After a tunnel was passed over no port is chosen: while the route into the tunnel is in force its packets leave
    by a tunnel or not at all, whatever the costs are.
    """
    passed = False
    for hop in hops:
        if hop.kind == "tunnel":
            if usable(hop):
                return hop, passed
            passed = True
        elif hop.kind == "port":
            if not passed and usable(hop):
                return hop, passed
        else:
            return hop, passed
    return None, passed
