"""An ISAKMP SA of version 1 at rest, as plain values in a few hundred octets, and back.

At rest it is established and has no successor, no exchange waits for the peer, and the peer is known to have each
CHILD SA. What the configuration has is left out: the caller has the same `Connection` when it restores the SA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from math import inf
from typing import Any

from chassis.ase.ike.child_sa import ChildSa
from chassis.ase.ike.connections import Connection
from chassis.ase.ike.crypto.ikev1 import (
    IvChain,
    SkeyId,
    after_hash,
    decrypt_payloads,
    encryption_key,
    equal,
    quick_hash_1,
)
from chassis.ase.ike.host import IkeHost, NetworkPath
from chassis.ase.ike.identity import IkeIdentity
from chassis.ase.ike.ike_proposals import ChoiceV1, settled_v1
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.header import Header
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV1, Protocol
from chassis.ase.ike.payloads.v1 import Hash, NotifyV1
from chassis.ase.ike.retransmit import DpdState, ReplyCacheV1, is_newer_sequence
from chassis.ase.ike.v1.child_sas import ChildSaV1
from chassis.ase.ike.v1.exchanges import UsedMessageIds
from chassis.ase.ike.v1.isakmp_sa import MAX_NOTIFIES_PER_SECOND, Phase1State
from chassis.ase.ike.v1.keymat import Phase1Negotiation
from chassis.ase.ike.v1.quick_mode import QuickMode, QuickModeState
from chassis.ase.ike.v1.session import SessionV1

_FINISHED = (QuickModeState.DONE, QuickModeState.FAILED)


def pack_v1(sa: SessionV1) -> tuple[Any, ...] | None:
    """Return the values of an ISAKMP SA; None if it is not at rest, or differs from what is configured."""
    phase1, connection = sa.phase1, sa.connection
    keys, chain = phase1.keys, phase1.chain
    if (
        sa.state is not Phase1State.ESTABLISHED
        or connection is None
        or keys is None
        or chain is None
        or sa.successor is not None
        or sa.pending_successor is not None
        or sa.peer_lost_state
        or sa.wanted
        or sa.exchanges.pending
        or sa.delete_at != inf
        or phase1.chosen.proposal not in connection.proposals
    ):
        return None
    children = [_pack_child(child, connection) for child in sa.child_sas.all]
    quick_modes = [_pack_quick_mode(one) for one in sa.exchanges.finished if isinstance(one, QuickMode)]
    if None in children:
        return None
    peer, detector = sa.peer_identity, sa.detector
    return (
        astuple(sa.path),
        sa.initiator,
        (phase1.mode, phase1.cky_i, phase1.cky_r),
        (connection.proposals.index(phase1.chosen.proposal), phase1.chosen.lifetime),
        (keys.skeyid, keys.d, keys.a, keys.e),
        chain.iv,
        (phase1.nat_t, phase1.dpd, phase1.behind_nat, phase1.peer_behind_nat, phase1.peer_initial_contact),
        None if peer is None else (peer.id_type, peer.data),
        None if detector is None else astuple(detector),
        sa.peer_dpd_sequence,
        sa.kept,
        sa.known_messages,
        sa.used_ids.values,
        children,
        quick_modes,
    )


def unpack_v1(host: IkeHost, connection: Connection, values: Sequence[Any], now: float) -> SessionV1:
    """Return the ISAKMP SA that `pack_v1` has packed, without the exchanges that are to be forgotten by now.

    Nothing is sent or reported.
    """
    (
        path, initiator, mode_and_cookies, choice, keys, iv, learnt, peer, detector, peer_dpd_sequence, kept,
        known_messages, used_ids, children, quick_modes,
    ) = values  # fmt: skip
    proposal, lifetime = choice
    phase1 = _unpack_phase_1(settled_v1(connection.proposals[proposal], lifetime), mode_and_cookies, keys, iv)
    phase1.nat_t, phase1.dpd, phase1.behind_nat, phase1.peer_behind_nat, phase1.peer_initial_contact = learnt
    sa = SessionV1(host, NetworkPath(*path), phase1, phase1.cky_i if initiator else phase1.cky_r, initiator)
    sa.connection = connection
    sa.restore(kept)
    sa.peer_identity = None if peer is None else IkeIdentity(*peer)
    sa.detector = None if detector is None else DpdState(*detector)
    sa.peer_dpd_sequence = peer_dpd_sequence
    sa.restore_messages(known_messages)
    sa.used_ids.restore(used_ids)
    sa.child_sas.all = [_unpack_child(connection, one) for one in children]
    assert phase1.chain is not None
    for one in _remembered(quick_modes, now):
        sa.exchanges.add_finished(_unpack_quick_mode(sa, phase1.chain, one))
    return sa


def answer_probe_v1(
    host: IkeHost, choice: ChoiceV1, values: Sequence[Any], data: bytes, way: Sequence[int], now: float
) -> tuple[bytes, tuple[Any, ...]] | None:
    """Return the answer to an R-U-THERE that came for a packed ISAKMP SA (RFC 3706 5.4), and its values after it.

    `choice` is what the SA has chosen, `way` the fields of the path by which the message `data` came. Return None
    for any other message, and for one that is not to be answered: its ISAKMP SA has to be restored for it.
    """
    (
        path, initiator, mode_and_cookies, chosen, keys, iv, learnt, peer, detector, peer_dpd_sequence, kept,
        known_messages, used_ids, children, quick_modes,
    ) = values  # fmt: skip
    *times, second, notifies = kept
    notifies = notifies if second == int(now) else 0
    try:
        header = Header.parse(data)
        header.check()
        phase1 = _unpack_phase_1(choice, mode_and_cookies, keys, iv)
        if (
            path != way
            or header.exchange != ExchangeType.INFORMATIONAL_V1
            or not header.encrypted
            or header.spi_i + header.spi_r != phase1.cookies
            or not header.message_id
            or notifies >= MAX_NOTIFIES_PER_SECOND
        ):
            return None
        ids = UsedMessageIds()
        ids.restore(used_ids)
        if header.message_id in ids:
            return None
        payloads, plain, _ = decrypt_payloads(phase1.exchange_chain(header.message_id), data, header)
    except PayloadError:
        return None
    if len(payloads) != 2:
        return None
    proof, probe = payloads
    if (
        phase1.keys is None
        or not isinstance(proof, Hash)
        or not isinstance(probe, NotifyV1)
        or not equal(proof.value, quick_hash_1(phase1.keys, header.message_id, after_hash(plain)))
        or probe.notify != NotifyTypeV1.R_U_THERE
        or len(probe.data) != 4
    ):
        return None
    number = int.from_bytes(probe.data, "big")
    if not is_newer_sequence(number, peer_dpd_sequence):
        return None
    ids.add(header.message_id, quick=False)
    if detector is not None:
        detector = DpdState(*detector)
        detector.reset(host.settings.probe_due(phase1.cky_i if initiator else phase1.cky_r, now, host.probe_phase))
        detector = astuple(detector)
    answer = NotifyV1(NotifyTypeV1.R_U_THERE_ACK, Protocol.IKE, probe.spi, probe.data)
    message = phase1.informational(ids.new(host.random), (answer,))
    kept = (now, *times[1:], int(now), notifies + 1)
    return message, (
        path, initiator, mode_and_cookies, chosen, keys, iv, learnt, peer, detector, number, kept,
        known_messages, ids.values, children, _remembered(quick_modes, now),
    )  # fmt: skip


def _unpack_phase_1(
    choice: ChoiceV1, mode_and_cookies: tuple[int, bytes, bytes], keys: tuple[bytes, ...], iv: bytes
) -> Phase1Negotiation:
    """Return what phase 1 has agreed, without what it learnt of the peer."""
    phase1 = Phase1Negotiation(*mode_and_cookies, choice=choice)
    phase1.keys = SkeyId(phase1.prf, *keys)
    phase1.chain = IvChain(choice.cipher, encryption_key(phase1.keys, choice.cipher), iv)
    return phase1


def _pack_child(child_sa: ChildSaV1, connection: Connection) -> tuple[Any, ...] | None:
    child = child_sa.child
    entry = connection.entry(child.entry)
    if not child_sa.confirmed or child_sa.delete_at != inf or child_sa.remove_at != inf or entry is None:
        return None
    return (
        child.serial,
        child.entry,
        None if child.remote_networks == entry.remote_networks else child.remote_networks,
        child.replaces,
        child_sa.initiator,
        child_sa.encapsulated,
        tuple(child_sa.spis_in.items()),
        tuple(child_sa.spis_out.items()),
        child_sa.suite,
        (child_sa.created_at, child_sa.soft, child_sa.hard),
        child_sa.sending,
    )


def _unpack_child(connection: Connection, values: Sequence[Any]) -> ChildSaV1:
    serial, number, networks, replaces, initiator, encapsulated, spis_in, spis_out, suite, times, sending = values
    created_at, soft, hard = times
    entry = connection.entry(number)
    assert entry is not None
    networks = entry.remote_networks if networks is None else networks
    child = ChildSa(connection.tunnel, serial, number, networks, replaces)
    return ChildSaV1(
        child, initiator, encapsulated, dict(spis_in), dict(spis_out), suite, True, created_at, soft, hard, sending
    )


def _pack_quick_mode(one: QuickMode) -> tuple[Any, ...]:
    cache = one.reply_cache
    return (
        one.message_id,
        one.initiator,
        _FINISHED.index(one.state),
        one.remove_at,
        (cache.handled, cache.reply, cache.resends),
    )


def _remembered(quick_modes: Sequence[Sequence[Any]], now: float) -> Sequence[Sequence[Any]]:
    """Return the packed quick modes that are not to be forgotten by now."""
    return [one for one in quick_modes if one[3] > now]


def _unpack_quick_mode(sa: SessionV1, chain: IvChain, values: Sequence[Any]) -> QuickMode:
    message_id, initiator, state, remove_at, cache = values
    handled, reply, resends = cache
    return QuickMode(
        sa, message_id, initiator, chain, state=_FINISHED[state], remove_at=remove_at,
        reply_cache=ReplyCacheV1(list(handled), reply, resends),
    )  # fmt: skip
