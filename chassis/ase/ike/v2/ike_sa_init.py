"""NAT detection (RFC 7296 2.23): hashes of both ends' addresses as their senders see them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from chassis.ase.ike.crypto.diffie_hellman import GROUPS, DhKeyPair
from chassis.ase.ike.crypto.ikev2 import skeyseed
from chassis.ase.ike.errors import (
    NegotiationError,
    error_v2,
    find_error_notify,
    no_proposal_v2,
    notify_name_v2,
    notify_payload_v2,
    syntax_error_v2,
)
from chassis.ase.ike.host import Path
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV2
from chassis.ase.ike.payloads.v2 import MessageV2, PayloadV2
from chassis.ase.ike.payloads.v2_payloads import KeV2, NonceV2, NotifyV2
from chassis.ase.ike.proposals import ChoiceV2, choose_v2, offer_v2
from chassis.ase.ike.v2 import ike_auth
from chassis.ase.ike.v2.ike_auth import IkeAuthTask
from chassis.ase.ike.v2.ike_sa import IkeSaEvent, IkeSaState, Task
from chassis.ase.ike.v2.keymat import IkeSaKeymat
from chassis.ase.ike.v2.rekey_ike_sa import NONCE_OCTETS, parts, shared_secret

if TYPE_CHECKING:
    from chassis.ase.ike.v2.session import SessionV2


def _nat_hash(spi_i: bytes, spi_r: bytes, address: int, port: int) -> bytes:
    data = spi_i + spi_r + address.to_bytes(4, "big") + port.to_bytes(2, "big")
    return hashlib.sha1(data, usedforsecurity=False).digest()


def nat_notifications(spi_i: bytes, spi_r: bytes, path: Path) -> tuple[NotifyV2, NotifyV2]:
    """What a message says about where it is sent from and to; `spi_r` is zero in the request."""
    return (
        NotifyV2(NotifyTypeV2.NAT_DETECTION_SOURCE_IP, _nat_hash(spi_i, spi_r, path.local, path.local_port)),
        NotifyV2(
            NotifyTypeV2.NAT_DETECTION_DESTINATION_IP, _nat_hash(spi_i, spi_r, path.remote, path.remote_port)
        ),
    )


@dataclass(frozen=True, slots=True)
class NatStatus:
    """Which end is behind a NAT, as far as the peer can tell."""

    local_behind_nat: bool = False
    peer_behind_nat: bool = False

    @property
    def detected(self) -> bool:
        return self.local_behind_nat or self.peer_behind_nat


def detect_nat(payloads: Iterable[PayloadV2], spi_i: bytes, spi_r: bytes, path: Path) -> NatStatus:
    """What the peer's message says; a peer that says nothing does no NAT traversal."""
    sources: list[bytes] = []
    destinations: list[bytes] = []
    for one in payloads:
        if isinstance(one, NotifyV2) and one.notify == NotifyTypeV2.NAT_DETECTION_SOURCE_IP:
            sources.append(one.data)
        elif isinstance(one, NotifyV2) and one.notify == NotifyTypeV2.NAT_DETECTION_DESTINATION_IP:
            destinations.append(one.data)
    if not sources or not destinations:
        return NatStatus()
    return NatStatus(
        local_behind_nat=_nat_hash(spi_i, spi_r, path.local, path.local_port) not in destinations,
        peer_behind_nat=_nat_hash(spi_i, spi_r, path.remote, path.remote_port) not in sources,
    )


MAX_INIT_REQUESTS = 5
"""Requests of one attempt: with a cookie, with another group, with a new cookie, and one to spare."""

_NO_SPI = bytes(8)


