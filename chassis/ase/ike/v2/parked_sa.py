"""An IKE SA of version 2 at rest, as plain values in a few hundred octets, and back.

At rest it is established, no request waits on either side, and each CHILD SA stands. What the configuration has is
left out: the caller has the same `Connection` when it restores the IKE SA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from math import inf
from typing import Any

from chassis.ase.ike.connections import Connection
from chassis.ase.ike.crypto.ikev2 import IkeKeys
from chassis.ase.ike.host import IkeHost, NetworkPath
from chassis.ase.ike.identity import IkeIdentity
from chassis.ase.ike.ike_proposals import ChoiceV2, settled_v2
from chassis.ase.ike.payloads.chain import GENERIC, GENERIC_LENGTH, PayloadError
from chassis.ase.ike.payloads.header import HEADER_LENGTH, INITIATOR, RESPONSE, VERSION_2, Header
from chassis.ase.ike.payloads.numbers import ExchangeType, PayloadTypeV2
from chassis.ase.ike.payloads.v2_payloads import Encrypted
from chassis.ase.ike.retransmit import ReplyCacheV2
from chassis.ase.ike.v2.child_sas import ChildSaState, ChildSaV2
from chassis.ase.ike.v2.ike_sa import NO_DELETES, CurrentRequest, IkeSaState, NatStatus
from chassis.ase.ike.v2.keymat import IkeSaKeymat, encrypt_message
from chassis.ase.ike.v2.session import SessionV2
from chassis.model.acl import AclRule

RESTING_CHILD = (ChildSaState.INSTALLED, ChildSaState.INBOUND_INSTALLED)


def pack_v2(sa: SessionV2) -> tuple[Any, ...] | None:
    """Return the values of an IKE SA; None if it is not at rest, or differs from what is configured."""
    manager, connection, keymat = sa.task_manager, sa.connection, sa.keymat
    if (
        sa.state is not IkeSaState.ESTABLISHED
        or connection is None
        or keymat is None
        or manager.pending_request is not None
        or manager.queue
        or sa.postponed_tasks
        or sa.pending_entries
        or sa.first_child_entry
        or sa.colliding_successor is not None
        or sa.assemblies
        or sa.deadline != inf
        or keymat.choice.proposal not in connection.proposals
    ):
        return None
    children = [_pack_child(child, sa, connection) for child in sa.child_sas.by_serial.values()]
    if None in children:
        return None
    last = manager.last_response
    peer = sa.peer_identity
    return (
        astuple(sa.path),
        sa.initiator,
        sa.spi,
        sa.peer_spi,
        sa.receives,
        (manager.next_message_id, manager.expected_message_id),
        None if last is None else (last.message_id, last.clear, last.datagrams),
        connection.proposals.index(keymat.choice.proposal),
        astuple(keymat.keys),
        keymat.ivs,
        (sa.nat.local_behind_nat, sa.nat.peer_behind_nat),
        sa.fragmentation,
        sa.lowest_nonce,
        None if peer is None else (peer.id_type, peer.data),
        tuple(sa.unknown_deletes),
        (sa.created_at, sa.soft, sa.hard, sa.last_received, sa.last_sent, sa.last_cleartext_error),
        children,
    )


def unpack_v2(host: IkeHost, connection: Connection, values: Sequence[Any], now: float) -> SessionV2:
    """Return the IKE SA that `pack_v2` has packed. Nothing is sent or reported."""
    (
        path, initiator, spi, peer_spi, receives, message_ids, last, proposal, keys, ivs, nat, fragmentation,
        lowest_nonce, peer, unknown_deletes, times, children,
    ) = values  # fmt: skip
    sa = SessionV2(host, NetworkPath(*path), connection, initiator, spi, peer_spi)
    sa.state, sa.established, sa.receives = IkeSaState.ESTABLISHED, True, receives
    manager = sa.task_manager
    manager.next_message_id, manager.expected_message_id = message_ids
    manager.last_response = None if last is None else ReplyCacheV2(*last)
    choice = settled_v2(connection.proposals[proposal])
    sa.keymat = IkeSaKeymat.of(choice, IkeKeys(*keys), initiator=initiator)
    sa.keymat.ivs = ivs
    sa.nat = NatStatus(*nat)
    sa.fragmentation, sa.lowest_nonce = fragmentation, lowest_nonce
    sa.peer_identity = None if peer is None else IkeIdentity(*peer)
    sa.unknown_deletes = frozenset(unknown_deletes) or NO_DELETES
    sa.created_at, sa.soft, sa.hard, sa.last_received, sa.last_sent, sa.last_cleartext_error = times
    sa.current_request = CurrentRequest(sa.path)
    for one in children:
        child, sends = _unpack_child(connection, one)
        sa.child_sas.by_serial[child.serial] = child
        if sends:
            sa.child_sas.current_outbound[child.entry.seq] = child
    return sa


def answer_probe_v2(
    host: IkeHost, choice: ChoiceV2, values: Sequence[Any], data: bytes, way: Sequence[int], now: float
) -> tuple[bytes, tuple[Any, ...]] | None:
    """Return the response to an empty INFORMATIONAL request that came for a packed IKE SA (RFC 7296 1.4), and its
    values after it.

    `choice` is what the SA has chosen, `way` the fields of the path by which the message `data` came. Return None
    for any other message: the IKE SA has to be restored for it.
    """
    (
        path, initiator, spi, peer_spi, receives, message_ids, _, proposal, keys, ivs, nat, fragmentation,
        lowest_nonce, peer, unknown_deletes, times, children,
    ) = values  # fmt: skip
    next_id, expected = message_ids
    spis = (spi, peer_spi) if initiator else (peer_spi, spi)
    start = HEADER_LENGTH + GENERIC_LENGTH
    if path != way or len(data) < start:
        return None
    keymat = IkeSaKeymat.of(choice, IkeKeys(*keys), initiator=initiator)
    keymat.ivs = ivs
    try:
        request = Header.parse(data)
        first, _, size = GENERIC.unpack_from(data, HEADER_LENGTH)
        flags = 0 if initiator else INITIATOR
        wanted = Header(*spis, PayloadTypeV2.SK, VERSION_2, ExchangeType.INFORMATIONAL, flags, expected, len(data))
        if request != wanted or first or size != len(data) - HEADER_LENGTH:
            return None
        if keymat.receiving.decrypt_payload(data, Encrypted(0, data[start:])):
            return None
    except PayloadError:
        return None
    flags = RESPONSE | (INITIATOR if initiator else 0)
    header = Header(*spis, 0, VERSION_2, ExchangeType.INFORMATIONAL, flags, expected, 0)
    response = encrypt_message(keymat, header, (), len(data), host.random, fragment=False)
    created_at, soft, hard, _, _, last_cleartext_error = times
    return response[0], (
        path, initiator, spi, peer_spi, receives, (next_id, expected + 1), (expected, b"", response), proposal,
        keys, keymat.ivs, nat, fragmentation, lowest_nonce, peer, unknown_deletes,
        (created_at, soft, hard, now, now, last_cleartext_error), children,
    )  # fmt: skip


def _pack_child(child: ChildSaV2, sa: SessionV2, connection: Connection) -> tuple[Any, ...] | None:
    entry = connection.entry(child.entry.number)
    if (
        child.state not in RESTING_CHILD
        or child.colliding_child is not None
        or entry != child.entry
        or child.suite not in child.entry.suites
    ):
        return None
    return (
        child.serial,
        child.entry.number,
        child.entry.suites.index(child.suite),
        tuple(child.spis_in.items()),
        tuple(child.spis_out.items()),
        None if child.rules == child.entry.rules else [_pack_rule(rule) for rule in child.rules],
        child.initiator,
        child.lowest_nonce,
        child.replaces,
        child.cpi_out,
        (child.created_at, child.soft, child.hard),
        child.reason,
        RESTING_CHILD.index(child.state),
        sa.child_sas.current_outbound.get(child.entry.seq) is child,
    )


def _unpack_child(connection: Connection, values: Sequence[Any]) -> tuple[ChildSaV2, bool]:
    """Return a CHILD SA, and whether it sends for its policy entry."""
    (
        serial, number, suite, spis_in, spis_out, rules, initiator, lowest_nonce, replaces, cpi_out, times, reason,
        state, sends,
    ) = values  # fmt: skip
    entry = connection.entry(number)
    assert entry is not None
    created_at, soft, hard = times
    child = ChildSaV2(
        entry,
        serial,
        entry.suites[suite],
        dict(spis_in),
        dict(spis_out),
        entry.rules if rules is None else tuple(AclRule(*rule) for rule in rules),
        initiator,
        lowest_nonce,
        replaces,
        cpi_out,
        created_at,
        soft,
        hard,
        reason,
        state=RESTING_CHILD[state],
    )
    return child, sends


def _pack_rule(rule: AclRule) -> tuple[Any, ...]:
    return (
        rule.seq,
        rule.protocol,
        rule.source,
        rule.source_port,
        rule.destination,
        rule.destination_port,
    )
