"""CREATE_CHILD_SA that rekeys the IKE SA, whose CHILD SAs migrate to the successor (RFC 7296 1.3.2, 2.8, 2.18).

If both ends rekey at once there are two successors. The one with the lowest of the four nonces is redundant: the
end that initiated it deletes it (RFC 7296 2.8.2).
"""

from __future__ import annotations

from typing import ClassVar

from chassis.ase.ike.crypto.diffie_hellman import GROUPS, DhKeyPair
from chassis.ase.ike.crypto.ikev2 import skeyseed_rekey
from chassis.ase.ike.errors import (
    NegotiationError,
    error_v2,
    find_error_notify,
    no_proposal_v2,
    notify_name_v2,
    notify_payload_v2,
    syntax_error_v2,
)
from chassis.ase.ike.ike_proposals import ChoiceV2, choose_v2, offer_v2
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV2
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import KeV2, NonceV2
from chassis.ase.ike.v2.ike_sa import IkeSa, IkeSaEvent, IkeSaState, Task
from chassis.ase.ike.v2.keymat import NONCE_OCTETS, IkeSaKeymat, key_exchange_payloads, shared_secret


class RekeyIkeSaTask(Task):
    """Our request to replace the IKE SA. `group` is the DH group that the peer asked for; 0 is our first one."""

    exchange_type: ClassVar[int] = ExchangeType.CREATE_CHILD_SA
    bound_to_ike_sa: ClassVar[bool] = True
    replaces_ike_sa: ClassVar[bool] = True

    def __init__(self, group: int = 0) -> None:
        self._group = group
        self._spi = b""
        self._nonce = b""
        self._dh_key: DhKeyPair | None = None

    def build_request(self, sa: IkeSa, now: float) -> tuple[PayloadV2, ...] | None:
        connection = sa.connection
        if connection is None or not sa.allows(IkeSaEvent.REKEY) or not connection.proposals:
            return None
        sa.transition(IkeSaEvent.REKEY)
        random = sa.host.random
        group = GROUPS[self._group or connection.proposals[0].dh_group]
        self._dh_key = group.private(random(group.random_octets))
        self._spi = sa.host.new_ike_spi()
        self._nonce = random(NONCE_OCTETS)
        offer = offer_v2(connection.proposals, self._spi)
        return (offer, NonceV2(self._nonce), KeV2(group.number, self._dh_key.public))

    def on_response(self, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
        try:
            successor = self._create_successor(sa, payloads, now)
        except NegotiationError as error:
            self._fail(sa, error, now)
            return
        host = sa.host
        peers = sa.colliding_successor
        if sa.state is not IkeSaState.REKEYING:
            successor.close("the IKE SA that it replaces is deleted", now)
            host.register_session(successor)
            return
        if peers is None or peers.closed or successor.lowest_nonce > peers.lowest_nonce:
            if peers is not None and not peers.closed:
                peers.deadline = now + host.settings.half_open_timeout
                host.register_session(peers)
            sa.migrate_children(successor, now)
            sa.close("rekeyed", now)
            return
        # Ours has the lowest of the four nonces, so it is redundant, and ours to delete.
        host.count("rekey collisions lost")
        successor.close("redundant", now)
        host.register_session(successor)
        sa.migrate_children(peers, now)

    def _create_successor(self, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> IkeSa:
        """Return the successor in standby.

        Raises:
            NegotiationError: the peer refuses, or its response is not an answer to our offer.
        """
        error = find_error_notify(payloads)
        if error is not None:
            text = f"the peer refuses a new IKE SA: {notify_name_v2(error.notify)}"
            raise error_v2(error.notify, text, error.data)
        assert self._dh_key is not None
        assert sa.connection is not None
        chosen, nonce, ke = key_exchange_payloads(payloads)
        choice = choose_v2(chosen, sa.connection.proposals)
        if not isinstance(choice, ChoiceV2):
            raise no_proposal_v2(choice, "IKE")
        if not choice.group == ke.group == self._dh_key.group:
            raise syntax_error_v2("the peer answered with another group")
        g_ir = shared_secret(self._dh_key, ke)
        nonces = self._nonce, nonce.value
        peer_spi = chosen.proposals[0].spi
        return _create_successor(sa, choice, self._spi, peer_spi, nonces, g_ir, now, initiator=True)

    def _fail(self, sa: IkeSa, error: NegotiationError, now: float) -> None:
        """Continue with the peer's successor if there is one; else keep the IKE SA and try again."""
        if sa.state is not IkeSaState.REKEYING:
            return
        if sa.colliding_successor is not None and not sa.colliding_successor.closed:
            sa.migrate_children(sa.colliding_successor, now)
            return
        sa.transition(IkeSaEvent.REKEY_FAILED)
        if error.notify == NotifyTypeV2.INVALID_KE_PAYLOAD and not self._group and len(error.data) == 2:
            group = int.from_bytes(error.data, "big")
            assert sa.connection is not None
            if any(own.dh_group == group for own in sa.connection.proposals):
                sa.enqueue_task(RekeyIkeSaTask(group))
                return
        if error.notify == NotifyTypeV2.TEMPORARY_FAILURE:
            sa.retry_task_later(RekeyIkeSaTask(), now)
            return
        _log_failure(sa, error, now)
        sa.host.count(f"refused {error.failure.cause}")
        sa.soft = now + max((sa.hard - now) / 4, 1.0)

    def on_malformed_response(self, sa: IkeSa, reason: str, now: float) -> None:
        self._fail(sa, syntax_error_v2(reason), now)


def _create_successor(
    sa: IkeSa,
    choice: ChoiceV2,
    spi: bytes,
    peer_spi: bytes,
    nonces: tuple[bytes, bytes],
    g_ir: bytes,
    now: float,
    *,
    initiator: bool,
) -> IkeSa:
    """Return the successor in standby. `spi` is ours; `nonces` are the initiator's and the responder's.

    Raises:
        NegotiationError: the peer's SPI is invalid.
    """
    if len(peer_spi) != 8 or not any(peer_spi):
        raise syntax_error_v2("a new IKE SA without an SPI")
    old = sa.ike_keymat
    seed = skeyseed_rekey(old.choice.prf, old.keys.d, g_ir, *nonces)
    successor = type(sa)(sa.host, sa.path, sa.connection, initiator, spi, peer_spi)
    successor.keymat = IkeSaKeymat.make(
        choice, seed, *nonces, successor.spi_i, successor.spi_r, initiator=initiator
    )
    successor.lowest_nonce = min(nonces)
    successor.nat, successor.fragmentation = sa.nat, sa.fragmentation
    successor.peer_identity = sa.peer_identity
    successor.transition(IkeSaEvent.STAND_BY)
    successor.start_lifetime(now)
    successor.deadline = now + sa.host.settings.half_open_timeout
    return successor


def _log_failure(sa: IkeSa, error: NegotiationError, now: float) -> None:
    sa.host.log_own(f"rekey {error.failure.cause}", "warning", error.text, sa, sa.path, now)


def respond(sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
    """Respond to the peer's request to replace the IKE SA."""
    try:
        successor, response = _accept(sa, payloads, now)
    except NegotiationError as refused:
        sa.reply((notify_payload_v2(refused),), now)
        sa.host.count(f"refused {refused.failure.cause}")
        if refused.notify == NotifyTypeV2.NO_PROPOSAL_CHOSEN:
            _log_failure(sa, refused, now)
        return
    sa.host.register_session(successor)
    sa.reply(response, now)
    if sa.state is IkeSaState.REKEYING:
        sa.colliding_successor = successor
    else:
        sa.migrate_children(successor, now)


def _accept(sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> tuple[IkeSa, tuple[PayloadV2, ...]]:
    """Return (the successor in standby, the payloads of the response).

    Raises:
        NegotiationError: the IKE SA cannot be rekeyed now, or the offer is not acceptable.
    """
    if sa.state not in (IkeSaState.ESTABLISHED, IkeSaState.REKEYING) or sa.colliding_successor is not None:
        raise error_v2(NotifyTypeV2.TEMPORARY_FAILURE, "the IKE SA is replaced or deleted already")
    if sa.child_exchange_pending:
        raise error_v2(NotifyTypeV2.TEMPORARY_FAILURE, "a CHILD SA is being negotiated or deleted")
    connection, random = sa.connection, sa.host.random
    assert connection is not None
    offered, nonce, ke = key_exchange_payloads(payloads)
    spi = sa.host.new_ike_spi()
    choice = choose_v2(offered, connection.proposals, spi)
    if not isinstance(choice, ChoiceV2):
        raise no_proposal_v2(choice, "IKE")
    if ke.group != choice.group:
        text = f"group {ke.group} for group {choice.group}"
        raise error_v2(NotifyTypeV2.INVALID_KE_PAYLOAD, text, choice.group.to_bytes(2, "big"))
    number = choice.answer.proposals[0].number
    peer_spi = next((one.spi for one in offered.proposals if one.number == number), b"")
    group = GROUPS[choice.group]
    dh_key = group.private(random(group.random_octets))
    nonces = nonce.value, random(NONCE_OCTETS)
    g_ir = shared_secret(dh_key, ke)
    successor = _create_successor(sa, choice, spi, peer_spi, nonces, g_ir, now, initiator=False)
    return successor, (choice.answer, NonceV2(nonces[1]), KeV2(group.number, dh_key.public))