class IkeSaInitTask(Task):
    """The initiator's first request, made again with what the responder asks for."""

    exchange_type: ClassVar[int] = ExchangeType.IKE_SA_INIT
    bound_to_ike_sa: ClassVar[bool] = True

    def __init__(self) -> None:
        self._nonce = b""
        self._pair: DhKeyPair | None = None
        self._cookie = b""
        self._group = 0
        self._rounds = 0

    def build_request(self, session: SessionV2, now: float) -> tuple[PayloadV2, ...] | None:
        connection = session.connection
        assert connection is not None
        random = session.host.random
        self._rounds += 1
        group = GROUPS[self._group or connection.proposals[0].dh_group]
        if self._pair is None or self._pair.group != group.number:
            self._pair = group.private(random(group.random_octets))
        self._nonce = self._nonce or random(NONCE_OCTETS)
        cookie = (NotifyV2(NotifyTypeV2.COOKIE, self._cookie),) if self._cookie else ()
        return (
            *cookie,
            offer_v2(connection.proposals),
            KeV2(group.number, self._pair.public),
            NonceV2(self._nonce),
            *nat_notifications(session.spi, _NO_SPI, session.path),
            NotifyV2(NotifyTypeV2.FRAGMENTATION_SUPPORTED),
            ike_auth.hash_notify(),
        )

    def on_init_response(
        self, session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float
    ) -> None:
        """The responder's answer, in clear: nothing in it is proven before IKE_AUTH."""
        if self._retry_requested(session, message.payloads, now):
            return
        try:
            error = find_error_notify(message.payloads)
            if error is not None:
                raise error_v2(
                    error.notify, f"the peer refuses the IKE SA: {notify_name_v2(error.notify)}", error.data
                )
            session.check_payloads(message.payloads, now)
            self._derive_keys(session, message, data, path, now)
        except PayloadError as wrong:
            session.log_payload_error(wrong, now)  # Perhaps not the peer's: its own answer may still come.
        except NegotiationError as refused:
            session.abort(refused, now)

    def _retry_requested(self, session: SessionV2, payloads: tuple[PayloadV2, ...], now: float) -> bool:
        """Whether the responder wants the same request with a cookie, or with another group."""
        connection = session.connection
        assert connection is not None
        for one in payloads:
            if not isinstance(one, NotifyV2) or self._rounds >= MAX_INIT_REQUESTS:
                continue
            if one.notify == NotifyTypeV2.COOKIE and 0 < len(one.data) <= 64:
                self._cookie = one.data
            elif one.notify == NotifyTypeV2.INVALID_KE_PAYLOAD and len(one.data) == 2:
                group = int.from_bytes(one.data, "big")
                offered = self._pair is not None and group != self._pair.group
                if not offered or not any(own.dh_group == group for own in connection.proposals):
                    continue
                self._group = group
            else:
                continue
            session.host.count(f"retried after {notify_name_v2(one.notify)}")
            session.transition(IkeSaEvent.RETRY_REQUESTED)
            session.task_manager.complete()
            session.task_manager.next_message_id = 0
            session.task_manager.enqueue(self)
            session.send_next_request(now)
            return True
        return False

    def _derive_keys(self, session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float) -> None:
        connection = session.connection
        assert connection is not None
        assert self._pair is not None
        header, payloads = message.header, message.payloads
        if header.spi_r == _NO_SPI:
            raise syntax_error_v2("the responder has no SPI")
        sa, nonce, ke = parts(payloads)
        choice = choose_v2(sa, connection.proposals)
        if not isinstance(choice, ChoiceV2):
            raise no_proposal_v2(choice, "IKE")
        if not choice.group == ke.group == self._pair.group:
            raise syntax_error_v2("the responder answered with another group")
        shared = shared_secret(self._pair, ke)
        session.task_manager.complete()
        session.peer_spi = header.spi_r
        session.first_message_received = data
        session.nonces = (self._nonce, nonce.value)
        seed = skeyseed(choice.prf, self._nonce, nonce.value, shared)
        session.keymat = IkeSaKeymat.make(
            choice, seed, self._nonce, nonce.value, session.spi, header.spi_r, initiator=True
        )
        store_peer_capabilities(session, payloads, path)
        if session.nat.detected:
            session.path = session.path.floated()
        session.transition(IkeSaEvent.KEYS_DERIVED)
        session.task_manager.enqueue(IkeAuthTask())
        session.send_next_request(now)


