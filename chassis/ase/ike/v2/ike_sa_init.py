"""IKE_SA_INIT in both roles: algorithms, keys, cookies, NAT detection (RFC 7296 1.2, 2.6, 2.7, 2.14, 2.23)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import ClassVar

from chassis.ase.ike.connections import Connection
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
from chassis.ase.ike.host import NetworkPath
from chassis.ase.ike.ike_proposals import ChoiceV2, choose_v2, offer_v2
from chassis.ase.ike.payloads.chain import PayloadError
from chassis.ase.ike.payloads.numbers import ExchangeType, NotifyTypeV2
from chassis.ase.ike.payloads.v2 import MessageV2, PayloadV2, find_notify
from chassis.ase.ike.payloads.v2_payloads import KeV2, NonceV2, NotifyV2
from chassis.ase.ike.v2.ike_auth import IkeAuthTask, cert_requests, hash_notify, peer_hashes
from chassis.ase.ike.v2.ike_sa import IkeSa, IkeSaEvent, NatStatus, Task
from chassis.ase.ike.v2.keymat import NONCE_OCTETS, IkeSaKeymat, key_exchange_payloads, shared_secret
from chassis.model.ike import IkeProposal

MAX_INIT_REQUESTS = 5
"""IKE_SA_INIT requests of one attempt (count): with a cookie, another group, a new cookie, and one to spare."""

_NO_SPI = bytes(8)


def _nat_hash(spi_i: bytes, spi_r: bytes, address: int, port: int) -> bytes:
    data = spi_i + spi_r + address.to_bytes(4, "big") + port.to_bytes(2, "big")
    return hashlib.sha1(data, usedforsecurity=False).digest()


def nat_notifications(spi_i: bytes, spi_r: bytes, path: NetworkPath) -> tuple[NotifyV2, NotifyV2]:
    """Return the hashes of the addresses that a message is sent from and to; `spi_r` is zero in the request."""
    source = _nat_hash(spi_i, spi_r, path.local, path.local_port)
    destination = _nat_hash(spi_i, spi_r, path.remote, path.remote_port)
    return (
        NotifyV2(NotifyTypeV2.NAT_DETECTION_SOURCE_IP, source),
        NotifyV2(NotifyTypeV2.NAT_DETECTION_DESTINATION_IP, destination),
    )


def detect_nat(payloads: Iterable[PayloadV2], spi_i: bytes, spi_r: bytes, path: NetworkPath) -> NatStatus:
    """Compare the peer's hashes with the addresses seen here; a peer that sends none does no NAT traversal."""
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


def _store_peer_capabilities(sa: IkeSa, payloads: tuple[PayloadV2, ...], path: NetworkPath) -> None:
    """Store what the peer's IKE_SA_INIT message announces: NAT detection, fragmentation, signature hashes."""
    sa.nat = detect_nat(payloads, sa.spi_i, sa.spi_r if sa.initiator else _NO_SPI, path)
    sa.fragmentation = find_notify(payloads, NotifyTypeV2.FRAGMENTATION_SUPPORTED) is not None
    sa.signature_hashes = peer_hashes(payloads)


class IkeSaInitTask(Task):
    """The initiator's IKE_SA_INIT request, sent again with the cookie or the group that the responder asks for."""

    exchange_type: ClassVar[int] = ExchangeType.IKE_SA_INIT
    bound_to_ike_sa: ClassVar[bool] = True

    def __init__(self) -> None:
        self._nonce = b""
        self._dh_key: DhKeyPair | None = None
        self._cookie = b""
        self._group = 0
        self._requests = 0

    def build_request(self, sa: IkeSa, now: float) -> tuple[PayloadV2, ...] | None:
        connection = sa.connection
        assert connection is not None
        random = sa.host.random
        self._requests += 1
        group = GROUPS[self._group or connection.proposals[0].dh_group]
        if self._dh_key is None or self._dh_key.group != group.number:
            self._dh_key = group.private(random(group.random_octets))
        self._nonce = self._nonce or random(NONCE_OCTETS)
        cookie = (NotifyV2(NotifyTypeV2.COOKIE, self._cookie),) if self._cookie else ()
        return (
            *cookie,
            offer_v2(connection.proposals),
            KeV2(group.number, self._dh_key.public),
            NonceV2(self._nonce),
            *nat_notifications(sa.spi, _NO_SPI, sa.path),
            NotifyV2(NotifyTypeV2.FRAGMENTATION_SUPPORTED),
            hash_notify(),
        )

    def on_init_response(self, sa: IkeSa, message: MessageV2, data: bytes, path: NetworkPath, now: float) -> None:
        """Handle the response, which is in clear: nothing in it is authentic before IKE_AUTH."""
        if self._retry_requested(sa, message.payloads, now):
            return
        try:
            error = find_error_notify(message.payloads)
            if error is not None:
                text = f"the peer refuses the IKE SA: {notify_name_v2(error.notify)}"
                raise error_v2(error.notify, text, error.data)
            sa.check_payloads(message.payloads, now)
            self._derive_keys(sa, message, data, path, now)
        except PayloadError as malformed:
            sa.log_payload_error(malformed, now)  # It may be forged: wait for the peer's own response.
        except NegotiationError as failed:
            sa.abort(failed, now)

    def _retry_requested(self, sa: IkeSa, payloads: tuple[PayloadV2, ...], now: float) -> bool:
        """Return whether the responder wants a cookie or another group; if it does, send the request again."""
        connection = sa.connection
        assert connection is not None
        for one in payloads:
            if not isinstance(one, NotifyV2) or self._requests >= MAX_INIT_REQUESTS:
                continue
            if one.notify == NotifyTypeV2.COOKIE and 0 < len(one.data) <= 64:
                self._cookie = one.data
            elif one.notify == NotifyTypeV2.INVALID_KE_PAYLOAD and len(one.data) == 2:
                group = int.from_bytes(one.data, "big")
                is_other = self._dh_key is not None and group != self._dh_key.group
                if not is_other or not any(own.dh_group == group for own in connection.proposals):
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

    def _derive_keys(self, sa: IkeSa, message: MessageV2, data: bytes, path: NetworkPath, now: float) -> None:
        """Derive the keys and continue with IKE_AUTH.

        Raises:
            NegotiationError: the response is not an answer to our offer.
        """
        connection = sa.connection
        assert connection is not None
        assert self._dh_key is not None
        header, payloads = message.header, message.payloads
        if header.spi_r == _NO_SPI:
            raise syntax_error_v2("the responder has no SPI")
        chosen, nonce, ke = key_exchange_payloads(payloads)
        choice = choose_v2(chosen, connection.proposals)
        if not isinstance(choice, ChoiceV2):
            raise no_proposal_v2(choice, "IKE")
        if not choice.group == ke.group == self._dh_key.group:
            raise syntax_error_v2("the responder answered with another group")
        g_ir = shared_secret(self._dh_key, ke)
        sa.task_manager.complete()
        sa.peer_spi = header.spi_r
        sa.first_message_received = data
        sa.nonces = (self._nonce, nonce.value)
        seed = skeyseed(choice.prf, self._nonce, nonce.value, g_ir)
        sa.keymat = IkeSaKeymat.make(choice, seed, *sa.nonces, sa.spi_i, sa.spi_r, initiator=True)
        _store_peer_capabilities(sa, payloads, path)
        if sa.nat.detected:
            sa.path = sa.path.floated()
        sa.transition(IkeSaEvent.KEYS_DERIVED)
        sa.task_manager.enqueue(IkeAuthTask())
        sa.send_next_request(now)


