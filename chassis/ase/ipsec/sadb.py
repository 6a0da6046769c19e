"""SA database of an ASP and the two calls of its data path (RFC 4301 4.4.2).

Manual keys and IKE install the same values. An SA is identified by (tunnel, serial). An outbound SA serves an SPD
entry of its tunnel. An inbound SA is found by context, destination address, protocol and SPI.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias

from chassis.ase.ipsec.causes import Drops, IpsecDropCause, Notice, add_count
from chassis.ase.ipsec.cipher_engine import CipherEngine
from chassis.ase.ipsec.cryptography_engine import CRYPTOGRAPHY
from chassis.ase.ipsec.decapsulate import Reassemble, decapsulate_batch
from chassis.ase.ipsec.decapsulated import DecapsulationResult
from chassis.ase.ipsec.decapsulator import Decapsulator
from chassis.ase.ipsec.encapsulate import EncapsulationResult, Encapsulator, split_batch
from chassis.ase.ipsec.inbound_table import InboundTable
from chassis.ase.ipsec.joint_sealing import MIN_JOINT, InnerPackets, JointParts, seal_together
from chassis.ase.ipsec.outbound_table import OutboundTable
from chassis.ase.ipsec.outer_header import Ipv4IdSequences
from chassis.ase.ipsec.replay import all_received
from chassis.ase.ipsec.sa import InboundSa, OutboundSa, SaError, SequenceLease
from chassis.ase.ipsec.select_sa import InboundSas
from chassis.ase.ipsec.spd import NO_ENTRY, FlowCaches, Spd, ports_of
from chassis.ase.ipsec.state import (
    Direction,
    SaSlot,
    SaStateFile,
    SlotKey,
    StateError,
    VolatileWindow,
    WindowStore,
)
from chassis.fwd.mtu import FragmentDecision
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import IPV4_HEADER_LENGTH

SaId: TypeAlias = tuple[int, int]
"""(tunnel, serial)."""

OutboundKey: TypeAlias = tuple[int, int, int, int, int, int]
"""How a packet on the wire identifies an outbound SA: context, source, destination, UDP port (0 without),
protocol, SPI."""

_MIN_LENGTH: Final = HEADROOM + IPV4_HEADER_LENGTH

_ADDRESSES: Final = struct.Struct("!BxxII").unpack_from

_NO_SAS: Final[InboundSas[Decapsulator]] = InboundSas()


def _slot_keys(sa: OutboundSa | InboundSa) -> list[SlotKey]:
    direction = Direction.OUTBOUND if isinstance(sa, OutboundSa) else Direction.INBOUND
    return [
        SlotKey(direction, sa.context, protocol, spi, sa.destination, sa.key(protocol))
        for protocol, spi in sa.protocols
    ]


def _outbound_key(sa: OutboundSa) -> OutboundKey:
    protocol, spi = sa.protocols[0]
    return sa.context, sa.source, sa.destination, sa.udp.destination if sa.udp else 0, protocol, spi


@dataclass(slots=True)
class RetiredTotals:
    """Totals of the removed SAs of one tunnel and direction."""

    packets: int = 0
    decapsulated: int = 0
    drops: dict[IpsecDropCause, int] = field(default_factory=dict)


class Sadb:
    """All SAs of one ASP, their stored state, and the SPD entries of their tunnels."""

    def __init__(
        self,
        state: SaStateFile,
        on_evict: Callable[[int], None] | None = None,
        engine: CipherEngine = CRYPTOGRAPHY,
    ) -> None:
        """`on_evict(n)` is called with the number of cached flows that were removed to make room."""
        self.state = state
        self.engine = engine
        self._caches = FlowCaches(on_evict)
        self.spd = Spd(self._caches)
        self.ipv4_ids = Ipv4IdSequences()
        self.table = OutboundTable(engine.job_words)
        """The rows of the outbound SAs."""
        self._outbound: dict[SaId, Encapsulator] = {}
        self._current_outbound: dict[tuple[int, int], Encapsulator] = {}
        self._parallel: dict[tuple[int, int], list[Encapsulator]] = {}
        """Older outbound SAs of each SPD entry whose selectors match packets that the current SA's selectors do
        not match."""
        self._by_key: dict[OutboundKey, Encapsulator] = {}
        self._inbound: dict[SaId, Decapsulator] = {}
        self.inbound_table = InboundTable(state.words)
        self._by_inbound_key: dict[int, InboundSas[Decapsulator]] = {}
        self._owners: dict[SlotKey, SaId] = {}
        self.retired: dict[int, tuple[RetiredTotals, RetiredTotals]] = {}
        """Totals of removed SAs, by tunnel: outbound, inbound."""

    def install_outbound(
        self, sa: OutboundSa, lease: SequenceLease | None = None, current: bool = True
    ) -> Encapsulator:
        """Install an outbound SA; with `current` its SPD entry uses it from now on.

        Its first number is the stored one or the first of the lease, whichever is higher. The SA that it replaces
        stays installed until it is removed. If the same SA is installed again, only its lease is renewed.

        Raises:
            SaError: another SA has its serial or one of its SPIs.
            StateError: no slot is left for its state, or the state of another ASP cannot be read.
        """
        lease = SequenceLease(limit=sa.max_sequence + 1) if lease is None else lease
        name = (sa.tunnel, sa.serial)
        encapsulator = self._outbound.get(name)
        if encapsulator is None or encapsulator.sa != sa:
            if encapsulator is not None:
                raise SaError(f"tunnel {sa.tunnel} already has another outbound SA {sa.serial}")
            # Peers choose these SPIs, and two peers behind one NAT may choose the same one.
            slots = () if sa.negotiated else self._claim_slots(sa)
            encapsulator = Encapsulator(sa, lease, slots, self.table, self.ipv4_ids, self._caches, self.engine)
            self._outbound[name] = self._by_key[_outbound_key(sa)] = encapsulator
        else:
            encapsulator.renew_lease(lease)
        if current:
            self._make_current(encapsulator)
        return encapsulator

    def _make_current(self, encapsulator: Encapsulator) -> None:
        self.spd.version += 1
        sa = encapsulator.sa
        self.table.forget(sa.tunnel)
        entry_key = (sa.tunnel, sa.entry)
        older = [*self._parallel.pop(entry_key, ())]
        if entry_key in self._current_outbound:
            older.insert(0, self._current_outbound[entry_key])
        self._current_outbound[entry_key] = encapsulator
        parallel = [other for other in older if other.sa.selectors != sa.selectors]
        if parallel:
            self._parallel[entry_key] = parallel

    def install_inbound(self, sa: InboundSa, edge: int = 0) -> Decapsulator:
        """Install an inbound SA. If the same SA is installed again, nothing changes.

        `edge` is for an SA whose history is not here: every number up to `edge` is refused, unless the stored
        state is already further.

        Raises:
            SaError: another SA has its serial or one of its SPIs.
            StateError: no slot is left for its state, or the state of another ASP cannot be read.
        """
        name = (sa.tunnel, sa.serial)
        decapsulator = self._inbound.get(name)
        if decapsulator is not None:
            if decapsulator.sa != sa:
                raise SaError(f"tunnel {sa.tunnel} already has another inbound SA {sa.serial}")
            return decapsulator
        slots: Sequence[WindowStore]
        if sa.negotiated:
            self._reserve_spis(sa, len(sa.protocols))
            slots = [VolatileWindow()] * len(sa.protocols)
        else:
            slots = self._claim_slots(sa)
            for slot in slots:
                if edge > slot.window()[0]:
                    slot.store_window(*all_received(edge))
        decapsulator = Decapsulator(sa, slots, self._caches, self.engine, self.inbound_table)
        self._inbound[name] = decapsulator
        protocol, spi = sa.protocols[0]
        sas = self._by_inbound_key.setdefault(sa.context, InboundSas())
        sas[sa.destination, protocol, spi] = decapsulator
        return decapsulator

    def restrict_selectors(self, tunnel: int, serial: int) -> None:
        """Restrict an inbound SA to what the present rules of its SPD entry match in the other direction (RFC 4301
        5.2).

        Call it when the entry may have changed since the SA was negotiated.
        """
        decapsulator = self._inbound.get((tunnel, serial))
        if decapsulator is not None:
            decapsulator.restrict_selectors(self.spd.rules(tunnel, decapsulator.sa.entry))

    def _reserve_spis(self, sa: OutboundSa | InboundSa, room: int) -> list[SlotKey]:
        """Reserve the SPIs of an SA; return their slot keys. `room` is the number of slots left."""
        keys = _slot_keys(sa)
        for key in keys:
            owner = self._owners.get(key)
            if owner is not None:
                raise SaError(
                    f"SPI {key.spi} of tunnel {sa.tunnel} is in use by tunnel {owner[0]} "
                    f"for the same protocol and {key.direction.name.lower()} destination"
                )
        if room < len(keys):
            raise StateError(f"SA state is full: all {self.state.slots} slots are held")
        for key in keys:
            self._owners[key] = (sa.tunnel, sa.serial)
        return keys

    def _claim_slots(self, sa: OutboundSa | InboundSa) -> list[SaSlot]:
        keys = self._reserve_spis(sa, self.state.free_slots())
        claimed: list[SaSlot] = []
        try:
            for key in keys:
                closed = isinstance(sa, InboundSa) and sa.closed
                claimed.append(self.state.claim(key, sa.assignment, closed=closed))
        except StateError:
            for key in keys:
                del self._owners[key]
            for key in keys[: len(claimed)]:
                self.state.release(key)
            raise
        return claimed

    def _release_spis(self, sa: OutboundSa | InboundSa) -> None:
        if sa.negotiated and isinstance(sa, OutboundSa):
            return
        for key in _slot_keys(sa):
            del self._owners[key]
            if not sa.negotiated:
                self.state.release(key)

    def activate_outbound(self, tunnel: int, serial: int) -> None:
        """Make this SA the current one of its SPD entry.

        Raises:
            SaError: the tunnel has no such outbound SA.
        """
        encapsulator = self._outbound.get((tunnel, serial))
        if encapsulator is None:
            raise SaError(f"tunnel {tunnel} has no outbound SA {serial}")
        self._make_current(encapsulator)

    def update_outbound(self, sa: OutboundSa) -> None:
        """Change the peer address or the DF policy of a negotiated SA; its keys and numbers stay.

        Raises:
            SaError: the tunnel has no such outbound SA.
        """
        encapsulator = self._outbound.get((sa.tunnel, sa.serial))
        if encapsulator is None or not sa.negotiated or encapsulator.sa.protocols != sa.protocols:
            raise SaError(f"tunnel {sa.tunnel} has no such outbound SA {sa.serial}")
        self._remove_key(encapsulator)
        self.table.forget(sa.tunnel)
        encapsulator.update_sa(sa)
        self._by_key[_outbound_key(sa)] = encapsulator

    def renew_lease(self, tunnel: int, serial: int, lease: SequenceLease) -> None:
        """Give an outbound SA its next lease of sequence numbers.

        Raises:
            SaError: the tunnel has no such outbound SA.
        """
        encapsulator = self._outbound.get((tunnel, serial))
        if encapsulator is None:
            raise SaError(f"tunnel {tunnel} has no outbound SA {serial}")
        encapsulator.renew_lease(lease)

    def remove_outbound(self, tunnel: int, serial: int) -> bool:
        """Remove an outbound SA; return whether it existed. Its numbers stay in the stored state."""
        encapsulator = self._outbound.pop((tunnel, serial), None)
        if encapsulator is None:
            return False
        self.spd.version += 1
        self.table.forget(tunnel)
        entry_key = (tunnel, encapsulator.sa.entry)
        parallel = [other for other in self._parallel.pop(entry_key, ()) if other is not encapsulator]
        if self._current_outbound.get(entry_key) is encapsulator:
            del self._current_outbound[entry_key]
            if parallel:
                self._current_outbound[entry_key] = parallel.pop(0)
        if parallel:
            self._parallel[entry_key] = parallel
        self._remove_key(encapsulator)
        self._release_spis(encapsulator.sa)
        _retain_totals(self._retired_totals(tunnel)[0], encapsulator)
        return True

    def _remove_key(self, encapsulator: Encapsulator) -> None:
        key = _outbound_key(encapsulator.sa)
        # The key may belong to another SA by now: a peer may have moved to another peer's address.
        if self._by_key.get(key) is encapsulator:
            del self._by_key[key]

    def remove_inbound(self, tunnel: int, serial: int) -> bool:
        """Remove an inbound SA; return whether it existed. Its window stays in the stored state."""
        decapsulator = self._inbound.pop((tunnel, serial), None)
        if decapsulator is None:
            return False
        sa = decapsulator.sa
        protocol, spi = sa.protocols[0]
        del self._by_inbound_key[sa.context][sa.destination, protocol, spi]
        self._release_spis(sa)
        past = self._retired_totals(tunnel)[1]
        past.decapsulated += decapsulator.decapsulated
        _retain_totals(past, decapsulator)
        return True

    def _retired_totals(self, tunnel: int) -> tuple[RetiredTotals, RetiredTotals]:
        return self.retired.setdefault(tunnel, (RetiredTotals(), RetiredTotals()))

    @property
    def outbound(self) -> Mapping[SaId, Encapsulator]:
        """Outbound SAs by (tunnel, serial)."""
        return MappingProxyType(self._outbound)

    @property
    def inbound(self) -> Mapping[SaId, Decapsulator]:
        """Inbound SAs by (tunnel, serial)."""
        return MappingProxyType(self._inbound)

    def current_outbound(self, tunnel: int, entry: int) -> Encapsulator | None:
        """Return the SA that the SPD entry uses; None without one."""
        return self._current_outbound.get((tunnel, entry))

    def find_outbound(self, sender: OutboundKey) -> Encapsulator | None:
        """Return the outbound SA of a packet that is on the wire; None without one."""
        return self._by_key.get(sender)

    def parallel(self, tunnel: int, entry: int) -> Sequence[Encapsulator]:
        """Return the older SAs of the SPD entry whose selectors differ from the current SA's, newest first."""
        return self._parallel.get((tunnel, entry), ())

    def find_inbound(self, context: int, destination: int, protocol: int, spi: int) -> Decapsulator | None:
        """Return the SA for packets with this outermost protocol and SPI; None without one."""
        return self._by_inbound_key.get(context, _NO_SAS).get((destination, protocol, spi))

    def encapsulate_tunnel(
        self,
        tunnel: int,
        body: bytes | bytearray | memoryview,
        lengths: Sequence[int],
        random: Callable[[int], bytes],
    ) -> EncapsulationResult:
        """Encapsulate a batch of inner packets by the SPD entries of their tunnel (RFC 4301 5.1).

        A packet that matches no entry, or whose entry has no SA for it, is dropped. The packets of one SA keep
        their order. `lengths` are octets, headroom included. `random(n)` returns n unpredictable octets.
        """
        drops = Drops()
        if (
            isinstance(lengths, array)
            and len(lengths) >= MIN_JOINT
            and min(lengths) >= _MIN_LENGTH
            and sum(lengths) == len(body)
        ):
            inner = InnerPackets(body, lengths)
            encapsulator = self.find_joint(tunnel, inner, 0, len(lengths))
            if encapsulator is not None and (part := encapsulator.take_joint(inner, 0, len(lengths))) is not None:
                wanted = part.sender.sealer.random_octets * len(lengths)
                drawn = random(wanted) if wanted else b""
                out, sizes = seal_together(inner, JointParts.one(part), drawn, self.engine.flush)
                return EncapsulationResult(out, sizes, range(len(lengths)), drops)
        view, packets = split_batch(body, lengths, drops)
        by_entry = self._by_entry(tunnel, view, packets, drops)
        parts: list[tuple[bytearray, array[int], list[int], tuple[Notice, ...]]] = []
        missing: list[int] = []
        for entry, chosen in by_entry.items():
            encapsulator = self._current_outbound.get((tunnel, entry))
            if encapsulator is None:
                drops.add_many(IpsecDropCause.NO_OUTBOUND_SA, len(chosen))
                missing.append(entry)
            elif encapsulator.covers(self.spd.rules(tunnel, entry)):
                parts.append(encapsulator.encapsulate(view, chosen, random, drops))
            else:
                for each in (encapsulator, *self.parallel(tunnel, entry)):
                    mine, chosen = each.select_by_sa(view, chosen)
                    if mine:
                        parts.append(each.encapsulate(view, mine, random, drops))
                drops.add_many(IpsecDropCause.NO_OUTBOUND_SA, len(chosen))
        self.engine.flush()
        if len(parts) == 1:
            out, out_lengths, origins, notices = parts[0]
            return EncapsulationResult(out, out_lengths, origins, drops, notices, tuple(missing))
        joined, sizes, order, all_notices = bytearray(), array("H"), list[int](), list[Notice]()
        for out, out_lengths, origins, notices in parts:
            joined += out
            sizes += out_lengths
            order += origins
            all_notices += notices
        return EncapsulationResult(joined, sizes, order, drops, tuple(all_notices), tuple(missing))

    def find_joint(self, tunnel: int, inner: InnerPackets, begin: int, end: int) -> Encapsulator | None:
        """Return the SA that all of these packets use; None if not all are ordinary and use the same one."""
        classifier = self.spd.classifier(tunnel)
        if classifier is None or not inner.are_ordinary(begin, end):
            return None
        entry = inner.value(classifier, begin, end)
        return None if entry is None else self._serving(tunnel, entry)

    def only_outbound(self, tunnel: int) -> Encapsulator | None:
        """Return the SA that all packets of a tunnel use until `spd.version` changes; None if there is none."""
        classifier = self.spd.classifier(tunnel)
        if classifier is None or classifier.constant is None:
            return None
        return self._serving(tunnel, classifier.constant)

    def _serving(self, tunnel: int, entry: int) -> Encapsulator | None:
        """Return the SA of all packets that match an SPD entry."""
        encapsulator = self._current_outbound.get((tunnel, entry))
        if encapsulator is None or not encapsulator.covers(self.spd.rules(tunnel, entry)):
            return None
        return encapsulator

    def _by_entry(
        self, tunnel: int, view: memoryview, packets: list[tuple[int, int, int]], drops: Drops
    ) -> dict[int, list[tuple[int, int, int]]]:
        """Return the packets by the number of the SPD entry that they match; drop those that match none."""
        classifier = self.spd.classifier(tunnel)
        if classifier is None:
            drops.add_many(IpsecDropCause.NO_POLICY, len(packets))
            return {}
        if classifier.constant is not None:
            return {classifier.constant: packets} if packets else {}
        by_entry: dict[int, list[tuple[int, int, int]]] = {}
        value = classifier.value
        for packet in packets:
            entry = value(view, packet[1], packet[2])
            if entry == NO_ENTRY:
                drops.add(
                    IpsecDropCause.NO_POLICY, 0, int.from_bytes(view[packet[1] + 12 : packet[1] + 16], "big")
                )
            elif entry in by_entry:
                by_entry[entry].append(packet)
            else:
                by_entry[entry] = [packet]
        return by_entry

    def fragment_decision(self, tunnel: int, view: memoryview, start: int, end: int) -> FragmentDecision:
        """Return what may be done with the IPv4 packet at start:end (20 octets or more), too large for its tunnel.

        If ports selected the SA, the later fragments (which have no ports) would match another SPD entry or none,
        and the peer would refuse them. Such a packet is encapsulated whole and the outer packet fragmented (RFC
        4301 7).
        """
        classifier = self.spd.classifier(tunnel)
        if classifier is None:
            return FragmentDecision.DROP
        entry = classifier.value(view, start, end)
        if entry == NO_ENTRY:
            return FragmentDecision.DROP
        current = self.current_outbound(tunnel, entry)
        if current is None:
            return FragmentDecision.DROP
        same = classifier.value_of_fragments(view, start) == entry
        if current.covers(self.spd.rules(tunnel, entry)):
            return FragmentDecision.FRAGMENT if same else FragmentDecision.KEEP_WHOLE
        # The SAs' selectors are narrower than the entry's: they decide too, and all of them may refuse the packet.
        protocol, source, destination = _ADDRESSES(view, start + 9)
        ports = ports_of(view, start, end)
        for each in (current, *self.parallel(tunnel, entry)):
            matched = [rule for rule in each.sa.selectors if rule.matches(protocol, source, destination, ports)]
            if matched:
                whole = not same or all(rule.names_port for rule in matched)
                return FragmentDecision.KEEP_WHOLE if whole else FragmentDecision.FRAGMENT
        return FragmentDecision.DROP

    def decapsulate_batch(
        self,
        body: bytes | bytearray | memoryview,
        lengths: Sequence[int],
        context: int = 0,
        reassemble: Reassemble | None = None,
    ) -> DecapsulationResult:
        """Decapsulate a batch of packets for local addresses of a context (RFC 4301 5.2); see `decapsulate`."""
        inbound = self._by_inbound_key.get(context, _NO_SAS)
        return decapsulate_batch(inbound, self.inbound_table, body, lengths, self.engine, reassemble)


def _retain_totals(past: RetiredTotals, work: Encapsulator | Decapsulator) -> None:
    past.packets += work.packets
    for cause, count in work.drops.items():
        add_count(past.drops, cause, count)