def store_peer_capabilities(session: SessionV2, payloads: tuple[PayloadV2, ...], path: Path) -> None:
    """What the peer's first message says of itself and of the way between us."""
    spi_r = session.spi_r if session.initiator else _NO_SPI
    session.nat = detect_nat(payloads, session.spi_i, spi_r, path)
    session.fragmentation = any(
        isinstance(one, NotifyV2) and one.notify == NotifyTypeV2.FRAGMENTATION_SUPPORTED for one in payloads
    )
    session.signature_hashes = ike_auth.peer_hashes(payloads)


def respond_to_init(session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float) -> None:
    """The responder's end. What cannot be answered with keys ends the attempt at once: nothing is kept of it."""
    if session.sa.state is not IkeSaState.CREATED:
        session.host.count("messages dropped")
        return
    session.path = path
    try:
        _respond_with_keys(session, message, data, path, now)
    except PayloadError as error:
        session.log_payload_error(error, now)
        _refuse(session, error, now)
    except NegotiationError as refused:
        session.reply((notify_payload_v2(refused),), now)
        if refused.notify == NotifyTypeV2.INVALID_KE_PAYLOAD:
            session.host.count("INVALID_KE_PAYLOAD sent")
            session.terminate(refused.text, now)
        else:
            session.abort(refused, now)


def unreadable(session: SessionV2, error: PayloadError, path: Path, now: float) -> None:
    """The responder's end of a first message that is none: the peer is told, and nothing is kept."""
    session.path = path
    _refuse(session, error, now)


def _refuse(session: SessionV2, error: PayloadError, now: float) -> None:
    session.reply((NotifyV2(error.notify or NotifyTypeV2.INVALID_SYNTAX, error.data),), now)
    session.abort(syntax_error_v2(str(error)), now)


def _respond_with_keys(session: SessionV2, message: MessageV2, data: bytes, path: Path, now: float) -> None:
    session.check_payloads(message.payloads, now)
    host = session.host
    group = host.group(path.context, path.local, path.remote, 2)
    if group is None:
        raise error_v2(NotifyTypeV2.NO_PROPOSAL_CHOSEN, "no tunnel is configured with this peer")
    sa, nonce, ke = parts(message.payloads)
    choice = choose_v2(sa, group.proposals)
    if not isinstance(choice, ChoiceV2):
        raise no_proposal_v2(choice, "IKE")
    if ke.group != choice.group:
        text = f"group {ke.group} for group {choice.group}"
        raise error_v2(NotifyTypeV2.INVALID_KE_PAYLOAD, text, choice.group.to_bytes(2, "big"))
    dh = GROUPS[choice.group]
    pair = dh.private(host.random(dh.random_octets))
    shared = shared_secret(pair, ke)
    ours = host.random(NONCE_OCTETS)
    session.first_message_received = data
    session.nonces = (nonce.value, ours)
    store_peer_capabilities(session, message.payloads, path)
    asked = next((ike_auth.cert_requests(one) for one in group.members if ike_auth.cert_requests(one)), ())
    session.transition(IkeSaEvent.INIT_RECEIVED)
    session.reply(
        (
            choice.answer,
            KeV2(choice.group, pair.public),
            NonceV2(ours),
            *nat_notifications(session.spi_i, session.spi_r, path),
            *asked,
            NotifyV2(NotifyTypeV2.FRAGMENTATION_SUPPORTED),
            ike_auth.hash_notify(),
        ),
        now,
    )
    seed = skeyseed(choice.prf, nonce.value, ours, shared)
    session.keymat = IkeSaKeymat.make(
        choice, seed, nonce.value, ours, session.spi_i, session.spi_r, initiator=False
    )
