"""Check every header of a batch, find each packet's decision, split the batch only where they differ.

A large batch of ordinary packets is done by columns: those for the port, without options, with right headers and
a TTL that suffices. Other batches are done by a loop, which knows every case.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable
from typing import cast

import numpy as np

from chassis.fwd import rewrite
from chassis.fwd.classify_loop import (
    ASP_ADDRESS,
    FIELDS,
    IPSEC_PORTS,
    IPSEC_PROTOCOLS,
    MIN_LENGTH,
    NO_KIND,
    PORT,
    Group,
    classify_by_loop,
    link_decision,
    split,
    without_padding,
)
from chassis.fwd.decided import DecidedPackets
from chassis.fwd.decision import Decider, Decision, by_packet
from chassis.fwd.flow_table import NOWHERE
from chassis.net.columns import Columns
from chassis.net.ethernet import HEADROOM
from chassis.net.ipv4 import FRAGMENT_MASK, IPV4_HEADER_LENGTH, PROTOCOL_ICMP, PROTOCOL_UDP
from chassis.net.types import Writable

_LENGTH_AT, _FRAGMENT_AT, _ADDRESSES_AT = [HEADROOM + at for at in (2, 6, 12)]
"""Offsets of total length, of fragment word, TTL and protocol, and of source and destination."""
_PORT_AT = MIN_LENGTH + 2
"""Offset of the destination port of UDP in a packet without options."""
_ALL_ONES = np.uint32(0xFFFF)

_LOCAL, _ASP, _BY_PORT, _BY_MESSAGE = range(4)
_TAKEN_BY = bytearray(256)
"""Who takes a packet to an address that an ASP owns, or what says so, by its protocol."""
for _protocol in IPSEC_PROTOCOLS:
    _TAKEN_BY[_protocol] = _ASP
_TAKEN_BY[PROTOCOL_UDP], _TAKEN_BY[PROTOCOL_ICMP] = _BY_PORT, _BY_MESSAGE


def classify(
    decider: Decider,
    context: int,
    body: Writable,
    lengths: array[int],
    *,
    mac: bytes = b"",
    transit: bool = True,
) -> list[Group]:
    """Return groups of packets that share a decision, in the order in which each decision first occurs.

    If all share one, the group is the given buffer; else each group is a new writable one, with its packets in
    their order. `mac`: the packets came in by a port with this address, and their link headers are checked;
    without it the 14 octets before each packet mean nothing. `transit`: packets that are to be forwarded need a
    TTL above 1. Frames longer than their packet (Ethernet padding) are cut to it.
    """
    found = look_up(decider, context, body, lengths, mac=mac, transit=transit)
    return found if type(found) is list else cast("DecidedPackets", found).groups(decider.numbered)


def look_up(
    decider: Decider,
    context: int,
    body: Writable,
    lengths: array[int],
    *,
    mac: bytes = b"",
    transit: bool = True,
) -> list[Group] | DecidedPackets:
    """Do what `classify` does, but leave packets of many decisions together, for those who can use them so."""
    if len(lengths) >= rewrite.MIN_PACKETS:
        found = look_up_by_columns(decider, context, body, lengths, mac, transit)
        if found is not None:
            return found
    return classify_by_loop(decider, context, body, lengths, mac, transit)


def classify_by_columns(
    decider: Decider, context: int, body: Writable, lengths: array[int], mac: bytes, transit: bool
) -> list[Group] | None:
    """Do what `classify` does with ordinary packets, one at least; None: some are not, the loop is to do all."""
    found = look_up_by_columns(decider, context, body, lengths, mac, transit)
    return found.groups(decider.numbered) if isinstance(found, DecidedPackets) else found


def look_up_by_columns(
    decider: Decider, context: int, body: Writable, lengths: array[int], mac: bytes, transit: bool
) -> list[Group] | DecidedPackets | None:
    """Do what `look_up` does with ordinary packets, one at least; None: some are not, the loop is to do all."""
    whole = Columns(body, lengths)
    stride, count = whole.stride, whole.count
    if (stride or min(lengths)) < MIN_LENGTH:
        return None
    table = whole if stride else whole.beginnings(MIN_LENGTH)
    _, first, second, key = FIELDS.unpack_from(body)
    begin, end = 0 if mac else HEADROOM, _LENGTH_AT + 2 if stride else _LENGTH_AT
    # Link header, version, type of service and length are those of the first packet in a usual batch.
    fixed = table.extract(begin, end - begin)
    if fixed == fixed[: end - begin] * count:
        heads = {bytes(body[: HEADROOM + 1])}
        fit = (first & 0xFFFF) + HEADROOM == stride
    else:
        heads = set(table.cells(0, HEADROOM + 1).tolist())
        fit = False
    for head in heads:
        # Version and header length.
        if head[HEADROOM] != 0x45 or (mac and link_decision(head[:HEADROOM], mac) is not None):
            return None
    # The sum of an intact header is 0 in ones' complement (RFC 1071).
    sums = np.add.reduce(table.words(HEADROOM, IPV4_HEADER_LENGTH // 2), axis=0, dtype=np.uint32)
    if np.count_nonzero(sums % _ALL_ONES):
        return None
    if not (fit or _fill(table.extract(_LENGTH_AT, 2), lengths)):
        cut = without_padding(body, lengths)
        return None if cut[1] == lengths else look_up_by_columns(decider, context, *cut, mac, transit)
    flags = table.extract(_FRAGMENT_AT, 4)
    alike = flags == flags[:4] * count
    addresses = table.extract(_ADDRESSES_AT, 8)
    low = (second >> 24 & 0xFF if alike else min(flags[2::4])) < 2
    forwarded = PORT if transit else NO_KIND
    if addresses == addresses[:8] * count:
        found = None
        decisions = _flows(decider, context, (key,))
    else:
        keys = np.frombuffer(addresses, np.uint64)
        numbers = decider.find(context, keys)
        least = NOWHERE if numbers is None else int(np.minimum.reduce(numbers))
        if numbers is not None and least > NOWHERE:
            if low and decider.kinds(numbers).max() >= forwarded:
                return None
            if numbers.tobytes() == numbers[:1].tobytes() * count:
                return [(decider.numbered[least], body, lengths)]
            return DecidedPackets(whole, body, lengths, numbers)
        if numbers is not None and least < NOWHERE and numbers.tobytes() == numbers[:1].tobytes() * count:
            found = None
            decisions = [decider.numbered[by_packet(least)]]
        else:
            found = _flows(decider, context, keys.view(">u8").tolist())
            decisions = list(dict.fromkeys(found))
    kinds = {decision.kind for decision in decisions}
    if low and max(kinds) >= forwarded:
        return None
    if ASP_ADDRESS in kinds:
        to_asp = _to_asp(whole, flags, alike)
        if not to_asp:
            return None
        if found is None and len(to_asp) == 1:
            decision = decisions[0].to_decapsulate if to_asp[0] else decisions[0].to_local
            return [(decision, body, lengths)]
        found = _asps_or_local(found or decisions * count, to_asp)
        decisions = list(dict.fromkeys(found))
    if found is None or len(decisions) == 1:
        return [(decisions[0], body, lengths)]
    return _split(whole, found, decisions, body, lengths)


def _fill(totals: bytes, lengths: array[int]) -> bool:
    """Return whether the packets of these total lengths, in network order, fill their frames."""
    frames = lengths[:]
    if sys.byteorder == "little":
        frames.byteswap()
    room = HEADROOM * int.from_bytes(b"\0\1" * len(lengths), "big")
    return int.from_bytes(totals, "big") + room == int.from_bytes(frames.tobytes(), "big")


def _flows(decider: Decider, context: int, keys: Iterable[int]) -> list[Decision]:
    """Return the decision for each key; those that the cache does not have are made."""
    cached = decider.flows(context).get
    generation = decider.generation
    found = list(map(cached, keys))
    for flow in set(found):
        if flow is None or flow.generation != generation:
            break
    else:
        return cast("list[Decision]", found)
    for index, key in enumerate(keys):
        flow = cached(key)
        if flow is None or flow.generation != generation:
            flow = decider.decide(context, key)
        found[index] = flow
    return cast("list[Decision]", found)


def _to_asp(whole: Columns, flags: bytes, alike: bool) -> list[bool]:
    """Return whether an ASP takes packets to an address that it owns: for each packet, or once for all.

    `flags` are fragment word, TTL and protocol of each, `alike` says that they are the same. Empty: the loop is to
    find out. See `classify_loop`.
    """
    takers = (flags[3:4] if alike else flags[3::4]).translate(_TAKEN_BY)
    most = max(takers)
    if most == _BY_MESSAGE:
        return []
    # Only the first fragment has the ports.
    if most != _BY_PORT or (alike and int.from_bytes(flags[:2], "big") & FRAGMENT_MASK):
        asp = [bool(taker) for taker in takers]
        return asp[:1] if len(set(asp)) == 1 else asp
    if (whole.stride or min(whole.lengths)) < _PORT_AT + 2:
        return []
    ports = whole.extract(_PORT_AT, 2)
    if alike and ports == ports[:2] * whole.count:
        return [int.from_bytes(ports[:2], "big") in IPSEC_PORTS]
    words = struct.unpack(f"!{2 * whole.count}H", flags)[::2]
    return [
        taker == _ASP or (taker == _BY_PORT and (port in IPSEC_PORTS or word & FRAGMENT_MASK != 0))
        for taker, port, word in zip(
            takers if len(takers) > 1 else takers * whole.count,
            struct.unpack(f"!{whole.count}H", ports),
            words,
            strict=True,
        )
    ]


def _asps_or_local(found: list[Decision], to_asp: list[bool]) -> list[Decision]:
    """Return the decisions of packets, where those for an address that an ASP owns are the ASP's or the local
    stack's."""
    own = ASP_ADDRESS
    return [
        flow if flow.kind is not own else flow.to_decapsulate if taken else flow.to_local
        for flow, taken in zip(found, to_asp if len(to_asp) > 1 else to_asp * len(found), strict=True)
    ]


def _split(
    whole: Columns, found: list[Decision], decisions: list[Decision], body: Writable, lengths: array[int]
) -> list[Group]:
    """Return the groups of packets whose decisions are `found`; `decisions` are these, each once, in order."""
    stride = whole.stride
    if not stride:
        runs: list[tuple[Decision, int, int]] = []
        current: Decision | None = None
        for index, (decision, at) in enumerate(zip(found, whole.starts.tolist(), strict=True)):
            if decision is not current:
                runs.append((decision, index, at))
                current = decision
        return split(runs, body, lengths, len(body))
    numbers = {decision: number for number, decision in enumerate(decisions)}
    ranks = np.fromiter(map(numbers.__getitem__, found), np.uint16, whole.count)
    view = whole.cells(0, stride)[ranks.argsort(kind="stable")].view(np.uint8).data
    groups: list[Group] = []
    at = 0
    for decision, packets in zip(decisions, np.bincount(ranks).tolist(), strict=True):
        end = at + packets * stride
        groups.append((decision, view[at:end], lengths[:packets]))
        at = end
    return groups
