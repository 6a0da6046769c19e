"""The SA database of an ASP and the two calls of its data path (RFC 4301 4.4.2).

It does not know where an SA came from: manual keys and negotiations install the same values. An
SA is named (tunnel, serial). Outbound SAs serve a policy line of their tunnel; inbound ones are
found by context, destination address, protocol and SPI.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias

from chassis.ase.ipsec.causes import Drops, IpsecDropCause, Notice, add_count
from chassis.ase.ipsec.decapsulate import DecapsulationResult, Decapsulator, InboundKey, decapsulate_batch
from chassis.ase.ipsec.encapsulate import EncapsulationResult, Encapsulator, split_batch
from chassis.ase.ipsec.outer_header import Ipv4IdSequences
from chassis.ase.ipsec.replay import all_received
from chassis.ase.ipsec.sa import InboundSa, OutboundSa, SaError, SequenceLease
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

SaId: TypeAlias = tuple[int, int]
"""(tunnel, serial)."""

OutboundKey: TypeAlias = tuple[int, int, int, int, int, int]
"""What the wire names an outbound SA by: context, source, destination, UDP port (0 without), protocol, SPI."""

_NO_SAS: Final[Mapping[InboundKey, Decapsulator]] = MappingProxyType({})


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
    """What the SAs of one tunnel and direction counted that are gone."""

    packets: int = 0
    decapsulated: int = 0
    drops: dict[IpsecDropCause, int] = field(default_factory=dict)


class Sadb:
    """All SAs of one ASP, their state and the policies of their tunnels."""

    def __init__(self, state: SaStateFile, on_evict: Callable[[int], None] | None = None) -> None:
        """`shed(n)` hears of remembered flows that made room for others."""
        self.state = state
        self._caches = FlowCaches(on_evict)
        self.spd = Spd(self._caches)
        self.ipv4_ids = Ipv4IdSequences()
        self._outbound: dict[SaId, Encapsulator] = {}
        self._current_outbound: dict[tuple[int, int], Encapsulator] = {}
        self._parallel: dict[tuple[int, int], list[Encapsulator]] = {}
        """SAs that sent for a line before its present one, and were agreed for packets that it has no say in."""
        self._by_key: dict[OutboundKey, Encapsulator] = {}
        self._inbound: dict[SaId, Decapsulator] = {}
        self._by_inbound_key: dict[int, dict[InboundKey, Decapsulator]] = {}
        self._owners: dict[SlotKey, SaId] = {}
        self.retired: dict[int, tuple[RetiredTotals, RetiredTotals]] = {}
        """Of SAs that were taken away, by tunnel: outbound, inbound."""

    def install_outbound(
        self, sa: OutboundSa, lease: SequenceLease | None = None, current: bool = True
    ) -> Encapsulator:
        """Put an outbound SA to work; with `switch` it sends for its policy line from now on.

        Its first number is the one stored for it or the first of the lease, whichever is higher.
        The SA that it replaces stays installed until it is removed. Installing the very same SA
        again renews its lease and changes nothing else. Raises SaError or StateError.
        """
        lease = SequenceLease(limit=sa.max_sequence + 1) if lease is None else lease
        name = (sa.tunnel, sa.serial)
        encapsulator = self._outbound.get(name)
        if encapsulator is None or encapsulator.sa != sa:
            if encapsulator is not None:
                raise SaError(f"tunnel {sa.tunnel} already has another outbound SA {sa.serial}")
            # The peer chose these SPIs, and two peers behind one NAT may have chosen the same.
            slots = () if sa.negotiated else self._claim_slots(sa)
            encapsulator = Encapsulator(sa, lease, slots, self.ipv4_ids, self._caches)
            self._outbound[name] = self._by_key[_outbound_key(sa)] = encapsulator
        else:
            encapsulator.renew_lease(lease)
        if current:
            self._make_current(encapsulator)
        return encapsulator

    def _make_current(self, encapsulator: Encapsulator) -> None:
        sa = encapsulator.sa
        line = (sa.tunnel, sa.entry)
        before = [*self._parallel.pop(line, ())]
        if line in self._current_outbound:
            before.insert(0, self._current_outbound[line])
        self._current_outbound[line] = encapsulator
        besides = [other for other in before if other.sa.selectors != sa.selectors]
        if besides:
            self._parallel[line] = besides

    def install_inbound(self, sa: InboundSa, edge: int = 0) -> Decapsulator:
        """Put an inbound SA to work. Raises SaError or StateError.

        `edge` is for an SA whose history is elsewhere: every number up to it is refused, unless
        the state here already knows more. Installing the very same SA again changes nothing.
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
        decapsulator = Decapsulator(sa, slots, self._caches)
        self._inbound[name] = decapsulator
        protocol, spi = sa.protocols[0]
        self._by_inbound_key.setdefault(sa.context, {})[sa.destination, protocol, spi] = decapsulator
        return decapsulator

    def restrict_selectors(self, tunnel: int, serial: int) -> None:
        """Open by this SA only what the present rules of its policy line send the other way (RFC 4301 5.2).

        For an SA whose selectors are those that its line had when it was negotiated.
        """
        decapsulator = self._inbound.get((tunnel, serial))
        if decapsulator is not None:
            decapsulator.restrict_selectors(self.spd.rules(tunnel, decapsulator.sa.entry))

    def _reserve_spis(self, sa: OutboundSa | InboundSa, room: int) -> list[SlotKey]:
        """Give the SA its names on the wire, which no other one has, if there is room for so many."""
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
        keys = self._reserve_spis(sa, self.state.room())
        claimed: list[SaSlot] = []
        try:
            for key in keys:
                claimed.append(self.state.claim(key, sa.assignment))
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
        """Send with this SA from now on."""
        encapsulator = self._outbound.get((tunnel, serial))
        if encapsulator is None:
            raise SaError(f"tunnel {tunnel} has no outbound SA {serial}")
        self._make_current(encapsulator)

    def update_outbound(self, sa: OutboundSa) -> None:
        """Send to another place, or with another rule for DF, with the keys and numbers of a negotiated SA."""
        encapsulator = self._outbound.get((sa.tunnel, sa.serial))
        if encapsulator is None or not sa.negotiated or encapsulator.sa.protocols != sa.protocols:
            raise SaError(f"tunnel {sa.tunnel} has no such outbound SA {sa.serial}")
        self._remove_key(encapsulator)
        encapsulator.update_sa(sa)
        self._by_key[_outbound_key(sa)] = encapsulator

    def renew_lease(self, tunnel: int, serial: int, lease: SequenceLease) -> None:
        """Give an outbound SA its next lease of sequence numbers."""
        encapsulator = self._outbound.get((tunnel, serial))
        if encapsulator is None:
            raise SaError(f"tunnel {tunnel} has no outbound SA {serial}")
        encapsulator.renew_lease(lease)

    def remove_outbound(self, tunnel: int, serial: int) -> bool:
        """Take an outbound SA away; whether it was there. Its numbers stay in the state."""
        encapsulator = self._outbound.pop((tunnel, serial), None)
        if encapsulator is None:
            return False
        line = (tunnel, encapsulator.sa.entry)
        besides = [other for other in self._parallel.pop(line, ()) if other is not encapsulator]
        if self._current_outbound.get(line) is encapsulator:
            del self._current_outbound[line]
            if besides:
                self._current_outbound[line] = besides.pop(0)
        if besides:
            self._parallel[line] = besides
        self._remove_key(encapsulator)
        self._release_spis(encapsulator.sa)
        _retain_totals(self._retired_totals(tunnel)[0], encapsulator)
        return True

    def _remove_key(self, encapsulator: Encapsulator) -> None:
        key = _outbound_key(encapsulator.sa)
        # A peer that is elsewhere now may have come where another was.
        if self._by_key.get(key) is encapsulator:
            del self._by_key[key]

    def remove_inbound(self, tunnel: int, serial: int) -> bool:
        """Take an inbound SA away; whether it was there. Its window stays in the state."""
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
        """Outbound SAs by name."""
        return MappingProxyType(self._outbound)

    @property
    def inbound(self) -> Mapping[SaId, Decapsulator]:
        """Inbound SAs by name."""
        return MappingProxyType(self._inbound)

    def current_outbound(self, tunnel: int, entry: int) -> Encapsulator | None:
        """The SA that sends for a policy line."""
        return self._current_outbound.get((tunnel, entry))

    def find_outbound(self, sender: OutboundKey) -> Encapsulator | None:
        """The outbound SA of a packet that is on the wire."""
        return self._by_key.get(sender)

    def parallel(self, tunnel: int, entry: int) -> Sequence[Encapsulator]:
        """The SAs of a policy line that take what the one that sends was not agreed for, in their order."""
        return self._parallel.get((tunnel, entry), ())

    def find_inbound(self, context: int, destination: int, protocol: int, spi: int) -> Decapsulator | None:
        """The SA that opens packets with this outermost protocol and SPI."""
        return self._by_inbound_key.get(context, _NO_SAS).get((destination, protocol, spi))

    def encapsulate_tunnel(
        self,
        tunnel: int,
        body: bytes | bytearray | memoryview,
        lengths: Sequence[int],
        random: Callable[[int], bytes],
    ) -> EncapsulationResult:
        """Protect a batch of clear packets by the policy of their tunnel.

        A packet without a matching line, or whose line has no SA for it, is dropped. Where several SAs
        share a batch the packets of each stay in order. `random(n)` gives n unpredictable octets.
        """
        drops = Drops()
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
        if len(parts) == 1:
            out, out_lengths, origins, notices = parts[0]
            return EncapsulationResult(out, out_lengths, origins, drops, notices, tuple(missing))
        joined, sizes, order, said = bytearray(), array("H"), list[int](), list[Notice]()
        for out, out_lengths, origins, notices in parts:
            joined += out
            sizes += out_lengths
            order += origins
            said += notices
        return EncapsulationResult(joined, sizes, order, drops, tuple(said), tuple(missing))

    def _by_entry(
        self, tunnel: int, view: memoryview, packets: list[tuple[int, int, int]], drops: Drops
    ) -> dict[int, list[tuple[int, int, int]]]:
        """Packets by the policy line that protects them."""
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

    def decapsulate_batch(
        self, body: bytes | bytearray | memoryview, lengths: Sequence[int], context: int = 0
    ) -> DecapsulationResult:
        """Open a batch of encapsulated packets that came in for local addresses of a context."""
        return decapsulate_batch(self._by_inbound_key.get(context, _NO_SAS), body, lengths)


