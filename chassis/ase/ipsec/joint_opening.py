"""Packets of many SAs that are opened together, by columns (RFC 4303 3.4).

In: the outer headers of a batch. Out: the inner packets, in runs of one tunnel each. Only what is ordinary is done
here: SAs with ESP alone, whose numbers rise above the edge of their windows, and payloads of IPv4 packets. Nothing
of any other SA is touched, so that its packets can be opened one after the other. Windows are stored before an
inner packet is returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import compress
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from chassis.ase.ipsec.algorithms import Octets
from chassis.ase.ipsec.cipher_engine import CipherEngine, EspOpener, Pending
from chassis.ase.ipsec.decapsulated import DecapsulatedRuns
from chassis.ase.ipsec.decapsulator import Decapsulator
from chassis.ase.ipsec.esp import Clear, EspReceiver, accept_runs
from chassis.ase.ipsec.inbound_table import (
    CHECKED,
    DECAPSULATED,
    EDGE,
    LAYOUT,
    NEGOTIATED,
    OCTETS,
    PACKETS,
    QUIET_UNTIL,
    TUNNEL,
    UDP,
    WINDOW,
    InboundTable,
    OpeningLayout,
)
from chassis.ase.ipsec.inner_columns import InnerPlaces, find_inner
from chassis.ase.ipsec.received import PacketColumns
from chassis.ase.ipsec.select_sa import MIN_JOINT, OuterColumns
from chassis.net.columns import Numbers


class SaPackets(NamedTuple):
    """Packets of several SAs: `counts[i]` of SA i, in a row from `firsts[i]` on. `rows` are their indices in the
    batch.

    The SAs are ordered by their first packets, and the packets of an SA by the batch. `cells` are copies of the
    rows `places` of the table.
    """

    sas: list[Decapsulator]
    places: Numbers
    cells: Numbers
    counts: Numbers
    firsts: Numbers
    rows: Numbers

    def only(self, chosen: NDArray[np.bool_]) -> SaPackets:
        """Return the packets of the chosen SAs."""
        counts = self.counts[chosen]
        return SaPackets(
            list(compress(self.sas, chosen.tolist())),
            self.places[chosen],
            self.cells[chosen],
            counts,
            np.add.accumulate(counts) - counts,
            self.rows[np.repeat(chosen, self.counts)],
        )


def no_packets(table: InboundTable) -> SaPackets:
    """Return the packets of no SA."""
    none = np.zeros(0, np.int64)
    return SaPackets([], none, table.numbers[:0], none, none, none)


def group_by_sa(
    outer: OuterColumns, inbound: Mapping[int, Decapsulator], table: InboundTable
) -> tuple[SaPackets, list[int]]:
    """Return the ordinary packets by SA, and the indices of all others. `inbound` are the SAs with ESP outermost,
    by destination << 32 | SPI."""
    right, count = outer.right, outer.columns.count
    many = len(right)
    if not many:
        return no_packets(table), list(range(count))
    whole = many == count
    keys = outer.keys if whole else outer.keys[right]
    order = keys.argsort(kind="stable")
    ordered = keys[order]
    cuts = (ordered[1:] != ordered[:-1]).nonzero()[0]
    if len(cuts) == many - 1:
        # One packet of each SA.
        firsts, counts, rows = np.arange(many), np.ones(many, np.int64), right
    else:
        begins = np.zeros(len(cuts) + 1, np.int64)
        begins[1:] = cuts
        begins[1:] += 1
        counts = np.empty_like(begins)
        counts[:-1] = begins[1:] - begins[:-1]
        counts[-1] = many - begins[-1]
        by_first = order[begins].argsort()
        begins, counts = begins[by_first], counts[by_first]
        firsts = np.add.accumulate(counts) - counts
        rows = order[np.repeat(begins - firsts, counts) + np.arange(many)]
        keys = ordered[begins]
        if not whole:
            rows = right[rows]
    found = list(map(inbound.get, keys.tolist()))
    places = np.array([0 if sa is None else sa.row for sa in found])
    packets = SaPackets(cast("list[Decapsulator]", found), places, table.numbers[places], counts, firsts, rows)
    if None in found:
        packets = packets.only(places > 0)
    if len(packets.rows) == count:
        return packets, []
    other = np.ones(count, bool)
    other[packets.rows] = False
    return packets, np.flatnonzero(other).tolist()


class Opened(NamedTuple):
    """What was opened together: the SAs whose inner packets are ordinary ones, those packets, and the authentic
    packets of each other SA, as its receiver opens them."""

    packets: SaPackets | None
    runs: DecapsulatedRuns | None
    odd: list[tuple[Decapsulator, Clear]]


def open_together(
    outer: OuterColumns,
    packets: SaPackets,
    busy: Iterable[Decapsulator],
    table: InboundTable,
    engine: CipherEngine,
) -> tuple[list[Opened], SaPackets]:
    """Open what can be opened together; return it, and the packets that are left, with nothing done.

    `busy` are SAs with packets elsewhere in the batch. The windows of what was opened are stored.
    """
    cells = packets.cells
    layouts, tunnels = cells[:, LAYOUT], cells[:, TUNNEL]
    eligible: NDArray[np.bool_] | None = None
    if busy or len(set(tunnels.tolist())) < len(tunnels):
        _, which, shared = np.unique(tunnels, return_inverse=True, return_counts=True)
        eligible = shared[which] == 1
        eligible &= ~np.isin(packets.places, [sa.row for sa in busy])
    kinds = list(dict.fromkeys(layouts.tolist()))
    openings: list[_Begun] = []
    for kind in kinds:
        layout = table.layouts[kind]
        if layout is None:
            continue
        part = packets
        if eligible is not None or len(kinds) > 1:
            chosen = layouts == kind
            part = packets.only(chosen if eligible is None else chosen & eligible)
        opening = _begin(outer, part, layout, table)
        if opening is not None:
            openings.append(opening)
    if not openings:
        return [], packets
    engine.flush()
    opened = [found for opening in openings if (found := _finish(outer, opening, table)) is not None]
    if len(opened) == 1 and not opened[0].odd and opened[0].packets is packets:
        return opened, no_packets(table)
    done = [part.packets.places for part in opened if part.packets is not None]
    done.append(np.array([sa.row for part in opened for sa, _ in part.odd], np.int64))
    return opened, packets.only(~np.isin(packets.places, np.concatenate(done)))


class _Begun(NamedTuple):
    """Packets that are being opened: those of each SA, the packets as columns, their extended sequence numbers,
    the stride of all or of each, and what the opener has begun."""

    packets: SaPackets
    columns: PacketColumns
    numbers: Numbers
    strides: int | Numbers
    opener: EspOpener
    pending: Pending


def _begin(outer: OuterColumns, packets: SaPackets, layout: OpeningLayout, table: InboundTable) -> _Begun | None:
    """Begin with packets of SAs of one layout, without those of SAs that have another than an ordinary one; None,
    with nothing done, if too few are left."""
    while len(packets.rows) >= MIN_JOINT:
        rows = packets.rows
        found = _numbers(outer, packets, layout)
        if found is None:
            return None
        numbers, wrong = found
        sealed = outer.totals[rows] - (outer.before + layout.overhead)
        wrong |= sealed < layout.block
        wrong |= sealed & (layout.block - 1) != 0
        if np.logical_or.reduce(wrong):
            packets = packets.only(~np.logical_or.reduceat(wrong, packets.firsts))
            continue
        columns = outer.packets(rows)
        openers: list[EspOpener | None] = table.openers[packets.places].tolist()
        if not all(openers):
            openers = [cast(EspReceiver, sa.receiver).opener for sa in packets.sas]
        opener = cast(EspOpener, openers[0])
        strides = columns.size - layout.overhead + opener.lead if columns.size else sealed + opener.lead
        used = cast("list[EspOpener]", openers)
        pending = opener.begin_all(columns, numbers, used, packets.counts.tolist())
        return _Begun(packets, columns, numbers, strides, opener, pending)
    return None


def _numbers(
    outer: OuterColumns, packets: SaPackets, layout: OpeningLayout
) -> tuple[Numbers, NDArray[np.bool_]] | None:
    """Return the extended sequence numbers, and which of them do not rise above the edge; None if a number may
    have all 64 bits."""
    edge, counts = packets.cells[:, EDGE], packets.counts
    numbers = outer.numbers[packets.rows]
    if layout.esn:
        if np.bitwise_or.reduce(edge >> 62):
            return None
        base = np.repeat(np.maximum(edge - packets.cells[:, WINDOW] + 1, 0), counts)
        numbers = base + ((numbers - base) & 0xFFFFFFFF)
    before = np.empty_like(numbers)
    before[1:] = numbers[:-1]
    before[packets.firsts] = edge
    return numbers, numbers <= before


def _finish(outer: OuterColumns, opening: _Begun, table: InboundTable) -> Opened | None:
    """Return what was opened; None if no SA has only authentic packets."""
    packets, columns, numbers, strides, opener, pending = opening
    authentic, clear = opener.finish_all(pending)
    services = columns.services
    if authentic is not None:
        right = np.zeros(len(numbers), bool)
        right[authentic] = True
        chosen = np.logical_and.reduceat(right, packets.firsts)
        rows = np.repeat(chosen, packets.counts)
        if not chosen.any():
            return None
        if not chosen.all():
            each = np.full(len(numbers), strides) if isinstance(strides, int) else strides
            afters = np.add.accumulate(each)
            spans = zip((afters - each)[rows].tolist(), afters[rows].tolist(), strict=True)
            clear = b"".join([clear[start:after] for start, after in spans])
            strides = strides if isinstance(strides, int) else strides[rows]
            services = np.frombuffer(services, np.uint8)[rows].tobytes()
            packets, numbers = packets.only(chosen), numbers[rows]
    sas = packets.sas

    def receiver(index: int) -> EspReceiver:
        return cast(EspReceiver, sas[index].receiver)

    accept_runs(table, packets.places, packets.cells, receiver, numbers, packets.firsts, packets.counts)
    return _inner(outer, packets, clear, services, strides, opener.lead, table)


def _inner(
    outer: OuterColumns,
    packets: SaPackets,
    clear: Octets,
    services: bytes,
    strides: int | Numbers,
    lead: int,
    table: InboundTable,
) -> Opened:
    """Return the inner packets of authentic packets that their windows took; count them."""
    sas, counts, firsts = packets.sas, packets.counts, packets.firsts
    found = find_inner(clear, services, strides, lead)
    odd = np.ones(len(sas), bool)
    if found is not None:
        inner, rows = found
        checked = np.bitwise_or.reduce(packets.cells[:, CHECKED])
        odd[:] = False
        if len(rows):
            odd[np.searchsorted(firsts, rows, "right") - 1] = True
        if checked:
            _refuse(packets, inner, odd)
        if not (len(rows) or checked) or not odd.any():
            return Opened(packets, _count(outer, packets, inner, table), [])
    each = np.full(len(packets.rows), strides) if isinstance(strides, int) else strides
    afters = np.add.accumulate(each)
    others: list[tuple[Decapsulator, Clear]] = []
    for index in np.flatnonzero(odd).tolist():
        begin = int(firsts[index])
        end = begin + int(counts[index])
        octets = bytes(clear[int(afters[begin] - each[begin]) : int(afters[end - 1])])
        items = outer.packets(packets.rows[begin:end]).items()
        others.append((sas[index], (octets, items, each[begin:end].tolist(), lead)))
    if found is None or odd.all():
        return Opened(None, None, others)
    chosen = np.repeat(~odd, counts)
    ordinary = packets.only(~odd)
    some = InnerPlaces(inner.clear, inner.starts[chosen], inner.totals[chosen], 0, 0)
    return Opened(ordinary, _count(outer, ordinary, some, table), others)


def _refuse(packets: SaPackets, inner: InnerPlaces, odd: NDArray[np.bool_]) -> None:
    """Add the SAs whose selectors do not match one of their packets to those that are odd."""
    starts, ends = inner.starts.tolist(), (inner.starts + inner.totals).tolist()
    clear = inner.clear
    for index in np.flatnonzero(packets.cells[:, CHECKED]).tolist():
        allows = packets.sas[index].allows
        if allows is not None and not odd[index]:
            begin = int(packets.firsts[index])
            rows = range(begin, begin + int(packets.counts[index]))
            odd[index] = not all(allows(clear, starts[row], ends[row]) for row in rows)


def _count(outer: OuterColumns, packets: SaPackets, inner: InnerPlaces, table: InboundTable) -> DecapsulatedRuns:
    """Count packets for their SAs; return the inner ones."""
    places, cells, counts, firsts, rows = packets[1:]
    numbers = table.numbers
    numbers[places, PACKETS] = cells[:, PACKETS] + counts
    numbers[places, DECAPSULATED] = cells[:, DECAPSULATED] + counts
    octets = cells[:, OCTETS] + np.add.reduceat(outer.totals[rows], firsts)
    numbers[places, OCTETS] = octets
    if outer.ports is not None:
        # The last packet of an SA is its newest.
        last = rows[firsts + counts - 1]
        for index in np.flatnonzero(cells[:, UDP]).tolist():
            row = last[index]
            packets.sas[index].udp_source = int(outer.sources[row]), int(outer.ports[row])
    sizes = inner.total * counts if inner.total else np.add.reduceat(inner.totals, firsts)
    noisy = (cells[:, NEGOTIATED] != 0) & (octets >= cells[:, QUIET_UNTIL])
    return DecapsulatedRuns(cells[:, TUNNEL], places, counts, sizes, inner, rows, noisy)