class IkeSaInitResponder:
    """The responder's side. A request without an acceptable offer ends the IKE SA at once: no state is kept."""

    def __init__(self, sa: IkeSa, path: NetworkPath, now: float) -> None:
        self._sa = sa
        self._now = now
        sa.path = path

    def respond(self, message: MessageV2, data: bytes) -> None:
        """Respond to an IKE_SA_INIT request; `data` are its octets."""
        sa, now = self._sa, self._now
        try:
            self._accept(message, data)
        except PayloadError as malformed:
            sa.log_payload_error(malformed, now)
            self.refuse_malformed(malformed)
        except NegotiationError as refused:
            sa.reply((notify_payload_v2(refused),), now)
            if refused.notify == NotifyTypeV2.INVALID_KE_PAYLOAD:
                sa.host.count("INVALID_KE_PAYLOAD sent")
                sa.terminate(refused.text, now)
            else:
                sa.abort(refused, now)

    def refuse_malformed(self, error: PayloadError) -> None:
        """Tell the peer that its request does not decode."""
        self._sa.reply((NotifyV2(error.notify or NotifyTypeV2.INVALID_SYNTAX, error.data),), self._now)
        self._sa.abort(syntax_error_v2(str(error)), self._now)

    def _accept(self, message: MessageV2, data: bytes) -> None:
        """Choose a proposal, respond and derive the keys.

        Raises:
            PayloadError: an unknown payload is critical.
            NegotiationError: the offer is not acceptable.
        """
        sa, host, path = self._sa, self._sa.host, self._sa.path
        sa.check_payloads(message.payloads, self._now)
        group = host.group(path.context, path.local, path.remote, 2)
        on_demand = host.on_demand(path.context, path.local, 2)
        if group is None and on_demand is None:
            raise error_v2(NotifyTypeV2.NO_PROPOSAL_CHOSEN, "no tunnel is configured with this peer")
        members: tuple[Connection, ...] = () if group is None else group.members
        proposals: tuple[IkeProposal, ...] = () if group is None else group.proposals
        if on_demand is not None:
            # IKE_AUTH tells which tunnel is meant: it must have the proposal that is chosen here.
            members = (*members, *on_demand.connections)
            proposals = tuple({one.name: one for one in (*proposals, *on_demand.proposals)}.values())
        offered, nonce, ke = key_exchange_payloads(message.payloads)
        choice = choose_v2(offered, proposals)
        if not isinstance(choice, ChoiceV2):
            raise no_proposal_v2(choice, "IKE")
        if ke.group != choice.group:
            text = f"group {ke.group} for group {choice.group}"
            raise error_v2(NotifyTypeV2.INVALID_KE_PAYLOAD, text, choice.group.to_bytes(2, "big"))
        dh_group = GROUPS[choice.group]
        dh_key = dh_group.private(host.random(dh_group.random_octets))
        g_ir = shared_secret(dh_key, ke)
        sa.first_message_received = data
        sa.nonces = (nonce.value, host.random(NONCE_OCTETS))
        _store_peer_capabilities(sa, message.payloads, path)
        requests = next((cert_requests(one) for one in members if cert_requests(one)), ())
        sa.transition(IkeSaEvent.INIT_RECEIVED)
        sa.reply(
            (
                choice.answer,
                KeV2(choice.group, dh_key.public),
                NonceV2(sa.nonces[1]),
                *nat_notifications(sa.spi_i, sa.spi_r, path),
                *requests,
                NotifyV2(NotifyTypeV2.FRAGMENTATION_SUPPORTED),
                hash_notify(),
            ),
            self._now,
        )
        seed = skeyseed(choice.prf, *sa.nonces, g_ir)
        sa.keymat = IkeSaKeymat.make(choice, seed, *sa.nonces, sa.spi_i, sa.spi_r, initiator=False)