def _retain_totals(past: RetiredTotals, work: Encapsulator | Decapsulator) -> None:
    past.packets += work.packets
    for cause, count in work.drops.items():
        add_count(past.drops, cause, count)


_ADDRESSES: Final = struct.Struct("!BxxII").unpack_from


def fragment_decision(sadb: Sadb, tunnel: int, view: memoryview, start: int, end: int) -> FragmentDecision:
    """Return what may be done with the IPv4 packet at start:end (20 octets or more), too large for its tunnel."""
    classifier = sadb.spd.classifier(tunnel)
    if classifier is None:
        return FragmentDecision.DROP
    line = classifier.value(view, start, end)
    if line == NO_ENTRY:
        return FragmentDecision.DROP
    sending = sadb.current_outbound(tunnel, line)
    if sending is None:
        return FragmentDecision.DROP
    same = classifier.value_of_fragments(view, start) == line
    if sending.covers(sadb.spd.rules(tunnel, line)):
        return FragmentDecision.FRAGMENT if same else FragmentDecision.KEEP_WHOLE
    # The SAs' selectors are narrower than the entry's: they decide too, and all of them may refuse the packet.
    protocol, source, destination = _ADDRESSES(view, start + 9)
    ports = ports_of(view, start, end)
    for sa in (sending, *sadb.parallel(tunnel, line)):
        matched = [rule for rule in sa.sa.selectors if rule.matches(protocol, source, destination, ports)]
        if matched:
            return (
                FragmentDecision.FRAGMENT
                if same and any(not rule.names_port for rule in matched)
                else FragmentDecision.KEEP_WHOLE
            )
    return FragmentDecision.DROP
