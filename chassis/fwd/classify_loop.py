"""The loop over a batch: check every header, find each packet's decision, split only where they differ.

It knows every case, and is the fastest way for few packets. Its parts are used by `chassis.fwd.classify`.
"""

from __future__ import annotations

import struct
from array import array

from chassis.fwd.decision import ARP, DROPS, Decider, Decision, DecisionKind
from chassis.fwd.drop_causes import DropCause
from chassis.net.checksum import is_intact
from chassis.net.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, HEADROOM
from chassis.net.icmp import FRAGMENTATION_NEEDED, ICMP_HEADER_LENGTH, UNREACHABLE
from chassis.net.ipv4 import (
    IPV4_HEADER_LENGTH,
    PROTOCOL_AH,
    PROTOCOL_ESP,
    PROTOCOL_ICMP,
    PROTOCOL_IPCOMP,
    PROTOCOL_UDP,
)
from chassis.net.types import Writable
from chassis.net.udp import IKE_PORT, NAT_PORT

# Members of an enumeration, looked up once: each look-up takes as long as a function call.
PORT, ASP_ADDRESS = DecisionKind.PORT, DecisionKind.ASP_ADDRESS
NO_KIND = DecisionKind.TUNNEL + 1

MIN_LENGTH = HEADROOM + IPV4_HEADER_LENGTH

IPSEC_PORTS = frozenset((IKE_PORT, NAT_PORT))
"""UDP ports of IKE and of ESP in UDP (RFC 7296 2, RFC 3948)."""

IPSEC_PROTOCOLS = frozenset((PROTOCOL_ESP, PROTOCOL_AH, PROTOCOL_IPCOMP))
"""Protocols that the ASP takes at an address that it owns, whatever the packets hold."""
_QUOTED_PROTOCOLS = frozenset((PROTOCOL_ESP, PROTOCOL_AH, PROTOCOL_UDP))
"""Protocols of the outer packets that an ICMP "fragmentation needed" for an ASP quotes."""

FIELDS = struct.Struct(f"!{HEADROOM}sIQQ")
"""Link header; version to total length; identification to checksum; source and destination."""

_PORT = struct.Struct("!H")

Group = tuple[Decision, Writable, "array[int]"]
"""A decision and its packets, in their order."""


def classify_by_loop(
    decider: Decider, context: int, body: Writable, lengths: array[int], mac: bytes, transit: bool
) -> list[Group]:
    """Do what `chassis.fwd.classify.classify` does, packet by packet."""
    generation = decider.generation
    flows = decider.flows(context).get
    unpack = FIELDS.unpack_from
    runs: list[tuple[Decision, int, int]] = []
    current: Decision | None = None
    flow = last_link = last_key = None
    verdict: Decision | None = None
    forwarded = PORT if transit else NO_KIND
    own = ASP_ADDRESS
    at = 0
    for index, length in enumerate(lengths):
        if length < MIN_LENGTH:
            decision = DROPS[DropCause.SHORT]
        else:
            link, first, second, key = unpack(body, at)
            if link != last_link:
                last_link = link
                verdict = link_decision(link, mac) if mac else None
            if verdict is not None:
                decision = verdict
            else:
                cause = None
                if (first + second + key) % 0xFFFF or first >> 24 != 0x45 or (first & 0xFFFF) + 14 != length:
                    if first >> 28 == 4 and MIN_LENGTH <= (first & 0xFFFF) + HEADROOM < length:
                        return classify_by_loop(decider, context, *without_padding(body, lengths), mac, transit)
                    cause = _header_drop_cause(body, at, length, first)
                if cause is None:
                    if key != last_key:
                        last_key = key
                        flow = flows(key)
                        if flow is None or flow.generation != generation:
                            flow = decider.decide(context, key)
                    decision = flow  # type: ignore[assignment]
                    kind = decision.kind
                    if kind >= forwarded:
                        if second >> 24 & 0xFF < 2:
                            decision = DROPS[DropCause.TTL]
                    elif kind is own:
                        decision = _asp_or_local(decision, body, at, length, first, second)
                else:
                    decision = DROPS[cause]
        if decision is not current:
            runs.append((decision, index, at))
            current = decision
        at += length
    if len(runs) == 1:
        return [(runs[0][0], body, lengths)]
    return split(runs, body, lengths, at)


