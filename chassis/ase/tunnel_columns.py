"""Packets of many tunnels in one batch, handled by columns: one operation does for all what a loop does for each.

In: a batch of runs, each of one tunnel. Out: outer packets in the order of the packets, in a batch for each card,
context and layout. That is for tunnels whose packets all use one SA and need nothing but ESP; `JointRuns` and
`DataPath.encapsulate` do the others. The numbers of all packets are stored before the first is sealed.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from chassis.ase.counters import ENCAPSULATED, AspCounters
from chassis.ase.ipsec.cipher_engine import SealedRuns
from chassis.ase.ipsec.esp import EspLayout, EspSender
from chassis.ase.ipsec.joint_sealing import InnerPackets, JointParts, seal_together
from chassis.ase.ipsec.outbound_table import (
    BASE_SUM,
    BLOCK,
    CEILING,
    CIRCUIT,
    DF_BITS,
    DF_MASK,
    FIXED,
    GROUP,
    IDENTIFICATIONS,
    LONGEST,
    OCTETS,
    OCTETS_CEILING,
    OCTETS_SLOT,
    PACKETS,
    PACKETS_SLOT,
    RANDOM,
    STATE_WORD,
    TUNNEL,
    USED,
    WAY,
)
from chassis.ase.ipsec.outer_header import ID_COUNT, ID_IN_USE, NEXT_ID
from chassis.ase.ipsec.sa import ESP_TRAILER_LENGTH
from chassis.ase.ipsec.sadb import Sadb
from chassis.ase.tunnels import AspTunnel, TunnelEgress, TunnelTable, Way
from chassis.bus.batch import Batch, Step
from chassis.bus.runs import Column, Hops, Runs, run_table
from chassis.fwd.mtu import UNLIMITED
from chassis.fwd.tables import ForwardingTables
from chassis.net.columns import Numbers
from chassis.net.ethernet import HEADROOM
from chassis.net.types import Writable

MIN_RUNS: Final = 12
"""Runs (count) of a batch from which on columns are faster than a loop over the runs."""

_Outer = tuple[int, str, bool]
"""Context and card of outer packets, and whether these have a next hop."""
_Group = tuple[_Outer, EspLayout]
_Place = tuple[int, int]

_Runs = NDArray[Any] | slice
"""Indices of runs, or a slice of all."""

_HALF: Final = 32
"""Bits of a sequence number that are sent."""


class _Plan:
    """A batch that can be sealed by columns: its runs and their rows of the table.

    `rows` are the places in the table of each run's SA, `cells` their numbers. `first_runs` is a run of each SA
    and `own` its numbers; `packets` are those that the SA has in all runs, `octets` what it has sent after them.
    `offsets` are the packets of a run's SA in earlier runs, `begins` is the first packet of each run.
    """

    __slots__ = (
        "begins",
        "cells",
        "counts",
        "first_runs",
        "inner",
        "octets",
        "offsets",
        "own",
        "packets",
        "rows",
        "tunnels",
    )

    inner: InnerPackets
    rows: Numbers
    cells: Numbers
    counts: Numbers
    begins: Numbers
    tunnels: Column
    first_runs: Numbers
    own: Numbers
    packets: Numbers
    octets: Numbers
    offsets: Numbers


class TunnelColumns:
    """Seals the runs of plain tunnels; remembers which tunnels are plain."""

    def __init__(
        self,
        sadb: Sadb,
        tunnels: TunnelTable,
        tables: ForwardingTables,
        counters: AspCounters,
        find_egress: Callable[[AspTunnel], TunnelEgress],
    ) -> None:
        """`find_egress` decides where the outer packets of a tunnel go."""
        self._sadb = sadb
        self._table = sadb.table
        self._tunnels = tunnels
        self._tables = tables
        self._counters = counters
        self._find_egress = find_egress
        self._values = np.frombuffer(counters.values, np.int64)
        self._generation = -1
        """Of the forwarding decisions that `_table.places` was made with."""
        self._groups: list[_Group] = []
        self._group_numbers: dict[_Group, int] = {}
        self._ways: list[Way] = []
        self._way_numbers: dict[Way, int] = {}

    def plan(self, batch: Batch) -> _Plan | list[bool]:
        """Return a batch of ordinary lengths as one that can be sealed; or of each of its runs whether it could be
        without the others."""
        generation = self._tables.decider.generation
        places = self._table.places
        if generation != self._generation:
            self._generation = generation
            places.clear()
            self._groups.clear()
            self._group_numbers.clear()
            self._ways.clear()
            self._way_numbers.clear()
        runs = run_table(batch.runs)
        plan = _Plan()
        plan.tunnels = runs.tunnels
        tunnels = runs.tunnels.tolist()
        try:
            rows = array("q", map(places.__getitem__, tunnels))
        except KeyError:
            found_rows = [places[number] if number in places else self._find_row(number) for number in tunnels]
            rows = array("q", found_rows)
        plan.counts = counts = runs.packets.astype(np.int64)
        plan.rows = np.frombuffer(rows, np.int64)
        plan.cells = cells = self._table.numbers[plan.rows]
        plan.begins = begins = np.add.accumulate(counts) - counts
        inner = plan.inner = InnerPackets(batch.body, batch.lengths)
        columns = inner.columns
        block, fixed = cells[:, BLOCK], cells[:, FIXED] - HEADROOM
        if stride := columns.stride:
            longest: Numbers | int = stride - HEADROOM
            octets = ((longest + (ESP_TRAILER_LENGTH - 1) + block & -block) + fixed) * counts
        else:
            lengths = columns.lengths - HEADROOM
            longest = np.maximum.reduceat(lengths, begins)
            blocks = block.repeat(counts)
            sizes = lengths + (ESP_TRAILER_LENGTH - 1) + blocks & -blocks
            octets = np.add.reduceat(sizes, begins) + fixed * counts
        if len(set(rows)) == len(rows):
            plan.first_runs, plan.packets, plan.octets = np.arange(len(rows)), counts, octets
            plan.offsets = np.zeros(len(rows), np.int64)
            which = plan.first_runs
        else:
            plan.first_runs, which, plan.packets, plan.offsets = _shared(plan.rows, counts)
            plan.octets = np.bincount(which, octets).astype(np.int64)
        plan.own = own = cells if plan.packets is counts else cells[plan.first_runs]
        first = own[:, USED] + 1
        after = first + plan.packets
        plan.octets += own[:, OCTETS]
        fits = (after <= own[:, CEILING]) & (first > 0) & ((first ^ after) >> _HALF == 0)
        fits &= plan.octets < own[:, OCTETS_CEILING]
        plain = fits[which] & (longest <= cells[:, LONGEST]) & inner.ordinary_runs(begins)
        plain &= cells[:, TUNNEL] == plan.tunnels
        if plain.all():
            return plan
        found: list[bool] = plain.tolist()
        return found

    def _find_row(self, number: int) -> int:
        """Return the row of a tunnel's SA, 0 if its packets are not all plain; remember it."""
        places = self._table.places
        state = self._tunnels.local.get(number)
        row = 0
        if state is not None and state.pairs and state.record.up:
            egress = state.egress
            if egress is None or egress.generation != self._generation:
                egress = self._find_egress(state)
            encapsulator = self._sadb.only_outbound(number)
            # The loop finds it too, and no SA that was removed is kept there.
            state.only_sa = self._sadb.spd.version, encapsulator
            if egress.way is not None and encapsulator is not None:
                context, card, port, _ = egress.way
                joint = encapsulator.joint_row(self._tables.mtu(port) if port else UNLIMITED)
                if joint is not None:
                    row, sender, longest = joint
                    numbers = self._table.numbers[row]
                    numbers[LONGEST] = min(longest, egress.smallest)
                    group = ((context, card, bool(port)), sender.layout)
                    numbers[GROUP] = _number_of(group, self._group_numbers, self._groups)
                    numbers[WAY] = _number_of(egress.way, self._way_numbers, self._ways)
                    numbers[CIRCUIT], numbers[TUNNEL] = state.record.circuit, number
                    # Its counters begin with the first packet that is encapsulated.
                    numbers[PACKETS_SLOT] = 0
        places[number] = row
        return row

    def take(self, plan: _Plan, ingress: str, random: Callable[[int], bytes]) -> list[tuple[str, Batch]]:
        """Seal the packets; return each batch with the card that it is for."""
        cells, counts = plan.cells, plan.counts
        firsts = cells[:, USED] + (plan.offsets + 1)
        self._store(plan)
        identifications = self._identifications(cells[:, IDENTIFICATIONS], counts)
        self._count(plan)
        columns, randoms = plan.inner.columns, cells[:, RANDOM]
        wanted = counts * randoms
        total = int(np.add.reduce(wanted))
        drawn = random(total) if total else b""
        batches: list[tuple[tuple[int, int], str, Batch]] = []
        for runs, parts in self._by_layout(cells[:, GROUP]):
            inner, own = plan.inner, drawn
            if isinstance(runs, np.ndarray):
                chosen = counts[runs]
                ends: Numbers = np.add.accumulate(chosen)
                before: Numbers = plan.begins[runs] - (ends - chosen)
                packets = np.arange(int(ends[-1])) + before.repeat(chosen)
                inner = inner.select(packets)
                octets = int(randoms[runs[0]])
                if octets and octets * columns.count == total:
                    own = np.frombuffer(drawn, np.uint8).reshape(-1, octets)[packets].tobytes()
                elif not octets:
                    own = b""
                else:
                    stops = np.add.accumulate(wanted)[runs].tolist()
                    sizes = wanted[runs].tolist()
                    own = b"".join([drawn[stop - size : stop] for stop, size in zip(stops, sizes, strict=True)])
            body, lengths = self._seal(plan, runs, inner, own, firsts, identifications)
            if len(parts) == 1:
                ((place, group, _),) = parts
                batches.append((place, *self._addressed(body, lengths, plan, runs, group)))
                continue
            assert isinstance(runs, np.ndarray)
            view, run, packet, at = memoryview(body), 0, 0, 0
            for place, group, size in parts:
                stop, after = run + size, packet + int(counts[runs[run : run + size]].sum())
                sizes_out = lengths[packet:after]
                end = at + sum(sizes_out)
                batches.append((place, *self._addressed(view[at:end], sizes_out, plan, runs[run:stop], group)))
                run, packet, at = stop, after, end
        batches.sort(key=itemgetter(0))
        for _, _, batch in batches:
            batch.ingress = ingress
        return [(card, batch) for _, card, batch in batches]

    def _store(self, plan: _Plan) -> None:
        """Store the numbers of all packets as used."""
        own = plan.own
        used = own[:, USED] + plan.packets
        words = own[:, STATE_WORD]
        if words.any():
            stored = words.nonzero()[0]
            self._sadb.state.store_next_numbers(words[stored].tolist(), (used[stored] + 1).tolist())
        changed = own[:, USED : OCTETS + 1].copy()
        changed[:, USED], changed[:, OCTETS] = used, plan.octets
        changed[:, PACKETS] += plan.packets
        self._table.numbers[plan.rows[plan.first_runs], USED : OCTETS + 1] = changed

    def _identifications(self, sequences: Numbers, counts: Numbers) -> Numbers:
        """Allocate identifications for all packets; return the first of each run."""
        numbers = self._sadb.ipv4_ids.table.numbers
        rows, which, packets, offsets = _shared(sequences, counts)
        rows = sequences[rows]
        before = numbers[rows, NEXT_ID]
        numbers[rows, NEXT_ID] = (before + packets) % ID_COUNT
        numbers[rows, ID_IN_USE] = 1
        found: Numbers = before[which] + offsets
        return found

    def _count(self, plan: _Plan) -> None:
        """Count the inner packets of all tunnels."""
        columns, cells, counts = plan.inner.columns, plan.cells, plan.counts
        if columns.stride:
            octets = counts * (columns.stride - HEADROOM)
        else:
            octets = np.add.reduceat(columns.lengths, plan.begins) - HEADROOM * counts
        if not cells[:, PACKETS_SLOT].all():
            slots = [self._counters.tunnel_slots(number) for number in plan.tunnels.tolist()]
            cells[:, PACKETS_SLOT : OCTETS_SLOT + 1] = [each[ENCAPSULATED : ENCAPSULATED + 2] for each in slots]
            self._table.numbers[plan.rows, PACKETS_SLOT : OCTETS_SLOT + 1] = cells[
                :, PACKETS_SLOT : OCTETS_SLOT + 1
            ]
        # Tunnels may share the slot of what found no other.
        np.add.at(self._values, cells[:, PACKETS_SLOT], counts)
        np.add.at(self._values, cells[:, OCTETS_SLOT], octets)

    def _by_layout(self, groups: Numbers) -> list[tuple[_Runs, list[tuple[_Place, int, int]]]]:
        """Return the runs of each layout, those of a group together; and each of these groups with its place among
        all, and its runs (count). The places are in the order of the first runs, with what is for one card and
        context together."""
        each = groups.tolist()
        found = dict.fromkeys(each)
        if len(found) == 1:
            return [(slice(None), [((0, 0), each[0], len(each))])]
        outers: dict[_Outer, int] = {}
        layouts: dict[EspLayout, list[tuple[_Place, int, NDArray[Any]]]] = {}
        for group in found:
            begin = each.index(group)
            outer, layout = self._groups[group]
            place = (outers.setdefault(outer, begin), begin)
            layouts.setdefault(layout, []).append((place, group, (groups == group).nonzero()[0]))
        return [
            (
                np.concatenate([runs for _, _, runs in members]),
                [(place, group, len(runs)) for place, group, runs in members],
            )
            for members in layouts.values()
        ]

    def _seal(
        self,
        plan: _Plan,
        runs: _Runs,
        inner: InnerPackets,
        drawn: bytes,
        firsts: Numbers,
        identifications: Numbers,
    ) -> tuple[Writable, array[int]]:
        """Return the outer packets of runs of one layout, and their lengths."""
        table, rows, cells = self._table, plan.rows[runs], plan.cells[runs]
        sender: EspSender = table.senders[rows[0]]
        sealed = SealedRuns(table.sealers[rows].tolist(), plan.counts[runs], firsts[runs], table.words[rows])
        parts = JointParts(
            sender,
            sealed,
            identifications[runs],
            cells[:, BASE_SUM],
            cells[:, DF_MASK],
            cells[:, DF_BITS],
            table.heads[rows, : len(sender.heads.template)],
        )
        return seal_together(inner, parts, drawn, self._sadb.engine.flush)

    def _addressed(
        self, body: Writable, lengths: array[int], plan: _Plan, runs: _Runs, group: int
    ) -> tuple[str, Batch]:
        """Return the outer packets of these runs as a batch, and the card that it is for."""
        context, card, by_port = self._groups[group][0]
        batch = Batch(Step.CIRCUIT_OUT, body, lengths, context=context)
        cells, counts = plan.cells[runs], plan.counts[runs]
        if by_port:
            batch.step = Step.EGRESS
            ways, numbers = self._ways, cells[:, WAY]
            edges = (numbers[1:] != numbers[:-1]).nonzero()[0] + 1
            begins = np.concatenate(([0], edges))
            ports, addresses = zip(*[ways[way][2:] for way in numbers[begins].tolist()], strict=True)
            if len(begins) == 1:
                batch.port, batch.address = ports[0], addresses[0]
            else:
                batch.hops = Hops.of(np.add.reduceat(counts, begins), ports, addresses)
        elif len(counts) == 1:
            batch.tunnel, batch.circuit = int(plan.tunnels[runs][0]), int(cells[0, CIRCUIT])
        else:
            batch.runs = Runs.of(counts, plan.tunnels[runs], cells[:, CIRCUIT])
        return card, batch


