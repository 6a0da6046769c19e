"""NAT detection (RFC 7296 2.23): hashes of both ends' addresses as their senders see them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import ClassVar

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
from chassis.ase.ike.v2.ike_sa import IkeSa, IkeSaEvent, IkeSaState, NatStatus, Task
from chassis.ase.ike.v2.keymat import IkeSaKeymat
from chassis.ase.ike.v2.rekey_ike_sa import NONCE_OCTETS, parts, shared_secret


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

    def build_request(self, sa: IkeSa, now: float) -> tuple[PayloadV2, ...] | None:
        connection = sa.connection
        assert connection is not None
        random = sa.host.random
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
            *nat_notifications(sa.spi, _NO_SPI, sa.path),
            NotifyV2(NotifyTypeV2.FRAGMENTATION_SUPPORTED),
            ike_auth.hash_notify(),
        )

    def on_init_response(self, sa: IkeSa, message: MessageV2, data: bytes, path: Path, now: float) -> None:
        """The responder's answer, in clear: nothing in it is proven before IKE_AUTH."""
        if self._retry_requested(sa, message.payloads, now):
            return
        try:
            error = find_error_notify(message.payloads)
            if error is not None:
                raise error_v2(
                    error.notify, f"the peer refuses the IKE SA: {notify_name_v2(error.notify)}", error.data
                )
            sa.check_payloads(message.payloads, now)
            self._derive_keys(sa, message, data, path, now)
        except PayloadError as wrong:
            sa.log_payload_error(wrong, now)  # Perhaps not the peer's: its own answer may still come.
        except NegotiationError as refused:
            sa.abort(refused, now)

    def _retry_requested(self, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> bool:
        """Whether the responder wants the same request with a cookie, or with another group."""
        connection = sa.connection
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
            sa.host.count(f"retried after {notify_name_v2(one.notify)}")
            sa.transition(IkeSaEvent.RETRY_REQUESTED)
            sa.task_manager.complete()
            sa.task_manager.next_message_id = 0
            sa.task_manager.enqueue(self)
            sa.send_next_request(now)
            return True
        return False

    def _derive_keys(self, sa: IkeSa, message: MessageV2, data: bytes, path: Path, now: float) -> None:
        connection = sa.connection
        assert connection is not None
        assert self._pair is not None
        header, payloads = message.header, message.payloads
        if header.spi_r == _NO_SPI:
            raise syntax_error_v2("the responder has no SPI")
        sa_payload, nonce, ke = parts(payloads)
        choice = choose_v2(sa_payload, connection.proposals)
        if not isinstance(choice, ChoiceV2):
            raise no_proposal_v2(choice, "IKE")
        if not choice.group == ke.group == self._pair.group:
            raise syntax_error_v2("the responder answered with another group")
        shared = shared_secret(self._pair, ke)
        sa.task_manager.complete()
        sa.peer_spi = header.spi_r
        sa.first_message_received = data
        sa.nonces = (self._nonce, nonce.value)
        seed = skeyseed(choice.prf, self._nonce, nonce.value, shared)
        sa.keymat = IkeSaKeymat.make(choice, seed, self._nonce, nonce.value, sa.spi, header.spi_r, initiator=True)
        store_peer_capabilities(sa, payloads, path)
        if sa.nat.detected:
            sa.path = sa.path.floated()
        sa.transition(IkeSaEvent.KEYS_DERIVED)
        sa.task_manager.enqueue(IkeAuthTask())
        sa.send_next_request(now)


def store_peer_capabilities(sa: IkeSa, payloads: tuple[PayloadV2, ...], path: Path) -> None:
    """What the peer's first message says of itself and of the way between us."""
    spi_r = sa.spi_r if sa.initiator else _NO_SPI
    sa.nat = detect_nat(payloads, sa.spi_i, spi_r, path)
    sa.fragmentation = any(
        isinstance(one, NotifyV2) and one.notify == NotifyTypeV2.FRAGMENTATION_SUPPORTED for one in payloads
    )
    sa.signature_hashes = ike_auth.peer_hashes(payloads)


def respond_to_init(sa: IkeSa, message: MessageV2, data: bytes, path: Path, now: float) -> None:
    """The responder's end. What cannot be answered with keys ends the attempt at once: nothing is kept of it."""
    if sa.state is not IkeSaState.CREATED:
        sa.host.count("messages dropped")
        return
    sa.path = path
    try:
        _respond_with_keys(sa, message, data, path, now)
    except PayloadError as error:
        sa.log_payload_error(error, now)
        _refuse(sa, error, now)
    except NegotiationError as refused:
        sa.reply((notify_payload_v2(refused),), now)
        if refused.notify == NotifyTypeV2.INVALID_KE_PAYLOAD:
            sa.host.count("INVALID_KE_PAYLOAD sent")
            sa.terminate(refused.text, now)
        else:
            sa.abort(refused, now)


def unreadable(sa: IkeSa, error: PayloadError, path: Path, now: float) -> None:
    """The responder's end of a first message that is none: the peer is told, and nothing is kept."""
    sa.path = path
    _refuse(sa, error, now)


def _refuse(sa: IkeSa, error: PayloadError, now: float) -> None:
    sa.reply((NotifyV2(error.notify or NotifyTypeV2.INVALID_SYNTAX, error.data),), now)
    sa.abort(syntax_error_v2(str(error)), now)


def _respond_with_keys(sa: IkeSa, message: MessageV2, data: bytes, path: Path, now: float) -> None:
    sa.check_payloads(message.payloads, now)
    host = sa.host
    group = host.group(path.context, path.local, path.remote, 2)
    if group is None:
        raise error_v2(NotifyTypeV2.NO_PROPOSAL_CHOSEN, "no tunnel is configured with this peer")
    sa_payload, nonce, ke = parts(message.payloads)
    choice = choose_v2(sa_payload, group.proposals)
    if not isinstance(choice, ChoiceV2):
        raise no_proposal_v2(choice, "IKE")
    if ke.group != choice.group:
        text = f"group {ke.group} for group {choice.group}"
        raise error_v2(NotifyTypeV2.INVALID_KE_PAYLOAD, text, choice.group.to_bytes(2, "big"))
    dh = GROUPS[choice.group]
    pair = dh.private(host.random(dh.random_octets))
    shared = shared_secret(pair, ke)
    ours = host.random(NONCE_OCTETS)
    sa.first_message_received = data
    sa.nonces = (nonce.value, ours)
    store_peer_capabilities(sa, message.payloads, path)
    asked = next((ike_auth.cert_requests(one) for one in group.members if ike_auth.cert_requests(one)), ())
    sa.transition(IkeSaEvent.INIT_RECEIVED)
    sa.reply(
        (
            choice.answer,
            KeV2(choice.group, pair.public),
            NonceV2(ours),
            *nat_notifications(sa.spi_i, sa.spi_r, path),
            *asked,
            NotifyV2(NotifyTypeV2.FRAGMENTATION_SUPPORTED),
            ike_auth.hash_notify(),
        ),
        now,
    )
    seed = skeyseed(choice.prf, nonce.value, ours, shared)
    sa.keymat = IkeSaKeymat.make(choice, seed, nonce.value, ours, sa.spi_i, sa.spi_r, initiator=False)
