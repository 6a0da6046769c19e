"""Decapsulation of ESP and AH packets, a batch at a time (RFC 4301 5.2).

In: outer packets for local addresses of one context. Out: the inner IPv4 packets by tunnel, the dropped packets by
cause, and the packets that are not for an SA (IKE, ICMP, fragments). The destination, protocol and SPI of a packet
select its SA; the packets of one SA are verified and decrypted together, and those of many SAs too where they are
ordinary (`joint_opening`). Replay windows are stored before a packet is returned. An inner packet is returned only
if the selectors of its SA match it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, compress
from typing import Any, Final, TypeAlias

from chassis.ase.ipsec.algorithms import Octets
from chassis.ase.ipsec.causes import Drops
from chassis.ase.ipsec.cipher_engine import CipherEngine
from chassis.ase.ipsec.cryptography_engine import CRYPTOGRAPHY
from chassis.ase.ipsec.decapsulated import DecapsulatedGroup, DecapsulatedRuns, DecapsulationResult
from chassis.ase.ipsec.decapsulator import Decapsulator, InnerPackets, apart
from chassis.ase.ipsec.inbound_table import NEGOTIATED, TUNNEL, InboundTable
from chassis.ase.ipsec.joint_opening import Opened, SaPackets, group_by_sa, open_together
from chassis.ase.ipsec.received import Item, PacketColumns
from chassis.ase.ipsec.select_sa import (
    MIN_COLUMNS,
    MIN_MIXED,
    InboundKey,
    InboundSas,
    OuterColumns,
    Punted,
    items_by_sa,
    split_by_sa,
)
from chassis.net.ethernet import HEADROOM, HEADROOM_FILL
from chassis.net.ipv4 import (
    FRAGMENT_MASK,
)

MAX_FEW: Final = 3
"""Packets of an SA in a batch, at most, that are cheaper opened one by one."""


Reassemble: TypeAlias = Callable[[memoryview], bytes | None]
"""`reassemble(fragment)` returns the packet for an SA that the fragment completes; None if there is none."""


def decapsulate_batch(
    inbound: InboundSas[Decapsulator],
    table: InboundTable,
    body: bytes | bytearray | memoryview,
    lengths: Sequence[int],
    engine: CipherEngine = CRYPTOGRAPHY,
    reassemble: Reassemble | None = None,
) -> DecapsulationResult:
    """Decapsulate a batch with the inbound SAs of the context that received it.

    `lengths` are octets, headroom included. Nothing is raised for the content of packets: a packet that fails a
    check is counted in `drops` of the result. `table` and `engine` are those of the SAs. `reassemble` takes the
    fragments of the batch, which are punted without it; a packet that it returns stands where its last fragment
    was.
    """
    drops = Drops()
    view = memoryview(body)
    punted: list[Punted] = []
    pending: dict[Decapsulator, list[Item]] = {}
    many: dict[Decapsulator, PacketColumns] = {}
    opened: list[Opened] = []
    split = split_by_sa(inbound, body, lengths) if len(lengths) >= MIN_COLUMNS else None
    if split is None:
        items_by_sa(inbound, view, enumerate(lengths), 0, drops, punted, pending)
    elif not isinstance(split, OuterColumns):
        many = {inbound[split[0]]: split[1]}
    else:
        packets, others = group_by_sa(split, inbound.esp, table)
        if others:
            _look_at(inbound, view, lengths, others, drops, punted, pending)
    if punted and reassemble is not None:
        view, punted = _reassembled(inbound, view, reassemble, drops, punted, pending)
    if isinstance(split, OuterColumns):
        opened, packets = open_together(split, packets, pending, table, engine)
        some = bool(pending)
        many, others = _columns_of(split, packets)
        if others:
            _look_at(inbound, view, lengths, others, drops, punted, pending)
            if some:
                for items in pending.values():
                    items.sort()
    work: Iterable[tuple[Decapsulator, list[Item] | PacketColumns]] = pending.items()
    if many:
        work = _with_columns(pending, many)
    begun: list[tuple[Decapsulator, Callable[[memoryview, Any, Drops], InnerPackets], object]] = []
    for decapsulator, own in work:
        if isinstance(own, PacketColumns):
            columns = decapsulator.begin_columns(own)
            if columns is not None:
                begun.append((decapsulator, decapsulator.finish_columns, columns))
                continue
            own = own.items()
        if len(own) <= MAX_FEW and (few := decapsulator.begin_few(view, own)) is not None:
            begun.append((decapsulator, decapsulator.finish_few, few))
        elif (each := decapsulator.begin(view, own, drops)) is not None:
            begun.append((decapsulator, decapsulator.finish, each))
    rest = tuple([packet for _, packet in punted])
    negotiated: list[Decapsulator] = []
    by_tunnel: dict[int, InnerPackets] = {}
    mixed: set[int] = set()
    peers: list[int] = []
    together: list[DecapsulatedRuns] = []
    for part in opened:
        if part.runs is not None and part.packets is not None:
            together.append(part.runs)
            cells, noisy = part.packets.cells, part.runs.noisy
            negotiated += compress(part.packets.sas, noisy.tolist())
            peers += cells[:, TUNNEL][(cells[:, NEGOTIATED] != 0) & ~noisy].tolist()
        for decapsulator, clear in part.odd:
            decapsulator.heard = False
            _add_inner(decapsulator.tunnel, decapsulator.finish_clear(view, clear, drops), by_tunnel, mixed)
            if decapsulator.heard and decapsulator.negotiated:
                negotiated.append(decapsulator)
    if begun:
        engine.flush()
    for decapsulator, finish, received in begun:
        decapsulator.heard = False
        found = finish(view, received, drops)
        if decapsulator.heard and decapsulator.negotiated:
            negotiated.append(decapsulator)
        if found[1]:
            tunnel = decapsulator.tunnel
            if tunnel in by_tunnel:
                _add_inner(tunnel, found, by_tunnel, mixed)
            else:
                by_tunnel[tunnel] = found
    if by_tunnel and not all(by_tunnel.keys().isdisjoint(runs.tunnels.tolist()) for runs in together):
        # The packets of a tunnel with several SAs leave in their order.
        for runs in together:
            for group in runs.groups():
                _add_inner(group.tunnel, (group.pieces, group.sizes, group.origins), by_tunnel, mixed)
        together = []
    groups: list[DecapsulatedGroup] = []
    for tunnel, (pieces, sizes, origins) in by_tunnel.items():
        if tunnel in mixed:
            order = sorted(range(len(origins)), key=origins.__getitem__)
            pieces = [piece for index in order for piece in pieces[2 * index : 2 * index + 2]]
            sizes = [sizes[index] for index in order]
            origins = [origins[index] for index in order]
        groups.append(DecapsulatedGroup(tunnel, pieces, sizes, origins))
    groups.sort(key=lambda group: group.origins[0])
    return DecapsulationResult(tuple(groups), drops, tuple(negotiated), rest, tuple(together), peers)


def _add_inner(tunnel: int, found: InnerPackets, by_tunnel: dict[int, InnerPackets], mixed: set[int]) -> None:
    """Add inner packets to those of their tunnel; note in `mixed` that these are not in order any more."""
    if not found[1]:
        return
    if tunnel not in by_tunnel:
        by_tunnel[tunnel] = found
        return
    mixed.add(tunnel)
    before, after = apart(by_tunnel[tunnel]), apart(found)
    by_tunnel[tunnel] = before[0] + after[0], before[1] + after[1], before[2] + after[2]


def _look_at(
    inbound: InboundSas[Decapsulator],
    view: memoryview,
    lengths: Sequence[int],
    indices: Iterable[int],
    drops: Drops,
    punted: list[Punted],
    pending: dict[Decapsulator, list[Item]],
) -> None:
    """Add some packets of a batch to those of their SAs, one by one."""
    ends = list(accumulate(lengths))
    for index in indices:
        length = lengths[index]
        items_by_sa(inbound, view, ((index, length),), ends[index] - length, drops, punted, pending)


def _columns_of(outer: OuterColumns, packets: SaPackets) -> tuple[dict[Decapsulator, PacketColumns], list[int]]:
    """Return the packets of the SAs that have enough of them for columns, and the indices of all others."""
    many: dict[Decapsulator, PacketColumns] = {}
    others: list[int] = []
    begin = 0
    for sa, count in zip(packets.sas, packets.counts.tolist(), strict=True):
        rows = packets.rows[begin : begin + count]
        begin += count
        if count >= MIN_COLUMNS:
            columns = outer.packets(rows)
            if columns.size or count >= MIN_MIXED:
                many[sa] = columns
                continue
        others += rows.tolist()
    return many, sorted(others)


def _with_columns(
    pending: Mapping[Decapsulator, list[Item]], columns: dict[Decapsulator, PacketColumns]
) -> list[tuple[Decapsulator, list[Item] | PacketColumns]]:
    """Return the packets of all SAs, in the order of their first packets. An SA has columns or items, not both."""
    joined: list[tuple[Decapsulator, list[Item] | PacketColumns]] = []
    for decapsulator, items in pending.items():
        more = columns.pop(decapsulator, None)
        joined.append((decapsulator, items if more is None else sorted(items + more.items())))
    joined += columns.items()
    if pending:
        joined.sort(key=lambda one: one[1][0][0] if isinstance(one[1], list) else one[1].origins[0])
    return joined


def _reassembled(
    inbound: Mapping[InboundKey, Decapsulator],
    view: memoryview,
    reassemble: Reassemble,
    drops: Drops,
    punted: Sequence[Punted],
    pending: dict[Decapsulator, list[Item]],
) -> tuple[memoryview, list[Punted]]:
    """Add the packets of complete fragments to those of their SAs; return the octets of all packets, and what
    stays punted."""
    left: list[Punted] = []
    indices: list[int] = []
    pieces: list[Octets] = [view]
    lengths: list[int] = []
    for index, packet in punted:
        if not (packet[6] << 8 | packet[7]) & FRAGMENT_MASK:
            left.append((index, packet))
        elif (whole := reassemble(packet)) is not None:
            indices.append(index)
            pieces += (HEADROOM_FILL, whole)
            lengths.append(HEADROOM + len(whole))
    if indices:
        offset = len(view)
        view = memoryview(b"".join(pieces))
        items_by_sa(inbound, view, zip(indices, lengths, strict=True), offset, drops, left, pending)
        for items in pending.values():
            items.sort()
    return view, left