_Thing = TypeVar("_Thing")


def _number_of(thing: _Thing, numbers: dict[_Thing, int], things: list[_Thing]) -> int:
    """Return the place of a thing among those that are known; add it if it is new."""
    if thing not in numbers:
        numbers[thing] = len(things)
        things.append(thing)
    return numbers[thing]


def _shared(keys: Numbers, counts: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Return, of runs of packets by a key that several may have: a run of each key, which key each run has (its
    place in the first), the packets of each key, and the packets of its key before each run."""
    if (keys == keys[0]).all():
        offsets = np.add.accumulate(counts)
        return np.zeros(1, np.int64), np.zeros(len(keys), np.int64), offsets[-1:].copy(), offsets - counts
    order = np.argsort(keys, kind="stable")
    ordered, packets = keys[order], counts[order]
    changes = np.empty(len(keys), np.bool_)
    changes[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=changes[1:])
    begins = changes.nonzero()[0]
    before = np.add.accumulate(packets) - packets
    place = np.add.accumulate(changes, dtype=np.int64) - 1
    which, offsets = np.empty_like(keys), np.empty_like(keys)
    which[order] = place
    offsets[order] = before - before[begins][place]
    return order[begins], which, np.add.reduceat(packets, begins), offsets


def stretches(batch: Batch, plain: Sequence[bool]) -> list[Batch]:
    """Return a batch of runs in parts: those of `MIN_RUNS` plain runs or more, and those between."""
    edges: list[int] = []
    begin = 0
    for is_plain, members in groupby(plain):
        end = begin + len(list(members))
        if is_plain and end - begin >= MIN_RUNS:
            edges += (begin, end)
        begin = end
    parts: list[Batch] = []
    table = run_table(batch.runs)
    view, packet, start = memoryview(batch.body), 0, 0
    for first, last in pairwise(sorted({0, *edges, begin})):
        runs = Runs(table.rows[first:last])
        count = int(runs.packets.sum())
        own = slice(packet, packet + count)
        lengths = batch.lengths[own]
        end = start + sum(lengths)
        parts.append(
            replace(batch, body=view[start:end], lengths=lengths, descriptors=batch.descriptors[own], runs=runs)
        )
        packet, start = packet + count, end
    return parts
