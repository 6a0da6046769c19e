"""The IKE SA replaced by another one, which takes its pairs over (RFC 7296 1.3.2, 2.8, 2.8.2, 2.18, 2.25.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

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
from chassis.ase.ike.v2.child_sas import ChildSasV2, described
from chassis.ase.ike.v2.ike_sa import IkeSaEvent, IkeSaState, Task
from chassis.ase.ike.v2.keymat import IkeSaKeymat

if TYPE_CHECKING:
    from chassis.ase.ike.v2.session import SessionV2

NONCE_OCTETS = 32
REASON = "rekeyed"


class RekeyIkeSaTask(Task):
    """Our request to replace the IKE SA."""

    exchange_type: ClassVar[int] = ExchangeType.CREATE_CHILD_SA
    bound_to_ike_sa: ClassVar[bool] = True

    def __init__(self, group: int = 0) -> None:
        self._group = group
        self._spi = b""
        self._nonce = b""
        self._dh_key: DhKeyPair | None = None
        self._retried = bool(group)

    def build_request(self, session: SessionV2, now: float) -> tuple[PayloadV2, ...] | None:
        connection = session.connection
        if connection is None or not session.sa.allows(IkeSaEvent.REKEY) or not connection.proposals:
            return None
        session.transition(IkeSaEvent.REKEY)
        random = session.host.random
        group = GROUPS[self._group or connection.proposals[0].dh_group]
        self._dh_key = group.private(random(group.random_octets))
        self._spi = session.host.ike_spi()
        self._nonce = random(NONCE_OCTETS)
        offer = offer_v2(connection.proposals, self._spi)
        return (offer, NonceV2(self._nonce), KeV2(group.number, self._dh_key.public))

    def on_response(self, session: SessionV2, payloads: tuple[PayloadV2, ...], now: float) -> None:
        try:
            new = self._successor(session, payloads, now)
        except NegotiationError as refused:
            self._failed(session, refused, now)
            return
        host = session.host
        rival = session.colliding_successor
        if session.sa.state is not IkeSaState.REKEYING:
            new.close("the IKE SA that it replaces is deleted", now)
            host.adopt(new)
            return
        if rival is None or rival.closed or new.lowest_nonce > rival.lowest_nonce:
            if rival is not None and not rival.closed:
                rival.deadline = now + host.settings.give_up
                host.adopt(rival)
            hand_over(session, new, now)
            session.close(REASON, now)
            return
        # Ours has the lowest of the four nonces, so it is the redundant one, and ours to delete.
        host.count("rekey collisions lost")
        new.close("redundant", now)
        host.adopt(new)
        hand_over(session, rival, now)

    def _successor(self, session: SessionV2, payloads: tuple[PayloadV2, ...], now: float) -> SessionV2:
        error = find_error_notify(payloads)
        if error is not None:
            raise error_v2(
                error.notify, f"the peer refuses a new IKE SA: {notify_name_v2(error.notify)}", error.data
            )
        assert self._dh_key is not None
        assert session.connection is not None
        sa, nonce, ke = parts(payloads)
        choice = choose_v2(sa, session.connection.proposals)
        if not isinstance(choice, ChoiceV2):
            raise no_proposal_v2(choice, "IKE")
        if not choice.group == ke.group == self._dh_key.group:
            raise syntax_error_v2("the peer answered with another group")
        shared = shared_secret(self._dh_key, ke)
        spi = sa.proposals[0].spi
        return succeed(session, choice, self._spi, spi, (self._nonce, nonce.value), shared, now, initiator=True)

    def _failed(self, session: SessionV2, refused: NegotiationError, now: float) -> None:
        if session.sa.state is not IkeSaState.REKEYING:
            return
        if session.colliding_successor is not None and not session.colliding_successor.closed:
            hand_over(session, session.colliding_successor, now)
            return
        session.transition(IkeSaEvent.REKEY_FAILED)
        if refused.notify == NotifyTypeV2.INVALID_KE_PAYLOAD and not self._retried and len(refused.data) == 2:
            group = int.from_bytes(refused.data, "big")
            assert session.connection is not None
            if any(own.dh_group == group for own in session.connection.proposals):
                session.enqueue_task(RekeyIkeSaTask(group))
                return
        if refused.notify == NotifyTypeV2.TEMPORARY_FAILURE:
            session.retry_task_later(RekeyIkeSaTask(), now)
            return
        session.host.say(f"rekey {refused.failure.cause}", "warning", refused.text, session, session.path, now)
        session.host.count(f"refused {refused.failure.cause}")
        session.soft = now + max((session.hard - now) / 4, 1.0)

    def on_malformed_response(self, session: SessionV2, reason: str, now: float) -> None:
        self._failed(session, syntax_error_v2(reason), now)


def parts(payloads: tuple[PayloadV2, ...]) -> tuple[SaV2, NonceV2, KeV2]:
    """What makes up a key exchange; NegotiationError when something is missing."""
    sa = next((one for one in payloads if isinstance(one, SaV2)), None)
    nonce = next((one for one in payloads if isinstance(one, NonceV2)), None)
    ke = next((one for one in payloads if isinstance(one, KeV2)), None)
    if sa is None or nonce is None or ke is None:
        raise syntax_error_v2("SA, nonce or public value is missing")
    return sa, nonce, ke


def shared_secret(pair: DhKeyPair, ke: KeV2) -> bytes:
    """The shared secret; NegotiationError for a public value that is none."""
    try:
        return GROUPS[pair.group].shared(pair, ke.public)
    except GroupError as error:
        raise syntax_error_v2(str(error)) from error


def succeed(
    session: SessionV2,
    choice: ChoiceV2,
    spi: bytes,
    peer_spi: bytes,
    nonces: tuple[bytes, bytes],
    shared: bytes,
    now: float,
    *,
    initiator: bool,
) -> SessionV2:
    """The new IKE SA, standing by. `spi` is ours; `nonces` are the initiator's and the responder's."""
    if len(peer_spi) != 8 or not any(peer_spi):
        raise syntax_error_v2("a new IKE SA without an SPI")
    ring = session.ike_keymat
    ni, nr = nonces
    seed = skeyseed_rekey(ring.choice.prf, ring.keys.d, shared, ni, nr)
    spi_i, spi_r = (spi, peer_spi) if initiator else (peer_spi, spi)
    new = type(session)(session.host, session.path, session.connection, initiator, spi, peer_spi)
    new.keymat = IkeSaKeymat.make(choice, seed, ni, nr, spi_i, spi_r, initiator=initiator)
    new.lowest_nonce = min(nonces)
    new.nat, new.fragmentation = session.nat, session.fragmentation
    new.peer_identity = session.peer_identity
    new.transition(IkeSaEvent.STAND_BY)
    new.start_lifetime(now)
    new.deadline = now + session.host.settings.give_up
    return new


def hand_over(old: SessionV2, new: SessionV2, now: float) -> None:
    """The successor takes the pairs, and what waits to be asked."""
    new.path, new.connection = old.path, old.connection
    new.transition(IkeSaEvent.CHILDREN_MIGRATED)
    new.deadline = float("inf")
    new.child_sas, old.child_sas = old.child_sas, ChildSasV2()
    for task in old.task_manager.clear_queue():
        if not task.bound_to_ike_sa:
            new.task_manager.enqueue(task)
    new.postponed_tasks, old.postponed_tasks = old.postponed_tasks, []
    old.colliding_successor = None
    old.transition(IkeSaEvent.REKEY_DONE)
    old.host.count("IKE SAs rekeyed")
    old.delete_reason = REASON
    old.deadline = now + old.host.settings.give_up
    for child in new.child_sas.by_serial.values():
        old.host.installed(new, described(new, child), now)
    new.send_next_request(now)
    old.host.adopt(new)


def respond(session: SessionV2, payloads: tuple[PayloadV2, ...], now: float) -> None:
    """The peer wants to replace the IKE SA."""
    try:
        new, reply = _answer(session, payloads, now)
    except NegotiationError as refused:
        session.reply((notify_payload_v2(refused),), now)
        session.host.count(f"refused {refused.failure.cause}")
        if refused.notify == NotifyTypeV2.NO_PROPOSAL_CHOSEN:
            session.host.say(f"rekey {refused.failure.cause}", "warning", refused.text, session, session.path, now)
        return
    session.host.adopt(new)
    session.reply(reply, now)
    if session.sa.state is IkeSaState.REKEYING:
        session.colliding_successor = new
    else:
        hand_over(session, new, now)


def _answer(
    session: SessionV2, payloads: tuple[PayloadV2, ...], now: float
) -> tuple[SessionV2, tuple[PayloadV2, ...]]:
    if (
        session.sa.state not in (IkeSaState.ESTABLISHED, IkeSaState.REKEYING)
        or session.colliding_successor is not None
    ):
        raise error_v2(NotifyTypeV2.TEMPORARY_FAILURE, "the IKE SA is replaced or deleted already")
    if session.child_exchange_pending:
        raise error_v2(NotifyTypeV2.TEMPORARY_FAILURE, "a CHILD SA is being negotiated or deleted")
    connection = session.connection
    assert connection is not None
    sa, nonce, ke = parts(payloads)
    spi = session.host.ike_spi()
    choice = choose_v2(sa, connection.proposals, spi)
    if not isinstance(choice, ChoiceV2):
        raise no_proposal_v2(choice, "IKE")
    if ke.group != choice.group:
        text = f"group {ke.group} for group {choice.group}"
        raise error_v2(NotifyTypeV2.INVALID_KE_PAYLOAD, text, choice.group.to_bytes(2, "big"))
    number = choice.answer.proposals[0].number
    peer_spi = next((one.spi for one in sa.proposals if one.number == number), b"")
    group = GROUPS[choice.group]
    pair = group.private(session.host.random(group.random_octets))
    ours = session.host.random(NONCE_OCTETS)
    shared = shared_secret(pair, ke)
    new = succeed(session, choice, spi, peer_spi, (nonce.value, ours), shared, now, initiator=False)
    return new, (choice.answer, NonceV2(ours), KeV2(group.number, pair.public))