def link_decision(link: bytes, mac: bytes) -> Decision | None:
    """Return the decision for a frame that is not an IPv4 packet for this port; None if it is one."""
    ethertype = link[12] << 8 | link[13]
    if link.startswith(mac):
        if ethertype == ETHERTYPE_IPV4:
            return None
    elif not link[0] & 1:
        return DROPS[DropCause.LINK_ADDRESS]
    if ethertype == ETHERTYPE_ARP:
        return ARP
    return DROPS[DropCause.LINK_BROADCAST if ethertype == ETHERTYPE_IPV4 else DropCause.ETHERTYPE]


def _header_drop_cause(body: Writable, at: int, length: int, first: int) -> DropCause | None:
    """Return why a packet with an unusual header is dropped (RFC 1812 5.2.2); None for one with options."""
    if first >> 28 != 4:
        return DropCause.VERSION
    header = (first >> 24 & 15) * 4
    total = first & 0xFFFF
    if header < IPV4_HEADER_LENGTH or header > total or total + HEADROOM > length:
        return DropCause.HEADER
    if not is_intact(body[at + HEADROOM : at + HEADROOM + header]):
        return DropCause.CHECKSUM
    return None


def _asp_or_local(decision: Decision, body: Writable, at: int, length: int, first: int, second: int) -> Decision:
    """Return the decision for a packet to an address that an ASP owns: the ASP's or the local stack's."""
    protocol = second >> 16 & 0xFF
    if protocol in IPSEC_PROTOCOLS:
        return decision.to_decapsulate
    if protocol == PROTOCOL_UDP:
        if second >> 32 & 0x3FFF:
            # Only the first fragment has the ports.
            return decision.to_decapsulate
        port_at = HEADROOM + (first >> 24 & 15) * 4 + 2
        if port_at + 2 <= length and _PORT.unpack_from(body, at + port_at)[0] in IPSEC_PORTS:
            return decision.to_decapsulate
    elif protocol == PROTOCOL_ICMP and not second >> 32 & 0x3FFF:
        message_at = at + HEADROOM + (first >> 24 & 15) * 4
        quoted_at = message_at + ICMP_HEADER_LENGTH
        if (
            quoted_at + IPV4_HEADER_LENGTH <= at + length
            and (body[message_at], body[message_at + 1]) == (UNREACHABLE, FRAGMENTATION_NEEDED)
            and body[quoted_at + 9] in _QUOTED_PROTOCOLS
        ):
            return decision.to_decapsulate
    return decision.to_local


def without_padding(body: Writable, lengths: array[int]) -> tuple[bytearray, array[int]]:
    """Return a copy of the batch in which every IPv4 packet ends with its total length."""
    view = memoryview(body)
    kept: list[memoryview] = []
    cut = array("H")
    at = 0
    for length in lengths:
        size = length
        if length >= MIN_LENGTH and view[at + HEADROOM] >> 4 == 4:
            total = (view[at + HEADROOM + 2] << 8 | view[at + HEADROOM + 3]) + HEADROOM
            if MIN_LENGTH <= total < length:
                size = total
        kept.append(view[at : at + size])
        cut.append(size)
        at += length
    return bytearray().join(kept), cut


def split(runs: list[tuple[Decision, int, int]], body: Writable, lengths: array[int], end: int) -> list[Group]:
    """Return the groups of packets in runs (decision, index of its first packet, offset), which end at `end`."""
    view = memoryview(body)
    parts: dict[int, tuple[Decision, list[memoryview], array[int]]] = {}
    for number, (decision, index, at) in enumerate(runs):
        if number + 1 < len(runs):
            _, next_index, next_at = runs[number + 1]
        else:
            next_index, next_at = len(lengths), end
        part = parts.get(id(decision))
        if part is None:
            part = parts[id(decision)] = (decision, [], array("H"))
        part[1].append(view[at:next_at])
        part[2].extend(lengths[index:next_index])
    return [(decision, bytearray().join(slices), sizes) for decision, slices, sizes in parts.values()]
