"""Packets of many SAs that are opened together, by columns (RFC 4303 3.4).

In: the outer headers of a batch. Out: the inner packets, in runs of one tunnel each. Only what is ordinary is done
here: SAs with ESP alone, whose numbers rise above the edge of their windows, and payloads of IPv4 packets. Nothing
of any other SA is touched, so that its packets can be opened one after the other. Windows are stored before an
inner packet is returned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from itertools import compress
from operator import and_, attrgetter
from typing import Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from chassis.ase.ipsec.algorithms import Octets
from chassis.ase.ipsec.cipher_engine import CipherEngine, EspOpener, Pending
from chassis.ase.ipsec.decapsulated import DecapsulatedRuns
from chassis.ase.ipsec.decapsulator import Decapsulator
from chassis.ase.ipsec.esp import Clear, EspReceiver, OpeningLayout, accept_runs
from chassis.ase.ipsec.inner_columns import InnerPlaces, find_inner
from chassis.ase.ipsec.received import PacketColumns
from chassis.ase.ipsec.select_sa import MIN_JOINT, OuterColumns
from chassis.net.columns import Numbers

_ALLOWS: Final = attrgetter("allows")


class SaPackets(NamedTuple):
    """Packets of several SAs: `counts[i]` of SA i, in a row. `rows` are their indices in the batch.

    The SAs are ordered by their first packets, and the packets of an SA by the batch.
    """

    sas: list[Decapsulator]
    counts: Numbers
    rows: Numbers

    def only(self, chosen: Sequence[bool]) -> SaPackets:
        """Return the packets of the chosen SAs."""
        mask = np.array(chosen, bool)
        return SaPackets(
            list(compress(self.sas, chosen)), self.counts[mask], self.rows[np.repeat(mask, self.counts)]
        )

    @property
    def firsts(self) -> Numbers:
        """The index of the first packet of each SA in `rows`."""
        firsts: Numbers = np.add.accumulate(self.counts) - self.counts
        return firsts


def group_by_sa(outer: OuterColumns, inbound: Mapping[int, Decapsulator]) -> tuple[SaPackets, list[int]]:
    """Return the ordinary packets by SA, and the indices of all others. `inbound` are the SAs with ESP outermost,
    by destination << 32 | SPI."""
    right, count = outer.right, outer.columns.count
    whole = len(right) == count
    keys = outer.keys if whole else outer.keys[right]
    order = keys.argsort(kind="stable")
    ordered = keys[order]
    cuts = np.flatnonzero(ordered[1:] != ordered[:-1])
    cuts += 1
    begins = np.zeros(len(cuts) + 1 if len(right) else 0, np.int64)
    begins[1:] = cuts
    by_first = order[begins].argsort()
    begins = begins[by_first]
    counts = np.diff(cuts, prepend=0, append=len(right))[by_first] if len(right) else begins
    rows = order[np.repeat(begins - (np.add.accumulate(counts) - counts), counts) + np.arange(len(right))]
    if not whole:
        rows = right[rows]
    found = list(map(inbound.get, ordered[begins].tolist()))
    chosen = [sa is not None for sa in found]
    packets = SaPackets(found, counts, rows)  # type: ignore[arg-type]
    if not all(chosen):
        packets = packets.only(chosen)
    if len(packets.rows) == count:
        return packets, []
    other = np.ones(count, bool)
    other[packets.rows] = False
    return packets, np.flatnonzero(other).tolist()


class Opened(NamedTuple):
    """What was opened together: the SAs whose inner packets are ordinary ones, those packets, and the authentic
    packets of each other SA, as its receiver opens them."""

    sas: list[Decapsulator]
    runs: DecapsulatedRuns | None
    odd: list[tuple[Decapsulator, Clear]]


def open_together(
    outer: OuterColumns, packets: SaPackets, busy: Container[Decapsulator], engine: CipherEngine
) -> tuple[list[Opened], SaPackets]:
    """Open what can be opened together; return it, and the packets that are left, with nothing done.

    `busy` are SAs with packets elsewhere in the batch. The windows of what was opened are stored.
    """
    sas = packets.sas
    layouts = [sa.layout for sa in sas]
    tunnels = [sa.tunnel for sa in sas]
    eligible: list[bool] | None = None
    if busy or len(set(tunnels)) < len(sas):
        shared = Counter(tunnels)
        eligible = [shared[sa.tunnel] == 1 and sa not in busy for sa in sas]
    kinds = dict.fromkeys(layouts)
    openings: list[_Begun] = []
    for layout in kinds:
        if layout is None:
            continue
        part = packets
        if eligible is not None or len(kinds) > 1:
            chosen = [own is layout for own in layouts]
            part = packets.only(chosen if eligible is None else list(map(and_, chosen, eligible)))
        opening = _begin(outer, part, layout)
        if opening is not None:
            openings.append(opening)
    if not openings:
        return [], packets
    engine.flush()
    opened = [found for opening in openings if (found := _finish(outer, opening)) is not None]
    if len(opened) == 1 and len(opened[0].sas) == len(sas):
        return opened, packets.only([False] * len(sas))
    done = {sa for part in opened for sa in part.sas}
    done.update([sa for part in opened for sa, _ in part.odd])
    return opened, packets.only([sa not in done for sa in sas])


class _Begun(NamedTuple):
    """Packets that are being opened: those of each SA, the receivers, the packets as columns, their extended
    sequence numbers, the stride of all or of each, and what the opener has begun."""

    packets: SaPackets
    receivers: list[EspReceiver]
    columns: PacketColumns
    numbers: Numbers
    strides: int | Numbers
    opener: EspOpener
    pending: Pending


def _begin(outer: OuterColumns, packets: SaPackets, layout: OpeningLayout) -> _Begun | None:
    """Begin with packets of SAs of one layout, without those of SAs that have another than an ordinary one; None,
    with nothing done, if too few are left."""
    while len(packets.rows) >= MIN_JOINT:
        sas, counts, rows = packets
        receivers = cast("list[EspReceiver]", [sa.receiver for sa in sas])
        found = _numbers(outer, packets, receivers, layout)
        if found is None:
            return None
        numbers, wrong = found
        sealed = outer.totals[rows] - (outer.before + layout.overhead)
        wrong |= sealed < layout.block
        wrong |= sealed & (layout.block - 1) != 0
        if wrong.any():
            packets = packets.only((~np.logical_or.reduceat(wrong, packets.firsts)).tolist())
            continue
        columns = outer.packets(rows)
        openers = [receiver.opener for receiver in receivers]
        opener = openers[0]
        strides = columns.size - layout.overhead + opener.lead if columns.size else sealed + opener.lead
        pending = opener.begin_all(columns, numbers, openers, counts.tolist())
        return _Begun(packets, receivers, columns, numbers, strides, opener, pending)
    return None


def _numbers(
    outer: OuterColumns, packets: SaPackets, receivers: Sequence[EspReceiver], layout: OpeningLayout
) -> tuple[Numbers, NDArray[np.bool_]] | None:
    """Return the extended sequence numbers, and which of them do not rise above the edge; None if a number may
    have all 64 bits."""
    _, counts, rows = packets
    edges = [receiver.edge for receiver in receivers]
    if layout.esn and max(edges) >> 62:
        return None
    edge = np.array(edges, np.int64)
    numbers = outer.numbers[rows]
    if layout.esn:
        windows = np.array([receiver.window for receiver in receivers], np.int64)
        base = np.repeat(np.maximum(edge - windows + 1, 0), counts)
        numbers = base + ((numbers - base) & 0xFFFFFFFF)
    before = np.empty_like(numbers)
    before[1:] = numbers[:-1]
    before[packets.firsts] = edge
    return numbers, numbers <= before


def _finish(outer: OuterColumns, opening: _Begun) -> Opened | None:
    """Return what was opened; None if no SA has only authentic packets."""
    packets, receivers, columns, numbers, strides, opener, pending = opening
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
            packets, numbers = packets.only(chosen.tolist()), numbers[rows]
            receivers = list(compress(receivers, chosen.tolist()))
    counts = packets.counts.tolist()
    accept_runs(receivers, numbers, counts)
    return _inner(outer, packets, counts, clear, services, strides, opener.lead)


def _inner(
    outer: OuterColumns,
    packets: SaPackets,
    counts: list[int],
    clear: Octets,
    services: bytes,
    strides: int | Numbers,
    lead: int,
) -> Opened:
    """Return the inner packets of authentic packets that their windows took; count them."""
    sas = packets.sas
    found = find_inner(clear, services, strides, lead)
    odd = np.ones(len(sas), bool)
    if found is not None:
        inner, rows = found
        odd[:] = False
        if len(rows):
            odd[np.searchsorted(packets.firsts, rows, "right") - 1] = True
        if any(map(_ALLOWS, sas)):
            _refuse(packets, counts, inner, odd)
    if found is not None and not odd.any():
        return Opened(sas, _count(outer, packets, counts, inner), [])
    each = np.full(len(packets.rows), strides) if isinstance(strides, int) else strides
    afters = np.add.accumulate(each)
    others: list[tuple[Decapsulator, Clear]] = []
    firsts = packets.firsts.tolist()
    for index in np.flatnonzero(odd).tolist():
        begin, end = firsts[index], firsts[index] + counts[index]
        octets = bytes(clear[int(afters[begin] - each[begin]) : int(afters[end - 1])])
        items = outer.packets(packets.rows[begin:end]).items()
        others.append((sas[index], (octets, items, each[begin:end].tolist(), lead)))
    if found is None or odd.all():
        return Opened([], None, others)
    chosen = np.repeat(~odd, packets.counts)
    ordinary = packets.only((~odd).tolist())
    some = InnerPlaces(inner.clear, inner.starts[chosen], inner.totals[chosen], 0, 0)
    return Opened(ordinary.sas, _count(outer, ordinary, ordinary.counts.tolist(), some), others)


def _refuse(packets: SaPackets, counts: list[int], inner: InnerPlaces, odd: NDArray[np.bool_]) -> None:
    """Add the SAs whose selectors do not match one of their packets to those that are odd."""
    starts, ends = inner.starts.tolist(), (inner.starts + inner.totals).tolist()
    clear, begin = inner.clear, 0
    for index, (sa, count) in enumerate(zip(packets.sas, counts, strict=True)):
        end = begin + count
        allows = sa.allows
        if allows is not None and not odd[index]:
            verdicts = [allows(clear, starts[at], ends[at]) for at in range(begin, end)]
            odd[index] = not all(verdicts)
        begin = end


def _count(outer: OuterColumns, packets: SaPackets, counts: list[int], inner: InnerPlaces) -> DecapsulatedRuns:
    """Count packets for their SAs; return the inner ones."""
    sas, _, rows = packets
    firsts = packets.firsts
    octets = np.add.reduceat(outer.totals[rows], firsts).tolist()
    for sa, count, size in zip(sas, counts, octets, strict=True):
        sa.packets += count
        sa.octets += size
        sa.decapsulated += count
    if outer.ports is not None:
        # The last packet of an SA is its newest.
        last = rows[firsts + packets.counts - 1]
        origins = zip(outer.sources[last].tolist(), outer.ports[last].tolist(), strict=True)
        for sa, origin in zip(sas, origins, strict=True):
            if sa.sa.udp:
                sa.udp_source = origin
    sizes = np.add.reduceat(inner.totals, firsts).tolist()
    return DecapsulatedRuns([sa.tunnel for sa in sas], counts, sizes, inner, rows)
