"""The IKE SA replaced by another one, which takes its pairs over (RFC 7296 1.3.2, 2.8, 2.8.2, 2.18, 2.25.2)."""

from __future__ import annotations

from typing import ClassVar

from chassis.ase.ike.crypto.diffie_hellman import GROUPS, DhKeyPair, GroupError
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
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV2
from chassis.ase.ike.payloads.v2 import PayloadV2
from chassis.ase.ike.payloads.v2_payloads import KeV2, NonceV2
from chassis.ase.ike.payloads.v2_sa import SaV2
from chassis.ase.ike.proposals import ChoiceV2, choose_v2, offer_v2
from chassis.ase.ike.v2.ike_sa import IkeSa, IkeSaEvent, IkeSaState, Task
from chassis.ase.ike.v2.keymat import IkeSaKeymat

NONCE_OCTETS = 32
REASON = "rekeyed"


class RekeyIkeSaTask(Task):
    """Our request to replace the IKE SA."""

    exchange_type: ClassVar[int] = ExchangeType.CREATE_CHILD_SA
    bound_to_ike_sa: ClassVar[bool] = True
    replaces_ike_sa: ClassVar[bool] = True

    def __init__(self, group: int = 0) -> None:
        self._group = group
        self._spi = b""
        self._nonce = b""
        self._dh_key: DhKeyPair | None = None
        self._retried = bool(group)

    def build_request(self, sa: IkeSa, now: float) -> tuple[PayloadV2, ...] | None:
        connection = sa.connection
        if connection is None or not sa.allows(IkeSaEvent.REKEY) or not connection.proposals:
            return None
        sa.transition(IkeSaEvent.REKEY)
        random = sa.host.random
        group = GROUPS[self._group or connection.proposals[0].dh_group]
        self._dh_key = group.private(random(group.random_octets))
        self._spi = sa.host.ike_spi()
        self._nonce = random(NONCE_OCTETS)
        offer = offer_v2(connection.proposals, self._spi)
        return (offer, NonceV2(self._nonce), KeV2(group.number, self._dh_key.public))

    def on_response(self, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
        try:
            new = self._successor(sa, payloads, now)
        except NegotiationError as refused:
            self._failed(sa, refused, now)
            return
        host = sa.host
        rival = sa.colliding_successor
        if sa.state is not IkeSaState.REKEYING:
            new.close("the IKE SA that it replaces is deleted", now)
            host.adopt(new)
            return
        if rival is None or rival.closed or new.lowest_nonce > rival.lowest_nonce:
            if rival is not None and not rival.closed:
                rival.deadline = now + host.settings.give_up
                host.adopt(rival)
            sa.migrate_children(new, now)
            sa.close(REASON, now)
            return
        # Ours has the lowest of the four nonces, so it is the redundant one, and ours to delete.
        host.count("rekey collisions lost")
        new.close("redundant", now)
        host.adopt(new)
        sa.migrate_children(rival, now)

    def _successor(self, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> IkeSa:
        error = find_error_notify(payloads)
        if error is not None:
            raise error_v2(
                error.notify, f"the peer refuses a new IKE SA: {notify_name_v2(error.notify)}", error.data
            )
        assert self._dh_key is not None
        assert sa.connection is not None
        sa_payload, nonce, ke = parts(payloads)
        choice = choose_v2(sa_payload, sa.connection.proposals)
        if not isinstance(choice, ChoiceV2):
            raise no_proposal_v2(choice, "IKE")
        if not choice.group == ke.group == self._dh_key.group:
            raise syntax_error_v2("the peer answered with another group")
        shared = shared_secret(self._dh_key, ke)
        spi = sa_payload.proposals[0].spi
        return succeed(sa, choice, self._spi, spi, (self._nonce, nonce.value), shared, now, initiator=True)

    def _failed(self, sa: IkeSa, refused: NegotiationError, now: float) -> None:
        if sa.state is not IkeSaState.REKEYING:
            return
        if sa.colliding_successor is not None and not sa.colliding_successor.closed:
            sa.migrate_children(sa.colliding_successor, now)
            return
        sa.transition(IkeSaEvent.REKEY_FAILED)
        if refused.notify == NotifyTypeV2.INVALID_KE_PAYLOAD and not self._retried and len(refused.data) == 2:
            group = int.from_bytes(refused.data, "big")
            assert sa.connection is not None
            if any(own.dh_group == group for own in sa.connection.proposals):
                sa.enqueue_task(RekeyIkeSaTask(group))
                return
        if refused.notify == NotifyTypeV2.TEMPORARY_FAILURE:
            sa.retry_task_later(RekeyIkeSaTask(), now)
            return
        sa.host.say(f"rekey {refused.failure.cause}", "warning", refused.text, sa, sa.path, now)
        sa.host.count(f"refused {refused.failure.cause}")
        sa.soft = now + max((sa.hard - now) / 4, 1.0)

    def on_malformed_response(self, sa: IkeSa, reason: str, now: float) -> None:
        self._failed(sa, syntax_error_v2(reason), now)


def parts(payloads: tuple[PayloadV2, ...]) -> tuple[SaV2, NonceV2, KeV2]:
    """What makes up a key exchange; NegotiationError when something is missing."""
    sa_payload = next((one for one in payloads if isinstance(one, SaV2)), None)
    nonce = next((one for one in payloads if isinstance(one, NonceV2)), None)
    ke = next((one for one in payloads if isinstance(one, KeV2)), None)
    if sa_payload is None or nonce is None or ke is None:
        raise syntax_error_v2("SA, nonce or public value is missing")
    return sa_payload, nonce, ke


def shared_secret(pair: DhKeyPair, ke: KeV2) -> bytes:
    """The shared secret; NegotiationError for a public value that is none."""
    try:
        return GROUPS[pair.group].shared(pair, ke.public)
    except GroupError as error:
        raise syntax_error_v2(str(error)) from error


def succeed(
    sa: IkeSa,
    choice: ChoiceV2,
    spi: bytes,
    peer_spi: bytes,
    nonces: tuple[bytes, bytes],
    shared: bytes,
    now: float,
    *,
    initiator: bool,
) -> IkeSa:
    """The new IKE SA, standing by. `spi` is ours; `nonces` are the initiator's and the responder's."""
    if len(peer_spi) != 8 or not any(peer_spi):
        raise syntax_error_v2("a new IKE SA without an SPI")
    ring = sa.ike_keymat
    ni, nr = nonces
    seed = skeyseed_rekey(ring.choice.prf, ring.keys.d, shared, ni, nr)
    spi_i, spi_r = (spi, peer_spi) if initiator else (peer_spi, spi)
    new = type(sa)(sa.host, sa.path, sa.connection, initiator, spi, peer_spi)
    new.keymat = IkeSaKeymat.make(choice, seed, ni, nr, spi_i, spi_r, initiator=initiator)
    new.lowest_nonce = min(nonces)
    new.nat, new.fragmentation = sa.nat, sa.fragmentation
    new.peer_identity = sa.peer_identity
    new.transition(IkeSaEvent.STAND_BY)
    new.start_lifetime(now)
    new.deadline = now + sa.host.settings.give_up
    return new


def respond(sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> None:
    """The peer wants to replace the IKE SA."""
    try:
        new, reply = _answer(sa, payloads, now)
    except NegotiationError as refused:
        sa.reply((notify_payload_v2(refused),), now)
        sa.host.count(f"refused {refused.failure.cause}")
        if refused.notify == NotifyTypeV2.NO_PROPOSAL_CHOSEN:
            sa.host.say(f"rekey {refused.failure.cause}", "warning", refused.text, sa, sa.path, now)
        return
    sa.host.adopt(new)
    sa.reply(reply, now)
    if sa.state is IkeSaState.REKEYING:
        sa.colliding_successor = new
    else:
        sa.migrate_children(new, now)


def _answer(sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> tuple[IkeSa, tuple[PayloadV2, ...]]:
    if sa.state not in (IkeSaState.ESTABLISHED, IkeSaState.REKEYING) or sa.colliding_successor is not None:
        raise error_v2(NotifyTypeV2.TEMPORARY_FAILURE, "the IKE SA is replaced or deleted already")
    if sa.child_exchange_pending:
        raise error_v2(NotifyTypeV2.TEMPORARY_FAILURE, "a CHILD SA is being negotiated or deleted")
    connection = sa.connection
    assert connection is not None
    sa_payload, nonce, ke = parts(payloads)
    spi = sa.host.ike_spi()
    choice = choose_v2(sa_payload, connection.proposals, spi)
    if not isinstance(choice, ChoiceV2):
        raise no_proposal_v2(choice, "IKE")
    if ke.group != choice.group:
        text = f"group {ke.group} for group {choice.group}"
        raise error_v2(NotifyTypeV2.INVALID_KE_PAYLOAD, text, choice.group.to_bytes(2, "big"))
    number = choice.answer.proposals[0].number
    peer_spi = next((one.spi for one in sa_payload.proposals if one.number == number), b"")
    group = GROUPS[choice.group]
    pair = group.private(sa.host.random(group.random_octets))
    ours = sa.host.random(NONCE_OCTETS)
    shared = shared_secret(pair, ke)
    new = succeed(sa, choice, spi, peer_spi, (nonce.value, ours), shared, now, initiator=False)
    return new, (choice.answer, NonceV2(ours), KeV2(group.number, pair.public))
